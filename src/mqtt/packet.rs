//! The Control Packets, with one type for all protocol versions.
//!
//! Fields and names follow chapter 3 of MQTT 5.0. A packet borrows from the buffer that it was
//! decoded from, or from the data that its sender builds it from.

use super::{PacketId, ProtocolVersion};

use super::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, ReasonCode, SubscribeProperties, UserProperties, WillProperties,
};

/// Quality of Service, section 4.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// Returns the QoS of this number; `None` for 3 and above.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// Returns 0, 1 or 2.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// A Control Packet.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Packet<'a> {
    /// Section 3.1.
    Connect(Box<Connect<'a>>),
    /// Section 3.2.
    ConnAck(Box<ConnAck<'a>>),
    /// Section 3.3.
    Publish(Publish<'a>),
    /// Section 3.4.
    PubAck(Ack<'a>),
    /// Section 3.5.
    PubRec(Ack<'a>),
    /// Section 3.6.
    PubRel(Ack<'a>),
    /// Section 3.7.
    PubComp(Ack<'a>),
    /// Section 3.8.
    Subscribe(Subscribe<'a>),
    /// Section 3.9.
    SubAck(SubAck<'a>),
    /// Section 3.10.
    Unsubscribe(Unsubscribe<'a>),
    /// Section 3.11.
    UnsubAck(UnsubAck<'a>),
    /// Section 3.12.
    PingReq,
    /// Section 3.13.
    PingResp,
    /// Section 3.14.
    Disconnect(Disconnect<'a>),
    /// Section 3.15; MQTT 5.0 only.
    Auth(Auth<'a>),
}

/// CONNECT, section 3.1.
#[derive(Clone, PartialEq)]
pub struct Connect<'a> {
    /// The version, from protocol name and level.
    pub version: ProtocolVersion,
    /// Whether 0x80 is set in the level, by which bridges of MQTT 3.1 and 3.1.1 request No Local
    /// and Retain As Published for all their subscriptions. Not in MQTT 5.0.
    pub is_bridge: bool,
    /// Clean Start; Clean Session before MQTT 5.0.
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 turns it off.
    pub keep_alive: u16,
    /// Client Identifier; empty if the server shall assign one.
    pub client_id: &'a str,
    /// The Will, if the Will Flag is set.
    pub will: Option<LastWill<'a>>,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password: binary data.
    pub password: Option<&'a [u8]>,
    /// Empty before MQTT 5.0.
    pub properties: ConnectProperties<'a>,
}

/// The Will of a CONNECT, section 3.1.2.5.
#[derive(Clone, PartialEq)]
pub struct LastWill<'a> {
    /// Will Topic.
    pub topic: &'a str,
    /// Will Payload.
    pub payload: &'a [u8],
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Empty before MQTT 5.0.
    pub properties: WillProperties<'a>,
}

/// CONNACK, section 3.2.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck<'a> {
    /// Session Present; always 0 for MQTT 3.1 clients.
    pub session_present: bool,
    /// Encoded as the Connect Return code before MQTT 5.0.
    pub reason: ReasonCode,
    /// Empty before MQTT 5.0.
    pub properties: ConnAckProperties<'a>,
}

/// DUP, QoS and RETAIN of a PUBLISH, section 3.3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishFlags {
    /// Whether this is a re-delivery.
    pub dup: bool,
    /// Quality of Service.
    pub qos: QoS,
    /// Whether to retain the message; to a subscriber, whether it is a retained message.
    pub retain: bool,
}

/// PUBLISH, section 3.3.
#[derive(Clone, PartialEq)]
pub struct Publish<'a> {
    /// DUP, QoS and RETAIN.
    pub flags: PublishFlags,
    /// Topic Name; empty only with a Topic Alias.
    pub topic: &'a str,
    /// Present if and only if the QoS is not 0.
    pub packet_id: Option<PacketId>,
    /// Empty before MQTT 5.0.
    pub properties: PublishProperties<'a>,
    /// The Application Message.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP: sections 3.4 to 3.7.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack<'a> {
    /// Packet Identifier of the acknowledged PUBLISH.
    pub packet_id: PacketId,
    /// Success before MQTT 5.0.
    pub reason: ReasonCode,
    /// Empty before MQTT 5.0.
    pub properties: AckProperties<'a>,
}

impl Ack<'_> {
    /// Returns an acknowledgement with Success and no properties.
    #[must_use]
    pub const fn success(packet_id: PacketId) -> Self {
        Self::with_reason(packet_id, ReasonCode::Success)
    }

    /// Returns an acknowledgement with a reason and no properties.
    #[must_use]
    pub const fn with_reason(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self { packet_id, reason, properties: AckProperties::NONE }
    }
}

/// Retain Handling of a subscription, section 3.8.3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// Send retained messages when the client subscribes.
    #[default]
    Send = 0,
    /// Send them only if the subscription does not exist yet.
    SendIfNew = 1,
    /// Do not send them.
    DoNotSend = 2,
}

/// Subscription Options, section 3.8.3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// Maximum QoS at which messages are sent to the client.
    pub qos: QoS,
    /// Do not send the client its own messages.
    pub no_local: bool,
    /// Keep the RETAIN flag as it was published.
    pub retain_as_published: bool,
    /// When to send retained messages after the client has subscribed.
    pub retain_handling: RetainHandling,
}

/// One Topic Filter of a SUBSCRIBE and its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeFilter<'a> {
    /// Topic Filter, including `$share/…`. Valid UTF-8, but its syntax is not checked.
    pub filter: &'a str,
    /// Subscription Options; only the QoS before MQTT 5.0.
    pub options: SubscriptionOptions,
}

/// SUBSCRIBE, section 3.8.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe<'a> {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Empty before MQTT 5.0.
    pub properties: SubscribeProperties<'a>,
    /// At least one. [MQTT-3.8.3-2]
    pub filters: Vec<SubscribeFilter<'a>>,
}

/// SUBACK, section 3.9.
#[derive(Clone, Debug, PartialEq)]
pub struct SubAck<'a> {
    /// Packet Identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Empty before MQTT 5.0.
    pub properties: AckProperties<'a>,
    /// One for each Topic Filter, in their order. MQTT 3.1.1 clients receive every failure as 0x80.
    /// MQTT 3.1 defines no failure, so its clients receive QoS 0 (instead of a failure the broker
    /// grants them the requested QoS).
    pub reasons: Vec<ReasonCode>,
}

/// UNSUBSCRIBE, section 3.10.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Empty before MQTT 5.0.
    pub user_properties: UserProperties<'a>,
    /// At least one. [MQTT-3.10.3-2]
    pub filters: Vec<&'a str>,
}

/// UNSUBACK, section 3.11.
#[derive(Clone, Debug, PartialEq)]
pub struct UnsubAck<'a> {
    /// Packet Identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Empty before MQTT 5.0.
    pub properties: AckProperties<'a>,
    /// One for each Topic Filter, in their order; not sent before MQTT 5.0.
    pub reasons: Vec<ReasonCode>,
}

/// DISCONNECT, section 3.14.
#[derive(Clone, Debug, PartialEq)]
pub struct Disconnect<'a> {
    /// Always Normal disconnection before MQTT 5.0.
    pub reason: ReasonCode,
    /// Empty before MQTT 5.0.
    pub properties: DisconnectProperties<'a>,
}

/// AUTH, section 3.15.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth<'a> {
    /// Success, Continue authentication or Re-authenticate.
    pub reason: ReasonCode,
    /// Method and data.
    pub properties: AuthProperties<'a>,
}
