//! The client certificate of a caller, as the checks of a call see it.
//!
//! The server of the program stores it with the connection; `admission` asks it. The server of an
//! application stores a [`ClientCertificate`] in its place.

use std::rc::Rc;

use super::ApiError;
use crate::auth::ClientCertificate;

/// A certificate that TLS verified at the start of the connection. A connection may serve many
/// calls; each call checks the certificate again.
pub(super) trait Certificate {
    /// Returns the owner in the certificate, still trusted or not, for the log.
    fn named(&self) -> Option<&ClientCertificate>;

    /// Returns the certificate that identifies the caller. A certificate without a usable name
    /// counts as none if the request has a password or a token.
    ///
    /// # Errors
    /// The certificate is no longer trusted, or it has no usable name and there is neither password nor token.
    fn caller(&self, has_authorization: bool) -> Result<Option<&ClientCertificate>, ApiError>;
}

/// The certificate of a connection, in the connection's data.
pub(super) type ShownCertificate = Rc<dyn Certificate>;
