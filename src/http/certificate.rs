//! The client certificate of an HTTPS caller: its owner, and whether it is still trusted.
//!
//! A connection may serve many calls; each call checks the certificate again. The server stores it
//! with the connection, `admission` uses it.

use std::rc::Rc;

use rustls::pki_types::CertificateDer;

use super::ApiError;
use crate::{
    auth::ClientCertificate,
    net::tls::{ClientCertificateError, Trust, client_certificate},
};

/// A certificate that TLS verified at the start of the connection.
#[derive(Clone)]
pub(super) struct ShownCertificate(Rc<Shown>);

struct Shown {
    chain: Vec<CertificateDer<'static>>,
    trust: Trust,
    named: Result<ClientCertificate, ClientCertificateError>,
}

impl ShownCertificate {
    /// Takes the verified chain from the handshake; `None` if the caller sent no certificate.
    pub(super) fn new(chain: Option<&[CertificateDer<'static>]>, trust: Trust) -> Option<Self> {
        let chain = chain.filter(|chain| !chain.is_empty())?.to_vec();
        let named = client_certificate(&chain);
        Some(Self(Rc::new(Shown { chain, trust, named })))
    }

    /// Waits until the certificate is no longer trusted.
    pub(super) async fn distrusted(self) {
        self.0.trust.lost(&self.0.chain).await;
    }

    /// Returns the owner in the certificate, still trusted or not, for the log.
    pub(super) fn named(&self) -> Option<&ClientCertificate> {
        self.0.named.as_ref().ok()
    }

    /// Returns the certificate that identifies the caller. A certificate without a usable name
    /// counts as none if the request has a password.
    ///
    /// # Errors
    /// The certificate is no longer trusted, or it has no usable name and there is no password.
    pub(super) fn caller(&self, has_basic: bool) -> Result<Option<&ClientCertificate>, ApiError> {
        let Shown { chain, trust, named } = &*self.0;
        if trust.verify(chain).is_err() {
            return Err(ApiError::UnusableCertificate("it is no longer trusted"));
        }
        match named {
            Ok(certificate) => Ok(Some(certificate)),
            Err(_) if has_basic => Ok(None),
            Err(error) => Err(ApiError::UnusableCertificate(error.why())),
        }
    }
}
