//! The contents of a session: `GET /api/v1/clients/{id}/subscriptions`, `GET` and
//! `DELETE /api/v1/clients/{id}/queue`.
//!
//! Looking needs `observe` for the client, clearing needs `control`. Payloads belong to others, so
//! they need `administer` as well.

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect},
        calls::{Answer, answer},
        failures::{Caller, Change, ClientId, Fails, NoClient, Parameters, Permission},
    },
    cursor, in_time, in_time_of_list,
    page::{AskedPage, PageAnswer, PageParameters, PageText},
    publish::UserPropertyItem,
    resource,
    target::{ClientInPath, Query, client_id_of_call},
};
use crate::{
    auth::Action,
    control::{
        ClearQueue, ListQueue, ListSubscriptions, MessageProperties, QueuePosition,
        SubscriptionView, WaitingMessage,
    },
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let subscriptions = resource("/clients/{id}/subscriptions", "GET, HEAD")
        .route(web::get().to(subscriptions))
        .route(web::head().to(subscriptions));
    let queue = resource("/clients/{id}/queue", "GET, HEAD, DELETE")
        .route(web::get().to(queue))
        .route(web::head().to(queue))
        .route(web::delete().to(clear));
    config.service(subscriptions).service(queue);
}

/// A subscription of a client.
#[derive(Serialize, ToSchema)]
#[schema(as = Subscription)]
struct ShownSubscription<'a> {
    /// The Topic Filter, with `$share/…` if it is shared.
    filter: &'a str,
    /// Maximum QoS.
    #[schema(maximum = 2)]
    qos: u8,
    /// Whether messages of the client itself are left out.
    no_local: bool,
    /// Whether messages keep their RETAIN flag.
    retain_as_published: bool,
    /// When retained messages are sent: 0 at each SUBSCRIBE, 1 for a new subscription, 2 never.
    #[schema(maximum = 2)]
    retain_handling: u8,
    /// The Subscription Identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    identifier: Option<u32>,
}

/// Lists the subscriptions of a client.
#[utoipa::path(
    get, path = "/clients/{client_id}/subscriptions", tag = "sessions",
    operation_id = "listClientSubscriptions",
    params(ClientInPath, PageParameters),
    responses(
        (status = 200, description = "A page of subscriptions.",
         body = PageAnswer<ShownSubscription<'static>>,
         example = json!({"items": [{"filter": "cars/17/#", "qos": 1, "no_local": false,
             "retain_as_published": false, "retain_handling": 0}], "next": "AWNhcnMvMTcvIw"})),
        Fails<(Caller, Permission, Parameters, ClientId, NoClient)>,
    ),
)]
pub(super) async fn subscriptions(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let client_id = client_id_of_call(&request)?;
        let query = Query::of(&request, &["limit", "cursor"])?;
        let asked = AskedPage::of(&query)?;
        let mut wanted = ListSubscriptions::new(&*client_id, asked.limit);
        if let Some(after) = &asked.after {
            wanted = wanted.after(Arc::clone(after));
        }
        caller.permit(&api, &client_id, &[Action::Observe])?;
        let mut text = asked.begin(&api, &caller)?;
        let page = in_time(&api, api.0.control.list_subscriptions(wanted)).await?;
        let page = page.ok_or_else(ApiError::client_not_found)?;
        page.subscriptions.iter().try_for_each(|it| text.push(&shown_subscription(it)))?;
        Ok(text.end(page.next.as_deref().map(cursor::after)))
    };
    answer(&api, &request, RestRoute::ClientSubscriptions, pin!(call)).await
}

fn shown_subscription(subscription: &SubscriptionView) -> ShownSubscription<'_> {
    ShownSubscription {
        filter: &subscription.filter,
        qos: subscription.qos.number(),
        no_local: subscription.no_local,
        retain_as_published: subscription.retain_as_published,
        retain_handling: subscription.retain_handling as u8,
        identifier: subscription.identifier,
    }
}

/// A message that waits for a client.
#[derive(Serialize, ToSchema)]
#[schema(as = WaitingMessage)]
struct ShownMessage<'a> {
    /// The topic.
    topic: &'a str,
    /// The QoS with which it will be sent.
    #[schema(maximum = 2)]
    qos: u8,
    /// The RETAIN flag.
    retain: bool,
    /// Size of the payload.
    payload_bytes: usize,
    /// When the broker received it, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    received_at: Option<u64>,
    /// The time since then, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
    /// When it expires, in milliseconds since the Unix epoch; absent if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    /// The payload, with `payload=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(flatten)]
    properties: ShownProperties,
}

/// The properties of a message that has some, with its payload.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = MessageProperties)]
pub(super) struct ShownProperties {
    /// Response Topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<String>,
    /// Correlation Data.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_data_base64: Option<String>,
    /// Content Type.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// 1: the payload is UTF-8 according to its publisher.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 1)]
    payload_format_indicator: Option<u8>,
    /// User Properties, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    user_properties: Vec<UserPropertyItem>,
}

