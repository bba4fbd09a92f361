//! Passwords: generates them, hashes them, compares them with a stored hash.
//!
//! Knows Argon2id and its PHC string; does not know users or threads. Hashing takes tens of
//! milliseconds of one core by intent; the caller ensures that no shard waits for it.

use std::{str::FromStr, sync::Arc};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{
        PasswordHasher as _, PasswordVerifier as _,
        phc::{Error as PhcError, PasswordHash},
    },
};

/// 19 MiB, two passes, one lane: OWASP's recommendation for Argon2id.
const PARAMS: (u32, u32, u32) = (19 * 1024, 2, 1);

/// Maximum memory that a stored hash may ask for, 1 GiB, so that a typing error cannot stop the
/// broker.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;

/// Maximum number of passes that a stored hash may ask for.
const PASSES_MAX: u32 = 64;

/// Letters and digits that are not confused when read aloud or typed from paper; 32 of them, so
/// that five random bits choose one without bias.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// 24 letters of five bits: 120 bits cannot be guessed, online or offline.
const GENERATED_LEN: usize = 24;

/// Why a text is not a usable password hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordHashError {
    /// Not a PHC string, or one without salt or hash.
    #[error(
        "not a password hash; `hearthmq passwd NAME` makes one that begins with `$argon2id$v=19$`"
    )]
    Malformed,
    /// The hash of another algorithm.
    #[error("not an Argon2id hash; `hearthmq passwd NAME` makes one")]
    Algorithm,
    /// Parameters that are invalid for the algorithm, or far too expensive.
    #[error("Argon2id parameters are out of range; m=19456,t=2,p=1 is recommended")]
    Parameters,
}

/// A stored password: an Argon2id hash in its PHC string form.
#[derive(Clone, Debug)]
pub struct StoredPassword {
    text: Arc<str>,
    hash: Arc<PasswordHash>,
}

impl StoredPassword {
    /// Returns the PHC string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether this is the hash of `password`. Slow by intent, with the parameters of the
    /// stored hash; compares in constant time.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        Argon2::default().verify_password(password, &*self.hash).is_ok()
    }
}

impl FromStr for StoredPassword {
    type Err = PasswordHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = PasswordHash::new(text).map_err(|_: PhcError| PasswordHashError::Malformed)?;
        if hash.algorithm != Algorithm::Argon2id.ident() {
            return Err(PasswordHashError::Algorithm);
        }
        if hash.salt.is_none() || hash.hash.is_none() {
            return Err(PasswordHashError::Malformed);
        }
        let params = Params::try_from(&hash).map_err(|_| PasswordHashError::Parameters)?;
        if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX {
            return Err(PasswordHashError::Parameters);
        }
        Ok(Self { text: text.into(), hash: Arc::new(hash) })
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
