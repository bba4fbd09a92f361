//! `GET /api/v1/subscriptions`: who receives a message on a topic, or has a subscription.
//! `GET /api/v1/retained`, `GET` and `DELETE /api/v1/retained/{topic}`: retained messages.
//!
//! The first needs `observe` for each client. Retained messages need the permission to subscribe to
//! their topic; removing one needs the permission to publish a retained message there as well, as over
//! MQTT.

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{Caller, Change, Fails, NotRetained, Parameters},
        parameters::{Plus, decode},
    },
    Done,
    contents::{PAYLOADS_BYTES, PayloadParameter, ShownProperties},
    cursor, in_time, in_time_of_list,
    page::{AskedPage, PageAnswer, PageParameters, PageText},
    resource,
    target::{Query, is_in_path, name_in},
};
use crate::{
    auth::Action,
    control::{ClearRetained, FindReceivers, ListRetained, RetainedView, SubscribedTo},
    metrics::RestRoute,
    mqtt::{QoS, validate_filter, validate_topic},
    told::{Changed, ChangedObject},
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let receivers = resource("/subscriptions", "GET, HEAD")
        .route(web::get().to(receivers))
        .route(web::head().to(receivers));
    let list =
        resource("/retained", "GET, HEAD").route(web::get().to(list)).route(web::head().to(list));
    let one = resource("/retained/{topic:.+}", "GET, HEAD, DELETE")
        .route(web::get().to(show))
        .route(web::head().to(show))
        .route(web::delete().to(clear));
    config.service(receivers).service(list).service(one);
}

/// A client that receives a message.
#[derive(Serialize, ToSchema)]
#[schema(as = Receiver)]
struct ShownReceiver<'a> {
    /// Client Identifier.
    client_id: &'a str,
    /// Whether the client is connected.
    online: bool,
    /// The node that has the session.
    node: &'a str,
    /// The highest QoS of subscriptions that are not shared; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
    /// The shared subscriptions of which one member receives the message.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Option<Vec<String>>)]
    shares: &'a [std::sync::Arc<str>],
}

/// Asks who receives a message on a topic, or has a subscription.
///
/// Exactly one of `topic` and `filter` is required.
#[utoipa::path(
    get, path = "/subscriptions", tag = "messages", operation_id = "listReceivers",
    params(
        ("topic" = Option<String>, Query, description = "the topic of a message",
         example = "cars/17/command"),
        ("filter" = Option<String>, Query, description = "exactly this Topic Filter"),
        PageParameters,
    ),
    responses(
        (status = 200, description = "A page of receivers, in the order of their identifiers.",
         body = PageAnswer<ShownReceiver<'static>>, example = json!({"items": [
            {"client_id": "car-17", "online": true, "node": "hearthmq", "qos": 1}]})),
        Fails<(Caller, Parameters)>,
    ),
)]
pub(super) async fn receivers(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let query = Query::parse(request.query_string(), &["topic", "filter", "limit", "cursor"])?;
        let subscribed_to = match (query.text("topic")?, query.text("filter")?) {
            (Some(topic), None) => {
                let topic_error = |_| ApiError::invalid_parameter("topic", "must be a topic name");
                validate_topic(&topic).map_err(topic_error)?;
                SubscribedTo::Topic(topic)
            }
            (None, Some(filter)) => {
                validate_filter(&filter).map_err(|_| invalid_filter())?;
                SubscribedTo::Filter(filter)
            }
            (None, None) => return Err(ApiError::missing_parameter("topic or filter")),
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid_parameter("filter", "is not for a topic"));
            }
        };
        let asked = AskedPage::of(&query)?;
        let mut wanted = FindReceivers::new(subscribed_to, asked.limit);
        if let Some(after) = &asked.after {
            wanted = wanted.after(Arc::clone(after));
        }
        // Room for the answer before the search: without room the search would be in vain.
        let mut text = asked.begin(&api, &caller)?;
        let found = api.0.control.find_receivers(wanted.by(caller.as_data()));
        let page = in_time_of_list(&api, found).await?;
        for receiver in &page.receivers {
            text.push(&ShownReceiver {
                client_id: &receiver.client_id,
                online: receiver.online,
                node: &receiver.node,
                qos: receiver.qos.map(QoS::number),
                shares: &receiver.shares,
            })?;
        }
        Ok(text.end(page.next.as_deref().map(cursor::after)))
    };
    answer(&api, &request, RestRoute::Subscriptions, pin!(call)).await
}

fn invalid_filter() -> ApiError {
    ApiError::invalid_parameter("filter", "must be a topic filter")
}

/// A retained message.
#[derive(Serialize, ToSchema)]
#[schema(as = RetainedMessage)]
struct ShownRetained<'a> {
    /// The topic.
    topic: &'a str,
    /// The QoS with which it was published.
    #[schema(maximum = 2)]
    qos: u8,
    /// Size of the payload.
    payload_bytes: usize,
    /// When it expires, in milliseconds since the Unix epoch; absent if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    /// The payload, if it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(flatten)]
    properties: ShownProperties,
}

fn shown_retained(message: &RetainedView) -> ShownRetained<'_> {
    ShownRetained {
        topic: &message.topic,
        qos: message.qos.number(),
        payload_bytes: message.payload_bytes,
        expires_at: message.expires_at_millis,
        payload_base64: message.payload.as_ref().map(|payload| STANDARD.encode(payload)),
        properties: ShownProperties::of(message.properties.as_ref()),
    }
}

