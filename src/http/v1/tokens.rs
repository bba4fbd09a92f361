//! `/api/v1/tokens`: credentials of services that call this interface. Needs `administer`.

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Api, ApiError,
        admission::CallEffect,
        calls::{Answer, answer},
        failures::{
            Administration, Caller, Change, Fails, JsonBody, NoToken, Parameters, StoredThings,
            TokenForm, Ttl,
        },
    },
    Done, body,
    page::{AskedPage, PageAnswer, PageParameters},
    resource,
    rules::{DescribedRule, administrator, in_time_of_change},
    target::{Query, name_in},
};
use crate::{
    control::{AccessError, ApiToken, CreateToken},
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

/// Maximum bytes of a token that is made: its rules, and some space between them.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest time until a token expires, in seconds: ten years.
const TTL_SECS_MAX: u32 = 315_360_000;

pub(super) fn routes(config: &mut ServiceConfig) {
    let all = resource("/tokens", "GET, HEAD, POST")
        .route(web::get().to(list))
        .route(web::head().to(list))
        .route(web::post().to(create));
    let one = resource("/tokens/{name}", "GET, HEAD, DELETE")
        .route(web::get().to(show))
        .route(web::head().to(show))
        .route(web::delete().to(remove));
    config.service(all).service(one);
}

/// A token to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// Its name: 1 to 64 letters, digits, and characters of `-`, `_`, `.`.
    name: String,
    /// Rules for its callers, as in the policy. The broker denies everything that no rule allows.
    #[schema(value_type = Vec<DescribedRule>, max_items = 63)]
    rules: Box<RawValue>,
    /// After this number of seconds it expires; left out: never.
    #[schema(minimum = 1, maximum = 315_360_000)]
    ttl_seconds: Option<u32>,
}

/// A token, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiToken)]
struct TokenAnswer {
    /// Its name; the user name of its callers is `token:NAME`.
    #[schema(value_type = String)]
    name: Arc<str>,
    /// Rules for its callers, as in the policy.
    #[schema(value_type = Vec<DescribedRule>)]
    rules: Box<RawValue>,
    /// The user name of the caller that has made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    by: Option<Arc<str>>,
    /// When it was made, in milliseconds since the Unix epoch.
    created_at: u64,
    /// When it expires, in milliseconds since the Unix epoch; absent if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    /// When it was used last, to ten minutes, in milliseconds since the Unix epoch; absent if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<u64>,
}

impl TryFrom<ApiToken> for TokenAnswer {
    type Error = ApiError;

    fn try_from(token: ApiToken) -> Result<Self, ApiError> {
        let rules = RawValue::from_string(token.rules.to_string());
        Ok(Self {
            name: token.name,
            rules: rules.map_err(|_| ApiError::unavailable())?,
            by: token.by,
            created_at: token.created_at_millis,
            expires_at: token.expires_at_millis,
            last_used_at: token.last_used_millis,
        })
    }
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
struct TokenMade {
    /// Always `true`.
    success: bool,
    /// Its name.
    #[schema(value_type = String)]
    name: Arc<str>,
    /// The secret, for `Authorization: Bearer`. It is shown once, and cannot be seen again.
    token: String,
    /// When it expires, in milliseconds since the Unix epoch; absent if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

/// The token in the path of a call.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only described here")]
struct TokenInPath {
    /// The name of the token.
    #[param(example = "ci")]
    name: String,
}

/// Lists the tokens, in the order of their names.
#[utoipa::path(
    get, path = "/tokens", tag = "access", operation_id = "listTokens", params(PageParameters),
    responses(
        (status = 200, description = "A page of tokens.", body = PageAnswer<TokenAnswer>,
         example = json!({"items": [{"name": "ci", "rules": [{"effect": "allow", "actions": ["observe"]}],
            "by": "admin", "created_at": 1_764_321_000_000_u64}]})),
        Fails<(Caller, Administration, Parameters, StoredThings)>,
    ),
)]
pub(super) async fn list(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Looks).await?;
        let page = AskedPage::of(&Query::parse(request.query_string(), &["limit", "cursor"])?)?;
        let text = page.begin(&api, &caller)?;
        let mut tokens = api.0.control.list_tokens().await.map_err(token_error)?;
        tokens.retain(|token| page.after.as_ref().is_none_or(|after| token.name > *after));
        let has_more = page.cut(&mut tokens);
        text.answer(tokens, has_more, |token| token.name.to_string(), TokenAnswer::try_from)
    };
    answer(&api, &request, RestRoute::Tokens, pin!(call)).await
}

