//! The errors of a call, and their responses: status, code, message.
//!
//! Only this module maps the broker's errors to HTTP.

use std::{fmt, net::IpAddr};

use actix_http::ConnectionType;
use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    body::BoxBody,
    http::{
        StatusCode,
        header::{ALLOW, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
    },
};
use serde::Serialize;

use crate::control::ControlError;

/// The challenge that asks a caller for credentials (RFC 7617).
const CHALLENGE: &str = r#"Basic realm="hearthmq", charset="UTF-8""#;

/// Seconds after which to retry when the broker cannot accept a call.
const RETRY_UNAVAILABLE_SECS: u32 = 1;

/// Why a call failed. A failed call has changed nothing, except that a redirect of several clients
/// may have redirected some of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// A parameter is missing or empty.
    #[error("The parameter {0} is missing or empty.")]
    MissingParameter(&'static str),
    /// A parameter is given more than once.
    #[error("The parameter {0} is given more than once.")]
    DuplicateParameter(&'static str),
    /// `interval` is not an integer in the range.
    #[error("The parameter interval must be a whole number of seconds from {min} to {max}.")]
    InvalidInterval {
        /// The minimum, in seconds.
        min: u16,
        /// The maximum, in seconds.
        max: u16,
    },
    /// The body is invalid for this call.
    #[error(
        "The body must be a JSON object with server_reference and either client_id or clients, \
         optionally permanent and, for all clients, refuse_connects."
    )]
    InvalidBody,
    /// The pattern for clients is too long or has too many asterisks.
    #[error("The pattern clients must have at most 16 asterisks and 65535 other bytes.")]
    InvalidPattern,
    /// The server reference is invalid.
    #[error("The server_reference must have 1 to 1024 bytes and no control characters.")]
    InvalidServerReference,
    /// The client identifier is invalid in MQTT, or is encoded wrongly.
    #[error("The client id is not valid: {0}.")]
    InvalidClientId(ClientIdError),
    /// The Content-Type is not JSON.
    #[error("The body must be sent with the header Content-Type: application/json.")]
    UnsupportedMediaType,
    /// Two proxy headers contradict each other.
    #[error("The headers Forwarded and X-Forwarded-For name different callers; send one of them.")]
    ConflictingHeaders,
    /// Credentials are missing or wrong.
    #[error("Credentials are needed: HTTP Basic, or a client certificate over HTTPS.")]
    Unauthenticated,
    /// The client certificate has no usable name, or is no longer trusted.
    #[error("The client certificate cannot be used: {0}.")]
    UnusableCertificate(&'static str),
    /// No permission for the client identifier.
    #[error(
        "The account has no permission for this client id: connect or control to change its Keep \
         Alive, connect or observe to ask for its status, control to redirect it."
    )]
    Forbidden,
    /// No permission to refuse new clients.
    #[error("The account has no permission to publish to $control/redirect.")]
    ForbiddenToDrain,
    /// A page of another site makes a call that changes something.
    #[error(
        "A page of another site may not make this call; see its headers Sec-Fetch-Site and Origin."
    )]
    CrossSite,
    /// The request uses a host name that may not belong to this machine.
    #[error(
        "The Host of the request is not a known name of this machine; use localhost or an IP \
         address, or list the name in http.metrics_hosts."
    )]
    ForbiddenHost,
    /// The path is unknown.
    #[error(
        "Unknown path. The paths are POST /keep-alive?client-id=ID&interval=SECONDS, GET \
         /client-id/ID/status, GET, POST and DELETE /api/v1/redirect, GET /health/live, GET \
         /health/ready and GET /metrics."
    )]
    NotFound,
    /// The client is not connected.
    #[error("The client is not connected.")]
    ClientNotOnline,
    /// The path does not support the method.
    #[error("This path supports the methods {allow}.")]
    MethodNotAllowed {
        /// The supported methods, in the format of the `Allow` header.
        allow: &'static str,
    },
    /// The client connected with Keep Alive 0, so its Keep Alive stays off.
    #[error("The client connected with Keep Alive 0, which turns it off; it cannot be changed.")]
    KeepAliveDisabled,
    /// Too many failed attempts: of this user from this address, or from this address in total.
    #[error(
        "Too many failed attempts of the user {user:?} from {address}, or from this address in total; try \
         again in {retry_after_secs} s."
    )]
    TooManyAttempts {
        /// The user name that the caller gave; cut if it is long.
        user: Box<str>,
        /// The address of the caller.
        address: IpAddr,
        /// Seconds until the next attempt is checked.
        retry_after_secs: u32,
    },
    /// The account or the address makes too many calls.
    #[error("Too many calls; try again in {retry_after_secs} s.")]
    TooManyRequests {
        /// Seconds until the next call is accepted.
        retry_after_secs: u32,
    },
    /// The broker is shutting down, or the connection cannot accept another request now.
    #[error("The broker cannot accept the call now; try again.")]
    Unavailable,
    /// The broker did not answer in time.
    #[error("The broker did not answer in time; see its metrics for overload.")]
    Timeout,
}

