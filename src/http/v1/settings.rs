//! `PATCH /api/v1/clients/{id}`: changes settings of a client. Needs `control` for it. `/api/v1/settings`:
//! the sticky ones, which are looked at with `observe` and removed with `control`.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::{task::yield_now, time::Instant};
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{
            Caller, Change, ClientId, Fails, JsonBody, NoSettings, NotOnline, Parameters,
            Permission, Setting,
        },
    },
    Done, body,
    contents::PageAnswer,
    cursor, in_time, resource,
    target::{ClientInPath, Query, client_id_in_path},
};
use crate::{
    auth::Action,
    control::{
        ChangeSettings, ClientSettings, ControlError, ListSettings, QuerySettings, RemoveSettings,
        SettingsChange, StickySettings,
    },
    metrics::RestRoute,
    told::Changed,
};

/// Maximum bytes of a body: its members with the longest numbers.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// Parses a JSON merge patch (RFC 7396): a member that is left out stays, and `null` removes it.
///
/// # Errors
/// A member is unknown, or is no number in its range: the error names it.
fn change_of(mut patch: Map<String, Value>) -> Result<SettingsChange, ApiError> {
    let change = SettingsChange {
        session_expiry_secs: take(&mut patch, "session_expiry_interval")?,
        message_rate: take(&mut patch, "message_rate")?,
        byte_rate: take(&mut patch, "byte_rate")?,
        queue_messages_max: take(&mut patch, "queue_messages_max")?,
        queue_bytes_max: take(&mut patch, "queue_bytes_max")?,
        in_flight_max: take(&mut patch, "in_flight_max")?,
    };
    if let Some(unknown) = patch.keys().next() {
        return Err(ApiError::invalid_body(&format!("unknown field `{unknown}`")));
    }
    ClientSettings::new().changed_by(&change).check()?;
    Ok(change)
}

/// Takes out whether later connections have the settings too.
fn sticky_of(patch: &mut Map<String, Value>) -> Result<bool, ApiError> {
    match patch.remove("sticky") {
        None => Ok(false),
        Some(Value::Bool(is_sticky)) => Ok(is_sticky),
        Some(_) => Err(ApiError::invalid_body("sticky is true or false")),
    }
}

/// Takes a member out of a patch.
fn take<T: TryFrom<u64>>(
    patch: &mut Map<String, Value>,
    name: &'static str,
) -> Result<Option<Option<T>>, ApiError> {
    let Some(value) = patch.remove(name) else { return Ok(None) };
    if value.is_null() {
        return Ok(Some(None));
    }
    let number = value.as_u64().and_then(|number| T::try_from(number).ok());
    number.map(|number| Some(Some(number))).ok_or_else(|| ControlError::InvalidSetting(name).into())
}

/// Settings of a client that callers have made. Those that are not set are left out.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientSettings)]
pub(super) struct SettingsPart {
    /// Session Expiry Interval in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_expiry_interval: Option<u32>,
    /// PUBLISH packets that are read in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_rate: Option<u32>,
    /// Bytes of PUBLISH packets that are read in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    byte_rate: Option<u32>,
    /// Maximum number of messages that wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_messages_max: Option<u32>,
    /// Maximum bytes of messages that wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_bytes_max: Option<u64>,
    /// Maximum number of unacknowledged messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight_max: Option<u16>,
}

/// A change of settings: a member that is left out stays, and `null` removes it.
#[derive(ToSchema)]
#[schema(as = SettingsChange)]
#[expect(dead_code, reason = "it is only described; `change_of` reads the members")]
struct DescribedPatch {
    /// Session Expiry Interval in seconds.
    session_expiry_interval: Option<u32>,
    /// PUBLISH packets that are read in a second.
    #[schema(minimum = 1, maximum = 1_000_000)]
    message_rate: Option<u32>,
    /// Bytes of topics and payloads of PUBLISH packets that are read in a second.
    #[schema(minimum = 1_000, maximum = 1_000_000_000)]
    byte_rate: Option<u32>,
    /// Maximum number of messages that wait.
    #[schema(minimum = 1)]
    queue_messages_max: Option<u32>,
    /// Maximum bytes of messages that wait.
    #[schema(minimum = 1)]
    queue_bytes_max: Option<u64>,
    /// Maximum number of unacknowledged messages.
    #[schema(minimum = 1, maximum = 65_535)]
    in_flight_max: Option<u16>,
    /// Whether later connections have the settings too.
    sticky: Option<bool>,
}

