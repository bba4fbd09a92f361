//! The accounts of users that the broker has in its store, and the requests about them.
//!
//! Plain data. Does not know where accounts are stored, nor how a login is checked.

use std::{fmt, net::IpAddr};

use async_trait::async_trait;

use super::Rechecked;
use crate::{
    auth::{Attributes, Groups},
    limits::OwnLimits,
    mqtt::Timestamp,
};

/// An account, as callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserView {
    /// The user name.
    pub name: String,
    /// The number of the last change of the account.
    pub revision: u64,
    /// Whether logins with the account are refused.
    pub is_disabled: bool,
    /// The scheme of the password's hash; `None` if the account has no password.
    pub password_scheme: Option<&'static str>,
    /// The device secrets.
    pub secrets: Vec<SecretView>,
    /// The groups of the user.
    pub groups: Groups,
    /// The attributes of the user.
    pub attributes: Attributes,
    /// The limits that replace those of each user.
    pub limits: Option<OwnLimits>,
    /// When the account was created.
    pub created_at: Timestamp,
    /// The hashes, for an export; `None` unless they were asked for.
    pub hashes: Option<UserHashes>,
}

/// A device secret, as callers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SecretView {
    /// Its number in the account.
    pub id: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When a client last logged in with it; `None` if none has since the broker started.
    pub last_used_at: Option<Timestamp>,
}

impl SecretView {
    /// Creates the view of a secret.
    #[must_use]
    pub const fn new(id: u64, created_at: Timestamp, last_used_at: Option<Timestamp>) -> Self {
        Self { id, created_at, last_used_at }
    }
}

/// The hashes of an account. `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserHashes {
    /// That of the password.
    pub password: Option<String>,
    /// The SHA-256 of each device secret, with the time when it was made.
    pub secrets: Vec<([u8; 32], Timestamp)>,
}

impl UserHashes {
    /// Creates hashes.
    #[must_use]
    pub const fn new(password: Option<String>, secrets: Vec<([u8; 32], Timestamp)>) -> Self {
        Self { password, secrets }
    }
}

impl fmt::Debug for UserHashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserHashes").finish_non_exhaustive()
    }
}

impl UserView {
    /// Creates the view of an account without anything.
    #[must_use]
    pub fn new(name: impl Into<String>, revision: u64) -> Self {
        Self {
            name: name.into(),
            revision,
            is_disabled: false,
            password_scheme: None,
            secrets: Vec::new(),
            groups: Groups::default(),
            attributes: Attributes::default(),
            limits: None,
            created_at: Timestamp(0),
            hashes: None,
        }
    }
}

/// A password for an account. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NewPassword {
    /// The password itself, which the broker hashes.
    Plain(Box<[u8]>),
    /// The text of a hash, see [`StoredPassword`](crate::auth::StoredPassword).
    Hash(String),
}

impl fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain(…)",
            Self::Hash(_) => "Hash(…)",
        })
    }
}

/// The account that a caller creates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewUser {
    /// The user name.
    pub name: String,
    /// The password; `None` if only device secrets are accepted.
    pub password: Option<NewPassword>,
    /// The SHA-256 of device secrets that the devices have already, with the time when they were made;
    /// `None`: now. At most two.
    pub secrets: Vec<([u8; 32], Option<Timestamp>)>,
    /// Whether logins are refused for now.
    pub is_disabled: bool,
    /// The groups of the user.
    pub groups: Groups,
    /// The attributes of the user.
    pub attributes: Attributes,
    /// The limits that replace those of each user.
    pub limits: Option<OwnLimits>,
}

impl NewUser {
    /// Creates the description of an account without anything.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// A kind of change of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserChange {
    /// The account is created.
    Create(Box<NewUser>),
    /// The password is this one from now on.
    Password(NewPassword),
    /// The broker makes a further device secret.
    AddSecret,
    /// The device secret of this number is not valid any more.
    RemoveSecret(u64),
    /// Some of the properties change.
    Properties(Box<AccountProperties>),
    /// The account is removed.
    Remove,
}

/// The properties of an account that change; `None` leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccountProperties {
    /// Whether logins are refused.
    pub is_disabled: Option<bool>,
    /// The groups.
    pub groups: Option<Groups>,
    /// The attributes.
    pub attributes: Option<Attributes>,
    /// The limits that replace those of each user; `Some(None)` removes them.
    pub limits: Option<Option<OwnLimits>>,
}

/// Changes an account. The change is in force for the sessions of its user when the answer comes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangeUser {
    /// The user name.
    pub name: String,
    /// The change.
    pub change: UserChange,
    /// The revision that the account must have; `None`: any.
    pub expected: Option<u64>,
    /// The address of the caller, who waits with others for a turn to hash a password.
    pub caller: IpAddr,
}

impl ChangeUser {
    /// Creates the request to change an account, whatever its revision is.
    #[must_use]
    pub fn new(name: impl Into<String>, change: UserChange, caller: IpAddr) -> Self {
        Self { name: name.into(), change, expected: None, caller }
    }
}

