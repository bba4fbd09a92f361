//! Logins and permissions: accounts, throttling, policy and TLS, each through its public interface.
//! Knows no socket: handshakes happen in memory.

mod chain;
mod changes;
mod files;
mod groups;
mod login;
mod passwords;
mod policy;
mod scram;
mod standing;
mod stored;
mod stored_certificates;
mod throttle;
mod tls;
mod turns;
