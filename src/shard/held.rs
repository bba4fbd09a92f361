//! The connections of a shard that are not read at present, kept so that only those are looked at that
//! may go on.
//!
//! Knows neither sessions nor queues; [`super::hold`] says why a connection is held, and decides.

use std::collections::{BTreeMap, BTreeSet};

use crate::{metrics::HoldReason, mqtt::Timestamp};

/// The interval, in seconds, in which a held connection finds out whether its client has left. What the client has
/// sent is dropped then, so a short hold loses nothing.
const ASK_EVERY_SECS: u64 = 1;

/// A connection that is not read at present.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) link: u64,
    pub(super) reason: HoldReason,
    pub(super) since: Timestamp,
    /// Of those that were held before, all have a lower number.
    number: u64,
    /// When it may be read again, if its rate holds it.
    due: Option<Timestamp>,
    /// When it is asked for its client; `None` if it waits for a shard, which is short.
    question: Option<Timestamp>,
}

/// All of them, by their slots.
#[derive(Default)]
pub(super) struct HeldConnections {
    held: BTreeMap<u32, Held>,
    /// Those that their rates hold, by the time at which they may be read.
    due: BTreeSet<(Timestamp, u32)>,
    /// Those that are asked for their clients, by the time of the next question.
    questions: BTreeSet<(Timestamp, u32)>,
    /// Those that wait for other shards, and go on together.
    behind: BTreeSet<u32>,
    /// Those to look at next, whatever holds them.
    marked: BTreeSet<u32>,
    next_number: u64,
}

impl HeldConnections {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn get(&self, slot: u32) -> Option<Held> {
        self.held.get(&slot).copied()
    }

    /// Holds a connection; one that its rate holds, until `due`.
    pub(super) fn insert(
        &mut self,
        slot: u32,
        (link, reason): (u64, HoldReason),
        now: Timestamp,
        due: Option<Timestamp>,
    ) {
        self.remove(slot);
        let number = self.next_number;
        self.next_number += 1;
        let question = (reason != HoldReason::ShardBehind).then(|| now.plus_secs(ASK_EVERY_SECS));
        self.held.insert(slot, Held { link, reason, since: now, number, due, question });
        self.questions.extend(question.map(|at| (at, slot)));
        self.due.extend(due.map(|due| (due, slot)));
        if reason == HoldReason::ShardBehind {
            self.behind.insert(slot);
        }
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Held> {
        let held = self.held.remove(&slot)?;
        if let Some(due) = held.due {
            self.due.remove(&(due, slot));
        }
        if let Some(at) = held.question {
            self.questions.remove(&(at, slot));
        }
        self.behind.remove(&slot);
        self.marked.remove(&slot);
        Some(held)
    }

    /// Has a connection looked at next, if it is held.
    pub(super) fn mark(&mut self, slot: u32) {
        if self.held.contains_key(&slot) {
            self.marked.insert(slot);
        }
    }

    /// Holds a connection until its rate allows more.
    pub(super) fn delay(&mut self, slot: u32, until: Timestamp) {
        let Some(held) = self.held.get_mut(&slot) else { return };
        if let Some(due) = held.due.replace(until) {
            self.due.remove(&(due, slot));
        }
        self.due.insert((until, slot));
    }

    /// Returns the connections that are to find out now whether their clients have left.
    pub(super) fn take_due_questions(&mut self, now: Timestamp) -> Vec<u32> {
        let due = self.questions.iter().take_while(|(at, _)| *at <= now);
        let due: Vec<_> = due.copied().collect();
        let next = now.plus_secs(ASK_EVERY_SECS);
        for (at, slot) in &due {
            self.questions.remove(&(*at, *slot));
            if let Some(held) = self.held.get_mut(slot) {
                held.question = Some(next);
                self.questions.insert((next, *slot));
            }
        }
        due.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Returns the connections that may go on, as far as is known here; the longest held first. They
    /// stay held until they are removed.
    pub(super) fn candidates(&mut self, now: Timestamp, is_congested: bool) -> Vec<u32> {
        let mut found = std::mem::take(&mut self.marked);
        found.extend(self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, slot)| *slot));
        if !is_congested {
            found.extend(&self.behind);
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|slot| self.held.get(slot).map(|held| held.number));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: HoldReason = HoldReason::RateLimit;
    const FULL: HoldReason = HoldReason::SubscriberFull;
    const BEHIND: HoldReason = HoldReason::ShardBehind;

    fn at(millis: u64) -> Timestamp {
        Timestamp(1_000_000 + millis)
    }

    #[test]
    fn those_that_may_go_on_come_in_the_order_in_which_they_were_held() {
        let mut held = HeldConnections::default();
        held.insert(5, (1, FULL), at(0), None);
        held.insert(9, (1, RATE), at(0), Some(at(20)));
        held.insert(2, (1, BEHIND), at(0), None);
        held.insert(1, (1, RATE), at(0), Some(at(10)));
        assert!(held.candidates(at(5), true).is_empty());
        assert_eq!(held.candidates(at(10), true), [1]);
        held.mark(5);
        held.mark(77);
        assert_eq!(held.candidates(at(20), false), [5, 9, 2, 1]);
        // Marked once, looked at once; the others are there until they are removed or delayed.
        assert_eq!(held.candidates(at(20), true), [9, 1]);
        held.delay(9, at(30));
        held.remove(1);
        assert!(held.candidates(at(29), true).is_empty());
        assert_eq!(held.candidates(at(30), true), [9]);
        // A slot has one connection.
        held.insert(9, (2, FULL), at(30), None);
        assert_eq!((held.candidates(at(99), true), held.len()), (vec![], 3));
        for slot in [5, 9, 2] {
            held.remove(slot);
        }
        assert!(held.is_empty() && held.due.is_empty() && held.behind.is_empty());
        assert!(held.questions.is_empty());
    }

    #[test]
    fn each_that_may_be_held_for_long_is_asked_for_its_client_every_second() {
        let mut held = HeldConnections::default();
        held.insert(1, (1, FULL), at(0), None);
        held.insert(2, (1, BEHIND), at(0), None);
        held.insert(3, (1, RATE), at(500), Some(at(9_000)));
        let mut asked = Vec::new();
        for millis in (0..3_000).step_by(100) {
            let due = held.take_due_questions(at(millis));
            asked.extend(due.into_iter().map(|slot| (millis, slot)));
        }
        assert_eq!(asked, [(1_000, 1), (1_500, 3), (2_000, 1), (2_500, 3)]);
        held.remove(1);
        assert_eq!(held.take_due_questions(at(9_000)), [3]);
    }

    /// The number of connections that are looked at is that of those that go on, however many are held.
    #[test]
    fn nobody_is_looked_at_in_vain() {
        let mut held = HeldConnections::default();
        for slot in 0..10_000 {
            held.insert(slot, (1, RATE), at(0), Some(at(1 + u64::from(slot))));
        }
        for slot in 10_000..20_000 {
            held.insert(slot, (1, FULL), at(0), None);
        }
        let (mut looked_at, mut gone_on) = (0, 0);
        for millis in (0..=10_000).step_by(5) {
            for slot in held.candidates(at(millis), true) {
                looked_at += 1;
                gone_on += usize::from(held.remove(slot).is_some());
            }
        }
        assert_eq!((looked_at, gone_on, held.len()), (10_000, 10_000, 10_000));
    }
}
