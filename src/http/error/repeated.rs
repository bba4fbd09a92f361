//! The errors of calls with an `Idempotency-Key`.

use actix_web::http::StatusCode;

use super::ApiError;

impl ApiError {
    /// The header `Idempotency-Key` is not valid.
    pub(in crate::http) fn invalid_idempotency_key() -> Self {
        let message = "The header Idempotency-Key must be given once and have 1 to 255 printable \
                       characters of ASCII, without quotes and backslashes between its quotes.";
        Self::bad_request("invalid_idempotency_key", message)
    }

    /// The first call with this key has not ended.
    pub(in crate::http) fn idempotency_key_in_use() -> Self {
        let message = "The first call with this Idempotency-Key has not ended; try again later.";
        Self::new(StatusCode::CONFLICT, "idempotency_key_in_use", message)
    }

    /// Another call had the same key.
    pub(in crate::http) fn idempotency_key_reused() -> Self {
        let message = "Another call had this Idempotency-Key: each call needs a key of its own.";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message)
    }

    /// The call was made, and its answer cannot be repeated.
    pub(in crate::http) fn answer_not_kept() -> Self {
        let message = "The call with this Idempotency-Key was made. Its answer is not kept, because \
                       it is larger than 16 KiB or has several lines.";
        Self::new(StatusCode::CONFLICT, "answer_not_kept", message)
    }

    /// Returns whether a call with this error may have changed something.
    pub(in crate::http) fn may_have_changed(&self) -> bool {
        self.status == StatusCode::GATEWAY_TIMEOUT
    }
}
