//! Durability of a session: the journal notes its changes, and only the next page of its queue is
//! in memory. The rest is in the store and is counted here.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    envelope::{Amount, Envelope, Share, StoredAt},
    owned::Owned,
};
use crate::{
    journal::{Change, Journal, QueuePlace, QueuedMessage, SentAs, SessionNumber, Ticket},
    mqtt::{Message, PacketId, QoS, Receipt, Timestamp},
};

/// Maximum number of messages of a durable session that wait in memory; later ones wait in the
/// store.
pub(super) const PAGE_MESSAGES: usize = 64;
/// Maximum number of their bytes.
pub(super) const PAGE_BYTES: usize = 64 * 1024;

/// From this number on, the places of messages taken out of order are searched for those to forget.
const TAKEN_OUT_MIN: usize = 256;

/// A durable session's side of the journal.
#[derive(Debug)]
pub(super) struct Keeping {
    journal: Journal,
    number: SessionNumber,
    /// Identifies this session when the journal reports that a ticket is stored.
    token: u32,
    last_place: QueuePlace,
    last_order: u64,
    /// Messages that wait in the store alone, behind those that wait in memory.
    pub(super) beyond: Beyond,
    /// Places of messages taken out of order. The store may still return them until their ticket is
    /// stored.
    taken_out: BTreeMap<QueuePlace, Ticket>,
    /// The client is away: no message needs to be in memory.
    pub(super) is_away: bool,
    /// Messages and bytes in flight that are in the store and were not read yet.
    pub(super) in_flight_unread: Amount,
    /// The part of the owner's account that this session uses.
    pub(super) owned: Option<Owned>,
    /// The store may have messages that came through a shared subscription.
    pub(super) may_hold_shared: bool,
    /// QoS 1 messages up to this place may have been sent before; the store does not say.
    pub(super) doubtful_up_to: QueuePlace,
    receipts: Option<Box<StoredReceipts>>,
}

/// The receipts of messages that wait in the store alone.
#[derive(Debug, Default)]
struct StoredReceipts(BTreeMap<QueuePlace, Arc<Receipt>>);

/// Messages that wait in the store alone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beyond {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    /// The place of the first of these messages.
    pub(super) next: QueuePlace,
}

/// A page of a queue, read from the store.
#[derive(Debug)]
pub struct Page {
    /// The messages, in order.
    pub messages: Vec<(QueuePlace, QueuedMessage)>,
}

