//! `/api/v1/rules`: the rules in the store. Needs `administer`.

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    rt::time::timeout,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{
            Administration, Caller, Change, Fails, JsonBody, NoRule, Parameters, Precondition,
            RuleForm, StoredThings,
        },
    },
    LIST_TIMEOUTS, body,
    etag::{self, ETAG, Preconditions},
    page::{AskedPage, PageAnswer, PageParameters},
    resource,
    target::{Query, name_in},
};
use crate::{
    auth::Action,
    control::{AccessChanged, AccessError, ControlError, PutRule, RemoveRule, StoredRule},
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

/// Maximum bytes of a rule.
const RULE_BYTES_MAX: usize = 16 * 1024;

pub(super) fn routes(config: &mut ServiceConfig) {
    let all = resource("/rules", "GET, HEAD, POST")
        .route(web::get().to(list))
        .route(web::head().to(list))
        .route(web::post().to(create));
    let one = resource("/rules/{id}", "GET, HEAD, PUT, DELETE")
        .route(web::get().to(show))
        .route(web::head().to(show))
        .route(web::put().to(replace))
        .route(web::delete().to(remove));
    config.service(all).service(one);
}

/// A rule in the store.
#[derive(Serialize, ToSchema)]
#[schema(as = StoredRule)]
pub(super) struct RuleAnswer {
    /// Its identifier.
    #[schema(value_type = String)]
    id: Arc<str>,
    /// The rule, with the fields that it has in the policy file.
    #[schema(value_type = DescribedRule)]
    rule: Box<RawValue>,
    /// Its priority; rules with a smaller one are evaluated first.
    priority: i64,
    /// The user name of the caller that has written it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    by: Option<Arc<str>>,
    /// When it was written, in milliseconds since the Unix epoch.
    set_at: u64,
    /// Its revision, which is its `ETag` in quotes.
    revision: u64,
}

impl TryFrom<StoredRule> for RuleAnswer {
    type Error = ApiError;

    fn try_from(found: StoredRule) -> Result<Self, ApiError> {
        let rule = RawValue::from_string(found.json.to_string());
        let rule = rule.map_err(|_| ApiError::unavailable())?;
        let StoredRule { id, priority, by, set_at_millis: set_at, revision, .. } = found;
        Ok(Self { id, rule, priority, by, set_at, revision })
    }
}

/// A rule, as in the policy file; `docs/permissions.md` describes it.
#[derive(ToSchema)]
#[schema(as = PolicyRule)]
#[expect(dead_code, reason = "only described here; the policy reads the fields")]
pub(super) struct DescribedRule {
    /// Rules with a smaller one are evaluated first; 1000 if left out.
    priority: Option<i64>,
    /// The decision if all conditions hold.
    #[schema(pattern = "^(allow|deny)$")]
    effect: String,
    /// The actions that the rule decides about; left out: all but `administer`.
    #[schema(min_items = 1)]
    actions: Option<Vec<String>>,
    /// Patterns for Client Identifiers.
    #[schema(min_items = 1)]
    clients: Option<Vec<String>>,
    /// Patterns for user names.
    #[schema(min_items = 1)]
    users: Option<Vec<String>>,
    /// Patterns for groups of users.
    #[schema(min_items = 1)]
    groups: Option<Vec<String>>,
    /// Networks.
    #[schema(min_items = 1)]
    addresses: Option<Vec<String>>,
    /// Patterns for URLs of listeners.
    #[schema(min_items = 1)]
    listeners: Option<Vec<String>>,
    /// How the client has logged in.
    #[schema(min_items = 1)]
    login: Option<Vec<String>>,
    /// Topic Filters.
    #[schema(min_items = 1)]
    topics: Option<Vec<String>>,
    /// Values of QoS.
    #[schema(min_items = 1)]
    qos: Option<Vec<u8>>,
    /// The RETAIN flag.
    retain: Option<bool>,
}

/// The rule in the path of a call.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only described here")]
struct RuleInPath {
    /// The identifier of the rule: 1 to 64 letters, digits, and characters of `-`, `_`, `.`.
    #[param(example = "fleet-1")]
    id: String,
}

/// A rule that was written or removed.
#[derive(Serialize, ToSchema)]
struct RuleDone {
    /// Always `true`.
    success: bool,
    /// The identifier of the rule.
    #[schema(value_type = String)]
    id: Arc<str>,
    /// The revision of the rule; absent if it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    /// The number of sessions that were disconnected, lost a subscription or were ended by the change.
    sessions_touched: u64,
}

/// Admits a caller that administers the broker.
pub(super) async fn administrator(
    api: &Api,
    request: &HttpRequest,
    effect: CallEffect,
) -> Result<HttpCaller, ApiError> {
    let caller = admission::admit(api, request, effect).await?;
    match caller.may(api, "", Action::Administer) {
        true => Ok(caller),
        false => Err(ApiError::forbidden_to_administer()),
    }
}

/// Lists the rules in the store, in the order in which they are evaluated.
#[utoipa::path(
    get, path = "/rules", tag = "access", operation_id = "listRules", params(PageParameters),
    responses(
        (status = 200, description = "A page of rules.", body = PageAnswer<RuleAnswer>,
         example = json!({"items": [{"id": "fleet-1", "rule": {"effect": "deny", "users": ["fleet"]},
            "priority": 1000, "by": "admin", "set_at": 1_764_321_000_000_u64, "revision": 7}]})),
        Fails<(Caller, Administration, Parameters)>,
    ),
)]
pub(super) async fn list(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Looks).await?;
        let page = AskedPage::of(&Query::parse(request.query_string(), &["limit", "cursor"])?)?;
        let after = page.place(place_of)?;
        let text = page.begin(&api, &caller)?;
        let mut rules = api.0.control.list_rules().await.map_err(rule_error)?;
        // The cursor has priority and identifier, the order in which rules are evaluated.
        rules.retain(|rule| {
            after.as_ref().is_none_or(|(priority, id)| (rule.priority, &*rule.id) > (*priority, id))
        });
        let has_more = page.cut(&mut rules);
        let key = |rule: &StoredRule| format!("{}/{}", rule.priority, rule.id);
        text.answer(rules, has_more, key, RuleAnswer::try_from)
    };
    answer(&api, &request, RestRoute::Rules, pin!(call)).await
}

