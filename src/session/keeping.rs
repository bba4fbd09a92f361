//! What makes a session durable: its changes are noted in the journal, and of its queue only the
//! next page is in memory; the rest lies in the store and is counted here.

use std::collections::BTreeMap;

use super::{
    envelope::{Amount, Envelope, KeptAt, Share},
    owned::Owned,
};
use crate::{
    journal::{Change, Journal, QueuePlace, QueuedMessage, SentAs, SessionNumber, Ticket},
    mqtt::{PacketId, QoS, Timestamp, filter_matches},
};

/// So many messages of a durable session wait in memory; what comes then waits in the store.
pub(super) const PAGE_MESSAGES: usize = 64;
/// So many bytes of them.
pub(super) const PAGE_BYTES: usize = 64 * 1024;

/// From this number on, places that were taken out of turn are looked at to be forgotten.
const TAKEN_OUT_MIN: usize = 256;

/// A durable session's side of the journal.
#[derive(Debug)]
pub(super) struct Keeping {
    journal: Journal,
    number: SessionNumber,
    /// Whom the journal tells that a ticket is kept.
    token: u32,
    last_place: QueuePlace,
    last_order: u64,
    /// What waits in the store alone, behind what waits in memory.
    pub(super) beyond: Beyond,
    /// Places that were taken out of turn, and may be found there until this is kept.
    taken_out: BTreeMap<QueuePlace, Ticket>,
    /// The client is away: nothing needs to be in memory.
    pub(super) is_away: bool,
    /// What is in flight lies in the store, so much, and was not read yet.
    pub(super) in_flight_unread: Amount,
    /// What it has of its owner's account.
    pub(super) owned: Option<Owned>,
    /// Something that the store has may have come by a shared subscription.
    pub(super) may_hold_shared: bool,
    /// QoS 1 messages up to this place may have been sent before, and nobody knows.
    pub(super) doubtful_up_to: QueuePlace,
    /// Subscriptions that were withdrawn while the store has messages that wait.
    withdrawn: Option<Box<Withdrawn>>,
}

/// Subscriptions that were withdrawn, in memory at once; the store has them until nothing waits.
#[derive(Debug, Default)]
struct Withdrawn {
    filters: Vec<Box<str>>,
    /// What was queued later has come by another subscription.
    up_to: QueuePlace,
    /// Somebody looks for what came by all of them.
    is_looked_for: bool,
}

/// Messages that wait in the store alone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beyond {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    /// The place of the first of them.
    pub(super) next: QueuePlace,
}

/// A page of a queue as it was read from the store.
#[derive(Debug)]
pub struct Page {
    /// The messages, in their order.
    pub messages: Vec<(QueuePlace, QueuedMessage)>,
}

/// What a session had in its queue when the broker ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeftInQueue {
    /// Messages that wait.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
    /// The place of the first of them.
    pub next: QueuePlace,
    /// The last place that was taken.
    pub last_place: QueuePlace,
    /// Messages that were sent and not acknowledged.
    pub in_flight: usize,
    /// Their bytes.
    pub in_flight_bytes: usize,
    /// Of what waits, QoS 1 up to this place may have been sent without a note of it.
    pub doubtful_up_to: QueuePlace,
    /// Of what waits, nothing expires before; `None` if nothing does.
    pub expires_first: Option<Timestamp>,
}

impl Keeping {
    pub(super) fn new(number: SessionNumber, journal: Journal, token: u32) -> Self {
        Self {
            journal,
            number,
            token,
            last_place: QueuePlace(0),
            last_order: 0,
            beyond: Beyond::default(),
            taken_out: BTreeMap::new(),
            is_away: true,
            in_flight_unread: Amount::default(),
            owned: None,
            may_hold_shared: false,
            doubtful_up_to: QueuePlace(0),
            withdrawn: None,
        }
    }

    pub(super) const fn number(&self) -> SessionNumber {
        self.number
    }

    pub(super) fn note(&self, change: impl FnOnce(SessionNumber) -> Change) {
        self.journal.note(change(self.number));
    }

    /// What is said now must not be heard before all that was noted so far is kept.
    pub(super) fn gate(&self) -> Ticket {
        self.journal.await_by(self.token)
    }

