//! `/api/v1/users`: the accounts in the broker's store. Every call needs `administer`.
//!
//! An answer that shows an account has its revision as `ETag`; a call that changes one takes it in
//! `If-Match`. [`credentials`] has passwords and device secrets; [`forms`] has the bodies.

pub(super) mod credentials;
pub(super) mod export;
mod forms;
pub(super) mod import;

use std::{net::IpAddr, pin::pin};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::Serialize;
use tokio::task::yield_now;
use utoipa::{IntoParams, ToSchema};

pub(super) use self::forms::given;
use self::forms::{NewUserBody, NotedUser, ShownUser, UserPatch};
use super::{
    super::{
        Api, ApiError,
        admission::CallEffect,
        calls::{Answer, answer},
        failures::{
            Administration, Caller, Change, Fails, JsonBody, NewUserFailure, NoUser, NoUsers,
            Parameters, Precondition,
        },
    },
    body, cursor,
    etag::{self, ETAG, Preconditions},
    in_time_of_users,
    noted::{differences, json_of},
    page::{AskedPage, PageAnswer, PageParameters},
    resource,
    rules::administrator,
    target::{Query, name_in},
};
use crate::{
    control::{
        AccountProperties, ChangeUser, ExpectedRevision, ListUsers, NewUser, UserChange,
        UserChanged, UsersError,
    },
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

/// Maximum bytes of a body, which has a password of 65,535 bytes and 4 KiB of attributes.
const BODY_BYTES_MAX: usize = 512 * 1024;

pub(super) fn routes(config: &mut ServiceConfig) {
    let all = resource("/users", "GET, HEAD, POST")
        .route(web::get().to(list_users))
        .route(web::head().to(list_users))
        .route(web::post().to(create_user));
    let one = resource("/users/{name}", "GET, HEAD, PATCH, DELETE")
        .route(web::get().to(show_user))
        .route(web::head().to(show_user))
        .route(web::patch().to(change_user))
        .route(web::delete().to(remove_user));
    let import = resource("/users/import", "POST").route(web::post().to(import::import_users));
    let export = resource("/users/export", "GET, HEAD")
        .route(web::get().to(export::export_users))
        .route(web::head().to(export::export_users));
    let password =
        resource("/users/{name}/password", "PUT").route(web::put().to(credentials::set_password));
    let secrets =
        resource("/users/{name}/secrets", "POST").route(web::post().to(credentials::add_secret));
    let secret = resource("/users/{name}/secrets/{id}", "DELETE")
        .route(web::delete().to(credentials::remove_secret));
    // The first ones before `/users/{name}`, which would match them too.
    config.service(import).service(export).service(all).service(one);
    config.service(password).service(secrets).service(secret);
}

/// The user in the path of a call.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only described here")]
pub(super) struct AccountInPath {
    /// User name, percent-encoded UTF-8.
    #[param(example = "car-17")]
    name: String,
}

/// The result of a change of an account.
#[derive(Serialize, ToSchema)]
#[schema(as = UserChanged)]
pub(super) struct ChangedUser {
    /// Always `true`.
    success: bool,
    /// The account as it is now.
    user: ShownUser,
    /// The number of sessions that were disconnected or ended, have lost a subscription, or have stopped
    /// to queue messages.
    sessions_touched: usize,
}

/// Says that an account was removed.
#[derive(Serialize, ToSchema)]
#[schema(as = UserRemoved)]
struct RemovedUser {
    /// Always `true`.
    success: bool,
    /// The number of sessions that have ended.
    sessions_touched: usize,
}

/// Returns the name of the user that a call is about.
pub(super) fn name_of_call(request: &HttpRequest) -> Result<String, ApiError> {
    name_in(request, "name", || UsersError::InvalidName.into())
}

/// Returns the revision that the account must have; `None` if the call is about any.
fn expected_in(request: &HttpRequest) -> Result<Option<u64>, ApiError> {
    match etag::expected(request)? {
        ExpectedRevision::At(revision) => Ok(Some(revision)),
        ExpectedRevision::Any | ExpectedRevision::Present => Ok(None),
        // The call changes an account that is there.
        ExpectedRevision::Absent => Err(ApiError::precondition_failed()),
    }
}

/// Makes a change of the user that the call is about.
pub(super) async fn make(
    api: &Api,
    request: &HttpRequest,
    change: UserChange,
    caller: IpAddr,
) -> Result<UserChanged, ApiError> {
    let mut wanted = ChangeUser::new(name_of_call(request)?, change, caller);
    wanted.expected = expected_in(request)?;
    in_time_of_users(api, api.0.control.change_user(wanted)).await
}

/// Returns the answer to a call that has changed an account.
pub(super) fn changed(changed: UserChanged) -> Result<Answer, ApiError> {
    let user = changed.user.ok_or_else(ApiError::unavailable)?;
    let sessions_touched = changed.sessions.touched;
    let tag = etag::of(user.revision);
    let answer = ChangedUser { success: true, user: user.into(), sessions_touched };
    Ok(Answer::json(&answer).with_header(ETAG, &tag))
}

/// Lists accounts, in the order of their names.
#[utoipa::path(
    get, path = "/users", tag = "users", operation_id = "listUsers", params(PageParameters),
    responses(
        (status = 200, description = "A page of accounts.", body = PageAnswer<ShownUser>,
         example = json!({"items": [{"name": "car-17", "disabled": false, "password": "argon2id",
            "secrets": [], "groups": ["cars"], "attributes": {}, "created_at": 1_764_321_000_000_u64,
            "revision": 7}]})),
        Fails<(Caller, Administration, Parameters, NoUsers)>,
    ),
)]
pub(super) async fn list_users(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Looks).await?;
        let page = AskedPage::of(&Query::parse(request.query_string(), &["limit", "cursor"])?)?;
        let mut text = page.begin(&api, &caller)?;
        let mut after = page.after.as_deref().map(str::to_owned);
        loop {
            let mut asked = ListUsers::new(ListUsers::LIMIT_MAX.min(page.limit + 1 - text.items));
            let count = asked.limit;
            asked.after.clone_from(&after);
            let found = in_time_of_users(&api, api.0.control.list_users(asked)).await?;
            let is_last = found.len() < count;
            for user in found {
                // One account is left over, so another page follows.
                if text.items == page.limit {
                    return Ok(text.end(after.as_deref().map(cursor::after)));
                }
                let shown = ShownUser::from(user);
                text.push(&shown)?;
                after = Some(shown.name);
            }
            if is_last {
                return Ok(text.end(None));
            }
            yield_now().await; // other calls of this worker
        }
    };
    answer(&api, &request, RestRoute::Users, pin!(call)).await
}

