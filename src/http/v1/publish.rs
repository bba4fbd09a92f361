//! Messages over HTTP: `POST /topics/{topic}` publishes its body, and `POST /api/v1/publish` the
//! messages of a list. The caller needs the permission to publish to the topic.

mod query;

use std::pin::pin;

use std::sync::{Arc, atomic::Ordering};

use actix_web::{
    HttpRequest, HttpResponse,
    middleware::from_fn,
    web::{self, Data, Payload, ServiceConfig},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::yield_now;
use utoipa::ToSchema;

use self::query::parse_query;
use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer, reserve},
        failures::{
            Body, Caller, Change, Fails, Items as ItemFails, JsonBody, Parameters, Publishing,
            Repeating, Waiting,
        },
        idempotency::{KeyHeader, once},
        parameters::{Plus, decode},
        stay_with_http,
    },
    body::{self, BULK_BYTES_MAX, ReadBody},
    bulk::{self, BulkResults, ITEMS_MAX, Items},
    resource,
    target::{Query, raw_segment},
    waiting::{self, ShownDeliveries, TIMEOUT, WAIT, WaitParameters, wait_in},
};
use crate::{
    auth::Action,
    control::{PublishRequest, Published, WaitForDeliveries},
    metrics::RestRoute,
    mqtt::{Message, PublicationBuilder, PublicationError, QoS},
    told::Made,
};

/// The number of messages that are under way to the broker at the same time.
const MESSAGES_AT_A_TIME: usize = 64;
/// Maximum number of messages of a call that waits: they are all under way together.
const WAITING_MESSAGES_MAX: usize = 100;

/// Registers the route that is not below `/api/v1`.
pub(in crate::http) fn topics(config: &mut ServiceConfig) {
    let topic = resource("/topics/{topic}", "POST").wrap(from_fn(stay_with_http));
    config.service(topic.route(web::post().to(publish)));
}

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/publish", "POST").route(web::post().to(publish_list)));
}

/// All that a call says of a message.
#[derive(Default)]
pub(super) struct AskedMessage {
    pub(super) topic: String,
    payload: Vec<u8>,
    pub(super) qos: QoS,
    pub(super) retained: bool,
    pub(super) response_topic: Option<String>,
    pub(super) correlation_data: Option<Vec<u8>>,
    content_type: Option<String>,
    is_utf8: bool,
    expiry_secs: Option<u32>,
    user_properties: Vec<(String, String)>,
}

/// A message to publish.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishItem {
    /// The topic.
    topic: String,
    /// The payload as text.
    payload: Option<String>,
    /// Or the payload as base64.
    payload_base64: Option<String>,
    /// The QoS.
    #[serde(default = "qos_default")]
    #[schema(maximum = 2, default = 1)]
    qos: u8,
    /// Whether the message is retained.
    #[serde(default)]
    retained: bool,
    /// Response Topic.
    response_topic: Option<String>,
    /// Correlation Data as text.
    correlation_data: Option<String>,
    /// Or Correlation Data as base64.
    correlation_data_base64: Option<String>,
    /// Content Type.
    content_type: Option<String>,
    /// 1: the payload is UTF-8, which is checked.
    #[serde(default)]
    #[schema(maximum = 1)]
    payload_format_indicator: u8,
    /// Message Expiry Interval in seconds.
    message_expiry_interval: Option<u32>,
    /// User Properties, in their order.
    #[serde(default)]
    user_properties: Vec<UserPropertyItem>,
}

/// A User Property.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserPropertyItem {
    /// Its name.
    pub(super) key: String,
    /// Its value.
    pub(super) value: String,
}

const fn qos_default() -> u8 {
    1
}

