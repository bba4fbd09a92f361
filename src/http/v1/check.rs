//! `POST /api/v1/rules/check`: whether an action would be allowed, and by which rule. Needs
//! `administer`; nothing happens.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
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
    users::given,
};
use crate::{
    auth::{
        AccessRequest, Action, Attributes, ClientCertificate, Decision, Explanation, Groups,
        Identity, Login, OwnRules, RulePlace,
    },
    control::{BanSubject, UserView},
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
    /// Attributes of the identity; left out: those of its account in the store.
    #[serde(default, deserialize_with = "given")]
    attributes: Option<BTreeMap<String, String>>,
    /// Groups of the identity; left out: those of its account in the store.
    #[serde(default, deserialize_with = "given")]
    groups: Option<Vec<String>>,
    /// Rules of the identity alone, as its source gives them in a list: in the form of the policy, or in that
    /// of EMQX.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<Object>>)]
    acl: Option<serde_json::Value>,
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
    /// The source of the decision: `ban`, `account` for an account in the store that is disabled, `acl` for
    /// a rule of the identity, `file`, `stored` or `application` for another rule, `no_rule` if no rule
    /// matches, `broker` for topics where only the broker publishes, `authorizer` for that of an application.
    by: &'static str,
    /// The line of the rule in the policy file.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// The identifier of the rule in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    id: Option<Arc<str>>,
    /// The position of the rule among those of the application or of the identity, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
    /// The ban that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    ban: Option<DecidingBan>,
    /// Parts of the identity that may change the decision and are not known: they may come from outside (a
    /// token, an HTTP service, a database), and the question does not have them. `acl`, `attributes`,
    /// `groups`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_known: Vec<&'static str>,
}

/// The subject of a ban.
#[derive(Serialize, ToSchema)]
struct DecidingBan {
    /// `client_id`, `user` or `address`.
    kind: &'static str,
    /// The identifier, the name, the network, or the pattern.
    #[schema(value_type = String)]
    value: Arc<str>,
}

impl CheckAnswer {
    fn new(decision: Decision, by: &'static str) -> Self {
        let decision = match decision {
            Decision::Allow => "allow",
            Decision::Deny => "deny",
        };
        let not_known = Vec::new();
        Self { decision, by, line: None, id: None, position: None, ban: None, not_known }
    }

    fn of(Explanation { decision, rule, .. }: Explanation, has_rules: bool) -> Self {
        match rule {
            Some(RulePlace::File { line }) => {
                Self { line: Some(line), ..Self::new(decision, "file") }
            }
            Some(RulePlace::Stored { id }) => {
                Self { id: Some(id), ..Self::new(decision, "stored") }
            }
            Some(RulePlace::Identity { position }) => Self {
                position: Some(position).filter(|position| *position > 0),
                ..Self::new(decision, "acl")
            },
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
/// Bans come first, for actions of MQTT clients. Conditions on what is left out are undecided: a rule that
/// denies then matches, one that allows does not.
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
        let asked: CheckBody = body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        Ok(Answer::json(&decide(&api, &asked).await?))
    };
    answer(&api, &request, RestRoute::RulesCheck, pin!(call)).await
}

/// Returns the action that is asked about; `None` if only the broker may do it.
fn action_of(asked: &CheckBody) -> Result<Option<Action<'_>>, ApiError> {
    let topic = asked.topic.as_deref();
    let qos = QoS::from_number(asked.qos);
    let qos = qos.ok_or_else(|| ApiError::invalid_body("qos is 0, 1 or 2"))?;
    let needed = || topic.ok_or_else(|| ApiError::invalid_body("topic is missing"));
    Ok(Some(match asked.action {
        CheckedKind::Connect => Action::Connect,
        CheckedKind::Observe => Action::Observe,
        CheckedKind::Control => Action::Control,
        CheckedKind::Administer => Action::Administer,
        CheckedKind::Publish => {
            let topic = needed()?;
            validate_topic(topic).map_err(|error| ApiError::invalid_topic(&error.to_string()))?;
            // No rule is asked for such a topic, so none can be the answer.
            if is_of_the_broker(topic) {
                return Ok(None);
            }
            Action::Publish { topic, qos, retain: asked.retain }
        }
        CheckedKind::Subscribe => {
            let parts = validate_filter(needed()?);
            let filter = parts.map_err(|_| ApiError::invalid_filter())?.filter;
            Action::Subscribe { filter, qos }
        }
    }))
}

