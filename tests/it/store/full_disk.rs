//! A file system that becomes full in the middle of a write: everything acknowledged before exists,
//! the store reports the error, and it is usable again once there is room.
//!
//! The test runs itself as a child process whose files may not grow beyond a limit, because a limit
//! cannot be raised again.

use std::{env, process::Command};

use hearthmq::store::{DirectoryStore, Durability, Store as _, StoreError};

use super::{
    subject::{Directory, Subject as _},
    vocabulary::*,
};

const DIR: &str = "HEARTHMQ_TEST_FULL_DISK";
const CHILD: &str = "store::full_disk::the_child_that_may_not_write_more";

#[test]
fn a_write_that_fails_loses_nothing_that_was_acknowledged() {
    let mut subject = Directory::new();
    apply(subject.store(), &[put(1)]);
    subject.close();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$1\" --exact --nocapture"])
        .args([env::current_exe().unwrap().to_str().unwrap(), CHILD])
        .env(DIR, subject.dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    let acknowledged = said.lines().find_map(|line| line.split_once("acknowledged ")).unwrap().1;
    let acknowledged: u64 = acknowledged.trim().parse().unwrap();
    assert!(acknowledged > 0);

    subject.reopen();
    let kept = contents(subject.store());
    let places = kept.waiting[0].iter().map(|(place, _)| place.0);
    // The failed change may exist too; it was to be tried again.
    assert!(places.clone().count() as u64 - acknowledged <= 1);
    assert!(places.eq(1..=kept.waiting[0].len() as u64));
    assert_eq!(subject.directory_store().examine().unwrap().faults, [""; 0]);
    apply(subject.store(), &[enqueue(1, 1_000, &numbered(1_000, b"m")), end(1)]);
}

#[test]
#[expect(clippy::print_stdout, reason = "its parent reads what it says")]
fn the_child_that_may_not_write_more() {
    let Some(dir) = env::var_os(DIR) else {
        return; // it is not such a child
    };
    let store = DirectoryStore::open(dir).unwrap();
    let payload = vec![7; 16 << 10];
    let mut place = 1;
    let error = loop {
        let message = enqueue(1, place, &numbered(place, &payload));
        match store.apply(&[message], Durability::Synced) {
            Ok(()) => place += 1,
            Err(error) => break error,
        }
        assert!(place < 1_000, "the limit is never met");
    };
    assert!(matches!(error, StoreError::Io { .. } | StoreError::Full { .. }), "{error:?}");
    let acknowledged = place - 1;
    println!("acknowledged {acknowledged}");

    // The store accepts no change until it is opened again; its data can be read meanwhile.
    assert!(store.apply(&[put(2)], Durability::Written).is_err());
    assert_eq!(sessions(&store).len(), 1);
    store.recover().unwrap();
    let waiting = contents(&store).waiting.swap_remove(0);
    assert!(waiting.len() as u64 >= acknowledged);
    assert_eq!(store.examine().unwrap().faults, [""; 0]);
}
