//! Durable state: the trait of stores, and their implementations.
//!
//! A store applies changes and returns the resulting state. It knows no running sessions, actors or
//! sockets.

#[cfg(feature = "directory-store")]
mod directory;
mod error;
mod memory;

use std::sync::Arc;

#[cfg(feature = "directory-store")]
pub use directory::{DirectoryStore, Examination, Kind, NewStore, StoreOptions, StoreSnapshot};
pub use error::StoreError;
pub use memory::MemoryStore;

pub use crate::{
    history::{
        ClientHistory, ConnectionEnd, ConnectionNotes, ConnectionRecord, HistoryShare, HistoryTidy,
    },
    journal::{
        CertificateRecord, Change, LoginKey, LoginKind, LoginRecord, QueuePlace, QueuedMessage,
        Record, RecordKey, Revision, SentAs, SessionNumber, SessionRecord, SubscriptionRecord,
        WillRecord,
    },
    owners::Owner,
};

use crate::mqtt::{Message, PacketId, QoS, Timestamp};

/// Stores the state that must survive a restart of the broker.
///
/// One thread applies changes, in groups; any thread may read. A group is applied completely or not
/// at all, and is visible to reads that begin afterwards. Applying a group again changes nothing.
/// Changes of unknown sessions and of unused queue positions are ignored.
pub trait Store: Send + Sync + 'static {
    /// Applies changes in their order, all or none.
    ///
    /// # Errors
    /// If the changes could not be applied, or not with this `durability`. They may or may not
    /// exist after a restart, and must be applied again once the store can be written.
    fn apply(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError>;

    /// Makes all applied changes durable.
    ///
    /// # Errors
    /// If they could not be made durable.
    fn sync(&self) -> Result<(), StoreError>;

    /// Tries to make the store usable again after [`Store::apply`] has failed.
    ///
    /// # Errors
    /// If the store is still unusable.
    fn recover(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Returns whether there is ample room for new data.
    fn has_room(&self) -> bool {
        true
    }

    /// Returns the size of the store's disk in bytes, if it has one.
    fn disk_bytes_in_all(&self) -> Option<u64> {
        None
    }

    /// Returns whether changes are applied without blocking, so that the caller needs no separate
    /// thread.
    fn is_immediate(&self) -> bool {
        false
    }

    /// Returns the counters to continue from.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn bounds(&self) -> Result<Bounds, StoreError>;

    /// Calls `each` for every session.
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    fn sessions(&self, each: &mut dyn FnMut(StoredSession)) -> Result<(), StoreError>;

    /// Calls `each` for every retained message.
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    fn retained(&self, each: &mut dyn FnMut(StoredRetained)) -> Result<(), StoreError>;

    /// Calls `each` for every pair of user and address with a successful login, and the time of the
    /// last login that was noted, in no order.
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    fn logins(&self, each: &mut dyn FnMut(LoginKey, Timestamp)) -> Result<(), StoreError>;

    /// Calls `each` for every record, in the order of the keys.
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    fn records(&self, each: &mut dyn FnMut(RecordKey, Record)) -> Result<(), StoreError>;

    /// Returns the history of a client; `None` if it has none. A store without histories has the
    /// provided implementation, and ignores their changes.
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    fn history(&self, _client_id: &str) -> Result<Option<ClientHistory>, StoreError> {
        Ok(None)
    }

    /// Calls `each` for the history of every client, in no order.
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    fn histories(&self, _each: &mut dyn FnMut(ClientHistory)) -> Result<(), StoreError> {
        Ok(())
    }

    /// Returns the unacknowledged sent messages of a session, in the order in which they were sent.
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    fn in_flight(&self, session: SessionNumber) -> Result<Vec<StoredInFlight>, StoreError>;

    /// Returns the unsent messages of a session from position `from` on, in their order. The page
    /// bounds limit their number, but at least one is returned if there is one.
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    fn waiting(
        &self,
        session: SessionNumber,
        from: QueuePlace,
        page: PageBounds,
    ) -> Result<Vec<(QueuePlace, QueuedMessage)>, StoreError>;
}

/// How durable changes must be when [`Store::apply`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives a power cut.
    Synced,
    /// Survives the end of the process, but a power cut only after the next [`Store::sync`].
    Written,
}

/// Limits of one read of a queue.
#[derive(Clone, Copy, Debug)]
pub struct PageBounds {
    /// Maximum number of messages.
    pub messages_max: usize,
    /// Maximum bytes of messages.
    pub bytes_max: usize,
}

/// The counters that a broker continues from. All are 0 in a new store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The highest reserved presence version.
    pub versions: u64,
    /// No stored session has a higher number.
    pub session: u64,
    /// No stored message, queued, retained or in a Will, has a higher number.
    pub message: u64,
    /// A lower bound of the broker's clock.
    pub clock: Timestamp,
    /// The highest revision of a change of records.
    pub revision: Revision,
}

/// A stored session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// The number of the session.
    pub number: SessionNumber,
    /// The record of the session.
    pub record: SessionRecord,
    /// The subscriptions, in no order.
    pub subscriptions: Vec<(Box<str>, SubscriptionRecord)>,
    /// Packet Identifiers of accepted but unreleased QoS 2 messages from the client.
    pub accepted: Vec<PacketId>,
    /// The Will.
    pub will: Option<WillRecord>,
    /// The unsent messages.
    pub waiting: Backlog,
    /// Number of unacknowledged sent messages.
    pub in_flight: usize,
    /// Bytes of those messages that are still needed.
    pub in_flight_bytes: usize,
    /// The last used position in the queue, sent or unsent; 0 if there is none.
    pub last_place: QueuePlace,
}

/// A stored retained message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRetained {
    /// The message.
    pub message: Arc<Message>,
    /// The owner; `None` for messages of the broker, and of versions before owners were stored.
    pub owner: Option<Owner>,
}

/// The amount of queued messages of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Number of messages.
    pub messages: usize,
    /// Their bytes, as the sum of [`Message::size`].
    pub bytes: usize,
    /// Number of messages with QoS 0.
    pub at_most_once: usize,
    /// The position of the first message, if there is one.
    pub first: Option<QueuePlace>,
    /// None of them expires before, if any does.
    pub expires_first: Option<Timestamp>,
}

impl Backlog {
    /// Counts one more, which lies behind those before it.
    pub(crate) fn add(&mut self, place: QueuePlace, weight: &Weight) {
        self.messages += 1;
        self.bytes += weight.size;
        self.at_most_once += usize::from(weight.qos == QoS::AtMostOnce);
        self.first = self.first.or(Some(place));
        self.expires_first = match (self.expires_first, weight.expires_at) {
            (Some(first), Some(at)) => Some(first.min(at)),
            (first, at) => first.or(at),
        };
    }
}

/// The amounts that count for a message that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) qos: QoS,
    pub(crate) size: usize,
    /// When it expires, or a time before that.
    pub(crate) expires_at: Option<Timestamp>,
}

/// A sent message that is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredInFlight {
    /// The position in the queue.
    pub place: QueuePlace,
    /// How it was sent.
    pub sent: SentAs,
    /// The message; `None` after PUBREC.
    pub message: Option<QueuedMessage>,
}
