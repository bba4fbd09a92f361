//! What the store in a directory promises about its files: one owner, formats, a disk that is full
//! or read-only.

use std::{fs, path::Path};

use hearthmq::store::{
    Change, DirectoryStore, Durability, HistoryShare, SessionNumber, Store as _, StoreError,
    StoreOptions,
};

use super::{
    subject::{Directory, Subject as _},
    vocabulary::*,
};

#[test]
fn a_directory_has_one_owner() {
    let mut subject = Directory::new();
    for _ in 0..2 {
        let error = DirectoryStore::open(subject.dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        subject.reopen();
    }
}

#[test]
fn a_store_that_is_not_there_is_made_only_by_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er");
    let error = DirectoryStore::open_existing(&path).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(!path.exists());
    drop(DirectoryStore::open(&path).unwrap());
    drop(DirectoryStore::open_existing(&path).unwrap());
}

/// Sets a number in the database directly: the record is its version and the number.
fn set_format(dir: &Path, format: u8) {
    let database = fjall::Database::builder(dir.join("store")).open().unwrap();
    let meta = database.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
    assert_eq!(meta.get("format").unwrap().as_deref(), Some(&[1, 7][..]));
    meta.insert("format", [1, format]).unwrap();
    database.persist(fjall::PersistMode::SyncAll).unwrap();
}

#[test]
fn a_later_format_is_refused() {
    let mut subject = Directory::new();
    subject.close();
    set_format(subject.dir.path(), 8);
    for _ in 0..2 {
        let error = DirectoryStore::open(subject.dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Newer { found: 8, known: 7, .. }), "{error}");
        let line = error.to_string();
        assert!(line.contains("format 8") && line.contains("up to 7; run"), "{line}");
    }
}

/// Its retained messages have no owner. What sessions and queues of format 2 do not say is shown with
/// the records.
#[test]
fn a_store_of_format_1_is_taken_over() {
    let mut subject = Directory::new();
    apply(subject.store(), &[put(1), retain("t", b"x")]);
    subject.close();
    set_format(subject.dir.path(), 1);
    for _ in 0..2 {
        subject.reopen();
        let store = subject.store();
        store.retained(&mut |found| assert_eq!(found.owner, None)).unwrap();
        assert_eq!((contents(store).sessions.len(), contents(store).retained.len()), (1, 1));
    }
}

/// The history of a client that a former format has written counts for its owner from its next
/// connection on.
#[test]
fn a_history_without_a_count_for_its_owner_is_counted_when_it_is_written_again() {
    let mut subject = Directory::new();
    let share = HistoryShare { records_max: 2, over_limit_up_to: 0, limit: 9 };
    let note = |client_id, version: u64| {
        note_within(share, client_id, connection(version, Some(version)), 9)
    };
    apply(subject.store(), &[note("old", 2), note("older", 4)]);
    subject.close();
    let database = fjall::Database::builder(subject.dir.path().join("store")).open().unwrap();
    let options = fjall::KeyspaceCreateOptions::default;
    let rings = database.keyspace("history", options).unwrap();
    for entry in rings.iter() {
        let (key, value) = entry.into_inner().unwrap();
        rings.insert(key, [&[1], &value[1..]].concat()).unwrap();
    }
    for name in ["history-owner-order", "history-owner-counts"] {
        let keyspace = database.keyspace(name, options).unwrap();
        for entry in keyspace.iter() {
            keyspace.remove(entry.key().unwrap()).unwrap();
        }
    }
    database.persist(fjall::PersistMode::SyncAll).unwrap();
    drop((rings, database));
    let clients = |subject: &Directory| {
        assert_eq!(subject.directory_store().examine().unwrap().faults, [""; 0]);
        let found = histories(subject.store());
        found.iter().map(|it| it.client_id.to_string()).collect::<Vec<_>>()
    };
    subject.reopen();
    assert_eq!(clients(&subject), ["old", "older"]);
    apply(subject.store(), &[note("new", 6), note("newer", 8)]);
    assert_eq!(clients(&subject), ["new", "newer", "old", "older"]);
    apply(subject.store(), &[note("old", 10)]);
    assert_eq!(clients(&subject), ["old", "older"]);
}

#[test]
fn the_former_file_of_presence_versions_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("presence-versions");
    fs::write(&file, "1048577\n").unwrap();
    let versions = || DirectoryStore::open(dir.path()).unwrap().bounds().unwrap().versions;
    for _ in 0..2 {
        assert_eq!(versions(), 1_048_577);
        assert!(!file.exists());
    }
    // An earlier version of the program has run in between, or an older copy was restored.
    fs::write(&file, "2000000\n").unwrap();
    assert_eq!(versions(), 2_000_000);
    fs::write(&file, "5\n").unwrap();
    assert_eq!(versions(), 2_000_000);
    assert!(!file.exists());
}

