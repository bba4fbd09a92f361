//! The Application Message on its way from one publisher to many subscribers.
//!
//! A [`Publication`] borrows from the publisher's read buffer and is all that is needed where a
//! message is handed on at once. Whoever must keep it makes a [`Message`] of it, which is shared.

use std::num::NonZeroU64;

use bytes::Bytes;

use super::{QoS, Timestamp};

/// An Application Message, borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Publication<'a> {
    /// Topic Name.
    pub topic: &'a str,
    /// The payload, unchanged from publisher to subscriber.
    pub payload: &'a [u8],
    /// The QoS that it was published with.
    pub qos: QoS,
    /// The RETAIN flag that it was published with.
    pub retain: bool,
    /// The properties that the server must forward unaltered, encoded in their order and without
    /// a length: all but Message Expiry Interval, Topic Alias and Subscription Identifier.
    pub properties: &'a [u8],
    /// When Message Expiry Interval ends.
    pub expires_at: Option<Timestamp>,
}

impl Publication<'_> {
    /// What the message counts against limits on bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }

    /// Whether it is no longer to be delivered. [MQTT-3.3.2-5]
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// What is left of Message Expiry Interval, in whole seconds rounded up. [MQTT-3.3.2-6]
    #[must_use]
    pub fn remaining_expiry_secs(&self, now: Timestamp) -> Option<u32> {
        let left = self.expires_at?.0.saturating_sub(now.0).div_ceil(1000);
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }
}

/// An Application Message that is kept: queued, in flight, retained or to be sent as a Will.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    topic: Box<str>,
    /// Properties, then payload, so that one message is few allocations.
    body: Bytes,
    properties_len: u32,
    qos: QoS,
    retain: bool,
    expires_at: Option<Timestamp>,
    number: Option<NonZeroU64>,
}

impl Message {
    /// A copy of `publication` of its own.
    #[must_use]
    pub fn new(publication: &Publication<'_>) -> Self {
        let mut body = Vec::with_capacity(publication.properties.len() + publication.payload.len());
        body.extend_from_slice(publication.properties);
        body.extend_from_slice(publication.payload);
        Self {
            topic: publication.topic.into(),
            body: body.into(),
            properties_len: u32::try_from(publication.properties.len()).unwrap_or(u32::MAX),
            qos: publication.qos,
            retain: publication.retain,
            expires_at: publication.expires_at,
            number: None,
        }
    }

    /// The same message with a number, by which it is known outside of memory.
    #[must_use]
    pub const fn numbered(mut self, number: NonZeroU64) -> Self {
        self.number = Some(number);
        self
    }

    /// The number that it was given.
    #[must_use]
    pub const fn number(&self) -> Option<NonZeroU64> {
        self.number
    }

    /// The message as it is routed and encoded.
    #[must_use]
    pub fn publication(&self) -> Publication<'_> {
        let (properties, payload) = self.body.split_at(self.properties_len as usize);
        Publication {
            topic: &self.topic,
            payload,
            qos: self.qos,
            retain: self.retain,
            properties,
            expires_at: self.expires_at,
        }
    }

    /// What the message counts against limits on bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.topic.len() + self.body.len()
    }

    /// Topic Name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.publication().payload
    }

    /// The payload, without a copy.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        self.body.slice(self.properties_len as usize..)
    }

    /// The QoS that it was published with.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }
}
