//! `GET /api/v1/clients/{id}/history` and `GET /api/v1/client/history?id=…`: the last connections of
//! a client, also of one that is gone.
//!
//! Needs `observe` for the client.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect},
        calls::{Answer, answer},
        parameters::check_client_id,
    },
    contents::{PageAnswer, limit_of},
    in_time, resource,
    target::{Query, client_id_in_path},
};
use crate::{
    auth::Action,
    control::{LastEnd, ListHistory, PastConnection},
    metrics::RestRoute,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let in_path = resource("/clients/{id}/history", "GET, HEAD")
        .route(web::get().to(history))
        .route(web::head().to(history));
    let by_query = resource("/client/history", "GET, HEAD")
        .route(web::get().to(history_by_query))
        .route(web::head().to(history_by_query));
    config.service(in_path).service(by_query);
}

/// A connection in an answer. Times are in milliseconds since the Unix epoch.
#[derive(Serialize)]
struct ShownConnection<'a> {
    version: u64,
    online: bool,
    address: String,
    listener: &'a str,
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    protocol: u8,
    connected_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
}

impl<'a> ShownConnection<'a> {
    fn of(connection: &'a PastConnection) -> Self {
        let end = connection.end.as_ref();
        let ended_at = end.map(|end| end.at_millis);
        Self {
            version: connection.version,
            online: connection.online,
            address: connection.peer.to_string(),
            listener: &connection.listener,
            node: &connection.node,
            username: connection.username.as_deref(),
            protocol: connection.protocol,
            connected_at: connection.connected_at_millis,
            ended_at,
            duration_ms: ended_at.map(|at| at.saturating_sub(connection.connected_at_millis)),
            reason: end.map(|end| end.reason.name()),
            by: end.and_then(|end: &LastEnd| end.by.as_deref()),
        }
    }
}

async fn history(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    show(&request, &api, RestRoute::ClientHistory, |request| {
        let limit = limit_of(&Query::parse(request.query_string(), &["limit"])?)?;
        Ok(ListHistory::new(client_id_in_path(request)?, limit))
    })
    .await
}

async fn history_by_query(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    show(&request, &api, RestRoute::ClientHistoryById, |request| {
        let query = Query::parse(request.query_string(), &["id", "limit"])?;
        let client_id = query.text("id")?.ok_or_else(|| ApiError::missing_parameter("id"))?;
        check_client_id(&client_id)?;
        Ok(ListHistory::new(client_id, limit_of(&query)?))
    })
    .await
}

async fn show(
    request: &HttpRequest,
    api: &Data<Api>,
    route: RestRoute,
    wanted: impl Fn(&HttpRequest) -> Result<ListHistory, ApiError>,
) -> HttpResponse {
    let call = async {
        let caller = admission::admit(api, request, CallEffect::Looks).await?;
        let wanted = wanted(request)?;
        caller.permit(api, &wanted.client_id, &[Action::Observe])?;
        let found = in_time(api, api.0.control.list_history(wanted)).await?;
        let found = found.ok_or_else(ApiError::client_not_found)?;
        let items = found.iter().map(ShownConnection::of).collect();
        Ok(Answer::json(&PageAnswer { items, next: None }))
    };
    answer(api, request, route, call).await
}