#[test]
fn a_former_file_that_holds_no_number_stays_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("presence-versions");
    fs::write(&file, "a number\n").unwrap();
    let error = DirectoryStore::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("presence-versions is damaged"), "{error}");
    fs::write(&file, "7\n").unwrap();
    let store = DirectoryStore::open(dir.path()).unwrap();
    assert_eq!(store.bounds().unwrap().versions, 7);
}

/// No process can create directories there, not even root.
#[test]
fn a_directory_that_cannot_be_written_is_named_with_what_helps() {
    let error = DirectoryStore::open(Path::new("/sys/hearthmq")).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    let line = error.to_string();
    assert!(line.contains("/sys/hearthmq") && line.contains("choose another data_dir"), "{line}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = DirectoryStore::open(file.join("below")).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
}

#[test]
fn without_free_space_only_what_takes_away_is_let_through() {
    let subject = Directory::new();
    let message = numbered(1, b"m");
    let all = [put(1), enqueue(1, 1, &message), enqueue(1, 2, &message), accept(1, 1)];
    apply(subject.store(), &all);
    apply(subject.store(), &[put_will(1, "w"), subscribe(1, "a"), retain("a", b"1")]);
    let mut subject = subject;
    subject.close();

    // The disk counts as full at a higher limit; at a lower one a quarter of the limit is free.
    let free = rustix::fs::statvfs(subject.dir.path()).unwrap();
    let free_bytes = free.f_bavail * free.f_frsize;
    let options = StoreOptions { free_bytes_min: free_bytes * 2, ..StoreOptions::default() };
    let store = DirectoryStore::open_with(subject.dir.path(), options).unwrap();
    let before = contents(&store);
    let more = [enqueue(1, 3, &message), accept(1, 2), retain("b", b"2"), subscribe(1, "b")];
    for change in &more {
        let refused = [dequeue(1, 1), change.clone()];
        let error = store.apply(&refused, Durability::Synced).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        assert!(error.to_string().contains("full; free space there"), "{error}");
        assert_eq!(contents(&store), before);
    }
    assert!(matches!(store.recover(), Err(StoreError::Full { .. })));
    assert!(!store.has_room());
    let less = [
        // A start needs the first change, connecting and disconnecting clients the others.
        Change::ReserveVersions(9),
        put(1),
        put_will(1, "v"),
        send(1, 2, sent(1, 1)),
        release(1, 2),
        dequeue(1, 1),
        forget(1, 1),
        Change::DropWill(SessionNumber(1)),
        withdraw(1, "a"),
        unsubscribe(1, "a"),
        Change::ClearRetained("a".into()),
    ];
    for change in less {
        apply(&store, &[change]);
    }
    apply(&store, &[end(1)]);
    let after = contents(&store);
    assert_eq!((after.sessions, after.retained), (vec![], vec![]));
    drop(store);

    let options = StoreOptions { free_bytes_min: u64::MAX, ..StoreOptions::default() };
    let store = DirectoryStore::open_with(subject.dir.path(), options).unwrap();
    apply(&store, &[end(1)]); // nothing to write
    drop(store);
    // With half of the room that new data would need, changes already on their way still fit.
    let options = StoreOptions { free_bytes_min: free_bytes / 10 * 8, ..StoreOptions::default() };
    let store = DirectoryStore::open_with(subject.dir.path(), options).unwrap();
    assert!(!store.has_room());
    apply(&store, &more);
    drop(store);
    assert!(DirectoryStore::open(subject.dir.path()).unwrap().has_room());
}

#[test]
fn compacting_keeps_what_there_is_and_frees_the_rest() {
    let mut subject = Directory::new();
    let large = vec![7; 64 << 10];
    let changes = (1..=200).map(|place| enqueue(1, place, &numbered(place, &large)));
    apply(subject.store(), &std::iter::once(put(1)).chain(changes).collect::<Vec<_>>());
    subject.directory_store().compact().unwrap();
    let full = subject.directory_store().disk_bytes().unwrap();
    apply(subject.store(), &(1..200).map(|place| dequeue(1, place)).collect::<Vec<_>>());
    let before = contents(subject.store());
    subject.directory_store().compact().unwrap();
    subject.reopen();
    assert_eq!(contents(subject.store()), before);
    assert_eq!(subject.directory_store().examine().unwrap().faults, [""; 0]);
    let left = subject.directory_store().disk_bytes().unwrap();
    assert!(left < full, "{left} of {full}");
}
