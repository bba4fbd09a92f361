//! Decodes the packet at the start of a buffer.
//!
//! Total: any bytes give a packet, a request for more bytes, or an error that names the violated
//! rule. The decoder checks everything that is visible in one packet. The session checks what
//! depends on the sender (a Subscription Identifier from a client), on earlier packets (a second
//! CONNECT) or on the syntax of a Topic Filter. Called by every reader of a connection.

mod connect;
mod disconnect;
mod properties;
mod publish;
mod subscribe;

use super::wire::{PacketType, Reader, VariableByteInteger};
use super::{DecodeError, DecodeErrorKind, Packet, ProtocolVersion, ReasonCode};

/// Limits on packets, beyond those of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Maximum size of a packet. A larger packet is an error as soon as its length has arrived.
    pub packet_bytes_max: u32,
    /// Maximum length of a Topic Name, Will Topic or Topic Filter.
    pub topic_bytes_max: u16,
    /// Maximum number of levels in a Topic Name, Will Topic or Topic Filter: one more than its `/`.
    pub topic_levels_max: u16,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { packet_bytes_max: 1_048_576, topic_bytes_max: 1024, topic_levels_max: 128 }
    }
}

/// The content at the start of a buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded<'a> {
    /// A packet.
    Packet {
        /// The packet, which borrows from the buffer.
        packet: Packet<'a>,
        /// Its length in bytes.
        length: usize,
    },
    /// An incomplete packet.
    More {
        /// Number of bytes, from the start of the buffer, that are known to be needed. Once the
        /// Remaining Length has arrived, this is the size of the packet.
        at_least: usize,
    },
}

/// Decodes the packet at the start of `bytes` on a connection that uses `version`.
///
/// A CONNECT is decoded in the version that it names itself.
///
/// # Errors
/// The packet is invalid. The connection must then be closed. [MQTT-4.13.1-1]
#[inline]
pub fn decode<'a>(
    bytes: &'a [u8],
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Decoded<'a>, DecodeError> {
    let Some(&first) = bytes.first() else {
        return Ok(Decoded::More { at_least: HEADER_BYTES_MIN });
    };
    // The first byte is judged before the length is complete: a wrong client is refused early.
    let packet_type = PacketType::of_first_byte(first, version)?;
    if packet_type == PacketType::Publish {
        publish::check_flags(first, version)?;
    }
    let frame = match WholePacket::find(bytes, limits)? {
        Ok(frame) => frame,
        Err(at_least) => return Ok(Decoded::More { at_least }),
    };
    // Only MQTT 5.0 requires the shortest form of the length. [MQTT-1.5.5-1]
    if version.has_properties() {
        frame.check_minimal()?;
    }
    let length = frame.length;
    let packet = decode_body(packet_type, first, &frame, version, limits)?;
    Ok(Decoded::Packet { packet, length })
}

/// Decodes the first packet of a connection, which must be a CONNECT. [MQTT-3.1.0-1]
///
/// # Errors
/// The packet is invalid. [`refusal_version`] returns the version for the answer.
pub fn decode_connect<'a>(
    bytes: &'a [u8],
    limits: &DecodeLimits,
) -> Result<Decoded<'a>, DecodeError> {
    if bytes.first().is_some_and(|&first| first >> 4 != PacketType::Connect as u8) {
        return Err(DecodeError::new(DecodeErrorKind::NotConnect, "MQTT-3.1.0-1"));
    }
    // The version matters only for the flags of the first byte.
    let may_be_v3_1 = connect::may_be_v3_1(bytes);
    let version = if may_be_v3_1 { ProtocolVersion::V3_1 } else { ProtocolVersion::V3_1_1 };
    decode(bytes, version, limits)
}

/// Returns the length of the packet at the start of `bytes` if it is complete, judging by its header
/// alone.
#[must_use]
pub fn whole_length(bytes: &[u8]) -> Option<usize> {
    match VariableByteInteger::read(bytes.get(1..).unwrap_or_default()) {
        VariableByteInteger::Whole { value, length, .. } => {
            let whole = 1 + length + value as usize;
            (bytes.len() >= whole).then_some(whole)
        }
        VariableByteInteger::More | VariableByteInteger::TooLong => None,
    }
}

