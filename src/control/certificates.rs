//! The certificates of connected clients, and those that an operator has revoked.
//!
//! Plain data. Does not know where it is kept, nor how a certificate is verified.

use std::sync::Arc;

use async_trait::async_trait;

use super::{CertificatePin, ListPins};
use crate::mqtt::Timestamp;

/// The certificate of a connected client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectedCertificate {
    /// The client.
    pub client_id: String,
    /// The user name.
    pub username: Option<Arc<str>>,
    /// The URL of the listener.
    pub listener: Arc<str>,
    /// The subject.
    pub subject: String,
    /// The issuer.
    pub issuer: String,
    /// The serial number, in lower-case hexadecimal without separators.
    pub serial_number: String,
    /// When it expires.
    pub expires_at: Timestamp,
}

impl ConnectedCertificate {
    /// Creates the description of a certificate.
    #[must_use]
    pub fn new(client_id: impl Into<String>, listener: Arc<str>, expires_at: Timestamp) -> Self {
        Self {
            client_id: client_id.into(),
            username: None,
            listener,
            subject: String::new(),
            issuer: String::new(),
            serial_number: String::new(),
            expires_at,
        }
    }
}

/// The place in the list of connected certificates: expiry in milliseconds, client, number.
pub type CertificatePlace = (u64, String, u64);

/// Some connected certificates, in the order in which they expire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificatePage {
    /// The certificates.
    pub items: Vec<Arc<ConnectedCertificate>>,
    /// The place of the last one, if more follow.
    pub next: Option<CertificatePlace>,
}

impl CertificatePage {
    /// Creates a page.
    #[must_use]
    pub const fn new(
        items: Vec<Arc<ConnectedCertificate>>,
        next: Option<CertificatePlace>,
    ) -> Self {
        Self { items, next }
    }
}

/// A certificate that an operator has revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RevokedCertificate {
    /// The issuer, as the list of connected certificates shows it.
    pub issuer: String,
    /// The serial number, in lower-case hexadecimal without separators.
    pub serial_number: String,
    /// Why; for people.
    pub reason: Option<String>,
    /// The user name of the caller that has revoked it.
    pub by: Option<String>,
    /// When that was.
    pub revoked_at: Timestamp,
}

impl RevokedCertificate {
    /// The largest number of bytes of an issuer.
    pub const ISSUER_BYTES_MAX: usize = 1_024;
    /// The largest number of bytes of a reason.
    pub const REASON_BYTES_MAX: usize = 1_024;

    /// Describes a certificate. The serial number may have colons and upper-case letters; `None` if it is
    /// none, or the issuer is empty or too long.
    #[must_use]
    pub fn new(issuer: &str, serial_number: &str) -> Option<Self> {
        // Tools print colons and upper-case letters; certificates are compared as plain digits.
        let digits: String = serial_number.chars().filter(|digit| *digit != ':').collect();
        let digits = digits.to_ascii_lowercase();
        let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let even = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
        // As certificates show it: without bytes that are zero at the beginning.
        let mut significant = even.as_str();
        while let Some(rest) = significant.strip_prefix("00").filter(|rest| !rest.is_empty()) {
            significant = rest;
        }
        // A serial number has at most 20 bytes (RFC 5280, 4.1.2.2); some authorities make longer ones.
        let fits = is_hexadecimal
            && (1..=128).contains(&significant.len())
            && (1..=Self::ISSUER_BYTES_MAX).contains(&issuer.len());
        fits.then(|| Self {
            issuer: issuer.to_owned(),
            serial_number: significant.to_owned(),
            reason: None,
            by: None,
            revoked_at: Timestamp(0),
        })
    }
}

/// Lists revoked certificates, in the order of serial numbers and issuers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListRevoked {
    /// Begins behind the certificate with this key; `None` begins with the first.
    pub after: Option<String>,
    /// Maximum number of certificates in the answer; at most [`ListRevoked::LIMIT_MAX`] are given.
    pub limit: usize,
}

impl ListRevoked {
    /// The largest number of certificates in one answer.
    pub const LIMIT_MAX: usize = 1_000;

    /// Creates the question for the first certificates.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { after: None, limit }
    }
}

/// The result of a change of the revoked certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificatesChanged {
    /// Whether the certificate was revoked before.
    pub was_revoked: bool,
    /// The number of connections with the certificate, which end.
    pub connections: usize,
}

impl CertificatesChanged {
    /// Creates the result.
    #[must_use]
    pub const fn new(was_revoked: bool, connections: usize) -> Self {
        Self { was_revoked, connections }
    }
}

/// Why revoked certificates were not changed or shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificatesError {
    /// There are as many as fit.
    #[error("there are 100,000 revoked certificates, which is the maximum")]
    TooMany,
    /// The change cannot be stored now.
    #[error("broker cannot change the revoked certificates now")]
    Unavailable,
}

/// The certificates of clients. A part that is not implemented answers
/// [`CertificatesError::Unavailable`].
#[async_trait]
pub trait ClientCertificates: Send + Sync + 'static {
    /// Returns some certificates of connected clients behind a place, at most `limit`.
    fn connected_certificates(
        &self,
        _after: Option<&CertificatePlace>,
        _limit: usize,
    ) -> CertificatePage {
        CertificatePage::default()
    }

    /// Returns some revoked certificates.
    async fn list_revoked(
        &self,
        _request: ListRevoked,
    ) -> Result<Vec<RevokedCertificate>, CertificatesError> {
        Err(CertificatesError::Unavailable)
    }

    /// Revokes a certificate: connections with it end, and no new one begins.
    async fn revoke(
        &self,
        _certificate: RevokedCertificate,
    ) -> Result<CertificatesChanged, CertificatesError> {
        Err(CertificatesError::Unavailable)
    }

    /// Returns some certificates that are pinned to client identifiers.
    async fn list_pins(
        &self,
        _request: ListPins,
    ) -> Result<Vec<CertificatePin>, CertificatesError> {
        Err(CertificatesError::Unavailable)
    }

    /// Returns the certificate that is pinned to a client identifier.
    async fn find_pin(
        &self,
        _client_id: &str,
    ) -> Result<Option<CertificatePin>, CertificatesError> {
        Err(CertificatesError::Unavailable)
    }

    /// Removes the pin of a client identifier, and returns it: the next certificate that the client
    /// shows is pinned. A connection goes on.
    async fn remove_pin(
        &self,
        _client_id: &str,
    ) -> Result<Option<CertificatePin>, CertificatesError> {
        Err(CertificatesError::Unavailable)
    }

    /// Accepts a revoked certificate again.
    async fn restore_certificate(
        &self,
        _certificate: RevokedCertificate,
    ) -> Result<CertificatesChanged, CertificatesError> {
        Err(CertificatesError::Unavailable)
    }
}
