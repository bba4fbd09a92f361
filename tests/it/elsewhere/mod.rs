//! Identities from elsewhere: tokens, an HTTP service, a database.

mod badly;
mod callback;
mod jwks;
mod jwt;
mod own_rules;
mod postgres;
mod renewal;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{SystemTime, UNIX_EPOCH},
};

use hearthmq::auth::Credentials;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::Value;

use crate::pki::rcgen::{KeyPair, SignatureAlgorithm};

/// Credentials of an MQTT client named `car`.
fn shown<'a>(username: &'a str, password: &'a [u8]) -> Credentials<'a> {
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
    Credentials {
        client_id: Some("car"),
        username: Some(username),
        password: Some(password),
        may_pass: true,
        ..Credentials::new(peer, "mqtt://127.0.0.1:1883")
    }
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A key that signs tokens.
struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    /// The public key in PEM.
    public: String,
    pair: KeyPair,
}

impl Signer {
    fn new(algorithm: Algorithm, by: &'static SignatureAlgorithm) -> Self {
        let pair = KeyPair::generate_for(by).unwrap();
        let pem = pair.serialize_pem();
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        Self { algorithm, key: key.unwrap(), public: pair.public_key_pem(), pair }
    }

    fn sign(&self, claims: &Value) -> String {
        encode(&Header::new(self.algorithm), claims, &self.key).unwrap()
    }

    /// Signs by the name that the key has in a JWK Set.
    fn sign_as(&self, kid: &str, claims: &Value) -> String {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).unwrap()
    }

    /// The key in the form of a JWK Set; P-256 alone.
    fn jwk(&self, kid: &str) -> Value {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let point = self.pair.public_key_raw();
        let (x, y) = point[1..].split_at(32);
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        serde_json::json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": text(x), "y": text(y)})
    }
}
