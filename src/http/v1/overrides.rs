//! `/api/v1/keep-alive/overrides`: the sticky Keep Alives. Each is looked at with `observe` and
//! removed with `control` for its client; a list has those that the caller may observe, and a pattern
//! removes those that it may control.

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect},
        calls::{Answer, answer},
        failures::{Caller, Change, ClientId, Fails, NoOverride, Parameters, Permission, Selector},
    },
    Done, in_time,
    named::{NamedPage, NamedPageParameters},
    page::PageAnswer,
    removal::{Removal, RemovalParameters, RemovedSome, tell_removed},
    resource,
    target::{ClientInPath, Query, client_id_of_call},
};
use crate::{
    auth::Action,
    control::{KeepAliveOverride, ListOverrides, QueryOverride, RemoveOverride},
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let all = resource("/keep-alive/overrides", "GET, HEAD, DELETE")
        .route(web::get().to(list))
        .route(web::delete().to(remove_selected));
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
        let client_id = client_id_of_call(&request)?;
        Query::of(&request, &[])?;
        caller.permit(&api, &client_id, &[Action::Observe])?;
        let found = in_time(&api, api.0.control.query_override(QueryOverride::new(client_id)));
        let found = found.await?.ok_or_else(ApiError::override_not_found)?;
        Ok(Answer::json(&OverrideAnswer::from(found)))
    };
    answer(&api, &request, RestRoute::Override, pin!(call)).await
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
        let client_id = client_id_of_call(&request)?;
        Query::of(&request, &[])?;
        caller.permit(&api, &client_id, &[Action::Control])?;
        let mut wanted = RemoveOverride::new(&*client_id);
        wanted.by.clone_from(&caller.identity.username);
        let former = in_time(&api, api.0.control.remove_override(wanted)).await?;
        // Absent also if another caller came first, so that one of them has the audit entry.
        let former = former.ok_or_else(ApiError::override_not_found)?;
        let (call, target) = ("keep-alive override", Some(ChangedObject::Client(&client_id)));
        let (old, new) = (former.interval_secs.to_string(), Some("none"));
        caller.tell_changed(&api, Changed { call, target, old: Some(&old), new });
        Ok(Answer::json(&Done::NOW))
    };
    answer(&api, &request, RestRoute::Override, pin!(call)).await
}

/// Removes the sticky Keep Alives of all clients that a pattern selects, as far as the caller may
/// control them.
///
/// An answer with `next` is not complete: repeat the call with it as `cursor`.
#[utoipa::path(
    delete, path = "/keep-alive/overrides", tag = "keep-alive", operation_id = "removeOverrides",
    params(RemovalParameters),
    responses(
        (status = 200, description = "How many are removed.", body = RemovedSome,
         example = json!({"success": true, "removed": 2})),
        Fails<(Caller, Change, Parameters, Selector)>,
    ),
)]
pub(super) async fn remove_selected(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let removal = Removal::of(&request)?;
        let pattern = removal.pattern.clone();
        let may_control = |client_id: &str| caller.may(&api, client_id, Action::Control);
        let ask = async |after: Option<Arc<str>>, limit| {
            let mut question = ListOverrides::new(limit);
            question.after = after.as_deref().map(str::to_owned);
            let found = api.0.control.list_overrides(question).await?;
            Ok(found.into_iter().map(|found| found.client_id.into()).collect())
        };
        let remove = async |client_id: Arc<str>| {
            let mut wanted = RemoveOverride::new(&*client_id);
            wanted.by.clone_from(&caller.identity.username);
            let former = api.0.control.remove_override(wanted).await?;
            Ok(former.map(|former| former.interval_secs.to_string()))
        };
        let (done, former) = removal.carry_out(&api, may_control, ask, remove).await?;
        tell_removed(&api, &caller, "keep-alive overrides", (&pattern, &former));
        Ok(Answer::json(&done))
    };
    answer(&api, &request, RestRoute::Overrides, pin!(call)).await
}

/// Lists sticky Keep Alives, in the order of the Client Identifiers.
#[utoipa::path(
    get, path = "/keep-alive/overrides", tag = "keep-alive", operation_id = "listOverrides",
    params(NamedPageParameters),
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
        let page = NamedPage::of(&request)?;
        let may_see = |client_id: &str| caller.may(&api, client_id, Action::Observe);
        let ask = async |after: Option<Arc<str>>, limit| {
            let mut question = ListOverrides::new(limit);
            question.after = after.as_deref().map(str::to_owned);
            api.0.control.list_overrides(question).await
        };
        let its = (&**api, &caller);
        page.read::<KeepAliveOverride, OverrideAnswer>(its, |it| &it.client_id, may_see, ask).await
    };
    answer(&api, &request, RestRoute::Overrides, pin!(call)).await
}
