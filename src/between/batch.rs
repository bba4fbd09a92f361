//! What travels between shards: messages for sessions elsewhere, word of what is stored, and what
//! members of a shared subscription ask each other for.
//!
//! Knows no shard: the sender fills these, and the receiver takes them up in the order sent.

use std::sync::Arc;

use crate::{
    between::{
        parcel::{Packed, Parcel},
        search::{Given, Search},
    },
    journal::{QueuePlace, Ticket},
    mqtt,
    router::{Host, Place, Plan},
    session::Accepts,
};

/// Deliveries from another shard, in the order in which they were published there.
#[derive(Default)]
pub(crate) struct Deliver {
    pub(crate) deliveries: Vec<RemoteDelivery>,
    /// The messages that nobody keeps yet.
    pub(crate) parcel: Parcel,
    /// One for all messages that follow each other with the same: both shards write its counter.
    pub(crate) plans: Vec<Arc<Plan>>,
    /// What they count.
    pub(crate) bytes: usize,
    /// Some of them are for durable sessions.
    pub(crate) is_awaited: bool,
    /// Which ticket waits until they are kept.
    pub(crate) awaited: Option<Awaited>,
}

/// One message for sessions of another shard.
pub(crate) struct RemoteDelivery {
    pub(crate) message: RemoteMessage,
    pub(crate) publisher: Option<Place>,
    pub(crate) to: RemoteTargets,
    /// Its place in the outbox, if it has one: to be given up with what is kept of it here.
    pub(crate) on_its_way: Option<QueuePlace>,
}

/// Where the message itself is.
pub(crate) enum RemoteMessage {
    Kept(Arc<mqtt::Message>),
    /// The next one in the parcel.
    Packed(Packed),
}

pub(crate) enum RemoteTargets {
    /// All targets at that shard of the plan with this place among those of the batch.
    Planned(usize),
    /// A member of a shared subscription, who is to be found from here on.
    Shared(Arc<Plan>, Search),
}

/// To a shard: one part of each of these tickets is kept.
pub(crate) struct Kept {
    pub(crate) tickets: Vec<Ticket>,
    /// By the store, and not by another shard.
    pub(crate) is_by_store: bool,
}

/// To the shard of a member that has something waiting for its group: give it to another, which would be
/// sent this number at once. A member asks one at a time.
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

/// To the shard of a member: what it has asked for is on its way.
pub(crate) struct BacklogTaken {
    pub(crate) filter: Arc<str>,
    pub(crate) holder: Place,
    pub(crate) taker: Place,
    pub(crate) given: Given,
}

/// To the shard of a member: something waits for its group with another. One when that begins.
pub(crate) struct BacklogWaits {
    pub(crate) member: Place,
    pub(crate) filter: Arc<str>,
}

/// Who is told when a ticket is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Awaited {
    pub(crate) host: Host,
    pub(crate) ticket: Ticket,
}