impl SettingsPart {
    pub(super) const fn of(settings: &ClientSettings) -> Self {
        Self {
            session_expiry_interval: settings.session_expiry_secs,
            message_rate: settings.message_rate,
            byte_rate: settings.byte_rate,
            queue_messages_max: settings.queue_messages_max,
            queue_bytes_max: settings.queue_bytes_max,
            in_flight_max: settings.in_flight_max,
        }
    }
}

/// The settings after a change.
#[derive(Serialize, ToSchema)]
struct ChangedSettings {
    /// Always `true`.
    success: bool,
    /// What is set now.
    settings: SettingsPart,
}

/// Changes settings of a client: of its connection, or also of later ones.
///
/// They hold from the next packet on. A client above its rate is not read. Sticky settings need no
/// connection.
#[utoipa::path(
    patch, path = "/clients/{client_id}", tag = "clients", operation_id = "changeSettings",
    params(ClientInPath),
    request_body(content = DescribedPatch, description = "What changes.", example = json!({"message_rate": 50, "in_flight_max": 10})),
    responses(
        (status = 200, description = "The settings that the client has now.", body = ChangedSettings,
         example = json!({"success": true, "settings": {"message_rate": 50, "in_flight_max": 10}})),
        Fails<(Caller, Change, Permission, Parameters, ClientId, JsonBody, NotOnline, Setting)>,
    ),
)]
pub(super) async fn change(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let client_id = client_id_in_path(&request)?;
        Query::parse(request.query_string(), &[])?;
        caller.permit(&api, &client_id, &[Action::Control])?;
        let mut patch: Map<String, Value> =
            body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let is_sticky = sticky_of(&mut patch)?;
        let change = change_of(patch)?; // Before the client is looked up.
        let mut wanted = ChangeSettings::new(&*client_id, change);
        wanted.is_sticky = is_sticky;
        wanted.by.clone_from(&caller.identity.username);
        let settings = in_time(&api, api.0.control.change_settings(wanted)).await?;
        let part = SettingsPart::of(&settings);
        let new = serde_json::to_string(&part).map_err(|_| ApiError::unavailable())?;
        let call = if is_sticky { "sticky settings" } else { "settings" };
        let (target, new) = (Some(&*client_id), Some(&*new));
        caller.tell_changed(&api, Changed { call, target, old: None, new });
        Ok(Answer::json(&ChangedSettings { success: true, settings: part }))
    };
    answer(&api, &request, RestRoute::Client, call).await
}

/// The number of items of a page without `limit`.
const LIMIT_DEFAULT: u64 = 100;

pub(super) fn routes(config: &mut ServiceConfig) {
    let all = resource("/settings", "GET, HEAD").route(web::get().to(list));
    let one = resource("/settings/{id}", "GET, HEAD, DELETE")
        .route(web::get().to(find))
        .route(web::head().to(find))
        .route(web::delete().to(remove));
    config.service(all.route(web::head().to(list))).service(one);
}

/// The sticky settings of a client.
#[derive(Serialize, ToSchema)]
#[schema(as = StickySettings)]
struct StickyAnswer {
    /// The client.
    #[schema(value_type = String)]
    client_id: Arc<str>,
    /// What its connections have.
    settings: SettingsPart,
    /// The user that has changed them last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    by: Option<Arc<str>>,
    /// In milliseconds since the Unix epoch.
    set_at: u64,
}

impl From<StickySettings> for StickyAnswer {
    fn from(found: StickySettings) -> Self {
        let settings = SettingsPart::of(&found.settings);
        Self { client_id: found.client_id, settings, by: found.by, set_at: found.set_at_millis }
    }
}