    /// Notes that a message waits, or is sent at once; its place.
    pub(super) fn enqueue(
        &mut self,
        envelope: &Envelope,
        share: Option<Share<'_>>,
        sent: Option<PacketId>,
    ) -> QueuePlace {
        self.may_hold_shared |= share.is_some();
        self.last_place.0 += 1;
        let place = self.last_place;
        let queued = QueuedMessage {
            message: envelope.message.clone(),
            qos: envelope.qos,
            retain: envelope.retain,
            identifiers: envelope.identifiers.clone(),
            share: share.map(|share| share.filter.clone()),
        };
        let sent = sent.map(|packet_id| self.sent_as(packet_id));
        self.note(|number| Change::Enqueue(number, place, queued, sent));
        place
    }

    /// Whether a message that waits may have been sent already, since QoS 1 is not held up until it is
    /// noted that it is sent: then its DUP flag says so. [MQTT-3.3.1-1]
    pub(super) fn is_doubtful(&self, envelope: &Envelope) -> bool {
        envelope.qos == QoS::AtLeastOnce && envelope.place <= self.doubtful_up_to
    }

    /// Notes that a message that waited is sent.
    pub(super) fn send(&mut self, place: QueuePlace, packet_id: PacketId) {
        let sent = self.sent_as(packet_id);
        self.note(|number| Change::Send(number, place, sent));
    }

    /// Notes that a message is not needed any more.
    pub(super) fn dequeue(&self, place: QueuePlace) {
        self.note(|number| Change::Dequeue(number, place));
    }

    const fn sent_as(&mut self, packet_id: PacketId) -> SentAs {
        self.last_order += 1;
        SentAs { packet_id, order: self.last_order }
    }

    /// Goes on after what was found in the store.
    pub(super) fn go_on_from(&mut self, left: &LeftInQueue) {
        self.last_place = left.last_place;
        self.in_flight_unread = Amount { messages: left.in_flight, bytes: left.in_flight_bytes };
        self.doubtful_up_to = left.doubtful_up_to;
        self.may_hold_shared = left.messages > 0 || left.in_flight > 0;
        self.beyond = Beyond { messages: left.messages, bytes: left.bytes, next: left.next };
    }

    pub(super) fn go_on_after(&mut self, order: u64) {
        self.last_order = self.last_order.max(order);
    }

    /// Counts a message that waits in the store alone.
    pub(super) fn leave(&mut self, place: QueuePlace, size: usize) {
        if self.beyond.messages == 0 {
            self.beyond.next = place;
        }
        self.beyond.messages += 1;
        self.beyond.bytes += size;
    }

    /// Counts messages that go back to where those are that wait in the store alone, before these.
    pub(super) fn leave_before(&mut self, first: QueuePlace, messages: usize, bytes: usize) {
        self.beyond.next = first;
        self.beyond.messages += messages;
        self.beyond.bytes += bytes;
    }

    /// Counts a message that was read from the store; whether it still waits.
    pub(super) fn fetched(&mut self, place: QueuePlace, size: usize) -> bool {
        self.beyond.next = QueuePlace(place.0 + 1);
        if self.was_taken_out(place) {
            return false;
        }
        self.beyond.messages = self.beyond.messages.saturating_sub(1);
        self.beyond.bytes = self.beyond.bytes.saturating_sub(size);
        if self.beyond.messages == 0 {
            self.beyond.bytes = 0;
        }
        true
    }

    /// Notes that subscriptions were withdrawn under which the store may have messages.
    pub(super) fn withdraw(&mut self, filters: Vec<Box<str>>) {
        if !filters.is_empty() {
            let withdrawn = self.withdrawn.get_or_insert_default();
            withdrawn.filters.extend(filters);
            withdrawn.up_to = self.last_place;
            withdrawn.is_looked_for = false;
        }
    }

    /// Notes that the client has a subscription again.
    pub(super) fn grant_again(&mut self, filter: &str) {
        if let Some(withdrawn) = &mut self.withdrawn {
            withdrawn.filters.retain(|withdrawn| &**withdrawn != filter);
        }
    }

