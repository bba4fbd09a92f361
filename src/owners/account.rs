//! The resources of one owner, and their limits.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::RandomState;

use super::Owner;
use crate::limits::OwnLimits;

/// The resources of one owner, over all shards.
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
    /// Messages queued and in flight of stored sessions.
    pub stored_messages: Meter,
    /// Bytes of those messages.
    pub stored_bytes: Meter,
    /// Bytes of Wills.
    pub will_bytes: Meter,
    /// Messages that wait in memory for the owner's sessions.
    pub queue_messages: Meter,
    /// Bytes of messages in memory: those that wait, and those in flight.
    pub queue_bytes: Meter,
    /// Bytes of packets that connections hold and have not handled.
    pub incomplete_bytes: Meter,
    /// Bytes of changes on their way to the store; their limit is not here.
    pub store_waiting: Meter,
    /// The shapes of the Topic Filters of this owner's sessions, each with the number of sessions
    /// that have it.
    shapes: Mutex<HashMap<Box<str>, u32, RandomState>>,
    shapes_max: AtomicU64,
    /// Messages dropped because of this owner's limit of stored messages, and not reported yet.
    displaced: AtomicU64,
    /// The same because of its limit of messages in memory.
    displaced_in_memory: AtomicU64,
}

impl Account {
    pub(super) fn new(owner: Owner, limits: OwnLimits, incomplete_bytes_max: u64) -> Self {
        let account = Self {
            owner,
            sessions: Meter::default(),
            retained_messages: Meter::default(),
            retained_bytes: Meter::default(),
            subscription_bytes: Meter::default(),
            stored_messages: Meter::default(),
            stored_bytes: Meter::default(),
            will_bytes: Meter::default(),
            queue_messages: Meter::default(),
            queue_bytes: Meter::default(),
            incomplete_bytes: Meter::default(),
            store_waiting: Meter::default(),
            shapes: Mutex::default(),
            shapes_max: AtomicU64::default(),
            displaced: AtomicU64::new(0),
            displaced_in_memory: AtomicU64::new(0),
        };
        // The same code as a reload, so that a new account has the limits of the others.
        account.set_limits(limits, incomplete_bytes_max);
        account
    }

    /// Returns the owner of the account.
    #[must_use]
    pub const fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(super) fn set_limits(&self, limits: OwnLimits, incomplete_bytes_max: u64) {
        self.incomplete_bytes.max.store(incomplete_bytes_max, Ordering::Relaxed);
        // Taken apart by name, so that a new limit cannot be forgotten here.
        let OwnLimits {
            sessions_max,
            retained_messages_max,
            retained_bytes_max,
            subscription_bytes_max,
            filter_shapes_max,
            stored_messages_max,
            stored_bytes_max,
            will_bytes_max,
            queue_messages_max,
            queue_bytes_max,
        } = limits;
        // `None` is unlimited. An amount beyond a lower limit stays, and only stops growing.
        self.shapes_max.store(filter_shapes_max.unwrap_or(u64::MAX), Ordering::Relaxed);
        for (meter, max) in [
            (&self.sessions, sessions_max),
            (&self.retained_messages, retained_messages_max),
            (&self.retained_bytes, retained_bytes_max),
            (&self.subscription_bytes, subscription_bytes_max),
            (&self.stored_messages, stored_messages_max),
            (&self.stored_bytes, stored_bytes_max),
            (&self.will_bytes, will_bytes_max),
            (&self.queue_messages, queue_messages_max),
            (&self.queue_bytes, queue_bytes_max),
        ] {
            meter.max.store(max.unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Returns whether a session may have a filter of this shape.
    #[must_use]
    pub fn takes_shape(&self, shape: &str) -> bool {
        let shapes = self.shapes();
        (shapes.len() as u64) < self.shapes_max.load(Ordering::Relaxed)
            || shapes.contains_key(shape)
    }

    /// Notes that a session has its first filter of this shape.
    pub fn add_shape(&self, shape: &str) {
        *self.shapes().entry(shape.into()).or_default() += 1;
    }

    /// Notes that a session has no more filters of this shape.
    pub fn remove_shape(&self, shape: &str) {
        let mut shapes = self.shapes();
        if let Some(sessions) = shapes.get_mut(shape) {
            *sessions -= 1;
            if *sessions == 0 {
                shapes.remove(shape);
            }
        }
    }

    fn shapes(&self) -> MutexGuard<'_, HashMap<Box<str>, u32, RandomState>> {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts messages dropped because of this owner's limit of stored messages.
    pub fn note_displaced(&self, messages: u64) {
        self.displaced.fetch_add(messages, Ordering::Relaxed);
    }

    /// Returns the number of dropped messages since the last call and resets it.
    pub fn take_displaced(&self) -> u64 {
        take(&self.displaced)
    }

    /// Counts messages dropped because of this owner's limit of messages in memory.
    pub fn note_displaced_in_memory(&self, messages: u64) {
        self.displaced_in_memory.fetch_add(messages, Ordering::Relaxed);
    }

    /// Returns the number of these messages since the last call and resets it.
    pub fn take_displaced_in_memory(&self) -> u64 {
        take(&self.displaced_in_memory)
    }
}

fn take(count: &AtomicU64) -> u64 {
    match count.load(Ordering::Relaxed) {
        0 => 0,
        _ => count.swap(0, Ordering::Relaxed),
    }
}

/// The used amount of one resource, and its limit.
#[derive(Debug, Default)]
pub struct Meter {
    used: AtomicU64,
    max: AtomicU64,
}

impl Meter {
    /// Returns the used amount.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the limit.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Returns whether `more` fits within the limit. Zero always fits.
    #[must_use]
    pub fn fits(&self, more: u64) -> bool {
        more == 0 || self.used().saturating_add(more) <= self.max()
    }

    /// Adds `more` if it fits within the limit; returns whether it did.
    pub fn take(&self, more: u64) -> bool {
        let used = self.used.fetch_add(more, Ordering::Relaxed);
        if more > 0 && used.saturating_add(more) > self.max() {
            self.used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Adds `more`, even beyond the limit.
    pub fn force(&self, more: u64) {
        self.used.fetch_add(more, Ordering::Relaxed);
    }

    /// Subtracts `less`.
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
