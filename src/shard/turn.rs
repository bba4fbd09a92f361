//! One piece of work of a shard, passed as an argument to everything that it calls.
//!
//! A value here is valid for this piece of work only: a function that returns early leaves nothing
//! behind for the next one.

use bytes::Bytes;

use crate::{
    journal::{QueuePlace, SessionNumber},
    mqtt::Timestamp,
};

/// What a piece of work knows besides its arguments.
pub(in crate::shard) struct Turn<'b> {
    /// The time when it began.
    pub(in crate::shard) now: Timestamp,
    /// The bytes that hold the packets to handle, if these bytes can be shared.
    pub(in crate::shard) packets: Option<&'b Bytes>,
    /// The number of nodes of the retained store that it may still visit.
    pub(in crate::shard) nodes_left: usize,
    /// The durable session whose QoS 2 message is being routed.
    pub(in crate::shard) publisher: Option<SessionNumber>,
    /// The place in transit of a message from another shard; the shard that receives it next takes
    /// this place over.
    pub(in crate::shard) on_its_way: Option<QueuePlace>,
    /// A buffer for the forwarded properties of a PUBLISH.
    pub(in crate::shard) properties: Vec<u8>,
}

impl Turn<'_> {
    /// Returns a piece of work that reads no packets.
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
