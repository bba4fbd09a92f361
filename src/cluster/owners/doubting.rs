//! Sessions whose record may have moved on without this node: after a start, and after an offer.

use super::{
    ClientKey, ClientOwners, Custody, CustodyState, Doubt, LeftWhole, OlderCopy, OwnerRecord,
    OwnerStep, Revision, Term, Timestamp,
};
use crate::cluster::custody::{Fate, PendingFate, fate_of, fate_of_pending};

/// Number of records that are read at a time.
const LOOKS_MAX: usize = 64;
/// Time until a record without an answer, or of the past, is read again.
const LOOK_AGAIN_MILLIS: u64 = 1_000;
/// Time until the record of a session that stays doubtful is read again.
const LOOK_EVERY_MILLIS: u64 = 4_000;

impl ClientOwners {
    /// Adds a session that the store had at the start.
    pub fn restore(&mut self, key: ClientKey, term: Term, state: CustodyState, now: Timestamp) {
        let revision = Revision(0);
        self.custodies
            .insert(key, Custody { term, state, is_proven: false, is_owed: true, revision });
        self.note_doubt(key, now);
    }

    /// Adds a pending copy that the store had at the start.
    pub fn restore_pending(&mut self, key: ClientKey, term: Term, now: Timestamp) {
        self.pending.insert(key, term);
        self.note_doubt(key, now);
    }

    /// Adds a tombstone that the store had at the start.
    pub fn restore_tombstone(&mut self, key: ClientKey, tombstone: super::Tombstone) {
        self.tombstones.insert(key, tombstone);
    }

    /// Returns whether every session of the store was compared with its record since the start.
    pub fn is_restored(&self) -> bool {
        self.claims.is_empty() && self.doubts.values().all(|doubt| doubt.was_seen)
    }

    /// Notes that a session is doubtful, or is not any more.
    pub(super) fn note_doubt(&mut self, key: ClientKey, now: Timestamp) {
        let is_doubtful = self.custodies.get(&key).is_some_and(Custody::is_doubtful);
        if is_doubtful || self.pending.contains_key(&key) {
            self.doubts.entry(key).or_insert(Doubt { next_at: now, was_seen: false });
        } else {
            self.doubts.remove(&key);
        }
    }

    pub(super) fn poll_doubts(&mut self, now: Timestamp) {
        let due = self
            .doubts
            .iter()
            .filter(|(key, doubt)| now >= doubt.next_at && !self.claims.contains_key(key));
        let mut due: Vec<_> = due.map(|(key, doubt)| (doubt.next_at, *key)).collect();
        if due.len() > LOOKS_MAX {
            due.select_nth_unstable(LOOKS_MAX); // Those that have waited longest.
            due.truncate(LOOKS_MAX);
        }
        for (_, key) in due {
            let next_at = now.plus_millis(LOOK_AGAIN_MILLIS);
            self.doubts.entry(key).and_modify(|doubt| doubt.next_at = next_at);
            self.steps.push_back(OwnerStep::Read(key));
        }
    }

    pub(super) fn handle_doubt_read(
        &mut self,
        key: ClientKey,
        revision: Revision,
        record: &OwnerRecord,
        now: Timestamp,
    ) {
        // Decided meanwhile.
        if !self.doubts.contains_key(&key) {
            return;
        }
        // A pending copy decides first, because it may replace the session.
        let is_seen = match self.pending.get(&key) {
            Some(pending) => self.decide_pending(key, *pending, revision, record, now),
            None => self.decide(key, record),
        };
        // A record of the past is no answer; it is read again.
        if let Some(doubt) = self.doubts.get_mut(&key)
            && is_seen
        {
            doubt.was_seen = true;
            doubt.next_at = now.plus_millis(LOOK_EVERY_MILLIS);
        }
    }

    /// Decides about a pending copy of an earlier life; returns whether the record was not of the past.
    fn decide_pending(
        &mut self,
        key: ClientKey,
        pending: Term,
        revision: Revision,
        record: &OwnerRecord,
        now: Timestamp,
    ) -> bool {
        match fate_of_pending(pending, record, &self.me) {
            PendingFate::Unknown => return false,
            PendingFate::ConfirmAgain => self.confirm_again(key, revision, record, now),
            PendingFate::Confirmed => self.settle_pending(key, pending),
            PendingFate::Owed => {
                self.settle_pending(key, pending);
                self.leave(key, record.node.clone(), record.term, LeftWhole::Whole);
            }
            PendingFate::Dropped => {
                self.pending.remove(&key);
                self.steps.push_back(OwnerStep::Drop(key));
                self.note_doubt(key, now);
                return !self.doubts.contains_key(&key); // An older copy is looked at next.
            }
        }
        true
    }

    fn settle_pending(&mut self, key: ClientKey, term: Term) {
        self.pending.remove(&key);
        let (state, revision) = (CustodyState::Own, Revision(0));
        self.custodies
            .insert(key, Custody { term, state, is_proven: false, is_owed: true, revision });
        self.steps.push_back(OwnerStep::Settle(key, term, OlderCopy::Whole));
    }

    /// Decides about a session; returns whether the record was not of the past.
    fn decide(&mut self, key: ClientKey, record: &OwnerRecord) -> bool {
        let Some(custody) = self.custodies.get_mut(&key) else { return true };
        match fate_of(custody, record, &self.me) {
            Fate::Unknown => return false,
            Fate::Stays => {}
            Fate::Regained(term) => {
                (custody.term, custody.state) = (term, CustodyState::Own);
                custody.is_owed = !record.owed.is_empty();
                self.steps.push_back(OwnerStep::Regain(key, term));
            }
            Fate::Left { to, term, whole } => {
                let whole = if whole { LeftWhole::Whole } else { LeftWhole::BehindOffer };
                self.leave(key, to, term, whole);
            }
        }
        true
    }
}
