//! Errors of decoding and encoding, and their Reason Codes.
//!
//! An error does not decide what happens to the connection: the session decides whether the peer is
//! told before the connection ends. Created only by the decoder and the encoder.

use super::ReasonCode;

/// Why bytes are not a valid packet.
///
/// The clause is a conformance statement of MQTT 5.0 (`MQTT-1.5.4-1`) if there is one, otherwise
/// the section with the rule. Rules of older versions only are marked (`3.1.1 MQTT-…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} ({clause})")]
#[non_exhaustive]
pub struct DecodeError {
    /// The kind of error.
    pub kind: DecodeErrorKind,
    /// The violated rule.
    pub clause: &'static str,
}

impl DecodeError {
    /// Never inlined, so that the code for valid packets stays small.
    #[cold]
    pub(super) const fn new(kind: DecodeErrorKind, clause: &'static str) -> Self {
        Self { kind, clause }
    }

    /// Returns the Reason Code for CONNACK, if the packet was CONNECT, otherwise for DISCONNECT.
    #[must_use]
    pub const fn reason(&self) -> ReasonCode {
        self.kind.reason()
    }
}

/// The kind of error in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// A Variable Byte Integer has more than four bytes, or more than its value needs.
    #[error("variable byte integer is not well-formed")]
    VariableByteInteger,
    /// The packet is larger than `DecodeLimits::packet_bytes_max`.
    #[error("packet is larger than allowed")]
    PacketTooLarge,
    /// The packet type is 0, or 15 before MQTT 5.0.
    #[error("packet type is reserved")]
    ReservedPacketType,
    /// The first packet is not CONNECT.
    #[error("first packet is not CONNECT")]
    NotConnect,
    /// Reserved flags of the fixed header have a wrong value.
    #[error("reserved flags of the fixed header have the wrong value")]
    FixedHeaderFlags,
    /// The Remaining Length ends within a field, or a Property Length within a property.
    #[error("packet ends within a field")]
    Truncated,
    /// Bytes remain after the last field.
    #[error("bytes follow the last field")]
    TrailingBytes,
    /// A string is not well-formed UTF-8.
    #[error("string is not well-formed UTF-8")]
    InvalidUtf8,
    /// A string contains U+0000.
    #[error("string contains the null character")]
    NullCharacter,
    /// QoS 3 in a PUBLISH or a Will.
    #[error("quality of service is 3")]
    InvalidQoS,
    /// QoS 3 in a subscription.
    #[error("maximum quality of service is 3")]
    InvalidMaximumQoS,
    /// DUP with QoS 0.
    #[error("DUP is set with QoS 0")]
    DupWithoutQoS,
    /// Packet Identifier 0.
    #[error("packet identifier is 0")]
    PacketIdZero,
    /// The protocol name or level is not supported.
    #[error("protocol name or level is not supported (level {level})")]
    UnsupportedProtocolVersion {
        /// The Protocol Version byte that was received.
        level: u8,
    },
    /// The reserved flag is set, or Will QoS or Will Retain without a Will.
    #[error("connect flags have bits that must be 0")]
    ConnectFlags,
    /// A password without a user name, before MQTT 5.0.
    #[error("password is given without a user name")]
    PasswordWithoutUserName,
    /// Reserved Connect Acknowledge Flags are set, or Session Present in a refusal.
    #[error("connect acknowledge flags have bits that must be 0")]
    ConnAckFlags,
    /// The property is unknown or not allowed in this packet.
    #[error("property 0x{identifier:02x} is not allowed in this packet")]
    PropertyNotAllowed {
        /// Property Identifier.
        identifier: u8,
    },
    /// A property that is allowed once occurs twice.
    #[error("property 0x{identifier:02x} is given twice")]
    DuplicateProperty {
        /// Property Identifier.
        identifier: u8,
    },
    /// The value of a property is out of range.
    #[error("property 0x{identifier:02x} has a value out of range")]
    PropertyValue {
        /// Property Identifier.
        identifier: u8,
    },
    /// A CONNECT with Authentication Data, or an AUTH with any property, has no method.
    #[error("authentication method is missing")]
    AuthenticationMethodMissing,
    /// Topic Alias 0.
    #[error("topic alias is 0")]
    TopicAliasZero,
    /// The Topic Name is empty, and there is no Topic Alias.
    #[error("topic name is empty")]
    TopicNameEmpty,
    /// A Topic Name contains `+` or `#`.
    #[error("topic name contains a wildcard")]
    TopicNameWildcard,
    /// A Response Topic contains `+` or `#`, or is empty.
    #[error("response topic is not a topic name")]
    ResponseTopic,
    /// A Topic Name exceeds `DecodeLimits::topic_bytes_max` or `topic_levels_max`.
    #[error("topic name is longer or deeper than allowed")]
    TopicNameLimit,
    /// A Topic Filter exceeds `DecodeLimits::topic_bytes_max` or `topic_levels_max`.
    #[error("topic filter is longer or deeper than allowed")]
    TopicFilterLimit,
    /// A SUBSCRIBE, SUBACK, UNSUBSCRIBE or (MQTT 5.0) UNSUBACK has an empty list.
    #[error("list of topic filters or reason codes is empty")]
    EmptyPayload,
    /// Reserved bits of the Subscription Options are set.
    #[error("subscription options have bits that must be 0")]
    SubscriptionOptions,
    /// Retain Handling 3.
    #[error("retain handling is 3")]
    RetainHandling,
    /// No Local on a `$share/…` filter.
    #[error("no local is set on a shared subscription")]
    NoLocalOnSharedSubscription,
    /// The Reason Code is unknown or not allowed in this packet.
    #[error("reason code 0x{number:02x} is not allowed in this packet")]
    ReasonCode {
        /// The Reason Code byte that was received.
        number: u8,
    },
}

impl DecodeErrorKind {
    /// Maps the error to its Reason Code; nothing else does.
    ///
    /// A packet that cannot be parsed is a Malformed Packet. A packet that parses but violates a
    /// rule is a Protocol Error, unless a more specific code exists (sections 1.2 and 4.13).
    #[must_use]
    pub const fn reason(self) -> ReasonCode {
        // One arm for each code, so that a new error must be placed here.
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

/// Why a packet cannot be encoded. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Remaining Length would exceed 268,435,455.
    #[error("packet is longer than the protocol can express")]
    PacketTooLarge,
    /// A string or binary data exceeds 65,535 bytes.
    #[error("string or binary data is longer than 65,535 bytes")]
    StringTooLong,
    /// A string contains U+0000. [MQTT-1.5.4-2]
    #[error("string contains the null character")]
    NullCharacter,
    /// A Subscription Identifier exceeds 268,435,455.
    #[error("variable byte integer is greater than 268,435,455")]
    IntegerTooLarge,
    /// AUTH, or a password without a user name, before MQTT 5.0; a bridge's bit in MQTT 5.0.
    #[error("packet cannot be expressed in this protocol version")]
    NotInThisVersion,
    /// A PUBLISH has a Packet Identifier if and only if its QoS is not 0. [MQTT-2.2.1-2]
    #[error("packet identifier and quality of service contradict each other")]
    PacketIdMismatch,
}
