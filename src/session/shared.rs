//! A message on its way to several sessions, which share what they must keep of it.
//!
//! It knows no session. Made by whoever routes, and handed from one session to the next.

use std::{num::NonZeroU64, sync::Arc};

use bytes::Bytes;

use crate::mqtt::{LARGE_BYTES_MIN, Message, Publication};

/// A message on its way to several sessions. Those that must keep it share one copy.
#[derive(Debug)]
pub struct SharedPublication<'a> {
    /// The message.
    pub publication: Publication<'a>,
    /// The packet that it came in, if that is in an allocation that can be shared.
    packet: Option<&'a Bytes>,
    kept: Option<Arc<Message>>,
    /// By this number the store knows that it is one, where several durable sessions keep it.
    number: Option<NonZeroU64>,
}

impl<'a> SharedPublication<'a> {
    /// A message that so far lies in somebody's buffer.
    #[must_use]
    pub const fn new(publication: Publication<'a>) -> Self {
        Self { publication, packet: None, kept: None, number: None }
    }

    /// A message that lies in `packet`, and whose large payload may stay there.
    #[must_use]
    pub const fn within(packet: &'a Bytes, publication: Publication<'a>) -> Self {
        Self { publication, packet: Some(packet), kept: None, number: None }
    }

    /// A message that is kept already.
    #[must_use]
    pub fn of(message: &'a Arc<Message>) -> Self {
        Self {
            publication: message.publication(),
            packet: None,
            kept: Some(message.clone()),
            number: None,
        }
    }

    /// The same with a number, for a message that several durable sessions may keep.
    #[must_use]
    pub const fn numbered(mut self, number: NonZeroU64) -> Self {
        self.number = Some(number);
        self
    }

    /// The shared copy, made when it is first asked for.
    pub fn keep(&mut self) -> Arc<Message> {
        let (publication, packet) = (&self.publication, self.packet);
        let make = || match packet {
            Some(packet) => Message::within(packet, publication),
            None => Message::new(publication),
        };
        let number = self.number;
        let numbered = |message: Message| match number {
            Some(number) => message.numbered(number),
            None => message,
        };
        self.kept.get_or_insert_with(|| Arc::new(numbered(make()))).clone()
    }

    /// The payload, to be written from where all share it; `None` for one that is better copied.
    pub(super) fn large_payload(&mut self) -> Option<Bytes> {
        let is_large = self.publication.payload.len() >= LARGE_BYTES_MIN;
        is_large.then(|| self.keep().payload_bytes())
    }
}
