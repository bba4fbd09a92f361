//! How logins are checked: the options of the file authenticator.

use serde::{Deserialize, Serialize};

use crate::auth::throttle::ThrottleConfig;

/// How logins are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthenticationConfig {
    /// Whether a client without user name and certificate is let in, without an identity. A
    /// listener can override it ([`ListenerLogins`](crate::auth::ListenerLogins)).
    pub anonymous: bool,
    /// Whether an MQTT client whose user name has no account is treated as if it gave no user name,
    /// if such clients are let in.
    pub anonymous_with_name: bool,
    /// Whether a certificate suffices. If so, its Common Name is the user name, and a password is
    /// not checked; if not, the client must also give the password of the account of that name.
    pub certificate_is_enough: bool,
    /// Whether a certificate is accepted only if its Common Name has an account. A listener can
    /// override it.
    pub certificate_needs_account: bool,
    /// Whether an MQTT client with a certificate must use its Common Name as client identifier.
    /// Does not affect clients without a certificate: require one in the listener.
    pub client_id_is_common_name: bool,
    /// Seconds for which a verified password is not hashed again. 0: hash every time.
    pub verified_secs: u32,
    /// Maximum number of verified credentials in memory; the oldest are evicted. 0: none.
    pub verified_entries_max: usize,
    /// Maximum number of passwords that are hashed at the same time, each with 19 MiB of memory. 0:
    /// one for each core. Half as many (at least one) of addresses with failures are hashed besides.
    pub hashes_at_once_max: usize,
    /// Maximum number of logins that wait to be hashed. One address may have a part of it, which
    /// depends on precedence: half if this user logged in from this address before, a sixteenth if
    /// the address has no failures, else one in 128 (at least four). Further logins are told to try
    /// again later.
    pub hashes_waiting_max: usize,
    /// Maximum number of remembered pairs of user and address that logged in before. They survive a
    /// restart, and their logins come before those of strangers. The pair that was not seen for the
    /// longest time is evicted. One user has at most one in 16 of them. 0: none.
    pub known_logins_max: usize,
    /// How repeated failures are slowed down and refused.
    pub throttle: ThrottleConfig,
}

impl Default for AuthenticationConfig {
    fn default() -> Self {
        Self {
            anonymous: false,
            anonymous_with_name: false,
            certificate_is_enough: true,
            certificate_needs_account: false,
            client_id_is_common_name: false,
            verified_secs: 300,
            verified_entries_max: 10_000,
            hashes_at_once_max: 0,
            // Ten seconds of work for two cores; a client that has to wait longer has given up.
            hashes_waiting_max: 1_000,
            // 4 MB of memory.
            known_logins_max: 20_000,
            throttle: ThrottleConfig::default(),
        }
    }
}
