//! Mail between the nodes of a cluster: messages, and the filters that say which node gets which.
//!
//! [`NodeMail`] is the end of the shards: they hand over messages for other nodes, and SUBSCRIBEs whose answer
//! waits. A thread of its own carries both over NATS, and brings the messages of other nodes to the shards.
//!
//! | file | what it does |
//! |---|---|
//! | `driver` | the thread: carries what the other files ask for to NATS, and the results back |
//! | `peers` | lanes to other nodes, and what waits for them |
//! | `arrivals` | what other nodes send, until the shards have stored it |
//! | `filters` | the filters of all nodes, and SUBACKs that wait for them |
//! | `planning` | rounds that tell all shards how far the log of routes is applied |
//! | `cuts` | the places in the log at which sessions change their node |
//! | `content`, `hello` | encodings |
//!
//! A message has reached a node when this node has stored it for its sessions: then the part of the publisher's
//! ticket is done. A message that was sent is sent again until then, also to a later life of the node. The
//! receiver drops what it had: within a lane by the sequence, beyond it by the name of the message.

mod arrivals;
mod content;
mod cuts;
mod driver;
mod filters;
mod hello;
mod peers;
mod planning;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use tokio::sync::{mpsc, oneshot};

use self::driver::{JoinedNats, MailDriver};
use super::{
    door::Nats,
    lanes::PartNumber,
    names::{ClientKey, NodeId},
    node::{ClusterNode, PreparedLife},
    retaining::{RetainedMarks, RetainedStream},
    routes::TakenSession,
    session_routes::{MoveOver, SessionRoutes},
};
use crate::{
    between::{
        door::ShardHandle,
        nodes::{AwaitedRoutes, OtherNodes, OutgoingMail, PlanningRound},
        retained::RetainedOfCluster,
    },
    clock::Clock,
    router::{Homes, ShardNumber},
};

/// Maximum bytes of messages that the shards have handed over and the thread has not taken.
const HANDED_OVER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The broker, as the thread of the mail reaches it.
pub(crate) struct MailHost {
    pub(crate) shards: Arc<[ShardHandle]>,
    pub(crate) homes: Homes,
    pub(crate) clock: Clock,
    /// Adds a filter that the node with this number has to the index, or removes it.
    pub(crate) change_route: Box<ChangeRoute>,
    pub(crate) retained: RetainedMarks,
}

/// Adds a filter that the node with this number has to the index, or removes it.
pub(crate) type ChangeRoute = dyn Fn(&str, u32, bool) + Send;

/// The mail with one other node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerMail {
    pub(crate) messages_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) bytes_received: u64,
    /// Items that it has not acknowledged.
    pub(crate) unacknowledged: u64,
    /// Messages that did not reach it.
    pub(crate) dropped: u64,
}

/// The mail of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MailStatus {
    pub(crate) peers: BTreeMap<NodeId, PeerMail>,
    /// SUBACKs that were sent before each node had applied the filter.
    pub(crate) subacks_early: u64,
}

/// Something that the thread must do.
enum MailOrder {
    Send(OutgoingMail),
    Await(AwaitedRoutes),
    /// The first subscriber of this node has a filter, or the last one has lost it.
    Wanted(Box<str>, bool),
    /// A shard has stored its part of a batch of a node.
    Stored(NodeId, u64),
    /// Messages that dead nodes did not take are stored: these parts of tickets are done.
    Done(Vec<PartNumber>),
    Join(JoinedNats),
    /// A shard has taken in a round.
    Planning(ShardNumber, PlanningRound),
    Move(SessionMove),
}

/// A session moves between nodes.
enum SessionMove {
    Offer(TakenSession, Arc<str>, MoveOver),
    Take(TakenSession, Arc<str>),
    Keep(ClientKey),
}

/// The state that the thread and all others share.
#[derive(Debug, Default)]
struct SharedMail {
    /// Bytes of messages that the thread has not taken.
    handed_over: AtomicUsize,
    /// Whether too much waits for a node.
    is_congested: AtomicBool,
    prepared: PreparedLife,
    status: Mutex<MailStatus>,
}

/// The end of the shards.
#[derive(Clone)]
pub(crate) struct NodeMail {
    orders: mpsc::UnboundedSender<MailOrder>,
    shared: Arc<SharedMail>,
    retained: RetainedStream,
}

/// The other end, before its thread is started.
pub(crate) struct MailInbox(mpsc::UnboundedReceiver<MailOrder>);

impl NodeMail {
    /// Makes both ends.
    pub(crate) fn new(retained: RetainedStream) -> (Self, MailInbox) {
        let (orders, inbox) = mpsc::unbounded_channel();
        (Self { orders, shared: Arc::default(), retained }, MailInbox(inbox))
    }

    /// Notes that the first subscriber of this node has a filter, or the last one has lost it.
    pub(crate) fn note_wanted(&self, filter: &str, is_wanted: bool) {
        drop(self.orders.send(MailOrder::Wanted(filter.into(), is_wanted)));
    }

    /// Starts the thread. It ends when the value that is returned is dropped.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(
        &self,
        MailInbox(inbox): MailInbox,
        host: MailHost,
    ) -> io::Result<oneshot::Sender<()>> {
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let driver = MailDriver::new(inbox, self.orders.clone(), Arc::clone(&self.shared), host);
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = driver.run() => {}
                    _ = ended => {}
                }
            });
        };
        thread::Builder::new().name("cluster-mail".to_owned()).spawn(run)?;
        Ok(end)
    }

    /// Lets the mail begin: NATS is reached, and the node has begun.
    pub(super) fn join(&self, door: Arc<dyn Nats>, node: NodeId, cluster: &ClusterNode) {
        let joined = JoinedNats { door, node, watch: cluster.watch() };
        drop(self.orders.send(MailOrder::Join(joined)));
    }

    /// Returns where the mail notes which life is prepared to serve.
    pub(super) fn prepared(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.prepared)
    }

    /// Returns the mail of this node, as it was a short time ago.
    pub(crate) fn status(&self) -> MailStatus {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for NodeMail {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("NodeMail")
    }
}

impl OtherNodes for NodeMail {
    fn send(&self, mail: OutgoingMail) {
        self.shared.handed_over.fetch_add(mail.bytes, Ordering::Relaxed);
        drop(self.orders.send(MailOrder::Send(mail)));
    }

    fn is_congested(&self) -> bool {
        self.shared.is_congested.load(Ordering::Relaxed)
            || self.shared.handed_over.load(Ordering::Relaxed) > HANDED_OVER_BYTES_MAX
    }

    fn await_routes(&self, awaited: AwaitedRoutes) {
        let known = awaited.known.clone();
        if self.orders.send(MailOrder::Await(awaited)).is_err() {
            known.set(); // The broker is ending.
        }
    }

    fn retained(&self) -> &dyn RetainedOfCluster {
        &self.retained
    }

    fn note_planning(&self, shard: ShardNumber, round: PlanningRound) {
        drop(self.orders.send(MailOrder::Planning(shard, round)));
    }
}

impl SessionRoutes for NodeMail {
    fn offer(&self, session: TakenSession, client_id: Arc<str>, over: MoveOver) {
        self.tell_move(SessionMove::Offer(session, client_id, over));
    }

    fn take(&self, session: TakenSession, client_id: Arc<str>) {
        self.tell_move(SessionMove::Take(session, client_id));
    }

    fn keep(&self, key: ClientKey) {
        self.tell_move(SessionMove::Keep(key));
    }
}

impl NodeMail {
    fn tell_move(&self, step: SessionMove) {
        drop(self.orders.send(MailOrder::Move(step)));
    }
}
