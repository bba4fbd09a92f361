//! `/api/v1/settings` and `/api/v1/user-settings`: the sticky settings of clients and of users.
//!
//! Those of a client are looked at with `observe` and removed with `control` for it. Those of a user hold
//! for clients with any identifier, so they need the permission for all.

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
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{Caller, Change, ClientId, Fails, NoSettings, Parameters, Permission, Selector},
    },
    Done, in_time,
    named::{NamedPage, NamedPageParameters},
    noted::json_of,
    page::PageAnswer,
    removal::{Removal, RemovalParameters, RemovedSome, tell_removed},
    resource,
    settings::{SettingsPart, change_of_user},
    settings_of::{
        ANY_CLIENT, OwnerOfSettings, admitted, name_of_change, object_of, of_client, of_user,
    },
    target::{ClientInPath, UserInPath},
};
use crate::{
    auth::Action,
    control::{ListSettings, QuerySettings, RemoveSettings, SettingsOf, StickySettings},
    metrics::RestRoute,
    told::Changed,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let of_clients = resource("/settings", "GET, HEAD, DELETE")
        .route(web::get().to(list))
        .route(web::head().to(list))
        .route(web::delete().to(remove_selected));
    let of_client = resource("/settings/{id}", "GET, HEAD, DELETE")
        .route(web::get().to(find))
        .route(web::head().to(find))
        .route(web::delete().to(remove));
    let of_users = resource("/user-settings", "GET, HEAD")
        .route(web::get().to(list_of_users))
        .route(web::head().to(list_of_users));
    let of_user = resource("/user-settings/{username}", "GET, HEAD, PATCH, DELETE")
        .route(web::get().to(find_of_user))
        .route(web::head().to(find_of_user))
        .route(web::patch().to(change_of_user))
        .route(web::delete().to(remove_of_user));
    config.service(of_clients).service(of_client).service(of_users).service(of_user);
}

/// The sticky settings of a client.
#[derive(Serialize, ToSchema)]
#[schema(as = StickySettings)]
struct OfClient {
    /// The client.
    #[schema(value_type = String)]
    client_id: Arc<str>,
    /// The settings that its connections get.
    settings: SettingsPart,
    /// The user that has changed them last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    by: Option<Arc<str>>,
    /// In milliseconds since the Unix epoch.
    set_at: u64,
}

/// The sticky settings of a user.
#[derive(Serialize, ToSchema)]
#[schema(as = UserSettings)]
struct SettingsOfUser {
    /// The user name.
    #[schema(value_type = String)]
    username: Arc<str>,
    /// The settings that connections of the user get, unless their client has settings of its own.
    settings: SettingsPart,
    /// The user that has changed them last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    by: Option<Arc<str>>,
    /// In milliseconds since the Unix epoch.
    set_at: u64,
}

impl From<StickySettings> for OfClient {
    fn from(found: StickySettings) -> Self {
        let StickySettings { of, settings, by, set_at_millis, .. } = found;
        let settings = SettingsPart::of(&settings);
        Self { client_id: of.name().clone(), settings, by, set_at: set_at_millis }
    }
}

impl From<StickySettings> for SettingsOfUser {
    fn from(found: StickySettings) -> Self {
        let StickySettings { of, settings, by, set_at_millis, .. } = found;
        let settings = SettingsPart::of(&settings);
        Self { username: of.name().clone(), settings, by, set_at: set_at_millis }
    }
}

/// Returns the sticky settings of a client.
#[utoipa::path(
    get, path = "/settings/{client_id}", tag = "clients", operation_id = "showSettings",
    params(ClientInPath),
    responses(
        (status = 200, description = "The sticky settings.", body = OfClient, example = json!(
            {"client_id": "car-17", "settings": {"message_rate": 50}, "by": "admin",
             "set_at": 1_764_321_000_000_u64})),
        Fails<(Caller, Permission, Parameters, ClientId, NoSettings)>,
    ),
)]
pub(super) async fn find(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = show::<OfClient>(&api, &request, of_client);
    answer(&api, &request, RestRoute::StickySettings, pin!(call)).await
}

/// Returns the sticky settings of a user.
///
/// They hold for all clients of the user, so this needs `observe` for all.
#[utoipa::path(
    get, path = "/user-settings/{username}", tag = "clients", operation_id = "showUserSettings",
    params(UserInPath),
    responses(
        (status = 200, description = "The sticky settings.", body = SettingsOfUser, example = json!(
            {"username": "sensors", "settings": {"message_rate": 50}, "by": "admin",
             "set_at": 1_764_321_000_000_u64})),
        Fails<(Caller, Permission, Parameters, NoSettings)>,
    ),
)]
pub(super) async fn find_of_user(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = show::<SettingsOfUser>(&api, &request, of_user);
    answer(&api, &request, RestRoute::UserSettings, pin!(call)).await
}

/// Removes the sticky settings of a client. A live connection keeps its settings.
#[utoipa::path(
    delete, path = "/settings/{client_id}", tag = "clients", operation_id = "removeSettings",
    params(ClientInPath),
    responses(
        (status = 200, description = "The settings are removed.", body = Done,
         example = json!({"success": true})),
        Fails<(Caller, Change, Permission, Parameters, ClientId, NoSettings)>,
    ),
)]
pub(super) async fn remove(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = remove_stored(&api, &request, of_client);
    answer(&api, &request, RestRoute::StickySettings, pin!(call)).await
}

