//! Encodes a message for one subscriber: the hot path of the encoder.
//!
//! [`Publication`] has the part that is the same for all subscribers, [`PublishAs`] has the rest. Knows no
//! session; called once for each delivery, or once for several that need the same bytes.

use std::num::NonZeroU16;

use super::{packet_size, publish_first_byte};
use crate::mqtt::{
    PacketId, ProtocolVersion, Publication, PublishFlags,
    wire::{VARIABLE_BYTE_INTEGER_MAX, VariableByteInteger, identifier},
};

/// The fields of a PUBLISH that differ between subscribers. Fields that the subscriber's version
/// does not have are not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishAs<'a> {
    /// DUP, QoS and RETAIN.
    pub flags: PublishFlags,
    /// Present if and only if the QoS is not 0. [MQTT-2.2.1-2]
    pub packet_id: Option<PacketId>,
    /// How the Topic Name is sent.
    pub topic_alias: TopicAlias,
    /// Identifiers of the matching subscriptions, each 1 to 268,435,455. [MQTT-3.3.4-3]
    /// [MQTT-3.3.4-4]
    pub subscription_identifiers: &'a [u32],
    /// The remaining Message Expiry Interval in seconds. [MQTT-3.3.2-6]
    pub message_expiry_interval: Option<u32>,
}

/// How a PUBLISH sends its Topic Name (section 3.3.2.3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicAlias {
    /// As the Topic Name alone.
    #[default]
    None,
    /// As the Topic Name together with an alias for later packets.
    Define(NonZeroU16),
    /// As an alias that was defined before.
    Use(NonZeroU16),
}

impl TopicAlias {
    const fn number(self) -> Option<NonZeroU16> {
        match self {
            Self::None => None,
            Self::Define(alias) | Self::Use(alias) => Some(alias),
        }
    }
}

/// The largest packet: a Remaining Length of 268,435,455 and the fixed header.
pub(in crate::mqtt) const PACKET_BYTES_MAX: usize = VARIABLE_BYTE_INTEGER_MAX as usize + 5;

/// Returns the number of bytes that [`encode_publish`] appends.
#[must_use]
pub fn publish_size(
    version: ProtocolVersion,
    publication: &Publication<'_>,
    how: &PublishAs<'_>,
) -> usize {
    packet_size(Lengths::of(version, publication, how).remaining)
}

/// Appends `publication` for one subscriber.
///
/// The topic must be a valid Topic Name, and `Publication::properties` must come from
/// `encode_forwarded`. [`publish_size`] must not exceed the subscriber's Maximum Packet Size
/// [MQTT-3.1.2-24] and 268,435,460.
#[inline]
pub fn encode_publish(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    publication: &Publication<'_>,
    how: &PublishAs<'_>,
) {
    encode_publish_with(out, version, publication, how, publication.payload);
}

/// Appends the same packet with `payload` in place of the publication's: the payload itself, or
/// nothing where the caller writes the payload from another buffer.
#[inline]
pub fn encode_publish_with(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    publication: &Publication<'_>,
    how: &PublishAs<'_>,
    payload: &[u8],
) {
    let lengths = Lengths::of(version, publication, how);
    // A piece takes more room while it is appended.
    let size = packet_size(lengths.remaining) - publication.payload.len() + payload.len();
    out.reserve(size + PIECE_BYTES_MAX);
    push_before_payload(out, &lengths, version, publication, how);
    out.extend_from_slice(payload);
}

#[inline]
fn push_before_payload(
    out: &mut Vec<u8>,
    lengths: &Lengths,
    version: ProtocolVersion,
    publication: &Publication<'_>,
    how: &PublishAs<'_>,
) {
    debug_assert_eq!(how.packet_id.is_some(), how.flags.qos.number() > 0, "[MQTT-2.2.1-2]");
    let size = packet_size(lengths.remaining);
    debug_assert!(size <= PACKET_BYTES_MAX, "a packet of {size} bytes cannot be expressed");
    let topic = sent_topic(version, publication, how);
    debug_assert!(topic.len() <= usize::from(u16::MAX), "[MQTT-4.7.3-3]");

    // Header and topic length are copied in one piece, because each copy of few bytes costs as much
    // as one of many.
    let mut head = Piece::<8>::new();
    head.push([publish_first_byte(how.flags)]);
    head.push_variable(lengths.remaining);
    head.push((topic.len() as u16).to_be_bytes());
    head.append_to(out);
    out.extend_from_slice(topic.as_bytes());
    // MQTT 3 has no properties, so only the identifier is left.
    if version.has_properties() {
        push_id_and_properties(out, lengths.properties, publication, how);
    } else if let Some(packet_id) = how.packet_id {
        out.extend_from_slice(&packet_id.number().to_be_bytes());
    }
}

