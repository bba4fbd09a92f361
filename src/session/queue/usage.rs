//! The bounds of queues, and what all of them hold together.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// What happens to QoS 1 and 2 messages for a client whose queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest message that waits goes.
    #[default]
    DropOldest,
    /// The new message goes.
    DropNewest,
    /// Publishers wait while [`BackPressure`] says so; else the oldest message that waits goes.
    HoldPublisher,
}

/// Whether publishers wait for a queue that is full, so that it may pass its own bound by what they
/// have sent already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackPressure {
    /// They do not: messages are dropped at the bound.
    #[default]
    None,
    /// They will as soon as it is full.
    Possible,
    /// They do. QoS 0, for which nobody waits, takes no room from them.
    Applied,
}

/// The bounds of a client's queue.
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
    /// What happens at the bound.
    pub when_full: WhenFull,
}

/// The bounds in force. On a line of memory of their own: they are read with each message that is
/// queued, and the counts beside them are written.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Bounds {
    messages_max: AtomicUsize,
    bytes_max: AtomicUsize,
    messages_in_all_max: AtomicUsize,
    bytes_in_all_max: AtomicUsize,
    when_full: AtomicU8,
}

impl Bounds {
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

/// What waits in all queues together, and the bounds of each.
#[derive(Debug)]
pub struct QueueUsage {
    pub(super) bounds: Bounds,
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
    /// Nothing waits yet.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            bounds: Bounds::new(limits),
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

    /// Puts other bounds into force. A queue that has more than it may have keeps that until it takes
    /// its next message. Whether publishers are held for a client is settled when it connects.
    pub fn set_limits(&self, limits: QueueLimits) {
        let bounds = &self.bounds;
        bounds.messages_max.store(limits.messages_max, Ordering::Relaxed);
        bounds.bytes_max.store(limits.bytes_max, Ordering::Relaxed);
        bounds.messages_in_all_max.store(limits.messages_in_all_max, Ordering::Relaxed);
        bounds.bytes_in_all_max.store(limits.bytes_in_all_max, Ordering::Relaxed);
        bounds.when_full.store(limits.when_full as u8, Ordering::Relaxed);
    }

    /// Messages.
    pub fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The most messages that there ever were.
    pub fn messages_highest(&self) -> usize {
        self.messages_highest.load(Ordering::Relaxed)
    }

    /// The most bytes that there ever were.
    pub fn bytes_highest(&self) -> usize {
        self.bytes_highest.load(Ordering::Relaxed)
    }

    /// Bytes of messages that were sent and not acknowledged, in whole blocks of
    /// 64 KiB a session: what is less is not worth counting for all.
    pub fn bytes_in_flight(&self) -> usize {
        self.bytes_in_flight.load(Ordering::Relaxed)
    }

    /// Messages that wait in the store alone.
    pub fn messages_stored(&self) -> usize {
        self.messages_stored.load(Ordering::Relaxed)
    }

    /// Bytes of messages that wait in the store alone.
    pub fn bytes_stored(&self) -> usize {
        self.bytes_stored.load(Ordering::Relaxed)
    }

    /// Sessions with more than half of what may wait for one client.
    pub fn sessions_over_half(&self) -> usize {
        self.over_half.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        Self::raise(&self.messages, &self.messages_highest, 1);
        Self::raise(&self.bytes, &self.bytes_highest, bytes);
    }

    pub(super) fn raise(sum: &AtomicUsize, highest: &AtomicUsize, n: usize) {
        let now = sum.fetch_add(n, Ordering::Relaxed) + n;
        // Read first: it is seldom a new height, and then nobody writes.
        if now > highest.load(Ordering::Relaxed) {
            highest.fetch_max(now, Ordering::Relaxed);
        }
    }

    pub(super) fn subtract(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
