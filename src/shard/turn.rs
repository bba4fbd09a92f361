//! One piece of work of a shard, passed as an argument to everything that it calls.
//!
//! A value here is valid for this piece of work only: a function that returns early leaves nothing
//! behind for the next one.

use bytes::Bytes;

use crate::{
    journal::{QueuePlace, SessionNumber},
    mqtt::Timestamp,
    shard::routing::asked::FiltersAsked,
    spans::ReceiveSpan,
};

/// Nodes of the retained store that all SUBSCRIBEs of one read may visit together, which takes
/// about 200 µs.
const NODES_AT_ONCE_MAX: usize = 2048;
/// Maximum number of Topic Filters of one read. A filter of a SUBSCRIBE counts twice: its retained
/// messages follow SUBACK.
const FILTERS_AT_ONCE_MAX: usize = 64;

/// The context of a piece of work, which it passes to all functions that it calls.
pub(in crate::shard) struct Turn<'b> {
    /// The time when it began.
    pub(in crate::shard) now: Timestamp,
    /// The bytes that hold the packets to handle, if these bytes can be shared.
    pub(in crate::shard) packets: Option<&'b Bytes>,
    /// The number of nodes of the retained store that it may still visit.
    pub(in crate::shard) nodes_left: usize,
    /// The number of Topic Filters that it may still handle.
    pub(in crate::shard) filters_left: usize,
    /// The packet that another piece of work continues, because no filters are left.
    pub(in crate::shard) asked: Option<Box<FiltersAsked>>,
    /// The durable session whose QoS 2 message is being routed.
    pub(in crate::shard) publisher: Option<SessionNumber>,
    /// The place in transit of a message from another shard; the shard that receives it next takes
    /// this place over.
    pub(in crate::shard) on_its_way: Option<QueuePlace>,
    /// Whether a message of a shared subscription went to another node.
    pub(in crate::shard) has_left_node: bool,
    /// Whether the connection that was read has settings, perhaps a rate.
    pub(in crate::shard) is_paced: bool,
    /// The span of the PUBLISH that is being handled, if that is traced.
    pub(in crate::shard) span: Option<Box<ReceiveSpan>>,
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
            filters_left: 0,
            asked: None,
            publisher: None,
            on_its_way: None,
            has_left_node: false,
            is_paced: false,
            span: None,
            properties: Vec::new(),
        }
    }

    /// Returns a piece of work that handles the bytes that a connection has read.
    pub(in crate::shard) const fn of_read(now: Timestamp) -> Self {
        let mut turn = Self::at(now);
        turn.nodes_left = NODES_AT_ONCE_MAX;
        turn.filters_left = FILTERS_AT_ONCE_MAX;
        turn
    }

    /// Returns whether one more Topic Filter may be handled, and counts it.
    pub(in crate::shard) const fn takes_filter(&mut self) -> bool {
        let takes = self.filters_left > 0;
        self.filters_left -= takes as usize;
        takes
    }
}
