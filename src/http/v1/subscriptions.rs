//! `POST /api/v1/clients/{id}/subscribe` and `…/unsubscribe`: changes the subscriptions of a
//! connected client. Needs `control` for the client, and the client needs its own permission.

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{
            Caller, Change, ClientId, Fails, Items as ItemFails, JsonBody, NotOnline, Permission,
            Repeating,
        },
        idempotency::{KeyHeader, once},
    },
    body,
    bulk::Items,
    in_time,
    noted::JoinedTexts,
    resource,
    target::{ClientInPath, client_id_of_call},
};
use crate::{
    auth::Action,
    control::{ChangeSubscriptions, SubscriptionChange, SubscriptionsChanged},
    metrics::RestRoute,
    mqtt::{QoS, ReasonCode, RetainHandling, SubscriptionOptions},
    told::{Changed, ChangedObject},
};

/// Maximum Topic Filters of one call.
const FILTERS_MAX: usize = 100;
/// Maximum bytes of a body: that many of the longest filters.
const BODY_BYTES_MAX: usize = FILTERS_MAX * 66_000;

pub(super) fn routes(config: &mut ServiceConfig) {
    let on = resource("/clients/{id}/subscribe", "POST").route(web::post().to(subscribe));
    let off = resource("/clients/{id}/unsubscribe", "POST").route(web::post().to(unsubscribe));
    config.service(on).service(off);
}

/// The subscriptions to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SubscribeBody {
    /// At most 100 subscriptions.
    #[schema(value_type = Vec<SubscribeItem>, max_items = 100)]
    subscriptions: Items<SubscribeItem>,
}

/// A subscription.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SubscribeItem {
    /// The Topic Filter.
    filter: String,
    /// Maximum QoS.
    #[serde(default)]
    #[schema(maximum = 2)]
    qos: u8,
    /// Whether messages of the client itself are left out.
    #[serde(default)]
    no_local: bool,
    /// Whether messages keep their RETAIN flag.
    #[serde(default)]
    retain_as_published: bool,
    /// When retained messages are sent: 0 always, 1 if the subscription is new, 2 never.
    #[serde(default)]
    #[schema(maximum = 2)]
    retain_handling: u8,
}

/// The subscriptions to remove.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UnsubscribeBody {
    /// At most 100 Topic Filters.
    #[schema(value_type = Vec<String>, max_items = 100)]
    filters: Items<String>,
}

/// The results of a call.
#[derive(Serialize, ToSchema)]
struct SubscriptionResults {
    /// The node that has the connection.
    #[schema(value_type = String)]
    node: Arc<str>,
    /// One result for each filter, in the order of the call.
    results: Vec<FilterResult>,
}

/// The result for one filter.
#[derive(Serialize, ToSchema)]
struct FilterResult {
    /// The Topic Filter.
    filter: String,
    /// Whether the subscription is made or ended.
    success: bool,
    /// The QoS that was granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
    /// Why nothing is changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// Subscribes on behalf of a connected client.
///
/// The client's own rules and limits apply. It is not told of the change.
#[utoipa::path(
    post, path = "/clients/{client_id}/subscribe", tag = "sessions", operation_id = "subscribe",
    params(ClientInPath, KeyHeader),
    request_body(content = SubscribeBody, description = "The subscriptions.",
        example = json!({"subscriptions": [{"filter": "cars/17/#", "qos": 1}]})),
    responses(
        (status = 200, description = "A result for each filter, in the order of the call.",
         body = SubscriptionResults,
         example = json!({"node": "hearthmq", "results": [{"filter": "cars/17/#", "success": true, "qos": 1}]})),
        Fails<(Caller, Change, Permission, ClientId, JsonBody, ItemFails, NotOnline, Repeating)>,
    ),
)]
pub(super) async fn subscribe(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let (caller, client_id) = admit(&api, &request).await?;
        let read = body::read_json(&api, &request, payload, BODY_BYTES_MAX).await?;
        let body: SubscribeBody = body::parse(&read.bytes)?;
        let changes = body.subscriptions.within(FILTERS_MAX)?.into_iter().map(|item| {
            let options = options(&item)?;
            Ok(SubscriptionChange::Subscribe(item.filter, options))
        });
        // All items are checked before the first is carried out.
        let changes = changes.collect::<Result<_, ApiError>>()?;
        let its = (Data::clone(&api), caller.clone());
        once(&api, &request, &caller, &read.bytes, change(its, client_id, changes)).await
    };
    answer(&api, &request, RestRoute::Subscribe, pin!(call)).await
}

