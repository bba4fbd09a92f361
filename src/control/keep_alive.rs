//! The request that changes a Keep Alive, and its result.
//!
//! Plain data. Does not know the connection.

use std::sync::Arc;

/// Changes the Keep Alive of a live connection immediately, until the connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetKeepAlive {
    /// The client whose Keep Alive is changed.
    pub client_id: String,
    /// The new Keep Alive, in seconds.
    pub interval_secs: u16,
    /// The user name of the caller, for the event that reports the change.
    pub by: Option<Arc<str>>,
    /// Whether only the result is asked for, and nothing changes.
    pub is_dry_run: bool,
}

impl SetKeepAlive {
    /// Returns the request to change the Keep Alive of this client, by nobody in particular.
    pub fn new(client_id: impl Into<String>, interval_secs: u16) -> Self {
        Self { client_id: client_id.into(), interval_secs, by: None, is_dry_run: false }
    }

    /// Returns the request with the user name of the caller, which the event names.
    #[must_use]
    pub fn by(mut self, username: impl Into<Arc<str>>) -> Self {
        self.by = Some(username.into());
        self
    }

    /// Returns the request for the result alone: nothing changes.
    #[must_use]
    pub const fn dry_run(mut self) -> Self {
        self.is_dry_run = true;
        self
    }
}

/// The result of a changed Keep Alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepAliveChanged {
    /// The previous value, in seconds.
    pub old_secs: u16,
    /// The new value, in seconds.
    pub new_secs: u16,
}

impl KeepAliveChanged {
    /// Returns the result of a change from one value to another, in seconds.
    #[must_use]
    pub const fn new(old_secs: u16, new_secs: u16) -> Self {
        Self { old_secs, new_secs }
    }
}
