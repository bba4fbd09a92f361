//! What every implementation of `Records` promises, as dialogues with one of them. Each has a namespace of
//! its own, so all of them may run on the same records, again and again.
//!
//! Knows the trait alone. Used by tests of the broker's own records, and of those of a cluster.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use hearthmq::{
    bytes::Bytes,
    mqtt::Timestamp,
    records::{
        Expected, Put, RecordChange, RecordKey, Records, RecordsError, Revision, VALUE_BYTES_MAX,
        Watch,
    },
};
use tokio::time::timeout;

/// How long a change may take to be told.
const PATIENCE: Duration = Duration::from_secs(60);

/// Records, and the namespace for one dialogue with them.
pub struct RecordsUnderTest {
    records: Arc<dyn Records>,
    namespace: String,
}

/// Has all dialogues, one after the other.
pub async fn every_promise(records: &Arc<dyn Records>) {
    let one = |namespace: &str| RecordsUnderTest {
        records: Arc::clone(records),
        namespace: format!("app/{namespace}-{:x}", fastrand::u64(..)),
    };
    one("expected").a_record_changes_only_if_it_is_the_expected_one().await;
    one("order").records_are_listed_in_the_order_of_their_keys().await;
    one("names").names_and_values_are_any_that_fit().await;
    one("one").of_callers_at_the_same_time_one_wins().await;
    one("counts").no_change_of_many_callers_is_lost().await;
    one("watch").changes_are_told_in_their_order().await;
    one("slow").a_follower_that_is_too_slow_hears_so().await;
    one("expiry").a_record_that_has_expired_is_absent_and_its_removal_is_told().await;
}

impl RecordsUnderTest {
    fn name(&self, key: &str) -> RecordKey {
        RecordKey::new(&self.namespace, key).unwrap()
    }

    async fn put(
        &self,
        key: &str,
        value: &[u8],
        expected: Expected,
    ) -> Result<Revision, RecordsError> {
        let put = Put::new(self.name(key), value.to_vec()).expecting(expected);
        self.records.put(put).await
    }

    async fn value(&self, key: &str) -> Option<Bytes> {
        let record = self.records.get(&self.name(key)).await.unwrap();
        record.map(|record| record.value)
    }

    async fn a_record_changes_only_if_it_is_the_expected_one(self) {
        assert_eq!(self.value("k").await, None);
        let none = self.put("k", b"1", Expected::At(Revision(1))).await;
        assert_eq!(none, Err(RecordsError::Conflict(None)));
        let first = self.put("k", b"1", Expected::Absent).await.unwrap();
        let again = self.put("k", b"2", Expected::Absent).await;
        assert_eq!(again, Err(RecordsError::Conflict(Some(first))));
        let second = self.put("k", b"2", Expected::At(first)).await.unwrap();
        assert!(second > first);
        let late = self.records.remove(self.name("k"), Expected::At(first)).await;
        assert_eq!(late, Err(RecordsError::Conflict(Some(second))));
        assert_eq!(self.value("k").await.as_deref(), Some(&b"2"[..]));
        self.records.remove(self.name("k"), Expected::At(second)).await.unwrap();
        assert_eq!(self.value("k").await, None);
        self.records.remove(self.name("k"), Expected::Any).await.unwrap();
        self.records.remove(self.name("never"), Expected::Any).await.unwrap();
        // A record that was removed has no revision that a late caller could meet.
        let gone = self.put("k", b"3", Expected::At(second)).await;
        assert_eq!(gone, Err(RecordsError::Conflict(None)));
        let gone = self.records.remove(self.name("k"), Expected::At(second)).await;
        assert_eq!(gone, Err(RecordsError::Conflict(None)));
        let third = self.put("k", b"3", Expected::Absent).await.unwrap();
        assert!(third > second);
        let fourth = self.put("k", b"4", Expected::Any).await.unwrap();
        assert!(fourth > third);
        assert_eq!(self.value("k").await.as_deref(), Some(&b"4"[..]));
        self.records.remove(self.name("k"), Expected::Any).await.unwrap();
        assert_eq!(self.value("k").await, None);
    }

