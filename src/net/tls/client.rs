//! The certificate of a client: who its owner is, and why a handshake with it has failed.

use std::io;

use rustls::pki_types::CertificateDer;
use x509_parser::{error::X509Error, nom, parse_x509_certificate};

use crate::auth::ClientCertificate;

/// What webpki says of a certificate of X.509 version 1, which it has no type for here.
const UNSUPPORTED_VERSION: &str = "UnsupportedCertVersion";

/// Why a certificate that TLS has accepted does not say who its owner is.
#[derive(Debug, thiserror::Error)]
pub enum ClientCertificateError {
    /// There is no certificate.
    #[error("no certificate was shown")]
    Missing,
    /// It cannot be parsed.
    #[error("certificate cannot be parsed: {0}")]
    Malformed(#[from] nom::Err<X509Error>),
    /// The subject has no Common Name, or an empty one.
    #[error("certificate has no common name in its subject")]
    NoCommonName,
    /// The subject has several, and nobody can tell which one is meant.
    #[error("certificate has several common names in its subject")]
    SeveralCommonNames,
    /// The Common Name is no text, or holds a control character.
    #[error("certificate has a common name that is no plain text")]
    InvalidCommonName,
}

impl ClientCertificateError {
    /// Returns the same in words that need no file of the broker's to be understood.
    #[must_use]
    pub const fn why(&self) -> &'static str {
        match self {
            Self::Missing => "no certificate was shown",
            Self::Malformed(_) => "certificate cannot be parsed",
            Self::NoCommonName => "certificate has no common name in its subject",
            Self::SeveralCommonNames => "certificate has several common names in its subject",
            Self::InvalidCommonName => "certificate has a common name that is no plain text",
        }
    }
}

/// Adds to the error of a TLS handshake what would help, where the error alone does not say it.
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

/// Who the owner of a verified chain is. The first certificate is the client's own.
///
/// # Errors
/// The certificate has not exactly one Common Name that can be a user name.
pub fn client_certificate(
    chain: &[CertificateDer<'_>],
) -> Result<ClientCertificate, ClientCertificateError> {
    let der = chain.first().ok_or(ClientCertificateError::Missing)?;
    let (_, certificate) = parse_x509_certificate(der)?;
    let mut common_names = certificate.subject().iter_common_name();
    let common_name = common_names.next().ok_or(ClientCertificateError::NoCommonName)?;
    if common_names.next().is_some() {
        return Err(ClientCertificateError::SeveralCommonNames);
    }
    let common_name =
        common_name.as_str().map_err(|_| ClientCertificateError::InvalidCommonName)?;
    if common_name.is_empty() {
        return Err(ClientCertificateError::NoCommonName);
    }
    if common_name.chars().any(char::is_control) {
        return Err(ClientCertificateError::InvalidCommonName);
    }
    Ok(ClientCertificate {
        common_name: common_name.to_owned(),
        serial_number: hexadecimal(certificate.raw_serial()),
    })
}

/// Two digits a byte, without the zero byte that only says that the number is positive: as
/// `openssl x509 -serial` shows it, in lower case.
fn hexadecimal(serial_number: &[u8]) -> String {
    let significant = match serial_number {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    significant.iter().map(|byte| format!("{byte:02x}")).collect()
}
