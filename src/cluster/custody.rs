//! The sessions that this node has, as far as their ownership goes, and the nodes that may have them next.
//!
//! ```text
//!            release(term) answered          confirmed, or a later holder in the record
//!     Own ──────────────────────────▶ Offered ─────────────────────────────────────────▶ left: tombstone
//!      ▲                                 │
//!      └─────────────────────────────────┘ the claimant undid its claim
//! ```
//!
//! A custody is *proven* when its record was written in this life of the node. After a start none is, and
//! so the first CONNECT of an identifier writes. Beside it, there may be a pending copy that was taken
//! from another node and is not confirmed yet. The messages are the shard's, which stores the state with
//! them. Reading the record never decides, except that a later holder shows that the session is gone.

use super::{
    mail::Mail,
    names::{NodeId, Term},
    owner_record::{Hold, OwnerRecord},
};
use crate::{journal::Revision, mqtt::Timestamp};

/// Whether another node was given a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CustodyState {
    /// Nobody else has it.
    Own,
    /// The claim of this term was given a copy up to a position that the shard has stored.
    Offered(Term),
}

/// The session of one client, on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Custody {
    /// The term in which this node became the owner.
    pub term: Term,
    /// Whether another node was given a copy.
    pub state: CustodyState,
    /// Whether this life of the node has written the record.
    pub is_proven: bool,
    /// Whether the record named other nodes that still have a part of the session.
    pub is_owed: bool,
    /// The revision of the record that was written.
    pub(super) revision: Revision,
}

impl Custody {
    /// Returns whether QoS 2 mail may go into the queue. Otherwise it lies beside it, and is forwarded by
    /// the record.
    pub fn may_queue_qos2(&self) -> bool {
        self.is_proven && self.state == CustodyState::Own
    }

    /// Returns whether QoS 2 mail may go into the queue. `term`: that of the record by which its sender
    /// asked the nodes that are owed; none if it was planned for this node.
    ///
    /// Mail with other copies may have been delivered by a node that is owed, so they are asked first.
    /// Otherwise it is forwarded by the record, and so waits until they can be asked.
    pub fn may_queue_mail(&self, mail: &Mail, term: Option<Term>) -> bool {
        let has_asked = term.is_some_and(|term| term >= self.term);
        self.may_queue_qos2() && (mail.is_alone || !self.is_owed || has_asked)
    }

    pub(super) fn is_doubtful(&self) -> bool {
        !self.may_queue_qos2()
    }
}

/// Where a session went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The next owner, as far as this node knows.
    pub to: NodeId,
    /// Its term.
    pub term: Term,
}

/// The statement of a record about the copies of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing has changed.
    Stays,
    /// The record is from the past.
    Unknown,
    /// The claimant gave it back in this term.
    Regained(Term),
    /// It is gone. What was handed over is dropped, unless this node is owed: then all is forwarded.
    Left { to: NodeId, term: Term, whole: bool },
}

/// Returns what a record says about the session.
pub(super) fn fate_of(custody: &Custody, record: &OwnerRecord, me: &NodeId) -> Fate {
    // A read may return an old state, and what it shows is already known to be past.
    if record.term < custody.term {
        return Fate::Unknown;
    }
    if record.term == custody.term {
        return Fate::Stays;
    }
    // The record says whether this node still has a part of the session.
    let owed = record.owes(me);
    if record.node == *me {
        return match (record.hold, &record.previous, custody.state) {
            // Otherwise an earlier claim was undone: that record is from before the offer.
            (Hold::Holding, _, CustodyState::Offered(offered)) if record.term <= offered => {
                Fate::Unknown
            }
            (Hold::Holding, _, CustodyState::Offered(_)) => Fate::Regained(record.term),
            // A claim of an earlier life, over an old copy that another node has too.
            (Hold::Taking, Some(holder), _) if !owed && holder != me => {
                Fate::Left { to: holder.clone(), term: record.term, whole: false }
            }
            (Hold::Holding | Hold::Taking, _, _) => Fate::Stays,
        };
    }
    // The claimant may still undo its claim, so the session stays until the confirmation.
    if record.hold == Hold::Taking && record.previous.as_ref() == Some(me) {
        return Fate::Stays; // Not confirmed: this node is the holder.
    }
    match custody.state {
        CustodyState::Offered(offered) if record.term < offered => Fate::Unknown,
        CustodyState::Offered(_) | CustodyState::Own => {
            Fate::Left { to: record.node.clone(), term: record.term, whole: owed }
        }
    }
}

/// The statement of a record about a pending copy from before a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PendingFate {
    /// The record is from the past.
    Unknown,
    /// It was confirmed.
    Confirmed,
    /// The claim is there: the confirmation is written again.
    ConfirmAgain,
    /// It was confirmed, and another node has claimed it since: all of it is forwarded.
    Owed,
    /// It was never confirmed: the holder has everything.
    Dropped,
}

/// Returns what a record says about a pending copy of this term.
pub(super) fn fate_of_pending(pending: Term, record: &OwnerRecord, me: &NodeId) -> PendingFate {
    // An older record proves nothing about the pending copy.
    if record.term < pending {
        PendingFate::Unknown
    } else if record.term == pending && record.node == *me {
        // The claim of this node has been written; only its confirmation may be missing.
        match record.hold {
            Hold::Holding => PendingFate::Confirmed,
            Hold::Taking => PendingFate::ConfirmAgain,
        }
    } else if record.previous.as_ref() == Some(me) || is_given_back(record, me) {
        // The record shows that this node was confirmed, and has left since.
        PendingFate::Confirmed
    } else if record.owes(me) {
        PendingFate::Owed
    } else {
        PendingFate::Dropped
    }
}

/// Returns whether another node has undone its claim: then this node had confirmed before.
fn is_given_back(record: &OwnerRecord, me: &NodeId) -> bool {
    record.node == *me && record.hold == Hold::Holding && record.writer != *me
}

/// When the record of a doubtful session is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    pub(super) next_at: Timestamp,
    /// Whether an answer that was not from the past has come since the start.
    pub(super) was_seen: bool,
}
