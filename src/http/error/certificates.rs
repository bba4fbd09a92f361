//! The errors of the calls about certificates.

use actix_web::http::StatusCode;

use super::ApiError;

impl ApiError {
    /// The certificate is not revoked.
    pub(in crate::http) fn certificate_not_revoked() -> Self {
        let message = "No certificate of this issuer with this serial number was revoked here.";
        Self::new(StatusCode::NOT_FOUND, "certificate_not_revoked", message)
    }

    /// No certificate is pinned to the client identifier.
    pub(in crate::http) fn certificate_not_pinned() -> Self {
        let message = "No certificate is pinned to this client identifier.";
        Self::new(StatusCode::NOT_FOUND, "certificate_not_pinned", message)
    }

    /// Issuer or serial number cannot be those of a certificate.
    pub(in crate::http) fn invalid_certificate_name() -> Self {
        let message = "The serial number must be hexadecimal digits, at most 128 of them, and the issuer \
                       must have 1 to 1024 bytes.";
        Self::bad_request("invalid_certificate_name", message)
    }

    /// No further certificate can be revoked.
    pub(in crate::http) fn too_many_revoked() -> Self {
        let message = "There are 100,000 revoked certificates, which is the maximum. Use the revocation \
                       list of the authority.";
        Self::new(StatusCode::CONFLICT, "too_many_revoked", message)
    }
}
