//! `DELETE /api/v1/clients/{id}` ends a client's connection, and `POST /api/v1/clients/kick` those of
//! several clients. Both need `control` for each client.

use std::{fmt::Write as _, pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    rt::time::timeout,
    web::{self, Bytes, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::yield_now;
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer, reserve},
        failures::{
            Caller, Change, ClientId, Elsewhere, Fails, Items as ItemFails, JsonBody, NotOnline,
            Parameters, Permission, Repeating, Selector,
        },
        idempotency::{KeyHeader, once},
    },
    body::{self, BULK_BYTES_MAX, ReadBody},
    bulk::{self, BulkResults, Items, PORTION},
    client::show_client,
    clients::query_clients,
    in_time,
    noted::{JoinedTexts, listed},
    resource, settings,
    target::{ClientInPath, Query, client_id_of_call, is_in_path},
    walk,
};
use crate::{
    auth::Action,
    control::{ControlError, Kick, KickOptions, Kicked, WillOutcome, WillRequest},
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let client = resource("/clients/{id}", ALLOW)
        .route(web::get().to(show_client))
        .route(web::head().to(show_client))
        .route(web::delete().to(kick))
        .route(web::patch().to(settings::change))
        .route(web::post().to(many))
        .default_service(web::to(refuse_method));
    config.service(client);
}

/// The methods of a client. An identifier may be any text, so the calls about many clients, which
/// are `POST`, share its route.
const ALLOW: &str = "GET, HEAD, DELETE, PATCH";

async fn many(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    match bulk_call(&request).as_deref() {
        Some("query") => query_clients(request, payload, api).await,
        Some("kick") => kick_many(request, payload, api).await,
        _ => refuse_method(request).await,
    }
}

/// Returns the identifier in the path, which may name a call about many clients.
fn bulk_call(request: &HttpRequest) -> Option<String> {
    is_in_path(request, "id").then(|| client_id_of_call(request).ok())?
}

/// Answers a method that the path does not have.
async fn refuse_method(request: HttpRequest) -> HttpResponse {
    let allow = match bulk_call(&request).as_deref() {
        Some("query" | "kick") => "GET, HEAD, DELETE, PATCH, POST",
        _ => ALLOW,
    };
    ApiError::method_not_allowed(allow).answer_to(&request)
}

/// Says that a connection has ended.
#[derive(Serialize, ToSchema)]
struct KickAnswer {
    /// Always `true`.
    success: bool,
    /// The node that had the connection, or the session of an absent client.
    #[schema(value_type = String)]
    node: Arc<str>,
}

/// Ends a client's connection, and its session if the call says so.
#[utoipa::path(
    delete, path = "/clients/{client_id}", tag = "clients", operation_id = "kick",
    params(ClientInPath,
        ("session" = Option<String>, Query, pattern = "^(keep|end)$",
         description = "`keep` (default) or `end`: what happens to the session.", example = "keep"),
        ("will" = Option<String>, Query, pattern = "^(publish|discard)$",
         description = "`publish` (default) or `discard`: what happens to the Will.",
         example = "publish"),
        ("reason" = Option<String>, Query, description = "Reason String of DISCONNECT.")),
    responses(
        (status = 200, description = "The connection has ended.", body = KickAnswer,
         example = json!({"success": true, "node": "hearthmq"})),
        Fails<(Caller, Change, Permission, Parameters, ClientId, NotOnline, Elsewhere)>,
    ),
)]
pub(super) async fn kick(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let client_id = client_id_of_call(&request)?;
        let options = options(&request)?;
        caller.permit(&api, &client_id, &[Action::Control])?;
        let kick = kick_by(&caller, &*client_id, options);
        let kicked = in_time(&api, api.0.control.kick(kick)).await?;
        let (target, new) = (Some(ChangedObject::Client(&client_id)), outcome(&kicked));
        let new = Some(&*new);
        caller.tell_changed(&api, Changed { call: "kick", target, old: None, new });
        Ok(Answer::json(&KickAnswer { success: true, node: kicked.node }))
    };
    answer(&api, &request, RestRoute::Client, pin!(call)).await
}

