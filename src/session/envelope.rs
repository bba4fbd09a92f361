//! A message as a session stores it, and as it leaves it to other sessions.

use std::{num::NonZeroU32, sync::Arc};

use crate::{
    journal::{QueuePlace, SessionNumber},
    mqtt::{Message, QoS},
};

/// A message, and how to send it to this client.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) message: Arc<Message>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) identifiers: Option<Arc<[u32]>>,
    /// The shared subscription that it came through. It takes memory that padding would take.
    pub(super) share: Option<NonZeroU32>,
    /// Its place in the queue of a durable session; 0 if it is not stored.
    pub(super) place: QueuePlace,
}

impl Envelope {
    pub(super) const fn is_stored(&self) -> bool {
        self.place.0 > 0
    }
}

/// A number of messages and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Amount {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// The queue that has a message, and the place there, needed to remove it later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredAt {
    /// The session.
    pub session: SessionNumber,
    /// The message's place in its queue.
    pub place: QueuePlace,
}

/// The shared subscription that a message came through.
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    /// Its number in the router, valid as long as it has members.
    pub number: NonZeroU32,
    /// Its whole Topic Filter, which stays valid after the broker ends.
    pub filter: &'a Arc<str>,
}

/// A message that a session leaves to the other members of a shared subscription.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// The message.
    pub message: Arc<Message>,
    /// The shared subscription that it came through, by the router's number.
    pub share: NonZeroU32,
    /// Its place in a durable session, to be removed there once another member has it.
    pub stored_at: Option<StoredAt>,
}