/// Returns priority and identifier of the rule behind which a list goes on.
fn place_of(key: &str) -> Option<(i64, Box<str>)> {
    let (priority, id) = key.split_once('/')?;
    Some((priority.parse().ok()?, id.into()))
}

/// Adds a rule; the broker chooses its identifier.
///
/// The rule holds for all clients when the answer comes: live sessions lose what it denies.
#[utoipa::path(
    post, path = "/rules", tag = "access", operation_id = "createRule",
    request_body(content = DescribedRule, description = "The rule.",
        example = json!({"effect": "deny", "actions": ["publish"], "users": ["guest-*"]})),
    responses(
        (status = 200, description = "The rule holds.", body = RuleDone, example = json!(
            {"success": true, "id": "3f2a9c0d51e7b846", "revision": 7, "sessions_touched": 2})),
        Fails<(Caller, Change, Administration, Parameters, JsonBody, RuleForm, StoredThings)>,
    ),
)]
pub(super) async fn create(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        put(&api, &request, payload, &caller, None).await
    };
    answer(&api, &request, RestRoute::Rules, pin!(call)).await
}

/// Adds or replaces a rule.
///
/// It holds for all clients when the answer comes: live sessions lose what it denies.
#[utoipa::path(
    put, path = "/rules/{id}", tag = "access", operation_id = "putRule",
    params(RuleInPath, Preconditions),
    request_body(content = DescribedRule, description = "The rule.",
        example = json!({"effect": "deny", "actions": ["publish"], "users": ["guest-*"]})),
    responses(
        (status = 200, description = "The rule holds.", body = RuleDone, example = json!(
            {"success": true, "id": "fleet-1", "revision": 7, "sessions_touched": 2})),
        Fails<(Caller, Change, Administration, Parameters, JsonBody, RuleForm, StoredThings, Precondition)>,
    ),
)]
pub(super) async fn replace(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        let invalid = || ApiError::invalid_rule("its id must be UTF-8, percent-encoded");
        let id = name_in(&request, "id", invalid)?;
        put(&api, &request, payload, &caller, Some(&id)).await
    };
    answer(&api, &request, RestRoute::Rule, pin!(call)).await
}

