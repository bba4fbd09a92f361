//! The Keep Alive overrides of all clients: records that a CONNECT looks up in memory.
//!
//! Knows neither sessions nor connections; `presence/keep_alive.rs` applies overrides to them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::table::{RecordTable, StickyBounds};
use crate::{
    control::{ControlError, KeepAliveOverride, ListOverrides},
    durable::StoredRecords,
    mqtt::Timestamp,
    records::{Expected, Put, Record, RecordKey},
};

/// The namespace of the records; their keys are Client Identifiers.
const NAMESPACE: &str = "keep-alive";

/// The overrides of a broker.
pub(crate) struct OverrideTable(RecordTable);

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
        Self(RecordTable::new(records, NAMESPACE, set_by))
    }

    /// Returns the override of a client, as it was last stored.
    pub(crate) fn find(&self, client_id: &str) -> Option<KeepAliveOverride> {
        if self.0.is_empty() {
            return None;
        }
        let name = self.0.name(client_id)?;
        parse(&name, &self.0.find(&name)?)
    }

    /// Stores an override; returns once it is committed.
    ///
    /// # Errors
    /// There is no room for it, the identifier is too long, or the store cannot be written.
    pub(crate) async fn set(
        &self,
        wanted: &KeepAliveOverride,
        bounds: &StickyBounds,
    ) -> Result<(), ControlError> {
        bounds.check_client_id(&wanted.client_id)?;
        let name = self.name_of(&wanted.client_id)?;
        let former = self.0.find(&name);
        let content = OverrideContent {
            interval: wanted.interval_secs,
            at: wanted.set_at.millis(),
            by: wanted.by.as_deref().map(Into::into),
        };
        let value = serde_json::to_vec(&content).map_err(|_| ControlError::Unavailable)?;
        let mut put = Put::new(name, value);
        put.expires_at = wanted.expires_at;
        self.0.put(put, former.as_ref(), bounds).await
    }

    /// Removes the override of a client; returns the one that was there.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) async fn remove(
        &self,
        client_id: &str,
    ) -> Result<Option<KeepAliveOverride>, ControlError> {
        let name = self.name_of(client_id)?;
        let former = self.0.remove(name.clone(), Expected::Any).await?;
        Ok(former.and_then(|record| parse(&name, &record)))
    }

    /// Returns some overrides in the order of their Client Identifiers.
    pub(crate) async fn list(
        &self,
        question: &ListOverrides,
    ) -> Result<Vec<KeepAliveOverride>, ControlError> {
        let limit = question.limit.min(ListOverrides::LIMIT_MAX);
        let found = self.0.list("", question.after.as_deref(), limit).await?;
        Ok(found.iter().filter_map(|(name, record)| parse(name, record)).collect())
    }

    fn name_of(&self, client_id: &str) -> Result<RecordKey, ControlError> {
        let bytes_max = RecordKey::KEY_BYTES_MAX;
        self.0.name(client_id).ok_or(ControlError::ClientIdTooLong { bytes_max })
    }
}

/// Returns the end of a time to live that begins at `now`; `None` if it has no end.
pub(crate) fn end_of(ttl_secs: Option<u32>, now: Timestamp) -> Option<Timestamp> {
    ttl_secs.map(|secs| now.plus_secs(u64::from(secs)))
}

/// Returns the user that set an override, from its record.
fn set_by(value: &[u8]) -> Option<Arc<str>> {
    let content: OverrideContent<'_> = serde_json::from_slice(value).ok()?;
    content.by.map(Into::into)
}

fn parse(name: &RecordKey, record: &Record) -> Option<KeepAliveOverride> {
    let content: OverrideContent<'_> = serde_json::from_slice(&record.value).ok()?;
    let mut found = KeepAliveOverride::new(name.key(), content.interval, Timestamp(content.at));
    found.by = content.by.map(Into::into);
    found.expires_at = record.expires_at;
    // An import may bring anything; 0 would turn Keep Alive off.
    (found.interval_secs > 0).then_some(found)
}
