//! A message as a session holds it, and as it leaves it to others.

use std::{num::NonZeroU32, sync::Arc};

use crate::{
    journal::{QueuePlace, SessionNumber},
    mqtt::{Message, QoS},
};

/// A message and how it is to be sent to this client.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) message: Arc<Message>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) identifiers: Option<Arc<[u32]>>,
    /// The shared subscription that it came by. It takes room that padding would take.
    pub(super) share: Option<NonZeroU32>,
    /// Its place in the queue of a durable session; 0 where it is not kept.
    pub(super) place: QueuePlace,
}

impl Envelope {
    pub(super) const fn is_kept(&self) -> bool {
        self.place.0 > 0
    }
}

/// Messages and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Amount {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// Whose queue a message is in, for what is taken out of it later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptAt {
    /// The session.
    pub session: SessionNumber,
    /// The message's place in its queue.
    pub place: QueuePlace,
}

/// A shared subscription as a message comes by it.
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    /// Its number with the router, for as long as it has members.
    pub number: NonZeroU32,
    /// Its whole Topic Filter, which outlasts the broker.
    pub filter: &'a Arc<str>,
}

/// A message that a session leaves to the other members of a shared subscription.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// The message.
    pub message: Arc<Message>,
    /// The shared subscription that it came by, in the router's numbers.
    pub share: NonZeroU32,
    /// Where a durable session kept it: to be taken out of there once others have it.
    pub kept_at: Option<KeptAt>,
}
