//! Settings of one live client: how fast it is read, how much may wait for it, and how long its session
//! lasts.
//!
//! Plain data. Does not know how the settings are applied.

use std::sync::Arc;

use async_trait::async_trait;

use super::ControlError;

/// Settings of a connected client. A setting that is not given is that of the broker's limits, or of
/// the client's own CONNECT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientSettings {
    /// Session Expiry Interval in seconds; `session_expiry_secs_max` of the limits is above it.
    pub session_expiry_secs: Option<u32>,
    /// PUBLISH packets that the broker reads from the client in a second.
    pub message_rate: Option<u32>,
    /// Bytes of topics and payloads of PUBLISH packets that the broker reads from it in a second.
    pub byte_rate: Option<u32>,
    /// Maximum number of messages that wait for the client; not more than the broker's limit.
    pub queue_messages_max: Option<u32>,
    /// Maximum bytes of messages that wait for the client; not more than the broker's limit.
    pub queue_bytes_max: Option<u64>,
    /// Maximum number of unacknowledged QoS 1 and 2 messages to the client; not more than its
    /// Receive Maximum and the broker's limit.
    pub in_flight_max: Option<u16>,
}

impl ClientSettings {
    /// The lowest and the highest [`message_rate`](Self::message_rate).
    pub const MESSAGE_RATES: std::ops::RangeInclusive<u32> = 1..=1_000_000;
    /// The lowest and the highest [`byte_rate`](Self::byte_rate). A slower client would not be read
    /// for minutes after one large message.
    pub const BYTE_RATES: std::ops::RangeInclusive<u32> = 1_000..=1_000_000_000;

    /// Returns the settings without any.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether no setting is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns these settings after a change.
    #[must_use]
    pub fn changed_by(&self, change: &SettingsChange) -> Self {
        Self {
            session_expiry_secs: change.session_expiry_secs.unwrap_or(self.session_expiry_secs),
            message_rate: change.message_rate.unwrap_or(self.message_rate),
            byte_rate: change.byte_rate.unwrap_or(self.byte_rate),
            queue_messages_max: change.queue_messages_max.unwrap_or(self.queue_messages_max),
            queue_bytes_max: change.queue_bytes_max.unwrap_or(self.queue_bytes_max),
            in_flight_max: change.in_flight_max.unwrap_or(self.in_flight_max),
        }
    }

    /// Checks that each setting is in its range.
    ///
    /// # Errors
    /// [`ControlError::InvalidSetting`] names the first one that is not.
    pub fn check(&self) -> Result<(), ControlError> {
        let is_positive = |number: u64| number > 0;
        let checks = [
            ("message_rate", self.message_rate.is_none_or(|n| Self::MESSAGE_RATES.contains(&n))),
            ("byte_rate", self.byte_rate.is_none_or(|n| Self::BYTE_RATES.contains(&n))),
            ("queue_messages_max", self.queue_messages_max.is_none_or(|n| is_positive(n.into()))),
            ("queue_bytes_max", self.queue_bytes_max.is_none_or(is_positive)),
            ("in_flight_max", self.in_flight_max.is_none_or(|n| is_positive(n.into()))),
        ];
        match checks.into_iter().find(|(_, is_valid)| !is_valid) {
            None => Ok(()),
            Some((name, _)) => Err(ControlError::InvalidSetting(name)),
        }
    }
}

/// Changes some of the settings of a client. A setting that is `None` stays; `Some(None)` removes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    /// Session Expiry Interval in seconds.
    pub session_expiry_secs: Option<Option<u32>>,
    /// PUBLISH packets in a second.
    pub message_rate: Option<Option<u32>>,
    /// Bytes of PUBLISH packets in a second.
    pub byte_rate: Option<Option<u32>>,
    /// Maximum number of messages that wait.
    pub queue_messages_max: Option<Option<u32>>,
    /// Maximum bytes of messages that wait.
    pub queue_bytes_max: Option<Option<u64>>,
    /// Maximum number of unacknowledged messages.
    pub in_flight_max: Option<Option<u16>>,
}

/// Changes settings of a connected client, from its next packet on. They end with the connection, except
/// the Session Expiry Interval, which holds until the next CONNECT of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangeSettings {
    /// The client.
    pub client_id: Arc<str>,
    /// The change.
    pub change: SettingsChange,
    /// Whether the change holds for later connections too, and also for a client that is absent.
    pub is_sticky: bool,
    /// The user name of the caller.
    pub by: Option<Arc<str>>,
}

impl ChangeSettings {
    /// Returns the request to change settings of this client.
    pub fn new(client_id: impl Into<Arc<str>>, change: SettingsChange) -> Self {
        Self { client_id: client_id.into(), change, is_sticky: false, by: None }
    }

    /// Returns the request to change the settings of later connections too.
    #[must_use]
    pub const fn sticky(mut self) -> Self {
        self.is_sticky = true;
        self
    }

