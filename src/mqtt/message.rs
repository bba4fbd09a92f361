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
    properties: Box<[u8]>,
    payload: Payload,
    qos: QoS,
    retain: bool,
    expires_at: Option<Timestamp>,
    number: Option<NonZeroU64>,
}

/// A payload, wherever it lies.
#[derive(Clone)]
enum Payload {
    /// In the message itself: a short one needs no allocation of its own.
    InPlace { len: u8, bytes: [u8; IN_PLACE_BYTES_MAX] },
    /// In an allocation, which may be the packet that it came in.
    Apart(Bytes),
}

/// A longer payload has an allocation of its own. Most are shorter, and few messages are so much
/// shorter that the room that is left would count.
const IN_PLACE_BYTES_MAX: usize = 70;

/// A payload that is shorter is rather copied than that it is written, or kept, where it lies.
pub(crate) const LARGE_BYTES_MIN: usize = 16 * 1024;

impl Payload {
    fn copied(payload: &[u8]) -> Self {
        let mut bytes = [0; IN_PLACE_BYTES_MAX];
        match bytes.get_mut(..payload.len()) {
            Some(place) => {
                place.copy_from_slice(payload);
                Self::InPlace { len: payload.len() as u8, bytes }
            }
            None => Self::Apart(Bytes::copy_from_slice(payload)),
        }
    }

    /// The part of `packet` that is `payload`, if it is large and most of it; else a copy.
    fn within(packet: &Bytes, payload: &[u8]) -> Self {
        let (whole, part) = (packet.as_ptr_range(), payload.as_ptr_range());
        let lies_within = whole.start <= part.start && part.end <= whole.end;
        if lies_within && payload.len() >= LARGE_BYTES_MIN.max(packet.len() / 2) {
            Self::Apart(packet.slice_ref(payload))
        } else {
            Self::copied(payload)
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::InPlace { len, bytes } => &bytes[..usize::from(*len)],
            Self::Apart(bytes) => bytes,
        }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Payload {}

impl Message {
    /// A copy of `publication` of its own.
    #[must_use]
    pub fn new(publication: &Publication<'_>) -> Self {
        Self::with(publication, Payload::copied(publication.payload))
    }

    /// The same, without a copy of a large payload that is part of `packet`.
    #[must_use]
    pub fn within(packet: &Bytes, publication: &Publication<'_>) -> Self {
        Self::with(publication, Payload::within(packet, publication.payload))
    }

    fn with(publication: &Publication<'_>, payload: Payload) -> Self {
        Self {
            topic: publication.topic.into(),
            properties: publication.properties.into(),
            payload,
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
        Publication {
            topic: &self.topic,
            payload: self.payload.as_slice(),
            qos: self.qos,
            retain: self.retain,
            properties: &self.properties,
            expires_at: self.expires_at,
        }
    }

    /// What the message counts against limits on bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.as_slice().len()
    }

    /// Topic Name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.payload.as_slice()
    }

    /// The payload, without a copy unless it is short.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        match &self.payload {
            Payload::InPlace { .. } => Bytes::copy_from_slice(self.payload()),
            Payload::Apart(bytes) => bytes.clone(),
        }
    }

    /// The QoS that it was published with.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }
}
