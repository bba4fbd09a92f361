//! The certificate of a caller over HTTPS: whom it names, and whether it is trusted still.
//!
//! A connection may live for many calls; each call asks. Used by `admission`; the server leaves it
//! with the connection.

use std::rc::Rc;

use rustls::pki_types::CertificateDer;

use super::ApiError;
use crate::{
    auth::ClientCertificate,
    net::tls::{ClientCertificateError, Trust, client_certificate},
};

/// A certificate that TLS has verified when the connection began.
#[derive(Clone)]
pub(super) struct ShownCertificate(Rc<Shown>);

struct Shown {
    chain: Vec<CertificateDer<'static>>,
    trust: Trust,
    named: Result<ClientCertificate, ClientCertificateError>,
}

impl ShownCertificate {
    /// Takes what the handshake has verified; `None` if the caller has shown no certificate.
    pub(super) fn new(chain: Option<&[CertificateDer<'static>]>, trust: Trust) -> Option<Self> {
        let chain = chain.filter(|chain| !chain.is_empty())?.to_vec();
        let named = client_certificate(&chain);
        Some(Self(Rc::new(Shown { chain, trust, named })))
    }

    /// Returns what the certificate says of its owner, trusted still or not, for the log.
    pub(super) fn named(&self) -> Option<&ClientCertificate> {
        self.0.named.as_ref().ok()
    }

    /// Returns the certificate that the caller is known by. One that names nobody counts as none
    /// beside a password.
    ///
    /// # Errors
    /// It is not trusted any more, or names nobody and there is nothing else.
    pub(super) fn caller(&self, has_basic: bool) -> Result<Option<&ClientCertificate>, ApiError> {
        let Shown { chain, trust, named } = &*self.0;
        if trust.verify(chain).is_err() {
            return Err(ApiError::UnusableCertificate("it is not trusted any more"));
        }
        match named {
            Ok(certificate) => Ok(Some(certificate)),
            Err(_) if has_basic => Ok(None),
            Err(error) => Err(ApiError::UnusableCertificate(error.why())),
        }
    }
}