/// Removes the sticky settings of a user, also from its live connections.
///
/// They hold for all clients of the user, so this needs `control` for all.
#[utoipa::path(
    delete, path = "/user-settings/{username}", tag = "clients",
    operation_id = "removeUserSettings", params(UserInPath),
    responses(
        (status = 200, description = "The settings are removed.", body = Done,
         example = json!({"success": true})),
        Fails<(Caller, Change, Permission, Parameters, NoSettings)>,
    ),
)]
pub(super) async fn remove_of_user(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = remove_stored(&api, &request, of_user);
    answer(&api, &request, RestRoute::UserSettings, pin!(call)).await
}

/// Lists the sticky settings of the clients that the caller may observe.
#[utoipa::path(
    get, path = "/settings", tag = "clients", operation_id = "listSettings",
    params(NamedPageParameters),
    responses(
        (status = 200, description = "A page of sticky settings.", body = PageAnswer<OfClient>,
         example = json!({"items": [
            {"client_id": "car-17", "settings": {"message_rate": 50}, "set_at": 1_764_321_000_000_u64}]})),
        Fails<(Caller, Parameters)>,
    ),
)]
pub(super) async fn list(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let page = NamedPage::of(&request)?;
        let may_see = |client_id: &str| caller.may(&api, client_id, Action::Observe);
        read::<OfClient>((&api, &caller), page, ListSettings::new, may_see).await
    };
    answer(&api, &request, RestRoute::AllStickySettings, pin!(call)).await
}

/// Lists the sticky settings of users.
///
/// They hold for all clients of the users, so this needs `observe` for all.
#[utoipa::path(
    get, path = "/user-settings", tag = "clients", operation_id = "listUserSettings",
    params(NamedPageParameters),
    responses(
        (status = 200, description = "A page of sticky settings.", body = PageAnswer<SettingsOfUser>,
         example = json!({"items": [
            {"username": "sensors", "settings": {"message_rate": 50}, "set_at": 1_764_321_000_000_u64}]})),
        Fails<(Caller, Permission, Parameters)>,
    ),
)]
pub(super) async fn list_of_users(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let page = NamedPage::of(&request)?;
        caller.permit(&api, ANY_CLIENT, &[Action::Observe])?;
        read::<SettingsOfUser>((&api, &caller), page, ListSettings::of_users, |_| true).await
    };
    answer(&api, &request, RestRoute::AllUserSettings, pin!(call)).await
}

/// Removes the sticky settings of all clients that a pattern selects, as far as the caller may control
/// them.
///
/// An answer with `next` is not complete: repeat the call with it as `cursor`.
#[utoipa::path(
    delete, path = "/settings", tag = "clients", operation_id = "removeManyStickySettings",
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
            let mut question = ListSettings::new(limit);
            question.after = after;
            let found = api.0.control.list_settings(question).await?;
            Ok(found.into_iter().map(|found| found.of.name().clone()).collect())
        };
        let remove = async |client_id: Arc<str>| {
            let wanted = RemoveSettings::new(SettingsOf::Client(client_id));
            let former = api.0.control.remove_settings(wanted).await?;
            Ok(former.map(|former| json_of(&SettingsPart::of(&former.settings))))
        };
        let (done, former) = removal.carry_out(&api, may_control, ask, remove).await?;
        tell_removed(&api, &caller, "sticky settings", (&pattern, &former));
        Ok(Answer::json(&done))
    };
    answer(&api, &request, RestRoute::AllStickySettings, pin!(call)).await
}

async fn read<A: From<StickySettings> + Serialize>(
    (api, caller): (&Api, &HttpCaller),
    page: NamedPage,
    first: fn(usize) -> ListSettings,
    may_see: impl Fn(&str) -> bool,
) -> Result<Answer, ApiError> {
    let ask = async |after: Option<Arc<str>>, limit| {
        let mut question = first(limit);
        question.after = after;
        api.0.control.list_settings(question).await
    };
    page.read::<StickySettings, A>((api, caller), |it| it.of.name(), may_see, ask).await
}

async fn show<A: From<StickySettings> + Serialize>(
    api: &Api,
    request: &HttpRequest,
    owner: fn(&HttpRequest) -> OwnerOfSettings,
) -> Result<Answer, ApiError> {
    let needs = (CallEffect::Looks, Action::Observe);
    let (_, of) = admitted(api, request, owner, needs).await?;
    let found = in_time(api, api.0.control.query_settings(QuerySettings::new(of))).await?;
    let found = found.ok_or_else(ApiError::settings_not_found)?;
    Ok(Answer::json(&A::from(found)))
}

async fn remove_stored(
    api: &Api,
    request: &HttpRequest,
    owner: fn(&HttpRequest) -> OwnerOfSettings,
) -> Result<Answer, ApiError> {
    let needs = (CallEffect::Changes, Action::Control);
    let (caller, of) = admitted(api, request, owner, needs).await?;
    let removing = api.0.control.remove_settings(RemoveSettings::new(of.clone()));
    let former = in_time(api, removing).await?.ok_or_else(ApiError::settings_not_found)?;
    let old = json_of(&SettingsPart::of(&former.settings));
    let (call, target, new) = (name_of_change(&of), Some(object_of(&of)), Some("none"));
    caller.tell_changed(api, Changed { call, target, old: Some(&old), new });
    Ok(Answer::json(&Done::NOW))
}
