//! How a shard is reached by the others and by the store.
//!
//! A message through a door is taken up later, in the order in which it was sent. Its sender does not
//! know what stands behind the door: an actor in the broker, a queue in a test.

use std::sync::{Arc, atomic::AtomicUsize};

use crate::between::batch::{BacklogTaken, BacklogWaits, Deliver, Kept, TakeBacklog};

/// To a shard, from another one or from the store.
pub(crate) enum ToShard {
    /// Messages for its clients.
    Deliver(Deliver),
    /// Parts of its tickets are stored.
    Kept(Kept),
    /// A member of a shared subscription asks for what waits here.
    TakeBacklog(TakeBacklog),
    /// The answer.
    BacklogTaken(BacklogTaken),
    /// Something waits for a shared subscription of a client here.
    BacklogWaits(BacklogWaits),
}

/// Leads to a shard, from any thread.
pub(crate) trait ShardDoor: Send + Sync {
    fn send(&self, message: ToShard);
}

/// How the other shards reach one.
pub(crate) struct ShardHandle {
    pub(crate) door: Box<dyn ShardDoor>,
    /// Bytes of deliveries that were sent to it and that it has not taken up yet.
    pub(crate) bytes_waiting: Arc<AtomicUsize>,
}
