//! Keys that check the signatures of tokens, from files and from a JWK Set (RFC 7517).

use std::{fs, path::PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{
    Algorithm, DecodingKey, Header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations, PublicKeyUse},
};

use super::options::{JwtConfig, JwtError, is_hmac};

/// Maximum bytes of a file with a key.
const FILE_BYTES_MAX: usize = 64 * 1024;
/// Minimum bytes of a secret: as many as the hash of HS256 has (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Maximum number of keys of a JWK Set.
const SET_KEYS_MAX: usize = 100;

/// A key with the tokens that it may have signed.
#[derive(Clone)]
pub(super) struct TokenKey {
    /// The name of the key (`kid`) in a JWK Set.
    id: Option<Box<str>>,
    /// The algorithms that it is for; empty = all of its family.
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
    thumbprint: Thumbprint,
}

/// Tells keys apart.
pub(super) type Thumbprint = [u8; 32];

impl TokenKey {
    /// Returns whether it may have signed a token with this header.
    pub(super) fn fits(&self, header: &Header) -> bool {
        let is_named = match (&self.id, &header.kid) {
            (Some(id), Some(kid)) => **id == **kid,
            (None, _) | (Some(_), None) => true,
        };
        is_named
            && self.decoding.family() == header.alg.family()
            && (self.algorithms.is_empty() || self.algorithms.contains(&header.alg))
    }

    /// Returns whether it has a name.
    pub(super) const fn is_named(&self) -> bool {
        self.id.is_some()
    }

    pub(super) const fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    pub(super) const fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }
}

fn thumbprint_of(text: &[u8]) -> Thumbprint {
    let digest = digest(&SHA256, text);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Reads the keys and secrets in files.
pub(super) fn read_files(
    config: &JwtConfig,
    algorithms: &[Algorithm],
) -> Result<Vec<TokenKey>, JwtError> {
    let mut keys = Vec::new();
    for path in &config.keys {
        let text = read("keys", path)?;
        let decoding = public_key(&text).ok_or_else(|| {
            let why =
                "has no public key in PEM: `-----BEGIN PUBLIC KEY-----` of RSA, ECDSA or Ed25519";
            JwtError::of("keys", format!("{} {why}", path.display()))
        })?;
        let thumbprint = thumbprint_of(&text);
        keys.push(TokenKey { id: None, algorithms: Vec::new(), decoding, thumbprint });
    }
    for path in &config.secrets {
        let text = read("secrets", path)?;
        let decoding = secret(&text)
            .map_err(|why| JwtError::of("secrets", format!("{} {why}", path.display())))?;
        // A secret verifies HMAC alone. Otherwise the text of a public key could serve as a secret.
        let algorithms = algorithms.iter().copied().filter(|one| is_hmac(*one)).collect();
        keys.push(TokenKey { id: None, algorithms, decoding, thumbprint: thumbprint_of(&text) });
    }
    Ok(keys)
}

fn read(option: &'static str, path: &PathBuf) -> Result<Vec<u8>, JwtError> {
    let unreadable = |source| JwtError::Unreadable { option, path: path.clone(), source };
    let text = fs::read(path).map_err(unreadable)?;
    match text.len() <= FILE_BYTES_MAX {
        true => Ok(text),
        false => Err(JwtError::of(option, format!("{} is too long for a key", path.display()))),
    }
}

fn public_key(pem: &[u8]) -> Option<DecodingKey> {
    let is_private = pem.windows(11).any(|part| part == b"PRIVATE KEY");
    let forms = [DecodingKey::from_rsa_pem, DecodingKey::from_ec_pem, DecodingKey::from_ed_pem];
    forms.into_iter().filter(|_| !is_private).find_map(|parse| parse(pem).ok())
}

/// Returns the secret of a file: its bytes without a line break at the end, or the decoded Base64 after
/// `base64:`.
fn secret(text: &[u8]) -> Result<DecodingKey, &'static str> {
    // Editors add a line break, which is not part of the secret.
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let decoded;
    let secret = match text.strip_prefix(b"base64:") {
        Some(encoded) => {
            decoded = STANDARD.decode(encoded).map_err(|_| "is not Base64 after `base64:`")?;
            &decoded
        }
        None => text,
    };
    if secret.len() < SECRET_BYTES_MIN {
        return Err("is too short: write at least 32 bytes, for example `openssl rand -base64 48`");
    }
    DecodingKey::from_secret(secret).map_err(|_| "is not a secret")
}

