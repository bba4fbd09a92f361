//! Messages to the client: sent at once where that is possible, queued where it is not.

use std::{num::NonZeroU32, sync::Arc};

use super::{
    Link, Session, SharedPublication,
    queue::{Envelope, Pushed, Queue},
    walk::{Next, RetainedWalk, Walks},
    window::{InFlight, Window},
};
use crate::mqtt::{
    Ack, Message, Packet, PacketId, PublishAs, PublishFlags, QoS, ReasonCode, Timestamp,
    TopicAlias, publish_size,
};

/// How a message goes to one session.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The lower of the message's QoS and the subscription's. [MQTT-3.8.4-8]
    pub qos: QoS,
    /// The RETAIN flag to be sent.
    pub retain: bool,
    /// The Subscription Identifiers to be sent.
    pub identifiers: Option<&'a Arc<[u32]>>,
    /// The shared subscription that it comes by, in the router's numbers.
    pub share: Option<NonZeroU32>,
}

/// A message that a session leaves to the other members of a shared subscription.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// The message.
    pub message: Arc<Message>,
    /// The shared subscription that it came by, in the router's numbers.
    pub share: NonZeroU32,
}

/// What became of a message that was delivered to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It is in the link's output.
    Sent,
    /// It waits in the queue, and so many older ones had to go for it.
    Queued {
        /// Messages that were dropped from the queue.
        displaced: usize,
    },
    /// It was dropped: the queue is full.
    QueueFull,
    /// It was dropped: QoS 0, and the client is away.
    Away,
    /// It was dropped: larger than the client's Maximum Packet Size. [MQTT-3.1.2-25]
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

    /// A new connection: PUBREL is sent again at once, whatever the client's Receive Maximum, but
    /// counts until PUBCOMP. [MQTT-4.4.0-1] [MQTT-4.9.0-3] [MQTT-3.3.4-9]
    pub(super) fn begin_resending(&mut self, link: &mut Link) {
        for id in self.window.begin_resending() {
            link.unacknowledged += 1;
            link.send(&Packet::PubRel(Ack::success(id)));
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

    /// The client has gone: what was fetched for it need not be kept.
    pub(super) fn drop_fetched(&mut self) {
        self.walks.drop_fetched();
        self.note_fetched();
    }

    /// To be called after what walks have fetched has changed.
    fn note_fetched(&mut self) {
        self.queue.note_fetched(self.walks.bytes());
    }

    fn may_send(&self, qos: QoS, link: &Link) -> bool {
        link.has_room()
            && self.walks.is_empty()
            && match qos {
                // Messages of one QoS keep their order. [MQTT-4.6.0-5]
                QoS::AtMostOnce => !self.queue.holds_at_most_once(),
                QoS::AtLeastOnce | QoS::ExactlyOnce => {
                    self.queue.is_empty() && self.window_is_open(link)
                }
            }
    }

    /// Whether the client's Receive Maximum allows another message. [MQTT-3.3.4-9] [MQTT-4.9.0-2]
    fn window_is_open(&self, link: &Link) -> bool {
        link.unacknowledged < link.settings.send_quota
            && self.window.is_all_sent()
            && !self.window.is_full()
            && self.queue.allows_in_flight(self.window.bytes())
    }

    /// To be called after the window has changed.
    fn note_in_flight(&mut self) {
        self.queue.note_in_flight(self.window.bytes());
    }
}

impl Session {
    /// Sends a message to the client, or keeps it for later.
    pub fn deliver(
        &mut self,
        delivery: Delivery<'_>,
        message: &mut SharedPublication<'_>,
        now: Timestamp,
    ) -> Delivered {
        if let Some(link) = &mut self.link {
            if self.outgoing.may_send(delivery.qos, link) {
                return self.outgoing.send(link, delivery, message, now);
            }
        } else if delivery.qos == QoS::AtMostOnce {
            return Delivered::Away;
        }
        match self.outgoing.queue.push(envelope(delivery, message)) {
            Pushed::Queued => Delivered::Queued { displaced: 0 },
            Pushed::InPlaceOf(displaced) => Delivered::Queued { displaced },
            Pushed::Refused => Delivered::QueueFull,
        }
    }

    /// Whether a message of so many bytes can be taken without another going for it, and without
    /// being dropped because the client is away.
    #[must_use]
    pub fn has_room_for(&self, qos: QoS, bytes: usize) -> bool {
        match &self.link {
            Some(link) => self.outgoing.may_send(qos, link) || self.outgoing.queue.has_room(bytes),
            None => qos != QoS::AtMostOnce && self.outgoing.queue.has_room(bytes),
        }
    }

    /// Takes out what came by these shared subscriptions and waits unsent.
    pub fn take_waiting_orphans(&mut self, shares: &[NonZeroU32]) -> Vec<Orphan> {
        let Outgoing { queue, walks, .. } = &mut self.outgoing;
        let is_taken = |share| shares.contains(&share);
        walks.move_up(queue.taken(), |ahead| queue.shared_among(ahead, is_taken));
        let taken = queue.take_shared(is_taken);
        taken.iter().filter_map(orphan).collect()
    }

    /// What came by shared subscriptions and is not to end with this session: what waits, and QoS 1
    /// that is not acknowledged. QoS 2 that was begun is nobody else's. [MQTT-4.8.2-5]
    #[must_use]
    pub fn into_orphans(mut self) -> Vec<Orphan> {
        let waiting = self.outgoing.queue.take_shared(|_| true);
        let in_flight = self.outgoing.window.published().filter(|e| e.qos == QoS::AtLeastOnce);
        in_flight.chain(&waiting).filter_map(orphan).collect()
    }

    /// Delivers a retained message to a new subscription: behind the retained messages before it,
    /// and subject only to the bounds of all queues. The caller sees to it that they are few.
    pub fn deliver_retained(
        &mut self,
        delivery: Delivery<'_>,
        message: &Arc<Message>,
        now: Timestamp,
    ) -> Delivered {
        let mut message = SharedPublication::of(message);
        match &mut self.link {
            Some(link) if self.outgoing.may_send(delivery.qos, link) => {
                self.outgoing.send(link, delivery, &mut message, now)
            }
            Some(_) | None => {
                match self.outgoing.queue.push_retained(envelope(delivery, &mut message)) {
                    Pushed::Queued | Pushed::InPlaceOf(_) => Delivered::Queued { displaced: 0 },
                    Pushed::Refused => Delivered::QueueFull,
                }
            }
        }
    }

    /// Whether retained messages of an earlier subscription are still to be fetched.
    #[must_use]
    pub const fn has_walks(&self) -> bool {
        !self.outgoing.walks.is_empty()
    }

    /// Goes on to send what is retained for a new subscription, behind all that waits already and as
    /// fast as the client takes it.
    pub fn begin_walk(&mut self, walk: RetainedWalk) {
        let Outgoing { walks, queue, .. } = &mut self.outgoing;
        walks.begin(walk, queue.taken() + queue.len() as u64);
        self.outgoing.note_fetched();
    }

    /// The walk that [`Session::pump`] has come to and cannot go on with before a slice of its
    /// retained messages is fetched and given to [`Session::take_slice`].
    pub fn wanted_slice(&mut self) -> Option<&RetainedWalk> {
        let Outgoing { walks, queue, .. } = &mut self.outgoing;
        let has_room = self.link.as_ref().is_some_and(|link| link.has_room());
        (has_room && walks.next(queue.taken()) == Next::Slice).then(|| walks.first())?
    }

    /// Takes retained messages for [`Session::wanted_slice`]; it goes on after this topic, or is at
    /// its end.
    pub fn take_slice(&mut self, messages: Vec<Arc<Message>>, after: Option<Box<str>>) {
        self.outgoing.walks.fetched(messages, after);
        self.outgoing.note_fetched();
    }

    /// Moves what waits into the link's output, as far as there is room and the client's Receive
    /// Maximum allows. What had to be dropped is in the link's [`Tally`](super::Tally).
    pub fn pump(&mut self, now: Timestamp) {
        let Some(link) = &mut self.link else { return };
        self.outgoing.resend(link, now);
        while link.has_room() && self.outgoing.send_next(link, now) {}
    }

    /// PUBACK. `false` if the client acknowledges what was sent with another QoS.
    pub(super) fn handle_pub_ack(&mut self, id: PacketId, now: Timestamp) -> bool {
        match self.outgoing.window.get_mut(id) {
            Some(InFlight::Published(envelope)) if envelope.qos == QoS::AtLeastOnce => {
                self.complete(id, now);
                true
            }
            Some(_) => false,
            None => true,
        }
    }

    /// PUBREC. `false` if the client acknowledges what was sent with another QoS.
    pub(super) fn handle_pub_rec(
        &mut self,
        id: PacketId,
        reason: ReasonCode,
        now: Timestamp,
    ) -> bool {
        if let Some(InFlight::Published(envelope)) = self.outgoing.window.get_mut(id) {
            if envelope.qos == QoS::AtLeastOnce {
                return false;
            }
            if reason.is_failure() {
                self.complete(id, now);
                return true;
            }
        }
        let released = self.outgoing.window.release(id);
        let answer = match released {
            Some(_) => {
                self.outgoing.note_in_flight();
                ReasonCode::Success
            }
            None if reason.is_failure() => return true, // The client, too, knows of no delivery.
            None => ReasonCode::PacketIdentifierNotFound,
        };
        if let Some(link) = &mut self.link {
            link.unacknowledged += u16::from(released == Some(true));
            link.send(&Packet::PubRel(Ack::with_reason(id, answer))); // [MQTT-4.3.3-4]
        }
        true
    }

    /// PUBCOMP.
    pub(super) fn handle_pub_comp(&mut self, id: PacketId, now: Timestamp) {
        if let Some(InFlight::Released) = self.outgoing.window.get_mut(id) {
            self.complete(id, now);
        }
    }

    fn complete(&mut self, id: PacketId, now: Timestamp) {
        let was_counted = self.outgoing.window.remove(id);
        self.outgoing.note_in_flight();
        if let Some(link) = &mut self.link
            && was_counted == Some(true)
        {
            link.unacknowledged = link.unacknowledged.saturating_sub(1);
        }
        let outgoing = &self.outgoing;
        if !(outgoing.queue.is_empty()
            && outgoing.walks.is_empty()
            && outgoing.window.is_all_sent())
        {
            self.pump(now);
        }
    }
}

impl Outgoing {
    /// Sends again what was in flight when the last connection ended, expired or not.
    /// [MQTT-4.4.0-1] [MQTT-4.3.3-7]
    fn resend(&mut self, link: &mut Link, now: Timestamp) {
        while !self.window.is_all_sent()
            && link.has_room()
            && link.unacknowledged < link.settings.send_quota
        {
            let Some((id, envelope)) = self.window.next_unsent() else {
                break;
            };
            link.unacknowledged += 1;
            let delivery = Delivery {
                qos: envelope.qos,
                retain: envelope.retain,
                identifiers: envelope.identifiers.as_ref(),
                share: envelope.share,
            };
            let mut message = SharedPublication::of(&envelope.message);
            if !write(link, &mut message, delivery, Some(id), true, now) {
                self.window.remove(id);
                self.note_in_flight();
                link.unacknowledged -= 1;
                link.tally.too_large += 1;
            }
        }
    }

    /// Sends the message that is next, or drops it if it has expired; `false` if none can be sent.
    fn send_next(&mut self, link: &mut Link, now: Timestamp) -> bool {
        let is_open = self.window_is_open(link);
        match self.walks.next(self.queue.taken()) {
            Next::Nothing => {}
            Next::Message(qos) if is_open || qos == QoS::AtMostOnce => {
                return self.send_walked(qos, link, now);
            }
            Next::Message(_) | Next::Slice => return false,
        }
        let may_send = |front: &Envelope| front.qos == QoS::AtMostOnce || is_open;
        if !self.queue.front().is_some_and(may_send) {
            return false;
        }
        let Some(envelope) = self.queue.pop() else { return false };
        if envelope.message.publication().has_expired(now) {
            link.tally.expired += 1; // [MQTT-3.3.2-5]
            return true;
        }
        let mut message = SharedPublication::of(&envelope.message);
        let delivery = Delivery {
            qos: envelope.qos,
            retain: envelope.retain,
            identifiers: envelope.identifiers.as_ref(),
            share: envelope.share,
        };
        let sent = self.send(link, delivery, &mut message, now);
        link.tally.too_large += u32::from(sent == Delivered::TooLarge);
        true
    }

    /// Sends the next retained message of the first walk.
    fn send_walked(&mut self, qos: QoS, link: &mut Link, now: Timestamp) -> bool {
        let Some((message, walk)) = self.walks.pop() else { return false };
        let identifiers = walk.identifiers.clone();
        self.note_fetched();
        if message.publication().has_expired(now) {
            link.tally.expired += 1;
            return true;
        }
        let mut message = SharedPublication::of(&message);
        let delivery = Delivery {
            qos,
            retain: true, // [MQTT-3.3.1-8]
            identifiers: identifiers.as_ref(),
            share: None,
        };
        let sent = self.send(link, delivery, &mut message, now);
        link.tally.too_large += u32::from(sent == Delivered::TooLarge);
        true
    }

    fn send(
        &mut self,
        link: &mut Link,
        delivery: Delivery<'_>,
        message: &mut SharedPublication<'_>,
        now: Timestamp,
    ) -> Delivered {
        let id = match delivery.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => {
                link.unacknowledged += 1;
                Some(self.window.push(envelope(delivery, message)))
            }
        };
        let is_sent = write(link, message, delivery, id, false, now);
        if let Some(id) = id {
            if !is_sent {
                self.window.remove(id);
                link.unacknowledged -= 1;
            }
            self.note_in_flight();
        }
        if is_sent { Delivered::Sent } else { Delivered::TooLarge }
    }
}

