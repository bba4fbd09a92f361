//! Passwords: generates them, hashes them, compares them with a stored hash.
//!
//! Knows the schemes of hashes and their texts; does not know users or threads. Hashing takes tens of
//! milliseconds of one core by intent; the caller ensures that no shard waits for it.

mod schemes;

use std::{fmt, str::FromStr, sync::Arc};

use argon2::{Algorithm, Argon2, Params, Version, password_hash::PasswordHasher as _};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

use self::schemes::Scheme;

/// 19 MiB, two passes, one lane: OWASP's recommendation for Argon2id.
const PARAMS: (u32, u32, u32) = (19 * 1024, 2, 1);

/// Letters and digits that are not confused when read aloud or typed from paper; 32 of them, so
/// that five random bits choose one without bias.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// 24 letters of five bits: 120 bits cannot be guessed, online or offline.
const GENERATED_LEN: usize = 24;

/// Why a text is not a usable password hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordHashError {
    /// Not the text of a hash, or one without salt or hash.
    #[error(
        "not a password hash; `hearthmq passwd NAME` makes one that begins with `$argon2id$v=19$`"
    )]
    Malformed,
    /// The hash of another algorithm.
    #[error(
        "not a hash of Argon2id, bcrypt, PBKDF2 or Mosquitto's SHA-512; `hearthmq passwd NAME` makes one"
    )]
    Algorithm,
    /// Parameters that are invalid for the algorithm, or far too expensive.
    #[error(
        "parameters of the hash are out of range; Argon2id with m=19456,t=2,p=1 is recommended"
    )]
    Parameters,
}

/// A stored password: the hash with its scheme.
///
/// It is verified by the scheme that its text names: Argon2id (a PHC string), bcrypt (`$2b$…`), PBKDF2
/// with SHA-512 or SHA-256 (`$pbkdf2-sha512$…`, `$7$…` of Mosquitto, `PBKDF2$sha512$…` of
/// mosquitto-go-auth), and one round of SHA-512 with a salt (`$6$…` of old versions of Mosquitto).
/// `Debug` shows the scheme alone.
#[derive(Clone)]
pub struct StoredPassword {
    text: Arc<str>,
    scheme: Scheme,
}

impl StoredPassword {
    /// Returns the text of the hash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether this is the hash of `password`. Slow by intent, with the parameters of the
    /// stored hash; compares in constant time.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        self.scheme.verify(password)
    }

    /// Returns whether a stolen hash can be tried much faster than one of Argon2id. It should be hashed
    /// again by [`hash_password`] when the password is known.
    #[must_use]
    pub const fn is_weak(&self) -> bool {
        self.scheme.is_weak()
    }

    /// Returns the name of the scheme: `argon2id`, `bcrypt`, `pbkdf2` or `sha512`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        self.scheme.name()
    }
}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredPassword({})", self.scheme())
    }
}

impl FromStr for StoredPassword {
    type Err = PasswordHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self { text: text.into(), scheme: Scheme::parse(text)? })
    }
}

/// Returns the Argon2id hash of `password` (19 MiB, 2 passes, 1 lane, a random salt) as a PHC
/// string.
#[must_use]
pub fn hash_password(password: &[u8]) -> String {
    let mut salt = [0; 16];
    fill_random(&mut salt);
    let (memory_kib, passes, lanes) = PARAMS;
    let params = Params::new(memory_kib, passes, lanes, None).expect("the constants are in range");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_with_salt(password, &salt)
        .expect("salt and parameters are in range, and no password has 4 GiB")
        .to_string()
}

/// Returns a hash that no known password has. To compare a password with it takes as long as with one of
/// [`hash_password`]; to make it takes no time and no memory, because it is random.
pub(super) fn hash_of_nobody() -> StoredPassword {
    let (mut salt, mut hash) = ([0; 16], [0; 32]);
    fill_random(&mut salt);
    fill_random(&mut hash);
    let (memory_kib, passes, lanes) = PARAMS;
    let [salt, hash] = [&salt[..], &hash[..]].map(|bytes| STANDARD_NO_PAD.encode(bytes));
    let text = format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}");
    text.parse().expect("our own hashes are well-formed")
}

/// Returns a random password of 24 lower-case letters and digits (120 bits) without characters that
/// look alike.
#[must_use]
pub fn generate_password() -> String {
    let mut random = [0; GENERATED_LEN];
    fill_random(&mut random);
    random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system has random bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_nobody_costs_what_others_cost_and_fits_no_password() {
        let nobody = hash_of_nobody();
        let real = hash_password(b"word");
        let parameters = |text: &str| text.split('$').take(4).collect::<Vec<_>>().join("$");
        assert_eq!(parameters(nobody.as_str()), parameters(&real));
        assert_eq!(nobody.as_str().len(), real.len());
        assert!(!nobody.verify(b"") && !nobody.verify(b"word") && !nobody.is_weak());
        assert_ne!(nobody.as_str(), hash_of_nobody().as_str());
    }
}
