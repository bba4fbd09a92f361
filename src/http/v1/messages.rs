//! `GET /api/v1/messages`: the messages on some topics, as they are published. Needs the permission to
//! subscribe.
//!
//! A message is read when the caller has taken those before it. Messages that do not fit meanwhile are left out
//! and counted, so a slow caller holds neither memory nor publishers.

use std::{convert::Infallible, pin::Pin, pin::pin, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    rt::time::timeout,
    web::{self, Bytes, Data, ServiceConfig},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream::unfold};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{Caller, Fails, Following, ListenedTopic, Parameters},
        live::{StandingCheck, ending, live_response},
        shares::OwnShare,
    },
    contents::ShownProperties,
    resource,
    target::Query,
};
use crate::{
    auth::Action,
    control::{HeardMessage, HeardMessages, ListenTo, MessageProperties},
    metrics::RestRoute,
    mqtt::{QoS, validate_filter},
};

/// The longest silence: a caller sees that the broker lives, and the broker whether the caller does.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Bytes of a payload that are shown unless the caller wants more.
const PAYLOAD_BYTES_DEFAULT: u64 = 4 * 1024;
/// The largest number of bytes of a payload that a caller can want.
const PAYLOAD_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Bytes of lines that are sent together.
const CHUNK_BYTES: usize = 64 * 1024;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/messages", "GET").route(web::get().to(messages)));
}

/// A message that was published.
#[derive(Serialize, ToSchema)]
#[schema(as = HeardMessage)]
struct HeardLine<'a> {
    /// Topic Name.
    topic: &'a str,
    /// QoS.
    #[schema(maximum = 2)]
    qos: u8,
    /// The RETAIN flag; of a message that was retained before, it is set.
    retain: bool,
    /// The beginning of the payload, as far as it was asked for.
    payload_base64: String,
    /// The number of bytes of the whole payload.
    payload_bytes: usize,
    /// The number of messages that were left out since the line before because the caller did not read.
    #[serde(skip_serializing_if = "is_zero")]
    #[schema(required = false)]
    missed: u64,
    #[serde(flatten)]
    properties: ShownProperties,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A caller that receives messages of a Topic Filter as events.
struct MessageFollower {
    api: Arc<Api>,
    caller: HttpCaller,
    admission: StandingCheck,
    /// The generation of the rules by which it may subscribe.
    rules: u64,
    filter: String,
    payload_bytes_max: usize,
    messages: HeardMessages,
    ending: Pin<Box<dyn Future<Output = ()>>>,
    _place: OwnShare,
}

/// Follows the messages on some topics: each is a JSON object on a line of its own.
///
/// The answer goes on until the caller leaves. A caller that reads more slowly than messages come misses
/// some, and is told how many; publishers do not wait for it. An empty line is a sign of life.
#[utoipa::path(
    get, path = "/messages", tag = "messages", operation_id = "messages",
    params(
        ("filter" = String, Query, description = "The Topic Filter, without a share name.",
         example = "cars/#"),
        ("retained" = Option<bool>, Query,
         description = "Whether the retained messages that match come first; default `false`."),
        ("payload_bytes_max" = Option<u64>, Query, maximum = 268_435_456,
         description = "Bytes of each payload that are shown; default 4,096."),
    ),
    responses(
        (status = 200, description = "Messages.", body = HeardLine<'static>,
         content_type = "application/x-ndjson", example = json!({"topic": "cars/17/state", "qos": 1,
            "retain": false, "payload_base64": "b24=", "payload_bytes": 2})),
        Fails<(Caller, Parameters, Following, ListenedTopic)>,
    ),
)]
pub(super) async fn messages(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let mut listener = None;
    let call = async {
        listener = Some(begin(&request, &api).await?);
        Ok(Answer::json_text(String::new()))
    };
    let refused = answer(&api, &request, RestRoute::Messages, pin!(call)).await;
    let Some(listener) = listener else { return refused };
    live_response(&request, "application/x-ndjson", listener.into_chunks())
}

