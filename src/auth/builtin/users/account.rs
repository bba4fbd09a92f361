//! An account in the store: its content, and its form as a record.
//!
//! Knows hashes, not passwords. Called by the source of these accounts, and by the broker, which changes
//! them.

use serde::{Deserialize, Serialize};

use super::super::{
    password::StoredPassword,
    secret::{self, SecretHash},
};
use crate::{
    auth::{Attributes, Groups, Identity},
    limits::OwnLimits,
    mqtt::Timestamp,
};

/// Device secrets that an account may have at the same time: the present one and the next.
pub const SECRETS_PER_USER_MAX: usize = 2;
/// The first byte of a record. Another form will have another one.
const FORM: u8 = 1;

/// An account in the store.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoredUser {
    /// The password; `None` if only device secrets are accepted.
    pub password: Option<UserPassword>,
    /// The device secrets.
    pub secrets: Vec<DeviceSecret>,
    /// Whether logins with this account are refused.
    pub is_disabled: bool,
    /// The groups that the user belongs to.
    pub groups: Groups,
    /// The attributes of the user.
    pub attributes: Attributes,
    /// The limits of this user that replace the general limits of each user.
    pub limits: Option<OwnLimits>,
    /// When the account was created.
    pub created_at: Timestamp,
}

/// The password of an account.
#[derive(Clone, Debug)]
pub struct UserPassword {
    /// Its number; the next password has another one.
    pub(crate) id: u64,
    /// Its hash.
    pub hash: StoredPassword,
}

/// A device secret of an account.
#[derive(Clone)]
pub struct DeviceSecret {
    /// Its number.
    pub id: u64,
    /// When it was made.
    pub created_at: Timestamp,
    hash: SecretHash,
}

impl UserPassword {
    /// Creates the password with this hash.
    #[must_use]
    pub fn new(hash: StoredPassword) -> Self {
        Self { id: new_number(), hash }
    }
}

impl DeviceSecret {
    /// Creates the stored form of a secret.
    #[must_use]
    pub fn new(secret: &str, created_at: Timestamp) -> Self {
        Self::of_hash(secret::hash_secret(secret.as_bytes()), created_at)
    }

    /// Creates the stored form of a secret whose text has this SHA-256.
    #[must_use]
    pub fn of_hash(hash: [u8; 32], created_at: Timestamp) -> Self {
        Self { id: new_number(), created_at, hash }
    }

    /// Returns the SHA-256 of its text.
    #[must_use]
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

impl std::fmt::Debug for DeviceSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceSecret").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Returns a random number for a new credential. It has 64 bits, so two credentials of one account hardly ever
/// have the same.
fn new_number() -> u64 {
    let mut number = [0; 8];
    getrandom::fill(&mut number).expect("the operating system has random bytes");
    u64::from_le_bytes(number)
}

impl StoredUser {
    /// Returns the number of the secret with this hash. Compares all of them, so that the time does not show which
    /// one it is.
    pub(super) fn secret_with(&self, hash: &SecretHash) -> Option<u64> {
        let mut found = None;
        for secret in &self.secrets {
            if secret::is_same(&secret.hash, hash) {
                found = Some(secret.id);
            }
        }
        found
    }

    /// Returns whether the credential with this number is still one of the account.
    pub(in crate::auth::builtin) fn has_credential(&self, id: u64) -> bool {
        self.password.as_ref().is_some_and(|password| password.id == id)
            || self.secrets.iter().any(|secret| secret.id == id)
    }

    /// Returns an identity with its groups and attributes.
    pub(in crate::auth) fn into_identity(self) -> Identity {
        Identity { groups: self.groups, attributes: self.attributes, ..Identity::default() }
    }