/// The contents of a session's queue when the broker ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeftInQueue {
    /// Messages that wait.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
    /// The place of the first waiting message.
    pub next: QueuePlace,
    /// The last place that was assigned.
    pub last_place: QueuePlace,
    /// Messages that were sent and not acknowledged.
    pub in_flight: usize,
    /// Their bytes.
    pub in_flight_bytes: usize,
    /// Waiting QoS 1 messages up to this place may have been sent although the store does not say
    /// so.
    pub doubtful_up_to: QueuePlace,
    /// No waiting message expires before this time; `None` if no message expires.
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
            receipts: None,
        }
    }

    pub(super) const fn number(&self) -> SessionNumber {
        self.number
    }

    pub(super) fn note(&self, change: impl FnOnce(SessionNumber) -> Change) {
        self.journal.note(change(self.number));
    }

    /// Returns the ticket that output must wait for: then all changes noted until now are stored.
    pub(super) fn gate(&self) -> Ticket {
        self.journal.await_by(self.token)
    }

    /// Notes that a message waits, or is sent at once; returns its place.
    pub(super) fn enqueue(
        &mut self,
        envelope: &Envelope,
        share: Option<Share<'_>>,
        sent: Option<PacketId>,
    ) -> QueuePlace {
        // Set once and never cleared: the end of a session then knows that it need not read its queue.
        self.may_hold_shared |= share.is_some();
        // Places only grow, so their order is that of the queue.
        self.last_place.0 += 1;
        let place = self.last_place;
        let queued = QueuedMessage {
            message: envelope.message.clone(),
            qos: envelope.qos,
            retain: envelope.retain,
            identifiers: envelope.identifiers.clone(),
            // By filter and not by number, because the numbers of groups change with each start.
            share: share.map(|share| share.filter.clone()),
        };
        let sent = sent.map(|packet_id| self.sent_as(packet_id));
        self.note(|number| Change::Enqueue(number, place, queued, sent));
        place
    }

    /// Returns whether a waiting message may have been sent already: QoS 1 is sent before the
    /// journal has stored a note of it. Such a message has the DUP flag. [MQTT-3.3.1-1]
    pub(super) fn is_doubtful(&self, envelope: &Envelope) -> bool {
        envelope.qos == QoS::AtLeastOnce && envelope.place <= self.doubtful_up_to
    }

    /// Notes that a waiting message is sent.
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

    /// Continues after the state that was found in the store.
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

    /// Keeps the receipt of a message that waits in the store alone from now on.
    pub(super) fn keep_receipt(&mut self, place: QueuePlace, message: &Message) {
        if let Some(receipt) = message.receipt() {
            let StoredReceipts(receipts) = &mut **self.receipts.get_or_insert_default();
            receipts.insert(place, Arc::clone(receipt));
        }
    }

    /// Gives a message that was read from the store the receipt that it had before.
    pub(super) fn with_receipt(
        &mut self,
        place: QueuePlace,
        message: Arc<Message>,
    ) -> Arc<Message> {
        // Most messages have no receipt, and most sessions no table of them.
        let Some(StoredReceipts(receipts)) = self.receipts.as_deref_mut() else { return message };
        let receipt = receipts.remove(&place);
        if receipts.is_empty() {
            self.receipts = None;
        }
        match receipt {
            // The receipt makes it another message; the payload stays shared.
            Some(receipt) => Arc::new(Arc::unwrap_or_clone(message).with_receipt(receipt)),
            None => message,
        }
    }

    /// Forgets the receipts whose calls have ended.
    pub(super) fn forget_receipts(&mut self, now: Timestamp) {
        let Some(StoredReceipts(receipts)) = self.receipts.as_deref_mut() else { return };
        receipts.retain(|_, receipt| receipt.until() > now);
        if receipts.is_empty() {
            self.receipts = None;
        }
    }

    /// Counts a message that waits in the store alone.
    pub(super) fn leave(&mut self, place: QueuePlace, size: usize) {
        if self.beyond.messages == 0 {
            self.beyond.next = place;
        }
        self.beyond.messages += 1;
        self.beyond.bytes += size;
    }

    /// Counts messages that return to the store alone, before those that already wait there.
    pub(super) fn leave_before(&mut self, first: QueuePlace, messages: usize, bytes: usize) {
        self.beyond.next = first;
        self.beyond.messages += messages;
        self.beyond.bytes += bytes;
    }

    /// Counts a message that was read from the store; returns whether it still waits.
    pub(super) fn fetched(&mut self, place: QueuePlace, size: usize) -> bool {
        self.beyond.next = QueuePlace(place.0 + 1);
        if self.was_taken_out(place) {
            return false;
        }
        self.beyond.messages = self.beyond.messages.saturating_sub(1);
        self.beyond.bytes = self.beyond.bytes.saturating_sub(size);
        // No message is left, so no bytes are, whatever sizes were counted.
        if self.beyond.messages == 0 {
            self.beyond.bytes = 0;
        }
        true
    }

    /// Drops a message that is in the store alone.
    pub(super) fn weed(&mut self, place: QueuePlace, size: usize, is_memory_empty: bool) {
        self.dequeue(place);
        self.take_unread(place, size, is_memory_empty);
        if let Some(StoredReceipts(receipts)) = self.receipts.as_deref_mut() {
            receipts.remove(&place);
        }
    }

    /// Returns how many messages were taken out of order that the store may still have.
    pub(super) fn taken_out(&self) -> usize {
        self.taken_out.len()
    }

    /// Takes a message out of order. The taker notes its removal together with its new use.
    pub(super) fn take_out(&mut self, place: QueuePlace) -> StoredAt {
        self.taken_out.insert(place, self.journal.ticket());
        StoredAt { session: self.number, place }
    }

    /// Takes a message out of order that is in the store and not in memory. If it is the next one to
    /// read, and memory holds no message of the queue, the next read simply begins after it.
    /// Otherwise its place is remembered, because a later read may find it again.
    pub(super) fn take_unread(
        &mut self,
        place: QueuePlace,
        size: usize,
        is_memory_empty: bool,
    ) -> StoredAt {
        self.beyond.messages = self.beyond.messages.saturating_sub(1);
        self.beyond.bytes = self.beyond.bytes.saturating_sub(size);
        if self.beyond.messages == 0 {
            self.beyond.bytes = 0;
        }
        if place == self.beyond.next && is_memory_empty {
            self.beyond.next = QueuePlace(place.0 + 1);
            return StoredAt { session: self.number, place };
        }
        self.take_out(place)
    }

    /// Returns whether a message was taken out of order that the store still has.
    pub(super) fn was_taken_out(&self, place: QueuePlace) -> bool {
        self.taken_out.contains_key(&place)
    }

    /// Forgets messages taken out of order whose tickets are stored: no read returns them any more.
    pub(super) fn forget_taken_out(&mut self, is_stored: impl Fn(Ticket) -> bool) {
        // Forget most of them at once, so that the others are not examined again and again.
        if self.taken_out.len() >= TAKEN_OUT_MIN {
            self.taken_out.retain(|_, ticket| !is_stored(*ticket));
        }
    }

    pub(super) const fn last_place(&self) -> QueuePlace {
        self.last_place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{DeliveryCounts, Publication, ReceiptCall, ReceiptLog};

    fn message() -> Message {
        Message::new(&Publication {
            topic: "t",
            payload: b"x",
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: &[],
            expires_at: None,
        })
    }

    fn counts(log: &ReceiptLog) -> DeliveryCounts {
        let mut sum = DeliveryCounts::default();
        log.take().into_iter().for_each(|(_, since)| sum.add(since));
        sum
    }

    /// A store that is not in memory returns another copy of the message.
    #[test]
    fn a_message_that_was_read_again_has_its_receipt() {
        let log = Arc::new(ReceiptLog::default());
        let call = ReceiptCall { shard: 0, number: 1, until: Timestamp(10) };
        let mut keeping = Keeping::new(SessionNumber(1), Journal::default(), 0);
        for place in 1..=3 {
            let receipt = Arc::new(Receipt::new(call, &log));
            keeping.keep_receipt(QueuePlace(place), &message().with_receipt(receipt));
        }
        assert_eq!(counts(&log), DeliveryCounts::default(), "they wait");
        let read = keeping.with_receipt(QueuePlace(2), Arc::new(message()));
        read.receipt().expect("it is the one from before").sent(true);
        let sent = DeliveryCounts { delivered: 1, ended: 1, ..DeliveryCounts::default() };
        assert_eq!(counts(&log), sent);
        assert!(keeping.with_receipt(QueuePlace(2), Arc::new(message())).receipt().is_none());
        keeping.weed(QueuePlace(1), 1, true);
        let dropped = DeliveryCounts { dropped: 1, ..DeliveryCounts::default() };
        assert_eq!(counts(&log), dropped);
        keeping.forget_receipts(Timestamp(9));
        assert!(keeping.receipts.is_some(), "the call has not ended");
        keeping.forget_receipts(Timestamp(10));
        assert!(keeping.receipts.is_none());
        assert_eq!(counts(&log), dropped);
    }
}