/// Shows an account.
#[utoipa::path(
    get, path = "/users/{name}", tag = "users", operation_id = "showUser", params(AccountInPath),
    responses(
        (status = 200, description = "The account.", body = ShownUser,
         headers(("ETag" = String, description = "The revision of the account.")),
         example = json!({"name": "car-17", "disabled": false, "secrets": [
            {"id": "9f86d081884c7d65", "created_at": 1_764_321_000_000_u64}],
            "groups": ["cars"], "attributes": {"site": "s1"}, "limits": {"sessions_max": 1},
            "created_at": 1_764_321_000_000_u64, "revision": 7})),
        Fails<(Caller, Administration, Parameters, NoUser)>,
    ),
)]
pub(super) async fn show_user(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        administrator(&api, &request, CallEffect::Looks).await?;
        Query::of(&request, &[])?;
        let name = name_of_call(&request)?;
        let user = in_time_of_users(&api, api.0.control.find_user(&name)).await?;
        let tag = etag::of(user.revision);
        Ok(Answer::json(&ShownUser::from(user)).with_header(ETAG, &tag))
    };
    answer(&api, &request, RestRoute::User, pin!(call)).await
}

/// Creates an account.
///
/// Without a password, it needs a device secret before its user can log in.
#[utoipa::path(
    post, path = "/users", tag = "users", operation_id = "createUser",
    request_body(content = NewUserBody, description = "The account.",
        example = json!({"name": "car-17", "groups": ["cars"], "attributes": {"site": "s1"}})),
    responses(
        (status = 200, description = "The account is created.", body = ChangedUser,
         headers(("ETag" = String, description = "The revision of the account.")),
         example = json!({"success": true, "user": {"name": "car-17", "disabled": false, "secrets": [],
            "groups": ["cars"], "attributes": {"site": "s1"}, "created_at": 1_764_321_000_000_u64,
            "revision": 7}, "sessions_touched": 0})),
        Fails<(Caller, Change, Administration, Parameters, JsonBody, NewUserFailure)>,
    ),
)]
pub(super) async fn create_user(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        let body: NewUserBody = body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let user = NewUser::try_from(body)?;
        let (name, change) = (user.name.clone(), UserChange::Create(Box::new(user)));
        let wanted = ChangeUser::new(name.clone(), change, caller.peer.ip());
        let created = in_time_of_users(&api, api.0.control.change_user(wanted)).await?;
        let new = created.user.as_ref().map(|user| json_of(&NotedUser::of(user)));
        let (target, new) = (Some(ChangedObject::User(&name)), new.as_deref());
        caller.tell_changed(&api, Changed { call: "user", target, old: None, new });
        changed(created)
    };
    answer(&api, &request, RestRoute::Users, pin!(call)).await
}

