//! The properties of MQTT 5.0 packets (section 2.2.2): one struct for each set of properties.
//!
//! A packet may have many User Properties, so they stay encoded and are iterated in place.
//! `decode::properties` and `encode::properties` read and write the structs. Neither knows which
//! side may send a property.

use std::fmt;

use super::sink::{ByteCount, Sink};
use super::wire::{Reader, identifier};
use super::{DecodeError, EncodeError};

/// User Properties in their order: validated, but still encoded.
///
/// Two values are equal if they have the same pairs in the same order. Debug shows only the names,
/// because values may be secrets.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    /// Whole properties with their identifiers, from the first User Property of a packet to the
    /// last. Other properties may stand between them, because the sender may mix them; iteration
    /// skips these, so that no copy is needed.
    pub(super) encoded: &'a [u8],
}

impl<'a> UserProperties<'a> {
    /// No User Properties.
    pub const NONE: Self = Self { encoded: &[] };

    /// Returns whether there are no User Properties.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// Iterates over the pairs of name and value in their order. A name may occur several times.
    #[must_use]
    pub const fn iter(&self) -> UserPropertiesIter<'a> {
        UserPropertiesIter { rest: Reader::new(self.encoded) }
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.encoded == other.encoded || self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

impl<'a> IntoIterator for UserProperties<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertiesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterator over the pairs of [`UserProperties`].
#[derive(Clone)]
pub struct UserPropertiesIter<'a> {
    rest: Reader<'a>,
}

impl fmt::Debug for UserPropertiesIter<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.clone().map(|(name, _)| name)).finish()
    }
}

impl<'a> Iterator for UserPropertiesIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        // Decoding or building has validated everything, so `ok` hides no error.
        loop {
            match self.rest.u8().ok()? {
                identifier::USER_PROPERTY => {
                    return Some((self.rest.utf8().ok()?, self.rest.utf8().ok()?));
                }
                other => skip_value(&mut self.rest, other).ok()?,
            }
        }
    }
}

/// Skips the value of any property, by its data type (table 2-4).
fn skip_value(reader: &mut Reader<'_>, property: u8) -> Result<(), DecodeError> {
    // By data type, because the value of a property is of no interest here.
    match property {
        identifier::PAYLOAD_FORMAT_INDICATOR
        | identifier::REQUEST_PROBLEM_INFORMATION
        | identifier::REQUEST_RESPONSE_INFORMATION
        | identifier::MAXIMUM_QOS
        | identifier::RETAIN_AVAILABLE
        | identifier::WILDCARD_SUBSCRIPTION_AVAILABLE
        | identifier::SUBSCRIPTION_IDENTIFIERS_AVAILABLE
        | identifier::SHARED_SUBSCRIPTION_AVAILABLE => reader.take(1).map(drop),
        identifier::SERVER_KEEP_ALIVE
        | identifier::RECEIVE_MAXIMUM
        | identifier::TOPIC_ALIAS_MAXIMUM
        | identifier::TOPIC_ALIAS => reader.take(2).map(drop),
        identifier::MESSAGE_EXPIRY_INTERVAL
        | identifier::SESSION_EXPIRY_INTERVAL
        | identifier::WILL_DELAY_INTERVAL
        | identifier::MAXIMUM_PACKET_SIZE => reader.take(4).map(drop),
        identifier::SUBSCRIPTION_IDENTIFIER => reader.variable_byte_integer().map(drop),
        // All other properties are strings or binary data.
        _ => reader.binary().map(drop),
    }
}

/// User Properties that the broker builds itself.
#[derive(Clone, Default)]
pub struct UserPropertiesBuf {
    encoded: Vec<u8>,
}

impl UserPropertiesBuf {
    /// Creates an empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { encoded: Vec::new() }
    }

    /// Appends a pair.
    ///
    /// # Errors
    /// A string exceeds 65,535 bytes or contains the null character; nothing is appended.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), EncodeError> {
        ByteCount::default().user_property(name, value)?;
        self.encoded.user_property(name, value)
    }

    /// Returns the pairs in the form that packets use.
    #[must_use]
    pub fn as_user_properties(&self) -> UserProperties<'_> {
        UserProperties { encoded: &self.encoded }
    }
}

impl fmt::Debug for UserPropertiesBuf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_user_properties().fmt(formatter)
    }
}

