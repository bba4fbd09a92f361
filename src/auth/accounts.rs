//! The accounts: a TOML file of user names and Argon2id hashes.
//!
//! ```toml
//! [[users]]
//! name = "fleet"
//! password_hash = "$argon2id$v=19$m=19456,t=2,p=1$…"
//! scram = "SCRAM-SHA-256$32768:…$…:…"      # if it may log in by SCRAM; "" is none
//! disabled = true                           # keeps the account, and lets nobody log in with it
//! limits = { sessions_max = 50000 }         # in place of the limits of each user
//!
//! [scram]
//! secret = "…"                              # salts are made from it
//! ```
//!
//! Knows the file and its rules; does not know how a login goes. Called by the authenticator;
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
    password::{PasswordHashError, StoredPassword},
    scram::{SaltSecret, SaltSecretError, ScramKeys, ScramKeysError},
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
    /// The iterations of the SCRAM keys, each number once, ascending.
    scram_iterations: Vec<u32>,
}

/// One account.
#[derive(Debug)]
pub struct User {
    /// The user name.
    pub name: Arc<str>,
    /// The hash of the password.
    pub password: StoredPassword,
    /// What SCRAM compares with; without it the user cannot log in by SCRAM.
    pub scram: Option<ScramKeys>,
    /// Whether nobody may log in with this account.
    pub is_disabled: bool,
    /// In which reading of the file the credentials were first seen.
    pub(super) changed: u64,
    /// What it has in place of the limits of each user.
    pub limits: Option<OwnLimits>,
}

/// Checks that `name` can be a user name: it is not empty, and MQTT and HTTP Basic can carry it.
///
/// # Errors
/// What is wrong with it.
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
    /// The file cannot be read, is no TOML, has an unknown key, a user name twice or one that
    /// cannot be, a hash that is not Argon2id, or SCRAM keys that are none; with the line.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::parse(path, &file::read(path)?)
    }

    /// As [`Accounts::open`], with the `text` of the file; `path` is for the errors.
    ///
    /// # Errors
    /// As [`Accounts::open`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let mut accounts = Self::default();
        let AccountsFile { users, scram } = file::parse(path, text)?;
        accounts.salts = scram.map(|ScramSection { secret: SecretText(secret) }| secret);
        for entry in users.into_iter().map(Spanned::into_inner) {
            let (span, UserName(name)) = (entry.name.span(), entry.name.into_inner());
            let name: Arc<str> = name.into();
            let at = accounts.users.len();
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
        accounts.scram_iterations = iterations.collect::<BTreeSet<_>>().into_iter().collect();
        Ok(accounts)
    }

    /// Notes in which reading of the file the credentials of each account were first seen: `former`
    /// are the accounts of the reading before this one, which is number `reading`.
    pub(super) fn follow(&mut self, former: &Self, reading: u64) {
        for user in &mut self.users {
            let before = former.get(&user.name).filter(|before| {
                // Keys that are new beside the same password change nothing for who has that.
                let keys = |user: &User| user.scram.as_ref().map(ToString::to_string);
                let has_same_keys = before.scram.is_none() || keys(before) == keys(user);
                before.password.as_str() == user.password.as_str() && has_same_keys
            });
            user.changed = before.map_or(reading, |before| before.changed);
        }
    }

    /// The account of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&User> {
        self.by_name.get(name).map(|at| &self.users[*at])
    }

    /// Every account, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.users.iter()
    }

    /// SCRAM keys for a name that has none, not to be told from others: nobody's, with
    /// iterations as they are in use.
    pub(super) fn scram_decoy(&self, name: &str, default: &SaltSecret) -> ScramKeys {
        self.salts.as_ref().unwrap_or(default).decoy(name, &self.scram_iterations)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Some account's hash, to be computed and **thrown away** for a user name that has none, so
    /// that it takes as long as a wrong password; always the same one for the same name.
    /// As it is one of the stored ones, the times are spread as they are for names that exist,
    /// even where hashes of different cost are in use.
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

/// Empty where there are no keys.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct ScramText(Option<ScramKeys>);

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct SecretText(SaltSecret);

/// Why a text cannot be a user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserNameError {
    /// MQTT has no room for more.
    #[error("user name is empty or longer than 65,535 bytes")]
    Length,
    /// A line end, for example.
    #[error("user name holds a control character; leave it out")]
    ControlCharacter,
    /// HTTP Basic ends the name there.
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
