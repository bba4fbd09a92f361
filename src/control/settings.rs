//! Settings of clients: how fast they are read, how much may wait for them, and how long their sessions
//! last. They belong to a connection, or are sticky for a client or for all clients of a user.
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

    /// Returns these settings, and those of `below` where there is none here.
    #[must_use]
    pub fn over(&self, below: &Self) -> Self {
        Self {
            session_expiry_secs: self.session_expiry_secs.or(below.session_expiry_secs),
            message_rate: self.message_rate.or(below.message_rate),
            byte_rate: self.byte_rate.or(below.byte_rate),
            queue_messages_max: self.queue_messages_max.or(below.queue_messages_max),
            queue_bytes_max: self.queue_bytes_max.or(below.queue_bytes_max),
            in_flight_max: self.in_flight_max.or(below.in_flight_max),
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

/// The client or user that has the settings. Those of the client come first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SettingsOf {
    /// Those of the client with this identifier.
    Client(Arc<str>),
    /// Those of all clients with this user name.
    User(Arc<str>),
}

impl SettingsOf {
    /// Returns the Client Identifier or the user name.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        match self {
            Self::Client(name) | Self::User(name) => name,
        }
    }
}

/// Changes settings of a connected client, or the sticky ones of a client or a user, from the next
/// packet of each connection on. Those of a connection end with it, except the Session Expiry
/// Interval, which holds until the next CONNECT of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangeSettings {
    /// The client or user.
    pub of: SettingsOf,
    /// The change.
    pub change: SettingsChange,
    /// Whether the change holds for later connections too, and also for a client that is absent.
    /// Settings of a user always do.
    pub is_sticky: bool,
    /// The user name of the caller.
    pub by: Option<Arc<str>>,
    /// Whether the share of one user bounds sticky settings. REST sets it for callers that may not
    /// administer.
    pub is_within_share: bool,
}

impl ChangeSettings {
    /// Returns the request to change settings of this client.
    pub fn new(client_id: impl Into<Arc<str>>, change: SettingsChange) -> Self {
        let of = SettingsOf::Client(client_id.into());
        Self { of, change, is_sticky: false, by: None, is_within_share: false }
    }

    /// Returns the request to change the sticky settings of this user.
    pub fn of_user(username: impl Into<Arc<str>>, change: SettingsChange) -> Self {
        let of = SettingsOf::User(username.into());
        Self { of, change, is_sticky: true, by: None, is_within_share: false }
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

/// The result of changed settings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingsChanged {
    /// The node that has the connection, or has stored the settings.
    pub node: Arc<str>,
    /// The settings that the connection of the client has then; if it is absent, or they are those of
    /// a user, those that are stored.
    pub settings: ClientSettings,
    /// The settings before the change, of the same kind.
    pub former: ClientSettings,
}

impl SettingsChanged {
    /// Returns the result of a change that this node has made.
    pub fn new(node: impl Into<Arc<str>>, settings: ClientSettings) -> Self {
        Self { node: node.into(), settings, former: ClientSettings::new() }
    }

    /// Returns the result with the settings before the change.
    #[must_use]
    pub fn after(mut self, former: ClientSettings) -> Self {
        self.former = former;
        self
    }
}

/// Settings that hold for later connections too. They are made by [`ChangeSettings::sticky`] and
/// [`ChangeSettings::of_user`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StickySettings {
    /// The client or user.
    pub of: SettingsOf,
    /// The settings.
    pub settings: ClientSettings,
    /// The user name of the caller that has changed them last.
    pub by: Option<Arc<str>>,
    /// When they were changed, in milliseconds since the Unix epoch.
    pub set_at_millis: u64,
}

impl StickySettings {
    /// Returns settings that nobody in particular has set.
    #[must_use]
    pub const fn new(of: SettingsOf, settings: ClientSettings, set_at_millis: u64) -> Self {
        Self { of, settings, by: None, set_at_millis }
    }
}

/// Asks for the sticky settings of a client or a user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuerySettings {
    /// The client or user.
    pub of: SettingsOf,
}

impl QuerySettings {
    /// Returns the question about these settings.
    #[must_use]
    pub const fn new(of: SettingsOf) -> Self {
        Self { of }
    }
}

/// Removes the sticky settings of a client or a user. A live connection keeps those of its client,
/// and loses those of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoveSettings {
    /// The client or user.
    pub of: SettingsOf,
}

impl RemoveSettings {
    /// Returns the request to remove these settings.
    #[must_use]
    pub const fn new(of: SettingsOf) -> Self {
        Self { of }
    }
}

/// Lists sticky settings of clients or of users, in the order of the bytes of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListSettings {
    /// Whether those of users are listed, and not those of clients.
    pub is_of_users: bool,
    /// Begins with the first client or user after this one; `None` begins with the first.
    pub after: Option<Arc<str>>,
    /// Maximum number of items in the answer; at most [`ListSettings::LIMIT_MAX`] are given.
    pub limit: usize,
}

impl ListSettings {
    /// The largest number of items in one answer.
    pub const LIMIT_MAX: usize = 1_000;

    /// Returns the question for the first settings of clients.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { is_of_users: false, after: None, limit }
    }

    /// Returns the question for the first settings of users.
    #[must_use]
    pub const fn of_users(limit: usize) -> Self {
        Self { is_of_users: true, after: None, limit }
    }

    /// Returns the question for those after this client or user.
    #[must_use]
    pub fn after(mut self, name: impl Into<Arc<str>>) -> Self {
        self.after = Some(name.into());
        self
    }
}

/// Changes settings of clients. A part that is not implemented answers
/// [`ControlError::Unavailable`].
#[async_trait]
pub trait SettingsOfClients: Send + Sync + 'static {
    /// Changes settings.
    async fn change_settings(
        &self,
        _request: ChangeSettings,
    ) -> Result<SettingsChanged, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns the sticky settings of a client or a user, if there are any.
    async fn query_settings(
        &self,
        _request: QuerySettings,
    ) -> Result<Option<StickySettings>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Removes the sticky settings of a client or a user; returns those that were there.
    async fn remove_settings(
        &self,
        _request: RemoveSettings,
    ) -> Result<Option<StickySettings>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns some sticky settings of clients or of users, in the order of the bytes of their names.
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
    fn settings_stand_over_others_one_by_one() {
        let above = ClientSettings { message_rate: Some(1), ..ClientSettings::new() };
        let below = ClientSettings {
            message_rate: Some(2),
            byte_rate: Some(3_000),
            ..ClientSettings::new()
        };
        assert_eq!(ClientSettings::new().over(&below), below);
        let over = above.over(&below);
        assert_eq!(over, ClientSettings { message_rate: Some(1), ..below });
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
