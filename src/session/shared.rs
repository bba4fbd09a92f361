//! A message on its way to several sessions. Sessions that must store it share one copy.
//!
//! The router creates it and passes it from one session to the next. It knows no session.

use std::{num::NonZeroU64, sync::Arc};

use bytes::Bytes;

use crate::mqtt::{LARGE_BYTES_MIN, Message, Publication, Receipt, Timestamp};

/// A message on its way to several sessions. Sessions that must store it share one copy.
#[derive(Debug)]
pub struct SharedPublication<'a> {
    /// The message.
    pub publication: Publication<'a>,
    /// The packet that has the message, if its buffer can be shared.
    packet: Option<&'a Bytes>,
    allocated: Option<Arc<Message>>,
    /// The store recognizes one message of several durable sessions by this number.
    number: Option<NonZeroU64>,
    /// When the broker received it; 0 if that is not known.
    received_at: Timestamp,
}

impl<'a> SharedPublication<'a> {
    /// Creates it from a message in a buffer of the caller.
    #[must_use]
    pub const fn new(publication: Publication<'a>) -> Self {
        Self::with_packet(publication, None)
    }

    /// Creates it from a message in `packet`; a large payload may stay there.
    #[must_use]
    pub const fn within(packet: &'a Bytes, publication: Publication<'a>) -> Self {
        Self::with_packet(publication, Some(packet))
    }

    const fn with_packet(publication: Publication<'a>, packet: Option<&'a Bytes>) -> Self {
        let received_at = Timestamp(0);
        Self { publication, packet, allocated: None, number: None, received_at }
    }

    /// Creates it from a message that is already in a shared copy.
    #[must_use]
    pub fn of(message: &'a Arc<Message>) -> Self {
        Self {
            publication: message.publication(),
            packet: None,
            allocated: Some(message.clone()),
            number: None,
            received_at: Timestamp(0),
        }
    }

    /// Adds a number, for a message that several durable sessions may store.
    #[must_use]
    pub const fn numbered(mut self, number: NonZeroU64) -> Self {
        self.number = Some(number);
        self
    }

    /// Returns the receipt of the shared copy, if a call waits for its delivery.
    #[inline]
    pub(crate) fn receipt(&self) -> Option<&Arc<Receipt>> {
        self.allocated.as_ref()?.receipt()
    }

    /// Adds when the broker received the message.
    #[must_use]
    pub const fn received(mut self, at: Timestamp) -> Self {
        self.received_at = at;
        self
    }

    /// Returns the shared copy, and creates it at the first call.
    pub fn allocate(&mut self) -> Arc<Message> {
        let Self { publication, packet, allocated, number, received_at } = self;
        let make = || Message::of(publication, *packet, *number, *received_at);
        allocated.get_or_insert_with(|| Arc::new(make())).clone()
    }

    /// Returns whether the payload is written from its shared buffer, because copying it is not cheaper.
    pub(super) const fn has_large_payload(&self) -> bool {
        self.publication.payload.len() >= LARGE_BYTES_MIN
    }
}
