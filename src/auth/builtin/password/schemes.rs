//! The schemes of stored passwords: parses the text of a hash, and computes it for a password.
//!
//! Argon2id is what HearthMQ makes. The others come with accounts of other brokers and databases, and
//! are only verified. Knows texts and bytes; does not know accounts or threads.

use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{self, SHA512},
    pbkdf2::{self, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA512},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};

use super::PasswordHashError;

/// Maximum memory that a stored hash may ask for, 1 GiB, so that a typing error cannot stop the
/// broker.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// Maximum number of passes that a stored Argon2id hash may ask for.
const PASSES_MAX: u32 = 64;
/// Maximum number of iterations that a stored PBKDF2 hash may ask for: some seconds of one core.
const ITERATIONS_MAX: u32 = 10_000_000;
/// Maximum cost of a stored bcrypt hash, for the same reason.
const BCRYPT_COST_MAX: u32 = 16;
/// Lengths in bytes of a salt, and of a hash.
const SALT_BYTES: std::ops::RangeInclusive<usize> = 1..=128;
const HASH_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// Iterations below which PBKDF2 is weak, with SHA-512 and with SHA-256: OWASP's recommendations.
const STRONG_ITERATIONS: [u32; 2] = [210_000, 600_000];
/// Cost below which bcrypt is weak, by the same.
const STRONG_BCRYPT_COST: u32 = 10;

/// A stored hash with its scheme.
#[derive(Clone)]
pub(super) enum Scheme {
    Argon2id(Box<Argon2id>),
    Bcrypt {
        cost: u32,
        text: Box<str>,
    },
    Pbkdf2(Box<Pbkdf2>),
    /// SHA-512 of password and salt, one round, as Mosquitto made them before version 2.
    Sha512 {
        salt: Box<[u8]>,
        hash: Box<[u8]>,
    },
}

#[derive(Clone)]
pub(super) struct Argon2id {
    params: Params,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

#[derive(Clone)]
pub(super) struct Pbkdf2 {
    is_sha256: bool,
    iterations: NonZeroU32,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

impl Scheme {
    pub(super) fn parse(text: &str) -> Result<Self, PasswordHashError> {
        let parts: Vec<&str> = text.split('$').collect();
        match *parts.as_slice() {
            ["", "argon2id", "v=19", params, salt, hash] => argon2id(params, salt, hash),
            ["", "argon2id", ..] => Err(PasswordHashError::Malformed),
            ["", "2a" | "2b" | "2y", cost, rest] => bcrypt(text, cost, rest),
            // Mosquitto's, since version 2.
            ["", "7", iterations, salt, hash] => pbkdf2(false, iterations, salt, hash),
            // Mosquitto's of former versions. That of crypt(3) has another alphabet and length.
            ["", "6", salt, hash] => sha512(salt, hash),
            // PHC strings, and those of passlib.
            ["", "pbkdf2-sha512", params, salt, hash] => {
                pbkdf2(false, iterations_of(params), salt, hash)
            }
            ["", "pbkdf2-sha256", params, salt, hash] => {
                pbkdf2(true, iterations_of(params), salt, hash)
            }
            // Those of mosquitto-go-auth.
            ["PBKDF2", "sha512", iterations, salt, hash] => pbkdf2(false, iterations, salt, hash),
            ["PBKDF2", "sha256", iterations, salt, hash] => pbkdf2(true, iterations, salt, hash),
            ["", scheme, .., _] if !scheme.is_empty() => Err(PasswordHashError::Algorithm),
            _ => Err(PasswordHashError::Malformed),
        }
    }

    /// Returns whether this is the hash of `password`; compares in constant time.
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Argon2id(stored) => stored.verify(password),
            Self::Bcrypt { text, .. } => bcrypt::verify(password, text).unwrap_or(false),
            Self::Pbkdf2(stored) => {
                let algorithm =
                    if stored.is_sha256 { PBKDF2_HMAC_SHA256 } else { PBKDF2_HMAC_SHA512 };
                let Pbkdf2 { iterations, salt, hash, .. } = &**stored;
                pbkdf2::verify(algorithm, *iterations, salt, password, hash).is_ok()
            }
            Self::Sha512 { salt, hash } => {
                let mut context = digest::Context::new(&SHA512);
                context.update(password);
                context.update(salt);
                verify_slices_are_equal(context.finish().as_ref(), hash).is_ok()
            }
        }
    }

