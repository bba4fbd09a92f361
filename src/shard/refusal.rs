//! The refusal of a CONNECT, in the terms of its version.
//!
//! Called where CONNECT is read and where its session is looked up; knows neither.

use std::sync::Arc;

use crate::{
    control::Redirection,
    metrics::ConnectRefusal,
    mqtt::{ConnAck, ConnAckProperties, Packet, ProtocolVersion, ReasonCode, encode_within},
};

/// The answer to a client that is refused.
#[derive(Clone, Debug)]
pub(crate) struct RefusalAnswer {
    pub(crate) version: ProtocolVersion,
    pub(crate) reason: ReasonCode,
    /// Reason String.
    pub(crate) why: Option<&'static str>,
    pub(crate) redirection: Option<Arc<Redirection>>,
    /// Maximum Packet Size of the client.
    pub(crate) packet_bytes_max: u32,
}

impl RefusalAnswer {
    pub(crate) const fn new(version: ProtocolVersion, reason: ReasonCode) -> Self {
        Self { version, reason, why: None, redirection: None, packet_bytes_max: u32::MAX }
    }

    /// Returns the answer to a client that should use another server. MQTT 3 clients get Server
    /// unavailable.
    pub(crate) fn redirecting(version: ProtocolVersion, to: Arc<Redirection>) -> Self {
        Self { redirection: Some(to.clone()), ..Self::new(version, reason_of(&to)) }
    }

    /// Returns the CONNACK, or nothing if it exceeds the client's Maximum Packet Size.
    /// [MQTT-3.1.2-24]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let references = [self.redirection.as_ref().map(|to| &**to.server_reference()), None];
        let mut bytes = Vec::new();
        // A redirection without its reference is better than none.
        for server_reference in references {
            let reason_string = self.why; // left out where it makes the packet too large
            let properties =
                ConnAckProperties { reason_string, server_reference, ..Default::default() };
            let ack = ConnAck { session_present: false, reason: self.reason, properties }; // [MQTT-3.2.2-6]
            let packet = Packet::ConnAck(Box::new(ack));
            let said = encode_within(&packet, self.version, self.packet_bytes_max, &mut bytes);
            debug_assert!(said.is_ok(), "a refusal can be said");
            if said == Ok(true) {
                break;
            }
        }
        bytes
    }
}

/// Why an accepted CONNECT gets no session.
#[derive(Clone, Debug)]
pub(crate) enum NoSession {
    /// The number of sessions has reached its limit.
    Full,
    /// The user's sessions have reached their limit.
    UserFull,
    /// All Wills together have reached their limit.
    WillsFull,
    /// The Wills of the user have reached their limit.
    UserWillsFull,
    /// There was no room for what the client sent, and it must wait before it connects again.
    TooEarly,
    /// The store cannot be written, and this session needs it.
    Store,
    /// CONNACK is larger than the client's Maximum Packet Size.
    ConnAckTooLarge,
    /// The client's permissions were read again after the client was accepted, and changed.
    NotAuthorized,
    /// The client, its user or its address is banned, or it connects too often.
    Banned,
    /// Permissions were read again after they were loaded for the client. The client may try again.
    Unprepared,
    /// A later connection of the same client has overtaken this one.
    Overtaken,
    /// Another node has taken the client over, or this node has lost its leases.
    NotOwned,
    /// The broker has begun to redirect clients to another server.
    Redirected(Arc<Redirection>),
    /// The broker has begun to shut down.
    ShuttingDown,
}

impl NoSession {
    pub(crate) const fn counted_as(&self) -> ConnectRefusal {
        match self {
            Self::Full => ConnectRefusal::SessionsMax,
            Self::UserFull => ConnectRefusal::SessionsPerUserMax,
            Self::WillsFull => ConnectRefusal::WillBytesMax,
            Self::UserWillsFull => ConnectRefusal::WillBytesPerUserMax,
            Self::TooEarly => ConnectRefusal::TooEarly,
            Self::Store => ConnectRefusal::Store,
            Self::ConnAckTooLarge => ConnectRefusal::PacketTooLarge,
            Self::NotAuthorized => ConnectRefusal::NotAuthorized,
            Self::Banned => ConnectRefusal::Banned,
            Self::Unprepared => ConnectRefusal::AuthorizerUnavailable,
            Self::Overtaken => ConnectRefusal::Overtaken,
            Self::NotOwned => ConnectRefusal::ClusterUnavailable,
            Self::Redirected(_) => ConnectRefusal::Redirected,
            Self::ShuttingDown => ConnectRefusal::ShuttingDown,
        }
    }

    /// Returns the CONNACK of this refusal.
    pub(crate) fn conn_ack(&self, version: ProtocolVersion, packet_bytes_max: u32) -> Vec<u8> {
        let limit_is_reached = |why| RefusalAnswer {
            why: Some(why),
            ..RefusalAnswer::new(version, ReasonCode::QuotaExceeded)
        };
        let answer = match self {
            Self::Full => limit_is_reached("limit on sessions is reached"),
            Self::UserFull => limit_is_reached("limit on sessions of one user is reached"),
            Self::WillsFull => limit_is_reached("limit on wills is reached"),
            Self::UserWillsFull => limit_is_reached("limit on wills of one user is reached"),
            Self::TooEarly => RefusalAnswer {
                why: Some("there was no room for what was sent; wait longer"),
                ..RefusalAnswer::new(version, ReasonCode::ConnectionRateExceeded)
            },
            // CONNACK has no reason code for the end of a broker.
            Self::Store | Self::Unprepared | Self::NotOwned | Self::ShuttingDown => {
                RefusalAnswer::new(version, ReasonCode::ServerUnavailable)
            }
            Self::ConnAckTooLarge => RefusalAnswer::new(version, ReasonCode::PacketTooLarge),
            Self::NotAuthorized => RefusalAnswer::new(version, ReasonCode::NotAuthorized),
            Self::Banned => RefusalAnswer::new(version, ReasonCode::Banned),
            // DISCONNECT 0x8E may only follow a CONNACK that accepts. [MQTT-3.14.0-1]
            Self::Overtaken => RefusalAnswer {
                why: Some("a later connection with this client identifier has the session"),
                ..RefusalAnswer::new(version, ReasonCode::ServerBusy)
            },
            Self::Redirected(to) => RefusalAnswer::redirecting(version, to.clone()),
        };
        RefusalAnswer { packet_bytes_max, ..answer }.encode()
    }
}

/// Returns the MQTT 5.0 reason code of a redirection; older versions get Server unavailable.
pub(crate) const fn reason_of(to: &Redirection) -> ReasonCode {
    if to.is_permanent() { ReasonCode::ServerMoved } else { ReasonCode::UseAnotherServer }
}
