//! The accounts: a TOML file of user names and Argon2id hashes.
//!
//! ```toml
//! [[users]]
//! name = "fleet"
//! password_hash = "$argon2id$v=19$m=19456,t=2,p=1$…"
//! ```
//!
//! Knows the file and its rules; does not know how a login goes. Called by the authenticator and
//! by the command line, which adds users.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    path::Path,
    sync::Arc,
};

use serde::Deserialize;
use toml::Spanned;

use super::{
    file::{self, FileError},
    password::{PasswordHashError, StoredPassword},
};

/// MQTT gives a string two bytes for its length, section 1.5.4.
const NAME_BYTES_MAX: usize = 65_535;

/// Accounts as a file lists them.
#[derive(Debug, Default)]
pub struct Accounts {
    users: Vec<User>,
    by_name: HashMap<Arc<str>, usize>,
    decoys: RandomState,
}

/// One account.
#[derive(Debug)]
pub struct User {
    /// The user name.
    pub name: Arc<str>,
    /// The hash of the password.
    pub password: StoredPassword,
}

impl Accounts {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, has an unknown key, a user name twice or one that
    /// cannot be, or a hash that is not Argon2id; with the line.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::parse(path, &file::read(path)?)
    }

    /// As [`Accounts::open`], with the `text` of the file; `path` is for the errors.
    ///
    /// # Errors
    /// As [`Accounts::open`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let mut accounts = Self::default();
        for entry in file::parse::<AccountsFile>(path, text)?.users {
            let (span, UserName(name)) = (entry.name.span(), entry.name.into_inner());
            let name: Arc<str> = name.into();
            let at = accounts.users.len();
            if accounts.by_name.insert(Arc::clone(&name), at).is_some() {
                let problem = format!("user `{name}` is listed twice; keep one of the two");
                return Err(FileError::invalid(path, text, span, &problem));
            }
            let PasswordHashText(password) = entry.password_hash.into_inner();
            accounts.users.push(User { name, password });
        }
        Ok(accounts)
    }

    /// The account of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&User> {
        self.by_name.get(name).map(|at| &self.users[*at])
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

/// Adds user `name` to the file at `path`, or replaces the hash of one who is in it; the rest of
/// the file, with its comments, stays as it is. A file that is missing is made. It can then be
/// read by its owner only, and at no time is half of it there.
///
/// # Errors
/// The file cannot be read or written, is wrong already, or would be with this name or hash.
pub fn add_user(path: &Path, name: &str, password_hash: &str) -> Result<(), FileError> {
    let old = match file::read(path) {
        Err(FileError::Unreadable { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            String::new()
        }
        read => read?,
    };
    let new = with_user(path, &old, name, password_hash)?;
    Accounts::parse(path, &new)?;
    file::write_private(path, &new)
}

fn with_user(path: &Path, old: &str, name: &str, hash: &str) -> Result<String, FileError> {
    let listed = file::parse::<AccountsFile>(path, old)?;
    let hash = toml::Value::from(hash).to_string();
    let mut new = old.to_owned();
    if let Some(user) = listed.users.iter().find(|user| user.name.get_ref().0 == name) {
        new.replace_range(user.password_hash.span(), &hash);
        return Ok(new);
    }
    if !new.is_empty() {
        new.push_str(if new.ends_with('\n') { "\n" } else { "\n\n" });
    }
    let name = toml::Value::from(name);
    new.push_str(&format!("[[users]]\nname = {name}\npassword_hash = {hash}\n"));
    Ok(new)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountsFile {
    #[serde(default)]
    users: Vec<UserEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserEntry {
    name: Spanned<UserName>,
    password_hash: Spanned<PasswordHashText>,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct UserName(String);

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct PasswordHashText(StoredPassword);

/// Why a text cannot be a user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum UserNameError {
    #[error("user name is empty or longer than 65,535 bytes")]
    Length,
    #[error("user name holds a control character; leave it out")]
    ControlCharacter,
    #[error("user name holds a colon, which HTTP Basic cannot send; leave it out")]
    Colon,
}

impl TryFrom<String> for UserName {
    type Error = UserNameError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            Err(UserNameError::Length)
        } else if name.chars().any(char::is_control) {
            Err(UserNameError::ControlCharacter)
        } else if name.contains(':') {
            Err(UserNameError::Colon)
        } else {
            Ok(Self(name))
        }
    }
}

impl TryFrom<String> for PasswordHashText {
    type Error = PasswordHashError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}
