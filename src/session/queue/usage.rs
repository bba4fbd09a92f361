//! The limits of queues, and the total usage of all queues.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Selects which messages are dropped if a client's queue is full, for QoS 1 and 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest waiting message is dropped.
    #[default]
    DropOldest,
    /// The new message is dropped.
    DropNewest,
    /// Publishers wait if [`BackPressure`] allows that; otherwise the oldest waiting message is
    /// dropped.
    HoldPublisher,
}

/// Whether publishers wait for a full queue. If they do, messages that they have already sent may
/// exceed the queue's own limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackPressure {
    /// Publishers do not wait: messages are dropped at the limit.
    #[default]
    None,
    /// Publishers will wait as soon as the queue is full.
    Possible,
    /// Publishers wait. QoS 0 messages, for which no publisher waits, take no room from theirs.
    Applied,
}

/// The limits of a client's queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Messages that may wait for one client.
    pub messages_max: usize,
    /// Bytes of messages that may wait for one client.
    pub bytes_max: usize,
    /// Messages that may wait for all clients together.
    pub messages_in_all_max: usize,
    /// Bytes of messages that may wait for all clients together.
    pub bytes_in_all_max: usize,
    /// Which messages are dropped at the limit.
    pub when_full: WhenFull,
}

/// The current limits. They have a cache line of their own: each queued message reads the limits
/// and changes the counts beside them.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct CurrentLimits {
    messages_max: AtomicUsize,
    bytes_max: AtomicUsize,
    messages_in_all_max: AtomicUsize,
    bytes_in_all_max: AtomicUsize,
    when_full: AtomicU8,
}

impl CurrentLimits {
    fn new(limits: QueueLimits) -> Self {
        Self {
            messages_max: AtomicUsize::new(limits.messages_max),
            bytes_max: AtomicUsize::new(limits.bytes_max),
            messages_in_all_max: AtomicUsize::new(limits.messages_in_all_max),
            bytes_in_all_max: AtomicUsize::new(limits.bytes_in_all_max),
            when_full: AtomicU8::new(limits.when_full as u8),
        }
    }

    pub(super) fn messages_max(&self) -> usize {
        self.messages_max.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    pub(super) fn messages_in_all_max(&self) -> usize {
        self.messages_in_all_max.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_in_all_max(&self) -> usize {
        self.bytes_in_all_max.load(Ordering::Relaxed)
    }

    pub(super) fn when_full(&self) -> WhenFull {
        match self.when_full.load(Ordering::Relaxed) {
            0 => WhenFull::DropOldest,
            1 => WhenFull::DropNewest,
            _ => WhenFull::HoldPublisher,
        }
    }
}

/// The total usage of all queues, and the limits of each.
#[derive(Debug)]
pub struct QueueUsage {
    pub(super) bounds: CurrentLimits,
    pub(super) messages: AtomicUsize,
    pub(super) bytes: AtomicUsize,
    pub(super) messages_highest: AtomicUsize,
    pub(super) bytes_highest: AtomicUsize,
    pub(super) over_half: AtomicUsize,
    pub(super) bytes_in_flight: AtomicUsize,
    pub(super) messages_stored: AtomicUsize,
    pub(super) bytes_stored: AtomicUsize,
}

impl QueueUsage {
    /// Creates it without waiting messages.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            bounds: CurrentLimits::new(limits),
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            messages_highest: AtomicUsize::new(0),
            bytes_highest: AtomicUsize::new(0),
            over_half: AtomicUsize::new(0),
            bytes_in_flight: AtomicUsize::new(0),
            messages_stored: AtomicUsize::new(0),
            bytes_stored: AtomicUsize::new(0),
        }
    }

    /// Changes the limits. A queue beyond its new limit keeps its messages until it takes its next
    /// one. A connection keeps the backpressure setting that it began with.
    pub fn set_limits(&self, limits: QueueLimits) {
        let bounds = &self.bounds;
        bounds.messages_max.store(limits.messages_max, Ordering::Relaxed);
        bounds.bytes_max.store(limits.bytes_max, Ordering::Relaxed);
        bounds.messages_in_all_max.store(limits.messages_in_all_max, Ordering::Relaxed);
        bounds.bytes_in_all_max.store(limits.bytes_in_all_max, Ordering::Relaxed);
        bounds.when_full.store(limits.when_full as u8, Ordering::Relaxed);
    }

    /// Returns the number of waiting messages.
    pub fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    /// Returns the bytes of waiting messages.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the highest number of messages so far.
    pub fn messages_highest(&self) -> usize {
        self.messages_highest.load(Ordering::Relaxed)
    }

    /// Returns the highest number of bytes so far.
    pub fn bytes_highest(&self) -> usize {
        self.bytes_highest.load(Ordering::Relaxed)
    }

    /// Returns the bytes of messages that were sent and are not acknowledged, in whole blocks of 64
    /// KiB for each session. A smaller amount is not worth counting here.
    pub fn bytes_in_flight(&self) -> usize {
        self.bytes_in_flight.load(Ordering::Relaxed)
    }

    /// Returns the number of messages that wait in the store alone.
    pub fn messages_stored(&self) -> usize {
        self.messages_stored.load(Ordering::Relaxed)
    }

    /// Returns the bytes of messages that wait in the store alone.
    pub fn bytes_stored(&self) -> usize {
        self.bytes_stored.load(Ordering::Relaxed)
    }

    /// Returns the number of sessions that use more than half of their queue limit.
    pub fn sessions_over_half(&self) -> usize {
        self.over_half.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        Self::raise(&self.messages, &self.messages_highest, 1);
        Self::raise(&self.bytes, &self.bytes_highest, bytes);
    }

    pub(super) fn raise(sum: &AtomicUsize, highest: &AtomicUsize, n: usize) {
        let now = sum.fetch_add(n, Ordering::Relaxed) + n;
        // Read first: a new maximum is rare, and without one nothing is written.
        if now > highest.load(Ordering::Relaxed) {
            highest.fetch_max(now, Ordering::Relaxed);
        }
    }

    pub(super) fn subtract(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
