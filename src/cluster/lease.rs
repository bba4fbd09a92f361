//! Leases: a node shows that it lives and until when it may act, and others see when it does not live any
//! more.
//!
//! A lease is one key for each node in each of three buckets, led by different NATS servers. Knows no
//! records of members and no clients. `members.rs` drives it.
//!
//! Two of three leases decide, so the end of one NATS server fences no node. A node compares times of its own
//! clock alone, and uses no TTL of NATS:
//!
//! - A node may act until the second-newest *sending* time of its acknowledged renewals + 4 s.
//! - A node that has seen no newer revision for 6 s of its own clock writes "expired" over the revision
//!   that it saw. The success of this write proves that there was no renewal.
//!
//! A mark "expired" is final for its incarnation and *generation*: a node never renews over a mark of its
//! own generation. It first raises the generation in its record of the bucket `members`. This makes void
//! each verdict that began with older marks (`members.rs`). Without generations, a node that
//! renewed over one mark could be declared dead by a node that saw this mark late, beside a second one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    names::{Incarnation, LEASE_BUCKETS, NodeId, RequestNumber},
    wire::Wire,
};
use crate::{journal::Revision, mqtt::Timestamp};

/// Time between two renewals.
pub const RENEW_EVERY_MILLIS: u64 = 2_000;
/// Time from the sending of a renewal until its node must not act any more.
pub const FENCE_AFTER_MILLIS: u64 = 4_000;
/// Time without a newer revision after which another node may mark a lease. It exceeds the time to the
/// fence by the possible error of a clock and the time that a decision may take to leave the node.
pub const EXPIRE_AFTER_MILLIS: u64 = 6_000;
/// Time to wait for the answer to a renewal before the next try.
pub const ANSWER_WITHIN_MILLIS: u64 = 500;
/// Number of renewals of one bucket without an answer that are remembered.
const ASKED_MAX: usize = 16;

/// The value of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The incarnation of the node.
    pub incarnation: Incarnation,
    /// How often this life has raised its generation.
    pub generation: u32,
    /// Whether another node marked it as expired.
    pub is_expired: bool,
}

impl Wire for Lease {
    const KIND: u8 = 1;
}

/// A lease that a node wants to write, its own or another one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeaseWrite {
    pub(super) bucket: u8,
    pub(super) lease: Lease,
    pub(super) expected: Revision,
}

/// The own lease in one bucket.
#[derive(Debug, Default)]
struct OwnLease {
    /// The newest revision that is known, and its lease.
    revision: Revision,
    there: Option<Lease>,
    /// A conflict named a later revision: this node must see the record before the next try.
    behind: bool,
    /// Renewals without an answer yet.
    asked: Vec<(RequestNumber, Timestamp)>,
    /// The newest sending time of an acknowledged renewal.
    sent: Option<Timestamp>,
    next_at: Timestamp,
}

/// The leases of this node.
#[derive(Debug)]
pub(super) struct OwnLeases {
    incarnation: Incarnation,
    /// The generation that the record of this node has.
    pub(super) generation: u32,
    leases: [OwnLease; LEASE_BUCKETS],
}

impl OwnLeases {
    pub(super) fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, generation: 0, leases: Default::default() }
    }

    /// Handles the state of the own key.
    pub(super) fn handle_seen(&mut self, bucket: u8, revision: Revision, there: Option<Lease>) {
        let Some(own) = self.leases.get_mut(usize::from(bucket)) else { return };
        if revision >= own.revision {
            (own.revision, own.there, own.behind) = (revision, there, false);
        }
    }

    /// Handles the result of a renewal.
    pub(super) fn handle_written(
        &mut self,
        request: RequestNumber,
        write: &LeaseWrite,
        result: Result<Revision, Option<Revision>>,
        now: Timestamp,
    ) {
        let Some(own) = self.leases.get_mut(usize::from(write.bucket)) else { return };
        // Answers may come in another order than the renewals.
        let at = own.asked.iter().position(|(asked, _)| *asked == request);
        let Some((_, sent)) = at.map(|at| own.asked.remove(at)) else { return };
        match result {
            Ok(revision) => {
                // The time of sending counts, because the time of the answer says nothing about the
                // NATS server.
                own.sent = own.sent.max(Some(sent));
                if revision >= own.revision {
                    (own.revision, own.there, own.behind) = (revision, Some(write.lease), false);
                }
                own.next_at = sent.plus_millis(RENEW_EVERY_MILLIS);
            }
            // Another write is there, and the watch will show which.
            Err(Some(revision)) if revision > own.revision => own.behind = true,
            // Tried again soon; the lease may have been written in spite of the error.
            Err(_) => own.next_at = own.next_at.min(now.plus_millis(ANSWER_WITHIN_MILLIS)),
        }
    }

    /// Returns whether a bucket has a mark of the present generation, so that the record of this node
    /// must get a higher one.
    pub(super) fn is_marked(&self) -> bool {
        self.leases.iter().any(|own| own.there.is_some_and(|there| self.is_own_mark(there)))
    }

    fn is_own_mark(&self, there: Lease) -> bool {
        let Lease { incarnation, generation, is_expired } = there;
        is_expired && incarnation == self.incarnation && generation == self.generation
    }

    /// Returns the next renewal, which is then sent at `now`.
    pub(super) fn poll_renewal(
        &mut self,
        request: RequestNumber,
        now: Timestamp,
    ) -> Option<LeaseWrite> {
        let lease =
            Lease { incarnation: self.incarnation, generation: self.generation, is_expired: false };
        let is_due = |own: &OwnLease| {
            // A mark of the own generation is final: the record must be raised first.
            let may_overwrite = own.there.is_none_or(|there| !self.is_own_mark(there));
            now >= own.next_at && may_overwrite && !own.behind
        };
        let at = self.leases.iter().position(is_due)?;
        let own = &mut self.leases[at];
        // Answers of very old renewals do not count any more, so their number is bounded.
        if own.asked.len() == ASKED_MAX {
            own.asked.remove(0);
        }
        own.asked.push((request, now));
        // The next attempt does not wait for an answer that may never come.
        own.next_at = now.plus_millis(ANSWER_WITHIN_MILLIS);
        Some(LeaseWrite { bucket: at as u8, lease, expected: own.revision })
    }

    /// Returns when this node must stop to act; `None` before two buckets have acknowledged a renewal.
    pub(super) fn valid_until(&self) -> Option<Timestamp> {
        let mut sent: [Option<Timestamp>; LEASE_BUCKETS] = Default::default();
        for (sent, own) in sent.iter_mut().zip(&self.leases) {
            *sent = own.sent;
        }
        sent.sort_unstable();
        Some(sent[LEASE_BUCKETS - 2]?.plus_millis(FENCE_AFTER_MILLIS))
    }

    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        self.valid_until().is_some_and(|until| now < until)
    }

    /// Returns the earliest time at which a renewal is due.
    pub(super) fn next_at(&self) -> Timestamp {
        self.leases.iter().map(|own| own.next_at).min().unwrap_or(Timestamp::NEVER)
    }
}

