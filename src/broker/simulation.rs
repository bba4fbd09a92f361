//! Several shards on one thread, with mail that is delivered when and in the order that a test
//! chooses, among the orders that the doors allow.
//!
//! Mail of one sender to one shard has an order, and no other mail. So the mail waits in a queue for
//! each pair of sender and shard, and the test takes the oldest message of one of these queues. Does
//! not know what the messages mean, nor in which order a test wants them.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use actix::Addr;
use tokio::sync::Notify;

pub use crate::between::door::Sender;
use crate::{
    actors::Registry,
    between::door::{ShardDoor, ToShard},
    router::{Homes, ShardNumber},
    shard::{connect::TakeClient, doors::ArrivalDoor},
};

/// Where mail comes from, and the shard to which it goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The sender.
    pub from: Sender,
    /// The number of the shard.
    pub to: u16,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            Sender::Shard(ShardNumber(from)) => write!(f, "shard {from} to {}", self.to),
            Sender::Application | Sender::Store | Sender::Listener | Sender::Cluster => {
                write!(f, "{:?} to {}", self.from, self.to)
            }
        }
    }
}

/// The shards of a broker that runs on one thread, and the mail that waits for them.
#[derive(Clone)]
pub struct SimulatedShards(Arc<Inner>);

impl fmt::Debug for SimulatedShards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimulatedShards").field(&self.waiting()).finish()
    }
}

struct Inner {
    homes: Homes,
    mail: Mutex<BTreeMap<Route, VecDeque<Letter>>>,
    posted: Notify,
}

/// A message, with what delivers it.
struct Letter {
    kind: &'static str,
    deliver: Box<dyn FnOnce() + Send>,
}

impl SimulatedShards {
    /// Returns this many shards; `seed` decides which of them is the home of a client identifier.
    #[must_use]
    pub fn new(shards: u16, seed: u64) -> Self {
        let homes = Homes { seed, shards: shards.max(1) };
        Self(Arc::new(Inner { homes, mail: Mutex::default(), posted: Notify::new() }))
    }

    /// Returns the number of the shard that is the home of a client identifier.
    #[must_use]
    pub fn home(&self, client_id: &str) -> u16 {
        self.0.homes.home(client_id).0
    }

    /// Returns the routes with waiting mail, and the kind of the oldest message of each.
    #[must_use]
    pub fn waiting(&self) -> Vec<(Route, &'static str)> {
        let mail = self.mail();
        mail.iter().filter_map(|(route, queue)| Some((*route, queue.front()?.kind))).collect()
    }

    /// Delivers the oldest message of a route; returns whether there was one.
    #[must_use]
    pub fn deliver(&self, route: Route) -> bool {
        let letter = self.mail().get_mut(&route).and_then(VecDeque::pop_front);
        letter.map(|letter| (letter.deliver)()).is_some()
    }

    /// Waits until mail is posted. Returns immediately if some was posted since the last call.
    pub async fn posted(&self) {
        self.0.posted.notified().await;
    }

    pub(super) fn homes(&self) -> Homes {
        self.0.homes
    }

    /// Returns the doors to a shard, through which all its mail waits for a test.
    pub(super) fn door(&self, shard: ShardNumber, registry: Addr<Registry>) -> SimulatedDoor {
        SimulatedDoor { shards: self.clone(), shard, registry }
    }

    fn mail(&self) -> std::sync::MutexGuard<'_, BTreeMap<Route, VecDeque<Letter>>> {
        self.0.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, from: Sender, to: ShardNumber, letter: Letter) {
        self.mail().entry(Route { from, to: to.0 }).or_default().push_back(letter);
        self.0.posted.notify_one();
    }
}

/// A door behind which mail waits.
#[derive(Clone)]
pub(super) struct SimulatedDoor {
    shards: SimulatedShards,
    shard: ShardNumber,
    registry: Addr<Registry>,
}

impl ShardDoor for SimulatedDoor {
    fn send(&self, from: Sender, message: ToShard) {
        let kind = match message {
            ToShard::Deliver(_) => "Deliver",
            ToShard::Stored(_) => "Stored",
            ToShard::TakeBacklog(_) => "TakeBacklog",
            ToShard::BacklogTaken(_) => "BacklogTaken",
            ToShard::BacklogWaits(_) => "BacklogWaits",
            ToShard::Refused(_) => "Refused",
            ToShard::Banned(_) => "Banned",
            ToShard::Receipts(_) => "Receipts",
            ToShard::Mail(_) => "Mail",
            ToShard::RoutesKnown(_) => "RoutesKnown",
            ToShard::RetainedWritten(..) => "RetainedWritten",
            ToShard::NoteRetained(_) => "NoteRetained",
            ToShard::RoutesApplied(_) => "RoutesApplied",
            ToShard::Moving(_) => "Moving",
        };
        let registry = self.registry.clone();
        let deliver = Box::new(move || registry.do_send(message));
        self.shards.post(from, self.shard, Letter { kind, deliver });
    }
}

impl ArrivalDoor for SimulatedDoor {
    fn bring(&self, arrival: TakeClient) {
        let registry = self.registry.clone();
        let deliver = Box::new(move || registry.do_send(arrival));
        self.shards.post(Sender::Listener, self.shard, Letter { kind: "TakeClient", deliver });
    }
}