#[inline(always)] // each message passes it
fn push_id_and_properties(
    out: &mut Vec<u8>,
    length: usize,
    publication: &Publication<'_>,
    how: &PublishAs<'_>,
) {
    // Short fields are gathered, so that one copy appends them.
    let mut fields = Piece::<PIECE_BYTES_MAX>::new();
    if let Some(packet_id) = how.packet_id {
        fields.push(packet_id.number().to_be_bytes());
    }
    fields.push_variable(length);
    if let Some(secs) = how.message_expiry_interval {
        fields.push([identifier::MESSAGE_EXPIRY_INTERVAL]);
        fields.push(secs.to_be_bytes());
    }
    if let Some(alias) = how.topic_alias.number() {
        fields.push([identifier::TOPIC_ALIAS]);
        fields.push(alias.get().to_be_bytes());
    }
    fields.append_to(out);
    // Most messages have none of them.
    if !(publication.properties.is_empty() && how.subscription_identifiers.is_empty()) {
        push_long_properties(out, publication, how);
    }
}

/// Appends the properties whose length has no small bound.
fn push_long_properties(out: &mut Vec<u8>, publication: &Publication<'_>, how: &PublishAs<'_>) {
    for &subscription_identifier in how.subscription_identifiers {
        let mut property = Piece::<5>::new();
        property.push([identifier::SUBSCRIPTION_IDENTIFIER]);
        property.push_variable(subscription_identifier as usize);
        property.append_to(out);
    }
    out.extend_from_slice(publication.properties);
}

/// Returns the Topic Name to send: empty if an alias replaces it.
#[inline]
const fn sent_topic<'a>(
    version: ProtocolVersion,
    publication: &Publication<'a>,
    how: &PublishAs<'_>,
) -> &'a str {
    match how.topic_alias {
        TopicAlias::Use(_) if version.has_properties() => "",
        TopicAlias::None | TopicAlias::Define(_) | TopicAlias::Use(_) => publication.topic,
    }
}

struct Lengths {
    /// Remaining Length.
    remaining: usize,
    /// Property Length.
    properties: usize,
}

impl Lengths {
    #[inline]
    fn of(version: ProtocolVersion, publication: &Publication<'_>, how: &PublishAs<'_>) -> Self {
        let topic = 2 + sent_topic(version, publication, how).len();
        let packet_id = if how.packet_id.is_some() { 2 } else { 0 };
        let mut remaining = topic + packet_id + publication.payload.len();
        let mut properties = 0;
        if version.has_properties() {
            properties = properties_length(publication, how);
            remaining += VariableByteInteger::length_of(properties) + properties;
        }
        Self { remaining, properties }
    }
}

#[inline]
fn properties_length(publication: &Publication<'_>, how: &PublishAs<'_>) -> usize {
    let topic_alias = if how.topic_alias.number().is_some() { 3 } else { 0 };
    let message_expiry_interval = if how.message_expiry_interval.is_some() { 5 } else { 0 };
    let subscription_identifiers: usize = how
        .subscription_identifiers
        .iter()
        .map(|&value| 1 + VariableByteInteger::length_of(value as usize))
        .sum();
    publication.properties.len() + topic_alias + message_expiry_interval + subscription_identifiers
}

/// The largest size of a [`Piece`].
const PIECE_BYTES_MAX: usize = 16;

/// Up to `N` bytes that are collected and then appended to the buffer at once.
struct Piece<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Piece<N> {
    #[inline]
    const fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    #[inline]
    fn push<const M: usize>(&mut self, bytes: [u8; M]) {
        self.bytes[self.length..self.length + M].copy_from_slice(&bytes);
        self.length += M;
    }

    #[inline]
    fn push_variable(&mut self, value: usize) {
        let (bytes, length) = VariableByteInteger::encode(value);
        self.bytes[self.length..self.length + length].copy_from_slice(&bytes[..length]);
        self.length += length;
    }

    /// Appends all `N` bytes and removes the unused ones: a copy of fixed length needs no call.
    #[inline]
    fn append_to(&self, out: &mut Vec<u8>) {
        let length = out.len() + self.length;
        out.extend_from_slice(&self.bytes);
        out.truncate(length);
    }
}