async fn begin(request: &HttpRequest, api: &Data<Api>) -> Result<MessageFollower, ApiError> {
    let caller = admission::admit(api, request, CallEffect::Looks).await?;
    let (admission, rules) = (StandingCheck::of(&caller), caller.admitted_at.rules);
    let query = Query::parse(request.query_string(), &["filter", "retained", "payload_bytes_max"])?;
    let filter = query.text("filter")?.ok_or_else(|| ApiError::missing_parameter("filter"))?;
    let parts = validate_filter(&filter);
    let is_fine = parts.is_ok_and(|parts| parts.share_name.is_none());
    if !is_fine {
        let expected = "must be a topic filter, and not shared";
        return Err(ApiError::invalid_parameter("filter", expected));
    }
    let with_retained = query.flag("retained")?.unwrap_or_default();
    let bytes = query.number("payload_bytes_max", 0..=PAYLOAD_BYTES_MAX)?;
    let bytes = bytes.unwrap_or(PAYLOAD_BYTES_DEFAULT);
    if !may_listen(api, &caller, &filter) {
        return Err(ApiError::forbidden_to_listen());
    }
    // A place first, because the broker collects messages as soon as it listens.
    let place = api.0.followers.enter(api, &caller)?;
    let wanted = ListenTo::new(&*filter);
    let wanted = if with_retained { wanted.with_retained() } else { wanted };
    let messages = api.0.control.listen(wanted)?;
    Ok(MessageFollower {
        api: Arc::clone(api),
        caller,
        admission,
        rules,
        filter,
        payload_bytes_max: usize::try_from(bytes).unwrap_or(usize::MAX),
        messages,
        ending: Box::pin(ending(request)),
        _place: place,
    })
}

fn may_listen(api: &Api, caller: &HttpCaller, filter: &str) -> bool {
    caller.may(api, "", Action::Subscribe { filter, qos: QoS::ExactlyOnce })
}

impl MessageFollower {
    fn into_chunks(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        unfold(self, |mut listener| async move {
            let chunk = listener.next().await?;
            Some((Ok(Bytes::from(chunk)), listener))
        })
    }

    /// Waits for the next lines; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        let heard = timeout(SILENCE_MAX, self.messages.next());
        let first = tokio::select! {
            () = &mut self.ending => return None,
            () = self.admission.lost(&self.api, &self.caller) => return None,
            heard = heard => heard,
        };
        // Rules may have changed since the last line; the messages of the wait are then not shown.
        if !self.still_may() {
            return None;
        }
        let Ok(first) = first else { return Some("\n".to_owned()) };
        let mut text = String::new();
        self.push(&mut text, &first?);
        // Those that have come meanwhile, in one piece.
        while text.len() < CHUNK_BYTES {
            let Some(Some(heard)) = self.messages.next().now_or_never() else { break };
            self.push(&mut text, &heard);
        }
        Some(text)
    }

    /// Returns whether the caller may still look.
    fn still_may(&mut self) -> bool {
        if !self.admission.holds(&self.api, &self.caller) {
            return false;
        }
        let rules = self.api.0.authorizer.generation();
        if rules != self.rules {
            self.rules = rules;
            return may_listen(&self.api, &self.caller, &self.filter);
        }
        true
    }

    fn push(&self, text: &mut String, heard: &HeardMessage) {
        let message = &heard.message;
        let payload = message.payload();
        let shown = HeardLine {
            topic: message.topic(),
            qos: heard.qos.number(),
            retain: heard.retain,
            payload_base64: STANDARD.encode(&payload[..payload.len().min(self.payload_bytes_max)]),
            payload_bytes: payload.len(),
            missed: heard.missed,
            properties: ShownProperties::of(Some(&MessageProperties::of(message))),
        };
        text.push_str(&serde_json::to_string(&shown).expect("a message has text keys only"));
        text.push('\n');
    }
}
