//! Readers beside the writer: each sees all of a group or nothing of it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use hearthmq::store::{QueuePlace, SessionNumber, StoreSnapshot};

use super::{
    subject::{Directory, Subject as _},
    vocabulary::*,
};

const SESSIONS: u64 = 64;
const GROUPS: u64 = 400;

/// Returns the places in the queue of a session.
fn places(snapshot: &StoreSnapshot, session: u64) -> Vec<u64> {
    let waiting = snapshot.waiting(SessionNumber(session), QueuePlace(0), ALL).unwrap();
    waiting.into_iter().map(|(place, _)| place.0).collect()
}

/// A flush or a compaction that ended while a group was written made half of it visible.
#[test]
fn a_reader_sees_all_of_a_group_or_nothing_while_files_are_rewritten() {
    let subject = Directory::new();
    let store = subject.directory_store();
    apply(store, &(1..=SESSIONS).map(put).collect::<Vec<_>>());
    let has_ended = AtomicBool::new(false);
    let goes_on = || !has_ended.load(Ordering::Relaxed);
    thread::scope(|scope| {
        scope.spawn(|| {
            while goes_on() {
                store.compact().unwrap();
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = 0;
                while goes_on() {
                    let snapshot = store.snapshot().unwrap();
                    let first = places(&snapshot, 1);
                    assert!(first.is_sorted_by(|a, b| a + 1 == *b), "{first:?}");
                    for session in 2..=SESSIONS {
                        assert_eq!(places(&snapshot, session), first, "session {session}");
                    }
                    let last = first.last().copied().unwrap_or_default();
                    assert!(last >= seen, "{last} after {seen}");
                    seen = last;
                }
            });
        }
        scope.spawn(|| {
            for group in 1..=GROUPS {
                let message = numbered(group, &[0; 100]);
                let add = |session| enqueue(session, group, &message);
                let mut changes: Vec<_> = (1..=SESSIONS).map(add).collect();
                if group > 20 {
                    changes.extend((1..=SESSIONS).map(|session| dequeue(session, group - 20)));
                }
                apply(store, &changes);
                // What was written is seen by all that read from now on.
                let snapshot = store.snapshot().unwrap();
                assert_eq!(places(&snapshot, SESSIONS).last(), Some(&group));
            }
            has_ended.store(true, Ordering::Relaxed);
        });
    });
}
