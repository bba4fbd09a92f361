//! The errors of a call, and their responses: status, code, message.
//!
//! Each constructor has all of an error in one place.

mod access;
mod bridges;
mod broker;
mod certificates;
mod cluster;
mod pages;
mod repeated;
mod users;
mod waiting;

use std::{borrow::Cow, net::IpAddr, ops::RangeInclusive};

use actix_http::ConnectionType;
use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError,
    body::BoxBody,
    http::{
        StatusCode,
        header::{ALLOW, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
    },
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::told::cut;

/// The challenge that asks a caller for credentials (RFC 7617).
const CHALLENGE: &str = r#"Basic realm="hearthmq", charset="UTF-8""#;
/// The challenge for a token (RFC 6750).
const TOKEN_CHALLENGE: &str = r#"Bearer realm="hearthmq""#;

/// Seconds after which to retry when the broker cannot accept a call.
const RETRY_UNAVAILABLE_SECS: u32 = 1;
/// Seconds after which to try again to follow events when there are too many followers.
const RETRY_FOLLOWING_SECS: u32 = 15;

/// Why a call failed. A failed call has changed nothing, except that a redirect of several clients
/// may have redirected some of them, and that a node of the cluster that did not answer may have changed something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    advice: Advice,
    /// Further members of the body.
    details: Option<Box<Map<String, Value>>>,
}

/// The headers of the response that tell the caller more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advice {
    None,
    /// To give credentials.
    Challenge,
    /// To give credentials on another connection: the certificate of a connection never changes.
    #[cfg(feature = "tls")]
    ChallengeElsewhere,
    /// Which methods the path supports, in the format of the `Allow` header.
    Allow(&'static str),
    /// To try again after these seconds.
    RetryAfter(u32),
    /// The same, because of a lock-out.
    LockedOut(u32),
}

