//! A snapshot of a store, readable during writes.

use std::{fmt, sync::Arc};

use super::{database::Database, read, view::View};
use crate::{
    history::ClientHistory,
    journal::{LoginKey, QueuePlace, QueuedMessage, Record, RecordKey, SessionNumber},
    mqtt::Timestamp,
    store::{Bounds, PageBounds, StoreError, StoredInFlight, StoredRetained, StoredSession},
};

/// The state of a [`DirectoryStore`](super::DirectoryStore) at one moment, unaffected by later
/// changes.
pub struct StoreSnapshot {
    database: Arc<Database>,
    snapshot: fjall::Snapshot,
}

impl StoreSnapshot {
    pub(super) fn new(database: Arc<Database>) -> Self {
        let snapshot = database.snapshot();
        Self { database, snapshot }
    }

    fn view(&self) -> View<'_> {
        View::of(&self.database, self.snapshot.clone())
    }

    /// Returns the same as [`Store::bounds`](crate::store::Store::bounds).
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn bounds(&self) -> Result<Bounds, StoreError> {
        read::bounds(&self.view())
    }

    /// Reads the same as [`Store::sessions`](crate::store::Store::sessions).
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    pub fn sessions(&self, each: &mut dyn FnMut(StoredSession)) -> Result<(), StoreError> {
        read::sessions(&self.view(), each)
    }

    /// Reads the same as [`Store::retained`](crate::store::Store::retained).
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    pub fn retained(&self, each: &mut dyn FnMut(StoredRetained)) -> Result<(), StoreError> {
        read::retained(&self.view(), each)
    }

    /// Reads the same as [`Store::logins`](crate::store::Store::logins).
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    pub fn logins(&self, each: &mut dyn FnMut(LoginKey, Timestamp)) -> Result<(), StoreError> {
        read::logins(&self.view(), each)
    }

    /// Reads the same as [`Store::records`](crate::store::Store::records).
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    pub fn records(&self, each: &mut dyn FnMut(RecordKey, Record)) -> Result<(), StoreError> {
        read::records(&self.view(), each)
    }

    /// Reads the same as [`Store::histories`](crate::store::Store::histories).
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    pub fn histories(&self, each: &mut dyn FnMut(ClientHistory)) -> Result<(), StoreError> {
        read::histories(&self.view(), each)
    }

    /// Returns the same as [`Store::in_flight`](crate::store::Store::in_flight).
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    pub fn in_flight(&self, session: SessionNumber) -> Result<Vec<StoredInFlight>, StoreError> {
        read::in_flight(&self.view(), session)
    }

    /// Returns the same as [`Store::waiting`](crate::store::Store::waiting).
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    pub fn waiting(
        &self,
        session: SessionNumber,
        from: QueuePlace,
        page: PageBounds,
    ) -> Result<Vec<(QueuePlace, QueuedMessage)>, StoreError> {
        read::waiting(&self.view(), session, from, page)
    }
}

impl fmt::Debug for StoreSnapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StoreSnapshot").finish_non_exhaustive()
    }
}
