//! Messages that wait because the client is away, its window is full, or it reads more slowly than
//! others publish. Limits on number and bytes apply to one client and to all together.

mod memory;
mod own_limits;
mod owned;
mod part;
mod room;
mod usage;
mod view;
mod weeding;
mod withdrawn;

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use self::memory::InMemory;
pub(super) use self::own_limits::OwnQueueLimits;
use self::usage::CurrentLimits;
pub use self::usage::{BackPressure, QueueLimits, QueueUsage, WhenFull};
pub use self::view::WaitingInMemory;
use self::weeding::Expiring;
pub use self::weeding::Weeded;
use self::withdrawn::Withdrawn;
use super::{
    envelope::{Amount, Envelope, Orphan, Share, StoredAt},
    keeping::{Beyond, Keeping, PAGE_BYTES, PAGE_MESSAGES, Page},
};
use crate::mqtt::QoS;

/// The result of queueing a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// The message waits.
    Queued,
    /// The message waits, and this number of others was dropped for it.
    InPlaceOf(usize),
    /// The message was dropped.
    Refused,
}

/// Bytes in flight are counted for all sessions together in blocks of this size. So the shards need
/// not change a shared counter for small messages that are acknowledged soon.
pub(super) const IN_FLIGHT_BLOCK: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Envelope>,
    /// Number of messages that have ever left the queue.
    taken: u64,
    bytes: usize,
    /// Number of waiting messages with QoS 0.
    at_most_once: usize,
    is_over_half: bool,
    /// Waiting messages in memory that the store has too.
    in_both: Amount,
    /// Messages in flight.
    in_flight: Amount,
    /// Bytes of retained messages that were fetched and are not sent.
    bytes_fetched: usize,
    /// Blocks of bytes in flight of this session that are counted for all sessions.
    blocks_in_flight: u32,
    pub(super) back_pressure: BackPressure,
    /// Present in a durable session.
    pub(super) keeping: Option<Box<Keeping>>,
    /// Messages and bytes in the store alone that are counted for all sessions.
    stored: (usize, usize),
    expiring: Expiring,
    /// Present while messages of withdrawn subscriptions may wait.
    withdrawn: Option<Box<Withdrawn>>,
    /// The amounts that count for the owner.
    in_memory: InMemory,
    /// Limits of its own, below those of all queues.
    own: Option<Box<OwnQueueLimits>>,
    usage: Arc<QueueUsage>,
}

impl Queue {
    pub(super) const fn new(usage: Arc<QueueUsage>) -> Self {
        Self {
            waiting: VecDeque::new(),
            taken: 0,
            bytes: 0,
            at_most_once: 0,
            is_over_half: false,
            in_both: Amount { messages: 0, bytes: 0 },
            in_flight: Amount { messages: 0, bytes: 0 },
            bytes_fetched: 0,
            blocks_in_flight: 0,
            back_pressure: BackPressure::None,
            keeping: None,
            stored: (0, 0),
            expiring: Expiring::NOTHING,
            withdrawn: None,
            in_memory: InMemory::NOTHING,
            own: None,
            usage,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.beyond().messages
    }

    fn bounds(&self) -> &CurrentLimits {
        &self.usage.bounds
    }

    /// Returns the bytes that wait in memory and in the store.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.beyond().bytes
    }

    /// Returns the bytes of messages in flight.
    pub(super) const fn in_flight_bytes(&self) -> usize {
        self.in_flight.bytes
    }

    /// Returns the messages that wait in the store alone.
    fn beyond(&self) -> Beyond {
        self.keeping.as_ref().map_or_else(Beyond::default, |keeping| keeping.beyond)
    }

    /// Returns how many messages have left the queue since the session began.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    /// Returns how far the queue has come, for walks that wait until it reaches their position. In
    /// an empty queue nothing is ahead of them, even if the count is lower.
    pub(super) fn has_come_to(&self) -> u64 {
        if self.is_empty() { u64::MAX } else { self.taken }
    }

