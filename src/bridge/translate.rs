//! Translates packets between the session of a bridge and the other broker.
//!
//! ```text
//! session ── PUBLISH, acknowledgements ──▶ topic, version, QoS ──▶ other broker
//!         ◀── acknowledgements, PUBLISH ── topic, mark          ◀──
//! ```
//!
//! Packet Identifiers stay what they are. A message that cannot go over is answered here, to the side
//! that sent it, so that it does not come again. Pure but for the clock of its owner: bytes of packets
//! go in and out.

mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{
    echoes::Echoes,
    fault::{BridgeTrouble, TroubleKind},
    marks::Marks,
    routes::Routes,
};
use crate::{
    metrics::{BridgeDrop, BridgeMetrics, BridgeWay},
    mqtt::{Ack, Packet, ProtocolVersion, QoS, ReasonCode, SubAck, Timestamp, encode},
    session::PacketIds,
};

/// The limits and abilities in CONNACK of the other broker.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemoteSide {
    pub(super) version: ProtocolVersion,
    pub(super) session_present: bool,
    pub(super) qos_max: QoS,
    pub(super) takes_retain: bool,
    /// Maximum size of a packet that is sent.
    pub(super) packet_bytes_max: u32,
    /// Whether messages come back, because it knows neither No Local nor the bit of bridges.
    pub(super) returns_messages: bool,
}

/// The limits of this broker for packets of the other one.
pub(super) struct LocalSideLimits {
    pub(super) packet_bytes_max: u32,
    pub(super) allows_topic: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

/// The memory of a bridge from one connection to the next.
#[derive(Default)]
pub(super) struct BridgeMemory {
    echoes: Echoes,
    /// Set for a new session at a broker that has an older one: the identifiers that are known to be
    /// free there.
    free_there: Option<PacketIds>,
}

impl BridgeMemory {
    /// Notes that the session in this broker is new.
    pub(super) fn session_is_new(&mut self) {
        self.free_there = Some(PacketIds::default());
    }
}

/// A notice of the translator to its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BridgeNote {
    /// The other broker has answered a SUBSCRIBE.
    Subscribed,
    /// It has refused a subscription.
    SubscribeRefused(BridgeTrouble),
    /// A message was dropped.
    Dropped { way: BridgeWay, why: BridgeDrop, topic: Box<str> },
}

/// The translator of one connection.
pub(super) struct Translator<'m> {
    pub(super) routes: Arc<Routes>,
    pub(super) marks: Option<Marks>,
    pub(super) remote: RemoteSide,
    pub(super) local: LocalSideLimits,
    pub(super) memory: &'m mut BridgeMemory,
    pub(super) metrics: Arc<BridgeMetrics>,
    /// Bytes for the session.
    pub(super) to_local: Vec<u8>,
    /// Bytes for the other broker.
    pub(super) to_remote: Vec<u8>,
    pub(super) notes: Vec<BridgeNote>,
    /// The session's messages of QoS 2 that were sent with a lower QoS.
    lowered: PacketIds,
    /// The session's messages for which PUBREC came on this connection.
    received_there: PacketIds,
    /// PUBREL that this translator has sent by itself, whose PUBCOMP is not for the session.
    released_here: PacketIds,
}

impl<'m> Translator<'m> {
    pub(super) fn new(
        (routes, marks): (Arc<Routes>, Option<Marks>),
        remote: RemoteSide,
        local: LocalSideLimits,
        memory: &'m mut BridgeMemory,
        metrics: Arc<BridgeMetrics>,
    ) -> Self {
        if !remote.session_present {
            memory.free_there = None; // there is nothing that could be in use
        }
        Self {
            routes,
            marks,
            remote,
            local,
            memory,
            metrics,
            to_local: Vec::new(),
            to_remote: Vec::new(),
            notes: Vec::new(),
            lowered: PacketIds::default(),
            received_there: PacketIds::default(),
            released_here: PacketIds::default(),
        }
    }

