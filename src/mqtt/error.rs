//! What can be wrong with a packet, read or written, and the Reason Code that says so.
//!
//! An error does not know what becomes of the connection: the session decides whether the other
//! side is told before the connection ends. Made by the decoder and the encoder only.

use super::ReasonCode;

/// Why bytes are not a packet.
///
/// The clause is a conformance statement of MQTT 5.0 (`MQTT-1.5.4-1`) where there is one, else
/// the section that has the rule. Rules that only an older version has say so (`3.1.1 MQTT-…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} ({clause})")]
pub struct DecodeError {
    /// What was found.
    pub kind: DecodeErrorKind,
    /// The rule that it breaks.
    pub clause: &'static str,
}

impl DecodeError {
    /// Out of line, so that decoding what is right stays small.
    #[cold]
    pub(super) const fn new(kind: DecodeErrorKind, clause: &'static str) -> Self {
        Self { kind, clause }
    }

    /// The Reason Code for a CONNACK, if it was the CONNECT, or else for a DISCONNECT.
    #[must_use]
    pub const fn reason(&self) -> ReasonCode {
        self.kind.reason()
    }
}

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    /// More than four bytes, or more bytes than its value needs.
    #[error("variable byte integer is not well-formed")]
    VariableByteInteger,
    /// Longer than `DecodeLimits::packet_bytes_max`.
    #[error("packet is larger than allowed")]
    PacketTooLarge,
    /// Type 0, or type 15 before MQTT 5.0.
    #[error("packet type is reserved")]
    ReservedPacketType,
    /// The first packet is not CONNECT.
    #[error("first packet is not CONNECT")]
    NotConnect,
    /// Reserved flags of the fixed header.
    #[error("reserved flags of the fixed header have the wrong value")]
    FixedHeaderFlags,
    /// The Remaining Length ends within a field, or a Property Length within a property.
    #[error("packet ends within a field")]
    Truncated,
    /// The Remaining Length goes on after the last field.
    #[error("bytes follow the last field")]
    TrailingBytes,
    /// Not well-formed UTF-8.
    #[error("string is not well-formed UTF-8")]
    InvalidUtf8,
    /// U+0000 in a string.
    #[error("string holds the null character")]
    NullCharacter,
    /// QoS 3, of a PUBLISH or a Will.
    #[error("quality of service is 3")]
    InvalidQoS,
    /// QoS 3, of a subscription.
    #[error("maximum quality of service is 3")]
    InvalidMaximumQoS,
    /// DUP with QoS 0.
    #[error("DUP is set with QoS 0")]
    DupWithoutQoS,
    /// Packet Identifier 0.
    #[error("packet identifier is 0")]
    PacketIdZero,
    /// No packet that this codec speaks.
    #[error("protocol name or level is not supported (level {level})")]
    UnsupportedProtocolVersion {
        /// The Protocol Version byte as it was sent.
        level: u8,
    },
    /// The reserved flag, or Will QoS and Will Retain without a Will.
    #[error("connect flags have bits that must be 0")]
    ConnectFlags,
    /// Before MQTT 5.0.
    #[error("password is given without a user name")]
    PasswordWithoutUserName,
    /// Reserved Connect Acknowledge Flags, or Session Present on a refusal.
    #[error("connect acknowledge flags have bits that must be 0")]
    ConnAckFlags,
    /// No property of this number, or not in this packet.
    #[error("property 0x{identifier:02x} is not allowed in this packet")]
    PropertyNotAllowed {
        /// Property Identifier.
        identifier: u8,
    },
    /// Twice where once is the most.
    #[error("property 0x{identifier:02x} is given twice")]
    DuplicateProperty {
        /// Property Identifier.
        identifier: u8,
    },
    /// Out of its range.
    #[error("property 0x{identifier:02x} has a value out of range")]
    PropertyValue {
        /// Property Identifier.
        identifier: u8,
    },
    /// Authentication Data in a CONNECT, or any property in an AUTH, without a method.
    #[error("authentication method is missing")]
    AuthenticationMethodMissing,
    /// Topic Alias 0.
    #[error("topic alias is 0")]
    TopicAliasZero,
    /// Empty, and no Topic Alias stands in.
    #[error("topic name is empty")]
    TopicNameEmpty,
    /// `+` or `#` in a Topic Name.
    #[error("topic name holds a wildcard")]
    TopicNameWildcard,
    /// `+` or `#` in a Response Topic, or an empty one.
    #[error("response topic is not a topic name")]
    ResponseTopic,
    /// A Topic Name over `DecodeLimits::topic_bytes_max` or `topic_levels_max`.
    #[error("topic name is longer or deeper than allowed")]
    TopicNameLimit,
    /// A Topic Filter over `DecodeLimits::topic_bytes_max` or `topic_levels_max`.
    #[error("topic filter is longer or deeper than allowed")]
    TopicFilterLimit,
    /// SUBSCRIBE, SUBACK, UNSUBSCRIBE or (MQTT 5.0) UNSUBACK of nothing.
    #[error("list of topic filters or reason codes is empty")]
    EmptyPayload,
    /// Reserved bits of the Subscription Options.
    #[error("subscription options have bits that must be 0")]
    SubscriptionOptions,
    /// Retain Handling 3.
    #[error("retain handling is 3")]
    RetainHandling,
    /// No Local on a `$share/…` filter.
    #[error("no local is set on a shared subscription")]
    NoLocalOnSharedSubscription,
    /// Unknown, or not one of this packet.
    #[error("reason code 0x{number:02x} is not allowed in this packet")]
    ReasonCode {
        /// The byte as it was sent.
        number: u8,
    },
}