/// Why a client identifier is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClientIdError {
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

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), advice: Advice::None, details: None }
    }

    fn bad_request(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    fn refusal(code: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    fn advising(self, advice: Advice) -> Self {
        Self { advice, ..self }
    }

    /// Adds members to the body.
    pub(super) fn with_details(self, details: &impl Serialize) -> Self {
        let details = serde_json::to_value(details).ok();
        let details = details.as_ref().and_then(Value::as_object).cloned();
        Self { details: details.map(Box::new), ..self }
    }

    /// A parameter is missing or empty.
    pub(super) fn missing_parameter(name: &str) -> Self {
        let message = format!("The parameter {name} is missing or empty.");
        Self::bad_request("missing_parameter", message)
    }

    /// A parameter is given more than once.
    pub(super) fn duplicate_parameter(name: &str) -> Self {
        let message = format!("The parameter {name} is given more than once.");
        Self::bad_request("duplicate_parameter", message)
    }

    /// `interval` is not an integer in the range.
    pub(super) fn invalid_interval(secs: RangeInclusive<u16>) -> Self {
        let (min, max) = secs.into_inner();
        let message = format!(
            "The parameter interval must be a whole number of seconds from {min} to {max}."
        );
        Self::bad_request("invalid_interval", message)
    }

    /// The time to live is not an integer in the range.
    pub(super) fn invalid_ttl(secs: RangeInclusive<u32>) -> Self {
        let (min, max) = secs.into_inner();
        let message =
            format!("The field ttl_seconds must be a whole number of seconds from {min} to {max}.");
        Self::bad_request("invalid_ttl", message)
    }

    /// The client has no Keep Alive override.
    pub(super) fn override_not_found() -> Self {
        let message = "The client has no sticky Keep Alive.";
        Self::new(StatusCode::NOT_FOUND, "override_not_found", message)
    }

    /// The client or the user has no sticky settings.
    pub(super) fn settings_not_found() -> Self {
        let message = "The client or the user has no sticky settings.";
        Self::new(StatusCode::NOT_FOUND, "settings_not_found", message)
    }

    /// The topic is not a valid Topic Name.
    pub(super) fn invalid_topic(why: &str) -> Self {
        Self::bad_request("invalid_topic", format!("The topic is not valid: {}.", cut(why)))
    }

    /// A property of a message cannot be sent.
    pub(super) fn invalid_property(why: &str) -> Self {
        Self::bad_request("invalid_property", format!("The message is not valid: {}.", cut(why)))
    }

    /// The message is too large.
    pub(super) fn message_too_large() -> Self {
        let message = "The message with its topic and properties must not exceed packet_bytes_max.";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "message_too_large", message)
    }

    /// No permission to publish.
    pub(super) fn forbidden_to_publish() -> Self {
        let message = "The account has no permission to publish to this topic, or only the broker \
                       publishes there.";
        Self::refusal("forbidden", message)
    }

    /// The Topic Filter is invalid.
    pub(super) fn invalid_filter() -> Self {
        let message = "The filter is not a valid Topic Filter, or exceeds the limits.";
        Self::bad_request("invalid_filter", message)
    }

    /// The client itself has no permission.
    pub(super) fn client_not_authorized() -> Self {
        let message = "The client has no permission to subscribe to this filter.";
        Self::refusal("client_not_authorized", message)
    }

    /// The client is not subscribed.
    pub(super) fn not_subscribed() -> Self {
        let message = "The client is not subscribed to this filter.";
        Self::new(StatusCode::NOT_FOUND, "not_subscribed", message)
    }

    /// The client or its user has as many subscriptions as the limits allow.
    pub(super) fn quota_exceeded() -> Self {
        let message = "A limit on subscriptions is reached.";
        Self::new(StatusCode::CONFLICT, "quota_exceeded", message)
    }

    /// The client identifier is invalid in MQTT, or is encoded wrongly.
    pub(super) fn invalid_client_id(error: ClientIdError) -> Self {
        Self::bad_request("invalid_client_id", format!("The client id is not valid: {error}."))
    }

    /// The query has a parameter that the call does not have.
    pub(super) fn unknown_parameter(known: &[&str]) -> Self {
        let message = match known {
            [] => "This call has no parameters in its query.".to_owned(),
            _ => format!("The query may have the parameters {}.", known.join(", ")),
        };
        Self::bad_request("unknown_parameter", message)
    }

    /// A parameter has a wrong value; `expected` describes the right values.
    pub(super) fn invalid_parameter(name: &str, expected: &str) -> Self {
        Self::bad_request("invalid_parameter", format!("The parameter {name} {expected}."))
    }

    /// The body is not what the call expects.
    pub(super) fn invalid_body(why: &str) -> Self {
        Self::bad_request("invalid_body", format!("The JSON body is not valid: {}.", cut(why)))
    }

    /// The body is too large.
    pub(super) fn body_too_large(bytes_max: usize) -> Self {
        let message = format!("The body may have at most {bytes_max} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// A call is about too many clients.
    pub(super) fn too_many_items(items_max: usize) -> Self {
        let message = format!("A call may have at most {items_max} items.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_items", message)
    }

    /// The pattern for clients is too long or has too many asterisks.
    pub(super) fn invalid_pattern() -> Self {
        let message = "The pattern clients must have at most 16 asterisks and 65535 other bytes.";
        Self::bad_request("invalid_pattern", message)
    }

    /// The server reference is invalid.
    pub(super) fn invalid_server_reference() -> Self {
        let message = "The server_reference must have 1 to 1024 bytes and no control characters.";
        Self::bad_request("invalid_server_reference", message)
    }

    /// Two proxy headers contradict each other.
    pub(super) fn conflicting_headers() -> Self {
        let message = "The headers Forwarded and X-Forwarded-For name different callers; send one \
                       of them.";
        Self::bad_request("conflicting_headers", message)
    }

    /// A trusted proxy does not name the address of its caller.
    pub(super) fn unknown_caller() -> Self {
        let message = "The proxy does not name the IP address of the caller in Forwarded or \
                       X-Forwarded-For; see http.proxy_trusted.";
        Self::bad_request("unknown_caller", message)
    }

    /// The Content-Type is not JSON.
    pub(super) fn unsupported_media_type() -> Self {
        let message = "The body must be sent with the header Content-Type: application/json.";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// Credentials are missing or wrong.
    pub(super) fn unauthenticated() -> Self {
        let message = "Credentials are needed: HTTP Basic, a Bearer token, or a client certificate \
                       over HTTPS.";
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", message).advising(Advice::Challenge)
    }

    /// The client certificate has no usable name, or is no longer trusted.
    #[cfg(feature = "tls")]
    pub(super) fn unusable_certificate(why: &str) -> Self {
        let message = format!("The client certificate cannot be used: {why}.");
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", message)
            .advising(Advice::ChallengeElsewhere)
    }

    /// No permission for the client identifier.
    pub(super) fn forbidden() -> Self {
        let message = "The account has no permission for this client id: control to change \
                       something, observe to look. Permission to connect as the client permits only \
                       /keep-alive and /client-id/ID/status.";
        Self::refusal("forbidden", message)
    }

    /// No permission to refuse new clients.
    pub(super) fn forbidden_to_drain() -> Self {
        let message = "The account has no permission to publish to $control/redirect.";
        Self::refusal("forbidden", message)
    }

    /// No permission to receive replies on a topic.
    pub(super) fn forbidden_response_topic() -> Self {
        let message = "The account has no permission to subscribe to this response_topic.";
        Self::refusal("forbidden", message)
    }

    /// No permission for a topic.
    pub(super) fn forbidden_topic() -> Self {
        let message = "The account has no permission to subscribe to this topic, or none to publish \
                       a retained message there.";
        Self::refusal("forbidden", message)
    }

    /// No message is retained on a topic.
    pub(super) fn retained_not_found() -> Self {
        let message = "No message is retained on this topic.";
        Self::new(StatusCode::NOT_FOUND, "retained_not_found", message)
    }

    /// No client with this identifier has a connection or a session.
    pub(super) fn client_not_found() -> Self {
        let message = "No client with this id has a connection or a session.";
        Self::new(StatusCode::NOT_FOUND, "client_not_found", message)
    }

    /// A page of another site makes a call that changes something.
    pub(super) fn cross_site() -> Self {
        let message = "A page of another site may not make this call; see its headers \
                       Sec-Fetch-Site and Origin.";
        Self::refusal("cross_site", message)
    }

    /// The request uses a host name that may not belong to this machine.
    pub(super) fn forbidden_host() -> Self {
        let message = "The Host of the request is not a known name of this machine; use localhost \
                       or an IP address, or list the name in http.metrics_hosts.";
        Self::refusal("forbidden_host", message)
    }

    /// The path is unknown.
    pub(super) fn not_found() -> Self {
        let message = "Unknown path. The paths are POST /keep-alive?client-id=ID&interval=SECONDS, \
                       GET /client-id/ID/status, GET /health/live, GET /health/ready, GET /metrics \
                       and those below /api/v1, which docs/rest.md lists.";
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The path does not support the method; `allow` has the format of the `Allow` header.
    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("This path supports the methods {allow}.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
            .advising(Advice::Allow(allow))
    }

    /// Too many failed attempts: of this user from this address, or from this address in total.
    pub(super) fn too_many_attempts(user: &str, address: IpAddr, retry_after_secs: u32) -> Self {
        let message = format!(
            "Too many failed attempts of the user {user:?} from {address}, or from this address in \
             total; try again in {retry_after_secs} s."
        );
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
            .advising(Advice::LockedOut(retry_after_secs))
    }

    /// The account or the address makes too many calls.
    pub(super) fn too_many_requests(retry_after_secs: u32) -> Self {
        let message = format!("Too many calls; try again in {retry_after_secs} s.");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
            .advising(Advice::RetryAfter(retry_after_secs))
    }

    /// The broker is shutting down, or the connection cannot accept another request now.
    pub(super) fn unavailable() -> Self {
        let message = "The broker cannot accept the call now; try again.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
            .advising(Advice::RetryAfter(RETRY_UNAVAILABLE_SECS))
    }

    /// The bodies, answers or walks of this account, or of all accounts, take all the room that there is.
    pub(super) fn busy() -> Self {
        let message = "Other calls, of this account or of all together, take the room that this call \
                       needs; try again.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
            .advising(Advice::RetryAfter(RETRY_UNAVAILABLE_SECS))
    }

    /// Too many callers follow events, in all or of this account.
    pub(super) fn too_many_followers() -> Self {
        let message = "Too many callers follow events, in all or of this account; see \
                       http.followers_max and http.followers_per_account_max.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_followers", message)
            .advising(Advice::RetryAfter(RETRY_FOLLOWING_SECS))
    }

    /// The broker did not answer in time.
    pub(super) fn timeout() -> Self {
        let message = "The broker did not answer in time; see its metrics for overload.";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }

    /// Returns whether the caller was refused because of a lock-out, which was logged when it began.
    pub(super) fn is_lock_out(&self) -> bool {
        matches!(self.advice, Advice::LockedOut(_))
    }

    /// Returns the status and the headers of the response. The page in a browser gets no challenge: it
    /// has a form for the login, and the browser would show another one.
    pub(super) fn head(&self, is_for_page: bool) -> HttpResponseBuilder {
        let mut response = HttpResponse::build(self.status);
        response.insert_header((CACHE_CONTROL, "no-store"));
        match self.advice {
            Advice::None => {}
            Advice::Challenge if is_for_page => {}
            Advice::Challenge => {
                response.insert_header((WWW_AUTHENTICATE, CHALLENGE));
                response.append_header((WWW_AUTHENTICATE, TOKEN_CHALLENGE));
            }
            #[cfg(feature = "tls")]
            Advice::ChallengeElsewhere => {
                response.insert_header((WWW_AUTHENTICATE, CHALLENGE));
                response.append_header((WWW_AUTHENTICATE, TOKEN_CHALLENGE));
                response.force_close();
            }
            Advice::Allow(allow) => {
                response.insert_header((ALLOW, allow));
            }
            Advice::RetryAfter(secs) | Advice::LockedOut(secs) => {
                response.insert_header((RETRY_AFTER, secs));
            }
        }
        response
    }

    /// Returns the `code` for the response body.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }
}

/// Says why a call failed.
#[derive(Serialize, ToSchema)]
pub(super) struct ErrorBody<'a> {
    /// Always `false`.
    success: bool,
    /// A fixed word for the cause.
    #[schema(example = "unavailable")]
    code: &'static str,
    /// A sentence that says what was wrong and what is right.
    message: &'a str,
    #[serde(flatten)]
    #[schema(ignore)]
    details: Option<&'a Map<String, Value>>,
}

impl<'a> ErrorBody<'a> {
    pub(super) fn of(error: &'a ApiError) -> Self {
        let details = error.details.as_deref();
        Self { success: false, code: error.code, message: &error.message, details }
    }

    pub(super) const fn message(&self) -> &'a str {
        self.message
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        self.head(false).json(ErrorBody::of(self))
    }
}

/// Answers requests for unknown paths; for
/// [`App::default_service`](actix_web::App::default_service).
pub async fn not_found(request: HttpRequest) -> HttpResponse {
    let mut answer = ApiError::not_found().answer_to(&request);
    if request.head().upgrade() {
        answer.head_mut().set_connection_type(ConnectionType::Close); // as in `stay_with_http`
    }
    answer
}