/// Lists retained messages of topics that the caller may subscribe to.
#[utoipa::path(
    get, path = "/retained", tag = "messages", operation_id = "listRetained",
    params(
        ("filter" = Option<String>, Query, description = "Topic Filter; default `#`",
         example = "cars/#"),
        PageParameters, PayloadParameter,
    ),
    responses(
        (status = 200, description = "A page of messages, ordered by topic levels.",
         body = PageAnswer<ShownRetained<'static>>,
         example = json!({"items": [{"topic": "cars/17/state", "qos": 1, "payload_bytes": 2}]})),
        Fails<(Caller, Parameters)>,
    ),
)]
pub(super) async fn list(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let known = &["filter", "limit", "cursor", "payload"];
        let query = Query::parse(request.query_string(), known)?;
        let filter = query.text("filter")?.unwrap_or_else(|| "#".to_owned());
        let parts = validate_filter(&filter).map_err(|_| invalid_filter())?;
        if parts.share_name.is_some() {
            return Err(ApiError::invalid_parameter("filter", "must not be shared"));
        }
        let asked = AskedPage::of(&query)?;
        let mut wanted = ListRetained::new(&*filter, asked.limit).by(caller.as_data());
        if let Some(after) = &asked.after {
            wanted = wanted.after(Arc::clone(after));
        }
        let mut text = if query.flag("payload")? == Some(true) {
            wanted = wanted.with_payloads();
            PageText::begin(&api, &caller, PAYLOADS_BYTES)?
        } else {
            asked.begin(&api, &caller)?
        };
        let page = in_time_of_list(&api, api.0.control.list_retained(wanted)).await?;
        page.messages.iter().try_for_each(|message| text.push(&shown_retained(message)))?;
        Ok(text.end(page.next.as_deref().map(cursor::after)))
    };
    answer(&api, &request, RestRoute::RetainedList, pin!(call)).await
}

/// Returns the topic that a call is about. Its slashes may be encoded or not.
fn topic_of_call(request: &HttpRequest) -> Result<String, ApiError> {
    let invalid = || ApiError::invalid_parameter("topic", "must be a topic name");
    let topic = if is_in_path(request, "topic") {
        let path = request.uri().path();
        let (_, encoded) = path.split_once("/api/v1/retained/").ok_or_else(ApiError::not_found)?;
        let topic = decode(encoded, Plus::IsPlus).ok();
        topic.and_then(|topic| String::from_utf8(topic).ok()).ok_or_else(invalid)?
    } else {
        name_in(request, "topic", invalid)?
    };
    validate_topic(&topic).map_err(|_| invalid())?;
    Ok(topic)
}

fn permit_topic(api: &Api, caller: &HttpCaller, action: Action<'_>) -> Result<(), ApiError> {
    match caller.may(api, "", action) {
        true => Ok(()),
        false => Err(ApiError::forbidden_topic()),
    }
}

/// Shows the retained message of a topic.
#[utoipa::path(
    get, path = "/retained/{topic}", tag = "messages", operation_id = "showRetained",
    params(("topic" = String, Path, description = "the topic; its slashes may be encoded or not",
            example = "cars/17/state")),
    responses(
        (status = 200, description = "The message.", body = ShownRetained<'static>,
         example = json!({"topic": "cars/17/state", "qos": 1, "payload_bytes": 2,
            "payload_base64": "b24="})),
        Fails<(Caller, Parameters, NotRetained)>,
    ),
)]
pub(super) async fn show(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let topic = topic_of_call(&request)?;
        Query::of(&request, &[])?;
        let action = Action::Subscribe { filter: &topic, qos: QoS::AtMostOnce };
        permit_topic(&api, &caller, action)?;
        let found = in_time(&api, api.0.control.retained(&topic)).await?;
        let found = found.ok_or_else(ApiError::retained_not_found)?;
        Ok(Answer::json(&shown_retained(&found)))
    };
    answer(&api, &request, RestRoute::Retained, pin!(call)).await
}

/// Removes the retained message of a topic.
#[utoipa::path(
    delete, path = "/retained/{topic}", tag = "messages", operation_id = "clearRetained",
    params(("topic" = String, Path, description = "the topic; its slashes may be encoded or not",
            example = "cars/17/state")),
    responses(
        (status = 200, description = "The message is removed.", body = Done,
         example = json!({"success": true})),
        Fails<(Caller, Change, Parameters, NotRetained)>,
    ),
)]
pub(super) async fn clear(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let topic = topic_of_call(&request)?;
        Query::of(&request, &[])?;
        // Reading as well: the answer tells whether a message is retained there.
        let reads = Action::Subscribe { filter: &topic, qos: QoS::AtMostOnce };
        permit_topic(&api, &caller, reads)?;
        let writes = Action::Publish { topic: &topic, qos: QoS::AtMostOnce, retain: true };
        permit_topic(&api, &caller, writes)?;
        let cleared = api.0.control.clear_retained(ClearRetained::new(&*topic));
        if !in_time(&api, cleared).await? {
            return Err(ApiError::retained_not_found());
        }
        let (call, target) = ("clear retained", Some(ChangedObject::Topic(&topic)));
        let (old, new) = (Some("retained"), Some("none"));
        caller.tell_changed(&api, Changed { call, target, old, new });
        Ok(Answer::json(&Done::NOW))
    };
    answer(&api, &request, RestRoute::Retained, pin!(call)).await
}