    /// Returns its form as a record.
    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let record = UserRecord {
            is_disabled: self.is_disabled,
            created_at: self.created_at.millis(),
            password: self.password.as_ref().map(|own| (own.id, own.hash.as_str())),
            secrets: self
                .secrets
                .iter()
                .map(|own| (own.id, own.created_at.millis(), own.hash))
                .collect(),
            groups: self.groups.iter().collect(),
            attributes: self.attributes.iter().collect(),
            limits: self.limits,
        };
        let bytes = postcard::to_extend(&record, vec![FORM]);
        bytes.expect("a record has neither a sequence of unknown length nor an unknown type")
    }

    /// Returns the account of a record; `None` if it is damaged, or of a later version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        // The first byte is the version of the form; a later one must not be misread.
        let (FORM, bytes) = bytes.split_first().map(|(form, bytes)| (*form, bytes))? else {
            return None;
        };
        let record: UserRecord<'_> = postcard::from_bytes(bytes).ok()?;
        let password = match record.password {
            Some((id, hash)) => Some(UserPassword { id, hash: hash.parse().ok()? }),
            None => None,
        };
        let secret =
            |(id, created_at, hash)| DeviceSecret { id, created_at: Timestamp(created_at), hash };
        Some(Self {
            password,
            secrets: record.secrets.into_iter().map(secret).collect(),
            is_disabled: record.is_disabled,
            groups: Groups::new(record.groups).ok()?,
            attributes: Attributes::new(record.attributes).ok()?,
            limits: record.limits,
            created_at: Timestamp(record.created_at),
        })
    }
}

/// An account in a record. The order of the members is the format.
#[derive(Serialize, Deserialize)]
struct UserRecord<'r> {
    is_disabled: bool,
    created_at: u64,
    #[serde(borrow)]
    password: Option<(u64, &'r str)>,
    secrets: Vec<(u64, u64, SecretHash)>,
    #[serde(borrow)]
    groups: Vec<&'r str>,
    #[serde(borrow)]
    attributes: Vec<(&'r str, &'r str)>,
    limits: Option<OwnLimits>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an account with all parts.
    fn user() -> StoredUser {
        StoredUser {
            password: Some(UserPassword::new(
                "$6$AAECAwQFBgcICQoL$5W8GCQ9GLgmhmQvoa8jmRaPnsh82mRigdSv6mQsK0sMIII/WznlQb1g+RWddfoAKTMzBJP1deJU+Rp/1QZ0zZg=="
                    .parse()
                    .unwrap(),
            )),
            secrets: vec![
                DeviceSecret::new("one", Timestamp(1)),
                DeviceSecret::new("two", Timestamp(u64::MAX)),
            ],
            is_disabled: true,
            groups: Groups::new(["cars", "night"]).unwrap(),
            attributes: Attributes::new([("plan", "gold"), ("", "")]).unwrap(),
            limits: Some(OwnLimits { sessions_max: Some(7), ..OwnLimits::default() }),
            created_at: Timestamp(1_764_321_000_000),
        }
    }

    #[test]
    fn an_account_is_the_same_after_its_record() {
        for user in [user(), StoredUser::default()] {
            let bytes = user.encode();
            let read = StoredUser::decode(&bytes).unwrap();
            assert_eq!(read.encode(), bytes);
            assert_eq!(format!("{read:?}"), format!("{user:?}"));
            assert!((0..bytes.len()).all(|end| StoredUser::decode(&bytes[..end]).is_none()));
        }
        let mut later = user().encode();
        later[0] = FORM + 1;
        assert!(StoredUser::decode(&later).is_none());
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?}", user());
        assert!(!shown.contains("AAECAw") && !shown.contains("gold"), "{shown}");
    }

    #[test]
    fn an_account_with_one_secret_takes_few_bytes() {
        let secrets = vec![DeviceSecret::new("one", Timestamp(1_764_321_000_000))];
        let user = StoredUser {
            secrets,
            created_at: Timestamp(1_764_321_000_000),
            ..StoredUser::default()
        };
        assert!(user.encode().len() <= 72, "{}", user.encode().len());
    }
}