impl DecodeErrorKind {
    /// The one place where what went wrong becomes a Reason Code.
    ///
    /// What cannot be parsed is a Malformed Packet; what parses and says what is not allowed is
    /// a Protocol Error, unless there is a code that says more. Sections 1.2 and 4.13.
    #[must_use]
    pub const fn reason(self) -> ReasonCode {
        match self {
            Self::VariableByteInteger
            | Self::ReservedPacketType
            | Self::FixedHeaderFlags
            | Self::Truncated
            | Self::TrailingBytes
            | Self::InvalidUtf8
            | Self::NullCharacter
            | Self::InvalidQoS
            | Self::DupWithoutQoS
            | Self::ConnectFlags
            | Self::ConnAckFlags
            | Self::SubscriptionOptions
            | Self::PropertyNotAllowed { .. } => ReasonCode::MalformedPacket,
            Self::NotConnect
            | Self::PacketIdZero
            | Self::PasswordWithoutUserName
            | Self::DuplicateProperty { .. }
            | Self::PropertyValue { .. }
            | Self::AuthenticationMethodMissing
            | Self::TopicNameEmpty
            | Self::ResponseTopic
            | Self::EmptyPayload
            | Self::InvalidMaximumQoS
            | Self::RetainHandling
            | Self::NoLocalOnSharedSubscription
            | Self::ReasonCode { .. } => ReasonCode::ProtocolError,
            Self::PacketTooLarge => ReasonCode::PacketTooLarge,
            Self::UnsupportedProtocolVersion { .. } => ReasonCode::UnsupportedProtocolVersion,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            Self::TopicNameWildcard | Self::TopicNameLimit => ReasonCode::TopicNameInvalid,
            Self::TopicFilterLimit => ReasonCode::TopicFilterInvalid,
        }
    }
}

/// Why a packet has no bytes. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Remaining Length would be over 268,435,455.
    #[error("packet is longer than the protocol can express")]
    PacketTooLarge,
    /// A string, or binary data, is over 65,535 bytes.
    #[error("string or binary data is longer than 65,535 bytes")]
    StringTooLong,
    /// U+0000 in a string. [MQTT-1.5.4-2]
    #[error("string holds the null character")]
    NullCharacter,
    /// A Subscription Identifier over 268,435,455.
    #[error("variable byte integer is greater than 268,435,455")]
    IntegerTooLarge,
    /// AUTH, or a password without a user name, before MQTT 5.0; a bridge's bit in MQTT 5.0.
    #[error("packet cannot be expressed in this protocol version")]
    NotInThisVersion,
    /// A PUBLISH has a Packet Identifier if and only if its QoS is not 0. [MQTT-2.2.1-2]
    #[error("packet identifier and quality of service contradict each other")]
    PacketIdMismatch,
}