impl ShownProperties {
    pub(super) fn of(properties: Option<&MessageProperties>) -> Self {
        let Some(properties) = properties else { return Self::default() };
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let user_properties = properties.user_properties.iter();
        let item = |(key, value): &(Box<str>, Box<str>)| UserPropertyItem {
            key: key.as_ref().to_owned(),
            value: value.as_ref().to_owned(),
        };
        let data = properties.correlation_data.as_ref();
        Self {
            response_topic: text(&properties.response_topic),
            correlation_data_base64: data.map(|data| STANDARD.encode(data)),
            content_type: text(&properties.content_type),
            payload_format_indicator: properties.is_utf8.then_some(1),
            user_properties: user_properties.map(item).collect(),
        }
    }
}

/// Bytes that a page with payloads may have.
pub(super) const PAYLOADS_BYTES: usize = 8 * 1024 * 1024;

/// Whether to show payloads.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described here")]
pub(super) struct PayloadParameter {
    /// `true`: with payloads.
    payload: Option<bool>,
}

/// Lists the messages that wait for a client.
///
/// `payload=true` needs the permission `administer` as well.
#[utoipa::path(
    get, path = "/clients/{client_id}/queue", tag = "sessions", operation_id = "listQueue",
    params(ClientInPath, PageParameters, PayloadParameter),
    responses(
        (status = 200, description = "A page of messages, in the order in which they will be sent.",
         body = PageAnswer<ShownMessage<'static>>,
         example = json!({"items": [{"topic": "cars/17/command", "qos": 1, "retain": false,
             "payload_bytes": 6, "expires_at": 1_764_321_060_000_u64}]})),
        Fails<(Caller, Permission, Parameters, ClientId, NoClient)>,
    ),
)]
pub(super) async fn queue(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let client_id = client_id_of_call(&request)?;
        let query = Query::of(&request, &["limit", "cursor", "payload"])?;
        let asked = AskedPage::of(&query)?;
        let mut wanted = ListQueue::new(&*client_id, asked.limit);
        if let Some(position) = asked.place(position_of)? {
            wanted = wanted.after(position);
        }
        caller.permit(&api, &client_id, &[Action::Observe])?;
        let mut text = if query.flag("payload")? == Some(true) {
            // Payloads are those of other publishers, which `observe` does not cover.
            caller.permit(&api, &client_id, &[Action::Administer])?;
            wanted = wanted.with_payloads();
            // Payloads may be large, so room for them is reserved as a whole.
            PageText::begin(&api, &caller, PAYLOADS_BYTES)?
        } else {
            asked.begin(&api, &caller)?
        };
        let page = in_time_of_list(&api, api.0.control.list_queue(wanted)).await?;
        let page = page.ok_or_else(ApiError::client_not_found)?;
        page.messages.iter().try_for_each(|message| text.push(&shown_message(message)))?;
        Ok(text.end(page.next.map(cursor_of)))
    };
    answer(&api, &request, RestRoute::ClientQueue, pin!(call)).await
}

fn shown_message(message: &WaitingMessage) -> ShownMessage<'_> {
    ShownMessage {
        topic: &message.topic,
        qos: message.qos.number(),
        retain: message.retain,
        payload_bytes: message.payload_bytes,
        received_at: message.received_at_millis,
        age_ms: message.age_millis,
        expires_at: message.expires_at_millis,
        payload_base64: message.payload.as_ref().map(|payload| STANDARD.encode(payload)),
        properties: ShownProperties::of(message.properties.as_ref()),
    }
}

fn cursor_of(position: QueuePosition) -> String {
    match position {
        QueuePosition::Stored(place) => cursor::after(&format!("s{place}")),
        QueuePosition::InMemory(position) => cursor::after(&format!("m{position}")),
    }
}

fn position_of(key: &str) -> Option<QueuePosition> {
    let (kind, number) = key.split_at_checked(1)?;
    let number: u64 = number.parse().ok().filter(|number| *number < u64::MAX)?;
    match kind {
        "s" => Some(QueuePosition::Stored(number)),
        "m" => Some(QueuePosition::InMemory(number)),
        _ => None,
    }
}

/// Says how many messages were dropped.
#[derive(Serialize, ToSchema)]
struct QueueCleared {
    /// The number of messages that were dropped.
    cleared: u64,
    /// Always `true`.
    success: bool,
}

/// Drops the messages that wait for a client.
///
/// Messages in flight stay. If the call fails, some messages may have been dropped.
#[utoipa::path(
    delete, path = "/clients/{client_id}/queue", tag = "sessions", operation_id = "clearQueue",
    params(ClientInPath),
    responses(
        (status = 200, description = "The messages are dropped.", body = QueueCleared,
         example = json!({"cleared": 3, "success": true})),
        Fails<(Caller, Change, Permission, Parameters, ClientId, NoClient)>,
    ),
)]
pub(super) async fn clear(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let client_id = client_id_of_call(&request)?;
        Query::of(&request, &[])?;
        caller.permit(&api, &client_id, &[Action::Control])?;
        // As long as a list, because a queue in the store is cleared in portions.
        let cleared = api.0.control.clear_queue(ClearQueue::new(&*client_id));
        let cleared = in_time_of_list(&api, cleared).await?;
        let cleared = cleared.ok_or_else(ApiError::client_not_found)?;
        let new = format!("{cleared} messages dropped");
        let (call, target) = ("clear queue", Some(ChangedObject::Client(&client_id)));
        caller.tell_changed(&api, Changed { call, target, old: None, new: Some(&new) });
        Ok(Answer::json(&QueueCleared { cleared, success: true }))
    };
    answer(&api, &request, RestRoute::ClientQueue, pin!(call)).await
}
