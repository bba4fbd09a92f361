//! Messages to the client: sent at once if possible, otherwise queued.

mod sending;

use std::{num::NonZeroU32, sync::Arc};

use self::sending::envelope;
use super::{
    Link, Session, SharedPublication,
    envelope::{Amount, Envelope, Orphan, Share, StoredAt},
    keeping::{Keeping, Page},
    queue::{Pushed, Queue},
    walk::{Next, RetainedWalk, Walks},
    window::{Acknowledged, InFlight, Window},
};
use crate::{
    journal::{Change, QueuePlace, QueuedMessage, SentAs},
    mqtt::{Ack, Message, Packet, PacketId, QoS, ReasonCode, Timestamp},
};

/// How to send a message to one session.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The lower of the message's QoS and the subscription's. [MQTT-3.8.4-8]
    pub qos: QoS,
    /// The RETAIN flag to send.
    pub retain: bool,
    /// The Subscription Identifiers to send.
    pub identifiers: Option<&'a Arc<[u32]>>,
    /// The shared subscription that the message came through.
    pub share: Option<Share<'a>>,
}

/// The result of delivering a message to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The message is in the link's output.
    Sent,
    /// The message waits in the queue; older messages may have been dropped for it.
    Queued {
        /// Number of messages that were dropped from the queue.
        displaced: usize,
    },
    /// The message was dropped: the queue is full.
    QueueFull,
    /// The message was dropped: it has QoS 0, and the client is away.
    Away,
    /// The message was dropped: it is larger than the client's Maximum Packet Size. [MQTT-3.1.2-25]
    TooLarge,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    window: Window,
    queue: Queue,
    walks: Walks,
}

impl Outgoing {
    pub(super) fn new(queue: Queue) -> Self {
        Self { window: Window::default(), queue, walks: Walks::default() }
    }

    /// Begins a new connection. Sends each PUBREL again at once, even beyond the client's Receive
    /// Maximum; it counts until PUBCOMP. [MQTT-4.4.0-1] [MQTT-4.9.0-3] [MQTT-3.3.4-9]
    pub(super) fn begin_resending(&mut self, link: &mut Link) {
        let gate = self.queue.keeping.as_ref().map(|keeping| keeping.gate());
        for id in self.window.begin_resending() {
            link.unacknowledged += 1;
            link.send_in_turn(&Packet::PubRel(Ack::success(id)), gate);
        }
    }

    pub(super) const fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(super) const fn queue_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_queue_full(&self) -> bool {
        self.queue.is_full()
    }

    pub(super) const fn in_flight(&self) -> usize {
        self.window.len()
    }

    pub(super) fn cancel_walk(&mut self, filter: &str) {
        self.walks.cancel(filter);
        self.note_fetched();
    }

    /// Drops the messages in memory for which `is_dropped` is true; returns how many.
    pub(super) fn drop_waiting(&mut self, is_dropped: impl Fn(&Envelope) -> bool) -> usize {
        let Self { queue, walks, .. } = self;
        walks.move_up(queue.taken(), |ahead| queue.count_among(ahead, &is_dropped));
        let dropped = queue.take_out(is_dropped);
        for envelope in &dropped {
            self.note(envelope.place, |keeping| keeping.dequeue(envelope.place));
        }
        dropped.len()
    }

    /// Notes that messages leave the queue out of order. `leaving(n)` is how many of the first `n`
    /// leave.
    pub(super) fn have_left(&mut self, leaving: impl Fn(usize) -> usize) {
        self.walks.move_up(self.queue.taken(), leaving);
    }

    /// Drops the retained messages that were fetched for the client: it has gone.
    pub(super) fn drop_fetched(&mut self) {
        self.walks.drop_fetched();
        self.note_fetched();
    }

    /// Notes how many bytes walks have fetched. To be called after each change.
    fn note_fetched(&mut self) {
        self.queue.note_fetched(self.walks.bytes());
    }

    /// Notes a change of a message in a durable session.
    #[inline]
    fn note(&self, place: QueuePlace, change: impl FnOnce(&Keeping)) {
        if place.0 > 0
            && let Some(keeping) = &self.queue.keeping
        {
            change(keeping);
        }
    }

    #[inline(always)] // each message passes it
    fn may_send(&self, qos: QoS, link: &Link) -> bool {
        link.has_room()
            // Retained messages of a walk come before new ones.
            && self.walks.is_empty()
            && match qos {
                // Messages of the same QoS keep their order. [MQTT-4.6.0-5]
                QoS::AtMostOnce => !self.queue.holds_at_most_once(),
                QoS::AtLeastOnce | QoS::ExactlyOnce => {
                    self.queue.is_empty() && self.window_is_open(link)
                }
            }
    }

