//! Refuses client certificates that an operator has revoked, after rustls has verified them.
//!
//! Knows the parsed certificate and the set; does not know who changes the set.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::client::{hexadecimal, parse};
use crate::auth::RevokedCertificates;

/// The set of a TLS listener, once it belongs to a broker.
pub(super) type RevokedHere = Arc<OnceLock<RevokedCertificates>>;

/// A verifier that also asks the set.
#[derive(Debug)]
pub(super) struct RevocationVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    revoked: RevokedHere,
}

impl RevocationVerifier {
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, revoked: RevokedHere) -> Self {
        Self { inner, revoked }
    }

    /// Fails if the certificate, or one that it depends on, is revoked.
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        // Most brokers have no revoked certificate; then nothing is parsed.
        let Some(revoked) = self.revoked.get().filter(|revoked| !revoked.is_empty()) else {
            return Ok(());
        };
        // The operator may have revoked an authority in between; then all its certificates go too.
        for der in [end_entity].into_iter().chain(others) {
            let certificate = parse(der).map_err(|_| CertificateError::BadEncoding)?;
            let serial_number = hexadecimal(certificate.raw_serial());
            if revoked.contains(&certificate.issuer().to_string(), &serial_number) {
                return Err(CertificateError::Revoked.into());
            }
        }
        Ok(())
    }
}

impl ClientCertVerifier for RevocationVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        self.check(end_entity, intermediates)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.inner.requires_raw_public_keys()
    }
}