    /// Returns whether not even an empty message has room.
    pub(super) fn is_full(&self) -> bool {
        !self.has_room(0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
            && self.keeping.as_ref().is_none_or(|keeping| keeping.beyond.messages == 0)
    }

    /// Returns whether a QoS 0 message waits. Later QoS 0 messages must then wait as well.
    pub(super) const fn holds_at_most_once(&self) -> bool {
        self.at_most_once > 0
    }

    /// Returns how many of the first `n` waiting messages match `is_meant`.
    pub(super) fn count_among(&self, n: usize, is_meant: impl Fn(&Envelope) -> bool) -> usize {
        self.waiting.iter().take(n).filter(|envelope| is_meant(envelope)).count()
    }

    /// Takes out the messages for which `is_taken` is true, in order.
    pub(super) fn take_out(&mut self, is_taken: impl Fn(&Envelope) -> bool) -> Vec<Envelope> {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let taken;
        (taken, self.waiting) = waiting.partition(is_taken);
        let taken = Vec::from(taken);
        for envelope in &taken {
            self.forget(envelope);
        }
        if !taken.is_empty() {
            self.note_moved();
        }
        self.settle_share();
        taken
    }

    /// Queues a message within the limits. A QoS 0 message never displaces another one.
    pub(super) fn push(&mut self, envelope: Envelope, share: Option<Share<'_>>) -> Pushed {
        let pushed = self.push_within(envelope, share);
        self.settle_share();
        pushed
    }

    fn push_within(&mut self, envelope: Envelope, share: Option<Share<'_>>) -> Pushed {
        let size = envelope.message.size();
        // QoS 0 never displaces other messages.
        if envelope.qos == QoS::AtMostOnce && !self.has_room_in_all(size) {
            self.note_displaced_in_memory(usize::from(!self.has_owner_room(size)));
            return Pushed::Refused;
        }
        match (envelope.qos, self.back_pressure) {
            // A publisher of QoS 0 is not held, so its message is dropped while others wait.
            (QoS::AtMostOnce, BackPressure::Applied) => return Pushed::Refused,
            (QoS::AtMostOnce, _) | (_, BackPressure::None) => {}
            (_, BackPressure::Possible | BackPressure::Applied) => {
                // Back pressure holds publishers at the bound of this client, so messages on their
                // way may exceed it.
                if self.has_room_for_all(size) {
                    self.push_unchecked(envelope, share);
                    return Pushed::Queued;
                }
            }
        }
        let mut displaced = 0;
        let mut for_owner = 0;
        let mut for_owner_in_memory = 0;
        // One large message may displace several small ones.
        while !self.has_room(size) {
            for_owner_in_memory += usize::from(self.lacks_owner_room_alone(size));
            let is_for_owner = self.has_room_of_its_own(size) && !self.has_share(size);
            for_owner += usize::from(is_for_owner);
            // A message that would not fit into an empty queue displaces nothing.
            let may_displace = envelope.qos != QoS::AtMostOnce
                && self.bounds().when_full() != WhenFull::DropNewest
                && self.has_room_when_empty(size);
            if may_displace && self.is_next_unread() {
                // The caller has tried to read it: the oldest message is on its way to the store.
                break;
            }
            // A refused message counts too, by the limit that it has reached.
            if !may_displace || !self.drop_oldest() {
                self.note_displaced(for_owner);
                self.note_displaced_in_memory(for_owner_in_memory);
                return Pushed::Refused;
            }
            displaced += 1;
        }
        self.note_displaced(for_owner);
        self.note_displaced_in_memory(for_owner_in_memory);
        self.push_unchecked(envelope, share);
        if displaced == 0 { Pushed::Queued } else { Pushed::InPlaceOf(displaced) }
    }

    fn push_unchecked(&mut self, mut envelope: Envelope, share: Option<Share<'_>>) {
        let size = envelope.message.size();
        // Bounded in messages and bytes, so that memory holds one page for each client.
        let is_page_full = self.waiting.len() >= PAGE_MESSAGES || self.bytes >= PAGE_BYTES;
        let is_for_store = is_page_full || !self.has_room_in_all(size);
        self.expiring.note(envelope.message.expires_at());
        if let Some(keeping) = &mut self.keeping
            && envelope.qos != QoS::AtMostOnce
        {
            envelope.place = keeping.enqueue(&envelope, share, None);
            // A message must not overtake those before it that are in the store alone. [MQTT-4.6.0-5]
            if is_for_store || keeping.is_away || keeping.beyond.messages > 0 {
                keeping.leave(envelope.place, size);
                // The receipt is not stored, so it waits here until the message is read again.
                keeping.keep_receipt(envelope.place, &envelope.message);
                return self.note_stored();
            }
        }
        self.push_in_memory(envelope);
    }

    fn push_in_memory(&mut self, envelope: Envelope) {
        let size = envelope.message.size();
        self.bytes += size;
        self.at_most_once += usize::from(envelope.qos == QoS::AtMostOnce);
        if envelope.is_stored() {
            self.in_both.messages += 1;
            self.in_both.bytes += size;
        }
        self.usage.add(size);
        self.waiting.push_back(envelope);
        self.settle_memory();
        self.note_half();
    }

    /// Updates the count of sessions that use more than half of their queue limit.
    fn note_half(&mut self) {
        // Operators see how many queues are half full before messages are lost.
        let is_over = self.len() > self.messages_max() / 2 || self.bytes() > self.bytes_max() / 2;
        if is_over != self.is_over_half {
            self.is_over_half = is_over;
            let over_half = &self.usage.over_half;
            if is_over {
                over_half.fetch_add(1, Ordering::Relaxed);
            } else {
                over_half.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn front(&self) -> Option<&Envelope> {
        self.waiting.front()
    }

    pub(super) fn pop(&mut self) -> Option<Envelope> {
        let envelope = self.pop_front()?;
        self.settle_share();
        Some(envelope)
    }

    fn pop_front(&mut self) -> Option<Envelope> {
        let envelope = self.waiting.pop_front()?;
        self.taken += 1;
        self.forget(&envelope);
        if self.waiting.is_empty() {
            // An idle session must not keep the memory of an earlier burst.
            self.waiting = VecDeque::new();
        }
        Some(envelope)
    }

    /// Drops the oldest message that waits in memory; returns whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let Some(envelope) = self.pop_front() else { return false };
        if let Some(keeping) = &self.keeping
            && envelope.is_stored()
        {
            keeping.dequeue(envelope.place);
        }
        true
    }

    /// Returns whether the client's next message is in the store alone.
    pub(super) fn is_next_unread(&self) -> bool {
        self.beyond().messages > 0 && self.waiting.len() == self.at_most_once
    }

    /// Returns whether a page must be read before there can be room for a message.
    pub(super) fn must_read_to_displace(&self, size: usize) -> bool {
        self.is_next_unread()
            && self.bounds().when_full() != WhenFull::DropNewest
            && !self.has_room(size)
    }

    /// Takes messages that were read from the store; they are next. Returns those that came through
    /// a withdrawn shared subscription, for the other members.
    pub(super) fn take_page(
        &mut self,
        page: Page,
        share_number: impl Fn(&str) -> Option<NonZeroU32>,
        is_under_subscription: impl Fn(&str) -> bool,
    ) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        for (place, mut queued) in page.messages {
            let Some(keeping) = &mut self.keeping else { break };
            // Another member has taken the message, and the store has not removed it yet.
            if !keeping.fetched(place, queued.message.size()) {
                continue;
            }
            queued.message = keeping.with_receipt(place, queued.message);
            // Examined while it is in the hand: later it could only be found by a search.
            if let Some(withdrawn) = &self.withdrawn
                && withdrawn.is_withdrawn(place, &queued, &is_under_subscription)
            {
                match queued.share.as_deref().and_then(&share_number) {
                    Some(share) => {
                        let stored_at = Some(StoredAt { session: keeping.number(), place });
                        orphans.push(Orphan { message: queued.message, share, stored_at });
                    }
                    None => keeping.dequeue(place),
                }
                continue;
            }
            let share = queued.share.as_deref().and_then(&share_number);
            self.expiring.note(queued.message.expires_at());
            self.push_in_memory(Envelope {
                message: queued.message,
                qos: queued.qos,
                retain: queued.retain,
                identifiers: queued.identifiers,
                share,
                place,
            });
        }
        // The page may have had the last message of a withdrawn subscription.
        self.settle_withdrawn();
        self.note_stored();
        orphans
    }

    /// Notes that the store has no more messages than were read, although more were counted.
    pub(super) fn forget_beyond(&mut self) {
        if let Some(keeping) = &mut self.keeping {
            keeping.beyond = Beyond::default();
        }
        self.settle_withdrawn();
        self.note_stored();
    }

    /// Drops from memory the messages that the store has: the client has gone.
    pub(super) fn leave_to_store(&mut self) {
        let Some(keeping) = &mut self.keeping else { return };
        keeping.is_away = true;
        // Without stored messages, memory stays as it is.
        let Some(first) = self.waiting.iter().find(|e| e.is_stored()).map(|e| e.place) else {
            return;
        };
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (stored, others): (VecDeque<_>, VecDeque<_>) = waiting.partition(Envelope::is_stored);
        let bytes = stored.iter().map(|e| e.message.size()).sum();
        // The next read begins with the first of them.
        keeping.leave_before(first, stored.len(), bytes);
        stored.iter().for_each(|e| keeping.keep_receipt(e.place, &e.message));
        self.waiting = others;
        for envelope in &stored {
            self.forget(envelope);
        }
        self.note_moved();
        self.note_stored();
    }

    /// Updates the count for all sessions by this session's messages in the store alone.
    pub(super) fn note_stored(&mut self) {
        let Beyond { messages, bytes, .. } = self.beyond();
        let (former_messages, former_bytes) =
            std::mem::replace(&mut self.stored, (messages, bytes));
        // The counters are shared by all shards, so an unchanged value costs no write.
        let change = |sum: &AtomicUsize, now: usize, before: usize| {
            if now > before {
                sum.fetch_add(now - before, Ordering::Relaxed);
            } else if now < before {
                sum.fetch_sub(before - now, Ordering::Relaxed);
            }
        };
        change(&self.usage.messages_stored, messages, former_messages);
        change(&self.usage.bytes_stored, bytes, former_bytes);
        self.settle_share();
        self.note_half();
    }

    /// Stops counting a message.
    fn forget(&mut self, envelope: &Envelope) {
        let size = envelope.message.size();
        self.bytes -= size;
        self.at_most_once -= usize::from(envelope.qos == QoS::AtMostOnce);
        if envelope.is_stored() {
            self.in_both.messages -= 1;
            self.in_both.bytes -= size;
        }
        self.usage.subtract(1, size);
        self.settle_memory();
        self.note_half();
    }

    /// Queues a message beyond this client's limit, but within the limits for all clients.
    pub(super) fn push_retained(&mut self, envelope: Envelope) -> Pushed {
        if !self.has_room_in_all(envelope.message.size()) {
            return Pushed::Refused;
        }
        self.push_unchecked(envelope, None);
        Pushed::Queued
    }

    /// Counts the bytes of retained messages that are fetched for the client in the total of all
    /// queues.
    pub(super) fn note_fetched(&mut self, bytes: usize) {
        let former = std::mem::replace(&mut self.bytes_fetched, bytes);
        if bytes > former {
            QueueUsage::raise(&self.usage.bytes, &self.usage.bytes_highest, bytes - former);
        } else if bytes < former {
            self.usage.subtract(0, former - bytes);
        }
        self.settle_memory();
    }

    /// Returns whether publishers wait when the queue is full, as long as the client is connected.
    pub(super) fn holds_publishers(&self) -> bool {
        self.bounds().when_full() == WhenFull::HoldPublisher
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.note_in_flight(Amount::default());
        self.note_fetched(0);
        self.keeping = None;
        self.note_stored();
        self.usage.subtract(self.waiting.len(), self.bytes);
        self.usage.over_half.fetch_sub(usize::from(self.is_over_half), Ordering::Relaxed);
        self.leave_owner();
    }
}
