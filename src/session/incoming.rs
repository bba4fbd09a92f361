//! Packets from the client: what the session answers by itself, and what it asks the broker for.

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
    /// Packet Identifiers whose message was accepted and whose PUBREL has not come.
    waiting_to_be_released: PacketIds,
    /// So many of them are of earlier connections at most, and do not count against the Receive
    /// Maximum of this one: section 4.9 begins it anew.
    carried_over: usize,
}

impl Incoming {
    /// A new connection.
    pub(super) fn carry_over(&mut self) {
        self.carried_over = self.waiting_to_be_released.len();
    }

    /// Takes back what was accepted and not released when the broker ended.
    pub(super) fn restore(&mut self, accepted: &[PacketId]) {
        for id in accepted {
            self.waiting_to_be_released.insert(*id);
        }
    }
}

/// What a packet asks of the broker; everything else the session has settled already.
#[derive(Debug)]
pub enum Request<'p> {
    /// Route a message, then call [`Session::publish_done`].
    Publish {
        /// The packet; its topic may be empty where an alias stands for it.
        publish: Publish<'p>,
        /// The Topic Name, alias resolved.
        topic: TopicName<'p>,
    },
    /// Subscribe and answer.
    Subscribe(Subscribe<'p>),
    /// Unsubscribe and answer.
    Unsubscribe(Unsubscribe<'p>),
    /// The client takes its leave.
    Disconnect(Disconnect<'p>),
    /// Authenticate the client again, if it may ask for that.
    Authenticate(Auth<'p>),
}

/// A Topic Name as it stood in the packet, or as an alias stood for it.
#[derive(Debug)]
pub enum TopicName<'p> {
    /// In the packet.
    Sent(&'p str),
    /// By Topic Alias.
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

/// The client broke a rule, and the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason:?} [{clause}]")]
pub struct Violation {
    /// For the DISCONNECT, where the version has one.
    pub reason: ReasonCode,
    /// The statement that was broken.
    pub clause: &'static str,
}

impl Violation {
    const fn protocol_error(clause: &'static str) -> Self {
        Self { reason: ReasonCode::ProtocolError, clause }
    }
}

/// The client acknowledges a message in flight with another packet than its delivery awaits: "the
/// receiver MUST respond with the packet as determined by the QoS", and PUBCOMP is the response to
/// PUBREL alone, section 3.7 of both versions. A packet that contradicts the state of the other side
/// is a Protocol Error, section 1.2. PUBREC that comes again is none, and is answered again
/// [MQTT-4.3.3-4], nor is an identifier of which nothing is in flight.
const NOT_AWAITED: Violation = Violation::protocol_error("MQTT-3.3.4-1");

impl Session {
    /// Takes one packet from the client.
    ///
    /// # Errors
    /// A [`Violation`], after which the connection is to be closed.
    pub fn handle<'p>(
        &mut self,
        packet: Packet<'p>,
        now: Timestamp,
    ) -> Result<Option<Request<'p>>, Violation> {
        let Some(link) = self.link.as_deref_mut() else {
            return Ok(None);
        };
        match packet {
            Packet::Publish(publish) => return self.handle_publish(publish),
            Packet::PubAck(ack) => {
                if !self.handle_pub_ack(ack.packet_id, now) {
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
                // A session that was to end with its connection cannot be made to last.
                // [MQTT 5.0, 3.14.2.2.2]
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

    /// Acknowledges a message once the broker has done with it what there was to do, and as soon as
    /// what it waits for is kept.
    pub fn publish_done(
        &mut self,
        qos: QoS,
        packet_id: Option<PacketId>,
        reason: ReasonCode,
        mut gate: Option<Ticket>,
    ) {
        let (Some(link), Some(id)) = (self.link.as_deref_mut(), packet_id) else {
            return;
        };
        let ack =
            Ack { packet_id: id, reason, properties: link.reason_string(why_refused(reason)) };
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => link.send_in_turn(&Packet::PubAck(ack), gate), // [MQTT-4.3.2-4]
            QoS::ExactlyOnce => {
                if !(reason.is_failure() && link.version().has_properties()) {
                    self.incoming.waiting_to_be_released.insert(id);
                    if let Some(keeping) = &self.outgoing.queue().keeping {
                        keeping.note(|number| Change::Accept(number, id));
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
        if !publish.properties.subscription_identifiers.is_empty() {
            return Err(Violation::protocol_error("MQTT-3.3.4-6"));
        }
        let topic = resolve(link, &publish)?;
        if publish.flags.qos == QoS::ExactlyOnce
            && let Some(id) = publish.packet_id
        {
            let waiting = &self.incoming.waiting_to_be_released;
            if waiting.contains(id) {
                // Accepted before: acknowledged again, not delivered again, and not before it is
                // kept. [MQTT-4.3.3-10]
                let gate = self.outgoing.queue().keeping.as_ref().map(|keeping| keeping.gate());
                link.send_in_turn(&Packet::PubRec(Ack::success(id)), gate);
                return Ok(None);
            }
            // Only MQTT 5.0 knows a Receive Maximum; before, identifiers are the bound.
            if link.settings.version.has_properties()
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
        let known = waiting.remove(id);
        *carried_over = waiting.len().min(*carried_over);
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        // The identifier may be used again as soon as the client hears of it.
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

/// Why a message was not accepted, where the code alone does not say enough.
fn why_refused(reason: ReasonCode) -> Option<&'static str> {
    (reason == ReasonCode::QuotaExceeded)
        .then_some("not retained: the limit on retained messages is reached")
}

/// The Topic Name of a PUBLISH, section 3.3.2.3.4.
fn resolve<'p>(link: &mut Link, publish: &Publish<'p>) -> Result<TopicName<'p>, Violation> {
    let Some(alias) = publish.properties.topic_alias else {
        return Ok(TopicName::Sent(publish.topic));
    };
    let invalid = Violation { reason: ReasonCode::TopicAliasInvalid, clause: "MQTT-3.3.2-9" };
    if !link.aliases_in.allows(alias) {
        return Err(invalid);
    }
    if publish.topic.is_empty() {
        let topic = link.aliases_in.topic(alias);
        // An alias that was never set. [MQTT 5.0, 3.3.2.3.4]
        return topic
            .map(TopicName::Aliased)
            .ok_or(Violation::protocol_error("MQTT 5.0, 3.3.2.3.4"));
    }
    link.aliases_in.set(alias, publish.topic);
    Ok(TopicName::Sent(publish.topic))
}
