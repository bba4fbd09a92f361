//! The stored form of a password for SCRAM-SHA-256, and the check of a proof: sections 3 and 5.1 of
//! RFC 5802, with the hash of RFC 7677.
//!
//! An attacker with these keys cannot log in with them, but can try passwords on them, at the cost
//! of their iterations for each try; a proof that was overheard is useless. Knows neither messages
//! nor accounts. Called by the exchange, and by the accounts, which store the keys.

use std::{borrow::Cow, fmt, num::NonZeroU32, ops::RangeInclusive, str::FromStr};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{self, SHA256},
    hmac::{self, HMAC_SHA256},
    pbkdf2::{self, PBKDF2_HMAC_SHA256},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Name of the mechanism, and of the Authentication Method.
pub(super) const MECHANISM: &str = "SCRAM-SHA-256";

/// Valid numbers of iterations. RFC 7677 requires at least 4,096; with more than the upper limit no
/// client would finish within the time for its CONNECT.
pub const SCRAM_ITERATIONS: RangeInclusive<u32> = 4_096..=10_000_000;

/// Default number of iterations. The client pays for them at each login, the broker never: 10 ms on
/// a computer, and an estimated second or two on a microcontroller, of the ten seconds that it has.
pub const SCRAM_ITERATIONS_DEFAULT: u32 = 32_768;

/// Length of a salt in bytes.
const SALT_BYTES: usize = 16;

/// Length of a digest of SHA-256 or HMAC-SHA-256 in bytes.
pub(super) const DIGEST_BYTES: usize = 32;

/// The output of SHA-256 and of HMAC-SHA-256.
pub(super) struct Digest(pub(super) [u8; DIGEST_BYTES]);

/// A stored password for SCRAM-SHA-256.
///
/// Its text form is that of RFC 5803, which PostgreSQL also writes:
/// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, the last three in base64.
#[derive(Clone)]
pub struct ScramKeys {
    iterations: u32,
    pub(super) salt: [u8; SALT_BYTES],
    stored_key: [u8; DIGEST_BYTES],
    server_key: [u8; DIGEST_BYTES],
}

/// Why a text is not valid as SCRAM keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScramKeysError {
    /// Malformed, or of another mechanism.
    #[error(
        "not SCRAM keys; `hearthmq passwd NAME --scram` makes some that begin with `SCRAM-SHA-256$`"
    )]
    Malformed,
    /// Too few iterations to be safe, or more than a client can compute in time.
    #[error("SCRAM iterations are out of range; 4096 to 10000000 are possible")]
    Iterations,
}

impl ScramKeys {
    /// Derives the keys of `password`, which takes as long as the iterations need.
    #[must_use]
    pub(in crate::auth::builtin) fn derive(
        password: &str,
        salt: [u8; SALT_BYTES],
        iterations: NonZeroU32,
    ) -> Self {
        let mut salted = [0; DIGEST_BYTES];
        // Normalized, because two devices may send the
        // same characters in different forms (RFC 4013).
        let password = prepared(password);
        pbkdf2::derive(PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let client_key = hmac(&salted, b"Client Key");
        Self {
            iterations: iterations.get(),
            salt,
            stored_key: sha256(&client_key.0).0,
            server_key: hmac(&salted, b"Server Key").0,
        }
    }

    /// Returns the number of iterations.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Returns the server's signature of `auth_message` if `proof` proves the password. The time
    /// that this takes reveals nothing about the keys.
    pub(super) fn verify(&self, auth_message: &str, proof: &Digest) -> Option<Digest> {
        let client_signature = hmac(&self.stored_key, auth_message.as_bytes());
        let mut client_key = client_signature;
        client_key.0.iter_mut().zip(proof.0).for_each(|(byte, proof)| *byte ^= proof);
        let server_signature = hmac(&self.server_key, auth_message.as_bytes());
        verify_slices_are_equal(&sha256(&client_key.0).0, &self.stored_key).ok()?;
        Some(server_signature)
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored_key, server_key] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|part| STANDARD.encode(part));
        write!(f, "{MECHANISM}${}:{salt}${stored_key}:{server_key}", self.iterations)
    }
}

