//! `POST` and `DELETE /api/v1/redirect`: clients are sent to another server, and that ends.
//!
//! Whom it concerns is checked like everywhere: one client with the permission CONNECT for its
//! identifier, and of those that match a pattern the ones for which the caller has it. Refusing
//! whoever would connect concerns clients that have no name yet, and has a permission of its own.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header::CONTENT_TYPE},
    rt::time::timeout,
    web::{Data, Payload},
};
use serde::Deserialize;

use super::{Api, ApiError, admission, calls::answer};
use crate::{
    auth::{AccessRequest, Action, Decision, Identity},
    control::{ClientFilter, ClientPattern, Clients, ControlError, Redirect, Redirection},
    metrics::RestRoute,
    mqtt::QoS,
};

/// Whoever may publish to this topic may close the broker to new clients. In a policy it has to be
/// named to be allowed: neither a filter that begins with a wildcard nor a rule without topics does.
const DRAIN_TOPIC: &str = "$control/redirect";

/// Of a body: the longest client identifier and the longest reference, each byte written as the six
/// of `\u001f`, and what is around them.
const BODY_BYTES_MAX: usize = 6 * (65_535 + 1_024) + 512;

/// What a call says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// The one client that is meant.
    client_id: Option<String>,
    /// Or a pattern for those that are meant.
    clients: Option<String>,
    server_reference: String,
    /// Whether the other server is to be used from now on (0x9D), or for the time being (0x9C).
    #[serde(default)]
    permanent: bool,
    /// Whether who would connect is sent there as well, until `DELETE`.
    #[serde(default)]
    refuse_connects: bool,
}

/// `POST /api/v1/redirect`, `DELETE /api/v1/redirect`
pub(super) async fn redirect(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        if !matches!(*request.method(), Method::POST | Method::DELETE) {
            return Err(ApiError::MethodNotAllowed { allow: "POST, DELETE" });
        }
        let identity = admission::admit(&api, &request).await?;
        if request.method() == Method::DELETE {
            permit_drain(&api, &request, &identity)?;
            api.0.control.drain(None);
            return Ok(r#"{"success":true}"#.to_owned());
        }
        let body = in_time(&api, async { Ok(read(&request, payload).await) }).await??;
        let (wanted, refuses_connects) = parse(&body)?;
        let wanted = permit(&api, &request, &identity, wanted, refuses_connects)?;
        let is_one = matches!(wanted.clients, Clients::One(_));
        let control = &api.0.control;
        let redirected = if refuses_connects {
            in_time(&api, control.evacuate(wanted)).await?
        } else {
            in_time(&api, control.redirect(wanted)).await?
        };
        if is_one && redirected == 0 {
            return Err(ControlError::NotOnline.into());
        }
        Ok(format!(r#"{{"success":true,"redirected":{redirected}}}"#))
    };
    answer(&api, RestRoute::Redirect, call).await
}

/// The body, if it says that it is JSON. (A page in a browser cannot say so of a form.)
async fn read(request: &HttpRequest, payload: Payload) -> Result<Vec<u8>, ApiError> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    if !essence.trim().eq_ignore_ascii_case("application/json") {
        return Err(ApiError::InvalidBody);
    }
    let body = payload.to_bytes_limited(BODY_BYTES_MAX).await;
    body.ok().and_then(Result::ok).map(Into::into).ok_or(ApiError::InvalidBody)
}

/// What is wanted, and whether who would connect is meant as well.
fn parse(body: &[u8]) -> Result<(Redirect, bool), ApiError> {
    let body: Body = serde_json::from_slice(body).map_err(|_| ApiError::InvalidBody)?;
    let clients = match (body.client_id, body.clients) {
        (Some(client_id), None) if !client_id.is_empty() => Clients::One(client_id),
        (None, Some(pattern)) => {
            let pattern = ClientPattern::new(&pattern).map_err(|_| ApiError::InvalidPattern)?;
            Clients::Matching(pattern)
        }
        _ => return Err(ApiError::InvalidBody),
    };
    let to = Redirection::new(&body.server_reference, body.permanent);
    let to = to.map_err(|_| ApiError::InvalidServerReference)?;
    let is_everybody = matches!(&clients, Clients::Matching(all) if all.is_everybody());
    if body.refuse_connects && !is_everybody {
        return Err(ApiError::InvalidBody);
    }
    Ok((Redirect { clients, to, only: None }, body.refuse_connects))
}

fn permit(
    api: &Api,
    request: &HttpRequest,
    identity: &Identity,
    mut wanted: Redirect,
    refuses_connects: bool,
) -> Result<Redirect, ApiError> {
    if refuses_connects {
        permit_drain(api, request, identity)?;
    }
    match &wanted.clients {
        Clients::One(client_id) => admission::permit(api, request, identity, client_id)?,
        Clients::Matching(_) => {
            let (authorizer, identity) = (api.0.authorizer.clone(), identity.clone());
            let peer = admission::peer(request);
            let listener: Arc<str> = admission::listener(request).into();
            wanted.only = Some(ClientFilter(Arc::new(move |client_id| {
                let action = Action::Connect;
                let (identity, listener) = (&identity, &*listener);
                let access = AccessRequest { identity, client_id, peer, listener, action };
                authorizer.authorize(&access) == Decision::Allow
            })));
        }
    }
    Ok(wanted)
}

fn permit_drain(api: &Api, request: &HttpRequest, identity: &Identity) -> Result<(), ApiError> {
    let access = AccessRequest {
        identity,
        client_id: "",
        peer: admission::peer(request),
        listener: admission::listener(request),
        action: Action::Publish { topic: DRAIN_TOPIC, qos: QoS::AtMostOnce, retain: false },
    };
    match api.0.authorizer.authorize(&access) {
        Decision::Allow => Ok(()),
        Decision::Deny => Err(ApiError::ForbiddenToDrain),
    }
}

/// Waits for the broker, but not for ever.
async fn in_time<T>(
    api: &Api,
    reply: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ApiError> {
    match timeout(api.0.call_timeout, reply).await {
        Ok(reply) => Ok(reply?),
        Err(_) => Err(ApiError::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &str) -> Result<(Clients, bool, bool), &'static str> {
        let (wanted, refuses_connects) = parse(body.as_bytes()).map_err(ApiError::code)?;
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
