//! `PUT /api/v1/users/{name}/password`, `POST /api/v1/users/{name}/secrets` and
//! `DELETE /api/v1/users/{name}/secrets/{id}`: the credentials of an account.

use std::pin::pin;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{
        super::{
            Api, ApiError,
            admission::CallEffect,
            calls::{Answer, answer},
            failures::{
                Administration, Caller, Change, Fails, JsonBody, NoSecret, NoUser, Parameters,
                Precondition, Secrets, WrongPassword,
            },
        },
        body,
        etag::{self, ETAG, Preconditions},
        rules::administrator,
        target::{Query, name_in},
    },
    AccountInPath, BODY_BYTES_MAX, ChangedUser, changed,
    forms::{id_text, password_of},
    make, name_of_call,
};
use crate::{
    control::{UserChange, UsersError},
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

/// A new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPassword)]
struct PasswordBody {
    /// The password, which the broker hashes.
    password: Option<String>,
    /// Its hash, in place of the password.
    password_hash: Option<String>,
}

/// A device secret that was made.
#[derive(Serialize, ToSchema)]
#[schema(as = NewSecret)]
struct SecretAnswer<'a> {
    /// Always `true`.
    success: bool,
    /// Its identifier in the account.
    id: &'a str,
    /// The secret. No call shows it again.
    secret: &'a str,
    /// The number of sessions that were touched; 0, because the other secret stays valid.
    sessions_touched: usize,
}

/// Sets the password of an account.
///
/// Clients that have logged in with the former password are disconnected.
#[utoipa::path(
    put, path = "/users/{name}/password", tag = "users", operation_id = "setPassword",
    params(AccountInPath, Preconditions),
    request_body(content = PasswordBody, description = "The password, or its hash.",
        example = json!({"password": "correct horse battery staple"})),
    responses(
        (status = 200, description = "The account as it is now.", body = ChangedUser,
         headers(("ETag" = String, description = "The revision of the account.")),
         example = json!({"success": true, "user": {"name": "car-17", "disabled": false,
            "password": "argon2id", "secrets": [], "groups": [], "attributes": {},
            "created_at": 1_764_321_000_000_u64, "revision": 8}, "sessions_touched": 1})),
        Fails<(Caller, Change, Administration, Parameters, JsonBody, NoUser, Precondition, WrongPassword)>,
    ),
)]
pub(in crate::http::v1) async fn set_password(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        let name = name_of_call(&request)?;
        let body: PasswordBody = body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let password = password_of(body.password, body.password_hash)?;
        let password = password.ok_or_else(|| ApiError::invalid_body("it has no password"))?;
        let change = UserChange::Password(password);
        let done = make(&api, &request, change, caller.peer.ip()).await?;
        let had_one = done.former.as_ref().is_some_and(|user| user.password_scheme.is_some());
        let (target, new) = (Some(ChangedObject::User(&name)), Some("password"));
        // The log tells that there was a password, never anything of it.
        let old = new.filter(|_| had_one);
        caller.tell_changed(&api, Changed { call: "user", target, old, new });
        changed(done)
    };
    answer(&api, &request, RestRoute::UserPassword, pin!(call)).await
}

/// Makes a further device secret for an account.
///
/// Two are valid at the same time, so that a device can change to the new one before the former one is
/// removed.
#[utoipa::path(
    post, path = "/users/{name}/secrets", tag = "users", operation_id = "addSecret",
    params(AccountInPath, Preconditions),
    responses(
        (status = 200, description = "The secret, shown once.", body = SecretAnswer<'static>,
         headers(("ETag" = String, description = "The revision of the account.")),
         example = json!({"success": true, "id": "9f86d081884c7d65",
            "secret": "hmq_d_DQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKyw", "sessions_touched": 0})),
        Fails<(Caller, Change, Administration, Parameters, NoUser, Precondition, Secrets)>,
    ),
)]
pub(in crate::http::v1) async fn add_secret(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        let name = name_of_call(&request)?;
        let done = make(&api, &request, UserChange::AddSecret, caller.peer.ip()).await?;
        let (secret, user) = done.secret.zip(done.user).ok_or_else(ApiError::unavailable)?;
        let id = id_text(secret.id);
        let (target, new) = (Some(ChangedObject::User(&name)), Some(format!("secret {id}")));
        caller.tell_changed(&api, Changed { call: "user", target, old: None, new: new.as_deref() });
        let sessions_touched = done.sessions.touched;
        let answer =
            SecretAnswer { success: true, id: &id, secret: &secret.text, sessions_touched };
        Ok(Answer::json(&answer).with_header(ETAG, &etag::of(user.revision)))
    };
    answer(&api, &request, RestRoute::UserSecrets, pin!(call)).await
}

/// Removes a device secret of an account.
///
/// Clients that have logged in with it are disconnected.
#[utoipa::path(
    delete, path = "/users/{name}/secrets/{id}", tag = "users", operation_id = "removeSecret",
    params(
        AccountInPath,
        ("id" = String, Path, description = "The identifier of the secret.",
         example = "9f86d081884c7d65"),
        Preconditions,
    ),
    responses(
        (status = 200, description = "The account as it is now.", body = ChangedUser,
         headers(("ETag" = String, description = "The revision of the account.")),
         example = json!({"success": true, "user": {"name": "car-17", "disabled": false, "secrets": [],
            "groups": [], "attributes": {}, "created_at": 1_764_321_000_000_u64, "revision": 9},
            "sessions_touched": 1})),
        Fails<(Caller, Change, Administration, Parameters, NoUser, NoSecret, Precondition)>,
    ),
)]
pub(in crate::http::v1) async fn remove_secret(
    request: HttpRequest,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        let name = name_of_call(&request)?;
        let id = name_in(&request, "id", || UsersError::SecretNotFound.into())?;
        let id = u64::from_str_radix(&id, 16).map_err(|_| UsersError::SecretNotFound)?;
        let done = make(&api, &request, UserChange::RemoveSecret(id), caller.peer.ip()).await?;
        let (target, old) =
            (Some(ChangedObject::User(&name)), Some(format!("secret {}", id_text(id))));
        let (old, new) = (old.as_deref(), Some("none"));
        caller.tell_changed(&api, Changed { call: "user", target, old, new });
        changed(done)
    };
    answer(&api, &request, RestRoute::UserSecret, pin!(call)).await
}
