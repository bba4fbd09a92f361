//! A write whose outcome must be known: it is repeated until its record is there, or a later record shows that
//! it never will be.
//!
//! A read decides nothing: it only shows that the record *has* changed. `claims.rs` uses it.

use super::{
    names::{NodeId, RequestNumber},
    owner_record::{Hold, OwnerRecord},
};
use crate::{journal::Revision, mqtt::Timestamp};

/// Time to wait for a result before the next try.
const ANSWER_MILLIS: u64 = 1_500;
/// Time from an unknown outcome to the next try.
const AGAIN_MILLIS: u64 = 300;

/// The state of such a write.
#[derive(Debug)]
pub(super) struct Settling {
    pub(super) record: OwnerRecord,
    expected: Revision,
    asked: Option<RequestNumber>,
    reads: bool,
    next_at: Timestamp,
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The record is there.
    Done(Revision),
    /// The record was there: a later one names this node as previous holder, or as owed.
    DoneAndGone,
    /// The record never was and never will be there.
    Lost,
}

/// The next step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SettlingStep {
    Write(Revision),
    Read,
}

impl Settling {
    pub(super) const fn new(record: OwnerRecord, expected: Revision, now: Timestamp) -> Self {
        Self { record, expected, asked: None, reads: false, next_at: now }
    }

    /// Returns the next request that is due.
    pub(super) fn poll(&mut self, request: RequestNumber, now: Timestamp) -> Option<SettlingStep> {
        if now < self.next_at {
            return None;
        }
        self.next_at = now.plus_millis(ANSWER_MILLIS);
        if self.reads {
            self.reads = false;
            return Some(SettlingStep::Read);
        }
        self.asked = Some(request);
        self.reads = true; // Unless the answer tells the outcome.
        Some(SettlingStep::Write(self.expected))
    }

    /// Handles the result of a write; `None` is a conflict or an unknown outcome.
    pub(super) fn handle_written(
        &mut self,
        request: RequestNumber,
        result: Option<Revision>,
        now: Timestamp,
    ) -> Option<Settled> {
        if self.asked != Some(request) {
            return None; // Of an earlier try. If it was made, the present one meets its record.
        }
        let settled = result.map(Settled::Done);
        // Conflict and unknown outcome are treated alike: the record is read, and decides.
        if settled.is_none() {
            self.next_at = self.next_at.min(now.plus_millis(AGAIN_MILLIS));
        }
        settled
    }

    /// Handles a record that is or was there. An older one tells nothing.
    pub(super) fn handle_read(
        &mut self,
        revision: Revision,
        found: Option<&OwnerRecord>,
        me: &NodeId,
        now: Timestamp,
    ) -> Option<Settled> {
        self.next_at = self.next_at.min(now.plus_millis(AGAIN_MILLIS));
        // Not newer than what the write was based on, so it says nothing about the write.
        if revision <= self.expected {
            return None;
        }
        let Some(found) = found else { return Some(Settled::Lost) };
        // The outcome of the write was unknown; its record is there.
        if found.is_same_write(&self.record) {
            return Some(Settled::Done(revision));
        }
        // A confirmation counts even if another node has claimed since: the record names this node.
        let is_confirmation = self.record.hold == Hold::Holding && self.record.node == *me;
        let names_us = found.previous.as_ref() == Some(me)
            || found.owes(me)
            || (found.node == *me && found.hold == Hold::Holding);
        Some(if is_confirmation && names_us { Settled::DoneAndGone } else { Settled::Lost })
    }
}
