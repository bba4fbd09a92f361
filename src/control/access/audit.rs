//! The audit log: changes by callers, by clients and by the operator.

use std::{net::SocketAddr, sync::Arc};

/// A change and its author. It has no passwords, tokens or payloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditEntry {
    /// Its number: a later one is higher, also over restarts.
    pub number: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    pub at_millis: u64,
    /// The action: the name of a call, `reload`, or `$SETOPTS` for a client.
    pub action: Arc<str>,
    /// The user name of the caller.
    pub user: Option<Arc<str>>,
    /// Address and port of the caller; `None` for the operator of the process.
    pub address: Option<SocketAddr>,
    /// URL of the listener that accepted the caller.
    pub listener: Option<Arc<str>>,
    /// The target: a client identifier, a pattern, or the name of a rule, a ban or a token.
    pub target: Option<Arc<str>>,
    /// The kind of the target: `client_id`, `clients` (a pattern), `username`, `rule`, `ban`, `token`, `topic`,
    /// `certificate` or `address`.
    pub target_kind: Option<Arc<str>>,
    /// The value before, if known.
    pub old: Option<Arc<str>>,
    /// The value from then on.
    pub new: Option<Arc<str>>,
}

impl AuditEntry {
    /// Maximum bytes of a text of an entry; the rest is cut off.
    pub const TEXT_BYTES_MAX: usize = 1_024;

    /// Returns an entry about an action; number and time are set where it is noted.
    pub fn new(action: impl Into<Arc<str>>) -> Self {
        Self { action: action.into(), ..Self::default() }
    }
}

/// Asks for entries of the audit log in the store, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListAudit {
    /// Only entries with a higher number.
    pub after: u64,
    /// Maximum number of entries.
    pub limit: usize,
}

impl ListAudit {
    /// Maximum number of entries of an answer.
    pub const LIMIT_MAX: usize = 10_000;

    /// Asks for the first entries.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { after: 0, limit }
    }
}
