//! `GET /api/v1/openapi.json`: all calls in OpenAPI 3.1, for programs.
//!
//! The annotations are beside the calls. This file lists the calls, and adds what they have in common. A
//! test compares the list with the routes. Needs no account: it says the same to everybody.
//!
//! The answer is a file, `openapi.json`, which a test makes from the annotations. So the program has no
//! code of the annotations, and needs no memory to make the document.

mod exact;
mod without_names;

use std::sync::OnceLock;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Components, License, OpenApi as Document, PathItem, Server,
        path::Operation,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use self::{exact::make_exact, without_names::add_calls_without_names};
use super::{
    super::{
        Api, calls, error::ErrorBody, failures, fixed::FixedAnswer, health, problem::ProblemBody,
    },
    advice, audit, bans, bridges, busiest, certificates, check, client, clients, cluster, contents,
    events, history, keep_alive, kick, logins, me, messages, node, overrides, pins, program,
    publish, redirect, request, resource, rules, session, settings, status, sticky, subscriptions,
    tokens, topics, traces, trends, users,
};

#[derive(OpenApi)]
#[openapi(paths(
    advice::advice,
    busiest::busiest,
    bridges::list,
    bridges::show,
    bridges::change,
    bridges::reconnect,
    client::show_client,
    clients::list_clients,
    clients::query_clients,
    cluster::cluster,
    contents::subscriptions,
    contents::queue,
    contents::clear,
    events::events,
    history::history,
    keep_alive::keep_alive,
    kick::kick,
    kick::kick_many,
    node::node,
    node::stats,
    trends::history,
    me::me,
    messages::messages,
    program::configuration,
    program::show_log,
    program::change_log,
    session::show,
    session::log_in,
    session::log_out,
    overrides::list,
    overrides::find,
    overrides::remove,
    overrides::remove_selected,
    publish::publish_list,
    request::request,
    redirect::redirect,
    redirect::accept,
    redirect::state,
    rules::list,
    rules::create,
    rules::show,
    rules::replace,
    rules::remove,
    tokens::list,
    tokens::create,
    tokens::show,
    tokens::remove,
    bans::list,
    bans::create,
    bans::show,
    bans::remove,
    audit::list,
    logins::list,
    logins::show,
    logins::forget,
    check::check,
    settings::change,
    settings::change_of_user,
    status::status,
    sticky::list,
    sticky::find,
    sticky::remove,
    sticky::remove_selected,
    sticky::list_of_users,
    sticky::find_of_user,
    sticky::remove_of_user,
    subscriptions::subscribe,
    subscriptions::unsubscribe,
    topics::receivers,
    topics::list,
    topics::show,
    topics::clear,
    traces::list,
    traces::start,
    traces::show,
    traces::end,
    users::list_users,
    users::create_user,
    users::show_user,
    users::change_user,
    users::remove_user,
    users::credentials::set_password,
    users::credentials::add_secret,
    users::credentials::remove_secret,
    users::import::import_users,
    users::export::export_users,
    certificates::list_certificates,
    certificates::list_revoked,
    certificates::revoke,
    certificates::restore,
    pins::list_pins,
    pins::show_pin,
    pins::remove_pin,
    openapi,
))]
struct V1Calls;

#[derive(OpenApi)]
#[openapi(
    paths(calls::keep_alive, calls::status, publish::publish, health::live, health::ready, health::metrics),
    nest((path = "/api/v1", api = V1Calls)),
    components(schemas(ErrorBody<'static>, ProblemBody<'static>, events::ShownBatch)),
    security(("basic" = []), ("bearer" = []), ("certificate" = []), ("cookie" = [])),
    tags(
        (name = "keep-alive", description = "The Keep Alive of clients, now and for later connections."),
        (name = "clients", description = "Which clients there are; end or redirect their connections."),
        (name = "sessions", description = "Subscriptions and waiting messages of clients."),
        (name = "messages", description = "Publish; who receives a message; retained messages."),
        (name = "events", description = "Follow which clients are online."),
        (name = "access", description = "Permissions and their changes: rules, API tokens, bans, failed logins, and the audit log."),
        (name = "users", description = "Accounts in the broker's store."),
        (name = "bridges", description = "Connections to other brokers."),
        (name = "certificates", description = "Certificates of connected clients, revoked ones, and pinned ones."),
        (name = "node", description = "The node, its health and its metrics."),
    ),
    modifiers(&InCommon),
)]
struct AllCalls;

/// Adds the parts of the document that all calls have in common.
struct InCommon;