fn envelope(delivery: Delivery<'_>, message: &mut SharedPublication<'_>) -> Envelope {
    Envelope {
        message: message.keep(),
        qos: delivery.qos,
        retain: delivery.retain,
        identifiers: delivery.identifiers.cloned(),
        share: delivery.share,
    }
}

fn orphan(envelope: &Envelope) -> Option<Orphan> {
    Some(Orphan { message: envelope.message.clone(), share: envelope.share? })
}

/// Encodes a PUBLISH into the link's output; `false` if it is too large for the client.
fn write(
    link: &mut Link,
    message: &mut SharedPublication<'_>,
    delivery: Delivery<'_>,
    packet_id: Option<PacketId>,
    dup: bool,
    now: Timestamp,
) -> bool {
    let publication = &message.publication;
    let version = link.settings.version;
    let mut how = PublishAs {
        flags: PublishFlags { dup, qos: delivery.qos, retain: delivery.retain },
        packet_id,
        topic_alias: link.aliases_out.alias_for(publication.topic),
        subscription_identifiers: delivery.identifiers.map_or(&[], |ids| ids),
        message_expiry_interval: publication.remaining_expiry_secs(now),
    };
    // The client's Maximum Packet Size. [MQTT-3.1.2-24]
    let maximum = link.settings.maximum_packet_size;
    let fits = |how: &PublishAs<'_>| {
        maximum == u32::MAX || publish_size(version, publication, how) <= maximum as usize
    };
    if !fits(&how) {
        // To define an alias takes bytes that the message itself may need.
        how.topic_alias = match how.topic_alias {
            TopicAlias::Define(_) => TopicAlias::None,
            TopicAlias::None | TopicAlias::Use(_) => return false,
        };
        if !fits(&how) {
            return false;
        }
    }
    link.send_publish(message, &how);
    true
}
