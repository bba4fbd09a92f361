//! `GET /api/v1/events`: a snapshot of the clients that are online, then every change.
//!
//! As Server-Sent Events or lines of JSON, which go on until the caller leaves, or as one JSON answer
//! with the next part. A caller sees the clients that it may observe.

mod described;
mod stream;

use std::{pin::pin, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use utoipa::ToSchema;

pub(super) use self::described::{ShownBatch, ShownEvent, webhooks};
use self::stream::FeedStream;
use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{Caller, Fails, Following, Parameters},
        live::{LiveFormat, ReplaceableCall, StandingCheck, ending, live_response},
        shares::OwnShare,
    },
    resource,
    target::Query,
};
use crate::{
    control::{ClientPattern, FeedFilter, FeedItem, FeedKind, FeedPart, FeedPosition, Follow},
    metrics::RestRoute,
};

/// Maximum time that one answer waits for a change, in seconds. Shorter than the time for an answer.
const WAIT_SECS_MAX: u64 = 60;
/// Maximum number of items of one answer.
const ITEMS_MAX: u64 = 10_000;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/events", "GET").route(web::get().to(events)));
}

/// A follower that was admitted.
struct Follower {
    caller: HttpCaller,
    admission: StandingCheck,
    follow: Follow,
    _place: OwnShare,
}

/// The next part of the feed.
#[derive(ToSchema)]
#[schema(as = Events)]
#[expect(dead_code, reason = "only described here; `text_of` writes it")]
struct EventsPart {
    /// The events.
    events: Vec<ShownEvent>,
    /// Where the next part begins, for `after`.
    next: String,
}

/// Follows which clients are online: a snapshot, then every change.
///
/// The header `Accept` chooses the format: Server-Sent Events or lines of JSON, which go on until the caller
/// leaves; otherwise one JSON object with the next part. The caller sees the clients for which it has
/// `observe`.
#[utoipa::path(
    get, path = "/events", tag = "events", operation_id = "events",
    params(
        ("client_id" = Option<String>, Query,
         description = "only clients whose identifier matches this pattern; `*` stands for any text"),
        ("username" = Option<String>, Query, description = "only clients of this user"),
        ("kinds" = Option<Vec<String>>, Query, style = Form, explode = false,
         description = "only changes of these kinds", example = json!(["client_connected"])),
        ("last_event_id" = Option<String>, Query,
         description = "streams: continue behind this event"),
        ("Last-Event-ID" = Option<String>, Header,
         description = "streams: the same; has precedence"),
        ("after" = Option<String>, Query,
         description = "long poll: the `next` of the last answer, or the id of an event"),
        ("wait" = Option<u64>, Query, maximum = 60,
         description = "long poll: seconds to wait for a change if there is none"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 10_000,
         description = "long poll: maximum number of events; default 1,000"),
    ),
    responses(
        (status = 200, description = "Events.", content(
            (EventsPart = "application/json", example = json!({"events": [{
                "id": "5b1e0c6f0a93d724.4101", "event": "snapshot_end", "data": {
                "event": "snapshot.end", "node": "hearthmq", "timestamp": 1_764_321_000_000_u64}}],
                "next": "5b1e0c6f0a93d724.4101"})),
            (ShownEvent = "application/x-ndjson", example = json!({
                "id": "5b1e0c6f0a93d724.4101", "event": "snapshot_end", "data": {
                "event": "snapshot.end", "node": "hearthmq", "timestamp": 1_764_321_000_000_u64}})),
            (String = "text/event-stream", example = "id: 5b1e0c6f0a93d724.4101\nevent: snapshot_end\ndata: {\"event\":\"snapshot.end\"}\n\n"))),
        Fails<(Caller, Parameters, Following)>,
    ),
)]
pub(super) async fn events(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let Some(format) = LiveFormat::of(&request) else {
        let call = async {
            let follower = begin(&request, &api).await?;
            let Follower { caller, mut admission, follow, _place } = follower;
            // Ends the connection when its caller leaves,
            // so that the call does not wait for nobody.
            let _awaited = (!follow.wait.is_zero()).then(|| ReplaceableCall::begin(&request));
            let ending = ending(&request);
            let part = tokio::select! {
                // A call that waits must not hold up the end of the server.
                () = ending => return Err(ApiError::unavailable()),
                () = admission.lost(&api, &caller) => return Err(ApiError::unauthenticated()),
                part = api.0.control.follow(follow) => part?,
            };
            Ok(Answer::json_text(text_of(&part)))
        };
        return answer(&api, &request, RestRoute::Events, pin!(call)).await;
    };
    let mut stream = None;
    let call = async {
        let follower = begin(&request, &api).await?;
        stream =
            Some(FeedStream::begin(format, follower, Arc::clone(&api), ending(&request)).await?);
        Ok(Answer::json_text(String::new()))
    };
    let refused = answer(&api, &request, RestRoute::Events, pin!(call)).await;
    match stream {
        None => refused,
        Some(stream) => live_response(&request, format.content_type(), stream.into_chunks()),
    }
}

