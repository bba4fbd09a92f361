//! The store that loses unsynced data, on which other tests rely, really loses it.

use hearthmq::store::{Durability, Store as _};

use super::vocabulary::*;
use crate::torn_store::TornStore;

fn numbers(store: &TornStore) -> Vec<u64> {
    sessions(store).into_iter().map(|session| session.number.0).collect()
}

#[test]
fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
    for keep in 0..4 {
        let store = TornStore::default();
        store.apply(&[put(1)], Durability::Written).unwrap();
        store.apply(&[put(2)], Durability::Synced).unwrap();
        for session in [3, 4] {
            store.apply(&[put(session), put(session + 10)], Durability::Written).unwrap();
        }
        assert_eq!(numbers(&store), [1, 2, 3, 4, 13, 14]);
        assert_eq!(store.unsynced(), 2);
        store.crash(keep);
        let expected: &[u64] = match keep {
            0 => &[1, 2],
            1 => &[1, 2, 3, 13],
            _ => &[1, 2, 3, 4, 13, 14],
        };
        assert_eq!(numbers(&store), expected);
        assert_eq!(store.unsynced(), 0);
        store.crash(0);
        assert_eq!(numbers(&store), expected);
    }
}

#[test]
fn sync_makes_durable_what_was_written() {
    let store = TornStore::new(true);
    assert!(store.is_immediate());
    assert!(!TornStore::new(false).is_immediate());
    store.apply(&[put(1)], Durability::Written).unwrap();
    store.sync().unwrap();
    store.crash(0);
    assert_eq!(numbers(&store), [1]);
    assert_eq!(store.bounds().unwrap().session, 1);
}
