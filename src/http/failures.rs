//! The failures of calls, as the OpenAPI document describes them: by status, each with its code.
//!
//! A call names the sets of errors that it may answer, `Fails<(Caller, Permission, NotOnline)>`, and
//! the responses are made of these errors themselves. Used in the annotations of the calls.

use std::{collections::BTreeMap, marker::PhantomData};

use actix_web::ResponseError as _;
use serde_json::json;
use utoipa::{
    IntoResponses, ToSchema as _,
    openapi::{
        ContentBuilder, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder,
        example::ExampleBuilder,
        schema::{ObjectBuilder, Type},
    },
};

use super::{
    error::{ApiError, ClientIdError, ErrorBody},
    problem::ProblemBody,
};
use crate::control::{ControlError, KEEP_ALIVE_SECS, UsersError};

/// Errors that belong together.
pub(super) trait FailureSet {
    /// Returns one error for each code.
    fn errors() -> Vec<ApiError>;
}

/// The responses for these errors.
pub(super) struct Fails<S>(PhantomData<S>);

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident => [$($error:expr),+ $(,)?];)+) => {$(
        $(#[$doc])*
        pub(super) enum $name {}

        impl FailureSet for $name {
            fn errors() -> Vec<ApiError> {
                vec![$($error),+]
            }
        }
    )+};
}