    /// Returns whether the client's Receive Maximum allows another message. [MQTT-3.3.4-9]
    /// [MQTT-4.9.0-2]
    fn window_is_open(&self, link: &Link) -> bool {
        link.unacknowledged < link.settings.send_quota
            && self.window.is_all_sent()
            && !self.window.is_full()
            && self.queue.allows_in_flight(self.window.bytes())
    }

    /// Notes the messages and bytes in flight. To be called after each change of the window.
    #[inline]
    fn note_in_flight(&mut self) {
        let in_flight = Amount { messages: self.window.len(), bytes: self.window.bytes() };
        self.queue.note_in_flight(in_flight);
    }
}

impl Session {
    /// Sends a message to the client, or queues it.
    pub fn deliver(
        &mut self,
        delivery: Delivery<'_>,
        message: &mut SharedPublication<'_>,
        now: Timestamp,
    ) -> Delivered {
        if let Some(link) = &mut self.link {
            if self.outgoing.may_send(delivery.qos, link) {
                return self.outgoing.send_new(link, delivery, message, now);
            }
        } else if delivery.qos == QoS::AtMostOnce {
            // The standard lets the server drop QoS 0 messages for an absent client.
            return Delivered::Away;
        }
        // The queue decides by its policy; the link has no room, or earlier messages wait.
        match self.outgoing.queue.push(envelope(delivery, message), delivery.share) {
            Pushed::Queued => Delivered::Queued { displaced: 0 },
            Pushed::InPlaceOf(displaced) => Delivered::Queued { displaced },
            Pushed::Refused => Delivered::QueueFull,
        }
    }

    /// Returns the last place that a message of a durable session has; 0 without one.
    #[must_use]
    pub fn last_place(&self) -> QueuePlace {
        let keeping = self.outgoing.queue.keeping.as_ref();
        keeping.map_or_else(QueuePlace::default, |keeping| keeping.last_place())
    }

    /// Returns whether a message would be sent at once.
    #[must_use]
    pub fn may_send_at_once(&self, qos: QoS) -> bool {
        self.link.as_ref().is_some_and(|link| self.outgoing.may_send(qos, link))
    }

    /// Returns whether the session can take a message of this size without dropping another one,
    /// and without dropping this one because the client is away.
    #[must_use]
    pub fn has_room_for(&self, qos: QoS, bytes: usize) -> bool {
        match &self.link {
            Some(link) => self.outgoing.may_send(qos, link) || self.outgoing.queue.has_room(bytes),
            None => qos != QoS::AtMostOnce && self.outgoing.queue.has_room(bytes),
        }
    }

    /// Returns the unacknowledged QoS 1 messages of shared subscriptions, which must survive the end
    /// of this session. A QoS 2 delivery that has begun belongs to this client alone.
    /// [MQTT-4.8.2-5]
    #[must_use]
    pub fn orphans_in_flight(&self) -> Vec<Orphan> {
        let in_flight = self.outgoing.window.published().filter(|e| e.qos == QoS::AtLeastOnce);
        in_flight.filter_map(|envelope| self.orphan(envelope)).collect()
    }

    /// Takes some messages out of the queue in memory, because the session has ended. Returns how
    /// many, and those of them that came through shared subscriptions.
    pub fn leave_waiting(&mut self, messages_max: usize) -> (usize, Vec<Orphan>) {
        let next = || self.outgoing.queue.pop();
        let taken: Vec<Envelope> = std::iter::from_fn(next).take(messages_max).collect();
        (taken.len(), taken.iter().filter_map(|envelope| self.orphan(envelope)).collect())
    }

    fn orphan(&self, envelope: &Envelope) -> Option<Orphan> {
        let keeping = self.outgoing.queue.keeping.as_ref().filter(|_| envelope.is_stored());
        let stored_at = keeping.map(|k| StoredAt { session: k.number(), place: envelope.place });
        Some(Orphan { message: envelope.message.clone(), share: envelope.share?, stored_at })
    }

