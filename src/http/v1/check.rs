//! `POST /api/v1/rules/check`: whether an action would be allowed, and by which rule. Needs
//! `administer`; nothing happens.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::CallEffect,
        calls::{Answer, answer},
        failures::{Administration, Caller, Change, Fails, JsonBody, Parameters},
    },
    body, resource,
    rules::administrator,
    target::Query,
};
use crate::{
    auth::{
        AccessRequest, Action, Attributes, ClientCertificate, Decision, Explanation, Groups,
        Identity, Login, RulePlace,
    },
    metrics::RestRoute,
    mqtt::{QoS, is_of_the_broker, validate_filter, validate_topic},
};

/// Maximum bytes of a question: two of the longest texts of MQTT, and attributes.
const BODY_BYTES_MAX: usize = 256 * 1024;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/rules/check", "POST").route(web::post().to(check)));
}

/// An action of a client or caller.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CheckedAction)]
struct CheckBody {
    /// The user name; left out: a client without one.
    username: Option<String>,
    /// The Client Identifier; for REST calls that of the target.
    #[serde(default)]
    client_id: String,
    /// The IP address; left out: not known, and conditions on it are undecided.
    #[schema(value_type = Option<String>)]
    address: Option<IpAddr>,
    /// The URL of the listener; left out: not known.
    #[serde(default)]
    listener: String,
    /// `password` (default), `certificate`, `scram`, `anonymous` or `other`.
    #[schema(value_type = Option<String>, pattern = "^(password|certificate|scram|anonymous|other)$")]
    login: Option<Login>,
    /// The Common Name of the client certificate; left out: there is none.
    certificate_common_name: Option<String>,
    /// The serial number of the client certificate, in lower-case hexadecimal.
    #[serde(default)]
    certificate_serial_number: String,
    /// Attributes of the identity.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    /// Groups of the identity.
    #[serde(default)]
    groups: Vec<String>,
    /// `connect`, `publish`, `subscribe`, `observe`, `control` or `administer`.
    action: CheckedKind,
    /// The Topic Name, or the Topic Filter of a subscription.
    topic: Option<String>,
    /// The QoS.
    #[serde(default)]
    #[schema(maximum = 2)]
    qos: u8,
    /// The RETAIN flag.
    #[serde(default)]
    retain: bool,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum CheckedKind {
    Connect,
    Publish,
    Subscribe,
    Observe,
    Control,
    Administer,
}

/// The decision about an action.
#[derive(Serialize, ToSchema)]
#[schema(as = CheckedDecision)]
struct CheckAnswer {
    /// `allow` or `deny`.
    #[schema(pattern = "^(allow|deny)$")]
    decision: &'static str,
    /// What decides: `file`, `stored` or `application` for a rule, `no_rule` if none matches, `broker`
    /// for topics where only the broker publishes, `authorizer` for that of an application.
    by: &'static str,
    /// The line of the rule in the policy file.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// The identifier of the rule in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    id: Option<Arc<str>>,
    /// The position of the rule among those of the application, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
}

impl CheckAnswer {
    fn new(decision: Decision, by: &'static str) -> Self {
        let decision = match decision {
            Decision::Allow => "allow",
            Decision::Deny => "deny",
        };
        Self { decision, by, line: None, id: None, position: None }
    }

    fn of(Explanation { decision, rule, .. }: Explanation, has_rules: bool) -> Self {
        match rule {
            Some(RulePlace::File { line }) => {
                Self { line: Some(line), ..Self::new(decision, "file") }
            }
            Some(RulePlace::Stored { id }) => {
                Self { id: Some(id), ..Self::new(decision, "stored") }
            }
            Some(RulePlace::Application { position }) => {
                Self { position: Some(position), ..Self::new(decision, "application") }
            }
            None if has_rules => Self::new(decision, "no_rule"),
            None => Self::new(decision, "authorizer"),
        }
    }
}

/// Says whether an action would be allowed, and by which rule.
///
/// Conditions on what is left out are undecided: a rule that denies then matches, one that allows does
/// not.
#[utoipa::path(
    post, path = "/rules/check", tag = "access", operation_id = "checkRules",
    request_body(content = CheckBody, description = "The action.", example = json!(
        {"username": "fleet", "client_id": "car-17", "address": "192.0.2.7", "action": "publish",
         "topic": "cars/17/state", "qos": 1})),
    responses(
        (status = 200, description = "The decision, and the rule that makes it.", body = CheckAnswer,
         example = json!({"decision": "allow", "by": "file", "line": 12})),
        Fails<(Caller, Change, Administration, Parameters, JsonBody)>,
    ),
)]
pub(super) async fn check(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        administrator(&api, &request, CallEffect::Changes).await?;
        Query::parse(request.query_string(), &[])?;
        let asked: body::JsonObject<CheckBody> =
            body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        Ok(Answer::json(&decide(&api, &asked.0)?))
    };
    answer(&api, &request, RestRoute::RulesCheck, call).await
}

fn decide(api: &Api, asked: &CheckBody) -> Result<CheckAnswer, ApiError> {
    let topic = asked.topic.as_deref();
    let qos = QoS::from_number(asked.qos);
    let qos = qos.ok_or_else(|| ApiError::invalid_body("qos is 0, 1 or 2"))?;
    let needed = || topic.ok_or_else(|| ApiError::invalid_body("topic is missing"));
    let action = match asked.action {
        CheckedKind::Connect => Action::Connect,
        CheckedKind::Observe => Action::Observe,
        CheckedKind::Control => Action::Control,
        CheckedKind::Administer => Action::Administer,
        CheckedKind::Publish => {
            let topic = needed()?;
            validate_topic(topic).map_err(|error| ApiError::invalid_topic(&error.to_string()))?;
            if is_of_the_broker(topic) {
                return Ok(CheckAnswer::new(Decision::Deny, "broker"));
            }
            Action::Publish { topic, qos, retain: asked.retain }
        }
        CheckedKind::Subscribe => {
            let parts = validate_filter(needed()?);
            let filter = parts.map_err(|_| ApiError::invalid_filter())?.filter;
            Action::Subscribe { filter, qos }
        }
    };
    let identity = identity(asked)?;
    let address = asked.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let request = AccessRequest {
        identity: &identity,
        client_id: &asked.client_id,
        peer: SocketAddr::new(address.to_canonical(), 0),
        listener: &asked.listener,
        action,
    };
    let authorizer = &api.0.authorizer;
    Ok(CheckAnswer::of(authorizer.explain(&request), authorizer.stored_rules().is_some()))
}

/// Returns the identity that is asked about.
fn identity(asked: &CheckBody) -> Result<Identity, ApiError> {
    let certificate = asked.certificate_common_name.as_ref().map(|common_name| {
        Arc::new(ClientCertificate {
            common_name: common_name.clone(),
            serial_number: asked.certificate_serial_number.clone(),
        })
    });
    let attributes = Attributes::new(
        asked.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())),
    );
    let groups = Groups::new(asked.groups.iter().map(String::as_str));
    let usual = if certificate.is_some() { Login::Certificate } else { Login::Password };
    Ok(Identity {
        username: asked.username.as_deref().map(Into::into),
        certificate,
        login: asked.login.unwrap_or(usual),
        groups: groups.map_err(|error| ApiError::invalid_body(&error.to_string()))?,
        attributes: attributes.map_err(|error| ApiError::invalid_body(&error.to_string()))?,
        ..Identity::default()
    })
}
