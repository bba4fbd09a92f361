//! The certificates that are pinned to client identifiers.
//!
//! Plain data. Does not know where it is kept, nor when a certificate is pinned.

use std::sync::Arc;

use crate::mqtt::Timestamp;

/// The certificate that is pinned to a client identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificatePin {
    /// The client identifier.
    pub client_id: String,
    /// The Common Name of the certificate.
    pub username: Arc<str>,
    /// The SHA-256 of the public key (SubjectPublicKeyInfo, DER), in lower-case hexadecimal.
    pub public_key: String,
    /// The subject of the certificate that was pinned.
    pub subject: String,
    /// Its issuer.
    pub issuer: String,
    /// Its serial number, in lower-case hexadecimal without separators.
    pub serial_number: String,
    /// When it was pinned.
    pub pinned_at: Timestamp,
}

impl CertificatePin {
    /// Describes the pin of a public key to a client identifier.
    #[must_use]
    pub fn new(client_id: &str, public_key: &str) -> Self {
        Self {
            client_id: client_id.to_owned(),
            username: "".into(),
            public_key: public_key.to_owned(),
            subject: String::new(),
            issuer: String::new(),
            serial_number: String::new(),
            pinned_at: Timestamp(0),
        }
    }
}

/// Lists pins, in the order of their client identifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListPins {
    /// Begins behind the pin of this client identifier; `None` begins with the first.
    pub after: Option<String>,
    /// Maximum number of pins in the answer; at most [`ListPins::LIMIT_MAX`] are given.
    pub limit: usize,
}

impl ListPins {
    /// The largest number of pins in one answer.
    pub const LIMIT_MAX: usize = 1_000;

    /// Creates the question for the first pins.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { after: None, limit }
    }
}