/// Unsubscribes on behalf of a connected client.
#[utoipa::path(
    post, path = "/clients/{client_id}/unsubscribe", tag = "sessions",
    operation_id = "unsubscribe", params(ClientInPath, KeyHeader),
    request_body(content = UnsubscribeBody, description = "The Topic Filters.",
        example = json!({"filters": ["cars/17/#", "x"]})),
    responses(
        (status = 200, description = "A result for each filter, in the order of the call.",
         body = SubscriptionResults, example = json!({"node": "hearthmq", "results": [
            {"filter": "cars/17/#", "success": true, "qos": 0},
            {"filter": "x", "success": false, "code": "not_subscribed"}]})),
        Fails<(Caller, Change, Permission, ClientId, JsonBody, ItemFails, NotOnline, Repeating)>,
    ),
)]
pub(super) async fn unsubscribe(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let (caller, client_id) = admit(&api, &request).await?;
        let read = body::read_json(&api, &request, payload, BODY_BYTES_MAX).await?;
        let body: UnsubscribeBody = body::parse(&read.bytes)?;
        let changes =
            body.filters.within(FILTERS_MAX)?.into_iter().map(SubscriptionChange::Unsubscribe);
        let its = (Data::clone(&api), caller.clone());
        let changed = change(its, client_id, changes.collect());
        once(&api, &request, &caller, &read.bytes, changed).await
    };
    answer(&api, &request, RestRoute::Unsubscribe, pin!(call)).await
}

async fn admit(api: &Api, request: &HttpRequest) -> Result<(HttpCaller, String), ApiError> {
    let caller = admission::admit(api, request, CallEffect::Changes).await?;
    let client_id = client_id_of_call(request)?;
    caller.permit(api, &client_id, &[Action::Control])?;
    Ok((caller, client_id))
}

fn options(item: &SubscribeItem) -> Result<SubscriptionOptions, ApiError> {
    let qos = QoS::from_number(item.qos);
    let retain_handling = match item.retain_handling {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(ApiError::invalid_body("retain_handling must be 0, 1 or 2")),
    };
    Ok(SubscriptionOptions {
        qos: qos.ok_or_else(|| ApiError::invalid_body("qos must be 0, 1 or 2"))?,
        no_local: item.no_local,
        retain_as_published: item.retain_as_published,
        retain_handling,
    })
}

async fn change(
    (api, caller): (Data<Api>, HttpCaller),
    client_id: String,
    changes: Vec<SubscriptionChange>,
) -> Result<Answer, ApiError> {
    let filters: Vec<_> = changes.iter().map(|change| change.filter().to_owned()).collect();
    let subscribes = matches!(changes.first(), Some(SubscriptionChange::Subscribe(..)));
    let target = client_id.clone();
    let wanted = ChangeSubscriptions::new(client_id, changes);
    let SubscriptionsChanged { node, reasons, .. } =
        in_time(&api, api.0.control.change_subscriptions(wanted)).await?;
    let results: Vec<_> = filters.into_iter().zip(reasons).map(result).collect();
    tell_changed(&api, &caller, (&target, subscribes), &results);
    Ok(Answer::json(&SubscriptionResults { node, results }))
}

/// Notes in the audit log which subscriptions are made or ended, if there are any.
fn tell_changed(
    api: &Api,
    caller: &HttpCaller,
    (client_id, subscribes): (&str, bool),
    results: &[FilterResult],
) {
    let mut filters = JoinedTexts::default();
    for FilterResult { filter, qos, .. } in results.iter().filter(|result| result.success) {
        match qos {
            Some(qos) if subscribes => filters.push(&format!("{filter} QoS {qos}")),
            Some(_) | None => filters.push(filter),
        }
    }
    // Nothing was changed, so there is nothing to note.
    let Some(filters) = filters.text() else { return };
    let (call, target) = ("subscriptions", Some(ChangedObject::Client(client_id)));
    let (old, new) = if subscribes { (None, &*filters) } else { (Some(&*filters), "none") };
    caller.tell_changed(api, Changed { call, target, old, new: Some(new) });
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a few of MQTT's reasons are about filters")]
fn result((filter, reason): (String, ReasonCode)) -> FilterResult {
    let error = match reason {
        ReasonCode::Success | ReasonCode::GrantedQoS1 | ReasonCode::GrantedQoS2 => {
            return FilterResult { filter, success: true, qos: Some(reason.number()), code: None };
        }
        ReasonCode::NotAuthorized => ApiError::client_not_authorized(),
        ReasonCode::QuotaExceeded => ApiError::quota_exceeded(),
        ReasonCode::TopicFilterInvalid => ApiError::invalid_filter(),
        ReasonCode::NoSubscriptionExisted => ApiError::not_subscribed(),
        _ => ApiError::unavailable(),
    };
    FilterResult { filter, success: false, qos: None, code: Some(error.code()) }
}
