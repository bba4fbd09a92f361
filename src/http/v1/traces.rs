//! `/api/v1/traces`: every packet of a client for a time. Needs `observe` for the client; contents of
//! messages need `administer` as well.
//!
//! A caller sees the traces of its account; one that may administer sees all.

mod described;
mod stream;

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use self::{
    described::{NewTrace, ShownRecord, TraceInPath, TraceStarted},
    stream::TraceStream,
};
use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        error::ClientIdError,
        failures::{
            Caller, Change, Fails, Following, JsonBody, NoTrace, Parameters, Permission, TraceForm,
        },
        live::{LiveFormat, StandingCheck, ending, live_response},
    },
    Done, body, in_time,
    page::{AskedPage, PageAnswer, PageParameters},
    resource,
    target::{Query, raw_segment},
};
use crate::{
    auth::{Action, Network},
    control::{
        ControlError, StartTrace, TRACE_SECS, TRACE_SECS_MAX, TraceKind, TraceTarget, TraceView,
    },
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

/// Maximum bytes of the body of a trace: a Client Identifier, escaped.
const BODY_BYTES_MAX: usize = 512 * 1024;
/// Maximum bytes of a Client Identifier or a user name.
const NAME_BYTES_MAX: usize = 65_535;

pub(super) fn routes(config: &mut ServiceConfig) {
    let all = resource("/traces", "GET, HEAD, POST")
        .route(web::get().to(list))
        .route(web::head().to(list))
        .route(web::post().to(start));
    let one = resource("/traces/{id}", "GET, HEAD, DELETE")
        .route(web::get().to(show))
        .route(web::head().to(show))
        .route(web::delete().to(end));
    config.service(all).service(one);
}

/// A trace.
#[derive(Serialize, ToSchema)]
#[schema(as = Trace)]
struct TraceAnswer {
    /// Its identifier.
    #[schema(value_type = String)]
    id: Arc<str>,
    /// The client whose packets it records.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    client_id: Option<Arc<str>>,
    /// The user whose clients it records.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    username: Option<Arc<str>>,
    /// The address or network whose clients it records.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The kinds that it records; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    kinds: Option<Vec<&'static str>>,
    /// Whether it records contents of messages.
    payloads: bool,
    /// The user name of the caller that has started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    by: Option<Arc<str>>,
    /// When it was started, in milliseconds since the Unix epoch.
    started_at: u64,
    /// When it ends or has ended, in milliseconds since the Unix epoch.
    ends_at: u64,
    /// Whether it still records.
    running: bool,
    /// The number of records so far.
    records: u64,
    /// The number of records that left to make room for newer ones.
    dropped: u64,
    /// The number of packets that were not recorded, because more came in a second than it records.
    skipped: u64,
    /// Bytes of the records that are kept.
    bytes: usize,
    /// The number of connections that it follows at present.
    connections: usize,
}

impl From<TraceView> for TraceAnswer {
    fn from(trace: TraceView) -> Self {
        let (mut client_id, mut username, mut address) = (None, None, None);
        match trace.target {
            TraceTarget::Client(id) => client_id = Some(id),
            TraceTarget::User(name) => username = Some(name),
            TraceTarget::Network(network) => address = Some(network.to_string()),
        }
        let kinds = trace.kinds.map(|kinds| kinds.iter().map(|kind| kind.name()).collect());
        Self {
            id: trace.id,
            client_id,
            username,
            address,
            kinds,
            payloads: trace.payloads,
            by: trace.by,
            started_at: trace.started_at_millis,
            ends_at: trace.ends_at_millis,
            running: trace.is_running,
            records: trace.records,
            dropped: trace.dropped,
            skipped: trace.skipped,
            bytes: trace.bytes,
            connections: trace.connections,
        }
    }
}

/// Lists the traces of the caller, or all for a caller that may administer, in the order in which they
/// were started.
#[utoipa::path(
    get, path = "/traces", tag = "clients", operation_id = "listTraces", params(PageParameters),
    responses(
        (status = 200, description = "A page of traces.", body = PageAnswer<TraceAnswer>,
         example = json!({"items": [{"id": "5b1e0c6f0a93d724", "client_id": "car-17",
            "payloads": false, "by": "admin", "started_at": 1_764_321_000_000_u64,
            "ends_at": 1_764_321_060_000_u64, "running": true, "records": 12, "dropped": 0,
            "skipped": 0, "bytes": 3_210, "connections": 1}]})),
        Fails<(Caller, Parameters)>,
    ),
)]
pub(super) async fn list(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let page = AskedPage::of(&Query::parse(request.query_string(), &["limit", "cursor"])?)?;
        let text = page.begin(&api, &caller)?;
        let mut traces = in_time(&api, api.0.control.list_traces()).await?;
        traces.retain(|trace| is_shown(&api, &caller, trace));
        traces.sort_by_key(key_of);
        traces.retain(|trace| page.after.as_ref().is_none_or(|after| *key_of(trace) > **after));
        let has_more = page.cut(&mut traces);
        text.answer(traces, has_more, key_of, |trace| Ok(TraceAnswer::from(trace)))
    };
    answer(&api, &request, RestRoute::Traces, pin!(call)).await
}

