//! The door between the driver of retained messages and NATS.
//!
//! Knows no client of NATS; `cluster/nats` implements it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use super::writes::{StreamWrite, WriteEnd};
use crate::cluster::{door::NatsAskError, names::Sequence};

/// An event that a follower of the stream receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetainedEvent {
    /// A message. Those that were replaced meanwhile may be left out; the last one of a topic never is.
    Entry {
        /// Its place in the stream.
        sequence: Sequence,
        /// Its encoding.
        payload: Bytes,
    },
    /// The end of what the stream had when the follower began. It has nothing up to this sequence that was not told.
    Current(Sequence),
    /// Another stream has taken the place of the one that was followed. Everything follows once more.
    Restarted,
}

/// The stream of retained messages: the last message of each topic, in one order.
#[async_trait]
pub trait RetainedLog: Send + Sync + 'static {
    /// Returns a number that another stream of the same name does not have.
    ///
    /// # Errors
    /// Any [`NatsAskError`].
    async fn retained_identity(&self, timeout: Duration) -> Result<u64, NatsAskError>;

    /// Follows the stream from the message after `after` on, in its order.
    fn follow_retained(&self, after: Sequence) -> BoxStream<'static, RetainedEvent>;

    /// Writes a message once. The same `id` within two minutes is written once.
    async fn write_retained(&self, write: StreamWrite, id: String, timeout: Duration) -> WriteEnd;

    /// Returns the maximum bytes of an encoded message.
    fn retained_bytes_max(&self) -> usize;
}
