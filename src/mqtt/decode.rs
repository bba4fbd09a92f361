//! Bytes to packets: finds the packet at the start of a buffer and has its fields read.
//!
//! Total: any bytes give a packet, the wish for more of them, or an error that names the rule
//! that they break. Checked is whatever a packet alone can tell. What depends on who sends it
//! (a Subscription Identifier from a client), on the session (a second CONNECT) or on the shape
//! of a Topic Filter is the session's to judge. Called by whoever reads from a connection.

mod connect;
mod disconnect;
mod properties;
mod publish;
mod subscribe;

use super::wire::{PacketType, Reader, VariableByteInteger};
use super::{DecodeError, DecodeErrorKind, Packet, ProtocolVersion, ReasonCode};

/// What a packet may be, beyond what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Of a whole packet. A longer one is an error as soon as its length has arrived.
    pub packet_bytes_max: u32,
    /// Of a Topic Name, Will Topic or Topic Filter.
    pub topic_bytes_max: u16,
    /// Of a Topic Name, Will Topic or Topic Filter: one more than its `/`.
    pub topic_levels_max: u16,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { packet_bytes_max: 1_048_576, topic_bytes_max: 1024, topic_levels_max: 128 }
    }
}

/// What is at the start of a buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded<'a> {
    /// A packet.
    Packet {
        /// It borrows from the buffer.
        packet: Packet<'a>,
        /// How many bytes of the buffer it takes.
        length: usize,
    },
    /// The beginning of a packet.
    More {
        /// How many bytes, from the start of the buffer, are known to be needed: those of the
        /// whole packet once its Remaining Length has arrived.
        at_least: usize,
    },
}

/// Decodes the packet at the start of `bytes` on a connection that speaks `version`.
///
/// A CONNECT is decoded in the version that it names itself.
///
/// # Errors
/// What is wrong with the packet. The connection is of no use afterwards. [MQTT-4.13.1-1]
#[inline]
pub fn decode<'a>(
    bytes: &'a [u8],
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Decoded<'a>, DecodeError> {
    let Some(&first) = bytes.first() else {
        return Ok(Decoded::More { at_least: HEADER_BYTES_MIN });
    };
    let packet_type = PacketType::of_first_byte(first, version)?;
    if packet_type == PacketType::Publish {
        publish::check_flags(first, version)?;
    }
    let frame = match Frame::find(bytes, limits)? {
        Ok(frame) => frame,
        Err(at_least) => return Ok(Decoded::More { at_least }),
    };
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
/// What is wrong with the packet. [`refusal_version`] tells in which version it may be answered.
pub fn decode_connect<'a>(
    bytes: &'a [u8],
    limits: &DecodeLimits,
) -> Result<Decoded<'a>, DecodeError> {
    if bytes.first().is_some_and(|&first| first >> 4 != PacketType::Connect as u8) {
        return Err(DecodeError::new(DecodeErrorKind::NotConnect, "MQTT-3.1.0-1"));
    }
    // The version decides on the flags of the first byte alone.
    let may_be_v3_1 = connect::may_be_v3_1(bytes);
    let version = if may_be_v3_1 { ProtocolVersion::V3_1 } else { ProtocolVersion::V3_1_1 };
    decode(bytes, version, limits)
}

/// Whether the packet at the start of `bytes` has come as a whole, so far as its length tells.
#[must_use]
pub fn is_whole(bytes: &[u8]) -> bool {
    match VariableByteInteger::read(bytes.get(1..).unwrap_or_default()) {
        VariableByteInteger::Whole { value, length, .. } => bytes.len() > length + value as usize,
        VariableByteInteger::More | VariableByteInteger::TooLong => false,
    }
}

/// The version in which to answer a CONNECT that did not decode, by what is readable of it.
///
/// A level that is not supported is answered in MQTT 5.0 if it is higher, so that its sender is
/// told 0x84, and in MQTT 3.1.1 if it is lower, or has a bridge's bit 0x80 added, which are told
/// 0x01. `None` where the bytes are not those of a CONNECT: best not answered at all.
#[must_use]
pub fn refusal_version(bytes: &[u8]) -> Option<ProtocolVersion> {
    if bytes.first()? >> 4 != PacketType::Connect as u8 {
        return None;
    }
    let VariableByteInteger::Whole { length, .. } = VariableByteInteger::read(bytes.get(1..)?)
    else {
        return None;
    };
    let mut body = Reader::new(bytes.get(1 + length..)?);
    match (body.binary().ok()?, body.u8().ok()?) {
        (b"MQIsdp", 3 | 0x83) => Some(ProtocolVersion::V3_1),
        (b"MQTT", 5..0x80) => Some(ProtocolVersion::V5),
        (b"MQTT" | b"MQIsdp", _) => Some(ProtocolVersion::V3_1_1),
        _ => None,
    }
}

/// The shortest packet: type, flags and a Remaining Length of one byte.
const HEADER_BYTES_MIN: usize = 2;

/// A whole packet in a buffer.
struct Frame<'a> {
    /// Variable Header and Payload.
    body: &'a [u8],
    /// Of the fixed header and the body.
    length: usize,
    /// Whether Remaining Length takes no more bytes than it needs.
    is_minimal: bool,
}

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes`, or how many bytes are needed to go on.
    #[inline]
    fn find(bytes: &'a [u8], limits: &DecodeLimits) -> Result<Result<Self, usize>, DecodeError> {
        let (remaining, header_len, is_minimal) = match VariableByteInteger::read(&bytes[1..]) {
            VariableByteInteger::Whole { value, length, is_minimal } => {
                (value as usize, 1 + length, is_minimal)
            }
            VariableByteInteger::More => return Ok(Err(bytes.len() + 1)),
            VariableByteInteger::TooLong => {
                let kind = DecodeErrorKind::VariableByteInteger;
                return Err(DecodeError::new(kind, "section 2.1.4"));
            }
        };
        let length = header_len + remaining;
        if length > limits.packet_bytes_max as usize {
            return Err(DecodeError::new(DecodeErrorKind::PacketTooLarge, "MQTT-3.2.2-15"));
        }
        match bytes.get(header_len..length) {
            Some(body) => Ok(Ok(Self { body, length, is_minimal })),
            None => Ok(Err(length)),
        }
    }

    /// MQTT 5.0 alone demands it.
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
    frame: &Frame<'a>,
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Packet<'a>, DecodeError> {
    let body = frame.body;
    Ok(match packet_type {
        PacketType::Connect => {
            let connect = connect::decode(body, limits)?;
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

/// The Reason Code of `number` if it is one of `allowed`; `clause` says that it must be.
fn reason_code(
    number: u8,
    allowed: &[ReasonCode],
    clause: &'static str,
) -> Result<ReasonCode, DecodeError> {
    ReasonCode::from_number(number)
        .filter(|reason| allowed.contains(reason))
        .ok_or_else(|| DecodeError::new(DecodeErrorKind::ReasonCode { number }, clause))
}

/// A Topic Filter within the limits. Its shape is not looked at.
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

/// A Topic Name within the limits, perhaps empty.
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

/// How many levels there are, and whether a byte is among them that must not be.
///
/// Most of what decoding a short PUBLISH costs. In chunks so short that a byte holds their count,
/// and without a branch, it becomes a few vector instructions: 28 ns a packet in place of 47.
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
