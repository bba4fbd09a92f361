//! The request that changes a Keep Alive, and its result.
//!
//! Plain data. Does not know the connection.

use std::{ops::RangeInclusive, sync::Arc};

/// The Keep Alives that a REST caller and a client may set, in seconds.
pub(crate) const KEEP_ALIVE_SECS: RangeInclusive<u16> = 30..=1200;

/// Changes the Keep Alive of a live connection immediately: until the connection ends, or for the
/// later connections of the client too.
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
    /// Whether the value is stored, and holds for the client's later connections too. The client
    /// need not be connected or known.
    pub is_sticky: bool,
    /// The seconds after which the change ends by itself; `None`: it does not.
    pub ttl_secs: Option<u32>,
    /// Whether the share of one user bounds the sticky value. REST sets it for callers that may not
    /// administer.
    pub is_within_share: bool,
}

impl SetKeepAlive {
    /// Returns the request to change the Keep Alive of this client, by nobody in particular.
    pub fn new(client_id: impl Into<String>, interval_secs: u16) -> Self {
        Self {
            client_id: client_id.into(),
            interval_secs,
            by: None,
            is_dry_run: false,
            is_sticky: false,
            ttl_secs: None,
            is_within_share: false,
        }
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

    /// Returns the request for a value that holds for later connections too.
    #[must_use]
    pub const fn sticky(mut self) -> Self {
        self.is_sticky = true;
        self
    }

    /// Returns the request for a change that ends by itself after these seconds. The connection
    /// then returns to the override of its client, or to the Keep Alive that the client knows.
    #[must_use]
    pub const fn ttl_secs(mut self, secs: u32) -> Self {
        self.ttl_secs = Some(secs);
        self
    }
}

/// The result of a changed Keep Alive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepAliveChanged {
    /// The node that has the connection, or has stored the value of an absent client.
    pub node: Arc<str>,
    /// The previous value, in seconds. If the client is not connected: that of its former override, or
    /// 0.
    pub old_secs: u16,
    /// The new value, in seconds.
    pub new_secs: u16,
    /// Whether the client cannot be told the sticky value, because it has no MQTT 5.0.
    pub is_not_told: bool,
    /// Whether it cannot be told, and the value is below its own Keep Alive: it may be disconnected
    /// while it waits for its own interval.
    pub is_below_own: bool,
}

impl KeepAliveChanged {
    /// Returns the result of a change that this node has made, from one value to another, in seconds.
    pub fn new(node: impl Into<Arc<str>>, old_secs: u16, new_secs: u16) -> Self {
        let node = node.into();
        Self { node, old_secs, new_secs, is_not_told: false, is_below_own: false }
    }
}
