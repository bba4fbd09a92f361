//! Settings that hold for the later connections of a client too: records that a CONNECT looks up in
//! memory.
//!
//! Knows neither sessions nor connections; `presence` applies settings to them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};

use crate::{
    control::{ClientSettings, ControlError, ListSettings, SettingsChange, StickySettings},
    durable::StoredRecords,
    mqtt::Timestamp,
    records::{Expected, Put, Record, RecordKey, Records as _},
};

/// The namespace of the records. Their keys are this prefix and a Client Identifier; settings of a user
/// would have another prefix.
const NAMESPACE: &str = "settings";
const OF_CLIENT: &str = "c/";

/// The sticky settings of a broker.
pub(crate) struct StickyTable {
    records: Arc<StoredRecords>,
    /// Their number, so that a CONNECT looks up nothing where there are none.
    len: Arc<AtomicUsize>,
}

/// The content of a record, in JSON.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct StickyContent {
    session_expiry_secs: Option<u32>,
    message_rate: Option<u32>,
    byte_rate: Option<u32>,
    queue_messages_max: Option<u32>,
    queue_bytes_max: Option<u64>,
    in_flight_max: Option<u16>,
    by: Option<String>,
    at: u64,
}

impl StickyTable {
    pub(crate) fn new(records: Arc<StoredRecords>) -> Self {
        let len = records.count(NAMESPACE);
        Self { records, len }
    }

    /// Returns the settings of a client, as they were last stored.
    pub(crate) fn find(&self, client_id: &str) -> Option<StickySettings> {
        if self.len.load(Ordering::Acquire) == 0 {
            return None;
        }
        let name = name_of(client_id).ok()?;
        parse(&name, &self.records.committed(&name)?)
    }

    /// Changes the settings of a client; returns them once they are committed.
    ///
    /// # Errors
    /// A setting is out of its range, there are `sticky_max` clients with settings, the identifier is
    /// too long, or the store cannot be written.
    pub(crate) async fn change(
        &self,
        client_id: &str,
        (change, by): (&SettingsChange, Option<&str>),
        now: Timestamp,
        sticky_max: usize,
    ) -> Result<ClientSettings, ControlError> {
        let name = name_of(client_id)?;
        let former = self.records.committed(&name);
        let is_full = self.len.load(Ordering::Acquire) >= sticky_max;
        if is_full && former.is_none() {
            return Err(ControlError::TooManyOverrides);
        }
        let expected = match &former {
            None => Expected::Absent,
            Some(record) => Expected::At(record.revision),
        };
        let former = former.and_then(|record| parse(&name, &record));
        let settings = former.map(|former| former.settings).unwrap_or_default().changed_by(change);
        settings.check()?;
        let unavailable = |_| ControlError::Unavailable;
        if settings.is_empty() {
            self.records.remove(name, expected).await.map_err(unavailable)?;
            return Ok(settings);
        }
        let content = StickyContent {
            session_expiry_secs: settings.session_expiry_secs,
            message_rate: settings.message_rate,
            byte_rate: settings.byte_rate,
            queue_messages_max: settings.queue_messages_max,
            queue_bytes_max: settings.queue_bytes_max,
            in_flight_max: settings.in_flight_max,
            by: by.map(str::to_owned),
            at: now.millis(),
        };
        let value = serde_json::to_vec(&content).map_err(|_| ControlError::Unavailable)?;
        // Another call at the same time makes this one fail, so that no change of it is lost.
        self.records.put(Put::new(name, value).expecting(expected)).await.map_err(unavailable)?;
        Ok(settings)
    }

    /// Removes the settings of a client; returns whether there were any.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) async fn remove(&self, client_id: &str) -> Result<bool, ControlError> {
        let name = name_of(client_id)?;
        let existed = self.records.committed(&name).is_some();
        let removed = self.records.remove(name, Expected::Any).await;
        removed.map(|()| existed).map_err(|_| ControlError::Unavailable)
    }

    /// Returns some settings in the order of their Client Identifiers.
    pub(crate) async fn list(
        &self,
        question: &ListSettings,
    ) -> Result<Vec<StickySettings>, ControlError> {
        let limit = question.limit.min(ListSettings::LIMIT_MAX);
        let after = question.after.as_deref().map(|after| format!("{OF_CLIENT}{after}"));
        let found = self.records.list(NAMESPACE, after.as_deref(), limit).await;
        let found = found.map_err(|_| ControlError::Unavailable)?;
        Ok(found.iter().filter_map(|(name, record)| parse(name, record)).collect())
    }
}

fn name_of(client_id: &str) -> Result<RecordKey, ControlError> {
    let name = RecordKey::new(NAMESPACE, &format!("{OF_CLIENT}{client_id}"));
    name.ok_or(ControlError::ClientIdTooLong)
}

fn parse(name: &RecordKey, record: &Record) -> Option<StickySettings> {
    let client_id = name.key().strip_prefix(OF_CLIENT)?;
    let content: StickyContent = serde_json::from_slice(&record.value).ok()?;
    let change = SettingsChange {
        session_expiry_secs: Some(content.session_expiry_secs),
        message_rate: Some(content.message_rate),
        byte_rate: Some(content.byte_rate),
        queue_messages_max: Some(content.queue_messages_max),
        queue_bytes_max: Some(content.queue_bytes_max),
        in_flight_max: Some(content.in_flight_max),
    };
    let settings = ClientSettings::new().changed_by(&change);
    settings.check().ok()?; // An import may bring anything.
    let mut found = StickySettings::new(client_id, settings, content.at);
    found.by = content.by.map(Into::into);
    Some(found)
}
