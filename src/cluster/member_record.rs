//! The record of a member in the bucket `members`, and what a node knows of it.
//!
//! Knows no protocol: `members.rs` writes it, `judging.rs` too.

use serde::{Deserialize, Serialize};

use super::{
    lease::Lease,
    names::{Incarnation, NodeId},
    wire::Wire,
};
use crate::{journal::Revision, mqtt::Timestamp};

/// Whether a member is part of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberStanding {
    /// It compares its store, and acts for nobody yet.
    Joining,
    /// It acts for its clients while its leases last.
    Serving,
    /// It does not act any more; its keeper acts for it.
    Dead,
}

/// The record of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The random number of its store: tells an older life of the same node from another process that
    /// was given the same name.
    pub store: u64,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Raised when a lease was marked as expired: verdicts that were begun before are void.
    pub generation: u32,
    /// Its standing.
    pub standing: MemberStanding,
    /// The nodes that keep or kept mail for it, each once; the last one is the present one.
    pub keepers: Vec<NodeId>,
}

impl Wire for MemberRecord {
    const KIND: u8 = 2;
}

impl MemberRecord {
    /// Returns the present keeper of a dead node.
    pub fn keeper(&self) -> Option<&NodeId> {
        self.keepers.last().filter(|_| self.standing == MemberStanding::Dead)
    }

    /// Returns the mark that proves the end of this life.
    pub(super) fn mark(&self) -> Lease {
        let Self { incarnation, generation, .. } = *self;
        Lease { incarnation, generation, is_expired: true }
    }
}

/// The knowledge of this node about a member.
#[derive(Clone, Debug)]
pub(super) struct KnownMember {
    pub(super) revision: Revision,
    pub(super) record: MemberRecord,
    /// When this life was seen first.
    pub(super) since: Timestamp,
}

/// The living nodes, for parts that need no more of the members.
pub trait Lives {
    /// Returns whether the record of a node says that it is dead.
    fn is_dead(&self, node: &NodeId) -> bool;
}