/// The answer for one message.
#[derive(Default, Serialize, ToSchema)]
struct PublishAnswer {
    /// Whether the message is published.
    success: bool,
    /// Different for each message.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    /// The node that has published the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    node: Option<Arc<str>>,
    /// The number of sessions that match the topic; a shared subscription counts once.
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<usize>,
    #[serde(flatten)]
    deliveries: Option<ShownDeliveries>,
    /// Why the message is not published.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

impl From<Result<(String, Published), ApiError>> for PublishAnswer {
    fn from(result: Result<(String, Published), ApiError>) -> Self {
        let (id, published) = match result {
            Ok((id, published)) => (id, published),
            Err(error) => return Self { code: Some(error.code()), ..Self::default() },
        };
        let pending = ApiError::deliveries_pending();
        let is_complete = published.deliveries.is_none_or(|deliveries| deliveries.is_complete);
        Self {
            success: is_complete,
            message_id: Some(id),
            node: Some(published.node),
            matched: Some(published.matched),
            deliveries: published.deliveries.map(ShownDeliveries::from),
            code: (!is_complete).then_some(pending.code()),
        }
    }
}

/// The members of an error about a message that was published.
#[derive(Serialize)]
struct PendingAnswer {
    message_id: String,
    node: Arc<str>,
    matched: usize,
    #[serde(flatten)]
    deliveries: ShownDeliveries,
}

/// Publishes a message: the body of the call.
#[utoipa::path(
    post, path = "/topics/{topic}", tag = "messages", operation_id = "publish",
    params(
        ("topic" = String, Path, description = "the topic, percent-encoded with its slashes",
         example = "cars/17/command"),
        ("qos" = Option<u8>, Query, description = "QoS; default 1", maximum = 2),
        ("retained" = Option<bool>, Query, description = "whether the message is retained"),
        ("ResponseTopic" = Option<String>, Query, description = "Response Topic"),
        ("CorrelationData" = Option<String>, Query, description = "Correlation Data as text"),
        ("ContentType" = Option<String>, Query, description = "Content Type"),
        ("PayloadFormatIndicator" = Option<u8>, Query, maximum = 1,
         description = "1: the body is UTF-8, which is checked"),
        ("MessageExpiryInterval" = Option<u32>, Query,
         description = "Message Expiry Interval in seconds"),
        ("UserProp.1.Key" = Option<String>, Query,
         description = "the name of the first User Property; others have higher numbers"),
        ("UserProp.1.Value" = Option<String>, Query, description = "the value of the same"),
        WaitParameters, KeyHeader,
    ),
    request_body(content = Option<String>, content_type = "application/octet-stream",
        description = "The payload: any bytes of any type.", example = "report"),
    responses(
        (status = 200, description = "The message is published.", body = PublishAnswer,
         headers(("X-Message-Id" = String, description = "The `message_id`.")),
         example = json!({"success": true, "message_id": "19acb2a0b40-1", "node": "hearthmq", "matched": 2})),
        Fails<(Caller, Change, Parameters, Publishing, Body, Repeating, Waiting)>,
    ),
)]
pub(super) async fn publish(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let topic = decode(raw_segment(&request, "{topic}"), Plus::IsPlus).ok();
        let topic = topic.and_then(|topic| String::from_utf8(topic).ok());
        let topic = topic.ok_or_else(|| ApiError::invalid_topic("it is not UTF-8"))?;
        let (mut asked, wait) = parse_query(request.query_string())?;
        asked.topic = topic;
        // Before the body is read: a caller without permission must not take memory for it.
        permit(&api, &caller, &asked)?;
        let body = body::read_any(&api, &request, payload, BULK_BYTES_MAX).await?;
        asked.payload = body.bytes.to_vec();
        let its = (Data::clone(&api), caller.clone());
        let publishing = once(&api, &request, &caller, &body.bytes, publish_one(its, asked, wait));
        drop(body); // others need its room while this call waits
        waiting::unless_ending(&request, wait.is_some(), publishing).await
    };
    answer(&api, &request, RestRoute::Topic, pin!(call)).await
}

async fn publish_one(
    (api, caller): (Data<Api>, HttpCaller),
    asked: AskedMessage,
    wait: Option<WaitForDeliveries>,
) -> Result<Answer, ApiError> {
    let message = build(&api, &asked)?;
    drop(asked);
    // A place is taken before the message is published: afterwards the call could not be refused.
    let place = waiting::enter(&api, &caller, wait)?;
    let topic = message.topic().to_owned();
    let published = waiting::publish(&api, of_caller(&caller, message, wait), place).await?;
    let topic = Some(&*topic);
    caller.tell_made(&api, Made { call: "publish", topic, done: 1, items: 1 });
    let id = new_id(&api);
    if let Some(deliveries) = published.deliveries.filter(|it| !it.is_complete) {
        let Published { node, matched, .. } = published;
        let deliveries = deliveries.into();
        let pending = PendingAnswer { message_id: id, node, matched, deliveries };
        return Err(ApiError::deliveries_pending().with_details(&pending));
    }
    let body = PublishAnswer::from(Ok((id.clone(), published)));
    Ok(Answer::json(&body).with_header("X-Message-Id", &id))
}

