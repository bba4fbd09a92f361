//! What the broker remembers beyond its own end: the trait, and the stores that come with it.
//!
//! A store applies changes and tells what has become of them. It knows nothing of sessions that
//! run, of actors or of sockets.

mod directory;
mod error;
mod memory;

use std::sync::Arc;

pub use directory::{DirectoryStore, Examination, Kind, StoreOptions, StoreSnapshot};
pub use error::StoreError;
pub use memory::MemoryStore;

use crate::{
    journal::{
        Change, LoginKey, QueuePlace, QueuedMessage, SentAs, SessionNumber, SessionRecord,
        SubscriptionRecord, WillRecord,
    },
    mqtt::{Message, PacketId, Timestamp},
    owners::Owner,
};

/// Keeps what must survive the broker.
///
/// One thread applies changes, in groups; any thread reads. A group is applied whole or not at all,
/// and what is applied is seen by reads that begin afterwards. Applying a group once more changes
/// nothing. What comes for a session that is not there, and what is said of a place in a queue
/// that is not taken, is ignored.
pub trait Store: Send + Sync + 'static {
    /// Applies changes in their order, all or none.
    ///
    /// # Errors
    /// If they could not be applied, or not made durable as far as `durability` asks: they may be
    /// there after a restart or not, and are to be applied again once the store can be written.
    fn apply(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError>;

    /// Makes durable what was applied so far.
    ///
    /// # Errors
    /// If it could not be made durable.
    fn sync(&self) -> Result<(), StoreError>;

    /// Tries to make the store usable again after [`Store::apply`] has failed.
    ///
    /// # Errors
    /// If it is not usable yet.
    fn recover(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether there is room for much more than was applied so far.
    fn has_room(&self) -> bool {
        true
    }

    /// The size of the disk that it lies on, in bytes, if it lies on one.
    fn disk_bytes_in_all(&self) -> Option<u64> {
        None
    }

    /// Whether changes cost no wait, so that they may be applied where they arise instead of on a
    /// thread of their own.
    fn is_immediate(&self) -> bool {
        false
    }

    /// The numbers to go on from.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn bounds(&self) -> Result<Bounds, StoreError>;

    /// Tells of all sessions, one by one.
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    fn sessions(&self, each: &mut dyn FnMut(StoredSession)) -> Result<(), StoreError>;

    /// Tells of all retained messages, one by one.
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    fn retained(&self, each: &mut dyn FnMut(StoredRetained)) -> Result<(), StoreError>;

    /// Tells of all pairs of user and address that were right, with the time of the last login that
    /// was noted, in no order.
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    fn logins(&self, each: &mut dyn FnMut(LoginKey, Timestamp)) -> Result<(), StoreError>;

    /// What was sent to a session and is not acknowledged, in the order in which it was sent.
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    fn in_flight(&self, session: SessionNumber) -> Result<Vec<StoredInFlight>, StoreError>;

    /// The first messages that wait for a session unsent, from this place on, in their order: as
    /// many as there are, up to these bounds, but one at least if there is one.
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

/// How far changes must be kept when [`Store::apply`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives a cut of power.
    Synced,
    /// Survives the end of the process; a cut of power as far as [`Store::sync`] was called since.
    Written,
}

/// How much of a queue is read at a time.
#[derive(Clone, Copy, Debug)]
pub struct PageBounds {
    /// Messages.
    pub messages_max: usize,
    /// Bytes of messages.
    pub bytes_max: usize,
}

/// The numbers that a broker goes on from. All are 0 in a new store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The highest presence version that was ever reserved.
    pub versions: u64,
    /// No session that is there has a higher number.
    pub session: u64,
    /// No message that is there, queued, retained or in a Will, has a higher number.
    pub message: u64,
    /// What the clock showed at least.
    pub clock: Timestamp,
}

/// A session as it is found in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Its number.
    pub number: SessionNumber,
    /// The session itself.
    pub record: SessionRecord,
    /// Its subscriptions, in no order.
    pub subscriptions: Vec<(Box<str>, SubscriptionRecord)>,
    /// QoS 2 messages of the client that were accepted and not released.
    pub accepted: Vec<PacketId>,
    /// Its Will.
    pub will: Option<WillRecord>,
    /// Messages that wait unsent.
    pub waiting: Backlog,
    /// How many were sent and are not acknowledged.
    pub in_flight: usize,
    /// The bytes of those whose message is still needed.
    pub in_flight_bytes: usize,
    /// The last place that is taken in its queue, sent or unsent; 0 if there is none.
    pub last_place: QueuePlace,
}

/// A retained message as it is found in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRetained {
    /// The message.
    pub message: Arc<Message>,
    /// Whose it is; `None` for the broker's own, and for what an earlier version has stored.
    pub owner: Option<Owner>,
}

/// How much waits for a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages.
    pub messages: usize,
    /// Their bytes, [`Message::size`] of each.
    pub bytes: usize,
    /// How many of them have QoS 0.
    pub at_most_once: usize,
    /// The place of the first of them, if there is one.
    pub first: Option<QueuePlace>,
}

/// A message that was sent and is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredInFlight {
    /// Its place in the queue.
    pub place: QueuePlace,
    /// How it was sent.
    pub sent: SentAs,
    /// The message; `None` once PUBREC has come.
    pub message: Option<QueuedMessage>,
}