/// The lease of another node in one bucket, as this node saw it.
#[derive(Clone, Copy, Debug)]
struct Observed {
    revision: Revision,
    there: Option<Lease>,
    /// When this revision was seen first, by the own clock.
    since: Timestamp,
    /// Before this, no mark is tried again.
    next_at: Timestamp,
}

/// The leases of the other nodes.
#[derive(Debug, Default)]
pub(super) struct ObservedLeases {
    buckets: [BTreeMap<NodeId, Observed>; LEASE_BUCKETS],
}

impl ObservedLeases {
    /// Begins to watch a node: a lease that never comes expires as well.
    pub(super) fn expect(&mut self, node: &NodeId, now: Timestamp) {
        for bucket in &mut self.buckets {
            let absent = Observed { revision: Revision(0), there: None, since: now, next_at: now };
            bucket.entry(node.clone()).or_insert(absent);
        }
    }

    /// Handles the state of a key.
    pub(super) fn handle_seen(
        &mut self,
        bucket: u8,
        node: NodeId,
        revision: Revision,
        there: Option<Lease>,
        now: Timestamp,
    ) {
        let Some(bucket) = self.buckets.get_mut(usize::from(bucket)) else { return };
        let known = bucket.get(&node).map_or(Revision(0), |known| known.revision);
        if revision > known || !bucket.contains_key(&node) {
            bucket.insert(node, Observed { revision, there, since: now, next_at: now });
        }
    }

    /// Returns the time since the newest revision of each lease of a node was seen.
    pub(super) fn ages_millis(&self, node: &NodeId, now: Timestamp) -> [u64; LEASE_BUCKETS] {
        let mut ages = [0; LEASE_BUCKETS];
        for (age, bucket) in ages.iter_mut().zip(&self.buckets) {
            let since = bucket.get(node).map(|seen| seen.since.millis());
            *age = since.map_or(0, |since| now.millis().saturating_sub(since));
        }
        ages
    }

    /// Returns in how many buckets the lease of this life has a mark of this generation.
    pub(super) fn marks(&self, node: &NodeId, of: Lease) -> usize {
        let is_marked = |bucket: &&BTreeMap<NodeId, Observed>| {
            bucket.get(node).is_some_and(|seen| seen.there == Some(of))
        };
        self.buckets.iter().filter(is_marked).count()
    }

    /// Returns the next mark that is due for a life of a node, which is then tried at `now`. The time
    /// to expiry counts from the last new revision, and not before this life was seen: what an earlier
    /// life left is old.
    pub(super) fn poll_mark(
        &mut self,
        node: &NodeId,
        of: Lease,
        life_since: Timestamp,
        now: Timestamp,
    ) -> Option<LeaseWrite> {
        for (at, bucket) in self.buckets.iter_mut().enumerate() {
            let Some(seen) = bucket.get_mut(node) else { continue };
            // Counted by the clock of this node, and from the moment when it saw this life.
            let silent_since = seen.since.max(life_since);
            let is_due =
                now >= silent_since.plus_millis(EXPIRE_AFTER_MILLIS) && now >= seen.next_at;
            // The mark is there already.
            if seen.there == Some(of) || !is_due {
                continue;
            }
            // Other survivors try too, so a failed attempt is not repeated at once.
            seen.next_at = now.plus_millis(2 * ANSWER_WITHIN_MILLIS);
            return Some(LeaseWrite { bucket: at as u8, lease: of, expected: seen.revision });
        }
        None
    }
}