/// Publishes several messages in their order.
#[utoipa::path(
    post, path = "/publish", tag = "messages", operation_id = "publishSeveral",
    params(WaitParameters, KeyHeader),
    request_body(content = Vec<PublishItem>, description = "At most 10,000 messages.",
        example = json!([{"topic": "cars/17/command", "payload": "report"}])),
    responses(
        (status = 200, description = "A result for each message, in the order of the call.",
         body = BulkResults<PublishAnswer>, example = json!({"results": [
            {"success": true, "message_id": "19acb2a0b40-2", "node": "hearthmq", "matched": 2},
            {"success": false, "code": "invalid_topic"}]})),
        Fails<(Caller, Change, Parameters, JsonBody, ItemFails, Repeating, Waiting)>,
    ),
)]
pub(super) async fn publish_list(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let wait = wait_in(&Query::parse(request.query_string(), &[WAIT, TIMEOUT])?)?;
        let body = body::read_json(&api, &request, payload, BULK_BYTES_MAX).await?;
        let (its, bytes) = ((Data::clone(&api), caller.clone()), body.bytes.clone());
        let publishing = once(&api, &request, &caller, &bytes, publish_all(its, body, wait));
        drop(bytes);
        waiting::unless_ending(&request, wait.is_some(), publishing).await
    };
    answer(&api, &request, RestRoute::Publish, pin!(call)).await
}

async fn publish_all(
    its: (Data<Api>, HttpCaller),
    body: ReadBody,
    wait: Option<WaitForDeliveries>,
) -> Result<Answer, ApiError> {
    let list: Items<&RawValue> = body::parse_any(&body.bytes)?;
    // Fewer messages if the call waits, because each has a receipt for each session.
    let items = list.within(if wait.is_none() { ITEMS_MAX } else { WAITING_MESSAGES_MAX })?;
    let room = reserve(&its.0, &its.1, bulk::results_bytes(0, items.len()))?;
    let mut results: Vec<PublishAnswer> = Vec::with_capacity(items.len());
    if wait.is_some() {
        let messages = items.iter().map(|item| message_of(&its, item)).collect();
        drop(items);
        drop(body); // others need its room while this call waits
        publish_some(&its, messages, wait, &mut results).await;
    } else {
        for some in items.chunks(MESSAGES_AT_A_TIME) {
            let messages = some.iter().map(|item| message_of(&its, item)).collect();
            publish_some(&its, messages, wait, &mut results).await;
            yield_now().await; // other calls of this worker
        }
    }
    let done = results.iter().filter(|result| result.message_id.is_some()).count();
    its.1.tell_made(&its.0, Made { call: "publish", topic: None, done, items: results.len() });
    Ok(Answer::json(&BulkResults { results }).within(room))
}

/// Returns the message that an item asks for, which the caller may publish.
fn message_of(
    (api, caller): &(Data<Api>, HttpCaller),
    item: &RawValue,
) -> Result<Arc<Message>, ApiError> {
    let asked = AskedMessage::try_from(bulk::parse_object::<PublishItem>(item)?)?;
    permit(api, caller, &asked)?;
    build(api, &asked)
}

/// Publishes messages at the same time. They are sent in their order; those on one topic keep it.
async fn publish_some(
    (api, caller): &(Data<Api>, HttpCaller),
    messages: Vec<Result<Arc<Message>, ApiError>>,
    wait: Option<WaitForDeliveries>,
    results: &mut Vec<PublishAnswer>,
) {
    let published = messages.into_iter().map(|message| publish_item(api, caller, message, wait));
    results.extend(join_all(published).await.into_iter().map(PublishAnswer::from));
}

async fn publish_item(
    api: &Data<Api>,
    caller: &HttpCaller,
    message: Result<Arc<Message>, ApiError>,
    wait: Option<WaitForDeliveries>,
) -> Result<(String, Published), ApiError> {
    let message = message?;
    let place = waiting::enter(api, caller, wait)?;
    let published = waiting::publish(api, of_caller(caller, message, wait), place).await?;
    Ok((new_id(api), published))
}

impl TryFrom<PublishItem> for AskedMessage {
    type Error = ApiError;

