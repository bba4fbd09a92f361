//! Values that a shard and the other nodes of the cluster send to each other.
//!
//! Knows neither NATS nor how mail travels: the driver of the mail is behind [`OtherNodes`], and a broker
//! without a cluster has none.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    between::retained::{RetainedMark, RetainedOfCluster},
    journal::Ticket,
    mqtt::Message,
    router::{Host, Plan, ShardNumber},
};

/// The other nodes, as the shards of this node see them.
pub(crate) trait OtherNodes: Send + Sync {
    /// Takes the messages of one turn. For each node that gets one of QoS 1 or 2, one part of the ticket is
    /// reported as stored later.
    fn send(&self, mail: OutgoingMail);

    /// Returns whether so much waits for a node that publishers must wait.
    fn is_congested(&self) -> bool;

    /// Reports to a shard when the other nodes know the filters of a SUBSCRIBE.
    fn await_routes(&self, awaited: AwaitedRoutes);

    /// Returns the retained messages of the cluster.
    fn retained(&self) -> &dyn RetainedOfCluster;
}

/// The messages that one turn of a shard has for other nodes, in their order.
pub(crate) struct OutgoingMail {
    pub(crate) shard: ShardNumber,
    /// The ticket that waits for them; `None` if the broker has no store.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) mails: Vec<MailToNodes>,
    /// The size of the messages in bytes, as limits count it.
    pub(crate) bytes: usize,
}

/// A message for the nodes of its plan.
pub(crate) struct MailToNodes {
    pub(crate) message: Arc<Message>,
    pub(crate) plan: Arc<Plan>,
    /// The Client Identifier of its publisher; none for the application and the broker.
    pub(crate) publisher: Option<Arc<str>>,
    /// Its place among the retained messages, if it is one.
    pub(crate) retained: Option<RetainedMark>,
}

impl MailToNodes {
    /// Returns the numbers of the nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = u32> {
        self.plan.targets_at(Host::Nodes).iter().map(|target| target.place.slot)
    }
}

/// Messages of another node, in their order. All messages of one publisher come to the same shard.
pub(crate) struct ArrivedMail {
    pub(crate) mails: Vec<MailHere>,
    /// The size of the messages in bytes, as limits count it.
    pub(crate) bytes: usize,
    /// Is called when they are stored, or delivered where nothing has to be stored.
    pub(crate) stored: MailStored,
}

/// A message of another node.
pub(crate) struct MailHere {
    pub(crate) message: Message,
    pub(crate) publisher: Option<Arc<str>>,
    /// Its place among the retained messages, if it is one.
    pub(crate) retained: Option<RetainedMark>,
}

/// Tells the driver of the mail that messages are stored.
pub(crate) type MailStored = Box<dyn FnOnce() + Send>;

/// A SUBSCRIBE whose answer waits until the other nodes know its filters.
pub(crate) struct AwaitedRoutes {
    pub(crate) shard: ShardNumber,
    pub(crate) slot: u32,
    pub(crate) filters: Vec<Box<str>>,
    pub(crate) known: RoutesKnown,
}

/// Whether the other nodes know the filters of a SUBSCRIBE, or have not applied them in time.
#[derive(Clone, Default)]
pub(crate) struct RoutesKnown(Arc<AtomicBool>);

impl RoutesKnown {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}