/// Makes a token. Its secret is in this answer alone.
#[utoipa::path(
    post, path = "/tokens", tag = "access", operation_id = "createToken",
    request_body(content = NewToken, description = "The token.", example = json!(
        {"name": "ci", "rules": [{"effect": "allow", "actions": ["observe"]}], "ttl_seconds": 2_592_000})),
    responses(
        (status = 200, description = "The token, with its secret.", body = TokenMade, example = json!(
            {"success": true, "name": "ci", "token": "hmq_t_kQ3vJm0cT1yXn6bWz8sLd2fGh4uPa5eRo7iVt9xYw0A"})),
        Fails<(Caller, Change, Administration, Parameters, JsonBody, TokenForm, StoredThings, Ttl)>,
    ),
)]
pub(super) async fn create(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        let NewToken { name, rules, ttl_seconds } =
            body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        if ttl_seconds.is_some_and(|secs| !(1..=TTL_SECS_MAX).contains(&secs)) {
            return Err(ApiError::invalid_ttl(1..=TTL_SECS_MAX));
        }
        let mut token = CreateToken::new(&*name, rules.get());
        token.ttl_secs = ttl_seconds;
        token.by.clone_from(&caller.identity.username);
        let made = in_time_of_change(&api, api.0.control.create_token(token)).await;
        let made = made.map_err(token_error)?;
        let (target, new) =
            (Some(ChangedObject::Token(&made.token.name)), Some(&*made.token.rules));
        caller.tell_changed(&api, Changed { call: "token", target, old: None, new });
        Ok(Answer::json(&TokenMade {
            success: true,
            name: made.token.name,
            token: made.secret,
            expires_at: made.token.expires_at_millis,
        }))
    };
    answer(&api, &request, RestRoute::Tokens, pin!(call)).await
}

/// Shows a token, without its secret.
#[utoipa::path(
    get, path = "/tokens/{name}", tag = "access", operation_id = "showToken", params(TokenInPath),
    responses(
        (status = 200, description = "The token.", body = TokenAnswer, example = json!(
            {"name": "ci", "rules": [{"effect": "allow", "actions": ["observe"]}], "by": "admin",
             "created_at": 1_764_321_000_000_u64, "last_used_at": 1_764_321_600_000_u64})),
        Fails<(Caller, Administration, Parameters, NoToken, StoredThings)>,
    ),
)]
pub(super) async fn show(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        administrator(&api, &request, CallEffect::Looks).await?;
        Query::of(&request, &[])?;
        let tokens = api.0.control.list_tokens().await.map_err(token_error)?;
        let name = name_of_call(&request)?;
        let found = tokens.into_iter().find(|token| *token.name == *name);
        Ok(Answer::json(&TokenAnswer::try_from(found.ok_or_else(ApiError::token_not_found)?)?))
    };
    answer(&api, &request, RestRoute::Token, pin!(call)).await
}

/// Removes a token: calls with it are refused from then on.
#[utoipa::path(
    delete, path = "/tokens/{name}", tag = "access", operation_id = "removeToken",
    params(TokenInPath),
    responses(
        (status = 200, description = "The token is removed.", body = Done,
         example = json!({"success": true})),
        Fails<(Caller, Change, Administration, Parameters, TokenForm, NoToken, StoredThings)>,
    ),
)]
pub(super) async fn remove(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        let name = name_of_call(&request)?;
        let removed = in_time_of_change(&api, api.0.control.remove_token(&name)).await;
        let removed = removed.map_err(token_error)?;
        let old = removed.old.as_ref().map(|token| &*token.rules);
        let (target, new) = (Some(ChangedObject::Token(&name)), Some("none"));
        caller.tell_changed(&api, Changed { call: "token", target, old, new });
        Ok(Answer::json(&Done::NOW))
    };
    answer(&api, &request, RestRoute::Token, pin!(call)).await
}

/// Returns the name of the token that a call is about. No token has a name that is not UTF-8.
fn name_of_call(request: &HttpRequest) -> Result<String, ApiError> {
    name_in(request, "name", ApiError::token_not_found)
}

fn token_error(error: AccessError) -> ApiError {
    if error == AccessError::Conflict {
        return ApiError::token_exists();
    }
    ApiError::of_access(error, ApiError::token_not_found, ApiError::invalid_token)
}
