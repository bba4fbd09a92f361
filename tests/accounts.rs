//! Logins and permissions: accounts, throttling, policy and TLS, each through its public interface.
//! Knows no socket: handshakes happen in memory.

#![expect(clippy::unwrap_used, reason = "in a test, whatever is missing is a failure")]

#[path = "accounts/changes.rs"]
mod changes;
#[path = "support/scram.rs"]
mod client;
#[path = "accounts/files.rs"]
mod files;
#[path = "accounts/login.rs"]
mod login;
#[path = "support/pki.rs"]
mod pki;
#[path = "accounts/policy.rs"]
mod policy;
#[path = "accounts/scram.rs"]
mod scram;
#[path = "accounts/standing.rs"]
mod standing;
#[path = "accounts/throttle.rs"]
mod throttle;
#[path = "accounts/tls.rs"]
mod tls;
#[path = "accounts/turns.rs"]
mod turns;