fn key_of(trace: &TraceView) -> String {
    format!("{:016x} {}", trace.started_at_millis, trace.id)
}

/// Returns whether a trace is of the caller's account, or the caller may administer.
fn is_shown(api: &Api, caller: &HttpCaller, trace: &TraceView) -> bool {
    trace.by == caller.identity.username || caller.may(api, "", Action::Administer)
}

/// Starts a trace: every packet of a client, in both directions, for a time.
///
/// It follows the client over connections, and records refused CONNECTs and why connections end. It never
/// has passwords, tokens or Authentication Data. Of a trace by `username` or `address`, any account may
/// be the caller; it has the packets of clients for which the account has `observe`. `payloads` needs
/// `administer`. It does not survive a restart.
#[utoipa::path(
    post, path = "/traces", tag = "clients", operation_id = "startTrace",
    request_body(content = NewTrace, description = "Exactly one of `client_id`, `username` and \
        `address`.", example = json!({"client_id": "car-17", "duration_seconds": 60})),
    responses(
        (status = 200, description = "The trace has begun.", body = TraceStarted, example = json!(
            {"success": true, "id": "5b1e0c6f0a93d724", "ends_at": 1_764_321_060_000_u64})),
        Fails<(Caller, Change, Permission, Parameters, JsonBody, TraceForm)>,
    ),
)]
pub(super) async fn start(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        Query::parse(request.query_string(), &[])?;
        let wanted = body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let wanted = request_of(wanted)?.by(caller.as_data());
        if let TraceTarget::Client(client_id) = &wanted.target {
            caller.permit(&api, client_id, &[Action::Observe])?;
        }
        // A trace with payloads shows messages of all
        // publishers, whatever the caller may subscribe to.
        if wanted.payloads && !caller.may(&api, "", Action::Administer) {
            return Err(ApiError::forbidden_to_administer());
        }
        let trace = in_time(&api, api.0.control.start_trace(wanted)).await?;
        tell_changed(&api, &caller, &trace, (None, Some(&shown(&trace))));
        let (id, ends_at) = (trace.id, trace.ends_at_millis);
        Ok(Answer::json(&TraceStarted { success: true, id, ends_at }))
    };
    answer(&api, &request, RestRoute::Traces, pin!(call)).await
}

/// Returns what a trace records, for the audit log.
fn shown(trace: &TraceView) -> String {
    let secs = trace.ends_at_millis.saturating_sub(trace.started_at_millis) / 1_000;
    let payloads = if trace.payloads { " with payloads" } else { "" };
    format!("{secs} s{payloads}")
}

fn tell_changed(
    api: &Api,
    caller: &HttpCaller,
    trace: &TraceView,
    (old, new): (Option<&str>, Option<&str>),
) {
    let network;
    let target = match &trace.target {
        TraceTarget::Client(client_id) => ChangedObject::Client(client_id),
        TraceTarget::User(username) => ChangedObject::User(username),
        TraceTarget::Network(of) => {
            network = of.to_string();
            ChangedObject::Address(&network)
        }
    };
    caller.tell_changed(api, Changed { call: "trace", target: Some(target), old, new });
}