impl FromStr for ScramKeys {
    type Err = ScramKeysError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = || {
            let (mechanism, rest) = text.split_once('$')?;
            let (info, keys) = rest.split_once('$')?;
            let (iterations, salt) = info.split_once(':')?;
            let (stored_key, server_key) = keys.split_once(':')?;
            (mechanism == MECHANISM).then_some(())?;
            Some(Self {
                iterations: iterations.parse().ok()?,
                salt: bytes(salt)?,
                stored_key: bytes(stored_key)?,
                server_key: bytes(server_key)?,
            })
        };
        let keys = parts().ok_or(ScramKeysError::Malformed)?;
        // A file may come from elsewhere: too few iterations are weak, too many stop clients.
        if SCRAM_ITERATIONS.contains(&keys.iterations) {
            Ok(keys)
        } else {
            Err(ScramKeysError::Iterations)
        }
    }
}

/// The secret from which salts are derived. Names without an account get a salt as well, so that a
/// client cannot learn which names have one.
///
/// A salt depends on the name alone: it is the same before the account exists, during its life,
/// after each change of its password, and after its removal. The secret is stored beside the
/// accounts, so that salts are the same on all brokers that share them, and after a restart.
#[derive(Clone)]
pub(in crate::auth::builtin) struct SaltSecret([u8; DIGEST_BYTES]);

impl SaltSecret {
    /// Generates a random secret.
    pub(in crate::auth::builtin) fn generate() -> Self {
        let mut secret = [0; DIGEST_BYTES];
        getrandom::fill(&mut secret).expect("the operating system has random bytes");
        Self(secret)
    }

    /// Returns the salt of a name.
    pub(in crate::auth::builtin) fn salt(&self, name: &str) -> [u8; SALT_BYTES] {
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&self.about("salt", name).0[..SALT_BYTES]);
        salt
    }

    /// Returns keys that match no password, for a name without keys, with a number of iterations
    /// from `iterations`, which is ascending. One name always gets the same number.
    pub(in crate::auth::builtin) fn decoy(&self, name: &str, iterations: &[u32]) -> ScramKeys {
        let [a, b, c, d, ..] = self.about("iterations", name).0;
        let chosen = u32::from_le_bytes([a, b, c, d]) as usize % iterations.len().max(1);
        ScramKeys {
            iterations: iterations.get(chosen).copied().unwrap_or(SCRAM_ITERATIONS_DEFAULT),
            salt: self.salt(name),
            stored_key: self.about("stored key", name).0,
            server_key: self.about("server key", name).0,
        }
    }

    fn about(&self, what: &str, name: &str) -> Digest {
        // No `what` is the beginning of another one, and the NUL ends it, so that no two pairs
        // collide. All spellings of a name that prepare to the same text share a digest.
        hmac(&self.0, format!("{what}\0{}", prepared(name)).as_bytes())
    }
}

impl fmt::Debug for SaltSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltSecret")
    }
}

impl fmt::Display for SaltSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// A text is not a valid secret for salts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 32 bytes in base64; leave [scram] out, and `hearthmq passwd NAME --scram` makes it")]
pub(in crate::auth::builtin) struct SaltSecretError;

impl FromStr for SaltSecret {
    type Err = SaltSecretError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        bytes(text).map(Self).ok_or(SaltSecretError)
    }
}

/// Prepares a name or password with SASLprep, so that it is the same from every keyboard. Text that
/// cannot be prepared stays as it is.
pub(in crate::auth::builtin) fn prepared(text: &str) -> Cow<'_, str> {
    stringprep::saslprep(text).unwrap_or_else(|_| text.into())
}

/// Decodes exactly `N` bytes from base64.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn hmac(key: &[u8], message: &[u8]) -> Digest {
    let tag = hmac::sign(&hmac::Key::new(HMAC_SHA256, key), message);
    Digest(tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes"))
}

fn sha256(bytes: &[u8]) -> Digest {
    let hash = digest::digest(&SHA256, bytes);
    Digest(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}