/// Why a client identifier is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientIdError {
    /// `%` is not followed by two hexadecimal digits.
    #[error("% must be followed by two hexadecimal digits (% itself is %25)")]
    PercentEncoding,
    /// The decoded bytes are not UTF-8.
    #[error("its bytes must be UTF-8")]
    NotUtf8,
    /// It contains U+0000. [MQTT-1.5.4-2]
    #[error("it must not contain U+0000")]
    Null,
    /// It has more than 65,535 bytes, the maximum of an MQTT string.
    #[error("it must have at most 65535 bytes of UTF-8")]
    TooLong,
    /// A slash in the identifier is not encoded.
    #[error("a slash in it must be encoded as %2F")]
    Slash,
    /// An identifier of one or two dots is not encoded; in a path these have a special meaning.
    #[error("an id of one or two dots must be encoded as %2E or %2E%2E")]
    Dots,
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotOnline => Self::ClientNotOnline,
            ControlError::KeepAliveDisabled => Self::KeepAliveDisabled,
            ControlError::InvalidInterval => Self::InvalidInterval { min: 1, max: u16::MAX },
            ControlError::Unavailable => Self::Unavailable,
            ControlError::Timeout => Self::Timeout,
        }
    }
}

impl ApiError {
    /// Returns the `code` for the response body.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MissingParameter(_) => "missing_parameter",
            Self::DuplicateParameter(_) => "duplicate_parameter",
            Self::InvalidInterval { .. } => "invalid_interval",
            Self::InvalidBody => "invalid_body",
            Self::InvalidPattern => "invalid_pattern",
            Self::InvalidServerReference => "invalid_server_reference",
            Self::InvalidClientId(_) => "invalid_client_id",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::ConflictingHeaders => "conflicting_headers",
            Self::Unauthenticated | Self::UnusableCertificate(_) => "unauthenticated",
            Self::Forbidden | Self::ForbiddenToDrain => "forbidden",
            Self::CrossSite => "cross_site",
            Self::ForbiddenHost => "forbidden_host",
            Self::NotFound => "not_found",
            Self::ClientNotOnline => "client_not_online",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::KeepAliveDisabled => "keep_alive_disabled",
            Self::TooManyRequests { .. } | Self::TooManyAttempts { .. } => "too_many_requests",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
        }
    }
}

/// The body of an error response.
#[derive(Serialize)]
struct Body<'a> {
    success: bool,
    code: &'static str,
    #[serde(serialize_with = "as_text")]
    message: &'a ApiError,
}

fn as_text<S: serde::Serializer>(value: &impl fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::MissingParameter(_)
            | Self::DuplicateParameter(_)
            | Self::InvalidInterval { .. }
            | Self::InvalidBody
            | Self::InvalidPattern
            | Self::InvalidServerReference
            | Self::InvalidClientId(_)
            | Self::ConflictingHeaders => StatusCode::BAD_REQUEST,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unauthenticated | Self::UnusableCertificate(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::ForbiddenToDrain | Self::CrossSite | Self::ForbiddenHost => {
                StatusCode::FORBIDDEN
            }
            Self::NotFound | Self::ClientNotOnline => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::KeepAliveDisabled => StatusCode::CONFLICT,
            Self::TooManyRequests { .. } | Self::TooManyAttempts { .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((CACHE_CONTROL, "no-store"));
        match self {
            Self::Unauthenticated => {
                response.insert_header((WWW_AUTHENTICATE, CHALLENGE));
            }
            Self::UnusableCertificate(_) => {
                response.insert_header((WWW_AUTHENTICATE, CHALLENGE));
                response.force_close(); // the certificate of a connection never changes
            }
            Self::MethodNotAllowed { allow } => {
                response.insert_header((ALLOW, *allow));
            }
            Self::TooManyRequests { retry_after_secs }
            | Self::TooManyAttempts { retry_after_secs, .. } => {
                response.insert_header((RETRY_AFTER, *retry_after_secs));
            }
            Self::Unavailable => {
                response.insert_header((RETRY_AFTER, RETRY_UNAVAILABLE_SECS));
            }
            Self::MissingParameter(_)
            | Self::DuplicateParameter(_)
            | Self::InvalidInterval { .. }
            | Self::InvalidBody
            | Self::InvalidPattern
            | Self::InvalidServerReference
            | Self::InvalidClientId(_)
            | Self::UnsupportedMediaType
            | Self::ConflictingHeaders
            | Self::Forbidden
            | Self::ForbiddenToDrain
            | Self::CrossSite
            | Self::ForbiddenHost
            | Self::NotFound
            | Self::ClientNotOnline
            | Self::KeepAliveDisabled
            | Self::Timeout => {}
        }
        response.json(Body { success: false, code: self.code(), message: self })
    }
}

/// Answers requests for unknown paths; for
/// [`App::default_service`](actix_web::App::default_service).
pub async fn not_found(request: HttpRequest) -> HttpResponse {
    let mut answer = ApiError::NotFound.error_response();
    if request.head().upgrade() {
        answer.head_mut().set_connection_type(ConnectionType::Close); // as in `stay_with_http`
    }
    answer
}
