//! The client's side of SCRAM-SHA-256, from RFC 5802 and RFC 7677, for tests of the server's side.

use std::num::NonZeroU32;

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac::{HMAC_SHA256, Key, Tag, sign},
    pbkdf2::{PBKDF2_HMAC_SHA256, derive},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Name of the method.
pub const SCRAM: &str = "SCRAM-SHA-256";

const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";

/// A client that is about to log in.
pub struct ScramClient<'a> {
    pub name: &'a str,
    pub password: &'a str,
}

/// The broker's answer to the first message.
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge {
    pub nonce: String,
    pub salt: String,
    pub iterations: u32,
}

impl ScramClient<'_> {
    /// Returns the first message.
    pub fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.bare()).into_bytes()
    }

    /// Returns the last message, and the answer of a broker that also knows the password.
    pub fn last(&self, challenge: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let Challenge { nonce, salt, iterations } = Challenge::read(challenge);
        assert!(nonce.starts_with(NONCE) && nonce.len() > NONCE.len());
        let (salt, mut salted) = (STANDARD.decode(salt).unwrap(), [0; 32]);
        let iterations = NonZeroU32::new(iterations).unwrap();
        derive(PBKDF2_HMAC_SHA256, iterations, &salt, self.password.as_bytes(), &mut salted);
        // `biws` is the base64 of `n,,`: no channel binding.
        let without_proof = format!("c=biws,r={nonce}");
        let challenge = str::from_utf8(challenge).unwrap();
        let signed = format!("{},{challenge},{without_proof}", self.bare());
        let client_key = hmac(&salted, "Client Key");
        let stored_key = digest(&SHA256, client_key.as_ref());
        let client_signature = hmac(stored_key.as_ref(), &signed);
        let pairs = client_key.as_ref().iter().zip(client_signature.as_ref());
        let proof: Vec<u8> = pairs.map(|(key, signature)| key ^ signature).collect();
        let last = format!("{without_proof},p={}", STANDARD.encode(proof));
        let server_key = hmac(&salted, "Server Key");
        let server_signature = hmac(server_key.as_ref(), &signed);
        let answer = format!("v={}", STANDARD.encode(server_signature));
        (last.into_bytes(), answer.into_bytes())
    }

    fn bare(&self) -> String {
        let name = self.name.replace('=', "=3D").replace(',', "=2C");
        format!("n={name},r={NONCE}")
    }
}

impl Challenge {
    /// Parses the broker's first message.
    pub fn read(message: &[u8]) -> Self {
        let text = str::from_utf8(message).unwrap();
        let mut parts = text.split(',').zip(["r=", "s=", "i="]).map(|(part, name)| {
            part.strip_prefix(name).unwrap_or_else(|| panic!("{name} expected in {text}"))
        });
        let mut next = || parts.next().unwrap().to_owned();
        Self { nonce: next(), salt: next(), iterations: next().parse().unwrap() }
    }
}

fn hmac(key: &[u8], message: &str) -> Tag {
    sign(&Key::new(HMAC_SHA256, key), message.as_bytes())
}