/// Returns the sticky settings of a client.
#[utoipa::path(
    get, path = "/settings/{client_id}", tag = "clients", operation_id = "showSettings",
    params(ClientInPath),
    responses(
        (status = 200, description = "The sticky settings.", body = StickyAnswer, example = json!(
            {"client_id": "car-17", "settings": {"message_rate": 50}, "by": "admin",
             "set_at": 1_764_321_000_000_u64})),
        Fails<(Caller, Permission, Parameters, ClientId, NoSettings)>,
    ),
)]
pub(super) async fn find(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let client_id = client_id_in_path(&request)?;
        Query::parse(request.query_string(), &[])?;
        caller.permit(&api, &client_id, &[Action::Observe])?;
        let found = in_time(&api, api.0.control.query_settings(QuerySettings::new(client_id)));
        let found = found.await?.ok_or_else(ApiError::settings_not_found)?;
        Ok(Answer::json(&StickyAnswer::from(found)))
    };
    answer(&api, &request, RestRoute::StickySettings, call).await
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
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let client_id = client_id_in_path(&request)?;
        Query::parse(request.query_string(), &[])?;
        caller.permit(&api, &client_id, &[Action::Control])?;
        let wanted = RemoveSettings::new(&*client_id);
        if !in_time(&api, api.0.control.remove_settings(wanted)).await? {
            return Err(ApiError::settings_not_found());
        }
        let (call, target, new) = ("sticky settings", Some(&*client_id), Some("none"));
        caller.tell_changed(&api, Changed { call, target, old: None, new });
        Ok(Answer::json(&Done::NOW))
    };
    answer(&api, &request, RestRoute::StickySettings, call).await
}

/// Lists the sticky settings of the clients that the caller may observe.
#[utoipa::path(
    get, path = "/settings", tag = "clients", operation_id = "listSettings",
    params(
        ("limit" = Option<u64>, Query, description = "Maximum number of items of the page.",
         minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "The `next` of the page before."),
    ),
    responses(
        (status = 200, description = "A page of sticky settings.", body = PageAnswer<StickyAnswer>,
         example = json!({"items": [
            {"client_id": "car-17", "settings": {"message_rate": 50}, "set_at": 1_764_321_000_000_u64}]})),
        Fails<(Caller, Parameters)>,
    ),
)]
pub(super) async fn list(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let query = Query::parse(request.query_string(), &["limit", "cursor"])?;
        let limit = query.number("limit", 1..=ListSettings::LIMIT_MAX as u64)?;
        let limit = limit.unwrap_or(LIMIT_DEFAULT) as usize;
        let after = query.text("cursor")?.map(|text| cursor::key_of(&text)).transpose()?;
        Ok(Answer::json(&page(&api, &caller, after, limit).await?))
    };
    answer(&api, &request, RestRoute::AllStickySettings, call).await
}

/// Returns the next sticky settings that the caller may observe. A page ends early, with a cursor, if
/// the search for them takes the time of a call.
async fn page(
    api: &Api,
    caller: &HttpCaller,
    mut after: Option<Arc<str>>,
    limit: usize,
) -> Result<PageAnswer<StickyAnswer>, ApiError> {
    let by = Instant::now() + api.options().call_timeout / 2;
    let mut items: Vec<StickyAnswer> = Vec::new();
    loop {
        let mut question = ListSettings::new(ListSettings::LIMIT_MAX.min(4 * limit));
        let asked = question.limit;
        question.after = after.clone();
        let found = in_time(api, api.0.control.list_settings(question)).await?;
        let is_last = found.len() < asked;
        for found in found {
            let may_see = caller.may(api, &found.client_id, Action::Observe);
            if may_see && items.len() == limit {
                let next = items.last().map(|last| cursor::after(&last.client_id));
                return Ok(PageAnswer { items, next });
            }
            after = Some(found.client_id.clone());
            if may_see {
                items.push(found.into());
            }
        }
        if is_last {
            return Ok(PageAnswer { items, next: None });
        }
        if Instant::now() >= by {
            return Ok(PageAnswer { items, next: after.map(|id| cursor::after(&id)) });
        }
        yield_now().await; // other calls of this worker
    }
}
