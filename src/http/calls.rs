//! The two calls about one client: change a live connection's Keep Alive, and query whether the
//! client is online.

use std::{
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    time::Instant,
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodyStream, BoxBody, MessageBody as _},
    http::{
        Method,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    web::{Bytes, Data},
};
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use smallvec::SmallVec;
use utoipa::ToSchema;

use super::{
    ANSWERS, Api, ApiError,
    admission::{self, CallEffect, HttpCaller},
    desk::Desk,
    failures::{
        Caller, Change, ClientId, Elsewhere, Fails, Interval, KeepAliveOff, NotOnline, Path,
        Permission, RequiredParameters,
    },
    live::LongAnswer,
    parameters,
    pieces::AnswerPieces,
    rate::AccountQuota,
    shares::OwnShare,
    traced::CallSpan,
};
use crate::{
    auth::Action,
    control::{KeepAliveChanged, OnlineState, SetKeepAlive},
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

/// Says that a Keep Alive was changed.
#[derive(Serialize, ToSchema)]
struct KeepAliveAnswer {
    /// Always `true`.
    success: bool,
    /// The Keep Alive in force, in seconds.
    keepalive: u16,
}

/// Says whether a client is online.
#[derive(Serialize, ToSchema)]
struct StatusAnswer {
    /// Whether the client is connected now.
    online: bool,
}

/// Changes the Keep Alive of a connected client.
///
/// The change applies at once. The connection and its messages in flight are not affected. The new
/// value ends with the connection.
#[utoipa::path(
    post, path = "/keep-alive", tag = "keep-alive", operation_id = "setKeepAlive",
    params(
        ("client-id" = String, Query, description = "the client", example = "car-17"),
        ("interval" = u16, Query, description = "the new Keep Alive in seconds",
         minimum = 30, maximum = 1200, example = 120),
    ),
    responses(
        (status = 200, description = "The Keep Alive in force.", body = KeepAliveAnswer,
         example = json!({"success": true, "keepalive": 120})),
        Fails<(
            Caller, Change, Permission, RequiredParameters, ClientId, Interval, NotOnline, KeepAliveOff,
            Elsewhere,
        )>,
    ),
)]
pub(super) async fn keep_alive(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        if request.method() != Method::POST {
            return Err(ApiError::method_not_allowed("POST"));
        }
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let wanted = parameters::keep_alive(request.query_string())?;
        // After the parameters, because the permission depends on the client that they name.
        caller.permit(&api, &wanted.client_id, &[Action::Connect, Action::Control])?;
        let mut wanted = SetKeepAlive::new(wanted.client_id, wanted.interval_secs);
        wanted.by.clone_from(&caller.identity.username);
        let target = wanted.client_id.clone();
        let KeepAliveChanged { old_secs, new_secs: secs, .. } =
            desk(&request).set_keep_alive(wanted).await?;
        let (old, new) = (old_secs.to_string(), secs.to_string());
        let changed = Changed {
            call: "keep-alive",
            target: Some(ChangedObject::Client(&target)),
            old: Some(&old),
            new: Some(&new),
        };
        // Only after success: the audit log has changes, not attempts.
        caller.tell_changed(&api, changed);
        Ok(Answer::json(&KeepAliveAnswer { success: true, keepalive: secs }))
    };
    answer(&api, &request, RestRoute::KeepAlive, pin!(call)).await
}

/// Asks whether a client is online.
///
/// The answer is the live state. A client that is not known is not online.
#[utoipa::path(
    method(get, post), path = "/client-id/{client_id}/status", tag = "clients",
    operation_id = "clientStatus",
    params(("client_id" = String, Path, description = "the client", example = "car-17")),
    responses(
        (status = 200, description = "Whether the client is online.", body = StatusAnswer,
         example = json!({"online": true})),
        Fails<(Caller, Permission, ClientId, RequiredParameters, Path, Elsewhere)>,
    ),
)]
pub(super) async fn status(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    // The route matches more paths than this call has.
    if !request.uri().path().ends_with("/status") {
        return ApiError::not_found().answer_to(&request);
    }
    let call = async {
        if !matches!(*request.method(), Method::GET | Method::HEAD | Method::POST) {
            return Err(ApiError::method_not_allowed("GET, HEAD, POST"));
        }
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let client_id = parameters::status(below_prefix(&request))?;
        // Before the question: a caller without permission
        // must not learn whether the client exists.
        caller.permit(&api, &client_id, &[Action::Connect, Action::Observe])?;
        let OnlineState { online, .. } = desk(&request).query_online(client_id).await?;
        Ok(Answer::json(&StatusAnswer { online }))
    };
    answer(&api, &request, RestRoute::Status, pin!(call)).await
}

/// Returns the path after `/client-id`, still encoded. A host application may mount the routes
/// below its own path, which has the same number of slashes encoded and decoded.
fn below_prefix(request: &HttpRequest) -> &str {
    let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
    let matched = request.match_info();
    let before = slashes(matched.as_str()).saturating_sub(slashes(matched.unprocessed()));
    let path = request.uri().path();
    path.match_indices('/').nth(before).map_or("", |(at, _)| &path[at..])
}

/// Returns the desk of this worker, which batches the calls to the broker.
fn desk(request: &HttpRequest) -> &Rc<Desk> {
    request.app_data().expect("the routes come with a desk for each worker")
}

/// The body of a successful response.
pub(super) struct Answer {
    body: AnswerBody,
    /// Further headers.
    pub(super) headers: AnswerHeaders,
    /// The room that was taken before the answer was made.
    room: Option<OwnShare>,
}

/// Size up to which an answer needs no room among those that are not taken yet.
const SMALL_ANSWER_BYTES: usize = 16 * 1024;

