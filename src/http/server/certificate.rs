//! The client certificate of an HTTPS connection: its owner, and whether it is still trusted.

use std::rc::Rc;

use rustls::pki_types::CertificateDer;

use crate::{
    auth::ClientCertificate,
    http::{ApiError, certificate::Certificate},
    net::tls::{ClientCertificateError, Trust, client_certificate},
};

/// A certificate that TLS verified at the start of the connection.
pub(super) struct Verified {
    chain: Vec<CertificateDer<'static>>,
    trust: Trust,
    named: Result<ClientCertificate, ClientCertificateError>,
}

impl Verified {
    /// Takes the verified chain from the handshake; `None` if the caller sent no certificate.
    pub(super) fn new(chain: Option<&[CertificateDer<'static>]>, trust: Trust) -> Option<Rc<Self>> {
        let chain = chain.filter(|chain| !chain.is_empty())?.to_vec();
        let named = client_certificate(&chain);
        Some(Rc::new(Self { chain, trust, named }))
    }

    /// Waits until the certificate is no longer trusted.
    pub(super) async fn distrusted(self: Rc<Self>) {
        self.trust.lost(&self.chain).await;
    }
}

impl Certificate for Verified {
    fn named(&self) -> Option<&ClientCertificate> {
        self.named.as_ref().ok()
    }

    fn caller(&self, has_authorization: bool) -> Result<Option<&ClientCertificate>, ApiError> {
        if self.trust.verify(&self.chain).is_err() {
            return Err(ApiError::unusable_certificate("it is no longer trusted"));
        }
        match &self.named {
            Ok(certificate) => Ok(Some(certificate)),
            Err(_) if has_authorization => Ok(None),
            Err(error) => Err(ApiError::unusable_certificate(error.why())),
        }
    }
}
