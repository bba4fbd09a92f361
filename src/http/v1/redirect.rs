//! `/api/v1/redirect`: redirects clients to another server (`POST`), stops refusing new clients
//! (`DELETE`), and returns the state (`GET`).
//!
//! Redirecting a client needs the permission `control` for its identifier; a pattern affects only
//! those matching clients for which the caller has it. Refusing new clients affects clients whose
//! identifiers are not known yet, so it needs a permission of its own.

use std::{pin::pin, sync::Arc};

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
        failures::{
            Caller, Change, Draining, Elsewhere, Fails, JsonBody, NotOnline, Permission,
            Redirecting,
        },
    },
    Done, body, in_time, resource,
};
use crate::{
    auth::Action,
    control::{ClientPattern, Clients, ControlError, Redirect, Redirection},
    metrics::RestRoute,
    mqtt::QoS,
    told::{Changed, ChangedObject},
};

/// The permission to publish to this topic is the permission to refuse new clients. A policy must
/// name the topic: neither a filter that begins with a wildcard nor a rule without topics includes
/// it.
const DRAIN_TOPIC: &str = "$control/redirect";

/// Maximum bytes of a body: the longest client identifier and reference, with each byte escaped as
/// `\u001f`, and the rest of the JSON.
const BODY_BYTES_MAX: usize = 6 * (65_535 + 1_024) + 512;

/// The body of a `POST`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RedirectBody {
    /// The client to redirect.
    client_id: Option<String>,
    /// Or a pattern for the clients to redirect.
    clients: Option<String>,
    /// The other server, usually `host:port`.
    server_reference: String,
    /// Whether clients should use the other server permanently (0x9D) or temporarily (0x9C).
    #[serde(default)]
    permanent: bool,
    /// Whether new clients are refused and redirected too, until `DELETE`.
    #[serde(default)]
    refuse_connects: bool,
}

/// Says how many clients were redirected.
#[derive(Serialize, ToSchema)]
struct Redirected {
    /// Always `true`.
    success: bool,
    /// The number of redirected clients.
    redirected: usize,
}

pub(super) fn routes(config: &mut ServiceConfig) {
    let redirect = resource("/redirect", "GET, HEAD, POST, DELETE")
        .route(web::get().to(state))
        .route(web::head().to(state))
        .route(web::post().to(redirect))
        .route(web::delete().to(accept));
    config.service(redirect);
}

/// Sends clients to another server.
///
/// With `refuse_connects` the broker also refuses new clients, until `DELETE`. If the call fails, some
/// clients may have been redirected.
#[utoipa::path(
    post, path = "/redirect", tag = "clients", operation_id = "redirect",
    request_body(content = RedirectBody, description = "Which clients, and where.",
        example = json!({"clients": "car-*", "server_reference": "b.example:8883"})),
    responses(
        (status = 200, description = "The clients are redirected.", body = Redirected,
         example = json!({"success": true, "redirected": 1})),
        Fails<(Caller, Change, Permission, JsonBody, Redirecting, NotOnline, Elsewhere)>,
    ),
)]
pub(super) async fn redirect(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let body = body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let (wanted, refuses_connects) = parse(body)?;
        let mut line = RedirectLine::of(&wanted, refuses_connects);
        // Before any client is told: a redirect cannot be taken back.
        let wanted = permit(&api, &caller, wanted, refuses_connects)?;
        let is_one = matches!(wanted.clients, Clients::One(_));
        let control = &api.0.control;
        let redirected = if refuses_connects {
            line.old = control.drained_to().map(|to| to.server_reference().clone());
            in_time(&api, control.evacuate(wanted)).await?
        } else {
            in_time(&api, control.redirect(wanted)).await?
        };
        // A pattern may match nobody; a client that is named must be there.
        if is_one && redirected == 0 {
            return Err(ControlError::NotOnline.into());
        }
        line.tell(&api, &caller, redirected);
        Ok(Answer::json(&Redirected { success: true, redirected }))
    };
    answer(&api, &request, RestRoute::Redirect, pin!(call)).await
}

/// The log line about a redirect.
struct RedirectLine {
    target: String,
    /// Whether the target is a client identifier, and no pattern.
    is_one: bool,
    /// The server to which new clients were sent before.
    old: Option<Arc<str>>,
    new: String,
}

impl RedirectLine {
    fn of(wanted: &Redirect, refuses_connects: bool) -> Self {
        let (target, is_one) = match &wanted.clients {
            Clients::One(client_id) => (client_id.clone(), true),
            Clients::Matching(pattern) => (pattern.text().to_owned(), false),
        };
        let how = if wanted.to.is_permanent() { "permanent" } else { "temporary" };
        let also = if refuses_connects { ", new clients too" } else { "" };
        let new = format!("{}, {how}{also}", wanted.to.server_reference());
        Self { target, is_one, old: None, new }
    }

    fn tell(&self, api: &Api, caller: &HttpCaller, redirected: usize) {
        let new = format!("{}; {redirected} clients", self.new);
        let of_kind = if self.is_one { ChangedObject::Client } else { ChangedObject::Clients };
        let target = Some(of_kind(&self.target));
        let old = self.old.as_deref();
        let changed = Changed { call: "redirect", target, old, new: Some(&new) };
        caller.tell_changed(api, changed);
    }
}

/// Accepts new clients again.
#[utoipa::path(
    delete, path = "/redirect", tag = "clients", operation_id = "acceptClients",
    responses(
        (status = 200, description = "New clients are accepted.", body = Done,
         example = json!({"success": true})),
        Fails<(Caller, Change, Draining)>,
    ),
)]
pub(super) async fn accept(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        permit_drain(&api, &caller)?;
        let old = api.0.control.drained_to();
        api.0.control.drain(None).await;
        let old = old.as_ref().map(|to| &**to.server_reference());
        let (call, new) = ("redirect", Some("none"));
        caller.tell_changed(&api, Changed { call, target: None, old, new });
        Ok(Answer::json(&Done::NOW))
    };
    answer(&api, &request, RestRoute::Redirect, pin!(call)).await
}

