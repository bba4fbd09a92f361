//! Packets from the client: those that the session answers itself, and its requests to the broker.

use std::{ops::Deref, sync::Arc};

use super::{Link, Session, packet_ids::PacketIds};
use crate::{
    journal::{Change, Ticket},
    mqtt::{
        Ack, Auth, Disconnect, Packet, PacketId, Publish, QoS, ReasonCode, Subscribe, Timestamp,
        Unsubscribe,
    },
};

/// The receiver's side of QoS 2.
#[derive(Debug, Default)]
pub struct Incoming {
    /// Packet Identifiers of accepted messages whose PUBREL has not come.
    waiting_to_be_released: PacketIds,
    /// Upper limit on how many of them belong to earlier connections. These do not count against
    /// the Receive Maximum of this connection, which section 4.9 starts afresh.
    carried_over: usize,
}

impl Incoming {
    /// Begins a new connection.
    pub(super) fn carry_over(&mut self) {
        self.carried_over = self.waiting_to_be_released.len();
    }

    /// Takes the identifiers of the messages that were accepted and not released.
    pub(super) fn take_accepted(&mut self) -> Vec<PacketId> {
        self.carried_over = 0;
        std::mem::take(&mut self.waiting_to_be_released).into_ids()
    }

    /// Restores the messages that were accepted and not released when the broker ended.
    pub(super) fn restore(&mut self, accepted: &[PacketId]) {
        for id in accepted {
            self.waiting_to_be_released.insert(*id);
        }
    }
}

/// The work that a packet leaves to the broker. The session itself has done the rest.
#[derive(Debug)]
pub enum Request<'p> {
    /// To be routed; then the caller calls [`Session::publish_done`].
    Publish {
        /// The packet; its topic may be empty if it has a Topic Alias.
        publish: Publish<'p>,
        /// The Topic Name, with its alias resolved.
        topic: TopicName<'p>,
    },
    /// To be subscribed and answered.
    Subscribe(Subscribe<'p>),
    /// To be unsubscribed and answered.
    Unsubscribe(Unsubscribe<'p>),
    /// The client disconnects.
    Disconnect(Disconnect<'p>),
    /// The client wants to authenticate again, if it may.
    Authenticate(Auth<'p>),
}

/// A Topic Name, from the packet or from a Topic Alias.
#[derive(Debug)]
pub enum TopicName<'p> {
    /// From the packet.
    Sent(&'p str),
    /// From a Topic Alias.
    Aliased(Arc<str>),
}

impl Deref for TopicName<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Sent(topic) => topic,
            Self::Aliased(topic) => topic,
        }
    }
}

/// A protocol rule that the client broke. The connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason:?} [{clause}]")]
pub struct Violation {
    /// Reason for the DISCONNECT, if the version has one.
    pub reason: ReasonCode,
    /// The conformance statement that the client broke.
    pub clause: &'static str,
}

impl Violation {
    const fn protocol_error(clause: &'static str) -> Self {
        Self { reason: ReasonCode::ProtocolError, clause }
    }
}

/// The client acknowledges a message in flight with another packet than the delivery needs next.
/// "The receiver MUST respond with the packet as determined by the QoS", and PUBCOMP is the
/// response to PUBREL alone, section 3.7 of both versions. A packet that contradicts the state of
/// the other side is a Protocol Error, section 1.2. A repeated PUBREC is no error and is answered
/// again [MQTT-4.3.3-4]. An identifier that is not in flight is no error either.
const NOT_AWAITED: Violation = Violation::protocol_error("MQTT-3.3.4-1");

impl Session {
    /// Returns the Packet Identifiers of the messages of QoS 2 that were accepted and not released.
    pub fn accepted(&self) -> Vec<PacketId> {
        let ids = &self.incoming.waiting_to_be_released;
        if ids.len() == 0 {
            return Vec::new();
        }
        (1..=u16::MAX).filter_map(PacketId::new).filter(|id| ids.contains(*id)).collect()
    }

