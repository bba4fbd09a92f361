//! The retained messages of the whole cluster: one stream, which every node writes, follows and stores.
//!
//! `RetainedStream` is the end of the shards: they hand over messages that must be written. A thread of its own
//! writes them to NATS, and applies the messages of all nodes in the order of the stream.
//!
//! | file | what it does |
//! |---|---|
//! | `driver` | the thread: carries writes to NATS, and their outcomes to the shards |
//! | `driver/replay` | what the thread does with the messages of the stream, and how a node begins |
//! | `positions` | which of several messages of a topic is the last |
//! | `writes` | the order of writes, their repetition, and their deadlines |
//! | `door`, `entry` | what the stream promises; encodings |
//!
//! **A message is the retained one of its topic on all nodes when the stream has it.** Its sequence travels with the
//! mail, so that a later subscriber of another node finds it there. A node serves when it has applied what the
//! stream had at the beginning of its life. It stores how far it is, and goes on from there.

pub mod door;
mod driver;
mod entry;
pub mod positions;
pub mod writes;

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::entry::RetainedOwner;
pub use self::entry::{RetainedContent, RetainedEntry};
use self::{
    door::RetainedLog,
    driver::{JoinedRetained, RetainedDriver},
    positions::RetainedPositions,
};
use super::{
    names::{NodeId, Sequence},
    node::{ClusterNode, PreparedLife},
};
use crate::{
    between::retained::{AppliedRetained, RetainedOfCluster, RetainedOutcome, RetainedWrite},
    mqtt::{Message, Timestamp},
    owners::Owner,
    router::ShardNumber,
};

/// The retained messages of this broker, as the thread reaches them.
pub(crate) trait RetainedHere: Send {
    /// Returns the present time of the broker.
    fn now(&self) -> Timestamp;
    /// Retains a message, whatever the limits are.
    fn put(&self, message: Arc<Message>, owner: Option<&Owner>);
    /// Removes the message of a topic.
    fn clear(&self, topic: &str);
    /// Lets the store take changes that were made.
    fn note(&self, applied: AppliedRetained);
    /// Tells a shard the outcome of a write.
    fn tell(&self, shard: ShardNumber, number: u64, outcome: RetainedOutcome);
    /// Returns some messages behind a topic, and where to go on.
    fn page(&self, after: Option<&str>) -> LocalRetained;
    /// Returns what was saved last.
    fn load(&self) -> Option<Bytes>;
    /// Saves how far the stream is stored. Everything that was noted before must be stored with it.
    fn save(&self, place: Bytes) -> BoxFuture<'static, ()>;
}

/// Some of the retained messages of this broker.
pub(crate) struct LocalRetained {
    pub(crate) messages: Vec<(Arc<Message>, Option<Owner>)>,
    /// The topic behind which there may be more.
    pub(crate) go_on_after: Option<Box<str>>,
}

/// Something that the thread must do.
enum RetainedOrder {
    Write(RetainedWrite),
    /// The store has the changes of the next batch.
    Stored,
    Join(JoinedRetained),
}

/// The state that the thread and all others share.
#[derive(Debug, Default)]
pub(super) struct SharedRetained {
    /// Held while a retained message is replaced or removed in memory.
    positions: Mutex<RetainedPositions>,
    /// The sequence up to which the stream is applied.
    applied: AtomicU64,
    /// The highest sequence that this node has written.
    written: AtomicU64,
    /// The highest sequence that another node has written, as far as it has told.
    seen: AtomicU64,
    refused: AtomicU64,
    prepared: PreparedLife,
}

/// How far the stream of retained messages is written and applied, as the mail tells other nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RetainedMarks(Arc<SharedRetained>);

/// The state of the stream of retained messages, as this node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RetainedStatus {
    /// The sequence up to which this node has applied it.
    pub(crate) applied: u64,
    /// The difference to the highest sequence that is known to be written.
    pub(crate) lag: u64,
    /// Messages that could not be written.
    pub(crate) refused: u64,
}

/// The end of the shards.
#[derive(Clone)]
pub(crate) struct RetainedStream {
    orders: mpsc::UnboundedSender<RetainedOrder>,
    shared: Arc<SharedRetained>,
}

/// The other end, before its thread is started.
pub(crate) struct RetainedInbox(mpsc::UnboundedReceiver<RetainedOrder>);

impl SharedRetained {
    fn positions(&self) -> MutexGuard<'_, RetainedPositions> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RetainedMarks {
    /// Returns the highest sequence that this node has written. What it planned before is not above it.
    pub(super) fn written(&self) -> Sequence {
        Sequence(self.0.written.load(Ordering::Acquire))
    }

    /// Notes the highest sequence that another node has written.
    pub(super) fn note_seen(&self, sequence: Sequence) {
        self.0.seen.fetch_max(sequence.0, Ordering::AcqRel);
    }

    /// Returns the highest sequence that another node has written.
    pub(super) fn seen(&self) -> Sequence {
        Sequence(self.0.seen.load(Ordering::Acquire))
    }

    /// Returns how far this node has applied the stream.
    pub(super) fn applied(&self) -> Sequence {
        Sequence(self.0.applied.load(Ordering::Acquire))
    }
}

impl RetainedStream {
    /// Makes both ends.
    pub(crate) fn new() -> (Self, RetainedInbox) {
        let (orders, inbox) = mpsc::unbounded_channel();
        (Self { orders, shared: Arc::default() }, RetainedInbox(inbox))
    }

    /// Starts the thread. It ends when the value that is returned is dropped.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(
        &self,
        RetainedInbox(inbox): RetainedInbox,
        here: Box<dyn RetainedHere>,
    ) -> io::Result<oneshot::Sender<()>> {
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let driver =
            RetainedDriver::new(inbox, self.orders.clone(), Arc::clone(&self.shared), here);
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = driver.run() => {}
                    _ = ended => {}
                }
            });
        };
        thread::Builder::new().name("cluster-retained".to_owned()).spawn(run)?;
        Ok(end)
    }

    /// Lets it begin: NATS is reached, and the node has begun.
    pub(super) fn join(&self, door: Arc<dyn RetainedLog>, node: NodeId, cluster: &ClusterNode) {
        let joined = JoinedRetained { door, node, watch: cluster.watch() };
        drop(self.orders.send(RetainedOrder::Join(joined)));
    }

    /// Returns which life is prepared to serve.
    pub(super) fn prepared(&self) -> PreparedLife {
        Arc::clone(&self.shared.prepared)
    }

    /// Returns how far the stream is written and applied.
    pub(crate) fn marks(&self) -> RetainedMarks {
        RetainedMarks(Arc::clone(&self.shared))
    }

    /// Returns the state of the stream.
    pub(crate) fn status(&self) -> RetainedStatus {
        let marks = self.marks();
        let (applied, known) = (marks.applied(), marks.written().max(marks.seen()));
        RetainedStatus {
            applied: applied.0,
            lag: known.0.saturating_sub(applied.0),
            refused: self.shared.refused.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for RetainedStream {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("RetainedStream").finish_non_exhaustive()
    }
}

impl RetainedOfCluster for RetainedStream {
    fn write(&self, write: RetainedWrite) {
        // It fails only when the broker ends, and then nobody waits.
        drop(self.orders.send(RetainedOrder::Write(write)));
    }

    fn apply(&self, topic: &str, sequence: u64, change: &mut dyn FnMut()) {
        let mut positions = self.shared.positions();
        if positions.takes_directly(topic, Sequence(sequence)) {
            change();
        }
    }
}
