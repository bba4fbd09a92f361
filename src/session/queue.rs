//! Messages that wait for their turn: because the client is away, its window is full, or it reads
//! more slowly than is published. Bounded by count and by bytes, for one client and in all.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::mqtt::{Message, QoS};

/// A message and how it is to be sent to this client.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) message: Arc<Message>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) identifiers: Option<Arc<[u32]>>,
    /// The shared subscription that it came by. It takes room that padding would take.
    pub(super) share: Option<NonZeroU32>,
}

/// What happens to QoS 1 and 2 messages for a client whose queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest message that waits goes.
    #[default]
    DropOldest,
    /// The new message goes.
    DropNewest,
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

/// What waits in all queues together.
#[derive(Debug, Default)]
pub struct QueueUsage {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl QueueUsage {
    /// Messages.
    pub fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn subtract(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What became of a message that was to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Queued,
    /// It waits, and so many others had to go for it.
    InPlaceOf(usize),
    /// It was dropped.
    Refused,
}

#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Envelope>,
    bytes: usize,
    /// How many of those that wait have QoS 0.
    at_most_once: usize,
    limits: QueueLimits,
    usage: Arc<QueueUsage>,
}

impl Queue {
    pub(super) const fn new(limits: QueueLimits, usage: Arc<QueueUsage>) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, at_most_once: 0, limits, usage }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether not even an empty message has room.
    pub(super) fn is_full(&self) -> bool {
        !self.has_room(0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a QoS 0 message waits, behind which others of its kind must wait as well.
    pub(super) const fn holds_at_most_once(&self) -> bool {
        self.at_most_once > 0
    }

    /// Takes out what came by such shared subscriptions, in its order.
    pub(super) fn take_shared(&mut self, is_taken: impl Fn(NonZeroU32) -> bool) -> Vec<Envelope> {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let shared;
        (shared, self.waiting) = waiting.partition(|e| e.share.is_some_and(&is_taken));
        let shared = Vec::from(shared);
        for envelope in &shared {
            self.forget(envelope);
        }
        shared
    }

    /// Queues within the bounds. QoS 0 never displaces what waits.
    pub(super) fn push(&mut self, envelope: Envelope) -> Pushed {
        let size = envelope.message.size();
        let mut displaced = 0;
        while !self.has_room(size) {
            let may_displace = envelope.qos != QoS::AtMostOnce
                && self.limits.when_full == WhenFull::DropOldest
                && self.has_room_when_empty(size);
            if !may_displace || self.pop().is_none() {
                return Pushed::Refused;
            }
            displaced += 1;
        }
        self.push_unchecked(envelope);
        if displaced == 0 { Pushed::Queued } else { Pushed::InPlaceOf(displaced) }
    }

    fn push_unchecked(&mut self, envelope: Envelope) {
        let size = envelope.message.size();
        self.bytes += size;
        self.at_most_once += usize::from(envelope.qos == QoS::AtMostOnce);
        self.usage.add(size);
        self.waiting.push_back(envelope);
    }

    pub(super) fn front(&self) -> Option<&Envelope> {
        self.waiting.front()
    }

    pub(super) fn pop(&mut self) -> Option<Envelope> {
        let envelope = self.waiting.pop_front()?;
        self.forget(&envelope);
        if self.waiting.is_empty() {
            // An idle session keeps no memory for the burst that it once had.
            self.waiting = VecDeque::new();
        }
        Some(envelope)
    }

    /// Counts one less.
    fn forget(&mut self, envelope: &Envelope) {
        let size = envelope.message.size();
        self.bytes -= size;
        self.at_most_once -= usize::from(envelope.qos == QoS::AtMostOnce);
        self.usage.subtract(1, size);
    }

    /// Whether it helps to drop what waits here: the other queues keep what they have.
    fn has_room_when_empty(&self, size: usize) -> bool {
        let others = self.usage.bytes().saturating_sub(self.bytes);
        let other_messages = self.usage.messages().saturating_sub(self.waiting.len());
        size <= self.limits.bytes_max
            && others + size <= self.limits.bytes_in_all_max
            && other_messages < self.limits.messages_in_all_max
    }

    /// Queues past the bounds of this client, but not past those of all; for retained messages,
    /// which are bounded themselves.
    pub(super) fn push_retained(&mut self, envelope: Envelope) -> Pushed {
        let bytes = self.usage.bytes() + envelope.message.size();
        if self.usage.messages() >= self.limits.messages_in_all_max
            || bytes > self.limits.bytes_in_all_max
        {
            return Pushed::Refused;
        }
        self.push_unchecked(envelope);
        Pushed::Queued
    }

    /// Whether a message of so many bytes has room without displacing another.
    pub(super) fn has_room(&self, size: usize) -> bool {
        self.waiting.len() < self.limits.messages_max
            && self.bytes + size <= self.limits.bytes_max
            && self.usage.messages() < self.limits.messages_in_all_max
            && self.usage.bytes() + size <= self.limits.bytes_in_all_max
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.usage.subtract(self.waiting.len(), self.bytes);
    }
}
