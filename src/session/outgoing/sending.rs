//! Sends a message: selects its identifier, its gate and its encoding.
//!
//! The callers decide which message is sent, and when: at delivery, or when it is next in the
//! queue.

use super::{Delivered, Delivery, Outgoing};
use crate::{
    journal::{QueuePlace, Ticket},
    mqtt::{
        PacketId, Publication, PublishAs, PublishFlags, QoS, Timestamp, TopicAlias, publish_size,
    },
    session::{Link, SharedPublication, envelope::Envelope, walk::Next},
};

impl Outgoing {
    /// Sends the messages again that were in flight when the last connection ended, even if they
    /// have expired. [MQTT-4.4.0-1] [MQTT-4.3.3-7]
    pub(super) fn resend(&mut self, link: &mut Link, now: Timestamp) {
        while !self.window.is_all_sent()
            && link.has_room()
            && link.unacknowledged < link.settings.send_quota
        {
            let Some((id, envelope)) = self.window.next_unsent() else {
                break;
            };
            // A message that is sent again takes from the quota of the new connection. [MQTT-4.9.0-2]
            link.unacknowledged += 1;
            let delivery = delivery_of(&envelope);
            let mut message = SharedPublication::of(&envelope.message);
            let how = Sending { packet_id: Some(id), dup: true, gate: self.gate_for(envelope.qos) };
            // The client accepts smaller packets than on its last connection, so the message counts
            // as sent. [MQTT-3.1.2-25]
            if !write(link, &mut message, delivery, how, now) {
                self.window.remove(id);
                self.note(envelope.place, |keeping| keeping.dequeue(envelope.place));
                self.note_in_flight();
                link.unacknowledged -= 1;
                link.tally.too_large += 1;
            }
        }
    }

    /// Sends the next message, or drops it if it has expired; returns `false` if none can be sent.
    pub(super) fn send_next(&mut self, link: &mut Link, now: Timestamp) -> bool {
        let is_open = self.window_is_open(link);
        // A walk comes first if all messages that were queued before it have left.
        match self.walks.next(self.queue.has_come_to()) {
            Next::Nothing => {}
            // QoS 0 needs no place in the window.
            Next::Message(qos) if is_open || qos == QoS::AtMostOnce => {
                return self.send_walked(qos, link, now);
            }
            // The shard must fetch more, or the window must open; later messages wait behind the walk.
            Next::Message(_) | Next::Slice => return false,
        }
        let may_send = |front: &Envelope| front.qos == QoS::AtMostOnce || is_open;
        // A message whose subscription was withdrawn must be examined before it leaves.
        if !self.queue.front().is_some_and(may_send) || self.queue.is_next_in_question() {
            return false;
        }
        let Some(envelope) = self.queue.pop() else { return false };
        if envelope.message.publication().has_expired(now) {
            self.note(envelope.place, |keeping| keeping.dequeue(envelope.place));
            link.tally.expired += 1; // [MQTT-3.3.2-5]
            // The caller goes on with the next message.
            return true;
        }
        let sent = self.send_queued(link, envelope, now);
        link.tally.too_large += u32::from(!sent);
        true
    }

    /// Sends the next retained message of the first walk.
    fn send_walked(&mut self, qos: QoS, link: &mut Link, now: Timestamp) -> bool {
        let Some((message, walk)) = self.walks.pop() else { return false };
        let identifiers = walk.identifiers.clone();
        // Its bytes leave the account of fetched messages, whatever happens to it.
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
        let sent = self.send_new(link, delivery, &mut message, now);
        link.tally.too_large += u32::from(sent == Delivered::TooLarge);
        true
    }

    /// Sends a message that has not waited in the queue.
    pub(super) fn send_new(
        &mut self,
        link: &mut Link,
        delivery: Delivery<'_>,
        message: &mut SharedPublication<'_>,
        now: Timestamp,
    ) -> Delivered {
        let sending = self.sending(delivery.qos);
        // Encoded before anything is noted, because a message that is too large changes nothing.
        if !write(link, message, delivery, sending, now) {
            return Delivered::TooLarge;
        }
        if let Some(id) = sending.packet_id {
            let mut envelope = envelope(delivery, message);
            if let Some(keeping) = &mut self.queue.keeping {
                // Stored and sent in one change.
                envelope.place = keeping.enqueue(&envelope, delivery.share, Some(id));
            }
            self.note_sent(link, envelope);
        }
        Delivered::Sent
    }

    /// Sends a message that has waited in the queue; returns `false` if it is too large for the
    /// client.
    fn send_queued(&mut self, link: &mut Link, envelope: Envelope, now: Timestamp) -> bool {
        let mut sending = self.sending(envelope.qos);
        let keeping = self.queue.keeping.as_ref().filter(|_| envelope.is_stored());
        // A message that may have been sent before the broker ended carries DUP. [MQTT-3.3.1-1]
        sending.dup = keeping.is_some_and(|keeping| keeping.is_doubtful(&envelope));
        let mut message = SharedPublication::of(&envelope.message);
        let is_sent = write(link, &mut message, delivery_of(&envelope), sending, now);
        if envelope.is_stored()
            && let Some(keeping) = &mut self.queue.keeping
        {
            // QoS 0 is done when it is sent, and a message that is too large counts as done. [MQTT-3.1.2-25]
            match sending.packet_id {
                Some(id) if is_sent => keeping.send(envelope.place, id),
                _ => keeping.dequeue(envelope.place),
            }
        }
        // After the encoding: a receipt reports what has happened.
        if is_sent && let Some(receipt) = envelope.message.receipt() {
            receipt.sent(envelope.qos == QoS::AtMostOnce);
        }
        if is_sent && sending.packet_id.is_some() {
            self.note_sent(link, envelope);
        }
        is_sent
    }

