//! `/api/v1/session`: the login of a person on a page, which gives the browser a cookie.

use std::pin::pin;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        channel::Channel,
        failures::{Caller, Change, Fails, JsonBody, PageLogin, Parameters},
        sessions::ProvenLogin,
    },
    Done, body, resource,
    target::Query,
};
use crate::{auth::Action, metrics::RestRoute, told::Changed};

/// Maximum bytes of a form.
const FORM_BYTES_MAX: usize = 8 * 1024;

pub(super) fn routes(config: &mut ServiceConfig) {
    let session = resource("/session", "GET, HEAD, POST, DELETE")
        .route(web::get().to(show))
        .route(web::head().to(show))
        .route(web::post().to(log_in))
        .route(web::delete().to(log_out));
    config.service(session);
}

/// The user name and password of a login.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LoginForm)]
struct LoginForm {
    /// The user name of an account.
    username: String,
    /// Its password.
    password: String,
}

/// The session of a browser.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
struct SessionAnswer<'a> {
    /// Whether a page can log in here: `open`; `insecure` without HTTPS, except on the machine of the
    /// broker; or `off`.
    #[schema(pattern = "^(open|insecure|off)$")]
    login: &'a str,
    /// The user that is logged in; absent if nobody is.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    /// When the session ends unless it is used, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<u64>,
}

impl<'a> SessionAnswer<'a> {
    fn of(api: &Api, login: &'a str, caller: Option<&'a HttpCaller>) -> Self {
        let session = caller.and_then(|caller| caller.session);
        let ends_at = session
            .and_then(|key| api.0.sessions.ends_at(&key, api.0.clock.now(), api.session_times()));
        let username = caller.and_then(|caller| caller.identity.username.as_deref());
        Self { login, username, ends_at: ends_at.map(|at| at.millis()) }
    }
}

/// Says whether a page can log in here, and who is logged in.
///
/// The user is that of the cookie, for a call with the header `X-HearthMQ-Console`.
#[utoipa::path(
    get, path = "/session", tag = "access", operation_id = "session", security(()),
    responses(
        (status = 200, description = "The session.", body = SessionAnswer<'static>,
         example = json!({"login": "open", "username": "admin", "ends_at": 1_764_321_000_000_u64})),
        Fails<(Caller, Change, Parameters)>,
    ),
)]
pub(super) async fn show(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        admission::arrive(&api, &request, CallEffect::Looks)?;
        Query::parse(request.query_string(), &[])?;
        let login = match admission::channel(&api, &request)? {
            _ if api.options().session_idle.is_zero() => "off",
            Channel::Open => "insecure",
            Channel::Secret | Channel::OwnMachine => "open",
        };
        // A request without a cookie is not an attempt to log in, so nothing is checked or counted.
        let is_of_session = admission::session_of(&api, &request)?.is_some();
        let caller = match is_of_session {
            true => admission::admit(&api, &request, CallEffect::Looks).await,
            false => Err(ApiError::unauthenticated()),
        };
        match caller {
            Ok(caller) => Ok(Answer::json(&SessionAnswer::of(&api, login, Some(&caller)))),
            Err(error) if error == ApiError::unauthenticated() => {
                Ok(Answer::json(&SessionAnswer::of(&api, login, None)))
            }
            Err(error) => Err(error),
        }
    };
    answer(&api, &request, RestRoute::Session, pin!(call)).await
}

/// Logs a person in: the answer sets a cookie.
///
/// The cookie counts for calls with the header `X-HearthMQ-Console`, until nobody has used it for some
/// time, it is too old, the account changes, or a call ends it.
#[utoipa::path(
    post, path = "/session", tag = "access", operation_id = "logIn", security(()),
    request_body(content = LoginForm, description = "User name and password.",
        example = json!({"username": "admin", "password": "correct horse battery staple"})),
    responses(
        (status = 200, description = "The session.", body = SessionAnswer<'static>,
         headers(("Set-Cookie" = String, description = "The cookie of the session.")),
         example = json!({"login": "open", "username": "admin", "ends_at": 1_764_321_000_000_u64})),
        Fails<(Caller, Change, Parameters, JsonBody, PageLogin)>,
    ),
)]
pub(super) async fn log_in(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let peer = admission::arrive(&api, &request, CallEffect::Changes)?;
        Query::parse(request.query_string(), &[])?;
        let channel = admission::channel(&api, &request)?;
        let times = api.session_times();
        if times.idle.is_zero() {
            return Err(ApiError::sessions_off());
        }
        // Before the body is read, so that a password on an insecure connection is not used.
        if channel == Channel::Open {
            return Err(ApiError::insecure_connection());
        }
        let form: LoginForm = body::read(&api, &request, payload, FORM_BYTES_MAX).await?;
        // Before the check, so that a change of accounts during it is noticed at the next call.
        let generation = api.0.authenticator.generation();
        let given = (form.username, form.password);
        let mut caller = admission::log_in(&api, &request, peer, given).await?;
        let login = ProvenLogin {
            identity: caller.identity.clone(),
            certificate: admission::certificate(&request, true)?.cloned(),
            admitted_at: generation,
            checked_at: generation,
        };
        if let Some(key) = admission::session_of(&api, &request)? {
            api.0.sessions.end(&key); // the browser forgets its cookie
        }
        let secret = api.0.sessions.begin(login, api.0.clock.now(), times);
        caller.session = Some(secret.key());
        tell(&api, &caller, "login");
        let cookie = channel.set_cookie(request.headers(), Some(&secret));
        let cookie = cookie.ok_or_else(ApiError::insecure_connection)?;
        let shown = SessionAnswer::of(&api, "open", Some(&caller));
        Ok(Answer::json(&shown).with_header("Set-Cookie", &cookie))
    };
    answer(&api, &request, RestRoute::Session, pin!(call)).await
}

/// Logs a person out: the session of the cookie ends at once.
#[utoipa::path(
    delete, path = "/session", tag = "access", operation_id = "logOut", security(()),
    responses(
        (status = 200, description = "The session has ended.", body = Done,
         headers(("Set-Cookie" = String, description = "Removes the cookie.")),
         example = json!({"success": true})),
        Fails<(Caller, Change, Parameters)>,
    ),
)]
pub(super) async fn log_out(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        Query::parse(request.query_string(), &[])?;
        let key = caller.session.ok_or_else(ApiError::unauthenticated)?;
        api.0.sessions.end(&key);
        tell(&api, &caller, "logout");
        let channel = admission::channel(&api, &request)?;
        let cookie = channel.set_cookie(request.headers(), None).unwrap_or_default();
        Ok(Answer::json(&Done::NOW).with_header("Set-Cookie", &cookie))
    };
    answer(&api, &request, RestRoute::Session, pin!(call)).await
}

/// Notes the login of a caller that may change something for all clients. Others would displace the
/// entries of changes in the audit log.
fn tell(api: &Api, caller: &HttpCaller, call: &str) {
    let may_change = [Action::Control, Action::Administer].iter();
    if may_change.into_iter().any(|action| caller.may(api, "", *action)) {
        caller.tell_changed(api, Changed { call, target: None, old: None, new: None });
    }
}