    /// Takes a packet of the session.
    ///
    /// # Errors
    /// The connection must end.
    pub(super) fn take_local(
        &mut self,
        packet: &Packet<'_>,
        now: Timestamp,
    ) -> Result<(), BridgeTrouble> {
        match packet {
            Packet::Publish(publish) => self.send_out(publish, now),
            Packet::PubAck(ack) => {
                // A message that is refused for now is not acknowledged, so the other broker keeps it.
                self.check_own_refusal(ack.reason)?;
                self.tell_remote(&Packet::PubAck(bare(ack)));
            }
            Packet::PubRec(ack) => {
                // PUBREC would let the other broker delete the message, so it is held back in the same way.
                self.check_own_refusal(ack.reason)?;
                self.tell_remote(&Packet::PubRec(bare(ack)));
            }
            Packet::PubRel(ack) => self.release(ack.packet_id),
            Packet::PubComp(ack) => self.tell_remote(&Packet::PubComp(bare(ack))),
            Packet::Disconnect(disconnect) => {
                let what = "the session was disconnected";
                return Err(BridgeTrouble::of_reason(TroubleKind::Kicked, what, disconnect.reason));
            }
            Packet::SubAck(ack) => {
                // The other topics go on, so a refused one is a note and not the end of the connection.
                for reason in ack.reasons.iter().filter(|reason| reason.is_failure()) {
                    let what = "this broker refused an out topic";
                    let fault =
                        BridgeTrouble::of_reason(TroubleKind::SubscribeRefused, what, *reason);
                    self.notes.push(BridgeNote::SubscribeRefused(fault));
                }
            }
            // Answers that nothing waits for, and packets that this broker does not send.
            Packet::UnsubAck(_)
            | Packet::PingResp
            | Packet::PingReq
            | Packet::ConnAck(_)
            | Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Auth(_) => {}
        }
        Ok(())
    }

    /// Takes a packet of the other broker.
    ///
    /// # Errors
    /// The connection must end.
    pub(super) fn take_remote(
        &mut self,
        packet: &Packet<'_>,
        now: Timestamp,
    ) -> Result<(), BridgeTrouble> {
        match packet {
            Packet::Publish(publish) => self.take_in(publish, now)?,
            Packet::PubAck(ack) => self.acknowledged(ack)?,
            Packet::PubRec(ack) => self.received(ack)?,
            Packet::PubComp(ack) => {
                // The session has not sent the PUBREL that this PUBCOMP answers.
                if !self.released_here.remove(ack.packet_id) {
                    self.tell_local(&Packet::PubComp(Ack::success(ack.packet_id)));
                }
            }
            Packet::PubRel(ack) => self.tell_local(&Packet::PubRel(bare(ack))),
            Packet::SubAck(ack) => self.subscribed(ack),
            Packet::UnsubAck(_) | Packet::PingResp => {}
            Packet::Disconnect(disconnect) => {
                let what = "the other broker ended the connection";
                return Err(BridgeTrouble::of_reason(TroubleKind::Closed, what, disconnect.reason));
            }
            // The other broker is another program, so a packet out of place is possible here.
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Auth(_) => {
                let why = "a packet came that a server does not send here";
                return Err(BridgeTrouble::new(TroubleKind::ProtocolError, why));
            }
        }
        Ok(())
    }

    fn subscribed(&mut self, ack: &SubAck<'_>) {
        for reason in ack.reasons.iter().filter(|reason| reason.is_failure()) {
            let what = "the other broker refused an in topic";
            let fault = BridgeTrouble::of_reason(TroubleKind::SubscribeRefused, what, *reason);
            self.notes.push(BridgeNote::SubscribeRefused(fault));
        }
        self.notes.push(BridgeNote::Subscribed);
    }

    /// Fails if this broker refused a message that it may take later. The other one must keep it.
    fn check_own_refusal(&self, reason: ReasonCode) -> Result<(), BridgeTrouble> {
        if !reason.is_failure() {
            return Ok(());
        }
        if is_for_good(reason) {
            self.metrics.way(BridgeWay::In).dropped.increment(BridgeDrop::Refused);
            return Ok(());
        }
        Err(BridgeTrouble::of_reason(
            TroubleKind::MessageRefused,
            "this broker refused a message",
            reason,
        ))
    }

    /// Notes a message that does not go over.
    fn note_dropped(&mut self, way: BridgeWay, why: BridgeDrop, topic: &str) {
        self.metrics.way(way).dropped.increment(why);
        if why != BridgeDrop::Loop {
            self.notes.push(BridgeNote::Dropped { way, why, topic: topic.into() });
        }
    }

    fn tell_local(&mut self, packet: &Packet<'_>) {
        let encoded = encode(packet, ProtocolVersion::V5, &mut self.to_local);
        debug_assert!(encoded.is_ok(), "acknowledgements can be said");
    }

    fn tell_remote(&mut self, packet: &Packet<'_>) {
        let encoded = encode(packet, self.remote.version, &mut self.to_remote);
        debug_assert!(encoded.is_ok(), "acknowledgements can be said");
    }
}

/// Returns an acknowledgement without its properties, which are for the other side of its connection.
/// Only a server says that there are no subscribers.
const fn bare(ack: &Ack<'_>) -> Ack<'static> {
    let reason = if ack.reason.is_failure() { ack.reason } else { ReasonCode::Success };
    Ack::with_reason(ack.packet_id, reason)
}

/// Returns whether a refused message would be refused again.
const fn is_for_good(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::NotAuthorized
            | ReasonCode::TopicNameInvalid
            | ReasonCode::PacketTooLarge
            | ReasonCode::PayloadFormatInvalid
    )
}
