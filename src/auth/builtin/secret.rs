//! Device secrets: 256 random bits as a text that a device presents as its password.
//!
//! A secret cannot be guessed, so its SHA-256 is enough to store, and checking it takes a microsecond.
//! Knows texts and hashes; does not know accounts.

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// The beginning of every device secret, by which people and scanners of source code recognize it.
pub const SECRET_PREFIX: &str = "hmq_d_";
/// Bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Letters of them in base64.
const SECRET_LETTERS: usize = 43;

/// The SHA-256 of a secret's text.
pub(super) type SecretHash = [u8; 32];

/// Returns a new device secret: the prefix `hmq_d_` and 256 random bits as base64url.
#[must_use]
pub fn generate_secret() -> String {
    let mut random = [0; SECRET_BYTES];
    getrandom::fill(&mut random).expect("the operating system has random bytes");
    format!("{SECRET_PREFIX}{}", URL_SAFE_NO_PAD.encode(random))
}

/// Returns the hash of a secret.
pub(super) fn hash_secret(secret: &[u8]) -> SecretHash {
    digest(&SHA256, secret).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Compares two hashes in constant time.
pub(super) fn is_same(one: &SecretHash, other: &SecretHash) -> bool {
    verify_slices_are_equal(one, other).is_ok()
}

/// Returns whether a password has the form of a device secret.
pub(super) fn looks_like_one(password: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    password
        .strip_prefix(SECRET_PREFIX.as_bytes())
        .is_some_and(|rest| rest.len() == SECRET_LETTERS && rest.iter().all(is_letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_form_and_its_hash() {
        let (one, other) = (generate_secret(), generate_secret());
        assert_ne!(one, other);
        assert!(looks_like_one(one.as_bytes()) && one.len() == 49);
        assert!(is_same(&hash_secret(one.as_bytes()), &hash_secret(one.as_bytes())));
        assert!(!is_same(&hash_secret(one.as_bytes()), &hash_secret(other.as_bytes())));
        for wrong in
            ["", "hmq_d_", &one[1..], &one[..48], &format!("{one}A"), &one.replace("_d_", "_t_")]
        {
            assert!(!looks_like_one(wrong.as_bytes()), "{wrong}");
        }
        let with_other_letter = format!("{}+", &one[..48]);
        assert!(!looks_like_one(with_other_letter.as_bytes()));
    }
}