fn request_of(wanted: NewTrace) -> Result<StartTrace, ApiError> {
    let NewTrace { client_id, username, address, duration_seconds, payloads, kinds } = wanted;
    let target = match (client_id, username, address) {
        (Some(client_id), None, None) => TraceTarget::Client(checked_id(client_id)?),
        (None, Some(username), None) => {
            if username.is_empty() || username.len() > NAME_BYTES_MAX {
                return Err(ApiError::invalid_trace("username must have 1 to 65535 bytes"));
            }
            TraceTarget::User(username.into())
        }
        (None, None, Some(address)) => {
            let network = address.parse::<Network>();
            let wrong = |error| ApiError::invalid_trace(&format!("address: {error}"));
            TraceTarget::Network(network.map_err(wrong)?)
        }
        _ => {
            let expected = "it has exactly one of client_id, username and address";
            return Err(ApiError::invalid_trace(expected));
        }
    };
    let secs = duration_seconds.unwrap_or(TRACE_SECS);
    if !(1..=TRACE_SECS_MAX).contains(&secs) {
        let expected = "duration_seconds must be a whole number from 1 to 3600";
        return Err(ApiError::invalid_trace(expected));
    }
    let mut request = StartTrace::new(target).lasting(secs);
    if payloads == Some(true) {
        request = request.with_payloads();
    }
    if let Some(names) = kinds {
        // At most as many names as there are kinds.
        let kinds = names.iter().map(|name| TraceKind::from_name(name));
        let kinds =
            kinds.collect::<Option<Vec<_>>>().filter(|kinds| (1..=18).contains(&kinds.len()));
        let expected = "kinds must be names of packets or events, such as publish";
        request = request.kinds(kinds.ok_or_else(|| ApiError::invalid_trace(expected))?);
    }
    Ok(request)
}

fn checked_id(client_id: String) -> Result<Arc<str>, ApiError> {
    if client_id.is_empty() {
        return Err(ApiError::invalid_trace("client_id must not be empty"));
    }
    if client_id.contains('\0') {
        return Err(ApiError::invalid_client_id(ClientIdError::Null));
    }
    if client_id.len() > NAME_BYTES_MAX {
        return Err(ApiError::invalid_client_id(ClientIdError::TooLong));
    }
    Ok(client_id.into())
}

/// Returns the trace in the path, if the caller may see it.
async fn found(
    api: &Api,
    request: &HttpRequest,
    caller: &HttpCaller,
) -> Result<TraceView, ApiError> {
    let id = raw_segment(request, "{id}");
    let trace = in_time(api, api.0.control.find_trace(id)).await?;
    match is_shown(api, caller, &trace) {
        true => Ok(trace),
        false => Err(ControlError::TraceNotFound.into()),
    }
}

/// Checks that the caller may read the records of a trace that it may see.
fn may_read(api: &Api, caller: &HttpCaller, trace: &TraceView) -> Result<(), ApiError> {
    if let TraceTarget::Client(client_id) = &trace.target {
        caller.permit(api, client_id, &[Action::Observe])?;
    }
    match !trace.payloads || caller.may(api, "", Action::Administer) {
        true => Ok(()),
        false => Err(ApiError::forbidden_to_administer()),
    }
}

/// Where a caller begins to read, and whether it follows.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described here")]
struct ReadingParameters {
    /// Streams: the records behind the one with this number.
    after: Option<u64>,
    /// Streams: `false` ends with the last record so far.
    follow: Option<bool>,
}

