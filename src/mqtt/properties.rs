//! The properties of MQTT 5.0 packets, section 2.2.2: one struct for each packet that has its own.
//!
//! User Properties, which may be many, stay in their encoded form and are iterated in place.

/// User Properties in their order: validated, still encoded, each with its 0x26 identifier.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct UserProperties<'a> {
    /// One or more runs of `0x26 name value`; every pair is complete and valid UTF-8.
    pub(super) encoded: &'a [u8],
}

/// Properties of CONNECT, section 3.1.2.11.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectProperties<'a> {
    /// Session Expiry Interval in seconds; absent means 0, 0xFFFF_FFFF never.
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
    /// Those that go with the message; it has neither Topic Alias nor Subscription Identifier.
    pub publish: PublishProperties<'a>,
}

/// Properties of CONNACK, section 3.2.2.3.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnAckProperties<'a> {
    /// Session Expiry Interval in seconds, where the server uses another than was asked for.
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
    /// Server Keep Alive in seconds: what the client must use instead of its own.
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishProperties<'a> {
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval: Option<u32>,
    /// Topic Alias; never 0.
    pub topic_alias: Option<u16>,
    /// Subscription Identifiers, each 1 to 268,435,455. Only a server sends them.
    pub subscription_identifiers: Vec<u32>,
    /// Payload Format Indicator: whether the payload is declared to be UTF-8.
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
#[derive(Clone, Debug, Default, PartialEq)]
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
