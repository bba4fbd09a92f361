//! Data representation (section 1.5): reads integers, strings and binary data, and defines the
//! numbers of packet types and properties.
//!
//! Knows no packet's layout. Used by the decoder, the encoder and the properties.

use super::{DecodeError, DecodeErrorKind, PacketId, ProtocolVersion};

/// The largest Variable Byte Integer, and so the largest Remaining Length (section 1.5.5).
pub(super) const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

/// Control Packet types by number (section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// Returns the packet type in the first byte and checks the reserved flags.
    #[inline]
    pub(super) const fn of_first_byte(
        first: u8,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_type = match first >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            // The flags of PUBLISH have a meaning of their own, and are checked there.
            3 => return Ok(Self::Publish),
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 if version.has_properties() => Self::Auth,
            _ => {
                let kind = DecodeErrorKind::ReservedPacketType;
                return Err(DecodeError::new(kind, "section 2.1.2"));
            }
        };
        // MQTT 3.1 does not use these flags, or sets DUP on a repetition, and reserves no value.
        if first != packet_type.first_byte() && !matches!(version, ProtocolVersion::V3_1) {
            return Err(DecodeError::new(DecodeErrorKind::FixedHeaderFlags, "MQTT-2.1.3-1"));
        }
        Ok(packet_type)
    }

    /// Returns type and reserved flags. [MQTT-2.1.3-1]
    #[inline]
    pub(super) const fn first_byte(self) -> u8 {
        let flags = match self {
            // [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            Self::Connect
            | Self::ConnAck
            | Self::Publish
            | Self::PubAck
            | Self::PubRec
            | Self::PubComp
            | Self::SubAck
            | Self::UnsubAck
            | Self::PingReq
            | Self::PingResp
            | Self::Disconnect
            | Self::Auth => 0,
        };
        (self as u8) << 4 | flags
    }
}

/// Property Identifiers (section 2.2.2.2). All are below 128, so each is one byte as a Variable
/// Byte Integer.
pub(super) mod identifier {
    pub(in crate::mqtt) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub(in crate::mqtt) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub(in crate::mqtt) const CONTENT_TYPE: u8 = 0x03;
    pub(in crate::mqtt) const RESPONSE_TOPIC: u8 = 0x08;
    pub(in crate::mqtt) const CORRELATION_DATA: u8 = 0x09;
    pub(in crate::mqtt) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub(in crate::mqtt) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub(in crate::mqtt) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub(in crate::mqtt) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(in crate::mqtt) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(in crate::mqtt) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(in crate::mqtt) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(in crate::mqtt) const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub(in crate::mqtt) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(in crate::mqtt) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(in crate::mqtt) const SERVER_REFERENCE: u8 = 0x1C;
    pub(in crate::mqtt) const REASON_STRING: u8 = 0x1F;
    pub(in crate::mqtt) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(in crate::mqtt) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(in crate::mqtt) const TOPIC_ALIAS: u8 = 0x23;
    pub(in crate::mqtt) const MAXIMUM_QOS: u8 = 0x24;
    pub(in crate::mqtt) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(in crate::mqtt) const USER_PROPERTY: u8 = 0x26;
    pub(in crate::mqtt) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(in crate::mqtt) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(in crate::mqtt) const SUBSCRIPTION_IDENTIFIERS_AVAILABLE: u8 = 0x29;
    pub(in crate::mqtt) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// A Variable Byte Integer at the start of bytes that may be incomplete (section 1.5.5).
pub(super) enum VariableByteInteger {
    /// A complete integer: its value, its length in bytes, and whether the encoding is minimal.
    Whole { value: u32, length: usize, is_minimal: bool },
    /// The integer is incomplete.
    More,
    /// The integer has more than four bytes.
    TooLong,
}

impl VariableByteInteger {
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut value = 0;
        for (index, &byte) in bytes.iter().take(4).enumerate() {
            value |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                let is_minimal = byte != 0 || index == 0;
                return Self::Whole { value, length: index + 1, is_minimal };
            }
        }
        if bytes.len() < 4 { Self::More } else { Self::TooLong }
    }

    /// Returns the number of bytes for `value`.
    #[inline]
    pub(super) const fn length_of(value: usize) -> usize {
        match value {
            0..=0x7F => 1,
            0x80..=0x3FFF => 2,
            0x4000..=0x1F_FFFF => 3,
            _ => 4,
        }
    }

    /// Returns the encoding of `value`, and how many of the four bytes it uses.
    #[inline]
    pub(super) const fn encode(mut value: usize) -> ([u8; 4], usize) {
        debug_assert!(value <= VARIABLE_BYTE_INTEGER_MAX as usize);
        let mut bytes = [0; 4];
        let mut length = 0;
        loop {
            bytes[length] = (value & 0x7F) as u8;
            value >>= 7;
            if value == 0 || length == 3 {
                return (bytes, length + 1);
            }
            bytes[length] |= 0x80;
            length += 1;
        }
    }
}

/// Reads the body of a packet field by field.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns the number of remaining bytes.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.rest.len()
    }

    /// Returns all remaining bytes.
    #[inline]
    pub(super) const fn into_rest(self) -> &'a [u8] {
        self.rest
    }

    /// Checks that no bytes remain.
    pub(super) const fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::new(DecodeErrorKind::TrailingBytes, "MQTT-4.13.1-1"))
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else {
            return Err(truncated());
        };
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Reads a Variable Byte Integer (section 1.5.5).
    #[inline]
    pub(super) fn variable_byte_integer(&mut self) -> Result<u32, DecodeError> {
        let malformed = |clause| DecodeError::new(DecodeErrorKind::VariableByteInteger, clause);
        match VariableByteInteger::read(self.rest) {
            VariableByteInteger::Whole { value, length, is_minimal } => {
                if !is_minimal {
                    return Err(malformed("MQTT-1.5.5-1"));
                }
                self.rest = &self.rest[length..];
                Ok(value)
            }
            VariableByteInteger::More => Err(truncated()),
            VariableByteInteger::TooLong => Err(malformed("section 1.5.5")),
        }
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let Some((bytes, rest)) = self.rest.split_at_checked(length) else {
            return Err(truncated());
        };
        self.rest = rest;
        Ok(bytes)
    }

    /// Reads Binary Data (section 1.5.6).
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// Reads a UTF-8 Encoded String. The caller must check for the null character.
    #[inline]
    pub(super) fn utf8(&mut self) -> Result<&'a str, DecodeError> {
        // The standard library rejects surrogates and keeps a byte order mark as a character.
        // [MQTT-1.5.4-1] [MQTT-1.5.4-3]
        str::from_utf8(self.binary()?)
            .map_err(|_| DecodeError::new(DecodeErrorKind::InvalidUtf8, "MQTT-1.5.4-1"))
    }

    /// Reads a UTF-8 Encoded String (section 1.5.4).
    #[inline]
    pub(super) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let string = self.utf8()?;
        if string.as_bytes().contains(&0) {
            return Err(null_character());
        }
        Ok(string)
    }

    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?)
            .ok_or_else(|| DecodeError::new(DecodeErrorKind::PacketIdZero, "MQTT-2.2.1-3"))
    }
}

#[cold]
const fn truncated() -> DecodeError {
    DecodeError::new(DecodeErrorKind::Truncated, "MQTT-4.13.1-1")
}

#[cold]
pub(super) const fn null_character() -> DecodeError {
    DecodeError::new(DecodeErrorKind::NullCharacter, "MQTT-1.5.4-2")
}