    /// Returns whether a stolen hash can be tried much faster than one of Argon2id.
    pub(super) const fn is_weak(&self) -> bool {
        match self {
            Self::Argon2id(_) => false,
            Self::Bcrypt { cost, .. } => *cost < STRONG_BCRYPT_COST,
            Self::Pbkdf2(stored) => {
                stored.iterations.get() < STRONG_ITERATIONS[stored.is_sha256 as usize]
            }
            Self::Sha512 { .. } => true,
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Argon2id(_) => "argon2id",
            Self::Bcrypt { .. } => "bcrypt",
            Self::Pbkdf2(_) => "pbkdf2",
            Self::Sha512 { .. } => "sha512",
        }
    }
}

impl Argon2id {
    fn verify(&self, password: &[u8]) -> bool {
        let mut computed = vec![0; self.hash.len()];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        argon2.hash_password_into(password, &self.salt, &mut computed).is_ok()
            && verify_slices_are_equal(&computed, &self.hash).is_ok()
    }
}

fn argon2id(params: &str, salt: &str, hash: &str) -> Result<Scheme, PasswordHashError> {
    let (salt, hash) = salt_and_hash(salt, hash)?;
    let mut numbers = [None; 3];
    for param in params.split(',') {
        let (name, number) = param.split_once('=').ok_or(PasswordHashError::Malformed)?;
        let at = ["m", "t", "p"].iter().position(|known| *known == name);
        let at = at.ok_or(PasswordHashError::Malformed)?;
        numbers[at] = Some(number.parse().map_err(|_| PasswordHashError::Parameters)?);
    }
    let [Some(memory_kib), Some(passes), Some(lanes)] = numbers else {
        return Err(PasswordHashError::Malformed);
    };
    // Each login computes this hash, so an imported one must not cost seconds or gigabytes.
    if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX || salt.len() < argon2::MIN_SALT_LEN {
        return Err(PasswordHashError::Parameters);
    }
    let params = Params::new(memory_kib, passes, lanes, Some(hash.len()));
    let params = params.map_err(|_| PasswordHashError::Parameters)?;
    Ok(Scheme::Argon2id(Box::new(Argon2id { params, salt, hash })))
}

fn bcrypt(text: &str, cost: &str, rest: &str) -> Result<Scheme, PasswordHashError> {
    let is_of_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    if rest.len() != 53 || !rest.bytes().all(is_of_alphabet) {
        return Err(PasswordHashError::Malformed);
    }
    let cost = cost.parse().map_err(|_| PasswordHashError::Malformed)?;
    if !(4..=BCRYPT_COST_MAX).contains(&cost) {
        return Err(PasswordHashError::Parameters);
    }
    Ok(Scheme::Bcrypt { cost, text: text.into() })
}

/// Returns the number of iterations of `i=100000,l=64`, or of a number alone.
fn iterations_of(params: &str) -> &str {
    let mut all = params.split(',');
    all.find_map(|param| param.strip_prefix("i=")).unwrap_or(params)
}

fn pbkdf2(
    is_sha256: bool,
    iterations: &str,
    salt: &str,
    hash: &str,
) -> Result<Scheme, PasswordHashError> {
    let (salt, hash) = salt_and_hash(salt, hash)?;
    let iterations: u32 = iterations.parse().map_err(|_| PasswordHashError::Malformed)?;
    let iterations = NonZeroU32::new(iterations).filter(|count| count.get() <= ITERATIONS_MAX);
    let iterations = iterations.ok_or(PasswordHashError::Parameters)?;
    Ok(Scheme::Pbkdf2(Box::new(Pbkdf2 { is_sha256, iterations, salt, hash })))
}

fn sha512(salt: &str, hash: &str) -> Result<Scheme, PasswordHashError> {
    let (salt, hash) = salt_and_hash(salt, hash)?;
    if hash.len() != SHA512.output_len() {
        return Err(PasswordHashError::Malformed);
    }
    Ok(Scheme::Sha512 { salt, hash })
}

type Bytes = Box<[u8]>;

/// Decodes base64 with and without padding, and that of passlib, which has a dot for the plus.
fn salt_and_hash(salt: &str, hash: &str) -> Result<(Bytes, Bytes), PasswordHashError> {
    let decode = |text: &str| {
        // A dot is in no other alphabet here, so the replacement cannot change another text.
        let text = text.replace('.', "+");
        let decoded = match text.ends_with('=') {
            true => STANDARD.decode(&text),
            false => STANDARD_NO_PAD.decode(&text),
        };
        decoded.map_err(|_| PasswordHashError::Malformed)
    };
    let (salt, hash) = (decode(salt)?, decode(hash)?);
    if !SALT_BYTES.contains(&salt.len()) || !HASH_BYTES.contains(&hash.len()) {
        return Err(PasswordHashError::Malformed);
    }
    Ok((salt.into(), hash.into()))
}
