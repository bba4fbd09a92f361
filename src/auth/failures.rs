//! Counts of failed logins, which show an operator why a client is refused.
//!
//! Plain data. User names are counted as hashes: an operator can ask about one, but cannot list them.

use std::net::IpAddr;

/// The failed logins of an address, or of one user at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedLogins {
    /// The address; for IPv6, the first address of its /64.
    pub address: IpAddr,
    /// Whether they were made over REST; otherwise over MQTT.
    pub is_rest: bool,
    /// The number of failures that count now.
    pub failures: u32,
    /// The delay of the next attempt in milliseconds, for one user.
    pub delay_ms: u32,
    /// For how many more seconds attempts are refused without a check; 0 if they are checked.
    pub refused_secs: u32,
}

impl FailedLogins {
    /// Returns a count of zero for an address.
    #[must_use]
    pub const fn new(address: IpAddr, is_rest: bool, failures: u32) -> Self {
        Self { address, is_rest, failures, delay_ms: 0, refused_secs: 0 }
    }
}
