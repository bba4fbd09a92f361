//! The ownership of client identifiers over a real NATS: the driver of `owners.rs`.
//!
//! ```text
//!  handshake ── claim ──▶ driver ── read, compare-and-set ──▶ NATS
//!      ▲                   │  ▲
//!      └── HeldClient ─────┘  └── release, confirmed ── drivers of other nodes
//!                          │
//!                          ▼ OwnedSessions: hand a session over, end all connections
//!                        shards
//! ```
//!
//! The driver has a thread of its own, and lives one life for each incarnation of the node. Between two lives, all
//! connections end (`OwnedSessions::fence`), before the node may serve again. A client that this incarnation holds
//! connects again without the driver.
//!
//! The previous holder keeps a session that it has handed over until the claimant has stored it and confirmed the
//! record, all nodes have its new routes, and the messages that came meanwhile are there too (`moves`).
//!
//! | file | what it does |
//! |---|---|
//! | `held` | the clients of this node, for all threads |
//! | `driver` | the lives, one after the other |
//! | `life` | one life: its inputs |
//! | `moved`, `moves` | the messages that follow a session: the state, and its steps |
//! | `steps` | carries out the steps of the core |
//! | `parts` | sessions that are larger than one message of NATS |
//! | `copy` | the form in which a session travels |

pub mod copy;
mod driver;
mod held;
mod life;
mod moved;
mod moves;
mod parts;
mod steps;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use self::held::HeldTable;
pub use self::{driver::OwnerDriver, held::HeldClient};
use super::{
    door::Nats,
    names::{ClientKey, NodeId, Term},
    node::{ActingLease, NodeStatus},
    owner_record::{ConnectNumber, ConnectRefusal},
    session_routes::SessionRoutes,
};
use crate::clock::Clock;

/// The sessions of the broker, as the driver reaches them. A call takes its place in the order of the shard before it
/// returns, and completes when the store has its result.
pub trait OwnedSessions: Send + Sync {
    /// Ends the connection of a client by Session taken over. Returns its session if it can be handed over; it stays
    /// until it is dropped. Otherwise it ends.
    fn offer(&self, client_id: &Arc<str>) -> BoxFuture<'static, OfferedSession>;

    /// Stores a session that another node has handed over, in the place of one that lies here; returns whether it is
    /// stored.
    fn adopt(&self, copy: Bytes) -> BoxFuture<'static, bool>;

    /// Ends a session without a connection. `has_moved`: another node has it, with its Will and its messages.
    fn drop_session(&self, client_id: &Arc<str>, has_moved: bool) -> BoxFuture<'static, ()>;

    /// Reads messages of a session without a connection, from this place of its queue on, when all that came so far are
    /// stored. `None`: they cannot be read now.
    fn rest(&self, client_id: &Arc<str>, from: u64) -> BoxFuture<'static, Option<RestRead>>;

    /// Adds messages of the former holder to a session that has come from it; returns whether they are stored.
    fn append(&self, client_id: &Arc<str>, copy: Bytes, kind: RestKind)
    -> BoxFuture<'static, bool>;

    /// Delivers the messages that a session holds for those of its former holder.
    fn give_up_order(&self, client_id: &Arc<str>);

    /// Ends all connections, because this life of the node has ended.
    fn fence(&self) -> BoxFuture<'static, ()>;

    /// Returns the clients whose sessions outlive their connections.
    fn lasting(&self) -> BoxFuture<'static, Vec<Arc<str>>>;
}

/// The session of a client that another node has claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferedSession {
    /// The session as it travels, and the place of the first message that it does not have.
    Copy(Bytes, u64),
    /// There is none any more.
    Nothing,
    /// It is there, and cannot be read now.
    Unreadable,
}

/// Messages that follow a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestRead {
    /// The messages as they travel.
    pub copy: Bytes,
    /// The place behind them.
    pub next: u64,
    /// Whether there are none.
    pub is_last: bool,
}

/// How messages of a former holder are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestKind {
    /// Whether there are no more.
    pub is_last: bool,
    /// Whether the session must be the one that has come: this life of the node has taken it.
    pub is_marked: bool,
}

/// An input of the driver. Its channel has at most one message for each CONNECT that waits, and for each client that
/// was admitted.
pub(super) enum OwnerCommand {
    /// A CONNECT waits for its claim.
    Connect(WaitingClaim),
    /// The socket of a CONNECT is closed.
    Gone(ClientKey, ConnectNumber),
    /// The client has neither a connection nor a session.
    Ended(ClientKey),
    /// The term of the client has no more versions.
    VersionsSpent(ClientKey),
    /// A session has left to this node by a claim of this term, and no message for it comes here any more.
    Left(ClientKey, Term, NodeId),
}