/// The result of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserChanged {
    /// The account as it is now; `None` if it was removed.
    pub user: Option<UserView>,
    /// The account before the change; `None` if it was created.
    pub former: Option<UserView>,
    /// The device secret that was made, which nobody can read again, with its number.
    pub secret: Option<NewSecret>,
    /// The outcome for the sessions of the user.
    pub sessions: Rechecked,
}

impl UserChanged {
    /// Creates the result.
    #[must_use]
    pub const fn new(user: Option<UserView>, sessions: Rechecked) -> Self {
        Self { user, former: None, secret: None, sessions }
    }
}

/// A device secret that was made. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewSecret {
    /// Its number in the account.
    pub id: u64,
    /// The secret itself.
    pub text: String,
}

impl NewSecret {
    /// Creates it.
    #[must_use]
    pub const fn new(id: u64, text: String) -> Self {
        Self { id, text }
    }
}

impl fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSecret").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Lists accounts in the order of the bytes of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListUsers {
    /// Begins with the first account after this name; `None` begins with the first.
    pub after: Option<String>,
    /// Maximum number of accounts in the answer; at most [`ListUsers::LIMIT_MAX`] are given.
    pub limit: usize,
    /// Whether the answer has the hashes.
    pub with_hashes: bool,
}

impl ListUsers {
    /// The largest number of accounts in one answer.
    pub const LIMIT_MAX: usize = 500;

    /// Creates the question for the first accounts.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { after: None, limit, with_hashes: false }
    }
}

/// Imports some accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportUsers {
    /// The accounts, at most [`ImportUsers::USERS_MAX`].
    pub users: Vec<NewUser>,
    /// The treatment of accounts that exist already.
    pub existing: ExistingUsers,
    /// The address of the caller.
    pub caller: IpAddr,
}

impl ImportUsers {
    /// The largest number of accounts of one request.
    pub const USERS_MAX: usize = 512;

    /// Creates the request.
    #[must_use]
    pub const fn new(users: Vec<NewUser>, existing: ExistingUsers, caller: IpAddr) -> Self {
        Self { users, existing, caller }
    }
}

/// How an import treats accounts that exist already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExistingUsers {
    /// They stay as they are, and their lines fail.
    #[default]
    Fail,
    /// They stay as they are.
    Skip,
    /// They are replaced, with their credentials.
    Replace,
}

/// The outcome for one account of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Imported {
    /// It was created.
    Created,
    /// It has replaced one that was there.
    Replaced,
    /// One was there and stays.
    Skipped,
}

/// Why an account was not changed, or not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// The broker has no accounts in its store.
    #[error("broker has no source of users in its store")]
    NoSource,
    /// There is no account of this name in the store.
    #[error("user is not in the store")]
    NotFound,
    /// There is an account of this name in the store already.
    #[error("user is in the store already")]
    Exists,
    /// The file has an account of this name, which goes before one in the store.
    #[error("user is in the file of accounts, which goes before the store")]
    InFile,
    /// The account has another revision than expected.
    #[error("account was changed by another caller")]
    Changed,
    /// The account has two device secrets already.
    #[error("account has two device secrets; remove one of them first")]
    TooManySecrets,
    /// The account has no device secret of this number.
    #[error("account has no such device secret")]
    SecretNotFound,
    /// The user name cannot be one.
    #[error("user name must have 1 to 4096 bytes, and neither colon nor control character")]
    InvalidName,
    /// The password is empty or too long.
    #[error("password must have 1 to 65535 bytes")]
    InvalidPassword,
    /// The text of a hash is not usable.
    #[error(
        "hash must be one of Argon2id, bcrypt, PBKDF2 or Mosquitto's SHA-512, with usual parameters"
    )]
    InvalidHash,
    /// There are as many accounts as fit.
    #[error("there are 10,000,000 accounts, which is the maximum")]
    TooMany,
    /// The account cannot be stored or the password cannot be hashed now.
    #[error("broker cannot change accounts now")]
    Unavailable,
}

/// The accounts in the broker's store. A part that is not implemented answers
/// [`UsersError::NoSource`].
#[async_trait]
pub trait UserAccounts: Send + Sync + 'static {
    /// Returns an account.
    async fn find_user(&self, _name: &str) -> Result<UserView, UsersError> {
        Err(UsersError::NoSource)
    }

    /// Returns whether the file has an account of this name.
    fn is_user_of_file(&self, _name: &str) -> bool {
        false
    }

    /// Returns some accounts.
    async fn list_users(&self, _request: ListUsers) -> Result<Vec<UserView>, UsersError> {
        Err(UsersError::NoSource)
    }

    /// Changes an account. If the caller stops waiting, the change may be made all the same.
    async fn change_user(&self, _request: ChangeUser) -> Result<UserChanged, UsersError> {
        Err(UsersError::NoSource)
    }

    /// Imports accounts; returns a result for each, in their order. Sessions of accounts that were
    /// replaced are checked by [`UserAccounts::check_sessions_of`] afterwards.
    async fn import_users(&self, request: ImportUsers) -> Vec<Result<Imported, UsersError>> {
        vec![Err(UsersError::NoSource); request.users.len()]
    }

    /// Checks the sessions of these users again; `None`: all sessions.
    async fn check_sessions_of(&self, _names: Option<Vec<String>>) -> Rechecked {
        Rechecked::default()
    }
}
