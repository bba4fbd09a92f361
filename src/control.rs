//! What can be asked of the broker about one live client: the verbs behind the REST calls.
//!
//! Types only. The broker's handle implements [`Control`], `http` and embedding applications call
//! it; neither knows the other.

use std::sync::Arc;

use async_trait::async_trait;

/// Change the Keep Alive of a live connection, at once and until it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetKeepAlive {
    /// The client whose connection is meant.
    pub client_id: String,
    /// The new Keep Alive, in seconds.
    pub interval_secs: u16,
    /// The user name of who asked, for the event that reports the change.
    pub by: Option<Arc<str>>,
}

/// A Keep Alive was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAliveChanged {
    /// What was in force before, in seconds.
    pub old_secs: u16,
    /// What is in force now, in seconds.
    pub new_secs: u16,
}

/// Why the broker did not do what it was asked for. Nothing has been changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No client of this identifier is connected.
    #[error("client is not connected")]
    NotOnline,
    /// The client connected with Keep Alive 0, which stays off.
    #[error("client has its keep alive turned off")]
    KeepAliveDisabled,
    /// An interval of 0, which would turn Keep Alive off: only the client may.
    #[error("an interval of 0 is not allowed")]
    InvalidInterval,
    /// The broker is shutting down, or the connection cannot take one more request now.
    #[error("broker cannot take the request now")]
    Unavailable,
    /// No answer came in time.
    #[error("no answer in time")]
    Timeout,
}

/// The broker, as those see it who control live clients.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// Changes the Keep Alive of a live connection.
    async fn set_keep_alive(&self, request: SetKeepAlive)
    -> Result<KeepAliveChanged, ControlError>;

    /// Whether a client is connected now: the live state, not a cache. An identifier never seen
    /// is not connected.
    async fn query_online(&self, client_id: &str) -> Result<bool, ControlError>;

    /// Whether clients and callers are welcome; not once the broker is shutting down.
    fn is_ready(&self) -> bool {
        true
    }
}