/// Properties of CONNECT, section 3.1.2.11.
#[derive(Clone, Default, PartialEq)]
pub struct ConnectProperties<'a> {
    /// Session Expiry Interval in seconds; absent means 0, 0xFFFF_FFFF means never.
    pub session_expiry_interval: Option<u32>,
    /// Receive Maximum; never 0, absent means 65,535.
    pub receive_maximum: Option<u16>,
    /// Maximum Packet Size in bytes; never 0, absent means no limit.
    pub maximum_packet_size: Option<u32>,
    /// Topic Alias Maximum; absent means 0.
    pub topic_alias_maximum: Option<u16>,
    /// Request Response Information; absent means false.
    pub request_response_information: Option<bool>,
    /// Request Problem Information; absent means true.
    pub request_problem_information: Option<bool>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data; only with a method.
    pub authentication_data: Option<&'a [u8]>,
}

/// Properties of the Will, section 3.1.3.2.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WillProperties<'a> {
    /// Will Delay Interval in seconds; absent means 0.
    pub will_delay_interval: Option<u32>,
    /// Properties of the message itself; never a Topic Alias or Subscription Identifier.
    pub publish: PublishProperties<'a>,
}

/// Properties of CONNACK, section 3.2.2.3.
#[derive(Clone, Default, PartialEq)]
pub struct ConnAckProperties<'a> {
    /// Session Expiry Interval in seconds, if the server changes the requested value.
    pub session_expiry_interval: Option<u32>,
    /// Receive Maximum of the server; absent means 65,535.
    pub receive_maximum: Option<u16>,
    /// Maximum QoS; absent means 2.
    pub maximum_qos: Option<u8>,
    /// Retain Available; absent means true.
    pub retain_available: Option<bool>,
    /// Maximum Packet Size in bytes.
    pub maximum_packet_size: Option<u32>,
    /// Assigned Client Identifier.
    pub assigned_client_identifier: Option<&'a str>,
    /// Topic Alias Maximum; absent means 0.
    pub topic_alias_maximum: Option<u16>,
    /// Reason String.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Wildcard Subscription Available; absent means true.
    pub wildcard_subscription_available: Option<bool>,
    /// Subscription Identifiers Available; absent means true.
    pub subscription_identifiers_available: Option<bool>,
    /// Shared Subscription Available; absent means true.
    pub shared_subscription_available: Option<bool>,
    /// Server Keep Alive in seconds, which replaces the client's own.
    pub server_keep_alive: Option<u16>,
    /// Response Information.
    pub response_information: Option<&'a str>,
    /// Server Reference.
    pub server_reference: Option<&'a str>,
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data.
    pub authentication_data: Option<&'a [u8]>,
}

/// Properties of PUBLISH, section 3.3.2.3.
#[derive(Clone, Default, PartialEq)]
pub struct PublishProperties<'a> {
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval: Option<u32>,
    /// Topic Alias; never 0.
    pub topic_alias: Option<u16>,
    /// Subscription Identifiers, each 1 to 268,435,455. Only a server sends them.
    pub subscription_identifiers: Vec<u32>,
    /// Payload Format Indicator: whether the payload is UTF-8 according to its publisher.
    pub payload_format_indicator: Option<bool>,
    /// Content Type.
    pub content_type: Option<&'a str>,
    /// Response Topic: a Topic Name without wildcards.
    pub response_topic: Option<&'a str>,
    /// Correlation Data.
    pub correlation_data: Option<&'a [u8]>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

/// Properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AckProperties<'a> {
    /// Reason String.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl AckProperties<'_> {
    /// No properties.
    pub const NONE: Self = Self { reason_string: None, user_properties: UserProperties::NONE };

    /// Returns whether there are no properties.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_empty()
    }
}

/// Properties of SUBSCRIBE, section 3.8.2.1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeProperties<'a> {
    /// Subscription Identifier, 1 to 268,435,455.
    pub subscription_identifier: Option<u32>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

/// Properties of DISCONNECT, section 3.14.2.2.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DisconnectProperties<'a> {
    /// Session Expiry Interval in seconds; only a client sends it.
    pub session_expiry_interval: Option<u32>,
    /// Reason String.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Server Reference.
    pub server_reference: Option<&'a str>,
}

/// Properties of AUTH, section 3.15.2.2.
#[derive(Clone, Default, PartialEq)]
pub struct AuthProperties<'a> {
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data.
    pub authentication_data: Option<&'a [u8]>,
    /// Reason String.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}
