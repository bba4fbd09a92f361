//! The accounts: a TOML file of user names and Argon2id hashes.
//!
//! ```toml
//! [[users]]
//! name = "fleet"
//! password_hash = "$argon2id$v=19$m=19456,t=2,p=1$…"
//! scram = "SCRAM-SHA-256$32768:…$…:…"      # allows logins by SCRAM; "" does not
//! disabled = true                           # keeps the account, but refuses its logins
//! limits = { sessions_max = 50000 }         # replaces the limits of each user
//!
//! [scram]
//! secret = "…"                              # salts are derived from it
//! ```
//!
//! Knows the file and its rules; does not know how a login is checked. Called by the authenticator;
//! `edit` writes the file.

mod edit;

pub use edit::{add_user, remove_user, set_disabled, set_password};

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher as _, RandomState},
    path::Path,
    sync::Arc,
};

use serde::Deserialize;
use toml::Spanned;

use super::{
    file::{self, FileError},
    keys::{SaltSecret, SaltSecretError, ScramKeys, ScramKeysError},
    password::{PasswordHashError, StoredPassword},
};
use crate::limits::OwnLimits;

/// MQTT gives a string two bytes for its length, section 1.5.4.
const NAME_BYTES_MAX: usize = 65_535;

/// Accounts as a file lists them.
#[derive(Debug, Default)]
pub struct Accounts {
    users: Vec<User>,
    by_name: HashMap<Arc<str>, usize>,
    decoys: RandomState,
    salts: Option<SaltSecret>,
    /// The iteration counts of all SCRAM keys, each once, ascending.
    scram_iterations: Vec<u32>,
}

/// One account.
#[derive(Debug)]
#[non_exhaustive]
pub struct User {
    /// The user name.
    pub name: Arc<str>,
    /// The hash of the password.
    pub password: StoredPassword,
    /// The keys for SCRAM; a user without them cannot log in by SCRAM.
    pub scram: Option<ScramKeys>,
    /// Whether logins with this account are refused.
    pub is_disabled: bool,
    /// The number of the first reading of the file that had these credentials.
    pub(super) changed: u64,
    /// The limits of this user that replace the general limits of each user.
    pub limits: Option<OwnLimits>,
}

/// Checks that `name` can be a user name: it is not empty, and MQTT and HTTP Basic can carry it.
///
/// # Errors
/// `name` is empty or too long, or has a control character or a colon.
pub fn check_user_name(name: &str) -> Result<(), UserNameError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        Err(UserNameError::Length)
    } else if name.chars().any(char::is_control) {
        Err(UserNameError::ControlCharacter)
    } else if name.contains(':') {
        Err(UserNameError::Colon)
    } else {
        Ok(())
    }
}

impl Accounts {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has an unknown key, a duplicate or invalid user
    /// name, a hash that is not Argon2id, or invalid SCRAM keys. The error names the line.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::parse(path, &file::read(path)?)
    }

    /// Checks `text`, the contents of the file; `path` appears in errors only.
    ///
    /// # Errors
    /// The same as [`Accounts::open`], except for reading.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let mut accounts = Self::default();
        let AccountsFile { users, scram } = file::parse(path, text)?;
        accounts.salts = scram.map(|ScramSection { secret: SecretText(secret) }| secret);
        for entry in users.into_iter().map(Spanned::into_inner) {
            let (span, UserName(name)) = (entry.name.span(), entry.name.into_inner());
            let name: Arc<str> = name.into();
            let at = accounts.users.len();
            // A second entry would decide silently which password counts.
            if accounts.by_name.insert(Arc::clone(&name), at).is_some() {
                let problem = format!("user `{name}` is listed twice; keep one of the two");
                return Err(FileError::invalid(path, text, span, &problem));
            }
            let PasswordHashText(password) = entry.password_hash.into_inner();
            let scram = entry.scram.and_then(|scram| scram.into_inner().0);
            let is_disabled = entry.disabled.is_some_and(Spanned::into_inner);
            accounts.users.push(User {
                name,
                password,
                scram,
                is_disabled,
                changed: 0,
                limits: entry.limits,
            });
        }
        let iterations =
            accounts.users.iter().filter_map(|user| Some(user.scram.as_ref()?.iterations()));
        // A name without keys gets one of these counts, so that its challenge does not stand out.
        accounts.scram_iterations = iterations.collect::<BTreeSet<_>>().into_iter().collect();
        Ok(accounts)
    }

    /// Notes for each account the first reading of the file that had its credentials. `former` has the
    /// accounts of the previous reading; `reading` is the number of this one.
    pub(super) fn follow(&mut self, former: &Self, reading: u64) {
        for user in &mut self.users {
            let before = former.get(&user.name).filter(|before| {
                // Adding SCRAM keys beside an unchanged password invalidates no credentials.
                let keys = |user: &User| user.scram.as_ref().map(ToString::to_string);
                let has_same_keys = before.scram.is_none() || keys(before) == keys(user);
                before.password.as_str() == user.password.as_str() && has_same_keys
            });
            user.changed = before.map_or(reading, |before| before.changed);
        }
    }

    /// Returns the account of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&User> {
        self.by_name.get(name).map(|at| &self.users[*at])
    }

    /// Returns all accounts, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.users.iter()
    }

    /// Returns SCRAM keys for a name that has none. They belong to no user, and clients cannot tell
    /// them from real ones: their iteration count is one that real accounts use.
    pub(super) fn scram_decoy(&self, name: &str, default: &SaltSecret) -> ScramKeys {
        self.salts.as_ref().unwrap_or(default).decoy(name, &self.scram_iterations)
    }

    /// Returns the number of accounts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Returns whether there are no accounts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Returns a hash to compute for a user name without an account; the result must be
    /// **discarded**. The refusal then takes as long as that of a wrong password. One name always
    /// gets the same hash, taken from the stored ones, so that the times are spread as they are for
    /// existing names, even where hashes of different cost are in use.
    pub(super) fn decoy(&self, name: &str) -> Option<&StoredPassword> {
        let count = u64::try_from(self.users.len()).ok().filter(|count| *count > 0)?;
        let at = usize::try_from(self.decoys.hash_one(name) % count).ok()?;
        Some(&self.users[at].password)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountsFile {
    #[serde(default)]
    users: Vec<Spanned<UserEntry>>,
    scram: Option<ScramSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScramSection {
    secret: SecretText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserEntry {
    name: Spanned<UserName>,
    password_hash: Spanned<PasswordHashText>,
    scram: Option<Spanned<ScramText>>,
    disabled: Option<Spanned<bool>>,
    limits: Option<OwnLimits>,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct UserName(String);

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct PasswordHashText(StoredPassword);

/// `None` where the text is empty.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct ScramText(Option<ScramKeys>);

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct SecretText(SaltSecret);

/// Why a text cannot be a user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UserNameError {
    /// MQTT cannot carry a longer one, and an empty one names no user.
    #[error("user name is empty or longer than 65,535 bytes")]
    Length,
    /// A line end, for example.
    #[error("user name holds a control character; leave it out")]
    ControlCharacter,
    /// HTTP Basic ends the name at a colon.
    #[error("user name holds a colon, which HTTP Basic cannot send; leave it out")]
    Colon,
}

impl TryFrom<String> for UserName {
    type Error = UserNameError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        check_user_name(&name).map(|()| Self(name))
    }
}

impl TryFrom<String> for PasswordHashText {
    type Error = PasswordHashError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for ScramText {
    type Error = ScramKeysError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|keys| Self(Some(keys))) }
    }
}

impl TryFrom<String> for SecretText {
    type Error = SaltSecretError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}