/// Returns the result for one client, for the audit log.
fn outcome(kicked: &Kicked) -> String {
    let client = if kicked.was_online { "disconnected" } else { "absent" };
    let session = if kicked.session_ended { "ended" } else { "kept" };
    let will = match kicked.will {
        WillOutcome::Absent => "no Will",
        WillOutcome::Published => "Will published",
        WillOutcome::Denied => "Will not permitted",
        WillOutcome::Waits => "Will delayed",
        WillOutcome::Discarded => "Will discarded",
    };
    format!("{client}, session {session}, {will}")
}

/// The results for several clients, for the audit log.
#[derive(Default)]
struct KickSums {
    clients: usize,
    kicked: usize,
    disconnected: usize,
    not_online: usize,
    sessions_ended: usize,
    wills_published: usize,
    wills_delayed: usize,
    wills_discarded: usize,
}

impl KickSums {
    fn note(&mut self, result: &Result<Kicked, ApiError>) {
        self.clients += 1;
        match result {
            Ok(kicked) => {
                self.kicked += 1;
                self.disconnected += usize::from(kicked.was_online);
                self.sessions_ended += usize::from(kicked.session_ended);
                match kicked.will {
                    WillOutcome::Published => self.wills_published += 1,
                    WillOutcome::Waits => self.wills_delayed += 1,
                    WillOutcome::Discarded => self.wills_discarded += 1,
                    WillOutcome::Absent | WillOutcome::Denied => {}
                }
            }
            Err(error) => {
                let is_absent = error.code() == ApiError::from(ControlError::NotOnline).code();
                self.not_online += usize::from(is_absent);
            }
        }
    }

    /// Returns the sums that are not zero.
    fn text(&self) -> String {
        let mut text = format!("{} of {} clients", self.kicked, self.clients);
        let mut mark = ": ";
        for (name, sum) in [
            ("disconnected", self.disconnected),
            ("not online", self.not_online),
            ("sessions ended", self.sessions_ended),
            ("Wills published", self.wills_published),
            ("Wills delayed", self.wills_delayed),
            ("Wills discarded", self.wills_discarded),
        ] {
            if sum > 0 {
                let _ = write!(text, "{mark}{name} {sum}");
                mark = ", ";
            }
        }
        text
    }
}

/// Returns the request of this caller.
fn kick_by(caller: &HttpCaller, client_id: impl Into<String>, options: KickOptions) -> Kick {
    let mut kick = Kick::new(client_id, options);
    kick.by.clone_from(&caller.identity.username);
    kick
}

/// Which connections end, and how: `client_ids`, or a selector (`clients`, `username`).
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KickBody<'b> {
    /// These clients.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<String>>, max_items = 10_000)]
    client_ids: Option<Items<&'b RawValue>>,
    /// A pattern for Client Identifiers: `*` stands for any text.
    clients: Option<String>,
    /// The user name of the clients.
    username: Option<String>,
    /// `keep` (default) or `end`: what happens to the sessions.
    #[schema(pattern = "^(keep|end)$")]
    session: Option<String>,
    /// `publish` (default) or `discard`: what happens to the Wills.
    #[schema(pattern = "^(publish|discard)$")]
    will: Option<String>,
    /// Reason String of DISCONNECT.
    reason: Option<String>,
}