    /// Whether a message that was read from the store has come by a subscription that was withdrawn;
    /// `is_under_other` says whether one that there is would have brought it.
    pub(super) fn is_withdrawn(
        &self,
        place: QueuePlace,
        queued: &QueuedMessage,
        is_under_other: impl Fn(&str) -> bool,
    ) -> bool {
        let Some(withdrawn) = self.withdrawn.as_ref().filter(|w| place <= w.up_to) else {
            return false;
        };
        let mut filters = withdrawn.filters.iter();
        let topic = queued.message.topic();
        match &queued.share {
            Some(share) => filters.any(|filter| **filter == **share),
            None => filters.any(|filter| filter_matches(filter, topic)) && !is_under_other(topic),
        }
    }

    /// Whether the store may have something that has come by a subscription that was withdrawn.
    pub(super) fn has_withdrawn(&self) -> bool {
        self.withdrawn.is_some()
    }

    /// Somebody begins to look for it.
    pub(super) fn look_for_withdrawn(&mut self) {
        if let Some(withdrawn) = &mut self.withdrawn {
            withdrawn.is_looked_for = true;
        }
    }

    /// All that waits in the store was looked at.
    pub(super) fn end_look_for_withdrawn(&mut self) {
        if self.withdrawn.as_ref().is_some_and(|withdrawn| withdrawn.is_looked_for) {
            self.forget_withdrawn();
        }
    }

    /// Forgets what was withdrawn once nothing waits in the store, which then need not know either.
    pub(super) fn settle_withdrawn(&mut self) {
        if self.beyond.messages == 0 {
            self.forget_withdrawn();
        }
    }

    fn forget_withdrawn(&mut self) {
        if let Some(withdrawn) = self.withdrawn.take() {
            for filter in withdrawn.filters {
                self.note(|number| Change::Unsubscribe(number, filter));
            }
        }
    }

    /// Drops a message that lies in the store alone.
    pub(super) fn weed(&mut self, place: QueuePlace, size: usize, is_memory_empty: bool) {
        self.dequeue(place);
        self.take_unread(place, size, is_memory_empty);
    }

    /// Takes out a message that others are to have. The store keeps the subscription that it has come
    /// by until they have it.
    pub(super) fn weed_for_others(
        &mut self,
        place: QueuePlace,
        size: usize,
        is_memory_empty: bool,
    ) -> KeptAt {
        if let Some(withdrawn) = &mut self.withdrawn {
            withdrawn.is_looked_for = false;
        }
        self.take_unread(place, size, is_memory_empty)
    }

    /// Returns how many messages were taken out of turn that the store may still have.
    pub(super) fn taken_out(&self) -> usize {
        self.taken_out.len()
    }

    /// A message is taken out of turn. Its taker notes that with what it does with it.
    pub(super) fn take_out(&mut self, place: QueuePlace) -> KeptAt {
        self.taken_out.insert(place, self.journal.ticket());
        KeptAt { session: self.number, place }
    }

    /// The same for one that waits in the store alone. It need not be remembered where nothing before
    /// it is in memory, which would have to be found again.
    pub(super) fn take_unread(
        &mut self,
        place: QueuePlace,
        size: usize,
        is_memory_empty: bool,
    ) -> KeptAt {
        self.beyond.messages = self.beyond.messages.saturating_sub(1);
        self.beyond.bytes = self.beyond.bytes.saturating_sub(size);
        if self.beyond.messages == 0 {
            self.beyond.bytes = 0;
        }
        if place == self.beyond.next && is_memory_empty {
            self.beyond.next = QueuePlace(place.0 + 1);
            return KeptAt { session: self.number, place };
        }
        self.take_out(place)
    }

    /// Whether a message was taken out of turn that is still found in the store.
    pub(super) fn was_taken_out(&self, place: QueuePlace) -> bool {
        self.taken_out.contains_key(&place)
    }

    /// Forgets what was taken out of turn with tickets that are kept: it is not found any more.
    pub(super) fn forget_taken_out(&mut self, is_kept: impl Fn(Ticket) -> bool) {
        // Most of it at a time, so that those that remain are not looked at again and again.
        if self.taken_out.len() >= TAKEN_OUT_MIN {
            self.taken_out.retain(|_, ticket| !is_kept(*ticket));
        }
    }

    pub(super) const fn last_place(&self) -> QueuePlace {
        self.last_place
    }
}
