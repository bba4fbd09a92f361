//! Why a connection of a bridge did not begin, or ended.

use std::fmt::Display;

use crate::{
    mqtt::{DecodeError, ReasonCode},
    told,
};

/// The kinds of faults of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TroubleKind {
    /// The name or the address cannot be reached.
    Unreachable,
    /// The TLS handshake failed.
    Tls,
    /// No CONNACK came in time.
    Timeout,
    /// The other broker refused CONNECT.
    ConnectRefused,
    /// The other broker closed the connection.
    Closed,
    /// Nothing came from the other broker for one and a half Keep Alives.
    KeepAlive,
    /// The other broker broke a rule of MQTT.
    ProtocolError,
    /// The other broker refused a subscription.
    SubscribeRefused,
    /// One side refused a message that it may take later.
    MessageRefused,
    /// The session in this broker cannot begin.
    LocalRefused,
    /// The connection of the session in this broker was ended.
    Kicked,
}

impl TroubleKind {
    /// Returns the name for callers and log lines.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::ConnectRefused => "connect_refused",
            Self::Closed => "closed",
            Self::KeepAlive => "keep_alive",
            Self::ProtocolError => "protocol_error",
            Self::SubscribeRefused => "subscribe_refused",
            Self::MessageRefused => "message_refused",
            Self::LocalRefused => "local_refused",
            Self::Kicked => "kicked",
        }
    }
}

/// A fault, in words for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BridgeTrouble {
    pub(crate) code: TroubleKind,
    pub(crate) message: Box<str>,
}

impl BridgeTrouble {
    pub(crate) fn new(code: TroubleKind, why: impl Display) -> Self {
        let text = why.to_string();
        Self { code, message: (&*told::cut(&text)).into() }
    }

    /// Returns the fault of the other broker for bytes that are not a valid packet.
    pub(super) fn malformed(error: &DecodeError) -> Self {
        Self::new(TroubleKind::ProtocolError, error)
    }

    /// Returns the fault of a Reason Code.
    pub(super) fn of_reason(code: TroubleKind, what: &str, reason: ReasonCode) -> Self {
        Self::new(code, format_args!("{what}: {reason:?} (0x{:02X})", reason.number()))
    }
}
