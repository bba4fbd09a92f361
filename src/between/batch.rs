//! The mail between shards: messages for sessions of another shard, reports of what is stored,
//! and requests between members of a shared subscription.
//!
//! Knows no shard: the sender fills these, and the receiver handles them in the order sent.

use std::sync::Arc;

use crate::{
    between::{
        nodes::RoutesPlace,
        parcel::{Packed, Parcel},
        search::{Given, Search},
    },
    flow::StoreLoad,
    journal::{QueuePlace, Ticket},
    mqtt::{self, ReceiptCall},
    router::{Host, Place, Plan, ShardNumber},
    session::Accepts,
    spans::MessageTrace,
};

/// Deliveries from another shard, in the order in which that shard published them.
#[derive(Default)]
pub(crate) struct Deliver {
    pub(crate) deliveries: Vec<RemoteDelivery>,
    /// The messages that no queue and no retained topic holds yet.
    pub(crate) parcel: Parcel,
    /// One plan for consecutive messages that share it, because both shards write its reference
    /// counter.
    pub(crate) plans: Vec<Arc<Plan>>,
    /// The size of these deliveries in bytes, as limits count it.
    pub(crate) bytes: usize,
    /// Whether some of them are for durable sessions.
    pub(crate) is_awaited: bool,
    /// Bytes of the changes that the receiving shard will make for them.
    pub(crate) announced: usize,
    /// The same, for the owner whose packets cause them, until the changes are made.
    pub(crate) load: Option<StoreLoad>,
    /// The ticket that waits until they are stored.
    pub(crate) awaited: Option<Awaited>,
    /// The place in the log of routes with which they were planned: of a cluster.
    pub(crate) planned_with: RoutesPlace,
}

impl Deliver {
    /// Returns how many sessions of a host these targets are, at most.
    pub(crate) fn targets_of(&self, to: &RemoteTargets, host: Host) -> usize {
        match to {
            RemoteTargets::Planned(at)
            | RemoteTargets::Awaited(at, _)
            | RemoteTargets::Traced(at, _) => {
                self.plans.get(*at).map_or(0, |plan| plan.targets_at(host).len())
            }
            RemoteTargets::Shared(..) => 1,
        }
    }
}

/// One message for sessions of another shard.
pub(crate) struct RemoteDelivery {
    pub(crate) message: RemoteMessage,
    pub(crate) publisher: Option<Place>,
    pub(crate) to: RemoteTargets,
    /// Its place among the messages in transit, if it has one; the receiving shard gives it up when it stores the
    /// message.
    pub(crate) on_its_way: Option<QueuePlace>,
}

/// Where the message itself is.
pub(crate) enum RemoteMessage {
    Allocated(Arc<mqtt::Message>),
    /// The next message in the parcel.
    Packed(Packed),
}

pub(crate) enum RemoteTargets {
    /// All targets on that shard in the plan with this index in the batch.
    Planned(usize),
    /// The same; a call waits for the outcome of each delivery.
    Awaited(usize, ReceiptCall),
    /// The same; the deliveries are part of a trace.
    Traced(usize, Arc<MessageTrace>),
    /// A member of a shared subscription; the receiving shard continues the search for it.
    Shared(Arc<Plan>, Search),
}

/// Tells a shard that one part of each of these tickets is stored.
pub(crate) struct Stored {
    pub(crate) tickets: Vec<Ticket>,
    /// Whether the store has stored it, and not another shard.
    pub(crate) is_by_store: bool,
}

/// Asks the shard of a member with a backlog of its group to give this many messages to another
/// member, which could send them at once. A member asks one at a time.
pub(crate) struct TakeBacklog {
    /// The shared subscription.
    pub(crate) filter: Arc<str>,
    pub(crate) holder: Place,
    pub(crate) taker: Place,
    pub(crate) messages: usize,
    pub(crate) accepts: Accepts,
    /// Members that have nothing for a taker in this process.
    pub(crate) passed: Vec<Place>,
}

/// Answers the shard of a member that asked for a backlog, once the given messages are on their
/// way.
pub(crate) struct BacklogTaken {
    pub(crate) filter: Arc<str>,
    pub(crate) holder: Place,
    pub(crate) taker: Place,
    pub(crate) given: Given,
}

/// Tells the shard of a member that a backlog of its group waits at another member. Sent once, when
/// the backlog begins.
pub(crate) struct BacklogWaits {
    pub(crate) member: Place,
    pub(crate) filter: Arc<str>,
}

/// The shard and ticket to tell when something is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Awaited {
    pub(crate) shard: ShardNumber,
    pub(crate) ticket: Ticket,
}