/// Returns the usable keys of a JWK Set; keys for encryption, of unknown kinds, and too short secrets are
/// left out. A set without keys is one whose issuer has withdrawn all of them.
pub(super) fn of_set(text: &[u8]) -> Result<Vec<TokenKey>, String> {
    let set: JwkSet = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if set.keys.len() > SET_KEYS_MAX {
        return Err(format!("it has more than {SET_KEYS_MAX} keys"));
    }
    Ok(set.keys.iter().filter_map(of_jwk).collect())
}

fn of_jwk(jwk: &Jwk) -> Option<TokenKey> {
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let verifies = |operations: &Vec<KeyOperations>| operations.contains(&KeyOperations::Verify);
    if jwk.common.key_operations.as_ref().is_some_and(|operations| !verifies(operations)) {
        return None; // RFC 7517, 4.3
    }
    // The same minimum as for a secret in a file: a short one can be found by trying.
    if let AlgorithmParameters::OctetKey(key) = &jwk.algorithm {
        URL_SAFE_NO_PAD.decode(&key.value).ok().filter(|it| it.len() >= SECRET_BYTES_MIN)?;
    }
    let decoding = DecodingKey::from_jwk(jwk).ok()?;
    let named = jwk.common.key_algorithm.map(|one| one.to_string().parse::<Algorithm>());
    let algorithms = match named {
        Some(Ok(algorithm)) => vec![algorithm],
        Some(Err(_)) => return None,
        None => by_curve(&jwk.algorithm)?,
    };
    let id = jwk.common.key_id.as_deref().map(Into::into);
    Some(TokenKey { id, algorithms, decoding, thumbprint: [0; 32] })
}

/// Returns the algorithms of the key's curve; empty where the key has none.
#[expect(clippy::wildcard_enum_match_arm, reason = "what a later version of the library knows")]
fn by_curve(parameters: &AlgorithmParameters) -> Option<Vec<Algorithm>> {
    match parameters {
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Some(vec![Algorithm::ES256]),
            EllipticCurve::P384 => Some(vec![Algorithm::ES384]),
            _ => None,
        },
        AlgorithmParameters::OctetKeyPair(_) => Some(vec![Algorithm::EdDSA]),
        AlgorithmParameters::RSA(_) | AlgorithmParameters::OctetKey(_) => Some(Vec::new()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn usable(keys: Value) -> usize {
        of_set(json!({ "keys": keys }).to_string().as_bytes()).expect("a set").len()
    }

    #[test]
    fn a_set_has_the_keys_that_verify_signatures() {
        let long = URL_SAFE_NO_PAD.encode([7; 32]);
        let short = URL_SAFE_NO_PAD.encode([7; 31]);
        assert_eq!(usable(json!([{"kty": "oct", "k": long}])), 1);
        assert_eq!(usable(json!([{"kty": "oct", "k": long, "key_ops": ["sign", "verify"]}])), 1);
        assert_eq!(usable(json!([{"kty": "oct", "k": short}])), 0, "too short");
        assert_eq!(usable(json!([{"kty": "oct", "k": long, "key_ops": ["encrypt"]}])), 0);
        assert_eq!(usable(json!([{"kty": "oct", "k": long, "use": "enc"}])), 0);
        assert_eq!(usable(json!([])), 0, "all are withdrawn");
        assert!(of_set(b"{}").is_err());
    }
}