/// Returns the version in which to answer a CONNECT that could not be decoded.
///
/// For an unsupported level this is MQTT 5.0 if the level is higher than supported, so that the
/// client receives 0x84, and MQTT 3.1.1 if it is lower or has a bridge's bit 0x80, so that the
/// client receives 0x01. `None` if the bytes are not a CONNECT; then do not answer.
#[must_use]
pub fn refusal_version(bytes: &[u8]) -> Option<ProtocolVersion> {
    // Only a CONNECT is answered before the version is known. [MQTT-3.1.0-1]
    if bytes.first()? >> 4 != PacketType::Connect as u8 {
        return None;
    }
    let VariableByteInteger::Whole { length, .. } = VariableByteInteger::read(bytes.get(1..)?)
    else {
        return None;
    };
    // The body need not be complete: name and level are its first fields.
    let mut body = Reader::new(bytes.get(1 + length..)?);
    match (body.binary().ok()?, body.u8().ok()?) {
        (b"MQIsdp", 3 | 0x83) => Some(ProtocolVersion::V3_1),
        (b"MQTT", 5..0x80) => Some(ProtocolVersion::V5),
        (b"MQTT" | b"MQIsdp", _) => Some(ProtocolVersion::V3_1_1),
        _ => None,
    }
}

/// The shortest packet: one byte of type and flags, one of Remaining Length.
const HEADER_BYTES_MIN: usize = 2;

/// A complete packet in a buffer.
struct WholePacket<'a> {
    /// Variable Header and Payload.
    body: &'a [u8],
    /// Length of fixed header and body.
    length: usize,
    /// Whether Remaining Length is encoded in the minimum number of bytes.
    is_minimal: bool,
}

impl<'a> WholePacket<'a> {
    /// Returns the frame at the start of `bytes`, or the number of bytes needed to continue.
    #[inline]
    fn find(bytes: &'a [u8], limits: &DecodeLimits) -> Result<Result<Self, usize>, DecodeError> {
        let (remaining, header_len, is_minimal) = match VariableByteInteger::read(&bytes[1..]) {
            VariableByteInteger::Whole { value, length, is_minimal } => {
                (value as usize, 1 + length, is_minimal)
            }
            // At least one more byte of the length is missing.
            VariableByteInteger::More => return Ok(Err(bytes.len() + 1)),
            VariableByteInteger::TooLong => {
                let kind = DecodeErrorKind::VariableByteInteger;
                return Err(DecodeError::new(kind, "section 2.1.4"));
            }
        };
        let length = header_len + remaining;
        // Judged by the length, so that a packet which is too large is never buffered.
        if length > limits.packet_bytes_max as usize {
            return Err(DecodeError::new(DecodeErrorKind::PacketTooLarge, "MQTT-3.2.2-15"));
        }
        match bytes.get(header_len..length) {
            Some(body) => Ok(Ok(Self { body, length, is_minimal })),
            None => Ok(Err(length)),
        }
    }

    /// Checks that Remaining Length has no needless bytes, which only MQTT 5.0 demands.
    #[inline]
    const fn check_minimal(&self) -> Result<(), DecodeError> {
        if self.is_minimal {
            return Ok(());
        }
        Err(DecodeError::new(DecodeErrorKind::VariableByteInteger, "MQTT-1.5.5-1"))
    }
}