    /// Handles one packet from the client.
    ///
    /// # Errors
    /// A [`Violation`], after which the connection must be closed.
    pub fn handle<'p>(
        &mut self,
        packet: Packet<'p>,
        now: Timestamp,
    ) -> Result<Option<Request<'p>>, Violation> {
        // A packet may be left in the read buffer after the connection has ended.
        let Some(link) = self.link.as_deref_mut() else {
            return Ok(None);
        };
        match packet {
            Packet::Publish(publish) => return self.handle_publish(publish),
            Packet::PubAck(ack) => {
                if !self.handle_pub_ack(ack.packet_id, ack.reason, now) {
                    return Err(NOT_AWAITED);
                }
            }
            Packet::PubRec(ack) => {
                if !self.handle_pub_rec(ack.packet_id, ack.reason, now) {
                    return Err(NOT_AWAITED);
                }
            }
            Packet::PubRel(ack) => self.handle_pub_rel(ack.packet_id),
            Packet::PubComp(ack) => {
                if !self.handle_pub_comp(ack.packet_id, now) {
                    return Err(NOT_AWAITED);
                }
            }
            Packet::Subscribe(subscribe) => return Ok(Some(Request::Subscribe(subscribe))),
            Packet::Unsubscribe(unsubscribe) => {
                return Ok(Some(Request::Unsubscribe(unsubscribe)));
            }
            Packet::PingReq => link.send(&Packet::PingResp), // [MQTT-3.12.4-1]
            Packet::Disconnect(disconnect) => {
                // A session that was to end with its connection cannot be extended.
                // [MQTT 5.0, 3.14.2.2.2]
                // 0 is allowed in each case: it ends the session with the connection.
                let extends = disconnect.properties.session_expiry_interval.is_some_and(|s| s > 0);
                if extends && !link.settings.may_extend_expiry {
                    return Err(Violation::protocol_error("MQTT 5.0, 3.14.2.2.2"));
                }
                return Ok(Some(Request::Disconnect(disconnect)));
            }
            Packet::Auth(auth) => return Ok(Some(Request::Authenticate(auth))),
            Packet::Connect(_) => return Err(Violation::protocol_error("MQTT-3.1.0-2")),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                return Err(Violation::protocol_error("MQTT 5.0, 4.13.1"));
            }
        }
        Ok(None)
    }

    /// Acknowledges a message after the broker has handled it, as soon as the changes it depends on
    /// are stored.
    pub fn publish_done(
        &mut self,
        qos: QoS,
        packet_id: Option<PacketId>,
        reason: ReasonCode,
        gate: Option<Ticket>,
    ) {
        if let Some(id) = packet_id {
            // QoS 0 has no Packet Identifier, and no acknowledgement.
            self.acknowledge(qos, id, reason, gate);
        }
    }

    #[inline(never)]
    fn acknowledge(
        &mut self,
        qos: QoS,
        id: PacketId,
        reason: ReasonCode,
        mut gate: Option<Ticket>,
    ) {
        let Some(link) = self.link.as_deref_mut() else {
            return;
        };
        // An acknowledgement has the identifier of its PUBLISH. [MQTT-2.2.1-5]
        let ack =
            Ack { packet_id: id, reason, properties: link.reason_string(why_refused(reason)) };
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => link.send_in_turn(&Packet::PubAck(ack), gate), // [MQTT-4.3.2-4]
            QoS::ExactlyOnce => {
                // A PUBREC that refuses ends the exchange, so the identifier is free again. [MQTT-4.3.3-9]
                if !(reason.is_failure() && link.version().has_properties()) {
                    self.incoming.waiting_to_be_released.insert(id);
                    if let Some(keeping) = &self.outgoing.queue().keeping {
                        keeping.note(|number| Change::Accept(number, id));
                        // The identifier must be stored before PUBREC: a repeated PUBLISH would be
                        // a new message otherwise.
                        gate = Some(keeping.gate());
                    }
                }
                link.send_in_turn(&Packet::PubRec(ack), gate); // [MQTT-4.3.3-8]
            }
        }
    }

    fn handle_publish<'p>(
        &mut self,
        publish: Publish<'p>,
    ) -> Result<Option<Request<'p>>, Violation> {
        let Some(link) = self.link.as_deref_mut() else {
            return Ok(None);
        };
        // Subscription Identifiers belong to the direction from server to client.
        if !publish.properties.subscription_identifiers.is_empty() {
            return Err(Violation::protocol_error("MQTT-3.3.4-6"));
        }
        let topic = resolve(link, &publish)?;
        if publish.flags.qos == QoS::ExactlyOnce
            && let Some(id) = publish.packet_id
        {
            let waiting = &self.incoming.waiting_to_be_released;
            if waiting.contains(id) {
                // The message was accepted before: acknowledge it again, but not before it is
                // stored, and do not deliver it again. [MQTT-4.3.3-10]
                let gate = self.outgoing.queue().keeping.as_ref().map(|keeping| keeping.gate());
                link.send_in_turn(&Packet::PubRec(Ack::success(id)), gate);
                return Ok(None);
            }
            // Only MQTT 5.0 has a Receive Maximum; before, the number of identifiers is the limit.
            if link.settings.version.has_properties()
                // Identifiers of the former connection do not count, because the client may not
                // know that they are open.
                && waiting.len() - self.incoming.carried_over
                    >= usize::from(link.settings.receive_maximum)
            {
                return Err(Violation {
                    reason: ReasonCode::ReceiveMaximumExceeded,
                    clause: "MQTT-3.3.4-7",
                });
            }
        }
        Ok(Some(Request::Publish { publish, topic }))
    }

    fn handle_pub_rel(&mut self, id: PacketId) {
        let Incoming { waiting_to_be_released: waiting, carried_over } = &mut self.incoming;
        // An identifier that is not known is answered too: the client may repeat PUBREL after a
        // restart. [MQTT-4.3.3-11]
        let known = waiting.remove(id);
        // Which identifiers are carried over is not known, so their number is only bounded by the rest.
        *carried_over = waiting.len().min(*carried_over);
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        // The client may reuse the identifier as soon as it receives PUBCOMP.
        let gate = self.outgoing.queue().keeping.as_ref().map(|keeping| {
            if known {
                keeping.note(|number| Change::Forget(number, id));
            }
            keeping.gate()
        });
        if let Some(link) = &mut self.link {
            link.send_in_turn(&Packet::PubComp(Ack::with_reason(id, reason)), gate); // [MQTT-4.3.3-11]
        }
    }
}

