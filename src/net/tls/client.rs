//! The certificate of a client: the name of its owner, and help for failed handshakes.

use std::{io, net::IpAddr};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate, error::X509Error, extensions::GeneralName, nom,
    parse_x509_certificate,
};

use crate::{auth::ClientCertificate, transport::CertificateFacts};

/// The text of webpki's error for an X.509 version 1 certificate; its type is not available here.
const UNSUPPORTED_VERSION: &str = "UnsupportedCertVersion";

/// Bytes are not an X.509 certificate.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CertificateSyntaxError(nom::Err<X509Error>);

/// Parses the first certificate in these bytes.
pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateSyntaxError> {
    parse_x509_certificate(der).map(|(_, certificate)| certificate).map_err(CertificateSyntaxError)
}

/// Why a certificate that TLS has accepted does not identify its owner.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientCertificateError {
    /// The client sent no certificate.
    #[error("the client sent no certificate")]
    Missing,
    /// The certificate cannot be parsed.
    #[error("certificate cannot be parsed: {0}")]
    Malformed(#[from] CertificateSyntaxError),
    /// The subject has no Common Name, or an empty one.
    #[error("certificate has no common name in its subject")]
    NoCommonName,
    /// The subject has several Common Names; it is unclear which one is meant.
    #[error("certificate has several common names in its subject")]
    SeveralCommonNames,
    /// The Common Name is not text, or contains a control character.
    #[error("certificate has an invalid common name: not plain text")]
    InvalidCommonName,
}

impl ClientCertificateError {
    /// Returns the error text for clients, without details of the broker.
    #[must_use]
    pub const fn why(&self) -> &'static str {
        match self {
            Self::Missing => "the client sent no certificate",
            Self::Malformed(_) => "certificate cannot be parsed",
            Self::NoCommonName => "certificate has no common name in its subject",
            Self::SeveralCommonNames => "certificate has several common names in its subject",
            Self::InvalidCommonName => "certificate has an invalid common name: not plain text",
        }
    }
}

/// Adds advice to the error of a TLS handshake, where the error alone does not help.
#[must_use]
pub fn explained(error: io::Error) -> io::Error {
    let is_version_1 = format!("{error:?}").contains(UNSUPPORTED_VERSION);
    if !is_version_1 {
        return error;
    }
    io::Error::new(
        error.kind(),
        "the client's certificate is X.509 version 1, which cannot be verified; sign it with `openssl \
         x509 -req ... -extfile FILE` and a FILE with basicConstraints=CA:FALSE",
    )
}

/// Returns the owner of a verified chain. The first certificate is the client's own.
///
/// # Errors
/// The certificate does not have exactly one Common Name that is a valid user name.
pub fn client_certificate(
    chain: &[CertificateDer<'_>],
) -> Result<ClientCertificate, ClientCertificateError> {
    let der = chain.first().ok_or(ClientCertificateError::Missing)?;
    let certificate = parse(der)?;
    let mut common_names = certificate.subject().iter_common_name();
    let common_name = common_names.next().ok_or(ClientCertificateError::NoCommonName)?;
    // Two names would leave it open which of the two users the client is.
    if common_names.next().is_some() {
        return Err(ClientCertificateError::SeveralCommonNames);
    }
    let common_name =
        common_name.as_str().map_err(|_| ClientCertificateError::InvalidCommonName)?;
    if common_name.is_empty() {
        return Err(ClientCertificateError::NoCommonName);
    }
    // Names of accounts have no such characters, so no account could match.
    if common_name.chars().any(char::is_control) {
        return Err(ClientCertificateError::InvalidCommonName);
    }
    Ok(ClientCertificate {
        common_name: common_name.to_owned(),
        serial_number: hexadecimal(certificate.raw_serial()),
    })
}

/// Maximum number of names of a certificate that are shown.
const NAMES_MAX: usize = 100;

/// Returns what a certificate says; `None` if it cannot be parsed.
pub(super) fn certificate_facts(der: &CertificateDer<'_>) -> Option<CertificateFacts> {
    let certificate = parse(der).ok()?;
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.map_or(&[][..], |names| &names.value.general_names);
    let secs = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    Some(CertificateFacts {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        names: names.iter().filter_map(name_of).take(NAMES_MAX).collect(),
        serial_number: hexadecimal(certificate.raw_serial()),
        expires_at_millis: secs.saturating_mul(1000),
        public_key: hexadecimal_of(digest(&SHA256, certificate.public_key().raw).as_ref()),
    })
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            Some((*text).to_owned())
        }
        // 4 bytes are IPv4, 16 are IPv6 (RFC 5280, 4.2.1.6).
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(bytes) => Some(IpAddr::from(bytes).to_string()),
            Err(_) => Some(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
        },
        GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    }
}

/// Formats a serial number as `openssl x509 -serial` does, but in lower case: two digits for each
/// byte, without the leading zero byte that only marks the number as positive.
pub(super) fn hexadecimal(serial_number: &[u8]) -> String {
    let significant = match serial_number {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    hexadecimal_of(significant)
}

fn hexadecimal_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
