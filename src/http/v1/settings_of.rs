//! Which settings a call is about, by its path or its query, and who may look at them or change them.

use std::sync::Arc;

use actix_web::HttpRequest;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
    },
    target::{Query, client_id_of_call, username_of_call},
};
use crate::{auth::Action, control::SettingsOf, told::ChangedObject};

/// Stands for all clients in a question about a permission: a rule allows it unless it is only for
/// clients with certain identifiers.
pub(super) const ANY_CLIENT: &str = "";

/// The owner of the settings of a call, and the client for which the caller needs the permission.
pub(super) type OwnerOfSettings = Result<(SettingsOf, Arc<str>), ApiError>;

pub(super) fn of_client(request: &HttpRequest) -> OwnerOfSettings {
    let client_id: Arc<str> = client_id_of_call(request)?.into();
    Ok((SettingsOf::Client(client_id.clone()), client_id))
}

pub(super) fn of_user(request: &HttpRequest) -> OwnerOfSettings {
    Ok((SettingsOf::User(username_of_call(request)?.into()), ANY_CLIENT.into()))
}

/// Returns the caller, if it may do this, and whose settings the call is about.
pub(super) async fn admitted(
    api: &Api,
    request: &HttpRequest,
    owner: fn(&HttpRequest) -> OwnerOfSettings,
    (effect, action): (CallEffect, Action<'_>),
) -> Result<(HttpCaller, SettingsOf), ApiError> {
    let caller = admission::admit(api, request, effect).await?;
    let (of, client_id) = owner(request)?;
    Query::of(request, &[])?;
    caller.permit(api, &client_id, &[action])?;
    Ok((caller, of))
}

/// Returns the client or the user whose settings are changed, for the log.
pub(super) fn object_of(of: &SettingsOf) -> ChangedObject<'_> {
    match of {
        SettingsOf::Client(client_id) => ChangedObject::Client(client_id),
        SettingsOf::User(username) => ChangedObject::User(username),
    }
}

/// Returns the name that the log has for a change of these settings.
pub(super) const fn name_of_change(of: &SettingsOf) -> &'static str {
    match of {
        SettingsOf::Client(_) => "sticky settings",
        SettingsOf::User(_) => "user settings",
    }
}
