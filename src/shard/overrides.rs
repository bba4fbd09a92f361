//! The Keep Alive overrides of all clients: records that a CONNECT looks up in memory.
//!
//! Knows neither sessions nor connections; `presence/keep_alive.rs` applies overrides to them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};

use crate::{
    control::{ControlError, KeepAliveOverride, ListOverrides},
    durable::StoredRecords,
    mqtt::Timestamp,
    records::{Expected, Put, Record, RecordKey, Records as _, RecordsError},
};

/// The namespace of the records; their keys are Client Identifiers.
const NAMESPACE: &str = "keep-alive";

/// The overrides of a broker.
pub(crate) struct OverrideTable {
    records: Arc<StoredRecords>,
    /// Their number, so that a CONNECT looks up nothing where there are none.
    len: Arc<AtomicUsize>,
}

/// The content of a record, in JSON.
#[derive(Deserialize, Serialize)]
struct OverrideContent<'a> {
    interval: u16,
    at: u64,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    by: Option<std::borrow::Cow<'a, str>>,
}

impl OverrideTable {
    pub(crate) fn new(records: Arc<StoredRecords>) -> Self {
        let len = records.count(NAMESPACE);
        Self { records, len }
    }

    /// Returns the override of a client, as it was last stored.
    pub(crate) fn find(&self, client_id: &str) -> Option<KeepAliveOverride> {
        if self.len.load(Ordering::Acquire) == 0 {
            return None;
        }
        let name = RecordKey::new(NAMESPACE, client_id)?;
        parse(&name, &self.records.committed(&name)?)
    }

    /// Stores an override; returns once it is committed.
    ///
    /// # Errors
    /// There are `overrides_max` of them, the identifier is too long, or the store cannot be written.
    pub(crate) async fn set(
        &self,
        wanted: &KeepAliveOverride,
        overrides_max: usize,
    ) -> Result<(), ControlError> {
        let name = name_of(&wanted.client_id)?;
        let is_full = self.len.load(Ordering::Acquire) >= overrides_max;
        if is_full && self.records.committed(&name).is_none() {
            return Err(ControlError::TooManyOverrides);
        }
        let content = OverrideContent {
            interval: wanted.interval_secs,
            at: wanted.set_at.millis(),
            by: wanted.by.as_deref().map(Into::into),
        };
        let value = serde_json::to_vec(&content).map_err(|_| ControlError::Unavailable)?;
        let mut put = Put::new(name, value);
        put.expires_at = wanted.expires_at;
        self.records.put(put).await.map(drop).map_err(failure)
    }

    /// Removes the override of a client; returns whether there was one.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) async fn remove(&self, client_id: &str) -> Result<bool, ControlError> {
        let name = name_of(client_id)?;
        let existed = self.records.committed(&name).is_some();
        self.records.remove(name, Expected::Any).await.map_err(failure)?;
        Ok(existed)
    }

    /// Returns some overrides in the order of their Client Identifiers.
    pub(crate) async fn list(
        &self,
        question: &ListOverrides,
    ) -> Result<Vec<KeepAliveOverride>, ControlError> {
        let limit = question.limit.min(ListOverrides::LIMIT_MAX);
        let found = self.records.list(NAMESPACE, question.after.as_deref(), limit).await;
        let found = found.map_err(failure)?;
        Ok(found.iter().filter_map(|(name, record)| parse(name, record)).collect())
    }
}

/// Returns when something ends that begins at `now` and has this time to live.
pub(crate) fn end_of(ttl_secs: Option<u32>, now: Timestamp) -> Option<Timestamp> {
    ttl_secs.map(|secs| now.plus_secs(u64::from(secs)))
}

fn name_of(client_id: &str) -> Result<RecordKey, ControlError> {
    RecordKey::new(NAMESPACE, client_id).ok_or(ControlError::ClientIdTooLong)
}

const fn failure(error: RecordsError) -> ControlError {
    match error {
        RecordsError::Conflict(_) | RecordsError::TooLong | RecordsError::Unavailable => {
            ControlError::Unavailable
        }
    }
}

fn parse(name: &RecordKey, record: &Record) -> Option<KeepAliveOverride> {
    let content: OverrideContent<'_> = serde_json::from_slice(&record.value).ok()?;
    let mut found = KeepAliveOverride::new(name.key(), content.interval, Timestamp(content.at));
    found.by = content.by.map(Into::into);
    found.expires_at = record.expires_at;
    // An import may bring anything; 0 would turn Keep Alive off.
    (found.interval_secs > 0).then_some(found)
}
