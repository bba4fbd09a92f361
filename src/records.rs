//! The records that an operator or a caller sets, and that a restart must not lose: redirects,
//! overrides, accounts. Several nodes will share them one day.
//!
//! Their users know this trait alone, and neither the store nor the other nodes behind it. An
//! application may have records of its own, in namespaces that begin with `app/`; all others belong
//! to the broker.

use async_trait::async_trait;

pub use crate::journal::{Record, RecordKey, Revision};
use crate::mqtt::Timestamp;

/// Stores records by namespace and key. Changes of one key have one order, and each has a higher
/// revision than all before it.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// Returns a record, as it was last committed.
    ///
    /// # Errors
    /// [`RecordsError::Unavailable`].
    async fn get(&self, name: &RecordKey) -> Result<Option<Record>, RecordsError>;

    /// Adds or replaces a record if its revision is the expected one. Returns the new revision once
    /// it is committed. If the caller stops waiting, the change may be committed all the same.
    ///
    /// # Errors
    /// Any [`RecordsError`]. After [`RecordsError::Unavailable`] the change may have been made.
    async fn put(&self, put: Put) -> Result<Revision, RecordsError>;

    /// Removes a record if its revision is the expected one. Returns once that is committed.
    /// Removing an absent record is no error, unless the caller expects a revision.
    ///
    /// # Errors
    /// [`RecordsError::Conflict`], or as for [`Records::put`].
    async fn remove(&self, name: RecordKey, expected: Expected) -> Result<(), RecordsError>;

    /// Returns the records of a namespace in the order of their keys, from the first key after
    /// `after` on, at most `limit`.
    ///
    /// # Errors
    /// [`RecordsError::Unavailable`].
    async fn list(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Record)>, RecordsError>;

    /// Follows the committed changes of a namespace from now on.
    fn watch(&self, namespace: &str) -> Watch;
}

/// A record to write.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Put {
    /// Which record.
    pub name: RecordKey,
    /// Its new content, at most [`VALUE_BYTES_MAX`].
    pub value: bytes::Bytes,
    /// The state in which the record must be now.
    pub expected: Expected,
    /// When the record ceases to exist; `None` if it does not end by itself.
    pub expires_at: Option<Timestamp>,
}

impl Put {
    /// Returns the request to write a record, whatever it is now, that does not end by itself.
    pub fn new(name: RecordKey, value: impl Into<bytes::Bytes>) -> Self {
        Self { name, value: value.into(), expected: Expected::Any, expires_at: None }
    }

    /// Sets the expected present state of the record.
    #[must_use]
    pub const fn expecting(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }

    /// Sets when the record ceases to exist.
    #[must_use]
    pub const fn expiring_at(mut self, at: Timestamp) -> Self {
        self.expires_at = Some(at);
        self
    }
}

/// The state in which a record must be for a change of it to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// Anything.
    Any,
    /// Absent, or expired.
    Absent,
    /// Of this revision.
    At(Revision),
}

/// Why a change of a record was not made, or a record not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsError {
    /// The record is another than expected; `None` if it is absent.
    #[error("the record was changed by another caller")]
    Conflict(Option<Revision>),
    /// The value is longer than 64 KiB.
    #[error("the value of a record has at most {VALUE_BYTES_MAX} bytes")]
    TooLong,
    /// Changes cannot be committed now.
    #[error("records cannot be stored now")]
    Unavailable,
}

/// Maximum bytes of the value of a record.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// Changes that a watch holds for its follower; one that falls further behind misses changes.
const WATCH_CHANGES_MAX: usize = 256;

/// A committed change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordChange {
    /// The record is now this one.
    Put(RecordKey, Record),
    /// The record is gone; the removal has a revision of its own.
    Removed(RecordKey, Revision),
    /// The follower was too slow and has missed changes: it must list the records again.
    Missed,
}

/// The committed changes of one namespace, in their order.
#[derive(Debug)]
pub struct Watch(tokio::sync::broadcast::Receiver<RecordChange>);

impl Watch {
    /// Waits for the next change; returns `None` once there will be no more.
    pub async fn next(&mut self) -> Option<RecordChange> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => Some(RecordChange::Missed),
            Err(tokio::sync::broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Sends the changes of one namespace to its watches.
pub(crate) struct Watched(tokio::sync::broadcast::Sender<RecordChange>);

impl Default for Watched {
    fn default() -> Self {
        Self(tokio::sync::broadcast::Sender::new(WATCH_CHANGES_MAX))
    }
}

impl Watched {
    pub(crate) fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }

    /// Tells all watches of a change.
    pub(crate) fn tell(&self, change: RecordChange) {
        let _ = self.0.send(change); // Without a follower, no one need be told.
    }
}
