//! Accounts and permissions in files: what the program uses, and an application may.
//!
//! [`FileAuthenticator`] checks passwords and certificates by a file of accounts, [`ScramSha256`]
//! adds SCRAM for the same accounts, and [`FilePolicy`] decides by a file of rules.

pub mod accounts;
mod attempts;
mod authenticator;
mod check;
mod file;
mod hashing;
mod keys;
mod known;
mod logins;
mod password;
pub mod policy;
mod recent;
#[cfg(feature = "scram")]
mod scram;
mod secret;
mod stricter;
mod tokens;
mod users;
mod uses;
mod verified;

pub use accounts::{
    Accounts, User, UserNameError, add_user, check_user_name, remove_user, set_disabled,
    set_password,
};
pub use authenticator::FileAuthenticator;
pub use file::FileError;
pub use keys::{SCRAM_ITERATIONS, SCRAM_ITERATIONS_DEFAULT, ScramKeys, ScramKeysError};
pub use logins::AuthenticationConfig;
pub use password::{PasswordHashError, StoredPassword, generate_password, hash_password};
pub use policy::{FilePolicy, OwnRulesError, Rule, own_rules};
#[cfg(feature = "scram")]
pub use scram::ScramSha256;
pub use secret::{SECRET_PREFIX, generate_secret};
pub use tokens::{NewTokenSecret, TokenAuthenticator, TokenHash, Tokens};
pub(crate) use users::UserRecords;
pub use users::{DeviceSecret, SECRETS_PER_USER_MAX, StoredUser, StoredUsers, UserPassword};
pub(crate) use uses::USE_BUCKETS;