/// Changes properties of an account.
///
/// The change is in force for the sessions of the user when the answer comes.
#[utoipa::path(
    patch, path = "/users/{name}", tag = "users", operation_id = "changeUser",
    params(AccountInPath, Preconditions),
    request_body(content = UserPatch, description = "The members to change.",
        example = json!({"disabled": true})),
    responses(
        (status = 200, description = "The account as it is now.", body = ChangedUser,
         headers(("ETag" = String, description = "The revision of the account.")),
         example = json!({"success": true, "user": {"name": "car-17", "disabled": true, "secrets": [],
            "groups": ["cars"], "attributes": {"site": "s1"}, "created_at": 1_764_321_000_000_u64,
            "revision": 8}, "sessions_touched": 1})),
        Fails<(Caller, Change, Administration, Parameters, JsonBody, NoUser, Precondition)>,
    ),
)]
pub(super) async fn change_user(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        let name = name_of_call(&request)?;
        let patch: UserPatch = body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let properties = AccountProperties::try_from(patch)?;
        let change = UserChange::Properties(Box::new(properties));
        let done = make(&api, &request, change, caller.peer.ip()).await?;
        let both = done.former.as_ref().zip(done.user.as_ref());
        // The audit log has what differs, not whole accounts.
        let both = both.map(|(old, new)| differences(&NotedUser::of(old), &NotedUser::of(new)));
        let [old, new] = both.as_ref().map_or([None; 2], |[old, new]| [Some(&**old), Some(&**new)]);
        let target = Some(ChangedObject::User(&name));
        caller.tell_changed(&api, Changed { call: "user", target, old, new });
        changed(done)
    };
    answer(&api, &request, RestRoute::User, pin!(call)).await
}

/// Removes an account. The connections and sessions of its user end.
#[utoipa::path(
    delete, path = "/users/{name}", tag = "users", operation_id = "removeUser",
    params(AccountInPath, Preconditions),
    responses(
        (status = 200, description = "The account is removed.", body = RemovedUser,
         example = json!({"success": true, "sessions_touched": 1})),
        Fails<(Caller, Change, Administration, Parameters, NoUser, Precondition)>,
    ),
)]
pub(super) async fn remove_user(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        let name = name_of_call(&request)?;
        let done = make(&api, &request, UserChange::Remove, caller.peer.ip()).await?;
        let old = done.former.as_ref().map(|user| json_of(&NotedUser::of(user)));
        let (target, old) = (Some(ChangedObject::User(&name)), old.as_deref());
        caller.tell_changed(&api, Changed { call: "user", target, old, new: Some("none") });
        let sessions_touched = done.sessions.touched;
        Ok(Answer::json(&RemovedUser { success: true, sessions_touched }))
    };
    answer(&api, &request, RestRoute::User, pin!(call)).await
}
