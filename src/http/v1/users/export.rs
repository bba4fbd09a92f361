//! `GET /api/v1/users/export`: all accounts as lines of JSON, as an import takes them.
//!
//! The next accounts are read when the caller has read the former ones.

use std::{collections::BTreeMap, pin::pin};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Bytes, Data},
};
use futures_util::stream::try_unfold;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{
        super::{
            Api, ApiError,
            admission::CallEffect,
            calls::{Answer, answer},
            failures::{Administration, Caller, Fails, NoUsers, Parameters},
            live::LongAnswer,
        },
        in_time_of_users,
        rules::administrator,
        target::Query,
    },
    forms::UserLimits,
};
use crate::{
    control::{ListUsers, UserView},
    metrics::RestRoute,
    told::Changed,
};

/// An account in an import or export.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserLine)]
pub(super) struct UserLine {
    /// User name.
    pub(super) name: String,
    /// The password, which the broker hashes: about 25 ms of a core for each line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<String>,
    /// The hash of the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) password_hash: Option<String>,
    /// Device secrets, at most two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(super) secrets: Vec<SecretLine>,
    /// Whether logins are refused.
    #[serde(default)]
    #[schema(required = false)]
    pub(super) disabled: bool,
    /// The groups of the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(super) groups: Vec<String>,
    /// The attributes of the user.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    pub(super) attributes: BTreeMap<String, String>,
    /// The limits that replace those of each user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) limits: Option<UserLimits>,
}

/// A device secret in an import or export.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SecretLine)]
pub(super) struct SecretLine {
    /// The SHA-256 of the whole text of the secret, in hexadecimal.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub(super) sha256: String,
    /// When it was made, in milliseconds since the Unix epoch; now, if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<u64>,
}

/// Exports all accounts with their hashes, one on each line, in the order of their names.
///
/// The lines can be imported again. A change during an export may be in it or not. If the caller loses its
/// permission meanwhile, the last line is an error, and the connection is cut.
#[utoipa::path(
    get, path = "/users/export", tag = "users", operation_id = "exportUsers",
    responses(
        (status = 200, description = "The accounts.", content_type = "application/x-ndjson",
         body = UserLine, example = json!({"name": "car-17", "disabled": false, "groups": ["cars"]})),
        Fails<(Caller, Administration, Parameters, NoUsers)>,
    ),
)]
pub(in crate::http::v1) async fn export_users(
    request: HttpRequest,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Looks).await?;
        Query::parse(request.query_string(), &[])?;
        // Before the answer begins, so that an error has its own status.
        let first = page(&api, None).await?;
        // Hashes leave the broker: somebody may want to know who has taken them.
        let new = Some("exported");
        caller.tell_changed(&api, Changed { call: "users", new, ..Changed::default() });
        // Hashes must not go on to an administrator that was removed meanwhile.
        let answer = LongAnswer::to_administrator(&api, &caller);
        let api = Data::clone(&api);
        let pages = try_unfold(NextPage::Found(first), move |next| {
            let api = Data::clone(&api);
            async move {
                let found = match next {
                    NextPage::Found(found) => found,
                    NextPage::After(name) => page(&api, Some(name)).await?,
                    NextPage::None => return Ok(None),
                };
                let lines: Vec<_> = found.iter().map(user_line).collect();
                let next = match found.last() {
                    // A full page may have a successor.
                    Some(last) if found.len() == ListUsers::LIMIT_MAX => {
                        NextPage::After(last.name.clone())
                    }
                    _ => NextPage::None,
                };
                Ok(Some((lines_of(lines.iter()), next)))
            }
        });
        Ok(Answer::long(answer, pages))
    };
    answer(&api, &request, RestRoute::UsersExport, pin!(call)).await
}

/// The page of an export that its caller gets next.
enum NextPage {
    /// It was read already.
    Found(Vec<UserView>),
    /// It begins behind this name.
    After(String),
    /// There is none.
    None,
}

async fn page(api: &Api, after: Option<String>) -> Result<Vec<UserView>, ApiError> {
    let mut asked = ListUsers::new(ListUsers::LIMIT_MAX);
    asked.after = after;
    asked.with_hashes = true;
    in_time_of_users(api, api.0.control.list_users(asked)).await
}

fn user_line(user: &UserView) -> UserLine {
    let hashes = user.hashes.as_ref();
    let secrets = hashes.into_iter().flat_map(|hashes| &hashes.secrets);
    let hexadecimal = |hash: &[u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect();
    UserLine {
        name: user.name.clone(),
        password: None,
        password_hash: hashes.and_then(|hashes| hashes.password.clone()),
        secrets: secrets
            .map(|(hash, at)| SecretLine {
                sha256: hexadecimal(hash),
                created_at: Some(at.millis()),
            })
            .collect(),
        disabled: user.is_disabled,
        groups: user.groups.iter().map(str::to_owned).collect(),
        attributes: user
            .attributes
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        limits: user.limits.map(Into::into),
    }
}

/// Returns lines of JSON.
pub(super) fn lines_of<'a, T: Serialize + 'a>(all: impl Iterator<Item = &'a T>) -> Bytes {
    let mut text = String::new();
    for one in all {
        text.push_str(&serde_json::to_string(one).expect("an answer has text keys only"));
        text.push('\n');
    }
    text.into()
}