async fn decide(api: &Api, asked: &CheckBody) -> Result<CheckAnswer, ApiError> {
    let Some(action) = action_of(asked)? else {
        return Ok(CheckAnswer::new(Decision::Deny, "broker"));
    };
    // An account in the store has groups and attributes of its own, which rules may use.
    let account = account_of(api, asked).await;
    let identity = identity(asked, &account)?;
    // In the order of a login: bans, then the account, then rules.
    if let Some(ban) = ban_of(api, asked, action) {
        let ban = Some(DecidingBan { kind: ban.kind(), value: ban.value() });
        return Ok(CheckAnswer { ban, ..CheckAnswer::new(Decision::Deny, "ban") });
    }
    if matches!(&account, KnownAccount::Stored(account) if account.is_disabled) {
        return Ok(CheckAnswer::new(Decision::Deny, "account"));
    }
    let address = asked.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let request = AccessRequest {
        identity: &identity,
        client_id: &asked.client_id,
        peer: SocketAddr::new(address.to_canonical(), 0),
        listener: &asked.listener,
        action,
    };
    let authorizer = &api.0.authorizer;
    let has_rules = authorizer.stored_rules().is_some();
    let not_known = not_known(asked, &account);
    Ok(CheckAnswer { not_known, ..CheckAnswer::of(authorizer.explain(&request), has_rules) })
}

/// Returns the ban that keeps out a client; bans do not concern REST callers.
fn ban_of(api: &Api, asked: &CheckBody, action: Action<'_>) -> Option<BanSubject> {
    match action {
        Action::Connect | Action::Publish { .. } | Action::Subscribe { .. } => {}
        Action::Observe | Action::Control | Action::Administer => return None,
    }
    let users = [&asked.username, &asked.certificate_common_name];
    let users: Vec<&str> = users.into_iter().flatten().map(String::as_str).collect();
    api.0.control.deciding_ban(&asked.client_id, &users, asked.address)
}

/// The account of the user that is asked about, as far as the broker knows it.
enum KnownAccount {
    /// In the store.
    Stored(Box<UserView>),
    /// In the file, or there is no user: nothing else belongs to the identity.
    Plain,
    /// Somewhere else, or nowhere.
    Elsewhere,
}

async fn account_of(api: &Api, asked: &CheckBody) -> KnownAccount {
    let Some(name) = asked.certificate_common_name.as_ref().or(asked.username.as_ref()) else {
        return KnownAccount::Plain;
    };
    if api.0.control.is_user_of_file(name) {
        return KnownAccount::Plain;
    }
    match api.0.control.find_user(name).await {
        Ok(account) => KnownAccount::Stored(Box::new(account)),
        Err(_) if asked.certificate_common_name.is_some() => KnownAccount::Plain,
        Err(_) => KnownAccount::Elsewhere,
    }
}

/// Returns what neither the broker nor the question says about the identity.
fn not_known(asked: &CheckBody, account: &KnownAccount) -> Vec<&'static str> {
    if !matches!(account, KnownAccount::Elsewhere) {
        return Vec::new();
    }
    let parts = [
        ("acl", asked.acl.is_none()),
        ("attributes", asked.attributes.is_none()),
        ("groups", asked.groups.is_none()),
    ];
    parts.into_iter().filter_map(|(name, is_missing)| is_missing.then_some(name)).collect()
}

/// Returns the identity that is asked about.
fn identity(asked: &CheckBody, account: &KnownAccount) -> Result<Identity, ApiError> {
    let certificate = asked.certificate_common_name.as_ref().map(|common_name| {
        Arc::new(ClientCertificate {
            common_name: common_name.clone(),
            serial_number: asked.certificate_serial_number.clone(),
        })
    });
    let (of_account, groups_of_account) = match account {
        KnownAccount::Stored(account) => (account.attributes.clone(), account.groups.clone()),
        KnownAccount::Plain | KnownAccount::Elsewhere => (Attributes::default(), Groups::default()),
    };
    let attributes = asked.attributes.as_ref().map_or(Ok(of_account), |given| {
        Attributes::new(given.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    });
    let groups = asked.groups.as_ref();
    let groups =
        groups.map_or(Ok(groups_of_account), |given| Groups::new(given.iter().map(String::as_str)));
    // Rules may depend on the kind of login; the question need not name the usual one.
    let usual = if certificate.is_some() { Login::Certificate } else { Login::Password };
    Ok(Identity {
        username: asked.username.as_deref().map(Into::into),
        certificate,
        login: asked.login.unwrap_or(usual),
        groups: groups.map_err(|error| ApiError::invalid_body(&error.to_string()))?,
        attributes: attributes.map_err(|error| ApiError::invalid_body(&error.to_string()))?,
        rules: own_rules_of(asked)?,
        ..Identity::default()
    })
}

/// Returns the rules of the identity alone that the question has.
#[cfg(feature = "accounts")]
fn own_rules_of(asked: &CheckBody) -> Result<OwnRules, ApiError> {
    let Some(acl) = &asked.acl else { return Ok(OwnRules::default()) };
    if !acl.is_array() {
        return Err(ApiError::invalid_body("acl is a list of rules"));
    }
    let invalid =
        |error: crate::auth::OwnRulesError| ApiError::invalid_body(&format!("acl: {error}"));
    crate::auth::own_rules(acl).map_err(invalid)
}

#[cfg(not(feature = "accounts"))]
fn own_rules_of(asked: &CheckBody) -> Result<OwnRules, ApiError> {
    Ok(asked
        .acl
        .as_ref()
        .map_or_else(OwnRules::default, |acl| OwnRules::from_json(&acl.to_string())))
}