/// Takes room for an answer that a call will have, before it changes something: then the call cannot
/// fail for want of room when it is done.
///
/// # Errors
/// There is no room for `bytes`.
pub(super) fn reserve(
    api: &Api,
    caller: &HttpCaller,
    bytes: usize,
) -> Result<Option<OwnShare>, ApiError> {
    if bytes <= SMALL_ANSWER_BYTES {
        return Ok(None);
    }
    let room = api.0.answers.take(caller.account(), bytes.min(ANSWERS.own), ANSWERS);
    room.map(Some).ok_or_else(ApiError::busy)
}

/// Takes more of the room of an answer that is being made, so that it may have `bytes`.
///
/// # Errors
/// There is no room for them.
pub(super) fn reserve_more(
    api: &Api,
    caller: &HttpCaller,
    room: &mut Option<OwnShare>,
    bytes: usize,
) -> Result<(), ApiError> {
    let Some(room) = room else {
        *room = reserve(api, caller, bytes)?;
        return Ok(());
    };
    let more = bytes.min(ANSWERS.own).saturating_sub(room.amount());
    if room.grow(more, ANSWERS) { Ok(()) } else { Err(ApiError::busy()) }
}

/// Headers of an answer besides those that all have.
pub(super) type AnswerHeaders = SmallVec<[(&'static str, String); 1]>;

enum AnswerBody {
    Json(String),
    /// JSON texts, each on a line of its own.
    Lines(BoxBody),
}

impl Answer {
    /// Creates an answer in JSON.
    pub(super) fn json(value: &impl Serialize) -> Self {
        let text = serde_json::to_string(value).expect("an answer has text keys only");
        Self::json_text(text)
    }

    /// Creates an answer of this JSON.
    pub(super) fn json_text(text: String) -> Self {
        Self { body: AnswerBody::Json(text), headers: AnswerHeaders::new(), room: None }
    }

    /// Gives the answer the room that [`reserve`] has taken.
    pub(super) fn within(self, room: Option<OwnShare>) -> Self {
        Self { room, ..self }
    }

    /// Takes room for an answer that has none, until its caller has taken it.
    fn in_room(mut self, api: &Api, request: &HttpRequest) -> Result<Self, ApiError> {
        let AnswerBody::Json(text) = &mut self.body else { return Ok(self) };
        // Most answers are small; counting them would cost more than it bounds.
        if text.len() <= SMALL_ANSWER_BYTES {
            return Ok(Self { room: None, ..self });
        }
        // The text waits until its caller reads, and then its spare capacity would wait too.
        text.shrink_to_fit();
        match &mut self.room {
            Some(room) => room.shrink_to(text.len()),
            None => {
                let account = admission::account_of(request);
                // An answer that is larger than the share takes all of it.
                let bytes = text.len().min(ANSWERS.own);
                let room = api.0.answers.take(account, bytes, ANSWERS);
                self.room = Some(room.ok_or_else(ApiError::busy)?);
            }
        }
        Ok(self)
    }

    /// Adds a header.
    pub(super) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Returns the JSON of the answer; `None` if it is made while the caller reads.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.body {
            AnswerBody::Json(text) => Some(text),
            AnswerBody::Lines(_) => None,
        }
    }

    /// Creates an answer of JSON texts, each on a line of its own, which were found before.
    pub(super) fn lines(stream: impl Stream<Item = Bytes> + 'static) -> Self {
        Self::streamed(stream.map(Ok))
    }

    /// Creates an answer of such lines that are found or made while the caller reads, and end when it loses its
    /// login. An error cuts the connection.
    pub(super) fn long(
        answer: LongAnswer,
        stream: impl Stream<Item = Result<Bytes, ApiError>> + 'static,
    ) -> Self {
        Self::streamed(answer.of(stream))
    }

    fn streamed(stream: impl Stream<Item = Result<Bytes, ApiError>> + 'static) -> Self {
        let body = BoxBody::new(BodyStream::new(Box::pin(stream)));
        Self { body: AnswerBody::Lines(body), headers: AnswerHeaders::new(), room: None }
    }
}

/// The work of a call. The handler of the call has it pinned, so that it is neither moved nor compiled once more
/// for each call.
pub(super) type PinnedCall<'a> = Pin<&'a mut dyn Future<Output = Result<Answer, ApiError>>>;

/// Runs a call, counts it and returns the response. A refusal is logged.
pub(super) async fn answer(
    api: &Api,
    request: &HttpRequest,
    route: RestRoute,
    call: PinnedCall<'_>,
) -> HttpResponse {
    let began = Instant::now();
    let span = CallSpan::begin(api, request, route);
    // Room is taken at the end, when the size of the answer is known.
    let answered = call.await.and_then(|answer| answer.in_room(api, request));
    let response = match answered {
        Ok(Answer { body, headers, room }) => {
            let mut response = HttpResponse::Ok();
            let (content_type, body) = match body {
                AnswerBody::Json(text) if room.is_none() => {
                    ("application/json", BoxBody::new(text))
                }
                AnswerBody::Json(text) => {
                    ("application/json", AnswerPieces::new(text.into(), room).boxed())
                }
                AnswerBody::Lines(lines) => ("application/x-ndjson", lines),
            };
            response.insert_header((CONTENT_TYPE, content_type));
            response.insert_header((CACHE_CONTROL, "no-store")); // live state must not be cached
            for header in headers {
                response.insert_header(header);
            }
            AccountQuota::tell(request, &mut response);
            response.body(body)
        }
        Err(error) => {
            admission::tell_refused(api, request, &error);
            error.answer_to(request)
        }
    };
    let status = response.status().as_u16();
    api.0.metrics.rest().record(route, status, began.elapsed());
    if let Some(span) = span {
        span.end(status);
    }
    response
}
