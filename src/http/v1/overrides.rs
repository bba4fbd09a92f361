//! `/api/v1/keep-alive/overrides`: the sticky Keep Alives. Each is looked at with `observe` and
//! removed with `control` for its client; a list has those that the caller may observe.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use tokio::{task::yield_now, time::Instant};
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{Caller, Change, ClientId, Fails, NoOverride, Parameters, Permission},
    },
    Done, LIST_TIMEOUTS,
    contents::PageAnswer,
    in_time, resource,
    target::{ClientInPath, Query, client_id_in_path},
};
use crate::{
    auth::Action,
    control::{KeepAliveOverride, ListOverrides, QueryOverride, RemoveOverride},
    metrics::RestRoute,
    told::Changed,
};

/// The number of items of a page without `limit`.
const LIMIT_DEFAULT: u64 = 100;

pub(super) fn routes(config: &mut ServiceConfig) {
    let all = resource("/keep-alive/overrides", "GET, HEAD").route(web::get().to(list));
    let one = resource("/keep-alive/overrides/{id}", "GET, HEAD, DELETE")
        .route(web::get().to(find))
        .route(web::head().to(find))
        .route(web::delete().to(remove));
    config.service(all.route(web::head().to(list))).service(one);
}

/// A sticky Keep Alive.
#[derive(Serialize, ToSchema)]
#[schema(as = KeepAliveOverride)]
struct OverrideAnswer {
    /// The client.
    client_id: String,
    /// The Keep Alive in seconds.
    interval: u16,
    /// The user name of the caller that set it.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// When it was set, in milliseconds since the Unix epoch.
    set_at: u64,
    /// When it ends by itself, in milliseconds since the Unix epoch; absent if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

impl From<KeepAliveOverride> for OverrideAnswer {
    fn from(found: KeepAliveOverride) -> Self {
        Self {
            client_id: found.client_id,
            interval: found.interval_secs,
            by: found.by.as_deref().map(str::to_owned),
            set_at: found.set_at.millis(),
            expires_at: found.expires_at.map(|at| at.millis()),
        }
    }
}

/// Shows the sticky Keep Alive of a client.
#[utoipa::path(
    get, path = "/keep-alive/overrides/{client_id}", tag = "keep-alive",
    operation_id = "showOverride", params(ClientInPath),
    responses(
        (status = 200, description = "The sticky value.", body = OverrideAnswer, example = json!(
            {"client_id": "car-17", "interval": 300, "by": "admin", "set_at": 1_764_321_000_000_u64})),
        Fails<(Caller, Permission, Parameters, ClientId, NoOverride)>,
    ),
)]
pub(super) async fn find(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let client_id = client_id_in_path(&request)?;
        Query::parse(request.query_string(), &[])?;
        caller.permit(&api, &client_id, &[Action::Observe])?;
        let found = in_time(&api, api.0.control.query_override(QueryOverride::new(client_id)));
        let found = found.await?.ok_or_else(ApiError::override_not_found)?;
        Ok(Answer::json(&OverrideAnswer::from(found)))
    };
    answer(&api, &request, RestRoute::Override, call).await
}

/// Removes the sticky Keep Alive of a client.
///
/// A live connection that follows it returns to the Keep Alive that its client knows.
#[utoipa::path(
    delete, path = "/keep-alive/overrides/{client_id}", tag = "keep-alive",
    operation_id = "removeOverride", params(ClientInPath),
    responses(
        (status = 200, description = "The value is removed.", body = Done,
         example = json!({"success": true})),
        Fails<(Caller, Change, Permission, Parameters, ClientId, NoOverride)>,
    ),
)]
pub(super) async fn remove(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let client_id = client_id_in_path(&request)?;
        Query::parse(request.query_string(), &[])?;
        caller.permit(&api, &client_id, &[Action::Control])?;
        let mut wanted = RemoveOverride::new(&*client_id);
        wanted.by.clone_from(&caller.identity.username);
        if !in_time(&api, api.0.control.remove_override(wanted)).await? {
            return Err(ApiError::override_not_found());
        }
        let (call, target, new) = ("keep-alive override", Some(&*client_id), Some("none"));
        caller.tell_changed(&api, Changed { call, target, old: None, new });
        Ok(Answer::json(&Done::NOW))
    };
    answer(&api, &request, RestRoute::Override, call).await
}

/// Lists sticky Keep Alives, in the order of the Client Identifiers.
#[utoipa::path(
    get, path = "/keep-alive/overrides", tag = "keep-alive", operation_id = "listOverrides",
    params(
        ("limit" = Option<u64>, Query, description = "Maximum number of items of the page.",
         minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "The `next` of the page before."),
    ),
    responses(
        (status = 200, description = "A page of sticky values.", body = PageAnswer<OverrideAnswer>,
         example = json!({"items": [
            {"client_id": "car-17", "interval": 300, "set_at": 1_764_321_000_000_u64}]})),
        Fails<(Caller, Parameters)>,
    ),
)]
pub(super) async fn list(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let query = Query::parse(request.query_string(), &["limit", "cursor"])?;
        let limit = query.number("limit", 1..=ListOverrides::LIMIT_MAX as u64)?;
        let limit = limit.unwrap_or(LIMIT_DEFAULT) as usize;
        let after = query.value("cursor", "must be the next of an earlier answer", |cursor| {
            String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
        })?;
        Ok(Answer::json(&page(&api, &caller, after, limit).await?))
    };
    answer(&api, &request, RestRoute::Overrides, call).await
}

/// Returns the next overrides that the caller may observe. It has a cursor if and only if more follow.
async fn page(
    api: &Api,
    caller: &HttpCaller,
    mut after: Option<String>,
    limit: usize,
) -> Result<PageAnswer<OverrideAnswer>, ApiError> {
    let by = Instant::now() + LIST_TIMEOUTS * api.options().call_timeout;
    let mut items: Vec<OverrideAnswer> = Vec::new();
    loop {
        let mut question = ListOverrides::new(ListOverrides::LIMIT_MAX.min(4 * limit));
        let asked = question.limit;
        question.after = after.clone();
        let found = in_time(api, api.0.control.list_overrides(question)).await?;
        let is_last = found.len() < asked;
        for found in found {
            if caller.may(api, &found.client_id, Action::Observe) {
                if items.len() == limit {
                    let last = items.last().map(|last| URL_SAFE_NO_PAD.encode(&last.client_id));
                    return Ok(PageAnswer { items, next: last });
                }
                after = Some(found.client_id.clone());
                items.push(found.into());
            } else {
                after = Some(found.client_id);
            }
        }
        if is_last {
            return Ok(PageAnswer { items, next: None });
        }
        if Instant::now() >= by {
            return Err(ApiError::timeout());
        }
        yield_now().await; // other calls of this worker
    }
}