async fn begin(request: &HttpRequest, api: &Api) -> Result<Follower, ApiError> {
    let caller = admission::admit(api, request, CallEffect::Looks).await?;
    let admission = StandingCheck::of(&caller);
    let follow = follow_of(request, LiveFormat::of(request).is_some())?.by(caller.as_data());
    let place = api.0.followers.enter(api, &caller)?;
    Ok(Follower { caller, admission, follow, _place: place })
}

/// Parses what the caller wants to follow, and from where on.
fn follow_of(request: &HttpRequest, is_live: bool) -> Result<Follow, ApiError> {
    let known: &[&str] = match is_live {
        true => &["client_id", "username", "kinds", "last_event_id"],
        false => &["client_id", "username", "kinds", "after", "wait", "limit"],
    };
    let query = Query::parse(request.query_string(), known)?;
    let expected = "must be an id or a next of an earlier answer";
    let parse = |text: &str| text.parse::<FeedPosition>().ok();
    let position = match is_live {
        true => query.value("last_event_id", expected, parse)?,
        false => query.value("after", expected, parse)?,
    };
    // A browser that connects again has the same query, and a newer header.
    let header = request.headers().get("Last-Event-ID").filter(|value| !value.is_empty());
    let position = match header.filter(|_| is_live) {
        None => position,
        Some(header) => {
            let id = header.to_str().ok().and_then(parse);
            Some(id.ok_or_else(|| ApiError::invalid_parameter("Last-Event-ID", expected))?)
        }
    };
    let mut follow = Follow::new(position.unwrap_or_default()).matching(filter_of(&query)?);
    if !is_live {
        let wait = query.number("wait", 0..=WAIT_SECS_MAX)?.unwrap_or_default();
        follow = follow.waiting(Duration::from_secs(wait));
        if let Some(limit) = query.number("limit", 1..=ITEMS_MAX)? {
            follow = follow.at_most(usize::try_from(limit).unwrap_or(usize::MAX));
        }
    }
    Ok(follow)
}

fn filter_of(query: &Query<'_>) -> Result<FeedFilter, ApiError> {
    let mut filter = FeedFilter::default();
    if let Some(pattern) = query.text("client_id")? {
        let pattern = ClientPattern::new(&pattern);
        let expected = "must have at most 16 asterisks and 65535 other bytes";
        let pattern = pattern.map_err(|_| ApiError::invalid_parameter("client_id", expected))?;
        filter = filter.clients(pattern);
    }
    if let Some(username) = query.text("username")? {
        filter = filter.username(username);
    }
    let expected = format!("must have one or more of {}, separated by commas", names().join(", "));
    let kind_of = |name: &str| FeedKind::CHANGES.into_iter().find(|kind| kind.name() == name);
    let kinds = query.value("kinds", &expected, |text| {
        text.split(',').map(kind_of).collect::<Option<Vec<FeedKind>>>()
    })?;
    if let Some(mut kinds) = kinds {
        kinds.dedup();
        // Repeated kinds change nothing, but the list is kept with the follower.
        if kinds.len() > FeedKind::CHANGES.len() {
            return Err(ApiError::invalid_parameter("kinds", &expected));
        }
        filter = filter.kinds(kinds);
    }
    Ok(filter)
}

fn names() -> [&'static str; FeedKind::CHANGES.len()] {
    FeedKind::CHANGES.map(FeedKind::name)
}

/// Returns a part of the feed as one JSON object.
fn text_of(part: &FeedPart) -> String {
    let mut text = String::from(r#"{"events":["#);
    for (position, item) in part.items.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        push_object(&mut text, item);
    }
    text.push_str(r#"],"next":""#);
    text.push_str(&part.next.to_string());
    text.push_str("\"}");
    text
}

/// Adds an item as a JSON object. Neither the identifier nor the name needs an escape.
fn push_object(text: &mut String, item: &FeedItem) {
    text.push_str(r#"{"id":""#);
    text.push_str(&item.id.to_string());
    text.push_str(r#"","event":""#);
    text.push_str(item.kind.name());
    text.push_str(r#"","data":"#);
    text.push_str(&String::from_utf8_lossy(&item.json));
    text.push('}');
}
