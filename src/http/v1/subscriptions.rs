//! `POST /api/v1/clients/{id}/subscribe` and `…/unsubscribe`: changes the subscriptions of a
//! connected client. Needs `control` for the client, and the client needs its own permission.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
    },
    body,
    bulk::{BulkResults, Items},
    in_time, resource,
    target::client_id_in_path,
};
use crate::{
    auth::Action,
    control::{ChangeSubscriptions, SubscriptionChange},
    metrics::RestRoute,
    mqtt::{QoS, ReasonCode, RetainHandling, SubscriptionOptions},
    told::Changed,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscribeBody {
    subscriptions: Items<SubscribeItem>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscribeItem {
    filter: String,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    no_local: bool,
    #[serde(default)]
    retain_as_published: bool,
    #[serde(default)]
    retain_handling: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnsubscribeBody {
    filters: Items<String>,
}

/// The result for one filter.
#[derive(Serialize)]
struct FilterResult {
    filter: String,
    success: bool,
    /// The QoS that was granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

async fn subscribe(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let (caller, client_id) = admit(&api, &request).await?;
        let body: SubscribeBody = body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let changes = body.subscriptions.within(FILTERS_MAX)?.into_iter().map(|item| {
            let options = options(&item)?;
            Ok(SubscriptionChange::Subscribe(item.filter, options))
        });
        change(&api, &caller, client_id, changes.collect::<Result<_, ApiError>>()?).await
    };
    answer(&api, &request, RestRoute::Subscribe, call).await
}

async fn unsubscribe(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let (caller, client_id) = admit(&api, &request).await?;
        let body: UnsubscribeBody = body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let changes =
            body.filters.within(FILTERS_MAX)?.into_iter().map(SubscriptionChange::Unsubscribe);
        change(&api, &caller, client_id, changes.collect()).await
    };
    answer(&api, &request, RestRoute::Unsubscribe, call).await
}

async fn admit(api: &Api, request: &HttpRequest) -> Result<(HttpCaller, String), ApiError> {
    let caller = admission::admit(api, request, CallEffect::Changes).await?;
    let client_id = client_id_in_path(request)?;
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
    api: &Api,
    caller: &HttpCaller,
    client_id: String,
    changes: Vec<SubscriptionChange>,
) -> Result<Answer, ApiError> {
    let filters: Vec<_> = changes.iter().map(|change| change.filter().to_owned()).collect();
    let (target, count) = (client_id.clone(), changes.len());
    let wanted = ChangeSubscriptions::new(client_id, changes);
    let reasons = in_time(api, api.0.control.change_subscriptions(wanted)).await?;
    let new = format!("{count} filters");
    let (call, target, new) = ("subscriptions", Some(&*target), Some(&*new));
    caller.tell_changed(api, Changed { call, target, old: None, new });
    let results = filters.into_iter().zip(reasons);
    Ok(Answer::json(&BulkResults { results: results.map(result).collect() }))
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
