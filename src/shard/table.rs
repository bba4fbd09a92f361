//! Records of one namespace that a CONNECT looks up in memory: what sticky values of all kinds have in
//! common.
//!
//! Knows no content: [`super::overrides`] and [`super::sticky`] write and read it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{
    control::ControlError,
    durable::StoredRecords,
    records::{Expected, Put, Record, RecordKey, Records as _, RecordsError},
};

/// The records of a namespace.
pub(super) struct RecordTable {
    records: Arc<StoredRecords>,
    namespace: &'static str,
    /// Their number, so that a CONNECT looks up nothing where there are none.
    len: Arc<AtomicUsize>,
}

impl RecordTable {
    pub(super) fn new(records: Arc<StoredRecords>, namespace: &'static str) -> Self {
        let len = records.count(namespace);
        Self { records, namespace, len }
    }

    /// Returns the name of a record; `None` if the key is too long.
    pub(super) fn name(&self, key: &str) -> Option<RecordKey> {
        RecordKey::new(self.namespace, key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    /// Returns a record, as it was last committed.
    pub(super) fn find(&self, name: &RecordKey) -> Option<Record> {
        self.records.committed(name)
    }

    /// Returns the record that a change replaces, if there is one.
    ///
    /// # Errors
    /// There is none, and there are `records_max` records already.
    pub(super) fn former(
        &self,
        name: &RecordKey,
        records_max: usize,
    ) -> Result<Option<Record>, ControlError> {
        let former = self.records.committed(name);
        let is_full = self.len.load(Ordering::Acquire) >= records_max;
        if is_full && former.is_none() {
            return Err(ControlError::TooManyOverrides);
        }
        Ok(former)
    }

    /// Stores a record; returns once it is committed.
    ///
    /// # Errors
    /// The record is another than expected, or the store cannot be written.
    pub(super) async fn put(&self, put: Put) -> Result<(), ControlError> {
        self.records.put(put).await.map(drop).map_err(failure)
    }

    /// Removes a record; returns whether there was one.
    ///
    /// # Errors
    /// The record is another than expected, or the store cannot be written.
    pub(super) async fn remove(
        &self,
        name: RecordKey,
        expected: Expected,
    ) -> Result<bool, ControlError> {
        let existed = self.records.committed(&name).is_some();
        self.records.remove(name, expected).await.map_err(failure)?;
        Ok(existed)
    }

    /// Returns some records whose keys begin with `prefix`, in the order of the keys, from the first
    /// one on whose rest comes after `after`.
    ///
    /// # Errors
    /// The records cannot be read.
    pub(super) async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Record)>, ControlError> {
        let after = format!("{prefix}{}", after.unwrap_or_default()); // No rest is empty.
        let found = self.records.list(self.namespace, Some(&after), limit).await;
        let mut found = found.map_err(failure)?;
        found.retain(|(name, _)| name.key().starts_with(prefix));
        Ok(found)
    }
}

const fn failure(error: RecordsError) -> ControlError {
    match error {
        RecordsError::Conflict(_) | RecordsError::TooLong | RecordsError::Unavailable => {
            ControlError::Unavailable
        }
    }
}
