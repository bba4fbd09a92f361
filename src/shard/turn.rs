//! One piece of work of a shard, handed down to everything that it calls.
//!
//! A value here holds for this piece of work alone: a function that ends early leaves nothing behind
//! for the next one.

use bytes::Bytes;

use crate::{
    journal::{QueuePlace, SessionNumber},
    mqtt::Timestamp,
};

/// What a piece of work knows beside its arguments.
pub(in crate::shard) struct Turn<'b> {
    /// When it began.
    pub(in crate::shard) now: Timestamp,
    /// The bytes in which the packets at hand lie, if these bytes can be shared.
    pub(in crate::shard) packets: Option<&'b Bytes>,
    /// Nodes of the retained store that may still be looked at.
    pub(in crate::shard) nodes_left: usize,
    /// The durable session whose QoS 2 message is being routed.
    pub(in crate::shard) publisher: Option<SessionNumber>,
    /// The place in transit of a message that has come from another shard; taken by the shard that it
    /// goes on to.
    pub(in crate::shard) on_its_way: Option<QueuePlace>,
    /// A buffer for the forwarded properties of a PUBLISH.
    pub(in crate::shard) properties: Vec<u8>,
}

impl Turn<'_> {
    /// Begins a piece of work that reads no packets.
    pub(in crate::shard) const fn at(now: Timestamp) -> Self {
        Self {
            now,
            packets: None,
            nodes_left: 0,
            publisher: None,
            on_its_way: None,
            properties: Vec::new(),
        }
    }
}
