//! A revocation list that comes from elsewhere than a file of the operator: checked before it is used.
//!
//! The verifier of certificates checks signatures too, but only when a client connects: a forged list
//! would then make it refuse everybody. Knows lists and authorities; does not know where a list comes from.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject as _};
use x509_parser::{
    certificate::X509Certificate, parse_x509_crl, revocation_list::CertificateRevocationList,
};

use super::{TlsError, client::parse, read_pem};

/// Characters of a line in PEM (RFC 7468, section 2).
const PEM_LINE: usize = 64;

/// Why a revocation list is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationListError {
    /// Not a list in DER or PEM form.
    #[error("it is not a revocation list")]
    Malformed,
    /// The issuer is not an authority whose certificates are accepted.
    #[error("its issuer {0} is not among the authorities in client_ca")]
    UnknownIssuer(String),
    /// The signature is not that of the issuer.
    #[error("its signature is not that of {0}")]
    Signature(String),
    /// The list is older than the former one, or of another issuer.
    #[error("it is older than the list in use, or of another issuer")]
    Replaced,
    /// An authority cannot be read.
    #[error(transparent)]
    Authority(#[from] TlsError),
}

/// Checks a revocation list in DER or PEM form, and returns it as PEM. One of these `authorities` must have
/// signed it, and it must not be older than the `former` list.
///
/// # Errors
/// The text is not a revocation list, no authority has signed it, or it is older than the former one.
pub fn check_revocation_list(
    bytes: &[u8],
    authorities: &[PathBuf],
    former: Option<&[u8]>,
) -> Result<String, RevocationListError> {
    let der = der_of(bytes)?;
    let list = parse_list(&der)?;
    let name = || list.issuer().to_string();
    let mut is_known = false;
    let mut is_signed = false;
    // All of them are tried, because two authorities
    // may have the same name while a key is replaced.
    for path in authorities {
        for authority in read_pem::<CertificateDer<'_>>(path, "certificate", "BEGIN CERTIFICATE")? {
            let Ok(authority) = parse(&authority) else { continue };
            if authority.subject().as_raw() == list.issuer().as_raw() {
                is_known = true;
                is_signed |= has_signed(&authority, &list);
            }
        }
    }
    match (is_known, is_signed) {
        (false, _) => return Err(RevocationListError::UnknownIssuer(name())),
        (true, false) => return Err(RevocationListError::Signature(name())),
        (true, true) => {}
    }
    if let Some(former) = former {
        let former = der_of(former)?;
        let former = parse_list(&former)?;
        let is_same_issuer = former.issuer().as_raw() == list.issuer().as_raw();
        // An older list that somebody replays would make revoked certificates valid again.
        if !is_same_issuer || list.last_update() < former.last_update() {
            return Err(RevocationListError::Replaced);
        }
    }
    Ok(pem_of(&der))
}

fn has_signed(authority: &X509Certificate<'_>, list: &CertificateRevocationList<'_>) -> bool {
    list.verify_signature(authority.public_key()).is_ok()
}

fn der_of(bytes: &[u8]) -> Result<CertificateRevocationListDer<'static>, RevocationListError> {
    if bytes.first() == Some(&0x30) {
        return Ok(bytes.to_vec().into()); // a SEQUENCE in DER
    }
    CertificateRevocationListDer::from_pem_slice(bytes).map_err(|_| RevocationListError::Malformed)
}

fn parse_list(der: &[u8]) -> Result<CertificateRevocationList<'_>, RevocationListError> {
    match parse_x509_crl(der) {
        Ok(([], list)) => Ok(list),
        Ok(_) | Err(_) => Err(RevocationListError::Malformed),
    }
}

fn pem_of(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN X509 CRL-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_LINE)); // base64 is ASCII
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END X509 CRL-----\n");
    pem
}
