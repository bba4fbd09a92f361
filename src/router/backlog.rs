//! What waits for a shared subscription at its members, as all shards know it: at which, and
//! where what comes next waits behind it.
//!
//! Knows no message. A member is noted here when something begins to wait with it, and is struck off
//! when somebody has looked and found nothing, so that it may be here for longer than it need be.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use foldhash::fast::RandomState;

use super::{Host, Place};

/// What the plans that are made of a group share with it, so that it goes on over changes.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Whose turn it is.
    next: AtomicUsize,
    /// The member behind whose messages others are to wait; 0 for none.
    tail: AtomicU64,
}

impl Turns {
    pub(super) fn take(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The host and slot of the member behind whose messages others are to wait.
    pub(super) fn tail(&self) -> Option<(Host, u32)> {
        let tail = self.tail.load(Ordering::Relaxed).checked_sub(1)?;
        Some((Host((tail >> 32) as u16), tail as u32))
    }
}

/// This number is looked at for the last of those who are away: a choice that need not be the best.
const LAST_MAX: usize = 64;

/// The members of a group that have something waiting.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// In the order in which they began to hold something.
    order: VecDeque<Place>,
    holders: HashSet<Place, RandomState>,
    pub(super) turns: Arc<Turns>,
}

impl Backlog {
    pub(super) fn hold(&mut self, place: Place) {
        if self.holders.insert(place) {
            self.order.push_back(place);
        }
    }

    /// Strikes a member off; whether it was noted.
    pub(super) fn release(&mut self, place: Place) -> bool {
        if !self.holders.remove(&place) {
            return false;
        }
        // It is the first as a rule: what waits is taken in this order.
        if let Some(at) = self.order.iter().position(|holder| *holder == place) {
            self.order.remove(at);
        }
        true
    }

    pub(super) fn first(&self, except: &[Place]) -> Option<Place> {
        self.order.iter().find(|holder| !except.contains(holder)).copied()
    }

    /// What comes now waits behind the last of those who are away, so that it keeps its order.
    pub(super) fn settle_tail(&self, is_away: impl Fn(Place) -> bool) {
        let mut last = self.order.iter().rev().take(LAST_MAX);
        let last = last.find(|holder| is_away(**holder));
        let tail = last
            .map_or(0, |Place { host, slot, .. }| (u64::from(host.0) << 32 | u64::from(*slot)) + 1);
        self.turns.tail.store(tail, Ordering::Relaxed);
    }

    /// What comes now need not wait behind what this member has.
    pub(super) fn cut_off_tail(&self, place: Place) {
        if self.turns.tail() == Some((place.host, place.slot)) {
            self.turns.tail.store(0, Ordering::Relaxed);
        }
    }
}
