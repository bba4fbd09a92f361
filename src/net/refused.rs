//! Why a connection is refused before CONNACK: its metric and its log line.
//!
//! Created at the step of the connection's path where it fails.

use std::net::SocketAddr;

use crate::{
    metrics::ConnectRefusal,
    mqtt::Connect,
    shard::Core,
    told::{Severity, Subject, without_token},
};

/// Why a connection is refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) counted_as: ConnectRefusal,
    /// Details for the log.
    pub(super) why: Option<String>,
    /// The attempt was rejected without a check, because of earlier failures.
    pub(super) is_locked_out: bool,
}

impl Refused {
    pub(super) const fn new(counted_as: ConnectRefusal) -> Self {
        Self { counted_as, why: None, is_locked_out: false }
    }

    pub(super) fn because(counted_as: ConnectRefusal, why: impl ToString) -> Self {
        Self { why: Some(why.to_string()), ..Self::new(counted_as) }
    }

    /// Writes the refusal to the log, and announces it; `answered` is the Reason String that the client received.
    pub(super) fn tell(&self, core: &Core, subject: &Subject<'_>, answered: Option<&str>) {
        // The reason for the log is more exact than the one that the client received.
        let why = self.why.as_deref().or(answered);
        core.trace_refused(subject, self.counted_as.name());
        if self.is_locked_out {
            return core.told.attempt_not_checked(subject); // the lock-out was logged when it began
        }
        let (weight, reason) = (weight(self.counted_as), self.counted_as.name());
        core.told.connect_refused(subject, weight, reason, why);
        core.announce_refused(subject, reason);
    }
}

impl From<ConnectRefusal> for Refused {
    fn from(counted_as: ConnectRefusal) -> Self {
        Self::new(counted_as)
    }
}

/// Wrong passwords and similar refusals are usual. Limits, protocol violations and failures of the
/// layers below MQTT are logged as warnings.
const fn weight(refusal: ConnectRefusal) -> Severity {
    match refusal {
        ConnectRefusal::BadCredentials
        | ConnectRefusal::NotAuthorized
        | ConnectRefusal::Banned
        | ConnectRefusal::ProtocolVersion
        | ConnectRefusal::ClientIdentifier
        | ConnectRefusal::Overtaken
        | ConnectRefusal::Redirected
        | ConnectRefusal::ShuttingDown
        | ConnectRefusal::Closed => Severity::Usual,
        ConnectRefusal::CertificatePinsMax
        | ConnectRefusal::ConnectionsMax
        | ConnectRefusal::ConnectingMax
        | ConnectRefusal::ConnectionsPerAddressMax
        | ConnectRefusal::ConnectRate
        | ConnectRefusal::ConnectTimeout
        | ConnectRefusal::Malformed
        | ConnectRefusal::Tls
        | ConnectRefusal::WebSocket
        | ConnectRefusal::ProxyProtocol
        | ConnectRefusal::SessionsMax
        | ConnectRefusal::PacketTooLarge
        | ConnectRefusal::SessionsPerUserMax
        | ConnectRefusal::WillBytesMax
        | ConnectRefusal::WillBytesPerUserMax
        | ConnectRefusal::TooEarly
        | ConnectRefusal::IncompletePacketBytesMax
        | ConnectRefusal::AuthorizerUnavailable
        | ConnectRefusal::ClusterUnavailable
        | ConnectRefusal::Store => Severity::Warning,
    }
}

/// Names the protocol of a client that connects to the wrong port, if it is recognised.
pub(super) fn other_protocol(bytes: &[u8]) -> Option<&'static str> {
    const METHODS: [&[u8]; 6] = [b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"CONN"];
    if METHODS.iter().any(|method| bytes.starts_with(method)) {
        Some("the client speaks HTTP, but this listener expects MQTT")
    } else if bytes.starts_with(&[0x16, 0x03]) {
        Some("the client speaks TLS, but this listener expects MQTT without TLS")
    } else {
        None
    }
}

/// Returns the subject of a log line, from the fields of a CONNECT.
pub(super) fn subject<'a>(
    connect: &'a Connect<'_>,
    peer: SocketAddr,
    listener: &'a str,
) -> Subject<'a> {
    let client_id = Some(connect.client_id).filter(|client_id| !client_id.is_empty());
    let user = connect.username.map(without_token);
    Subject { peer, listener, client_id, user }
}
