//! `/api/v1/keep-alive/overrides`: the sticky Keep Alives. Each is looked at with `observe` and
//! removed with `control` for its client; a list has those that the caller may observe.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::json;
use tokio::{task::yield_now, time::Instant};

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
    },
    in_time, resource,
    target::{Query, client_id_in_path},
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

/// An override in an answer.
#[derive(Serialize)]
struct OverrideAnswer {
    client_id: String,
    /// In seconds.
    interval: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// In milliseconds since the Unix epoch.
    set_at: u64,
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

/// A page of overrides.
#[derive(Serialize)]
struct OverridePage {
    items: Vec<OverrideAnswer>,
    /// The cursor of the next page; absent if this is the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

async fn find(request: HttpRequest, api: Data<Api>) -> HttpResponse {
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

async fn remove(request: HttpRequest, api: Data<Api>) -> HttpResponse {
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
        Ok(Answer::json(&json!({ "success": true })))
    };
    answer(&api, &request, RestRoute::Override, call).await
}

async fn list(request: HttpRequest, api: Data<Api>) -> HttpResponse {
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

/// Returns the next overrides that the caller may observe. A page ends early, with a cursor, if the
/// search for them takes the time of a call.
async fn page(
    api: &Api,
    caller: &HttpCaller,
    mut after: Option<String>,
    limit: usize,
) -> Result<OverridePage, ApiError> {
    let by = Instant::now() + api.options().call_timeout / 2;
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
                    return Ok(OverridePage { items, next: last });
                }
                after = Some(found.client_id.clone());
                items.push(found.into());
            } else {
                after = Some(found.client_id);
            }
        }
        if is_last {
            return Ok(OverridePage { items, next: None });
        }
        if Instant::now() >= by {
            return Ok(OverridePage { items, next: after.map(|id| URL_SAFE_NO_PAD.encode(id)) });
        }
        yield_now().await; // other calls of this worker
    }
}
