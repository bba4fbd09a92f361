//! Requests about permissions: rules, API tokens, bans, failed logins, and the audit log.
//!
//! Types and the trait. Does not know the store.

mod audit;
mod bans;
mod rules;
mod tokens;

use std::net::IpAddr;

use async_trait::async_trait;

pub use self::{
    audit::{AuditEntry, ListAudit},
    bans::{Ban, BanSubject, ListBans, PutBan, RemoveBan},
    rules::{PutRule, RemoveRule, StoredRule},
    tokens::{ApiToken, CreateToken, CreatedToken},
};
use super::ControlError;

/// The state in which a record must be for a change of it to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExpectedRevision {
    /// Anything.
    #[default]
    Any,
    /// There is none yet.
    Absent,
    /// There is one.
    Present,
    /// Of this revision.
    At(u64),
}

impl ExpectedRevision {
    /// Returns whether a record of this revision is the expected one; `None` if there is no record.
    #[must_use]
    pub fn is_met_by(self, found: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => found.is_none(),
            Self::Present => found.is_some(),
            Self::At(revision) => found == Some(revision),
        }
    }
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessChanged<T> {
    /// The value before the change.
    pub old: Option<T>,
    /// The value after the change.
    pub new: Option<T>,
    /// The number of sessions that were disconnected, lost a subscription or were ended by it.
    pub sessions_touched: u64,
}

impl<T> AccessChanged<T> {
    /// Returns a change that touched no session.
    #[must_use]
    pub const fn new(old: Option<T>, new: Option<T>) -> Self {
        Self { old, new, sessions_touched: 0 }
    }
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// There is no such thing.
    #[error("there is none")]
    NotFound,
    /// It was changed by another caller, or is not there as expected.
    #[error("it is not as expected")]
    Conflict,
    /// It is not valid; the text names the field.
    #[error("{0}")]
    Invalid(String),
    /// The limit of this name is reached.
    #[error("{0} is reached")]
    TooMany(&'static str),
    /// The authorizer or the authenticator of the application does not know such things.
    #[error("the application decides by itself")]
    NotSupported,
    /// The broker cannot do it now.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Changes permissions. A part that is not implemented answers [`ControlError::Unavailable`].
#[async_trait]
pub trait AccessControl: Send + Sync + 'static {
    /// Adds or replaces a rule in the store. It holds for all clients when this returns.
    async fn put_rule(&self, _request: PutRule) -> Result<AccessChanged<StoredRule>, AccessError> {
        Err(ControlError::Unavailable.into())
    }

    /// Removes a rule from the store.
    async fn remove_rule(
        &self,
        _request: RemoveRule,
    ) -> Result<AccessChanged<StoredRule>, AccessError> {
        Err(ControlError::Unavailable.into())
    }

    /// Returns the rules in the store, in the order in which they are evaluated.
    async fn list_rules(&self) -> Result<Vec<StoredRule>, AccessError> {
        Err(ControlError::Unavailable.into())
    }

    /// Makes an API token. Fails with [`AccessError::Conflict`] if there is one of this name.
    async fn create_token(&self, _request: CreateToken) -> Result<CreatedToken, AccessError> {
        Err(ControlError::Unavailable.into())
    }

    /// Removes an API token.
    async fn remove_token(&self, _name: &str) -> Result<AccessChanged<ApiToken>, AccessError> {
        Err(ControlError::Unavailable.into())
    }

    /// Returns the API tokens, in the order of their names.
    async fn list_tokens(&self) -> Result<Vec<ApiToken>, AccessError> {
        Err(ControlError::Unavailable.into())
    }

    /// Adds or replaces a ban, and disconnects the clients that it is about.
    async fn put_ban(&self, _request: PutBan) -> Result<AccessChanged<Ban>, AccessError> {
        Err(ControlError::Unavailable.into())
    }

    /// Lifts a ban.
    async fn remove_ban(&self, _request: RemoveBan) -> Result<AccessChanged<Ban>, AccessError> {
        Err(ControlError::Unavailable.into())
    }

    /// Returns the ban of exactly this subject.
    async fn find_ban(&self, _subject: &BanSubject) -> Result<Ban, AccessError> {
        Err(ControlError::Unavailable.into())
    }

    /// Returns the ban that keeps out a client with this identifier, one of these user names, and this
    /// address, if that is known.
    fn deciding_ban(
        &self,
        _client_id: &str,
        _users: &[&str],
        _address: Option<IpAddr>,
    ) -> Option<BanSubject> {
        None
    }

    /// Returns some bans.
    async fn list_bans(&self, _request: ListBans) -> Result<Vec<Ban>, AccessError> {
        Err(ControlError::Unavailable.into())
    }

    /// Notes a change in the audit log. Does not wait until it is stored.
    fn note_audit(&self, _entry: AuditEntry) {}

    /// Returns some entries of the audit log, the oldest first.
    async fn list_audit(&self, _request: ListAudit) -> Result<Vec<AuditEntry>, AccessError> {
        Err(ControlError::Unavailable.into())
    }
}