    /// Adds a message that was just sent with the next identifier to those in flight.
    #[inline(always)] // each message passes it
    fn note_sent(&mut self, link: &mut Link, envelope: Envelope) {
        self.window.push(envelope);
        link.unacknowledged += 1;
        self.note_in_flight();
    }

    /// Returns how to send the next message. A QoS 2 message of a durable session must wait until
    /// it is stored with its Packet Identifier: the client remembers the identifier, so the broker
    /// must remember it too, even after a crash. [MQTT-4.3.3-2]
    #[inline(always)] // each message passes it
    fn sending(&mut self, qos: QoS) -> Sending {
        match qos {
            QoS::AtMostOnce => Sending { packet_id: None, dup: false, gate: None },
            QoS::AtLeastOnce | QoS::ExactlyOnce => {
                let gate = self.gate_for(qos);
                Sending { packet_id: Some(self.window.next_id()), dup: false, gate }
            }
        }
    }

    fn gate_for(&self, qos: QoS) -> Option<Ticket> {
        let keeping = self.queue.keeping.as_ref().filter(|_| qos == QoS::ExactlyOnce)?;
        Some(keeping.gate())
    }
}

/// How to send the PUBLISH of a message, in addition to its delivery.
#[derive(Clone, Copy)]
struct Sending {
    packet_id: Option<PacketId>,
    dup: bool,
    /// The ticket that it waits for.
    gate: Option<Ticket>,
}

/// Returns how to send a queued message. It already has a place in the store, so the filter of its
/// shared subscription is not needed.
fn delivery_of(envelope: &Envelope) -> Delivery<'_> {
    Delivery {
        qos: envelope.qos,
        retain: envelope.retain,
        identifiers: envelope.identifiers.as_ref(),
        share: None,
    }
}

pub(super) fn envelope(delivery: Delivery<'_>, message: &mut SharedPublication<'_>) -> Envelope {
    Envelope {
        message: message.allocate(),
        qos: delivery.qos,
        retain: delivery.retain,
        identifiers: delivery.identifiers.cloned(),
        share: delivery.share.map(|share| share.number),
        place: QueuePlace(0),
    }
}

/// Encodes a PUBLISH into the link's output; returns `false` if it is too large for the client.
fn write(
    link: &mut Link,
    message: &mut SharedPublication<'_>,
    delivery: Delivery<'_>,
    sending: Sending,
    now: Timestamp,
) -> bool {
    let gate = gate_of(link, sending);
    // Built before the size is known, because alias and expiry are part of it.
    let mut how = publish_as(link, &message.publication, delivery, sending, now);
    if gate.is_some()
        && let TopicAlias::Define(_) = how.topic_alias
    {
        // Messages sent while this one waits would use an alias that the client does not know yet.
        how.topic_alias = TopicAlias::None;
    }
    if !accepts(link, &message.publication, &how) {
        // Defining an alias takes bytes that the message itself may need.
        how.topic_alias = match how.topic_alias {
            TopicAlias::Define(_) => TopicAlias::None,
            TopicAlias::None | TopicAlias::Use(_) => return false,
        };
        if !accepts(link, &message.publication, &how) {
            return false;
        }
    }
    link.send_publish(message, &how, gate);
    true
}

/// Returns the ticket that a PUBLISH waits for. Those with a Packet Identifier keep their order.
#[inline]
fn gate_of(link: &Link, sending: Sending) -> Option<Ticket> {
    sending.packet_id.and_then(|_| sending.gate.max(link.last_gate()))
}

#[inline(always)] // each message passes it
fn publish_as<'a>(
    link: &Link,
    publication: &Publication<'_>,
    delivery: Delivery<'a>,
    sending: Sending,
    now: Timestamp,
) -> PublishAs<'a> {
    PublishAs {
        flags: PublishFlags { dup: sending.dup, qos: delivery.qos, retain: delivery.retain },
        packet_id: sending.packet_id,
        topic_alias: link.aliases_out.alias_for(publication.topic),
        subscription_identifiers: delivery.identifiers.map_or(&[], |ids| ids),
        message_expiry_interval: publication.remaining_expiry_secs(now),
    }
}

/// Returns whether a PUBLISH fits the client's Maximum Packet Size. [MQTT-3.1.2-24]
fn accepts(link: &Link, publication: &Publication<'_>, how: &PublishAs<'_>) -> bool {
    let maximum = link.settings.maximum_packet_size;
    maximum == u32::MAX || publish_size(link.settings.version, publication, how) <= maximum as usize
}