    /// Returns the request as one by this user.
    #[must_use]
    pub fn by(mut self, username: impl Into<Arc<str>>) -> Self {
        self.by = Some(username.into());
        self
    }
}

/// Settings that hold for the later connections of a client too. They are made by
/// [`ChangeSettings::sticky`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StickySettings {
    /// The client.
    pub client_id: Arc<str>,
    /// The settings.
    pub settings: ClientSettings,
    /// The user name of the caller that has changed them last.
    pub by: Option<Arc<str>>,
    /// When they were changed, in milliseconds since the Unix epoch.
    pub set_at_millis: u64,
}

impl StickySettings {
    /// Returns the settings of a client, set by nobody in particular.
    pub fn new(
        client_id: impl Into<Arc<str>>,
        settings: ClientSettings,
        set_at_millis: u64,
    ) -> Self {
        Self { client_id: client_id.into(), settings, by: None, set_at_millis }
    }
}

/// Asks for the sticky settings of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuerySettings {
    /// The client.
    pub client_id: Arc<str>,
}

impl QuerySettings {
    /// Returns the question about this client.
    pub fn new(client_id: impl Into<Arc<str>>) -> Self {
        Self { client_id: client_id.into() }
    }
}

/// Removes the sticky settings of a client. A live connection keeps its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoveSettings {
    /// The client.
    pub client_id: Arc<str>,
}

impl RemoveSettings {
    /// Returns the request to remove the sticky settings of this client.
    pub fn new(client_id: impl Into<Arc<str>>) -> Self {
        Self { client_id: client_id.into() }
    }
}

/// Lists sticky settings in the order of the bytes of their Client Identifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListSettings {
    /// Begins with the first client after this one; `None` begins with the first.
    pub after: Option<Arc<str>>,
    /// Maximum number of clients in the answer; at most [`ListSettings::LIMIT_MAX`] are given.
    pub limit: usize,
}

impl ListSettings {
    /// The largest number of clients in one answer.
    pub const LIMIT_MAX: usize = 1_000;

    /// Returns the question for the first settings.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { after: None, limit }
    }

    /// Returns the question for those after this client.
    #[must_use]
    pub fn after(mut self, client_id: impl Into<Arc<str>>) -> Self {
        self.after = Some(client_id.into());
        self
    }
}

/// Changes settings of clients. A part that is not implemented answers
/// [`ControlError::Unavailable`].
#[async_trait]
pub trait SettingsOfClients: Send + Sync + 'static {
    /// Changes settings of a client; returns those that its connection has then, or, if it is absent,
    /// those that its next one will have.
    async fn change_settings(
        &self,
        _request: ChangeSettings,
    ) -> Result<ClientSettings, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns the sticky settings of a client, if there are any.
    async fn query_settings(
        &self,
        _request: QuerySettings,
    ) -> Result<Option<StickySettings>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Removes the sticky settings of a client; returns whether there were any.
    async fn remove_settings(&self, _request: RemoveSettings) -> Result<bool, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns some sticky settings, in the order of the bytes of their Client Identifiers.
    async fn list_settings(
        &self,
        _request: ListSettings,
    ) -> Result<Vec<StickySettings>, ControlError> {
        Err(ControlError::Unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_sets_removes_and_leaves() {
        let change = SettingsChange {
            message_rate: Some(Some(10)),
            in_flight_max: Some(Some(5)),
            ..SettingsChange::default()
        };
        let first = ClientSettings::new().changed_by(&change);
        assert_eq!((first.message_rate, first.in_flight_max), (Some(10), Some(5)));
        let second = SettingsChange { message_rate: Some(None), ..SettingsChange::default() };
        let second = first.changed_by(&second);
        assert_eq!((second.message_rate, second.in_flight_max), (None, Some(5)));
        assert!(!second.is_empty() && ClientSettings::new().is_empty());
    }

    #[test]
    fn a_setting_out_of_its_range_is_named() {
        let of = |change: fn(&mut ClientSettings)| {
            let mut settings = ClientSettings::new();
            change(&mut settings);
            settings.check()
        };
        let invalid = |name| Err(ControlError::InvalidSetting(name));
        assert_eq!(of(|it| it.message_rate = Some(0)), invalid("message_rate"));
        assert_eq!(of(|it| it.byte_rate = Some(999)), invalid("byte_rate"));
        assert_eq!(of(|it| it.queue_messages_max = Some(0)), invalid("queue_messages_max"));
        assert_eq!(of(|it| it.queue_bytes_max = Some(0)), invalid("queue_bytes_max"));
        assert_eq!(of(|it| it.in_flight_max = Some(0)), invalid("in_flight_max"));
        assert_eq!(of(|it| it.session_expiry_secs = Some(0)), Ok(()));
    }
}
