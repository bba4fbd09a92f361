//! Messages from the session to the other broker, and their acknowledgements.

use std::borrow::Cow;

use super::{Translator, is_for_good};
use crate::{
    bridge::fault::{BridgeTrouble, TroubleKind},
    metrics::{BridgeDrop, BridgeWay},
    mqtt::{
        Ack, Packet, PacketId, Publish, PublishFlags, PublishProperties, QoS, ReasonCode,
        Timestamp, encode, encoded_size,
    },
};

impl Translator<'_> {
    /// Sends a message of the session, or answers it here.
    pub(super) fn send_out(&mut self, publish: &Publish<'_>, now: Timestamp) {
        if let Err(why) = self.try_send(publish, now) {
            self.note_dropped(BridgeWay::Out, why, publish.topic);
            self.answer_dropped(publish);
        }
    }

    fn try_send(&mut self, publish: &Publish<'_>, now: Timestamp) -> Result<(), BridgeDrop> {
        let routes = self.routes.clone();
        let topic: Cow<'_, str> = routes.out(publish.topic).ok_or(BridgeDrop::Unmapped)?;
        // Only MQTT 5.0 has User Properties for the marks.
        let marked = self.marks.as_ref().filter(|_| self.remote.version.has_properties());
        let user_properties = publish.properties.user_properties;
        let marked = marked.map(|marks| marks.on_the_way_out(user_properties)).transpose();
        let marked = marked.map_err(|_| BridgeDrop::Loop)?;
        let qos = publish.flags.qos.min(self.remote.qos_max);
        let flags = PublishFlags {
            // A broker without session has not got it before.
            dup: publish.flags.dup && self.remote.session_present && qos > QoS::AtMostOnce,
            qos,
            retain: publish.flags.retain && self.remote.takes_retain,
        };
        let properties = PublishProperties {
            // Aliases and Subscription Identifiers are of the connection to this session.
            topic_alias: None,
            subscription_identifiers: Vec::new(),
            user_properties: marked
                .as_ref()
                .map_or(user_properties, |marked| marked.as_user_properties()),
            ..publish.properties.clone()
        };
        let packet = Packet::Publish(Publish {
            flags,
            topic: &topic,
            // A message that is lowered to QoS 0 has no identifier. [MQTT-2.2.1-2]
            packet_id: publish.packet_id.filter(|_| qos > QoS::AtMostOnce),
            properties,
            payload: publish.payload,
        });
        let version = self.remote.version;
        // Computed before anything is written, so that nothing has to be taken back.
        let bytes = encoded_size(&packet, version).map_err(|_| BridgeDrop::TooLarge)?;
        if bytes > self.remote.packet_bytes_max as usize {
            return Err(BridgeDrop::TooLarge);
        }
        if qos == QoS::ExactlyOnce && !publish.flags.dup {
            self.free_there(publish.packet_id);
        }
        encode(&packet, version, &mut self.to_remote).map_err(|_| BridgeDrop::TooLarge)?;
        // Noted after the message is written, because only then can it come back.
        if self.remote.returns_messages && routes.may_return(&topic) {
            self.memory.echoes.expect(&topic, publish.payload, now);
        }
        self.metrics.way(BridgeWay::Out).count(publish.payload.len());
        // The session waits for acknowledgements of the QoS that it has sent.
        self.answer_lowered(publish, qos);
        Ok(())
    }

    /// Releases an identifier that an earlier session of this bridge may have left behind at the other
    /// broker: a new message with it would be taken for the old one.
    fn free_there(&mut self, id: Option<PacketId>) {
        let (Some(free), Some(id)) = (&mut self.memory.free_there, id) else { return };
        if !free.contains(id) {
            free.insert(id);
            self.release_here(id);
        }
    }

    fn release_here(&mut self, id: PacketId) {
        self.released_here.insert(id);
        self.tell_remote(&Packet::PubRel(Ack::success(id)));
    }

    /// Sends the acknowledgements that the other broker will not send, because the message has a lower QoS there.
    fn answer_lowered(&mut self, publish: &Publish<'_>, sent: QoS) {
        let Some(id) = publish.packet_id else { return };
        match (publish.flags.qos, sent) {
            (QoS::AtLeastOnce, QoS::AtMostOnce) => {
                self.tell_local(&Packet::PubAck(Ack::success(id)));
            }
            (QoS::ExactlyOnce, QoS::AtMostOnce) => {
                self.lowered.insert(id);
                self.tell_local(&Packet::PubRec(Ack::success(id)));
            }
            (QoS::ExactlyOnce, QoS::AtLeastOnce) => self.lowered.insert(id),
            (QoS::AtMostOnce | QoS::AtLeastOnce | QoS::ExactlyOnce, _) => {}
        }
    }

    /// Answers a message that does not go over, so that the session is done with it.
    fn answer_dropped(&mut self, publish: &Publish<'_>) {
        let Some(id) = publish.packet_id else { return };
        match publish.flags.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.tell_local(&Packet::PubAck(Ack::success(id))),
            QoS::ExactlyOnce => {
                if publish.flags.dup && self.remote.session_present {
                    self.release_here(id); // the other broker may have it from before
                }
                // With a failure, there is no PUBREL.
                let refused = Ack::with_reason(id, ReasonCode::UnspecifiedError);
                self.tell_local(&Packet::PubRec(refused));
            }
        }
    }

    /// Takes PUBREL of the session.
    pub(super) fn release(&mut self, id: PacketId) {
        let was_lowered = self.lowered.remove(id);
        let is_unknown_there = !self.remote.session_present && !self.received_there.remove(id);
        if was_lowered || self.remote.qos_max < QoS::ExactlyOnce || is_unknown_there {
            self.tell_local(&Packet::PubComp(Ack::success(id)));
        } else {
            self.tell_remote(&Packet::PubRel(Ack::success(id)));
        }
    }

    /// Takes PUBACK of the other broker.
    ///
    /// # Errors
    /// The other broker may take the message later.
    pub(super) fn acknowledged(&mut self, ack: &Ack<'_>) -> Result<(), BridgeTrouble> {
        let id = ack.packet_id;
        let was_refused = self.check_refusal(ack.reason)?;
        if !self.lowered.contains(id) {
            self.tell_local(&Packet::PubAck(Ack::with_reason(id, ack.reason)));
        } else if was_refused {
            self.lowered.remove(id);
            self.tell_local(&Packet::PubRec(Ack::with_reason(id, ack.reason)));
        } else {
            self.tell_local(&Packet::PubRec(Ack::success(id)));
        }
        Ok(())
    }

    /// Takes PUBREC of the other broker.
    ///
    /// # Errors
    /// The other broker may take the message later.
    pub(super) fn received(&mut self, ack: &Ack<'_>) -> Result<(), BridgeTrouble> {
        let id = ack.packet_id;
        if !self.check_refusal(ack.reason)? && !self.remote.session_present {
            self.received_there.insert(id);
        }
        self.tell_local(&Packet::PubRec(Ack::with_reason(id, ack.reason)));
        Ok(())
    }

    /// Returns whether the other broker has refused a message for good.
    fn check_refusal(&self, reason: ReasonCode) -> Result<bool, BridgeTrouble> {
        if !reason.is_failure() {
            return Ok(false);
        }
        // Of an identifier that it does not know, nothing is left to send.
        if is_for_good(reason) || reason == ReasonCode::PacketIdentifierNotFound {
            self.metrics.way(BridgeWay::Out).dropped.increment(BridgeDrop::Refused);
            return Ok(true);
        }
        let what = "the other broker refused a message";
        Err(BridgeTrouble::of_reason(TroubleKind::MessageRefused, what, reason))
    }
}
