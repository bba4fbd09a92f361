//! From the other broker to the session: messages.

use std::borrow::Cow;

use super::Translator;
use crate::{
    bridge::{
        fault::{BridgeTrouble, TroubleKind},
        oversized::Oversized,
    },
    metrics::{BridgeDrop, BridgeWay},
    mqtt::{
        Ack, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, Timestamp, encode,
        encoded_size,
    },
};

impl Translator<'_> {
    /// Passes on a message of the other broker, or answers it here.
    ///
    /// # Errors
    /// It has a Topic Alias, which the other broker may not use.
    pub(super) fn take_in(
        &mut self,
        publish: &Publish<'_>,
        now: Timestamp,
    ) -> Result<(), BridgeTrouble> {
        if publish.topic.is_empty() || publish.properties.topic_alias.is_some() {
            let why = "a message came with a Topic Alias, and none is allowed";
            return Err(BridgeTrouble::new(TroubleKind::ProtocolError, why));
        }
        if let Err(why) = self.try_take(publish, now) {
            self.note_dropped(BridgeWay::In, why, publish.topic);
            self.answer_not_taken(publish.flags.qos, publish.packet_id);
        }
        Ok(())
    }

    fn try_take(&mut self, publish: &Publish<'_>, now: Timestamp) -> Result<(), BridgeDrop> {
        let routes = self.routes.clone();
        // A filter may match more topics than the routes allow after a change of the configuration.
        let topic: Cow<'_, str> = routes.comes_in(publish.topic).ok_or(BridgeDrop::Unmapped)?;
        let user_properties = publish.properties.user_properties;
        // A message that has passed this broker before, or too many others, goes no further.
        let marked = self.marks.as_ref().map(|marks| marks.on_the_way_in(user_properties));
        let marked = marked.transpose().map_err(|_| BridgeDrop::Loop)?.flatten();
        // Without marks, a message that comes back is known by its topic and payload only.
        if self.remote.returns_messages
            && self.memory.echoes.take(publish.topic, publish.payload, now)
        {
            return Err(BridgeDrop::Loop);
        }
        // The session would end the connection for such a topic.
        if !(self.local.allows_topic)(&topic) {
            return Err(BridgeDrop::TooLarge);
        }
        let properties = PublishProperties {
            // Aliases and Subscription Identifiers are of the connection to the other broker.
            topic_alias: None,
            subscription_identifiers: Vec::new(),
            user_properties: marked
                .as_ref()
                .map_or(user_properties, |marked| marked.as_user_properties()),
            ..publish.properties.clone()
        };
        let packet = Packet::Publish(Publish {
            flags: publish.flags,
            topic: &topic,
            packet_id: publish.packet_id,
            properties,
            payload: publish.payload,
        });
        // Computed before anything is written, so that nothing has to be taken back.
        let bytes = encoded_size(&packet, ProtocolVersion::V5).map_err(|_| BridgeDrop::TooLarge)?;
        if bytes > self.local.packet_bytes_max as usize {
            return Err(BridgeDrop::TooLarge);
        }
        let encoded = encode(&packet, ProtocolVersion::V5, &mut self.to_local);
        encoded.map_err(|_| BridgeDrop::TooLarge)?;
        self.metrics.way(BridgeWay::In).count(publish.payload.len());
        Ok(())
    }

    /// Answers a message that is larger than a packet may be; the rest of it is skipped.
    pub(in crate::bridge) fn answer_oversized(&mut self, found: &Oversized) {
        self.note_dropped(BridgeWay::In, BridgeDrop::TooLarge, &found.topic);
        self.answer_not_taken(found.qos, found.packet_id);
    }

    /// Answers a message that does not go over, so that the other broker is done with it.
    fn answer_not_taken(&mut self, qos: QoS, packet_id: Option<PacketId>) {
        let Some(id) = packet_id else { return };
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.tell_remote(&Packet::PubAck(Ack::success(id))),
            // The session answers PUBREL, also for an identifier that it does not know.
            QoS::ExactlyOnce => self.tell_remote(&Packet::PubRec(Ack::success(id))),
        }
    }
}
