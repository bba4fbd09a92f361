//! Records of one namespace that a CONNECT looks up in memory: the part that all kinds of sticky values share.
//!
//! Knows no content: [`super::overrides`] and [`super::sticky`] write and read it.

use std::sync::Arc;

use crate::{
    control::ControlError,
    durable::{
        FindSetBy, NoRoom, RecordAmount, RecordBounds, RecordTally, ReservedRoom, StoredRecords,
    },
    limits::Limits,
    records::{Expected, Put, Record, RecordKey, Records as _, RecordsError},
};

/// The records of a namespace.
pub(super) struct RecordTable {
    records: Arc<StoredRecords>,
    namespace: &'static str,
    /// The amounts of records. If there are none, a CONNECT looks up nothing.
    tally: Arc<RecordTally>,
}

impl RecordTable {
    pub(super) fn new(
        records: Arc<StoredRecords>,
        namespace: &'static str,
        find_set_by: FindSetBy,
    ) -> Self {
        let tally = records.tally(namespace, find_set_by);
        Self { records, namespace, tally }
    }

    /// Returns the name of a record; `None` if the key is too long.
    pub(super) fn name(&self, key: &str) -> Option<RecordKey> {
        RecordKey::new(self.namespace, key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tally.is_empty()
    }

    /// Returns a record, as it was last committed.
    pub(super) fn find(&self, name: &RecordKey) -> Option<Record> {
        self.records.committed(name)
    }

    /// Stores a record in place of the former one; returns once it is committed.
    ///
    /// # Errors
    /// There is no room for it, the record is another than expected, or the store cannot be written.
    pub(super) async fn put(
        &self,
        put: Put,
        former: Option<&Record>,
        bounds: &StickyBounds,
    ) -> Result<(), ControlError> {
        let _room = self.reserve(&put, former, bounds)?;
        self.records.put(put).await.map(drop).map_err(failure)
    }

    fn reserve(
        &self,
        put: &Put,
        former: Option<&Record>,
        bounds: &StickyBounds,
    ) -> Result<ReservedRoom, ControlError> {
        let reserved = self.tally.reserve(&put.name, former, &put.value, bounds.records);
        reserved.map_err(|no_room| match no_room {
            NoRoom::Full => ControlError::TooManyOverrides,
            NoRoom::ShareFull => ControlError::TooManyOverridesOfUser,
        })
    }

    /// Removes a record; returns the one that was there.
    ///
    /// # Errors
    /// The record is another than expected, or the store cannot be written.
    pub(super) async fn remove(
        &self,
        name: RecordKey,
        expected: Expected,
    ) -> Result<Option<Record>, ControlError> {
        let former = self.records.committed(&name);
        self.records.remove(name, expected).await.map_err(failure)?;
        Ok(former)
    }

    /// Returns some records whose keys begin with `prefix`, in the order of the keys: those whose remaining key is
    /// behind `after`.
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

/// The bounds of sticky values: the length of their names, and their number.
pub(crate) struct StickyBounds {
    client_id_bytes_max: usize,
    records: RecordBounds,
}

impl StickyBounds {
    /// Returns the bounds of these limits, with or without the share of one user.
    pub(crate) fn of(limits: &Limits, is_within_share: bool) -> Self {
        let all = RecordAmount {
            records: limits.keep_alive_overrides_max.into(),
            bytes: limits.keep_alive_override_bytes_max,
        };
        let share = RecordAmount {
            records: share_of(all.records, limits.keep_alive_overrides_per_user_max.into()),
            bytes: share_of(all.bytes, limits.keep_alive_override_bytes_per_user_max),
        };
        Self {
            client_id_bytes_max: limits.client_id_bytes_max.into(),
            records: RecordBounds { all, share: is_within_share.then_some(share) },
        }
    }

    /// Checks that a client with this identifier could connect.
    ///
    /// # Errors
    /// The identifier is too long.
    pub(crate) fn check_client_id(&self, client_id: &str) -> Result<(), ControlError> {
        let bytes_max = self.client_id_bytes_max;
        let fits = client_id.len() <= bytes_max;
        fits.then_some(()).ok_or(ControlError::ClientIdTooLong { bytes_max })
    }
}

/// Returns the share of one user: the configured one, or a quarter of all.
const fn share_of(all: u64, configured: u64) -> u64 {
    if configured == 0 { all.div_ceil(4) } else { configured }
}

const fn failure(error: RecordsError) -> ControlError {
    match error {
        RecordsError::Conflict(_) | RecordsError::TooLong | RecordsError::Unavailable => {
            ControlError::Unavailable
        }
    }
}
