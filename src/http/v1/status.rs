//! `POST /api/v1/status`: which of these clients are online.
//!
//! Needs `observe` for each client. (CONNECT permits only the two calls about one client.)

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::yield_now;
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{Caller, Fails, Items as ItemFails, JsonBody},
    },
    body::{self, BULK_BYTES_MAX},
    bulk::{self, BulkResults, Items, PORTION},
    in_time, resource,
};
use crate::{auth::Action, control::OnlineState, metrics::RestRoute, told::Made};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/status", "POST").route(web::post().to(status)));
}

/// The clients to ask for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StatusBody<'b> {
    /// Their identifiers.
    #[serde(borrow)]
    #[schema(value_type = Vec<String>, max_items = 10_000)]
    client_ids: Items<&'b RawValue>,
}

/// Whether a client is online, or why that is not answered.
#[derive(Serialize, ToSchema)]
struct ClientStatus<'b> {
    /// The item of the call.
    #[schema(value_type = serde_json::Value)]
    client_id: &'b RawValue,
    /// Whether the client is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<bool>,
    /// The node that has the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    node: Option<Arc<str>>,
    /// Why that is not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// Asks which of several clients are online.
#[utoipa::path(
    post, path = "/status", tag = "clients", operation_id = "clientStatuses",
    request_body(content = StatusBody<'static>, description = "The clients.",
        example = json!({"client_ids": ["car-17", "nobody"]})),
    responses(
        (status = 200, description = "A result for each client, in the order of the call.",
         body = BulkResults<ClientStatus<'static>>, example = json!({"results": [
            {"client_id": "car-17", "online": true, "node": "hearthmq"},
            {"client_id": "nobody", "online": false}]})),
        Fails<(Caller, JsonBody, ItemFails)>,
    ),
)]
pub(super) async fn status(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let body = body::read_json(&api, &request, payload, BULK_BYTES_MAX).await?;
        let StatusBody { client_ids } = body::parse(&body.bytes)?;
        client_ids.check()?;
        let mut results = Vec::with_capacity(client_ids.items.len());
        for portion in client_ids.items.chunks(PORTION) {
            let found = in_time(&api, async { Ok(of_portion(&api, &caller, portion).await) });
            results.extend(found.await?);
            yield_now().await; // other calls of this worker
        }
        let done = results.iter().filter(|result| result.online.is_some()).count();
        caller.tell_made(&api, Made { call: "status", topic: None, done, items: results.len() });
        Ok(Answer::json(&BulkResults { results }))
    };
    answer(&api, &request, RestRoute::Statuses, pin!(call)).await
}

async fn of_portion<'b>(
    api: &Api,
    caller: &HttpCaller,
    portion: &[&'b RawValue],
) -> Vec<ClientStatus<'b>> {
    let permitted: Vec<Result<String, ApiError>> = portion
        .iter()
        .map(|item| {
            let client_id = bulk::client_id_in(Some(item))?;
            caller.permit(api, &client_id, &[Action::Observe])?;
            Ok(client_id)
        })
        .collect();
    let asked = permitted.iter().filter_map(|client_id| client_id.as_ref().ok().cloned());
    let mut answers = api.0.control.query_each_online(asked.collect()).await.into_iter();
    // The broker has answered only the permitted ones, in their order.
    let found = permitted.into_iter().map(|client_id| {
        client_id?;
        Ok(answers.next().ok_or_else(ApiError::unavailable)??)
    });
    let found: Vec<Result<OnlineState, ApiError>> = found.collect();
    let results = portion.iter().copied().zip(found).map(|(client_id, found)| match found {
        Ok(OnlineState { online, node, .. }) => {
            ClientStatus { client_id, online: Some(online), node, code: None }
        }
        Err(error) => {
            ClientStatus { client_id, online: None, node: None, code: Some(error.code()) }
        }
    });
    results.collect()
}