failures! {
    /// Every call with an account may fail so, whatever it is about.
    Caller => [
        ApiError::conflicting_headers(),
        ApiError::unknown_caller(),
        ApiError::unauthenticated(),
        ApiError::method_not_allowed("GET, HEAD"),
        ApiError::too_many_requests(1),
        ApiError::unavailable(),
        ApiError::busy(),
        ApiError::timeout(),
    ];
    /// The client may be on another node of the cluster.
    Elsewhere => [
        ControlError::NodeUnreachable.into(),
        ControlError::NodeDown.into(),
        ControlError::ClusterUnavailable.into(),
    ];
    /// The caller needs a permission for a client.
    Permission => [ApiError::forbidden()];
    /// The broker must have accounts in its store.
    NoUsers => [UsersError::NoSource.into()];
    /// The store must have the account.
    NoUser => [
        UsersError::NotFound.into(),
        UsersError::NoSource.into(),
        UsersError::InvalidName.into(),
    ];
    /// The account must have the device secret.
    NoSecret => [UsersError::SecretNotFound.into()];
    /// The account has room for two device secrets.
    Secrets => [UsersError::TooManySecrets.into()];
    /// The call sets a password.
    WrongPassword => [UsersError::InvalidPassword.into(), UsersError::InvalidHash.into()];
    /// The call creates an account.
    NewUserFailure => [
        UsersError::NoSource.into(),
        UsersError::InvalidName.into(),
        UsersError::InvalidPassword.into(),
        UsersError::InvalidHash.into(),
        UsersError::Exists.into(),
        UsersError::InFile.into(),
        UsersError::TooMany.into(),
    ];
    /// The call changes something, so it must not come from a page of another site.
    Change => [ApiError::cross_site()];
    /// The path has a part that may lead nowhere.
    Path => [ApiError::not_found()];
    /// A parameter is required.
    RequiredParameters => [
        ApiError::missing_parameter("client-id"),
        ApiError::duplicate_parameter("client-id"),
    ];
    /// The query has parameters.
    Parameters => [
        ApiError::missing_parameter("limit"),
        ApiError::duplicate_parameter("limit"),
        ApiError::unknown_parameter(&["limit", "cursor"]),
        ApiError::invalid_parameter("limit", "must be a whole number from 1 to 10000"),
    ];
    /// The path or the query has a Client Identifier.
    ClientId => [ApiError::invalid_client_id(ClientIdError::NotUtf8)];
    /// The call has a body.
    Body => [
        ApiError::invalid_body("it did not arrive in full"),
        ApiError::body_too_large(8_388_608),
    ];
    /// The call has a body in JSON.
    JsonBody => [
        ApiError::invalid_body("expected value at line 1 column 1"),
        ApiError::body_too_large(8_388_608),
        ApiError::unsupported_media_type(),
    ];
    /// The call has a list of items.
    Items => [ApiError::too_many_items(10_000)];
    /// The call has a selector.
    Selector => [ApiError::invalid_pattern()];
    /// The interval is a Keep Alive.
    Interval => [ApiError::invalid_interval(KEEP_ALIVE_SECS)];
    /// The change may end by itself.
    Ttl => [ApiError::invalid_ttl(1..=31_536_000)];
    /// The client must be connected.
    NotOnline => [ControlError::NotOnline.into()];
    /// The Keep Alive of the client must be on.
    KeepAliveOff => [ControlError::KeepAliveDisabled.into()];
    /// The client must have a connection or a session.
    NoClient => [ApiError::client_not_found()];
    /// The client must have a sticky value.
    NoOverride => [ApiError::override_not_found()];
    /// The call changes settings of a client.
    Setting => [
        ControlError::InvalidSetting("message_rate").into(),
        ControlError::ClientIdTooLong { bytes_max: 1_024 }.into(),
        ControlError::TooManyOverrides.into(),
        ControlError::SessionNotLasting.into(),
    ];
    /// The call changes settings of a user.
    UserSetting => [
        ControlError::InvalidSetting("message_rate").into(),
        ControlError::UsernameTooLong.into(),
        ControlError::TooManyOverrides.into(),
    ];
    /// The call names a certificate.
    CertificateName => [ApiError::invalid_certificate_name()];
    /// The certificate must be revoked.
    NotRevoked => [ApiError::certificate_not_revoked()];
    /// The bridge must exist.
    NoBridge => [ApiError::bridge_not_found()];
    /// The bridge must be started.
    BridgeStopped => [ApiError::bridge_disabled()];
    /// The client identifier must have a pinned certificate.
    NotPinned => [ApiError::certificate_not_pinned()];
    /// The revoked certificates have a limit.
    Revoking => [ApiError::too_many_revoked()];
    /// The client or the user must have sticky settings.
    NoSettings => [ApiError::settings_not_found()];
    /// The call publishes.
    Publishing => [
        ApiError::invalid_topic("it is empty"),
        ApiError::invalid_property("the payload is not UTF-8"),
        ApiError::forbidden_to_publish(),
        ApiError::message_too_large(),
        ControlError::RetainedFull.into(),
    ];
    /// The call may have a key under which it is repeated.
    Repeating => [
        ApiError::invalid_idempotency_key(),
        ApiError::idempotency_key_in_use(),
        ApiError::answer_not_kept(),
        ApiError::idempotency_key_reused(),
    ];
    /// The call may wait for what becomes of its messages.
    Waiting => [
        ApiError::too_many_waiting(),
        ControlError::TooManyDeliveries.into(),
        ApiError::deliveries_pending(),
    ];
    /// The call waits for a reply.
    Reply => [
        ApiError::too_many_waiting(),
        ControlError::NoSubscriber.into(),
        ApiError::no_reply(),
    ];
    /// A message must be retained on the topic.
    NotRetained => [ApiError::forbidden_topic(), ApiError::retained_not_found()];
    /// The call redirects clients.
    Redirecting => [ApiError::invalid_pattern(), ApiError::invalid_server_reference()];
    /// The call changes whether new clients are refused.
    Draining => [ApiError::forbidden_to_drain()];
    /// The caller follows events.
    Following => [ApiError::too_many_followers()];
    /// The path answers some callers, and some hosts, only.
    Metrics => [
        ApiError::conflicting_headers(),
        ApiError::unknown_caller(),
        ApiError::forbidden_host(),
        ApiError::not_found(),
        ApiError::method_not_allowed("GET, HEAD"),
    ];
    /// The rate of the address is limited.
    Rate => [ApiError::too_many_requests(1)];
    /// The caller needs the permission to administer the broker.
    Administration => [ApiError::forbidden_to_administer()];
    /// The call replaces or removes something that others may have changed.
    Precondition => [ApiError::precondition_failed(), ApiError::invalid_precondition()];
    /// The call changes what the store has, within a limit.
    StoredThings => [ApiError::too_many("stored_rules_max"), ApiError::not_supported()];
    /// The call has a rule, or the identifier of one.
    RuleForm => [ApiError::invalid_rule("topics[0]: topic filter is empty")];
    /// The call has a ban, or names one.
    BanForm => [ApiError::invalid_ban("it has exactly one of client_id, user and address")];
    /// The ban must be there.
    NoBan => [ApiError::ban_not_found()];
    /// The call has a token, or names one.
    TokenForm => [ApiError::invalid_token("name: it is empty"), ApiError::token_exists()];
    /// The token must be there.
    NoToken => [ApiError::token_not_found()];
    /// Failed logins must be counted.
    NoFailures => [ApiError::no_failed_logins()];
    /// The rule must be in the store.
    NoRule => [ApiError::rule_not_found()];
    /// The broker must be a program of its own.
    NoProgram => [ApiError::no_program()];
    /// The call has a trace to start.
    TraceForm => [
        ApiError::invalid_trace("it has exactly one of client_id, username and address"),
        ApiError::invalid_client_id(ClientIdError::Null),
        ControlError::TooManyTraces.into(),
    ];
    /// The trace must be there.
    NoTrace => [ControlError::TraceNotFound.into()];
    /// The call has a filter of the log.
    LogFilter => [ApiError::invalid_log_filter()];
    /// The caller listens to a topic.
    ListenedTopic => [ApiError::forbidden_to_listen(), ControlError::TopicOverLimits.into()];
    /// A page logs a user in.
    PageLogin => [ApiError::insecure_connection(), ApiError::sessions_off()];
    /// The path has other methods.
    OtherMethod => [ApiError::method_not_allowed("GET, HEAD")];
}

