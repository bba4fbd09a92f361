//! Retained messages of the whole cluster, as a shard and the driver of their stream exchange them.
//!
//! Knows neither NATS nor where the stream is: the driver is behind [`RetainedOfCluster`], and a broker without a
//! cluster has none.

use std::sync::Arc;

use crate::{journal::Change, mqtt::Message, owners::Owner, router::ShardNumber};

/// The stream of retained messages, as the shards of this node see it.
pub(crate) trait RetainedOfCluster: Send + Sync {
    /// Writes a message to the stream. Its shard is told the outcome later, in bounded time.
    fn write(&self, write: RetainedWrite);

    /// Calls `change` unless a later message of this topic was applied here. No other change of retained messages
    /// is made meanwhile.
    fn apply(&self, topic: &str, sequence: u64, change: &mut dyn FnMut());
}

/// A message to write. An empty payload removes the retained message of its topic.
pub(crate) struct RetainedWrite {
    pub(crate) message: Arc<Message>,
    /// The owner that it counts for; `None` for the broker's own.
    pub(crate) owner: Option<Owner>,
    pub(crate) shard: ShardNumber,
    /// The number that the shard gave it.
    pub(crate) number: u64,
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetainedOutcome {
    /// The stream has it under this sequence.
    Written(u64),
    /// It is larger than a message of NATS may be.
    TooLarge,
    /// The stream did not take it in time, or this node may not act.
    Unavailable,
}

/// The place of a message in the stream of retained messages, and its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RetainedMark {
    pub(crate) sequence: u64,
    pub(crate) owner: Option<Owner>,
}

/// Changes of retained messages that were applied in memory, for the store of this node.
pub(crate) struct AppliedRetained {
    pub(crate) changes: Vec<Change>,
    /// Is called when they are stored.
    pub(crate) stored: Box<dyn FnOnce() + Send>,
}