#[inline]
fn decode_body<'a>(
    packet_type: PacketType,
    first: u8,
    frame: &WholePacket<'a>,
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Packet<'a>, DecodeError> {
    let body = frame.body;
    Ok(match packet_type {
        PacketType::Connect => {
            let connect = connect::decode(body, limits)?;
            // CONNECT names its version itself, so the check above did not know it.
            if connect.version.has_properties() {
                frame.check_minimal()?;
            }
            Packet::Connect(Box::new(connect))
        }
        PacketType::ConnAck => Packet::ConnAck(Box::new(connect::decode_ack(body, version)?)),
        PacketType::Publish => Packet::Publish(publish::decode(first, body, version, limits)?),
        PacketType::PubAck => Packet::PubAck(publish::decode_ack(body, version, "MQTT-3.4.2-1")?),
        PacketType::PubRec => Packet::PubRec(publish::decode_ack(body, version, "MQTT-3.5.2-1")?),
        PacketType::PubRel => {
            Packet::PubRel(publish::decode_release(body, version, "MQTT-3.6.2-1")?)
        }
        PacketType::PubComp => {
            Packet::PubComp(publish::decode_release(body, version, "MQTT-3.7.2-1")?)
        }
        PacketType::Subscribe => {
            Packet::Subscribe(subscribe::decode_subscribe(body, version, limits)?)
        }
        PacketType::SubAck => Packet::SubAck(subscribe::decode_suback(body, version)?),
        PacketType::Unsubscribe => {
            Packet::Unsubscribe(subscribe::decode_unsubscribe(body, version, limits)?)
        }
        PacketType::UnsubAck => Packet::UnsubAck(subscribe::decode_unsuback(body, version)?),
        PacketType::PingReq => Reader::new(body).finish().map(|()| Packet::PingReq)?,
        PacketType::PingResp => Reader::new(body).finish().map(|()| Packet::PingResp)?,
        PacketType::Disconnect => Packet::Disconnect(disconnect::decode(body, version)?),
        PacketType::Auth => Packet::Auth(disconnect::decode_auth(body)?),
    })
}

/// Returns the Reason Code of `number` if it is one of `allowed`; `clause` is the rule otherwise
/// violated.
fn reason_code(
    number: u8,
    allowed: &[ReasonCode],
    clause: &'static str,
) -> Result<ReasonCode, DecodeError> {
    ReasonCode::from_number(number)
        .filter(|reason| allowed.contains(reason))
        .ok_or_else(|| DecodeError::new(DecodeErrorKind::ReasonCode { number }, clause))
}

/// Reads a Topic Filter and checks its limits, but not its syntax.
fn topic_filter<'a>(body: &mut Reader<'a>, limits: &DecodeLimits) -> Result<&'a str, DecodeError> {
    let filter = body.utf8()?;
    let (levels, holds_null) = scan_levels(filter.as_bytes(), |byte| byte == b'\0');
    if holds_null {
        return Err(super::wire::null_character());
    }
    if filter.len() > usize::from(limits.topic_bytes_max)
        || levels > usize::from(limits.topic_levels_max)
    {
        return Err(DecodeError::new(DecodeErrorKind::TopicFilterLimit, "section 4.7.3"));
    }
    Ok(filter)
}

/// Reads a Topic Name, which may be empty, and checks its limits.
#[inline]
fn topic_name<'a>(body: &mut Reader<'a>, limits: &DecodeLimits) -> Result<&'a str, DecodeError> {
    let topic = body.utf8()?;
    let no_name = |byte| (byte == b'+') | (byte == b'#') | (byte == b'\0');
    let (levels, is_no_name) = scan_levels(topic.as_bytes(), no_name);
    if !is_no_name
        && topic.len() <= usize::from(limits.topic_bytes_max)
        && levels <= usize::from(limits.topic_levels_max)
    {
        return Ok(topic);
    }
    Err(topic_name_error(topic))
}

/// Returns the number of levels, and whether a forbidden byte occurs.
///
/// This is most of the cost of decoding a short PUBLISH. Without branches, and in chunks small
/// enough to count in one byte, it compiles to a few vector instructions: 28 ns a packet instead of
/// 47.
#[inline]
fn scan_levels(topic: &[u8], is_forbidden: impl Fn(u8) -> bool) -> (usize, bool) {
    let (mut slashes, mut forbidden) = (0, false);
    for chunk in topic.chunks(128) {
        let (mut slashes_here, mut forbidden_here) = (0_u8, false);
        for &byte in chunk {
            slashes_here += u8::from(byte == b'/');
            forbidden_here |= is_forbidden(byte);
        }
        slashes += usize::from(slashes_here);
        forbidden |= forbidden_here;
    }
    (1 + slashes, forbidden)
}

#[cold]
fn topic_name_error(topic: &str) -> DecodeError {
    if topic.contains('\0') {
        super::wire::null_character()
    } else if topic.contains(['+', '#']) {
        DecodeError::new(DecodeErrorKind::TopicNameWildcard, "MQTT-3.3.2-2")
    } else {
        DecodeError::new(DecodeErrorKind::TopicNameLimit, "section 4.7.3")
    }
}
