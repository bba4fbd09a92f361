//! How other shards and the store reach a shard.
//!
//! A shard handles messages later. Those of one sender arrive in the order in which it sent them;
//! messages of different senders have no order. The sender does not know what is behind the door:
//! an actor in the broker, a queue in a test.

use std::sync::{Arc, atomic::AtomicUsize};

use crate::{
    between::{
        batch::{BacklogTaken, BacklogWaits, Deliver, Stored, TakeBacklog},
        nodes::{ArrivedMail, MovingStep, PlanningRound},
        retained::{AppliedRetained, RetainedOutcome},
    },
    hooks::{ClientBanned, ClientRefused},
    mqtt::{DeliveryCounts, ReceiptCall},
    router::ShardNumber,
};

/// A message to a shard, from another shard, another node or the store.
pub(crate) enum ToShard {
    /// Messages for its clients.
    Deliver(Deliver),
    /// Parts of its tickets are stored.
    Stored(Stored),
    /// A member of a shared subscription asks for the backlog that waits here.
    TakeBacklog(TakeBacklog),
    /// The answer to [`TakeBacklog`].
    BacklogTaken(BacklogTaken),
    /// A backlog waits for a shared subscription of a client here.
    BacklogWaits(BacklogWaits),
    /// A connection was refused.
    Refused(Box<ClientRefused>),
    /// A client, user or network was banned.
    Banned(Box<ClientBanned>),
    /// The outcomes of deliveries that calls wait for here.
    Receipts(Vec<(ReceiptCall, DeliveryCounts)>),
    /// Messages of another node for its clients.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "only the driver of a cluster sends it")
    )]
    Mail(ArrivedMail),
    /// The other nodes know the filters for which the SUBACK of this slot waits.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "only the driver of a cluster sends it")
    )]
    RoutesKnown(u32),
    /// The outcome of a retained message of this number.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "only the driver of a cluster sends it")
    )]
    RetainedWritten(u64, RetainedOutcome),
    /// Retained messages of the cluster for the store.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "only the driver of a cluster sends it")
    )]
    NoteRetained(AppliedRetained),
    /// The index has the log of routes up to here.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "only the driver of a cluster sends it")
    )]
    RoutesApplied(PlanningRound),
    /// A session moves between nodes.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "only the driver of a cluster sends it")
    )]
    Moving(MovingStep),
}

/// The sender of a message to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sender {
    /// Another shard.
    Shard(ShardNumber),
    /// The application that embeds the broker.
    Application,
    /// The thread that writes the store.
    Store,
    /// A listener, which accepts connections.
    Listener,
    /// The driver of the mail between the nodes of a cluster.
    Cluster,
}

/// Leads to a shard, from any thread.
pub(crate) trait ShardDoor: Send + Sync {
    fn send(&self, from: Sender, message: ToShard);
}

/// How the other shards reach a shard.
pub(crate) struct ShardHandle {
    pub(crate) door: Box<dyn ShardDoor>,
    /// Bytes of deliveries that were sent to the shard and that it has not handled yet.
    pub(crate) bytes_waiting: Arc<AtomicUsize>,
}
