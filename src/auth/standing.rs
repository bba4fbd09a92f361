//! What has become of credentials that were found right, once accounts are read again.

/// What has become of the credentials of a client that was let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// They are as good as they were.
    #[default]
    Good,
    /// The user has other credentials now. The connection ends; the session waits for the user.
    Changed,
    /// The user may not log in, for now or in this way. The connection ends, and the session
    /// collects nothing until the user may.
    Suspended,
    /// The user does not exist any more. The connection ends, and the session with it.
    Gone,
}