/// The result for one client.
#[derive(Serialize, ToSchema)]
struct KickResult<I> {
    /// The `client_id` of the item.
    #[schema(value_type = serde_json::Value)]
    client_id: I,
    /// Whether the connection has ended.
    success: bool,
    /// The node that had the connection, or the session of an absent client.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    node: Option<Arc<str>>,
    /// Why it has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

impl<I> KickResult<I> {
    fn of(client_id: I, result: Result<Kicked, ApiError>) -> Self {
        let (node, code) = match result {
            Ok(kicked) => (Some(kicked.node), None),
            Err(error) => (None, Some(error.code())),
        };
        Self { client_id, success: node.is_some(), node, code }
    }
}

/// Ends the connections of several clients.
///
/// A list has a result for each item, in its order. A selector is answered with one result on each line.
#[utoipa::path(
    post, path = "/clients/kick", tag = "clients", operation_id = "kickClients",
    params(KeyHeader),
    request_body(content = KickBody<'static>, description = "The clients, and how.", examples(
        ("list" = (value = json!({"client_ids": ["car-17", "nobody"]}))),
        ("selector" = (value = json!({"clients": "car-*", "reason": "maintenance"}))))),
    responses(
        (status = 200, description = "A result for each client.", content(
            (BulkResults<KickResult<String>> = "application/json", example = json!({"results": [
                {"client_id": "car-17", "success": true, "node": "hearthmq"},
                {"client_id": "nobody", "success": false, "code": "client_not_online"}]})),
            (KickResult<String> = "application/x-ndjson",
             example = json!({"client_id": "car-17", "success": true, "node": "hearthmq"})))),
        Fails<(Caller, Change, Parameters, JsonBody, ItemFails, Selector, Repeating)>,
    ),
)]
pub(super) async fn kick_many(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let body = body::read_json(&api, &request, payload, BULK_BYTES_MAX).await?;
        let (its, bytes) = ((Data::clone(&api), caller.clone()), body.bytes.clone());
        let kicking = once(&api, &request, &caller, &bytes, kick_listed(its, body));
        drop(bytes);
        kicking.await
    };
    answer(&api, &request, RestRoute::Kick, pin!(call)).await
}

/// Ends the connections that a list or a selector names.
async fn kick_listed(
    (api, caller): (Data<Api>, HttpCaller),
    body: ReadBody,
) -> Result<Answer, ApiError> {
    let wanted: KickBody<'_> = body::parse(&body.bytes)?;
    let asked = (wanted.session.as_deref(), wanted.will.as_deref(), wanted.reason.as_deref());
    let options = options_of(asked)?;
    let Some(list) = wanted.client_ids else {
        let (clients, username) = (wanted.clients, wanted.username);
        return kick_selected(&api, &caller, (clients, username), options);
    };
    if wanted.clients.is_some() || wanted.username.is_some() {
        return Err(ApiError::invalid_body("it needs either client_ids or a selector"));
    }
    list.check()?;
    let bytes = bulk::results_bytes(body.bytes.len(), list.items.len());
    // Before the first client is disconnected, because an error could not name those that were.
    let room = reserve(&api, &caller, bytes)?;
    let (mut results, mut sums) = (Vec::with_capacity(list.items.len()), KickSums::default());
    let mut clients = JoinedTexts::default();
    for portion in list.items.chunks(PORTION) {
        let asked = portion.iter().map(|item| {
            let client_id = bulk::client_id_in(Some(item))?;
            caller.permit(&api, &client_id, &[Action::Control])?;
            Ok(kick_by(&caller, client_id, options.clone()))
        });
        let kicked = kick_each(&api, asked.collect()).await;
        for (item, result) in portion.iter().zip(kicked) {
            if let Ok(client_id) = bulk::client_id_in(Some(item))
                && result.is_ok()
            {
                clients.push(&client_id);
            }
            sums.note(&result);
            results.push(KickResult::of(item, result));
        }
        yield_now().await; // other calls of this worker
    }
    if let Some(names) = clients.text() {
        let target = listed(clients.count(), &names);
        tell_kicked(&api, &caller, target, &sums);
    }
    Ok(Answer::json(&BulkResults { results }).within(room))
}