    async fn records_are_listed_in_the_order_of_their_keys(self) {
        for key in ["b", "", "a\u{0}", "a", "ü"] {
            self.put(key, b"", Expected::Any).await.unwrap();
        }
        let beside = RecordKey::new(&format!("{}z", self.namespace), "a").unwrap();
        self.records.put(Put::new(beside, "")).await.unwrap();
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.records.list(&self.namespace, after.as_deref(), 2).await.unwrap();
            assert!(page.len() <= 2);
            let Some((last, _)) = page.last() else { break };
            after = Some(last.key().to_owned());
            found.extend(page.into_iter().map(|(name, _)| name.key().to_owned()));
        }
        assert_eq!(found, ["", "a", "a\u{0}", "b", "ü"]);
        assert_eq!(self.records.list("app/nobody's", None, 9).await.unwrap(), []);
    }

    async fn names_and_values_are_any_that_fit(mut self) {
        let long = "ü".repeat(RecordKey::KEY_BYTES_MAX / 2);
        // Texts that mean something to NATS, to paths or to MQTT.
        let keys = [&long, &long[2..], "*", ">", "a.b", " ", "=", "%2E", "#/+", "\r\n", "🔑"];
        for namespace in [self.namespace.clone(), format!("{}{}", self.namespace, "n".repeat(200))]
        {
            self.namespace = namespace;
            for key in keys {
                self.put(key, key.as_bytes(), Expected::Absent).await.unwrap();
            }
            for key in keys {
                assert_eq!(self.value(key).await.as_deref(), Some(key.as_bytes()));
            }
            let listed = self.records.list(&self.namespace, None, 99).await.unwrap();
            assert_eq!(listed.len(), keys.len());
            self.records.remove(self.name(&long), Expected::Any).await.unwrap();
            assert_eq!(self.value(&long).await, None);
        }
        let largest = vec![7; VALUE_BYTES_MAX];
        self.put("large", &largest, Expected::Any).await.unwrap();
        assert_eq!(self.value("large").await.as_deref(), Some(&largest[..]));
        let long = self.put("large", &vec![7; VALUE_BYTES_MAX + 1], Expected::Any).await;
        assert_eq!(long, Err(RecordsError::TooLong));
    }

    async fn of_callers_at_the_same_time_one_wins(self) {
        let changes = (0..50).map(|_| self.put("k", b"v", Expected::Absent));
        let outcomes = join_all(changes).await;
        let won: Vec<_> = outcomes.iter().flatten().copied().collect();
        let [revision] = won[..] else { panic!("{outcomes:?}") };
        let lost = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        for error in lost {
            assert!(matches!(error, RecordsError::Conflict(_)), "{error}");
        }
        let found = self.records.get(&self.name("k")).await.unwrap().unwrap();
        assert_eq!(found.revision, revision);
    }

    /// Each caller reads, adds one, and tries again after a conflict.
    async fn no_change_of_many_callers_is_lost(self) {
        let add = || async {
            for _ in 0..10 {
                loop {
                    let found = self.records.get(&self.name("k")).await.unwrap();
                    let number = found.as_ref().map_or(0, |record| record.value[0]);
                    let expected =
                        found.map_or(Expected::Absent, |record| Expected::At(record.revision));
                    match self.put("k", &[number + 1], expected).await {
                        Ok(_) => break,
                        Err(RecordsError::Conflict(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        };
        join_all((0..4).map(|_| add())).await;
        assert_eq!(self.value("k").await.as_deref(), Some(&[40][..]));
    }

    async fn changes_are_told_in_their_order(self) {
        let mut watch = self.records.watch(&self.namespace);
        let mut elsewhere = self.records.watch("app/elsewhere");
        let first = self.put("a", b"1", Expected::Any).await.unwrap();
        let second = self.put("b", b"2", Expected::Any).await.unwrap();
        self.records.remove(self.name("a"), Expected::At(first)).await.unwrap();
        let last = self.put("a", b"3", Expected::Absent).await.unwrap();
        let mut told = Vec::new();
        for _ in 0..4 {
            told.push(match next(&mut watch).await {
                RecordChange::Put(name, record) => {
                    (name.key().to_owned(), record.revision, Some(record.value))
                }
                RecordChange::Removed(name, revision) => (name.key().to_owned(), revision, None),
                other => panic!("{other:?}"),
            });
        }
        let removed = told[2].1;
        assert!(second < removed && removed < last);
        let value = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let expected = [
            ("a".to_owned(), first, value("1")),
            ("b".to_owned(), second, value("2")),
            ("a".to_owned(), removed, None),
            ("a".to_owned(), last, value("3")),
        ];
        assert_eq!(told, expected);
        assert!(timeout(Duration::from_millis(1), elsewhere.next()).await.is_err());
    }

    async fn a_follower_that_is_too_slow_hears_so(self) {
        let mut watch = self.records.watch(&self.namespace);
        for _ in 0..300 {
            self.put("k", b"", Expected::Any).await.unwrap();
        }
        assert_eq!(next(&mut watch).await, RecordChange::Missed);
        assert!(matches!(next(&mut watch).await, RecordChange::Put(..)));
    }

    async fn a_record_that_has_expired_is_absent_and_its_removal_is_told(self) {
        let mut watch = self.records.watch(&self.namespace);
        self.put("stays", b"", Expected::Any).await.unwrap();
        let soon = now().plus_millis(1_500);
        let put = Put::new(self.name("ends"), "").expiring_at(soon);
        let first = self.records.put(put).await.unwrap();
        let put = Put::new(self.name("is-extended"), "").expiring_at(soon);
        let extended = self.records.put(put.clone()).await.unwrap();
        // The record is extended before it ends, so the first time must not remove it.
        let put = put.expecting(Expected::At(extended)).expiring_at(now().plus_secs(3_600));
        self.records.put(put).await.unwrap();
        let removal = loop {
            match next(&mut watch).await {
                RecordChange::Put(..) => {}
                RecordChange::Removed(name, revision) => break (name, revision),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(removal.0, self.name("ends"));
        assert!(removal.1 > first);
        assert_eq!(self.value("ends").await, None);
        let late = self.records.remove(self.name("ends"), Expected::At(first)).await;
        assert_eq!(late, Err(RecordsError::Conflict(None)));
        let listed = self.records.list(&self.namespace, None, 9).await.unwrap();
        assert_eq!(listed.len(), 2);

        // What has expired and is not removed yet is absent too.
        let past = Put::new(self.name("past"), "").expiring_at(Timestamp(1));
        self.records.put(past).await.unwrap();
        assert_eq!(self.value("past").await, None);
        self.put("past", b"1", Expected::Absent).await.unwrap();
        assert_eq!(self.value("past").await.as_deref(), Some(&b"1"[..]));
    }
}

/// Returns the time of the wall clock, which is that of a broker unless its runtime was paused.
fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

/// Waits for the next change.
pub async fn next(watch: &mut Watch) -> RecordChange {
    timeout(PATIENCE, watch.next()).await.unwrap().unwrap()
}
