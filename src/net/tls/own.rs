//! The broker's own certificate and its key.
//!
//! A certificate of X.509 version 1, which `openssl x509 -req` creates without extensions, is
//! accepted: rustls does not parse the certificate that it sends. Most clients accept it too;
//! clients built with rustls refuse it.

use std::{path::Path, sync::Arc};

use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{TlsConfig, TlsError, client::parse, contains, read, read_pem};

/// Reads the certificate and its key, which must match.
pub(super) fn certified_key(
    config: &TlsConfig,
    provider: &CryptoProvider,
) -> Result<SingleCertAndKey, TlsError> {
    let chain: Vec<CertificateDer<'static>> =
        read_pem(&config.certificate, "certificate", "BEGIN CERTIFICATE")?;
    let key = read_key(&config.key)?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|source| TlsError::Key { path: config.key.clone(), source })?;
    let path = &config.certificate;
    // The first certificate is the broker's own; the others are those of its issuers.
    let own = chain
        .first()
        .map(|der| parse(der))
        .transpose()
        .map_err(|source| TlsError::OwnCertificate { path: path.clone(), source })?
        .ok_or_else(|| TlsError::Missing {
            path: path.clone(),
            wanted: "certificate",
            begins: "BEGIN CERTIFICATE",
        })?;
    // Some keys do not reveal their public half; then the pair cannot be checked and is accepted.
    if key.public_key().is_some_and(|public| *public != *own.public_key().raw) {
        return Err(TlsError::KeyMismatch { key: config.key.clone(), certificate: path.clone() });
    }
    let mut own = CertifiedKey::new(chain, key);
    own.ocsp = ocsp_response(&config.ocsp)?;
    Ok(Arc::new(own).into())
}

/// Reads the OCSP response, if one is named. Clients check its signature and its age.
fn ocsp_response(path: &Path) -> Result<Option<Vec<u8>>, TlsError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let der = read(path)?;
    // OCSPResponse ::= SEQUENCE { responseStatus ENUMERATED { successful (0) }, … } (RFC 6960, 4.2.1)
    // A length above 127 has its number of bytes in the first byte (X.690, 8.1.3.5).
    let after_length = match der.get(1) {
        Some(length @ 0x81..=0x84) => 2 + usize::from(length - 0x80),
        _ => 2,
    };
    let status = der.get(after_length..after_length + 3);
    // Only `successful` is sent: clients would refuse the certificate with another status.
    if der.first() != Some(&0x30) || status != Some(&[0x0a, 0x01, 0x00][..]) {
        return Err(TlsError::OcspResponse { path: path.to_owned() });
    }
    Ok(Some(der))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    if contains(&text, b"BEGIN ENCRYPTED PRIVATE KEY") || contains(&text, b"Proc-Type: 4,ENCRYPTED")
    {
        return Err(TlsError::EncryptedKey { path: path.to_owned() });
    }
    let mut keys = PrivateKeyDer::pem_slice_iter(&text);
    let key = keys.next().ok_or_else(|| TlsError::Missing {
        path: path.to_owned(),
        wanted: "private key",
        begins: "BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY",
    })?;
    key.map_err(|source| TlsError::Pem { path: path.to_owned(), source })
}
