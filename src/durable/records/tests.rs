//! Records without a store, in a store of their own, and changes that the store has not ended yet.

use super::*;
use crate::{
    durable::SyncPolicy,
    router::{Retained, RetainedLimits},
    store::{Bounds, MemoryStore, Store},
};

fn name(key: &str) -> RecordKey {
    RecordKey::new("ns", key).expect("it is short")
}

fn put(key: &str, value: &'static [u8], expected: Expected) -> Put {
    Put { name: name(key), value: Bytes::from_static(value), expected, expires_at: None }
}

fn without_store() -> StoredRecords {
    StoredRecords::new(None, Clock::start_after(Timestamp(0)), Revision(0))
}

fn in_store(store: Arc<dyn Store>) -> (Arc<Keeper>, StoredRecords) {
    let retained = Arc::new(Retained::new(RetainedLimits { messages_max: 1, bytes_max: 1 }));
    let bounds: Bounds = store.bounds().expect("it is read");
    let keeper = Arc::new(Keeper::new(store, SyncPolicy::Always, &bounds, retained));
    let records =
        StoredRecords::new(Some(keeper.clone()), Clock::start_after(Timestamp(0)), bounds.revision);
    records.restore().expect("it is read");
    keeper.start(Clock::start_after(Timestamp(0)), Arc::new([])).expect("a thread can be started");
    (keeper, records)
}

async fn value(records: &StoredRecords, key: &str) -> Option<Bytes> {
    let record = records.get(&name(key)).await.expect("it is read");
    record.map(|record| record.value)
}

#[actix_rt::test]
async fn a_record_changes_only_if_it_is_the_expected_one() {
    let records = without_store();
    let first = records.put(put("k", b"1", Expected::Absent)).await.expect("it is absent");
    let again = records.put(put("k", b"2", Expected::Absent)).await;
    assert_eq!(again, Err(RecordsError::Conflict(Some(first))));
    let second = records.put(put("k", b"2", Expected::At(first))).await.expect("it is this one");
    assert!(second > first);
    let late = records.remove(name("k"), Expected::At(first)).await;
    assert_eq!(late, Err(RecordsError::Conflict(Some(second))));
    assert_eq!(value(&records, "k").await.as_deref(), Some(&b"2"[..]));
    records.remove(name("k"), Expected::At(second)).await.expect("it is this one");
    assert_eq!(value(&records, "k").await, None);
    records.remove(name("k"), Expected::Any).await.expect("nothing is to be removed");
    let gone = records.put(put("k", b"3", Expected::At(second))).await;
    assert_eq!(gone, Err(RecordsError::Conflict(None)));
    let third = records.put(put("k", b"3", Expected::Any)).await.expect("anything is expected");
    assert!(third > second);
    let long = Put { value: vec![0; VALUE_BYTES_MAX + 1].into(), ..put("k", b"", Expected::Any) };
    assert_eq!(records.put(long).await, Err(RecordsError::TooLong));
}

#[actix_rt::test]
async fn records_are_listed_in_the_order_of_their_keys() {
    let records = without_store();
    for key in ["b", "", "a\u{0}", "a", "ü"] {
        records.put(put(key, b"", Expected::Any)).await.expect("anything is expected");
    }
    let other = RecordKey::new("nt", "a").expect("it is short");
    let other = Put { name: other, ..put("", b"", Expected::Any) };
    records.put(other).await.expect("anything is expected");
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = records.list("ns", after.as_deref(), 2).await.expect("it is read");
        let Some((last, _)) = page.last() else { break };
        after = Some(last.key().to_owned());
        found.extend(page.into_iter().map(|(name, _)| name.key().to_owned()));
    }
    assert_eq!(found, ["", "a", "a\u{0}", "b", "ü"]);
}

#[actix_rt::test]
async fn a_record_that_has_expired_is_absent_and_its_removal_is_told() {
    tokio::time::pause();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let (_keeper, records) = in_store(store.clone());
    let mut watch = records.watch("ns");
    let expires_at = Some(records.clock.now().plus_millis(1_000));
    let first = Put { expires_at, ..put("k", b"1", Expected::Any) };
    let first = records.put(first).await.expect("anything is expected");
    records.put(put("stays", b"", Expected::Any)).await.expect("anything is expected");
    tokio::time::advance(std::time::Duration::from_millis(999)).await;
    records.remove_expired(records.clock.now());
    assert!(value(&records, "k").await.is_some());
    tokio::time::advance(std::time::Duration::from_millis(1)).await;
    assert_eq!(value(&records, "k").await, None);
    assert_eq!(records.list("ns", None, 9).await.expect("it is read").len(), 1);
    let late = records.remove(name("k"), Expected::At(first)).await;
    assert_eq!(late, Err(RecordsError::Conflict(None)));
    records.remove_expired(records.clock.now());
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(watch.next().await);
    }
    let [Some(RecordChange::Put(..)), Some(RecordChange::Put(..)), Some(last)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(*last, RecordChange::Removed(name("k"), Revision(first.0 + 2)));
    let mut stored = Vec::new();
    store.records(&mut |name, _| stored.push(name)).expect("it is read");
    assert_eq!(stored, [name("stays")]);
}

