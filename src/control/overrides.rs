//! The sticky Keep Alive of a client, and the requests about it.
//!
//! Plain data. Does not know where overrides are stored.

use std::sync::Arc;

use crate::mqtt::Timestamp;

/// A Keep Alive that holds for the later connections of a client too. It is made by
/// [`SetKeepAlive::sticky`](super::SetKeepAlive::sticky).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepAliveOverride {
    /// The client.
    pub client_id: String,
    /// The Keep Alive, in seconds.
    pub interval_secs: u16,
    /// The user name of the caller that has set it.
    pub by: Option<Arc<str>>,
    /// When it was set.
    pub set_at: Timestamp,
    /// When it ends by itself; `None` if it does not.
    pub expires_at: Option<Timestamp>,
}

impl KeepAliveOverride {
    /// Returns the override of a client, set by nobody in particular, that does not end by itself.
    pub fn new(client_id: impl Into<String>, interval_secs: u16, set_at: Timestamp) -> Self {
        let client_id = client_id.into();
        Self { client_id, interval_secs, by: None, set_at, expires_at: None }
    }
}

/// Asks for the override of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueryOverride {
    /// The client.
    pub client_id: String,
}

impl QueryOverride {
    /// Returns the question about this client.
    pub fn new(client_id: impl Into<String>) -> Self {
        Self { client_id: client_id.into() }
    }
}

/// Removes the override of a client. A live connection that follows it returns to the Keep Alive
/// that its client knows: that of CONNECT, or the Server Keep Alive of CONNACK.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoveOverride {
    /// The client.
    pub client_id: String,
    /// The user name of the caller, for the event that reports the change.
    pub by: Option<Arc<str>>,
}

impl RemoveOverride {
    /// Returns the request to remove the override of this client, by nobody in particular.
    pub fn new(client_id: impl Into<String>) -> Self {
        Self { client_id: client_id.into(), by: None }
    }
}

/// Lists overrides in the order of the bytes of their Client Identifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListOverrides {
    /// Begins with the first client after this one; `None` begins with the first.
    pub after: Option<String>,
    /// Maximum number of overrides in the answer; at most [`ListOverrides::LIMIT_MAX`] are given.
    pub limit: usize,
}

impl ListOverrides {
    /// The largest number of overrides in one answer.
    pub const LIMIT_MAX: usize = 1_000;

    /// Returns the question for the first overrides.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { after: None, limit }
    }

    /// Returns the question for those after this client.
    #[must_use]
    pub fn after(mut self, client_id: impl Into<String>) -> Self {
        self.after = Some(client_id.into());
        self
    }
}
