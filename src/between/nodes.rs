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

/// A place in the log of routes, of which the index of a shard has all entries up to there, and may have more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RoutesPlace(pub(crate) u64);

/// Tells all shards how far the index has the log of routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlanningRound {
    pub(crate) number: u64,
    pub(crate) place: RoutesPlace,
}

/// Where a session takes its messages while it moves between nodes. Both nodes decide by the place in the log of
/// routes with which the message was planned, so that exactly one of them takes it.
#[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "sessions move in a cluster"))]
pub(crate) enum MovingStep {
    /// Another node takes the messages that are planned from this place on.
    TakesBefore(Arc<str>, RoutesPlace),
    /// This node takes the messages that are planned from this place on.
    TakesFrom(Arc<str>, RoutesPlace),
    /// No message of an earlier place comes any more.
    Settled(Arc<str>),
}

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

    /// Notes that a shard has taken in this round: it plans with the place of the round, and has sent all messages that
    /// it had before.
    fn note_planning(&self, shard: ShardNumber, round: PlanningRound);
}

/// The messages that one turn of a shard has for other nodes, in their order.
pub(crate) struct OutgoingMail {
    pub(crate) shard: ShardNumber,
    /// The ticket that waits for them; `None` if the broker has no store.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) mails: Vec<MailToNodes>,
    /// The size of the messages in bytes, as limits count it.
    pub(crate) bytes: usize,
    /// The place in the log of routes with which they were planned.
    pub(crate) planned_with: RoutesPlace,
}

/// Nodes that have searched for a member of a shared subscription, by number. Nodes with higher numbers take part in
/// no search: a cluster has fewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VisitedNodes(u128);

impl VisitedNodes {
    /// Returns whether a node may search.
    pub(crate) fn may_visit(self, node: u32) -> bool {
        node < u128::BITS && self.0 & 1 << node == 0
    }

    /// Adds a node.
    pub(crate) fn add(&mut self, node: u32) {
        if node < u128::BITS {
            self.0 |= 1 << node;
        }
    }

    /// Returns the numbers of the nodes.
    pub(crate) fn numbers(self) -> impl Iterator<Item = u32> {
        (0..u128::BITS).filter(move |node| self.0 & 1 << node != 0)
    }
}

/// A shared subscription of which a node gives a message to one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupMail {
    /// Its whole Topic Filter, including `$share/`.
    pub(crate) filter: Arc<str>,
    /// The other nodes that have searched, and the one that searches next.
    pub(crate) visited: VisitedNodes,
    /// Whether this node has searched among all its members, and need not again.
    pub(crate) has_searched: bool,
}

/// A message for the nodes of its plan, or for one node of a shared subscription.
pub(crate) struct MailToNodes {
    pub(crate) message: Arc<Message>,
    pub(crate) plan: Arc<Plan>,
    /// The Client Identifier of its publisher; none for the application and the broker.
    pub(crate) publisher: Option<Arc<str>>,
    /// Its place among the retained messages, if it is one.
    pub(crate) retained: Option<RetainedMark>,
    /// The shared subscription, and the node that it is for; `None` if it is for the nodes of the plan.
    pub(crate) group: Option<(GroupMail, u32)>,
}

impl MailToNodes {
    /// Returns the numbers of the nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = u32> {
        let planned = match self.group {
            Some(_) => &[],
            None => self.plan.targets_at(Host::Nodes),
        };
        let one = self.group.as_ref().map(|(_, node)| *node);
        one.into_iter().chain(planned.iter().map(|target| target.place.slot))
    }
}

/// Messages of another node, in their order. All messages of one publisher come to the same shard.
pub(crate) struct ArrivedMail {
    pub(crate) mails: Vec<MailHere>,
    /// The size of the messages in bytes, as limits count it.
    pub(crate) bytes: usize,
    /// The place in the log of routes with which the node of their publishers has planned them.
    pub(crate) planned_with: RoutesPlace,
    /// Is called when they are stored, or delivered where nothing has to be stored.
    pub(crate) stored: MailStored,
}

/// A message of another node.
pub(crate) struct MailHere {
    pub(crate) message: Message,
    pub(crate) publisher: Option<Arc<str>>,
    /// Its place among the retained messages, if it is one.
    pub(crate) retained: Option<RetainedMark>,
    /// The shared subscription that it is for; `None` if it is for all other subscribers.
    pub(crate) group: Option<GroupMail>,
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
