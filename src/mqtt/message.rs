//! The Application Message between one publisher and many subscribers.
//!
//! A [`Publication`] borrows from the publisher's read buffer and is enough for immediate delivery.
//! A message that must be stored is copied into a [`Message`], which can be shared.

use std::{num::NonZeroU64, sync::Arc};

use bytes::Bytes;

use super::{
    QoS, Timestamp,
    receipt::{OwnReceipt, Receipt},
};

/// A borrowed Application Message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Publication<'a> {
    /// Topic Name.
    pub topic: &'a str,
    /// The payload, unchanged from publisher to subscriber.
    pub payload: &'a [u8],
    /// The QoS of the publisher's packet.
    pub qos: QoS,
    /// The RETAIN flag of the publisher's packet.
    pub retain: bool,
    /// The encoded properties that the server must forward unaltered, in their order and without a
    /// length: all but Message Expiry Interval, Topic Alias and Subscription Identifier.
    pub properties: &'a [u8],
    /// When the message expires.
    pub expires_at: Option<Timestamp>,
}

impl Publication<'_> {
    /// Returns the bytes that the message counts against limits.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }

    /// Returns whether the message has expired and must not be delivered. [MQTT-3.3.2-5]
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Returns the remaining Message Expiry Interval in whole seconds, rounded up. [MQTT-3.3.2-6]
    #[must_use]
    pub fn remaining_expiry_secs(&self, now: Timestamp) -> Option<u32> {
        let left = self.expires_at?.0.saturating_sub(now.0).div_ceil(1000);
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }
}

/// An owned Application Message: queued, in flight, retained or the Will of a client.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    topic: Box<str>,
    properties: Box<[u8]>,
    payload: Payload,
    qos: QoS,
    retain: bool,
    expires_at: Option<Timestamp>,
    number: Option<NonZeroU64>,
    receipt: OwnReceipt,
    /// When the broker received it; 0 if that is not known.
    received_at: Timestamp,
}

/// A payload and where it is stored.
#[derive(Clone)]
enum Payload {
    /// In the message itself, so that a short payload needs no allocation of its own.
    InPlace { len: u8, bytes: [u8; IN_PLACE_BYTES_MAX] },
    /// In a separate allocation, which may be the received packet.
    Apart(Bytes),
}

/// Maximum payload that is stored in the message itself. Most payloads are shorter, and the unused
/// bytes of very short ones do not matter.
const IN_PLACE_BYTES_MAX: usize = 70;

/// Minimum payload that is written or stored without a copy; a copy is cheaper for shorter ones.
pub(crate) const LARGE_BYTES_MIN: usize = 16 * 1024;

impl Payload {
    #[inline]
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

    /// Returns a slice of `packet` if `payload` is large and most of it, otherwise a copy.
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
    /// Copies `publication`.
    #[must_use]
    pub fn new(publication: &Publication<'_>) -> Self {
        Self::of(publication, None, None, Timestamp(0))
    }

    /// Copies `publication`, but shares a large payload that is part of `packet`.
    #[must_use]
    pub fn within(packet: &Bytes, publication: &Publication<'_>) -> Self {
        Self::of(publication, Some(packet), None, Timestamp(0))
    }

    /// Copies `publication`. A large payload that is part of `packet` is shared. `number` identifies
    /// the message in the store.
    pub(crate) fn of(
        publication: &Publication<'_>,
        packet: Option<&Bytes>,
        number: Option<NonZeroU64>,
        received_at: Timestamp,
    ) -> Self {
        let payload = publication.payload;
        Self {
            topic: publication.topic.into(),
            properties: publication.properties.into(),
            // A large payload keeps its packet alive and is not copied.
            payload: match packet {
                Some(packet) => Payload::within(packet, payload),
                None => Payload::copied(payload),
            },
            qos: publication.qos,
            retain: publication.retain,
            expires_at: publication.expires_at,
            number,
            receipt: OwnReceipt(None),
            received_at,
        }
    }

    /// Gives the message of one delivery its receipt.
    #[must_use]
    pub(crate) fn with_receipt(mut self, receipt: Arc<Receipt>) -> Self {
        self.receipt = OwnReceipt(Some(receipt));
        self
    }

    /// Returns the receipt, if a call waits for this delivery.
    #[inline]
    pub(crate) const fn receipt(&self) -> Option<&Arc<Receipt>> {
        self.receipt.0.as_ref()
    }

    /// Sets when the broker received the message.
    #[must_use]
    pub const fn received(mut self, at: Timestamp) -> Self {
        self.received_at = at;
        self
    }

    /// Returns when the broker received the message; `None` if that is not known.
    #[must_use]
    pub const fn received_at(&self) -> Option<Timestamp> {
        if self.received_at.millis() == 0 { None } else { Some(self.received_at) }
    }

    /// Sets the number that identifies the message in the store.
    #[must_use]
    pub const fn numbered(mut self, number: NonZeroU64) -> Self {
        self.number = Some(number);
        self
    }

    /// Returns the number that identifies the message in the store.
    #[must_use]
    pub const fn number(&self) -> Option<NonZeroU64> {
        self.number
    }

    /// Returns the message in the form that is routed and encoded.
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

    /// Returns the bytes that the message counts against limits.
    #[must_use]
    pub fn size(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.as_slice().len()
    }

    /// Returns the Topic Name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.payload.as_slice()
    }

    /// Returns the payload; only a short one is copied.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        match &self.payload {
            Payload::InPlace { .. } => Bytes::copy_from_slice(self.payload()),
            Payload::Apart(bytes) => bytes.clone(),
        }
    }

    /// Returns when it expires.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Returns the QoS of the publisher's packet.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }
}