    /// Delivers a retained message to a new subscription, behind the retained messages before it.
    /// Only the limits of all queues together apply, so the caller must keep these messages few.
    pub fn deliver_retained(
        &mut self,
        delivery: Delivery<'_>,
        message: &Arc<Message>,
        now: Timestamp,
    ) -> Delivered {
        let mut message = SharedPublication::of(message);
        match &mut self.link {
            Some(link) if self.outgoing.may_send(delivery.qos, link) => {
                self.outgoing.send_new(link, delivery, &mut message, now)
            }
            Some(_) | None => {
                match self.outgoing.queue.push_retained(envelope(delivery, &mut message)) {
                    Pushed::Queued | Pushed::InPlaceOf(_) => Delivered::Queued { displaced: 0 },
                    Pushed::Refused => Delivered::QueueFull,
                }
            }
        }
    }

    /// Returns whether retained messages of an earlier subscription are still to be fetched.
    #[must_use]
    pub const fn has_walks(&self) -> bool {
        !self.outgoing.walks.is_empty()
    }

    /// Begins to send the retained messages for a new subscription, behind all waiting messages and
    /// as fast as the client reads them.
    pub fn begin_walk(&mut self, walk: RetainedWalk) {
        let Outgoing { walks, queue, .. } = &mut self.outgoing;
        walks.begin(walk, queue.taken() + queue.len() as u64);
        self.outgoing.note_fetched();
    }

    /// Returns the walk that [`Session::pump`] has reached, if it needs a slice of retained
    /// messages. The caller fetches the slice and passes it to [`Session::take_slice`].
    pub fn wanted_slice(&mut self) -> Option<&RetainedWalk> {
        let Outgoing { walks, queue, .. } = &mut self.outgoing;
        let has_room = self.link.as_ref().is_some_and(|link| link.has_room());
        (has_room && walks.next(queue.has_come_to()) == Next::Slice).then(|| walks.first())?
    }

    /// Takes the retained messages for [`Session::wanted_slice`]. The walk goes on after the topic
    /// `after`, or ends if there is none.
    pub fn take_slice(&mut self, messages: Vec<Arc<Message>>, after: Option<Box<str>>) {
        self.outgoing.walks.fetched(messages, after);
        self.outgoing.note_fetched();
    }

    /// Returns whether the next message, which the client could receive now, must be read from the
    /// store.
    #[must_use]
    pub fn wants_page(&self) -> bool {
        self.outgoing.queue.is_next_unread()
            && self
                .link
                .as_ref()
                .is_some_and(|link| link.has_room() && self.outgoing.window_is_open(link))
    }

    /// Returns whether there is room for a message of this size only after the oldest messages
    /// are read from the store.
    #[must_use]
    pub fn must_read_to_displace(&self, qos: QoS, bytes: usize) -> bool {
        qos != QoS::AtMostOnce && self.outgoing.queue.must_read_to_displace(bytes)
    }

    /// Takes the next page of the queue. Returns its messages that came through a withdrawn shared
    /// subscription, for the other members. `is_under_subscription` tells whether an existing
    /// subscription that is not shared matches a topic.
    pub fn take_page(
        &mut self,
        page: Page,
        share_number: impl Fn(&str) -> Option<NonZeroU32>,
        is_under_subscription: impl Fn(&str) -> bool,
    ) -> Vec<Orphan> {
        self.outgoing.queue.take_page(page, share_number, is_under_subscription)
    }

    /// Notes that the store has no more messages for the session.
    pub fn forget_unread(&mut self) {
        self.outgoing.queue.forget_beyond();
    }

    /// Restores the messages that were in flight when the broker ended, in the order in which they
    /// were sent. An entry without a message has already received PUBREC.
    pub fn recall(
        &mut self,
        entries: Vec<(QueuePlace, SentAs, Option<QueuedMessage>)>,
        share_number: impl Fn(&str) -> Option<NonZeroU32>,
    ) {
        let Some(keeping) = &mut self.outgoing.queue.keeping else { return };
        // All of them are read, so none counts as unread.
        keeping.in_flight_unread = Amount::default();
        let mut in_flight = Vec::with_capacity(entries.len());
        for (place, sent, queued) in entries {
            // New messages must be sent in an order behind these.
            keeping.go_on_after(sent.order);
            let entry = match queued {
                None => InFlight::Released(place),
                Some(queued) => InFlight::Published(Envelope {
                    message: queued.message,
                    qos: queued.qos,
                    retain: queued.retain,
                    identifiers: queued.identifiers,
                    // The group may have gone; the message then stays with this session alone.
                    share: queued.share.as_deref().and_then(&share_number),
                    place,
                }),
            };
            in_flight.push((sent.packet_id, entry));
        }
        self.outgoing.window.restore(in_flight);
        self.outgoing.note_in_flight();
    }

