//! Settings that hold for the later connections of a client, or of all clients of a user: records that
//! a CONNECT looks up in memory.
//!
//! Knows neither sessions nor connections; `presence` applies settings to them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::table::{RecordTable, StickyBounds};
use crate::{
    control::{
        ClientSettings, ControlError, ListSettings, SettingsChange, SettingsOf, StickySettings,
    },
    durable::StoredRecords,
    mqtt::Timestamp,
    records::{Expected, Put, Record, RecordKey},
};

/// The namespace of the records. Their keys are one of these prefixes, and a Client Identifier or a
/// user name.
const NAMESPACE: &str = "settings";
const OF_CLIENT: &str = "c/";
const OF_USER: &str = "u/";

/// The sticky settings of a broker.
pub(crate) struct StickyTable(RecordTable);

/// The settings of a connection, by their origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SettingsLayers {
    /// The settings of the client: sticky ones, and those that were changed for this connection.
    pub(crate) own: ClientSettings,
    /// The settings of its user.
    pub(crate) of_user: ClientSettings,
}

impl SettingsLayers {
    /// Returns the settings in force: those of the client replace those of its user.
    pub(crate) fn in_force(&self) -> ClientSettings {
        self.own.over(&self.of_user)
    }
}

/// Settings before and after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SettingsStep {
    pub(crate) before: ClientSettings,
    pub(crate) after: ClientSettings,
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
        Self(RecordTable::new(records, NAMESPACE, set_by))
    }

    /// Returns the settings of a client or a user, as they were last stored.
    pub(crate) fn find(&self, of: &SettingsOf) -> Option<StickySettings> {
        if self.0.is_empty() {
            return None;
        }
        let name = self.name_of(of).ok()?;
        parse(&name, &self.0.find(&name)?)
    }

    /// Returns the settings with which a connection of a client begins; empty ones if there are none.
    pub(crate) fn layers(&self, client_id: &Arc<str>, user: Option<&Arc<str>>) -> SettingsLayers {
        if self.0.is_empty() {
            return SettingsLayers::default();
        }
        let of_client = self.find(&SettingsOf::Client(client_id.clone()));
        SettingsLayers {
            own: of_client.map(|found| found.settings).unwrap_or_default(),
            of_user: user.map(|user| self.of_user(user)).unwrap_or_default(),
        }
    }

    /// Returns the settings of a user; empty ones if there are none.
    pub(crate) fn of_user(&self, username: &Arc<str>) -> ClientSettings {
        let found = self.find(&SettingsOf::User(username.clone()));
        found.map(|found| found.settings).unwrap_or_default()
    }

    /// Changes the settings of a client or a user; returns the former and the new ones once these are committed.
    ///
    /// # Errors
    /// A setting is out of its range, there is no room for the record, the name is too long, or the
    /// store cannot be written.
    pub(crate) async fn change(
        &self,
        of: &SettingsOf,
        (change, by): (&SettingsChange, Option<&str>),
        now: Timestamp,
        bounds: &StickyBounds,
    ) -> Result<SettingsStep, ControlError> {
        // Checked before the table is searched, because a longer identifier cannot have a record.
        if let SettingsOf::Client(client_id) = of {
            bounds.check_client_id(client_id)?;
        }
        let name = self.name_of(of)?;
        // The revision that the caller's change is based on.
        let former = self.0.find(&name);
        let expected = match &former {
            None => Expected::Absent,
            Some(record) => Expected::At(record.revision),
        };
        let found = former.as_ref().and_then(|record| parse(&name, record));
        let before = found.map(|found| found.settings).unwrap_or_default();
        // A change names some settings; the others stay as the record has them.
        let settings = before.changed_by(change);
        settings.check()?;
        // A record without settings would count for the limits and say nothing.
        if settings.is_empty() {
            self.0.remove(name, expected).await?;
            return Ok(SettingsStep { before, after: settings });
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
        // Of two calls at the same time one fails, so that no change is lost.
        let put = Put::new(name, value).expecting(expected);
        self.0.put(put, former.as_ref(), bounds).await?;
        Ok(SettingsStep { before, after: settings })
    }

    /// Removes the settings of a client or a user; returns those that were there.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) async fn remove(
        &self,
        of: &SettingsOf,
    ) -> Result<Option<StickySettings>, ControlError> {
        let name = self.name_of(of)?;
        let former = self.0.remove(name.clone(), Expected::Any).await?;
        Ok(former.and_then(|record| parse(&name, &record)))
    }

    /// Returns some settings in the order of the names.
    ///
    /// # Errors
    /// The records cannot be read.
    pub(crate) async fn list(
        &self,
        question: &ListSettings,
    ) -> Result<Vec<StickySettings>, ControlError> {
        let prefix = if question.is_of_users { OF_USER } else { OF_CLIENT };
        let limit = question.limit.min(ListSettings::LIMIT_MAX);
        let found = self.0.list(prefix, question.after.as_deref(), limit).await?;
        Ok(found.iter().filter_map(|(name, record)| parse(name, record)).collect())
    }

    fn name_of(&self, of: &SettingsOf) -> Result<RecordKey, ControlError> {
        let (prefix, too_long) = match of {
            SettingsOf::Client(_) => {
                let bytes_max = RecordKey::KEY_BYTES_MAX - OF_CLIENT.len();
                (OF_CLIENT, ControlError::ClientIdTooLong { bytes_max })
            }
            SettingsOf::User(_) => (OF_USER, ControlError::UsernameTooLong),
        };
        self.0.name(&format!("{prefix}{}", of.name())).ok_or(too_long)
    }
}

/// Returns the user that changed settings last, from their record.
fn set_by(value: &[u8]) -> Option<Arc<str>> {
    let content: StickyContent = serde_json::from_slice(value).ok()?;
    content.by.map(Into::into)
}

fn parse(name: &RecordKey, record: &Record) -> Option<StickySettings> {
    let of_client = name.key().strip_prefix(OF_CLIENT).map(|id| SettingsOf::Client(id.into()));
    let of_user = || name.key().strip_prefix(OF_USER).map(|user| SettingsOf::User(user.into()));
    let of = of_client.or_else(of_user)?;
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
    let mut found = StickySettings::new(of, settings, content.at);
    found.by = content.by.map(Into::into);
    Some(found)
}