impl Modify for InCommon {
    fn modify(&self, document: &mut Document) {
        let info = &mut document.info;
        info.title = "HearthMQ".to_owned();
        info.version = env!("CARGO_PKG_VERSION").to_owned();
        info.description = Some(ABOUT.to_owned());
        info.license = Some(
            License::builder()
                .name(env!("CARGO_PKG_LICENSE"))
                .identifier(Some(env!("CARGO_PKG_LICENSE")))
                .build(),
        );
        // From the place of the document to that of the routes, wherever an application mounts them.
        document.servers = Some(vec![Server::new("../..")]);
        let components = document.components.get_or_insert_with(Components::new);
        components.responses.extend(failures::shared());
        let basic = HttpBuilder::new().scheme(HttpAuthScheme::Basic);
        let basic = basic.description(Some("An account of the broker.")).build();
        components.add_security_scheme("basic", SecurityScheme::Http(basic));
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let bearer = bearer.description(Some("A token.")).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let cookie = ApiKeyValue::with_description("__Host-hearthmq", COOKIE);
        components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
        let certificate = SecurityScheme::MutualTls {
            description: Some("A client certificate, on an HTTPS listener.".to_owned()),
            deprecated: None,
            extensions: None,
        };
        components.add_security_scheme("certificate", certificate);
        document.paths.paths.values_mut().for_each(name_apart);
    }
}

/// Gives the second of two methods with the same annotation a name of its own.
fn name_apart(path: &mut PathItem) {
    let name = |operation: &Option<Operation>| operation.as_ref()?.operation_id.clone();
    let (get, post) = (name(&path.get), name(&path.post));
    if let Some(post) = path.post.as_mut().filter(|_| get.is_some() && get == post) {
        post.operation_id = get.map(|name| format!("{name}ByPost"));
    }
}

/// The introduction of the document.
const ABOUT: &str = "Control of live MQTT sessions. `docs/rest.md` describes the calls in full.\n\n\
    Each `GET` is also there as `HEAD`. A call that the caller may not make, or that fails, changes \
    nothing. Every error has a body with `success`, `code` and `message`. Answers to accounts with a rate \
    limit have `RateLimit-Policy` and `RateLimit`. Times are milliseconds since the Unix epoch. Client \
    Identifiers in paths are percent-encoded; `%2F` is a slash that belongs to the identifier. For names that do not fit a path, such as \
    `..`, the same calls have them in the query.";

/// Describes the cookie of a page.
const COOKIE: &str = "The cookie of a login on a page, together with the header `X-HearthMQ-Console`. Its \
    name ends with the port of the URL, if that has one.";

/// The document: what [`describe_calls`] returns.
const DOCUMENT: &str = include_str!("openapi.json");

/// The document as it is sent.
#[derive(Default)]
pub(in crate::http) struct Described(OnceLock<FixedAnswer>);

impl Described {
    fn answer(&self) -> &FixedAnswer {
        self.0.get_or_init(|| FixedAnswer::new("application/json", DOCUMENT))
    }
}

/// Makes the document from the annotations, for the test that compares it with the file. The program
/// does not call it, so the linker leaves out all that describes calls.
#[doc(hidden)]
#[must_use]
pub fn describe_calls() -> String {
    let mut document = json!(AllCalls::openapi());
    document["webhooks"] = events::webhooks();
    add_calls_without_names(&mut document);
    make_exact(&mut document);
    in_lines(&document, LINE_DEPTH) + "\n"
}

/// Each method of a path, and each schema, is one line of the file.
const LINE_DEPTH: usize = 3;

/// Writes members on lines of their own, down to this depth.
fn in_lines(value: &Value, depth: usize) -> String {
    match value {
        Value::Object(members) if depth > 0 && !members.is_empty() => {
            let lines: Vec<_> = members
                .iter()
                .map(|(name, value)| format!("{}:{}", json!(name), in_lines(value, depth - 1)))
                .collect();
            format!("{{\n{}\n}}", lines.join(",\n"))
        }
        Value::Object(_)
        | Value::Array(_)
        | Value::String(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_) => value.to_string(),
    }
}

pub(super) fn routes(config: &mut ServiceConfig) {
    let document = resource("/openapi.json", "GET, HEAD");
    config.service(document.route(web::get().to(openapi)).route(web::head().to(openapi)));
}

/// Returns this document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "node", operation_id = "openapi", security(()),
    responses(
        (status = 200, description = "The document.", body = Object,
         example = json!({"openapi": "3.1.0"})),
        (status = 304, description = "It is the same as that of `If-None-Match`."),
        failures::Fails<(failures::OtherMethod, failures::Rate)>,
    ),
)]
async fn openapi(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    api.0.described.answer().answer_to(&api, &request)
}
