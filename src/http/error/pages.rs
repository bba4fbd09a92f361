//! The errors of calls that are made for pages: logins by form, messages, and what the program is set to.

use actix_web::http::StatusCode;

use super::ApiError;

impl ApiError {
    /// The password would be readable on its way.
    pub(in crate::http) fn insecure_connection() -> Self {
        let message = "A login on a page needs HTTPS, or a browser on the machine of the broker that \
                       uses localhost. A proxy with HTTPS must be in http.proxy_trusted and send \
                       X-Forwarded-Proto.";
        Self::refusal("insecure_connection", message)
    }

    /// There are no sessions.
    pub(in crate::http) fn sessions_off() -> Self {
        let message = "Logins on a page are turned off; see http.session_idle_secs.";
        Self::refusal("sessions_off", message)
    }

    /// No permission to listen to messages.
    pub(in crate::http) fn forbidden_to_listen() -> Self {
        let message = "The account has no permission to subscribe to this filter.";
        Self::refusal("forbidden", message)
    }

    /// The application that contains the broker has neither options nor a log that could be shown.
    pub(in crate::http) fn no_program() -> Self {
        let message = "The broker is part of an application, which has its own options and log.";
        Self::new(StatusCode::NOT_FOUND, "no_program", message)
    }

    /// The filter of the log is not valid.
    pub(in crate::http) fn invalid_log_filter() -> Self {
        let message = "The filter of the log must be a level such as info, or a list such as \
                       warn,hearthmq=debug, of at most 1024 bytes.";
        Self::bad_request("invalid_log_filter", message)
    }
}