/// Says whether new clients are refused, and where they are sent.
#[derive(Serialize, ToSchema)]
struct RedirectState {
    /// Whether new clients are refused.
    redirecting: bool,
    /// The other server.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_reference: Option<String>,
    /// Whether clients should use it permanently.
    #[serde(skip_serializing_if = "Option::is_none")]
    permanent: Option<bool>,
}

/// Asks whether new clients are refused.
#[utoipa::path(
    get, path = "/redirect", tag = "clients", operation_id = "redirectState",
    responses(
        (status = 200, description = "Whether new clients are refused.", body = RedirectState,
         example = json!({"redirecting": true, "server_reference": "b.example:8883",
            "permanent": false})),
        Fails<(Caller, Draining)>,
    ),
)]
pub(super) async fn state(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        if !caller.may(&api, "", Action::Observe) {
            permit_drain(&api, &caller)?;
        }
        let to = api.0.control.drained_to();
        Ok(Answer::json(&RedirectState {
            redirecting: to.is_some(),
            server_reference: to.as_ref().map(|to| (**to.server_reference()).to_owned()),
            permanent: to.as_ref().map(Redirection::is_permanent),
        }))
    };
    answer(&api, &request, RestRoute::Redirect, pin!(call)).await
}

/// Returns the redirect, and whether new clients are refused too.
fn parse(body: RedirectBody) -> Result<(Redirect, bool), ApiError> {
    let clients = match (body.client_id, body.clients) {
        (Some(client_id), None) if !client_id.is_empty() => Clients::One(client_id),
        (None, Some(pattern)) => {
            let pattern = ClientPattern::new(&pattern).map_err(|_| ApiError::invalid_pattern())?;
            Clients::Matching(pattern)
        }
        _ => return Err(ApiError::invalid_body("it needs either client_id or clients")),
    };
    let to = Redirection::new(&body.server_reference, body.permanent);
    let to = to.map_err(|_| ApiError::invalid_server_reference())?;
    let is_everybody = matches!(&clients, Clients::Matching(all) if all.is_everybody());
    // New clients are refused before their identifiers
    // are looked at, so no pattern can select them.
    if body.refuse_connects && !is_everybody {
        return Err(ApiError::invalid_body("refuse_connects needs \"clients\":\"*\""));
    }
    Ok((Redirect::new(clients, to), body.refuse_connects))
}

fn permit(
    api: &Api,
    caller: &HttpCaller,
    mut wanted: Redirect,
    refuses_connects: bool,
) -> Result<Redirect, ApiError> {
    if refuses_connects {
        permit_drain(api, caller)?;
    }
    match &wanted.clients {
        Clients::One(client_id) => caller.permit(api, client_id, &[Action::Control])?,
        Clients::Matching(_) => wanted.caller = Some(caller.as_data()),
    }
    Ok(wanted)
}

fn permit_drain(api: &Api, caller: &HttpCaller) -> Result<(), ApiError> {
    let action = Action::Publish { topic: DRAIN_TOPIC, qos: QoS::AtMostOnce, retain: false };
    match caller.may(api, "", action) {
        true => Ok(()),
        false => Err(ApiError::forbidden_to_drain()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &str) -> Result<(Clients, bool, bool), &'static str> {
        let body = body::parse(body.as_bytes()).map_err(|error| error.code())?;
        let (wanted, refuses_connects) = parse(body).map_err(|error| error.code())?;
        Ok((wanted.clients, wanted.to.is_permanent(), refuses_connects))
    }

    #[test]
    fn a_body_names_one_client_or_a_pattern() {
        let one = Clients::One("car-*".into());
        let body = r#"{"client_id":"car-*","server_reference":"b:1883"}"#;
        assert_eq!(parsed(body), Ok((one, false, false)));
        let all = Clients::Matching(ClientPattern::new("*").unwrap());
        let body = r#"{"clients":"*","server_reference":"b","permanent":true,
            "refuse_connects":true}"#;
        assert_eq!(parsed(body), Ok((all, true, true)));
    }

    #[test]
    fn whatever_else_a_body_says_is_refused() {
        for body in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"clients":"*"}"#,
            r#"{"server_reference":"b"}"#,
            r#"{"client_id":"","server_reference":"b"}"#,
            r#"{"client_id":"a","clients":"a","server_reference":"b"}"#,
            r#"{"clients":"*","clients":"a","server_reference":"b"}"#,
            r#"{"clients":"*","server_reference":"b","forever":true}"#,
            r#"{"clients":"*","server_reference":"b","permanent":1}"#,
            r#"{"clients":"car-*","server_reference":"b","refuse_connects":true}"#,
            r#"{"client_id":"a","server_reference":"b","refuse_connects":true}"#,
            r#"{"clients":"*","server_reference":"b"} x"#,
        ] {
            assert_eq!(parsed(body), Err("invalid_body"), "{body}");
        }
        let body = format!(r#"{{"clients":"{}","server_reference":"b"}}"#, "*a".repeat(17));
        assert_eq!(parsed(&body), Err("invalid_pattern"));
        for reference in ["", "a\\u0000b", "a\\nb", &"x".repeat(1025)] {
            let body = format!(r#"{{"clients":"*","server_reference":"{reference}"}}"#);
            assert_eq!(parsed(&body), Err("invalid_server_reference"), "{body}");
        }
    }
}