/// Shows a trace, or its records.
///
/// The header `Accept` chooses: Server-Sent Events or lines of JSON have the records so far, and then each
/// further one as it comes, until the trace ends; otherwise the answer is the state of the trace. A caller
/// that reads more slowly than records come misses the oldest, and is told how many. The last line of a
/// trace that has ended has the kind `trace_ended`.
#[utoipa::path(
    get, path = "/traces/{id}", tag = "clients", operation_id = "showTrace",
    params(TraceInPath, ReadingParameters,
        ("Last-Event-ID" = Option<String>, Header,
         description = "streams: the same number as `after`, with precedence")),
    responses(
        (status = 200, description = "The trace, or its records.", content(
            (TraceAnswer = "application/json", example = json!({"id": "5b1e0c6f0a93d724",
                "client_id": "car-17", "payloads": false, "by": "admin",
                "started_at": 1_764_321_000_000_u64, "ends_at": 1_764_321_060_000_u64,
                "running": true, "records": 12, "dropped": 0, "skipped": 0, "bytes": 3_210,
                "connections": 1})),
            (ShownRecord = "application/x-ndjson", example = json!({"number": 12,
                "at": 1_764_321_000_512_u64, "micros": 512_034, "client_id": "car-17",
                "address": "192.0.2.7:40000", "direction": "in", "kind": "publish", "bytes": 17,
                "packet_id": 7, "topic": "a/b", "qos": 1, "retain": false, "dup": false,
                "payload_bytes": 5})),
            (String = "text/event-stream",
             example = "id: 12\ndata: {\"number\":12,\"kind\":\"pingreq\"}\n\n"))),
        Fails<(Caller, Permission, Parameters, NoTrace, Following)>,
    ),
)]
pub(super) async fn show(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let format =
        LiveFormat::of(&request).filter(|_| request.method() != actix_web::http::Method::HEAD);
    let mut stream = None;
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let standing = StandingCheck::of(&caller);
        let known: &[_] = if format.is_some() { &["after", "follow"] } else { &[] };
        let query = Query::parse(request.query_string(), known)?;
        let trace = found(&api, &request, &caller).await?;
        let Some(format) = format else { return Ok(Answer::json(&TraceAnswer::from(trace))) };
        // The state of a trace may be seen with less than its records.
        may_read(&api, &caller, &trace)?;
        let after = position(&request, &query)?;
        let follows = query.flag("follow")?.unwrap_or(true);
        let place = api.0.followers.enter(&api, &caller)?;
        let reader =
            stream::TraceReader { api: Arc::clone(&api), caller, standing, trace, _place: place };
        stream =
            Some((format, TraceStream::new((format, after, follows), reader, ending(&request))));
        Ok(Answer::json_text(String::new()))
    };
    let refused = answer(&api, &request, RestRoute::Trace, pin!(call)).await;
    match stream {
        None => refused,
        Some((format, stream)) => {
            live_response(&request, format.content_type(), stream.into_chunks())
        }
    }
}

/// Returns the number behind which a caller begins to read. A browser that connects again has the same
/// query, and a newer header.
fn position(request: &HttpRequest, query: &Query<'_>) -> Result<u64, ApiError> {
    let header = request.headers().get("Last-Event-ID").filter(|value| !value.is_empty());
    let Some(header) = header else {
        return Ok(query.number("after", 0..=u64::MAX)?.unwrap_or_default());
    };
    let number = header.to_str().ok().and_then(|text| text.parse().ok());
    let expected = "must be the number of a record";
    number.ok_or_else(|| ApiError::invalid_parameter("Last-Event-ID", expected))
}

/// Ends a trace, and removes its records.
#[utoipa::path(
    delete, path = "/traces/{id}", tag = "clients", operation_id = "endTrace", params(TraceInPath),
    responses(
        (status = 200, description = "The trace is gone.", body = Done,
         example = json!({"success": true})),
        Fails<(Caller, Change, Parameters, NoTrace)>,
    ),
)]
pub(super) async fn end(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        Query::parse(request.query_string(), &[])?;
        let trace = found(&api, &request, &caller).await?;
        let trace = in_time(&api, api.0.control.end_trace(&trace.id)).await?;
        tell_changed(&api, &caller, &trace, (Some(&shown(&trace)), Some("none")));
        Ok(Answer::json(&Done::NOW))
    };
    answer(&api, &request, RestRoute::Trace, pin!(call)).await
}
