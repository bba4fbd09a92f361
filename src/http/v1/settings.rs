//! `PATCH /api/v1/clients/{id}`: changes settings of a client. Needs `control` for it.
//! `PATCH /api/v1/user-settings/{username}`: changes those of all clients of a user. Needs `control` for
//! all clients.

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{
            Caller, Change, ClientId, Fails, JsonBody, NotOnline, Parameters, Permission, Setting,
            UserSetting,
        },
    },
    body, in_time,
    noted::json_of,
    settings_of::{admitted, name_of_change, object_of, of_user},
    target::{ClientInPath, Query, UserInPath, client_id_of_call},
};
use crate::{
    auth::Action,
    control::{ChangeSettings, ClientSettings, ControlError, SettingsChange},
    metrics::RestRoute,
    told::Changed,
};

/// Maximum bytes of a body: its members with the longest numbers.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// Parses a JSON merge patch (RFC 7396): a member that is left out stays, and `null` removes it.
///
/// # Errors
/// A member is unknown, or is not a number in its range: the error names it.
fn change_of(mut patch: Map<String, Value>) -> Result<SettingsChange, ApiError> {
    let change = SettingsChange {
        session_expiry_secs: take(&mut patch, "session_expiry_interval")?,
        message_rate: take(&mut patch, "message_rate")?,
        byte_rate: take(&mut patch, "byte_rate")?,
        queue_messages_max: take(&mut patch, "queue_messages_max")?,
        queue_bytes_max: take(&mut patch, "queue_bytes_max")?,
        in_flight_max: take(&mut patch, "in_flight_max")?,
    };
    // A misspelt member would change nothing, and its caller would not notice.
    if let Some(unknown) = patch.keys().next() {
        return Err(ApiError::invalid_body(&format!("unknown field `{unknown}`")));
    }
    // The ranges are checked without the client, so that an error does not depend on it.
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

/// A change of settings: a member that is left out stays, and `null` removes it. It is only described:
/// `change_of` reads the members.
#[derive(Serialize, ToSchema)]
#[schema(as = SettingsChange)]
struct DescribedPatch {
    /// The members to change.
    #[serde(flatten)]
    change: DescribedUserPatch,
    /// Whether later connections have the settings too.
    sticky: Option<bool>,
}

/// A change of the settings of a user: a member that is left out stays, and `null` removes it.
#[derive(Serialize, ToSchema)]
#[schema(as = UserSettingsChange)]
struct DescribedUserPatch {
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
}

impl SettingsPart {
    /// Returns the settings, if there are any.
    pub(super) fn of_some(settings: &ClientSettings) -> Option<Self> {
        (!settings.is_empty()).then(|| Self::of(settings))
    }

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
    /// The node that has the connection, or has stored the settings.
    #[schema(value_type = String)]
    node: Arc<str>,
    /// The settings after the call.
    settings: SettingsPart,
}

/// Changes settings of a client: of its connection, or also of later ones.
///
/// They hold from the next packet on. A client above its rate is not read. Sticky settings need no
/// connection.
#[utoipa::path(
    patch, path = "/clients/{client_id}", tag = "clients", operation_id = "changeSettings",
    params(ClientInPath),
    request_body(content = DescribedPatch, description = "The members to change.", example = json!({"message_rate": 50, "in_flight_max": 10})),
    responses(
        (status = 200, description = "The settings that the client has now.", body = ChangedSettings,
         example = json!({"success": true, "node": "hearthmq",
            "settings": {"message_rate": 50, "in_flight_max": 10}})),
        Fails<(Caller, Change, Permission, Parameters, ClientId, JsonBody, NotOnline, Setting)>,
    ),
)]
pub(super) async fn change(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let client_id = client_id_of_call(&request)?;
        Query::of(&request, &[])?;
        caller.permit(&api, &client_id, &[Action::Control])?;
        let mut patch: Map<String, Value> =
            body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let is_sticky = sticky_of(&mut patch)?;
        let change = change_of(patch)?; // Before the client is looked up.
        let mut wanted = ChangeSettings::new(client_id, change);
        wanted.is_sticky = is_sticky;
        carry_out(&api, &caller, wanted).await
    };
    answer(&api, &request, RestRoute::Client, pin!(call)).await
}

/// Changes the sticky settings of a user: of all its clients, connected, absent or unknown.
///
/// They hold from the next packet of each connection on, where the client has no settings of its own. They
/// need `control` for all clients.
#[utoipa::path(
    patch, path = "/user-settings/{username}", tag = "clients", operation_id = "changeUserSettings",
    params(UserInPath),
    request_body(content = DescribedUserPatch, description = "The members to change.", example = json!({"message_rate": 50, "in_flight_max": 10})),
    responses(
        (status = 200, description = "The settings that the user has now.", body = ChangedSettings,
         example = json!({"success": true, "node": "hearthmq",
            "settings": {"message_rate": 50, "in_flight_max": 10}})),
        Fails<(Caller, Change, Permission, Parameters, JsonBody, UserSetting)>,
    ),
)]
pub(super) async fn change_of_user(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let needs = (CallEffect::Changes, Action::Control);
        let (caller, of) = admitted(&api, &request, of_user, needs).await?;
        let patch: Map<String, Value> = body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let wanted = ChangeSettings::of_user(of.name().clone(), change_of(patch)?);
        carry_out(&api, &caller, wanted).await
    };
    answer(&api, &request, RestRoute::UserSettings, pin!(call)).await
}

async fn carry_out(
    api: &Api,
    caller: &HttpCaller,
    mut wanted: ChangeSettings,
) -> Result<Answer, ApiError> {
    wanted.by.clone_from(&caller.identity.username);
    wanted.is_within_share = wanted.is_sticky && caller.has_share(api);
    let (of, is_sticky) = (wanted.of.clone(), wanted.is_sticky);
    let changed = in_time(api, api.0.control.change_settings(wanted)).await?;
    let part = SettingsPart::of(&changed.settings);
    let (old, new) = (json_of(&SettingsPart::of(&changed.former)), json_of(&part));
    let call = if is_sticky { name_of_change(&of) } else { "settings" };
    let (target, old, new) = (Some(object_of(&of)), Some(&*old), Some(&*new));
    caller.tell_changed(api, Changed { call, target, old, new });
    Ok(Answer::json(&ChangedSettings { success: true, node: changed.node, settings: part }))
}