fn tell_kicked(api: &Api, caller: &HttpCaller, target: ChangedObject<'_>, sums: &KickSums) {
    if sums.kicked == 0 {
        return; // nothing has changed
    }
    let new = sums.text();
    let (target, new) = (Some(target), Some(&*new));
    caller.tell_changed(api, Changed { call: "kick", target, old: None, new });
}

/// Ends each connection that can be ended; returns the results in their order.
async fn kick_each(
    api: &Api,
    wanted: Vec<Result<Kick, ApiError>>,
) -> Vec<Result<Kicked, ApiError>> {
    let asked: Vec<_> = wanted.iter().filter_map(|wanted| wanted.as_ref().ok().cloned()).collect();
    let kicked = timeout(api.options().call_timeout, api.0.control.kick_each(asked)).await;
    let mut answers = kicked.map(Vec::into_iter).ok();
    let results = wanted.into_iter().map(|wanted| {
        wanted?;
        let Some(answers) = &mut answers else { return Err(ControlError::Timeout.into()) };
        Ok(answers.next().ok_or_else(ApiError::unavailable)??)
    });
    results.collect()
}

/// Ends the connections of the clients that a selector selects.
fn kick_selected(
    api: &Api,
    caller: &HttpCaller,
    (clients, username): (Option<String>, Option<String>),
    options: KickOptions,
) -> Result<Answer, ApiError> {
    let mut selector = walk::selector(clients.as_deref(), username.as_deref())?;
    if options.ends_session() {
        // Absent clients have a session too, which the call is to end.
        selector = selector.with_absent();
    }
    let is_pattern = clients.is_some();
    let target: Arc<str> = clients.or(username).unwrap_or_default().into();
    let its = (api.clone(), caller.clone());
    let handle = move |client_ids: Vec<String>| {
        let (its, target) = (its.clone(), Arc::clone(&target));
        let kick = |id: &String| Ok(kick_by(&its.1, &**id, options.clone()));
        let wanted = client_ids.iter().map(kick);
        let wanted: Vec<_> = wanted.collect();
        let handled = async move {
            let (api, caller) = its;
            let kicked = kick_each(&api, wanted).await;
            let mut sums = KickSums::default();
            kicked.iter().for_each(|result| sums.note(result));
            let results = client_ids.iter().zip(kicked);
            let results: Vec<_> = results.map(|(id, it)| KickResult::of(id, it)).collect();
            let target = ChangedObject::selected(is_pattern, &target);
            tell_kicked(&api, &caller, target, &sums);
            results.iter().map(walk::line).collect::<Vec<Bytes>>()
        };
        Box::pin(handled) as _
    };
    walk::walk(api, caller, selector, Box::new(handle))
}

/// Parses how a connection ends, from a query.
fn options(request: &HttpRequest) -> Result<KickOptions, ApiError> {
    let query = Query::of(request, &["session", "will", "reason"])?;
    let (session, will) = (query.text("session")?, query.text("will")?);
    options_of((session.as_deref(), will.as_deref(), query.text("reason")?.as_deref()))
}

/// Returns how a connection ends: what happens to the session and the Will, and the Reason String.
fn options_of(
    (session, will, reason): (Option<&str>, Option<&str>, Option<&str>),
) -> Result<KickOptions, ApiError> {
    let mut options = match session {
        None | Some("keep") => KickOptions::new(),
        Some("end") => KickOptions::new().end_session(),
        Some(_) => return Err(ApiError::invalid_parameter("session", "must be keep or end")),
    };
    match will {
        None | Some("publish") => {}
        Some("discard") => options = options.will(WillRequest::Discard),
        Some(_) => return Err(ApiError::invalid_parameter("will", "must be publish or discard")),
    }
    match reason {
        None => Ok(options),
        Some(reason) => options
            .reason_string(reason)
            .map_err(|error| ApiError::invalid_parameter("reason", &error.to_string())),
    }
}
