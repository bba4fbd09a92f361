//! The backlog of a shared subscription, as all shards see it: which members have queued messages,
//! and which member's queue the next message goes to.
//!
//! Knows no messages. A member is added when its queue gets its first message of the group, and
//! removed when a shard has looked and found none, so it may stay here longer than necessary.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use foldhash::fast::RandomState;

use super::{Host, Place, ShardNumber};

/// State that a group shares with its plans, so that it survives changes of the group.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The next turn.
    next: AtomicUsize,
    /// The member whose queue new messages go to; 0 for none.
    tail: AtomicU64,
}

impl Turns {
    pub(super) fn take(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns host and slot of the member whose queue new messages go to. It is a session: a
    /// subscriber in process is never offline.
    pub(super) fn tail(&self) -> Option<(Host, u32)> {
        let tail = self.tail.load(Ordering::Relaxed).checked_sub(1)?;
        Some((Host::Shard(ShardNumber((tail >> 32) as u16)), tail as u32))
    }
}

/// Maximum number of members to search for the last offline one. The choice need not be optimal.
const LAST_MAX: usize = 64;

/// The members of a group with queued messages.
#[derive(Debug, Default)]
pub(super) struct BacklogHolders {
    /// In the order in which their queues began.
    order: VecDeque<Place>,
    holders: HashSet<Place, RandomState>,
    pub(super) turns: Arc<Turns>,
}

impl BacklogHolders {
    pub(super) fn begin(&mut self, place: Place) {
        if self.holders.insert(place) {
            self.order.push_back(place);
        }
    }

    /// Removes a member; returns whether it was here.
    pub(super) fn release(&mut self, place: Place) -> bool {
        if !self.holders.remove(&place) {
            return false;
        }
        // Usually the first one, because backlogs are taken in this order.
        if let Some(at) = self.order.iter().position(|holder| *holder == place) {
            self.order.remove(at);
        }
        true
    }

    pub(super) fn first(&self, except: &[Place]) -> Option<Place> {
        self.order.iter().find(|holder| !except.contains(holder)).copied()
    }

    /// Sends new messages to the queue of the last offline member with a backlog, which keeps their
    /// order.
    pub(super) fn settle_tail(&self, is_away: impl Fn(Place) -> bool) {
        let mut last = self.order.iter().rev().take(LAST_MAX);
        let last = last.find(|holder| is_away(**holder));
        let number =
            |Place { host, slot, .. }: &Place| u64::from(host.number()) << 32 | u64::from(*slot);
        let tail = last.map_or(0, |place| number(place) + 1);
        self.turns.tail.store(tail, Ordering::Relaxed);
    }

    /// Stops sending new messages to the queue of this member.
    pub(super) fn cut_off_tail(&self, place: Place) {
        if self.turns.tail() == Some((place.host, place.slot)) {
            self.turns.tail.store(0, Ordering::Relaxed);
        }
    }
}