    fn try_from(item: PublishItem) -> Result<Self, ApiError> {
        let payload = bytes_of("payload", item.payload, item.payload_base64)?.unwrap_or_default();
        let correlation_data =
            bytes_of("correlation_data", item.correlation_data, item.correlation_data_base64)?;
        let is_utf8 = match item.payload_format_indicator {
            indicator @ 0..=1 => indicator == 1,
            _ => return Err(ApiError::invalid_body("payload_format_indicator must be 0 or 1")),
        };
        let qos = QoS::from_number(item.qos);
        let user_properties = item.user_properties.into_iter().map(|it| (it.key, it.value));
        Ok(Self {
            topic: item.topic,
            payload,
            qos: qos.ok_or_else(|| ApiError::invalid_body("qos must be 0, 1 or 2"))?,
            retained: item.retained,
            response_topic: item.response_topic,
            correlation_data,
            content_type: item.content_type,
            is_utf8,
            expiry_secs: item.message_expiry_interval,
            user_properties: user_properties.collect(),
        })
    }
}

/// Returns bytes that are given as text or as base64.
fn bytes_of(
    name: &str,
    text: Option<String>,
    encoded: Option<String>,
) -> Result<Option<Vec<u8>>, ApiError> {
    match (text, encoded) {
        (text, None) => Ok(text.map(String::into_bytes)),
        (None, Some(encoded)) => STANDARD
            .decode(encoded)
            .map(Some)
            .map_err(|_| ApiError::invalid_body(&format!("{name}_base64 is not base64"))),
        // It would be unclear which one the caller means.
        (Some(_), Some(_)) => {
            Err(ApiError::invalid_body(&format!("it has both {name} and {name}_base64")))
        }
    }
}

fn of_caller(
    caller: &HttpCaller,
    message: Arc<Message>,
    wait: Option<WaitForDeliveries>,
) -> PublishRequest {
    let mut request = PublishRequest::new(message);
    request.wait = wait;
    match &caller.identity.username {
        Some(username) => request.by(username.clone()),
        None => request,
    }
}

/// Returns an identifier for a message, for logs of callers: time and number.
pub(super) fn new_id(api: &Api) -> String {
    let number = api.0.messages.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{number:x}", api.0.clock.now().millis())
}

/// Checks the topic, and that the caller may publish to it.
pub(super) fn permit(api: &Api, caller: &HttpCaller, asked: &AskedMessage) -> Result<(), ApiError> {
    let AskedMessage { topic, qos, retained: retain, .. } = asked;
    // The payload does not matter here: a topic that is invalid comes before its permission.
    if let Err(error @ PublicationError::Topic(_)) =
        PublicationBuilder::new(topic, "").build(api.0.clock.now())
    {
        return Err(unusable(error));
    }
    let action = Action::Publish { topic, qos: *qos, retain: *retain };
    match caller.may(api, "", action) {
        true => Ok(()),
        false => Err(ApiError::forbidden_to_publish()),
    }
}

pub(super) fn build(api: &Api, asked: &AskedMessage) -> Result<Arc<Message>, ApiError> {
    let mut message =
        PublicationBuilder::new(&asked.topic, &asked.payload).qos(asked.qos).retain(asked.retained);
    if let Some(secs) = asked.expiry_secs {
        message = message.expiry_secs(secs);
    }
    if asked.is_utf8 {
        message = message.utf8_payload();
    }
    if let Some(content_type) = &asked.content_type {
        message = message.content_type(content_type);
    }
    if let Some(topic) = &asked.response_topic {
        message = message.response_topic(topic);
    }
    if let Some(data) = &asked.correlation_data {
        message = message.correlation_data(data);
    }
    for (key, value) in &asked.user_properties {
        message = message.user_property(key, value);
    }
    message.build(api.0.clock.now()).map(Arc::new).map_err(unusable)
}

fn unusable(error: PublicationError) -> ApiError {
    match error {
        PublicationError::Topic(error) => ApiError::invalid_topic(&error.to_string()),
        PublicationError::ReservedTopic => ApiError::forbidden_to_publish(),
        PublicationError::TooLarge => ApiError::message_too_large(),
        PublicationError::ResponseTopic(_)
        | PublicationError::ContentType(_)
        | PublicationError::CorrelationData(_)
        | PublicationError::UserProperty(_)
        | PublicationError::PayloadNotUtf8 => ApiError::invalid_property(&error.to_string()),
    }
}
