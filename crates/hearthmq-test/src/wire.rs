//! Bytes as they are on the wire, valid and invalid: a dialogue uses no encoder and no decoder of
//! the library.

use std::time::Duration;

use hearthmq::{Broker, mqtt::ProtocolVersion};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    time::timeout,
};

use crate::{
    packets::{V3_1, V3_1_1, V5},
    stream,
};

/// Every version, the one before the OASIS Standards included.
pub const ALL_VERSIONS: [ProtocolVersion; 3] = [V3_1, V3_1_1, V5];

/// Strings that are not well-formed UTF-8: a surrogate of either kind, a pair of them, an overlong
/// form, half a character, more than U+10FFFF, and a byte that never occurs.
pub const ILL_FORMED: [&[u8]; 7] = [
    b"\xED\xA0\x80",
    b"\xED\xBF\xBF",
    b"\xED\xA0\xBD\xED\xB8\x80",
    b"\xC0\xAF",
    b"\xE2\x82",
    b"\xF4\x90\x80\x80",
    b"\xFF",
];

/// How long a client waits for what it expects.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that knows only bytes.
pub struct Wire<S = DuplexStream>(pub S);

impl Wire {
    pub fn open(broker: &Broker) -> Self {
        Self(stream(broker))
    }

    /// Returns a connection whose CONNECT was accepted, and the bytes of the CONNACK.
    pub async fn connected(broker: &Broker, connect: &[u8]) -> (Self, Vec<u8>) {
        let mut wire = Self::open(broker);
        wire.send(connect).await;
        let connack = wire.packet().await;
        let [0x20, _, _, code, ..] = connack[..] else {
            panic!("CONNACK expected, not {connack:02x?}")
        };
        assert_eq!(code, 0, "{connack:02x?}");
        (wire, connack)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Returns the next packet, from its first byte to its last.
    pub async fn packet(&mut self) -> Vec<u8> {
        let mut bytes = vec![self.byte().await];
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = self.byte().await;
            bytes.push(byte);
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let body = bytes.len();
        bytes.resize(body + length, 0);
        let read = timeout(PATIENCE, self.0.read_exact(&mut bytes[body..])).await;
        read.expect("the rest of a packet is expected").unwrap();
        bytes
    }

    async fn byte(&mut self) -> u8 {
        let read = timeout(PATIENCE, self.0.read_u8()).await;
        read.expect("a packet is expected, nothing came").expect("a packet is expected")
    }

    /// Expects these bytes.
    pub async fn expect(&mut self, expected: &[u8]) {
        let packet = self.packet().await;
        assert_eq!(packet, expected, "{packet:02x?} is not {expected:02x?}");
    }

    /// Sends PINGREQ, and expects its answer as the next packet: no other packet comes.
    pub async fn ping(&mut self) {
        self.send(b"\xC0\0").await;
        self.expect(b"\xD0\0").await;
    }

    /// Returns everything that comes until the connection is closed.
    pub async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // Closing a socket with unread bytes resets the connection, which is an end as well.
        let read = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await;
        let _ = read.expect("the connection is expected to be closed");
        rest
    }
}

/// Returns the answer to these first bytes before the connection is closed.
pub async fn answer(broker: &Broker, bytes: &[u8]) -> Vec<u8> {
    let mut wire = Wire::open(broker);
    wire.send(bytes).await;
    wire.rest().await
}

/// Returns a packet with this first byte, and a body of these parts.
pub fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let byte = (length % 0x80) as u8;
        length /= 0x80;
        bytes.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    [bytes, body].concat()
}

/// Returns the bytes with their length before them, as a string or as binary data.
pub fn prefixed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// Returns a Property Length of 0 if the version has properties.
pub const fn no_properties(version: ProtocolVersion) -> &'static [u8] {
    if version.has_properties() { b"\0" } else { b"" }
}

/// Returns a CONNECT with these Connect Flags and this payload, Keep Alive off and no properties.
pub fn raw_connect(version: ProtocolVersion, flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    raw_connect_with(version, flags, no_properties(version), payload)
}

/// Does the same with properties, their length included.
pub fn raw_connect_with(
    version: ProtocolVersion,
    flags: u8,
    properties: &[u8],
    payload: &[&[u8]],
) -> Vec<u8> {
    let (name, level): (&[u8], _) = match version {
        V3_1 => (b"MQIsdp", 3),
        V3_1_1 => (b"MQTT", 4),
        V5 => (b"MQTT", 5),
    };
    packet(0x10, &[&prefixed(name), &[level, flags, 0, 0], properties, &payload.concat()])
}

/// Returns a CONNECT of a clean session with this Client Identifier.
pub fn plain_connect(version: ProtocolVersion, client_id: &str) -> Vec<u8> {
    raw_connect(version, CLEAN, &[&prefixed(client_id.as_bytes())])
}

/// Connect Flags.
pub const CLEAN: u8 = 0x02;
pub const WILL: u8 = 0x04;
pub const WILL_RETAIN: u8 = 0x20;
pub const PASSWORD: u8 = 0x40;
pub const USER_NAME: u8 = 0x80;
