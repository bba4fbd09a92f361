//! The outcome of a check of sessions.

/// The outcome of a check of sessions, after accounts, permissions or certificates have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rechecked {
    /// The number of sessions that were checked.
    pub sessions: usize,
    /// The number of those that were disconnected or ended, have lost a subscription, or have stopped to
    /// queue messages.
    pub touched: usize,
}

impl Rechecked {
    /// Returns the sums of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { sessions: self.sessions + other.sessions, touched: self.touched + other.touched }
    }
}
