//! The errors of calls that wait for deliveries or replies.

use actix_web::http::StatusCode;

use super::{Advice, ApiError, RETRY_UNAVAILABLE_SECS};

impl ApiError {
    /// Too many calls wait for deliveries or replies, in all or of this account.
    pub(in crate::http) fn too_many_waiting() -> Self {
        let message = "Too many calls wait for deliveries or replies, in all or of this account.";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_waiting", message)
            .advising(Advice::RetryAfter(RETRY_UNAVAILABLE_SECS))
    }

    /// The message was published, and its deliveries have not come as far as the call wants.
    pub(in crate::http) fn deliveries_pending() -> Self {
        let message = "The message was published, but not all deliveries came that far in time.";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }

    /// No reply came.
    pub(in crate::http) fn no_reply() -> Self {
        let message = "The request was published, but no reply came in time.";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }
}