macro_rules! sets_of_sets {
    ($($($set:ident)+;)+) => {$(
        impl<$($set: FailureSet),+> FailureSet for ($($set,)+) {
            fn errors() -> Vec<ApiError> {
                [$($set::errors()),+].concat()
            }
        }
    )+};
}

sets_of_sets! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
    A B C D E F G H I;
}

/// The prefix of a reference to a response that calls have in common.
const SHARED: &str = "#/components/responses/";

impl<S: FailureSet> IntoResponses for Fails<S> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses_of(S::errors())
    }
}

/// Returns the responses for these errors. Not generic, as it would be compiled for each call.
fn responses_of(errors: Vec<ApiError>) -> BTreeMap<String, RefOr<Response>> {
    let shared = by_status(Caller::errors());
    let responses = by_status(errors).into_iter().map(|(status, errors)| {
        let is_shared = shared.get(&status) == Some(&errors);
        let response = match is_shared {
            true => RefOr::Ref(Ref::new(format!("{SHARED}{}", name_of(&errors)))),
            false => RefOr::T(response(&errors)),
        };
        (status.to_string(), response)
    });
    responses.collect()
}

/// Returns the responses that calls have in common, by the names that are used in references.
pub(super) fn shared() -> BTreeMap<String, RefOr<Response>> {
    let shared = by_status(Caller::errors()).into_values();
    shared.map(|errors| (name_of(&errors), RefOr::T(response(&errors)))).collect()
}

fn by_status(errors: Vec<ApiError>) -> BTreeMap<u16, Vec<ApiError>> {
    let mut by_status: BTreeMap<u16, Vec<ApiError>> = BTreeMap::new();
    for error in errors {
        let same = by_status.entry(error.status_code().as_u16()).or_default();
        if !same.iter().any(|other| other.code() == error.code()) {
            same.push(error);
        }
    }
    by_status
}

/// Returns the name of a response: the reason phrase of its status.
fn name_of(errors: &[ApiError]) -> String {
    let status = errors[0].status_code();
    status.canonical_reason().unwrap_or("Error").replace(' ', "")
}

/// Returns the response for errors with one status.
fn response(errors: &[ApiError]) -> Response {
    let codes: Vec<_> = errors.iter().map(|error| format!("`{}`", error.code())).collect();
    let reason = errors[0].status_code().canonical_reason().unwrap_or("Error");
    let examples = errors.iter().map(|error| {
        let body = json!(ErrorBody::of(error));
        (error.code(), ExampleBuilder::new().summary(error.code()).value(Some(body)).build())
    });
    let schema = RefOr::Ref(Ref::from_schema_name(ErrorBody::name()));
    let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build();
    let problems = errors.iter().map(|error| {
        let body = json!(ProblemBody::of(error));
        (error.code(), ExampleBuilder::new().summary(error.code()).value(Some(body)).build())
    });
    let schema = RefOr::Ref(Ref::from_schema_name(ProblemBody::name()));
    let problem = ContentBuilder::new().schema(Some(schema)).examples_from_iter(problems).build();
    let mut response = ResponseBuilder::new()
        .description(format!("{reason}: {}", codes.join(", ")))
        .content("application/json", content)
        .content("application/problem+json", problem);
    // Headers are described only where an error has them, which its own response shows.
    for (name, means) in [
        ("WWW-Authenticate", "How to give credentials (RFC 7617, RFC 6750)."),
        ("Retry-After", "Seconds after which to try again."),
        ("Allow", "The methods of the path."),
    ] {
        if errors.iter().any(|error| error.error_response().headers().contains_key(name)) {
            let text = ObjectBuilder::new().schema_type(Type::String).build();
            let header = HeaderBuilder::new().schema(Some(text)).description(Some(means)).build();
            response = response.header(name, header);
        }
    }
    response.build()
}
