//! `POST /api/v1/request` publishes a message for a device and answers with its reply. The caller needs
//! the permission to publish to the topic, and to subscribe to a Response Topic that it names.

use std::{pin::pin, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    rt::time::timeout,
    web::{self, Data, Payload, ServiceConfig},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{Caller, Change, Fails, JsonBody, Parameters, Publishing, Repeating, Reply},
        idempotency::{KeyHeader, once},
    },
    body::{self, BULK_BYTES_MAX},
    publish::{AskedMessage, PublishItem, UserPropertyItem, build, new_id, permit},
    resource,
    target::Query,
    waiting::{self, TIMEOUT},
};
use crate::{
    auth::Action,
    control::{ControlError, DeviceReply, RequestReply},
    metrics::RestRoute,
    mqtt::{PublishProperties, QoS},
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/request", "POST").route(web::post().to(request)));
}

/// The reply of a device.
#[derive(Serialize, ToSchema)]
#[schema(as = DeviceReply)]
struct ReplyAnswer<'a> {
    /// Always `true`.
    success: bool,
    /// The identifier of the request.
    message_id: &'a str,
    /// The node that has taken the reply.
    node: &'a str,
    /// The client that has replied; absent if that was a caller or an application.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    /// The topic of the reply.
    topic: &'a str,
    /// The QoS of the reply.
    qos: u8,
    /// The payload, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    /// Any other payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    /// Content Type of the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    /// User Properties of the reply, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    user_properties: Vec<UserPropertyItem>,
    /// Milliseconds from the request to its reply.
    took_ms: u64,
}

impl<'a> ReplyAnswer<'a> {
    fn of(reply: &'a DeviceReply, message_id: &'a str) -> Self {
        let publication = reply.message.publication();
        let properties = PublishProperties::decode_forwarded(publication.properties);
        let payload = std::str::from_utf8(publication.payload).ok();
        let user_property = |(key, value): (&str, &str)| UserPropertyItem {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        Self {
            success: true,
            message_id,
            node: &reply.node,
            client_id: reply.client_id.as_deref(),
            topic: publication.topic,
            qos: publication.qos.number(),
            payload,
            payload_base64: payload.is_none().then(|| STANDARD.encode(publication.payload)),
            content_type: properties.content_type,
            user_properties: properties.user_properties.iter().map(user_property).collect(),
            took_ms: u64::try_from(reply.took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Publishes a message for a device and answers with its reply.
#[utoipa::path(
    post, path = "/request", tag = "messages", operation_id = "request",
    params(
        ("timeout_ms" = Option<u64>, Query, minimum = 1, maximum = 60_000,
         description = "How long to wait, in milliseconds; default 5,000."),
        KeyHeader,
    ),
    request_body(content = PublishItem, description = "The message.",
        example = json!({"topic": "cars/17/command", "payload": "report"})),
    responses(
        (status = 200, description = "The reply.", body = ReplyAnswer<'static>, example = json!({
            "success": true, "message_id": "19acb2a0b40-3", "node": "hearthmq", "client_id": "car-17",
            "topic": "$response/1", "qos": 1, "payload": "fine", "took_ms": 12})),
        Fails<(Caller, Change, Parameters, Publishing, JsonBody, Repeating, Reply)>,
    ),
)]
pub(super) async fn request(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let time_max = waiting::time_in(&Query::parse(request.query_string(), &[TIMEOUT])?)?;
        let body = body::read_json(&api, &request, payload, BULK_BYTES_MAX).await?;
        let item: PublishItem = body::parse(&body.bytes)?;
        let mut asked = AskedMessage::try_from(item)?;
        // Publishing and listening are two permissions, and both come before the message.
        permit(&api, &caller, &asked)?;
        // The request itself would be its own reply.
        if asked.response_topic.as_ref() == Some(&asked.topic) {
            return Err(ApiError::invalid_body("response_topic must differ from topic"));
        }
        let needs = Permissions::of(&asked);
        needs.check_response_topic(&api, &caller)?;
        complete(&api, &mut asked);
        let its = (Data::clone(&api), caller.clone());
        let asking = once(&api, &request, &caller, &body.bytes, ask(its, asked, needs, time_max));
        drop(body); // others need its room while this call waits
        waiting::unless_ending(&request, true, asking).await
    };
    answer(&api, &request, RestRoute::Request, pin!(call)).await
}

async fn ask(
    (api, caller): (Data<Api>, HttpCaller),
    asked: AskedMessage,
    needs: Permissions,
    time_max: Duration,
) -> Result<Answer, ApiError> {
    let message = build(&api, &asked)?;
    drop(asked);
    let mut asking = RequestReply::new(message, time_max)
        .ok_or_else(|| ApiError::invalid_body("response_topic is not valid"))?;
    asking.by.clone_from(&caller.identity.username);
    // Given back when the caller leaves, as the broker then forgets the request.
    let _place = waiting::enter_one(&api, &caller)?;
    // The broker ends the wait itself; this longer time is for a broker that does not answer.
    let time_max = time_max + api.options().call_timeout;
    let id = new_id(&api);
    match timeout(time_max, api.0.control.request(asking)).await {
        Ok(Ok(reply)) => {
            needs.check(&api, &caller)?; // They may have been taken meanwhile.
            Ok(Answer::json(&ReplyAnswer::of(&reply, &id)))
        }
        Ok(Err(ControlError::Timeout)) => Err(ApiError::no_reply()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(ApiError::timeout()),
    }
}

/// The permissions that a caller needs to get a reply.
struct Permissions {
    topic: String,
    qos: QoS,
    retain: bool,
    /// The Response Topic, if the caller names it.
    response_topic: Option<String>,
}

impl Permissions {
    fn of(asked: &AskedMessage) -> Self {
        let AskedMessage { topic, qos, retained: retain, response_topic, .. } = asked;
        let (topic, response_topic) = (topic.clone(), response_topic.clone());
        Self { topic, qos: *qos, retain: *retain, response_topic }
    }

    fn check(&self, api: &Api, caller: &HttpCaller) -> Result<(), ApiError> {
        let Self { topic, qos, retain, .. } = self;
        let action = Action::Publish { topic, qos: *qos, retain: *retain };
        if !caller.may(api, "", action) {
            return Err(ApiError::forbidden_to_publish());
        }
        self.check_response_topic(api, caller)
    }

    fn check_response_topic(&self, api: &Api, caller: &HttpCaller) -> Result<(), ApiError> {
        let Some(filter) = &self.response_topic else { return Ok(()) };
        let action = Action::Subscribe { filter, qos: QoS::AtMostOnce };
        caller.may(api, "", action).then_some(()).ok_or_else(ApiError::forbidden_response_topic)
    }
}

/// Adds the Response Topic and the Correlation Data that the caller left to the broker.
fn complete(api: &Api, asked: &mut AskedMessage) {
    let topic = asked.response_topic.take();
    asked.response_topic = Some(topic.unwrap_or_else(|| api.0.control.new_response_topic()));
    let number = || new_id(api).into_bytes();
    asked.correlation_data.get_or_insert_with(number);
}
