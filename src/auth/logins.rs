//! Counts of logins for the metrics, and the interface with which an authenticator stores known logins.
//!
//! Does not know how a login is checked. Used by the authenticators, the metrics and the store.

/// A pair of user and address.
pub type LoginKey = [u8; 32];

/// Stores the known pairs of user and address across restarts of the broker.
pub trait LoginLedger: Send + Sync + 'static {
    /// Returns the stored pairs, the most recently noted one last.
    fn read(&self) -> Vec<LoginKey>;

    /// Notes a pair, new or known. Does not wait until it is stored.
    fn note(&self, key: LoginKey);

    /// Removes a pair.
    fn remove(&self, key: LoginKey);
}

/// Counts of logins, since the start unless stated otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginCounts {
    /// Logins that are waiting for their password to be hashed.
    pub waiting: u64,
    /// Logins that were told to try again later, because too many were waiting.
    pub turned_away: u64,
    /// Number of times that a user name was refused from an address.
    pub user_lockouts: u64,
    /// Number of times that an address was refused.
    pub address_lockouts: u64,
    /// Attempts that were refused without a check because of earlier failures.
    pub refused: u64,
    /// Attempts that repeated a wrong password.
    pub repeated: u64,
    /// Known pairs of user and address at present.
    pub known: u64,
    /// Hashed passwords.
    pub hashed: u64,
}

impl LoginCounts {
    /// Adds the counts of another authenticator.
    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            waiting: self.waiting + other.waiting,
            turned_away: self.turned_away + other.turned_away,
            user_lockouts: self.user_lockouts + other.user_lockouts,
            address_lockouts: self.address_lockouts + other.address_lockouts,
            refused: self.refused + other.refused,
            repeated: self.repeated + other.repeated,
            known: self.known + other.known,
            hashed: self.hashed + other.hashed,
        }
    }
}
