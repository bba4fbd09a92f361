//! A connection that is not taken: how it is counted, and how the log tells of it.
//!
//! Made where the way of a connection ends before CONNACK.

use std::net::SocketAddr;

use crate::{
    actors::Core,
    metrics::ConnectRefusal,
    mqtt::Connect,
    told::{Subject, Weight},
};

/// Why a connection is not taken.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) counted_as: ConnectRefusal,
    /// More about it, for the log.
    pub(super) why: Option<String>,
    /// It was not even looked at, because of failures before it.
    pub(super) is_locked_out: bool,
}

impl Refused {
    pub(super) const fn new(counted_as: ConnectRefusal) -> Self {
        Self { counted_as, why: None, is_locked_out: false }
    }

    pub(super) fn because(counted_as: ConnectRefusal, why: impl ToString) -> Self {
        Self { why: Some(why.to_string()), ..Self::new(counted_as) }
    }

    /// Puts it into the log; `answered` is what the client was told beside the code.
    pub(super) fn tell(&self, core: &Core, subject: &Subject<'_>, answered: Option<&str>) {
        let why = self.why.as_deref().or(answered);
        let (weight, reason) = match self.is_locked_out {
            true => (Weight::Warning, "locked_out"),
            false => (weight(self.counted_as), self.counted_as.name()),
        };
        core.told.connect_refused(subject, weight, reason, why);
    }
}

impl From<ConnectRefusal> for Refused {
    fn from(counted_as: ConnectRefusal) -> Self {
        Self::new(counted_as)
    }
}

/// A wrong password and the like happen. Limits, rules of the protocol and what is spoken before MQTT
/// are worth a look.
const fn weight(refusal: ConnectRefusal) -> Weight {
    match refusal {
        ConnectRefusal::BadCredentials
        | ConnectRefusal::NotAuthorized
        | ConnectRefusal::ProtocolVersion
        | ConnectRefusal::ClientIdentifier
        | ConnectRefusal::Overtaken
        | ConnectRefusal::Redirected
        | ConnectRefusal::Closed => Weight::Usual,
        ConnectRefusal::ConnectionsMax
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
        | ConnectRefusal::Store => Weight::Warning,
    }
}

/// What else is spoken, if it is one of those that come to the wrong port.
pub(super) fn other_protocol(bytes: &[u8]) -> Option<&'static str> {
    const METHODS: [&[u8]; 6] = [b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"CONN"];
    if METHODS.iter().any(|method| bytes.starts_with(method)) {
        Some("this is HTTP, and MQTT is spoken here")
    } else if bytes.starts_with(&[0x16, 0x03]) {
        Some("this is TLS, and MQTT without TLS is spoken here")
    } else {
        None
    }
}

/// Who sends a CONNECT, by what it says.
pub(super) fn subject<'a>(
    connect: &'a Connect<'_>,
    peer: SocketAddr,
    listener: &'a str,
) -> Subject<'a> {
    let client_id = Some(connect.client_id).filter(|client_id| !client_id.is_empty());
    Subject { peer, listener, client_id, user: connect.username }
}