/// The node whose client identifiers the driver owns.
pub struct OwnersOfNode {
    /// The door to NATS.
    pub door: Arc<dyn Nats>,
    /// Its name.
    pub node: NodeId,
    /// Its view of itself and the others.
    pub status: watch::Receiver<NodeStatus>,
    /// The sessions of its broker.
    pub sessions: Arc<dyn OwnedSessions>,
    /// The routes of sessions that move.
    pub(super) routes: Arc<dyn SessionRoutes>,
}

impl fmt::Debug for OwnersOfNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnersOfNode").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The parts that all lives of the driver use.
struct OwnerParts {
    of: OwnersOfNode,
    lease: ActingLease,
    held: Arc<HeldTable>,
    commands: mpsc::UnboundedSender<OwnerCommand>,
    clock: Clock,
}

/// A CONNECT that waits for its claim.
pub(super) struct WaitingClaim {
    client_id: Arc<str>,
    number: ConnectNumber,
    answer: oneshot::Sender<Result<Arc<HeldClient>, ConnectRefusal>>,
}

impl WaitingClaim {
    fn refuse(self, why: ConnectRefusal) {
        let _ = self.answer.send(Err(why)); // The socket may be closed.
    }
}

/// The client identifiers of this node, for handshakes. It exists before the node has joined, and refuses then.
#[derive(Clone)]
pub struct ClientOwnership {
    lease: ActingLease,
    held: Arc<HeldTable>,
    commands: mpsc::UnboundedSender<OwnerCommand>,
    numbers: Arc<AtomicU64>,
}

impl fmt::Debug for ClientOwnership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOwnership").field("may_act", &self.may_act()).finish_non_exhaustive()
    }
}

impl ClientOwnership {
    /// Returns the ownership of a node with these leases, and its driver, which is started when NATS is reached.
    #[must_use]
    pub fn new(lease: ActingLease) -> (Self, OwnerDriver) {
        let (commands, commanded) = mpsc::unbounded_channel();
        let held = Arc::new(HeldTable::default());
        let driver =
            OwnerDriver::new(lease.clone(), Arc::clone(&held), (commands.clone(), commanded));
        (Self { lease, held, commands, numbers: Arc::default() }, driver)
    }

    /// Returns whether something may leave for a client now.
    #[must_use]
    pub fn may_act(&self) -> bool {
        self.lease.may_act()
    }

    /// Returns whether this node has a connection or a session of a client that it owns, and may act.
    pub(in crate::cluster) fn holds(&self, key: ClientKey) -> bool {
        self.held.find(key).is_some()
    }

    /// Returns whether a client has been claimed a short time ago, so that CONNACK may follow.
    pub(in crate::cluster) fn is_arriving(&self, key: ClientKey) -> bool {
        self.held.is_arriving(key)
    }

    /// Claims a client identifier. Dropping the future tells the driver that the socket is closed.
    pub fn claim(
        &self,
        client_id: &Arc<str>,
    ) -> BoxFuture<'static, Result<Arc<HeldClient>, ConnectRefusal>> {
        if !self.may_act() {
            return Box::pin(std::future::ready(Err(ConnectRefusal::Unavailable)));
        }
        let key = ClientKey::of(client_id);
        if let Some(held) = self.held.find(key) {
            return Box::pin(std::future::ready(Ok(held)));
        }
        let number = ConnectNumber(self.numbers.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        let waiting = WaitingClaim { client_id: Arc::clone(client_id), number, answer };
        let mut open = OpenClaim { key, number, commands: Some(self.commands.clone()) };
        // Without a driver, the broker ends, and the answer is dropped.
        let _ = self.commands.send(OwnerCommand::Connect(waiting));
        Box::pin(async move {
            let outcome = answered.await;
            open.close();
            outcome.unwrap_or(Err(ConnectRefusal::Unavailable))
        })
    }
}

/// Tells the driver when a CONNECT no longer waits.
struct OpenClaim {
    key: ClientKey,
    number: ConnectNumber,
    /// `None` after the answer.
    commands: Option<mpsc::UnboundedSender<OwnerCommand>>,
}

impl OpenClaim {
    fn close(&mut self) {
        self.commands = None;
    }
}

impl Drop for OpenClaim {
    fn drop(&mut self) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(OwnerCommand::Gone(self.key, self.number));
        }
    }
}
