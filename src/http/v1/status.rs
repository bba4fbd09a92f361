//! `POST /api/v1/status`: which of these clients are online.
//!
//! Needs `observe` for each client. (CONNECT permits only the two calls about one client.)

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::yield_now;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
    },
    body::{self, BULK_BYTES_MAX},
    bulk::{self, PORTION},
    in_time, resource,
};
use crate::{auth::Action, metrics::RestRoute};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/status", "POST").route(web::post().to(status)));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusBody {
    client_ids: Vec<Value>,
}

#[derive(Serialize)]
struct Statuses {
    results: Vec<ClientStatus>,
}

/// Whether a client is online, or why that is not answered.
#[derive(Serialize)]
struct ClientStatus {
    client_id: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

async fn status(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let body: StatusBody = body::read(&api, &request, payload, BULK_BYTES_MAX).await?;
        bulk::check_count(body.client_ids.len())?;
        let mut items = body.client_ids.into_iter();
        let mut results = Vec::with_capacity(items.len());
        while items.len() > 0 {
            let portion: Vec<Value> = items.by_ref().take(PORTION).collect();
            let found = in_time(&api, async { Ok(of_portion(&api, &caller, portion).await) });
            results.extend(found.await?);
            yield_now().await; // other calls of this worker
        }
        Ok(Answer::json(&Statuses { results }))
    };
    answer(&api, &request, RestRoute::Statuses, call).await
}

async fn of_portion(api: &Api, caller: &HttpCaller, portion: Vec<Value>) -> Vec<ClientStatus> {
    let permitted: Vec<Result<String, ApiError>> = portion
        .iter()
        .map(|item| {
            let client_id = bulk::client_id_of(item)?;
            caller.permit(api, client_id, &[Action::Observe])?;
            Ok(client_id.to_owned())
        })
        .collect();
    let asked = permitted.iter().filter_map(|client_id| client_id.as_ref().ok().cloned());
    let mut answers = api.0.control.query_each_online(asked.collect()).await.into_iter();
    let found = permitted.into_iter().map(|client_id| {
        client_id?;
        Ok(answers.next().ok_or_else(ApiError::unavailable)??)
    });
    let found: Vec<Result<bool, ApiError>> = found.collect();
    let results = portion.into_iter().zip(found).map(|(client_id, found)| match found {
        Ok(online) => ClientStatus { client_id, online: Some(online), code: None },
        Err(error) => ClientStatus { client_id, online: None, code: Some(error.code()) },
    });
    results.collect()
}