#[actix_rt::test]
async fn a_follower_that_is_too_slow_hears_that_it_has_missed_changes() {
    let records = without_store();
    let mut watch = records.watch("ns");
    for _ in 0..1_000 {
        records.put(put("k", b"", Expected::Any)).await.expect("anything is expected");
    }
    assert_eq!(watch.next().await, Some(RecordChange::Missed));
    assert!(matches!(watch.next().await, Some(RecordChange::Put(..))));
}

/// One of all callers wins, and what it was told is what a restart finds.
#[cfg(feature = "directory-store")]
#[actix_rt::test]
async fn of_callers_at_the_same_time_one_wins_and_a_restart_finds_its_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || Arc::new(crate::store::DirectoryStore::open(dir.path()).expect("it opens"));
    let (keeper, records) = in_store(open());
    let mut watch = records.watch("ns");
    let changes = (0..50).map(|_| records.put(put("k", b"v", Expected::Absent)));
    let outcomes = futures_util::future::join_all(changes).await;
    let won: Vec<_> = outcomes.iter().flatten().copied().collect();
    let [revision] = won[..] else { panic!("{outcomes:?}") };
    // Each adds to what the one before has written.
    let mut at = revision;
    for _ in 0..20 {
        at = records.put(put("k", b"w", Expected::At(at))).await.expect("it is this one");
    }
    records.put(put("gone", b"", Expected::Any)).await.expect("anything is expected");
    records.remove(name("gone"), Expected::Any).await.expect("it is removed");
    let mut last = Revision(0);
    for _ in 0..23 {
        let revision = match watch.next().await {
            Some(RecordChange::Put(_, record)) => record.revision,
            Some(RecordChange::Removed(_, revision)) => revision,
            other => panic!("{other:?}"),
        };
        assert!(revision > last);
        last = revision;
    }
    keeper.stop();
    let ended = records.put(put("k", b"x", Expected::Any)).await;
    assert_eq!(ended, Err(RecordsError::Unavailable));
    drop((keeper, records));
    let (keeper, records) = in_store(open());
    let found = records.get(&name("k")).await.expect("it is read").expect("it is there");
    assert_eq!((found.revision, &found.value[..]), (at, &b"w"[..]));
    assert_eq!(value(&records, "gone").await, None);
    let next = records.put(put("k", b"x", Expected::At(at))).await.expect("it is this one");
    assert!(next > last, "the revision of the removal is not given out again");
    keeper.stop();
}

#[test]
fn a_pending_change_is_compared_with_but_not_read() {
    let mut state = State::default();
    let record = |revision| Record {
        revision: Revision(revision),
        value: Bytes::new(),
        expires_at: Some(Timestamp(9)),
    };
    state.commit(name("k"), Revision(1), Some(record(1)));
    let pend = |state: &mut State, revision, record| {
        state.entries.entry(name("k")).or_default().pending =
            Some(Box::new((Revision(revision), record)));
    };
    let committed = |state: &State| {
        let entry = state.entries.get(&name("k"))?;
        entry.committed.as_ref().map(|record| record.revision.0)
    };
    let expects =
        |state: &State, revision| state.check(&name("k"), Expected::At(revision), Timestamp(0));
    pend(&mut state, 2, Some(record(2)));
    assert_eq!(committed(&state), Some(1));
    assert_eq!(expects(&state, Revision(1)), Err(RecordsError::Conflict(Some(Revision(2)))));
    assert_eq!(expects(&state, Revision(2)), Ok(()));
    // A removal follows before the store has written the first change.
    pend(&mut state, 3, None);
    state.finish(name("k"), Revision(2), Some(record(2)), true);
    assert_eq!(committed(&state), Some(2));
    assert_eq!(expects(&state, Revision(2)), Err(RecordsError::Conflict(None)));
    // The store gives the removal up.
    state.expiring.clear();
    state.finish(name("k"), Revision(3), None, false);
    assert_eq!(expects(&state, Revision(2)), Ok(()));
    assert_eq!(state.expiring.first(), Some(&(Timestamp(9), name("k"))));
    pend(&mut state, 4, None);
    state.finish(name("k"), Revision(4), None, true);
    assert!(state.entries.is_empty() && state.expiring.is_empty());
}