async fn put(
    api: &Api,
    request: &HttpRequest,
    payload: Payload,
    caller: &HttpCaller,
    id: Option<&str>,
) -> Result<Answer, ApiError> {
    let expected = etag::expected(request)?;
    let read = body::read_json(api, request, payload, RULE_BYTES_MAX).await?;
    // Parsed and written again: the store has one form of JSON, without spaces.
    let rule: Value = body::parse_any(&read.bytes)?;
    let mut wanted = PutRule::new(rule.to_string());
    wanted.id = id.map(Into::into);
    wanted.by.clone_from(&caller.identity.username);
    wanted.expected = expected;
    let changed = in_time_of_change(api, api.0.control.put_rule(wanted)).await;
    done(api, caller, changed.map_err(rule_error)?)
}

/// Removes a rule.
#[utoipa::path(
    delete, path = "/rules/{id}", tag = "access", operation_id = "removeRule",
    params(RuleInPath, Preconditions),
    responses(
        (status = 200, description = "The rule is removed.", body = RuleDone, example = json!(
            {"success": true, "id": "fleet-1", "sessions_touched": 0})),
        Fails<(Caller, Change, Administration, Parameters, RuleForm, StoredThings, NoRule, Precondition)>,
    ),
)]
pub(super) async fn remove(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        let mut wanted = RemoveRule::new(&*name_in(&request, "id", ApiError::rule_not_found)?);
        wanted.expected = etag::expected(&request)?;
        let changed = in_time_of_change(&api, api.0.control.remove_rule(wanted)).await;
        done(&api, &caller, changed.map_err(rule_error)?)
    };
    answer(&api, &request, RestRoute::Rule, pin!(call)).await
}

/// Shows a rule in the store.
#[utoipa::path(
    get, path = "/rules/{id}", tag = "access", operation_id = "showRule", params(RuleInPath),
    responses(
        (status = 200, description = "The rule. Its revision is the `ETag`.", body = RuleAnswer,
         example = json!({"id": "fleet-1", "rule": {"effect": "deny", "users": ["fleet"]},
            "priority": 1000, "by": "admin", "set_at": 1_764_321_000_000_u64, "revision": 7})),
        Fails<(Caller, Administration, Parameters, NoRule)>,
    ),
)]
pub(super) async fn show(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        administrator(&api, &request, CallEffect::Looks).await?;
        Query::of(&request, &[])?;
        let rules = api.0.control.list_rules().await.map_err(rule_error)?;
        let id = name_in(&request, "id", ApiError::rule_not_found)?;
        let found = rules.into_iter().find(|rule| *rule.id == *id);
        let found = found.ok_or_else(ApiError::rule_not_found)?;
        let tag = etag::of(found.revision);
        Ok(Answer::json(&RuleAnswer::try_from(found)?).with_header(ETAG, &tag))
    };
    answer(&api, &request, RestRoute::Rule, pin!(call)).await
}

/// Logs a change of a rule and answers it.
fn done(
    api: &Api,
    caller: &HttpCaller,
    changed: AccessChanged<StoredRule>,
) -> Result<Answer, ApiError> {
    let AccessChanged { old, new, sessions_touched, .. } = changed;
    let one = new.as_ref().or(old.as_ref()).ok_or_else(ApiError::unavailable)?;
    let (id, revision) = (Arc::clone(&one.id), new.as_ref().map(|rule| rule.revision));
    let json = |rule: &Option<StoredRule>| rule.as_ref().map(|rule| Arc::clone(&rule.json));
    let (old, new) = (json(&old), json(&new));
    let new = new.as_deref().or(Some("none"));
    let what =
        Changed { call: "rule", target: Some(ChangedObject::Rule(&id)), old: old.as_deref(), new };
    caller.tell_changed(api, what);
    let answer = Answer::json(&RuleDone { success: true, id, revision, sessions_touched });
    Ok(match revision {
        Some(revision) => answer.with_header(ETAG, &etag::of(revision)),
        None => answer,
    })
}

fn rule_error(error: AccessError) -> ApiError {
    ApiError::of_access(error, ApiError::rule_not_found, ApiError::invalid_rule)
}

/// Waits for a change and the walk along all sessions that follows.
pub(super) async fn in_time_of_change<T>(
    api: &Api,
    reply: impl Future<Output = Result<T, AccessError>>,
) -> Result<T, AccessError> {
    let time = LIST_TIMEOUTS * api.options().call_timeout;
    timeout(time, reply).await.unwrap_or_else(|_| Err(ControlError::Timeout.into()))
}
