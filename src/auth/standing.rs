//! The state of proven credentials after the accounts have changed.

/// The state of the credentials with which a client was admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// They are still valid.
    #[default]
    Good,
    /// The user has other credentials now. The connection ends; the session waits for the user.
    Changed,
    /// The user may not log in, for now or in this way. The connection ends, and the session queues
    /// no messages until the user may.
    Suspended,
    /// The user no longer exists. The connection and the session end.
    Gone,
}
