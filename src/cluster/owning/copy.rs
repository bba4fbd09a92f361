//! A session on its way to another node: the form in which it travels.
//!
//! Plain data with an encoding. Knows neither shards nor stores; `broker/cluster/handover.rs` translates.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::cluster::wire::{Wire, octets};

/// A session, without its connection. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCopy {
    /// Client Identifier.
    pub client_id: Box<str>,
    /// User name of the owner.
    pub username: Option<Box<str>>,
    /// Session Expiry Interval in seconds.
    pub expiry_interval_secs: u32,
    /// When the session ends.
    pub ends_at: Option<u64>,
    /// Address and port of the last connection.
    pub peer: Box<str>,
    /// When the last connection began.
    pub connected_at: u64,
    /// How its client logged in.
    pub login: Option<LoginCopy>,
    /// The subscriptions.
    pub subscriptions: Vec<SubscriptionCopy>,
    /// Packet Identifiers of QoS 2 messages from the client that are not released.
    pub accepted: Vec<u16>,
    /// The Will, while it is delayed.
    pub will: Option<WillCopy>,
    /// Messages that were sent and not acknowledged, in the order in which they were sent.
    pub in_flight: Vec<InFlightCopy>,
    /// Messages that wait, the oldest first.
    pub waiting: Vec<QueuedCopy>,
    /// The number of the first waiting messages that may have been sent.
    pub doubtful: u32,
}

impl Wire for SessionCopy {
    const KIND: u8 = 20;
}

/// How the client of a session logged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginCopy {
    /// The name of the evidence, as in rules.
    pub kind: Box<str>,
    /// Authentication Method.
    pub method: Option<Box<str>>,
    /// The URL of the listener.
    pub listener: Box<str>,
    /// Common Name and serial number of the certificate.
    pub certificate: Option<(Box<str>, Box<str>)>,
    /// Whether the identity ends with the account of its name.
    pub needs_account: bool,
    /// The source in a chain of authenticators.
    pub source: Option<Box<str>>,
    /// The attributes of the identity.
    pub attributes: Vec<(Box<str>, Box<str>)>,
    /// The groups of the identity.
    pub groups: Vec<Box<str>>,
    /// The number of the credential.
    pub credential: Option<u64>,
    /// The rules of the identity, as JSON.
    pub rules: Option<Box<str>>,
    /// When these rules expire.
    pub rules_expire_at: Option<u64>,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionCopy {
    /// Topic Filter.
    pub filter: Box<str>,
    /// Subscription Options, as SUBSCRIBE has them (section 3.8.3.1).
    pub options: u8,
    /// Subscription Identifier.
    pub identifier: Option<u32>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCopy {
    /// Topic Name.
    pub topic: Box<str>,
    /// The payload.
    #[serde(with = "octets")]
    pub payload: Bytes,
    /// The encoded properties that are forwarded.
    #[serde(with = "octets")]
    pub properties: Bytes,
    /// The QoS of the publisher's packet.
    pub qos: u8,
    /// The RETAIN flag of the publisher's packet.
    pub retain: bool,
    /// When it expires.
    pub expires_at: Option<u64>,
    /// When a broker received it; 0 if that is not known.
    pub received_at: u64,
}

/// A message of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedCopy {
    /// The message.
    pub message: MessageCopy,
    /// The QoS to send it with.
    pub qos: u8,
    /// The RETAIN flag to send it with.
    pub retain: bool,
    /// Subscription Identifiers.
    pub identifiers: Vec<u32>,
    /// The filter of the shared subscription that it came by.
    pub share: Option<Box<str>>,
}

/// Messages that a node has taken for a session which has left it, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestCopy {
    /// The messages.
    pub messages: Vec<QueuedCopy>,
}

impl Wire for RestCopy {
    const KIND: u8 = 21;
}

/// A message that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlightCopy {
    /// Packet Identifier.
    pub packet_id: u16,
    /// The message; none after PUBREC.
    pub queued: Option<QueuedCopy>,
}

/// A Will that is delayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WillCopy {
    /// The message.
    pub message: MessageCopy,
    /// Will Delay Interval in seconds.
    pub delay_secs: u32,
    /// Message Expiry Interval in seconds.
    pub expiry_secs: Option<u32>,
    /// When it is due.
    pub due_at: Option<u64>,
}