    /// Moves waiting messages into the link's output, as far as there is room and the client's
    /// Receive Maximum allows. The link's [`PacketCounts`](super::PacketCounts) counts the dropped messages.
    pub fn pump(&mut self, now: Timestamp) {
        let Some(link) = &mut self.link else { return };
        self.outgoing.resend(link, now);
        while link.has_room() && self.outgoing.send_next(link, now) {}
    }

    /// Handles PUBACK. Returns `false` if the message was sent with another QoS.
    pub(super) fn handle_pub_ack(
        &mut self,
        id: PacketId,
        reason: ReasonCode,
        now: Timestamp,
    ) -> bool {
        match self.outgoing.window.get_mut(id) {
            // PUBACK ends the delivery. [MQTT-4.3.2-3]
            Some(InFlight::Published(envelope)) if envelope.qos == QoS::AtLeastOnce => {
                note_acknowledged(envelope, reason);
                self.complete(id, now);
                true
            }
            // The identifier belongs to a QoS 2 message.
            Some(_) => false,
            // PUBACK may come twice, because the message was sent twice.
            None => true,
        }
    }

    /// Handles PUBREC. Returns `false` if the message was sent with another QoS.
    pub(super) fn handle_pub_rec(
        &mut self,
        id: PacketId,
        reason: ReasonCode,
        now: Timestamp,
    ) -> bool {
        if let Some(InFlight::Published(envelope)) = self.outgoing.window.get_mut(id) {
            // PUBREC belongs to QoS 2.
            if envelope.qos == QoS::AtLeastOnce {
                return false;
            }
            note_acknowledged(envelope, reason);
            // A failure ends the delivery, and frees the identifier. [MQTT-4.4.0-2]
            if reason.is_failure() {
                self.complete(id, now);
                return true;
            }
        }
        // From here on the message is not sent again, only its PUBREL. [MQTT-4.3.3-6]
        let released = self.outgoing.window.release(id);
        let mut gate = None;
        let answer = match released {
            Some(Acknowledged { place, .. }) => {
                self.outgoing.note_in_flight();
                // A message that the client may forget must not be sent again.
                self.outgoing.note(place, |keeping| {
                    keeping.note(|n| Change::Release(n, place));
                    gate = Some(keeping.gate());
                });
                ReasonCode::Success
            }
            None if reason.is_failure() => return true, // The client has no delivery either.
            None => ReasonCode::PacketIdentifierNotFound,
        };
        if let Some(link) = &mut self.link {
            // A delivery that was resumed takes its place in the quota with its first packet.
            link.unacknowledged += u16::from(released.is_some_and(|r| !r.was_counted));
            link.send_in_turn(&Packet::PubRel(Ack::with_reason(id, answer)), gate); // [MQTT-4.3.3-4]
        }
        true
    }

    /// Handles PUBCOMP. Returns `false` if the message is not released: its delivery waits for
    /// PUBACK or PUBREC.
    pub(super) fn handle_pub_comp(&mut self, id: PacketId, now: Timestamp) -> bool {
        match self.outgoing.window.get_mut(id) {
            Some(InFlight::Released(_)) => {
                self.complete(id, now);
                true
            }
            Some(InFlight::Published(_)) => false,
            None => true,
        }
    }

    fn complete(&mut self, id: PacketId, now: Timestamp) {
        // Whatever the Reason Code says, the message is acknowledged. [MQTT-4.4.0-2]
        let Some(Acknowledged { place, was_counted }) = self.outgoing.window.remove(id) else {
            return;
        };
        self.outgoing.note(place, |keeping| keeping.dequeue(place));
        self.outgoing.note_in_flight();
        if let Some(link) = &mut self.link
            // A message that was not sent again on this connection took nothing from the quota.
            && was_counted
        {
            link.unacknowledged = link.unacknowledged.saturating_sub(1);
        }
        let outgoing = &self.outgoing;
        // Cheap in the normal case: nothing waits, so nothing is pumped.
        if !(outgoing.queue.is_empty()
            && outgoing.walks.is_empty()
            && outgoing.window.is_all_sent())
        {
            self.pump(now);
        }
    }
}

/// Tells a call that waits for it that a message was acknowledged, unless the client refused it.
#[inline]
fn note_acknowledged(envelope: &Envelope, reason: ReasonCode) {
    if let Some(receipt) = envelope.message.receipt()
        && !reason.is_failure()
    {
        receipt.acknowledged();
    }
}
