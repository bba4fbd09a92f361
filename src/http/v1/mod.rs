//! The calls below `/api/v1`.
//!
//! Each file has the calls about one subject and their routes. [`target`] and [`body`] parse what a
//! call is about; [`bulk`] has what calls about several clients have in common. [`openapi`] describes
//! the calls for programs.

#![expect(unused_qualifications, reason = "utoipa writes out the paths in its annotations")]

mod advice;
mod audit;
mod bans;
mod body;
mod bridges;
mod bulk;
mod busiest;
mod certificates;
mod check;
mod client;
mod clients;
mod cluster;
mod contents;
mod cursor;
mod docs;
mod etag;
mod events;
mod history;
mod keep_alive;
mod kick;
mod logins;
mod me;
mod messages;
mod named;
mod node;
mod noted;
mod openapi;
mod overrides;
mod page;
mod pins;
mod program;
mod publish;
mod redirect;
mod removal;
mod request;
mod rules;
mod session;
mod settings;
mod settings_of;
mod status;
mod sticky;
mod subscriptions;
mod summary;
mod target;
mod tokens;
mod topics;
mod traces;
mod trends;
mod users;
mod waiting;
mod walk;

use std::future::ready;

use actix_web::{
    HttpRequest, Resource,
    middleware::from_fn,
    rt::time::timeout,
    web::{self, ServiceConfig},
};
use serde::Serialize;
use utoipa::ToSchema;

#[doc(hidden)]
pub use self::openapi::describe_calls;
pub(super) use self::{docs::DocsFiles, openapi::Described, publish::topics};
use super::{Api, ApiError, stay_with_http};
use crate::control::{ControlError, UsersError};

/// Says that a change was made.
#[derive(Serialize, ToSchema)]
struct Done {
    /// Always `true`.
    success: bool,
}

impl Done {
    const NOW: Self = Self { success: true };
}

/// A page of a list may take this many times the timeout of calls.
const LIST_TIMEOUTS: u32 = 10;

/// Registers the routes.
pub(super) fn routes(config: &mut ServiceConfig) {
    let calls = web::scope("/api/v1")
        .wrap(from_fn(stay_with_http))
        .configure(keep_alive::routes)
        .configure(advice::routes)
        .configure(busiest::routes)
        .configure(bridges::routes)
        .configure(certificates::routes)
        .configure(pins::routes)
        .configure(clients::routes)
        .configure(cluster::routes)
        .configure(events::routes)
        .configure(contents::routes)
        .configure(history::routes)
        .configure(kick::routes)
        .configure(overrides::routes)
        .configure(publish::routes)
        .configure(redirect::routes)
        .configure(request::routes)
        .configure(node::routes)
        .configure(trends::routes)
        .configure(me::routes)
        .configure(session::routes)
        .configure(messages::routes)
        .configure(program::routes)
        .configure(openapi::routes)
        .configure(docs::routes)
        .configure(check::routes)
        .configure(rules::routes)
        .configure(bans::routes)
        .configure(tokens::routes)
        .configure(audit::routes)
        .configure(logins::routes)
        .configure(status::routes)
        .configure(sticky::routes)
        .configure(subscriptions::routes)
        .configure(topics::routes)
        .configure(traces::routes)
        .configure(users::routes)
        .default_service(web::to(async |request: HttpRequest| {
            ApiError::not_found().answer_to(&request)
        }));
    config.service(calls);
}

/// Returns a resource that answers methods without a route of their own with 405 and this `Allow`
/// header. It is also at the path without the names that `path` may have.
fn resource(path: &'static str, allow: &'static str) -> Resource {
    let refuse =
        move |request: HttpRequest| ready(ApiError::method_not_allowed(allow).answer_to(&request));
    let without_names = target::path_without_names(path);
    let paths: Vec<_> = [path].into_iter().chain(without_names).collect();
    web::resource(paths).default_service(web::to(refuse))
}

/// Waits for the broker as long as a list may take, which may examine all clients.
async fn in_time_of_list<T>(
    api: &Api,
    reply: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ApiError> {
    match timeout(LIST_TIMEOUTS * api.options().call_timeout, reply).await {
        Ok(reply) => Ok(reply?),
        Err(_) => Err(ApiError::timeout()),
    }
}

/// Waits for a change of accounts, which may wait for a turn to hash a password.
async fn in_time_of_users<T>(
    api: &Api,
    reply: impl Future<Output = Result<T, UsersError>>,
) -> Result<T, ApiError> {
    let options = api.options();
    match timeout(options.call_timeout + options.login_timeout, reply).await {
        Ok(reply) => Ok(reply?),
        Err(_) => Err(ApiError::timeout()),
    }
}

/// Waits for the broker with the timeout of calls.
async fn in_time<T>(
    api: &Api,
    reply: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ApiError> {
    match timeout(api.options().call_timeout, reply).await {
        Ok(reply) => Ok(reply?),
        Err(_) => Err(ApiError::timeout()),
    }
}