/// Returns why a message was not accepted, if the code alone does not say enough.
fn why_refused(reason: ReasonCode) -> Option<&'static str> {
    (reason == ReasonCode::QuotaExceeded)
        .then_some("not retained: the limit on retained messages is reached")
}

/// Returns the Topic Name of a PUBLISH, section 3.3.2.3.4.
fn resolve<'p>(link: &mut Link, publish: &Publish<'p>) -> Result<TopicName<'p>, Violation> {
    let Some(alias) = publish.properties.topic_alias else {
        return Ok(TopicName::Sent(publish.topic));
    };
    let invalid = Violation { reason: ReasonCode::TopicAliasInvalid, clause: "MQTT-3.3.2-9" };
    // 0, and aliases above the own Topic Alias Maximum, are invalid. [MQTT-3.3.2-8] [MQTT-3.3.2-9]
    if !link.aliases_in.allows(alias) {
        return Err(invalid);
    }
    if publish.topic.is_empty() {
        let topic = link.aliases_in.topic(alias);
        // The alias was never set. [MQTT 5.0, 3.3.2.3.4]
        return topic
            .map(TopicName::Aliased)
            .ok_or(Violation::protocol_error("MQTT 5.0, 3.3.2.3.4"));
    }
    // A later PUBLISH may give the same alias another topic.
    link.aliases_in.set(alias, publish.topic);
    Ok(TopicName::Sent(publish.topic))
}
