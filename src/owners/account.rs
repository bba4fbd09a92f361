//! What one owner has of each kind of thing, and how much it may have.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Owner;
use crate::limits::OwnLimits;

/// What one owner has, over all shards.
#[derive(Debug)]
pub struct Account {
    owner: Owner,
    /// Sessions that outlive their connection.
    pub sessions: Meter,
    /// Retained messages.
    pub retained_messages: Meter,
    /// Bytes of retained messages.
    pub retained_bytes: Meter,
    /// Bytes of subscriptions.
    pub subscription_bytes: Meter,
    /// Messages in queues and in flight of sessions that are stored.
    pub stored_messages: Meter,
    /// Bytes of those messages.
    pub stored_bytes: Meter,
    /// Bytes of Wills.
    pub will_bytes: Meter,
    /// Messages that went because of this owner's stored share, and were not told yet.
    displaced: AtomicU64,
}

impl Account {
    pub(super) fn new(owner: Owner, limits: OwnLimits) -> Self {
        let account = Self {
            owner,
            sessions: Meter::default(),
            retained_messages: Meter::default(),
            retained_bytes: Meter::default(),
            subscription_bytes: Meter::default(),
            stored_messages: Meter::default(),
            stored_bytes: Meter::default(),
            will_bytes: Meter::default(),
            displaced: AtomicU64::new(0),
        };
        account.set_limits(limits);
        account
    }

    /// Returns whose account it is.
    #[must_use]
    pub const fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(super) fn set_limits(&self, limits: OwnLimits) {
        let OwnLimits {
            sessions_max,
            retained_messages_max,
            retained_bytes_max,
            subscription_bytes_max,
            stored_messages_max,
            stored_bytes_max,
            will_bytes_max,
        } = limits;
        for (meter, max) in [
            (&self.sessions, sessions_max),
            (&self.retained_messages, retained_messages_max),
            (&self.retained_bytes, retained_bytes_max),
            (&self.subscription_bytes, subscription_bytes_max),
            (&self.stored_messages, stored_messages_max),
            (&self.stored_bytes, stored_bytes_max),
            (&self.will_bytes, will_bytes_max),
        ] {
            meter.max.store(max.unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Counts messages that went because of this owner's stored share.
    pub fn note_displaced(&self, messages: u64) {
        self.displaced.fetch_add(messages, Ordering::Relaxed);
    }

    /// Takes the count of those messages; 0 if nothing was counted since.
    pub fn take_displaced(&self) -> u64 {
        match self.displaced.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.displaced.swap(0, Ordering::Relaxed),
        }
    }
}

/// How much of one kind there is, and may be.
#[derive(Debug, Default)]
pub struct Meter {
    used: AtomicU64,
    max: AtomicU64,
}

impl Meter {
    /// Returns how much there is.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns how much there may be.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Returns whether there is room for so much more. Nothing more always has.
    #[must_use]
    pub fn fits(&self, more: u64) -> bool {
        more == 0 || self.used().saturating_add(more) <= self.max()
    }

    /// Counts so much more, if there is room for it; whether there was.
    pub fn take(&self, more: u64) -> bool {
        let used = self.used.fetch_add(more, Ordering::Relaxed);
        if more > 0 && used.saturating_add(more) > self.max() {
            self.used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Counts so much more, past the bound if need be.
    pub fn force(&self, more: u64) {
        self.used.fetch_add(more, Ordering::Relaxed);
    }

    /// Counts so much less.
    pub fn give_back(&self, less: u64) {
        self.used.fetch_sub(less, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_takes_no_more_than_it_may_and_forgets_what_it_is_given_back() {
        let meter = Meter::default();
        meter.max.store(10, Ordering::Relaxed);
        assert!(meter.take(10) && meter.fits(0) && !meter.fits(1) && !meter.take(1));
        meter.force(5);
        assert!(meter.take(0), "nothing more has room past the bound, too");
        meter.give_back(6);
        assert_eq!(meter.used(), 9);
        assert!(meter.take(1));
    }
}
