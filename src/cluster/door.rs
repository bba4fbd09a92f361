//! The door between the core of the cluster and NATS: the requests of the core, and the promises of NATS.
//!
//! The core has no I/O: it returns requests and takes results in. The driver carries them through a
//! [`Nats`]. Knows no client of NATS; `cluster/nats` implements it, and the simulated world has a
//! stand-in with the same promises.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use super::names::{Bucket, Log, NodeId, RequestNumber, Sequence};
use crate::journal::Revision;

/// An address of a node in NATS core. A node that has fenced itself has another incarnation, and so
/// another address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// Mail of one sender: `{prefix}.node.{node}.{incarnation}.mail`.
    Mail(NodeId),
    /// Questions with answers: `{prefix}.node.{node}.{incarnation}.ask`.
    Ask(NodeId),
    /// Questions about clients, with answers: `{prefix}.node.{node}.{incarnation}.clients`.
    Clients(NodeId),
    /// The subject that every node listens to: `{prefix}.all`.
    All,
}

/// An entry of a bucket. A removed one has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketEntry {
    /// The key.
    pub key: String,
    /// Counts the changes of the bucket.
    pub revision: Revision,
    /// The value; `None` after a removal.
    pub value: Option<Bytes>,
}

/// An event that a follower of a bucket receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BucketEvent {
    /// The state of a key, in the order of revisions. States that were replaced meanwhile may be left
    /// out; the last state of a key never is.
    Entry(BucketEntry),
    /// The end of what the bucket had when the follower began. Exactly once for each watch, also after
    /// a reconnect.
    Current,
}

/// An event that a follower of a log receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The node on whose subject it is.
    pub node: NodeId,
    /// Its place in the whole log.
    pub sequence: Sequence,
    /// Its content.
    pub payload: Bytes,
}

/// Why a write was not made, or is not known to be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NatsWriteError {
    /// The key has another revision than expected, and nothing was written. The revision is there if
    /// the answer named it.
    #[error("the key was changed by another node")]
    Conflict(Option<Revision>),
    /// No answer in time, the connection was lost, or the stream has no quorum: the write may be made
    /// now, later or never.
    #[error("the outcome of the write is not known")]
    Unknown,
    /// NATS refused it before it could be made, for example for a permission or a limit.
    #[error("the write was refused: {0}")]
    Refused(String),
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NatsAskError {
    /// No answer in time. The question may have been handled.
    #[error("no answer in time")]
    Timeout,
    /// NATS knows no subscriber of the subject, or there is no connection to NATS. The question was not
    /// handled.
    #[error("the node cannot be reached")]
    Unreachable,
}

/// A question of another node, with the place for the answer.
#[derive(Debug)]
pub struct AskedQuestion {
    /// The question.
    pub payload: Bytes,
    /// Where the answer goes.
    pub reply_to: String,
}

/// NATS, as the cluster needs it. Only [`Nats::update`] and [`Nats::append`] decide anything: a read may
/// return an old state.
#[async_trait]
pub trait Nats: Send + Sync + 'static {
    /// Writes a key if its revision is `expected`; revision 0 is an absent or removed key. Returns the
    /// new revision once a quorum has it.
    ///
    /// # Errors
    /// Any [`NatsWriteError`]. It does not repeat a write by itself.
    async fn update(
        &self,
        bucket: Bucket,
        key: &str,
        value: Bytes,
        expected: Revision,
        timeout: Duration,
    ) -> Result<Revision, NatsWriteError>;

    /// Removes a key if its revision is `expected`. The removal has a revision of its own.
    ///
    /// # Errors
    /// As [`Nats::update`].
    async fn remove(
        &self,
        bucket: Bucket,
        key: &str,
        expected: Revision,
        timeout: Duration,
    ) -> Result<Revision, NatsWriteError>;

    /// Returns a state that the key has or had; `None` if it was never seen by the server that
    /// answers.
    ///
    /// # Errors
    /// Any [`NatsAskError`].
    async fn read(
        &self,
        bucket: Bucket,
        key: &str,
        timeout: Duration,
    ) -> Result<Option<BucketEntry>, NatsAskError>;

    /// Follows a bucket: its present content, [`BucketEvent::Current`], then its changes, without a gap
    /// over reconnects. It ends only when the door closes.
    fn watch(&self, bucket: Bucket) -> BoxStream<'static, BucketEvent>;

    /// Appends to a log. The same `id` within two minutes is appended once; the answer to a repetition
    /// is the sequence of the first.
    ///
    /// # Errors
    /// Any [`NatsWriteError`] except a conflict.
    async fn append(
        &self,
        log: Log,
        node: &NodeId,
        id: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Sequence, NatsWriteError>;

    /// Follows a log from the entry after `after` on, in its order and without a gap. Entries that were
    /// cut off are left out.
    fn follow(&self, log: Log, after: Sequence) -> BoxStream<'static, LogEntry>;

    /// Cuts the entries of a node before `before` off the log.
    ///
    /// # Errors
    /// Any [`NatsWriteError`] except a conflict. It may be repeated.
    async fn cut(&self, log: Log, node: &NodeId, before: Sequence) -> Result<(), NatsWriteError>;

    /// Sends mail: at most once, in the order of one sender while its connection lives. Returns when it
    /// is handed over to the connection; an error means that it was not.
    ///
    /// # Errors
    /// [`NatsAskError::Unreachable`].
    async fn publish(
        &self,
        to: &Address,
        incarnation: u64,
        payload: Bytes,
    ) -> Result<(), NatsAskError>;

    /// Receives mail for the address of this node, in the order of each sender.
    fn subscribe(&self, at: &Address, incarnation: u64) -> BoxStream<'static, Bytes>;

    /// Asks a node.
    ///
    /// # Errors
    /// Any [`NatsAskError`].
    async fn ask(
        &self,
        to: &NodeId,
        incarnation: u64,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, NatsAskError>;

    /// Receives the questions to this node.
    fn questions(&self, node: &NodeId, incarnation: u64) -> BoxStream<'static, AskedQuestion>;

    /// Asks a node about clients.
    ///
    /// # Errors
    /// Any [`NatsAskError`].
    async fn call(
        &self,
        to: &NodeId,
        incarnation: u64,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, NatsAskError>;

    /// Receives the questions about clients to this node.
    fn calls(&self, node: &NodeId, incarnation: u64) -> BoxStream<'static, AskedQuestion>;

    /// Answers a question. The answer may be lost.
    ///
    /// # Errors
    /// [`NatsAskError::Unreachable`].
    async fn answer(&self, question: &AskedQuestion, payload: Bytes) -> Result<(), NatsAskError>;

    /// Returns the maximum bytes of one message of NATS core, of the server connected to.
    fn payload_bytes_max(&self) -> usize;
}

/// A write to a key that the core asks for. Its result goes back with the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyWrite {
    /// The number of the request.
    pub request: RequestNumber,
    /// The bucket.
    pub bucket: Bucket,
    /// The key.
    pub key: String,
    /// Its new value.
    pub value: Bytes,
    /// The revision that it must have now.
    pub expected: Revision,
}
