//! `GET /api/v1/clients/{id}/history`: the last connections of a client, also of one that is gone.
//!
//! Needs `observe` for the client.

use std::pin::pin;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect},
        calls::answer,
        failures::{Caller, ClientId, Fails, NoClient, Parameters, Permission},
    },
    in_time,
    page::{AskedPage, PageAnswer},
    resource,
    target::{ClientInPath, Query, client_id_of_call},
};
use crate::{
    auth::Action,
    control::{LastEnd, ListHistory, PastConnection},
    metrics::RestRoute,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let history_of_client = resource("/clients/{id}/history", "GET, HEAD");
    let history_of_client = history_of_client.route(web::get().to(history));
    config.service(history_of_client.route(web::head().to(history)));
}

/// A connection of a client. Times are in milliseconds since the Unix epoch.
#[derive(Serialize, ToSchema)]
#[schema(as = PastConnection)]
struct ShownConnection<'a> {
    /// The number of the connection among those of the Client Identifier.
    version: u64,
    /// Whether it is the present connection.
    online: bool,
    /// IP address and port of the client.
    address: String,
    /// The URL of the listener.
    listener: &'a str,
    /// The node of the connection.
    node: &'a str,
    /// The user name.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    /// 3 (MQTT 3.1), 4 (3.1.1) or 5.
    protocol: u8,
    /// When it began.
    connected_at: u64,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<u64>,
    /// How long it lasted, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    /// Why it ended, as in presence events.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The user name of the caller that has ended it.
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

/// Returns a history for the document.
fn example() -> serde_json::Value {
    serde_json::json!({ "items": [{
        "version": 18,
        "online": false,
        "address": "192.0.2.7:51234",
        "listener": "mqtt://0.0.0.0:1883",
        "node": "hearthmq",
        "protocol": 5,
        "connected_at": 1_764_321_000_000_u64,
        "ended_at": 1_764_321_060_000_u64,
        "duration_ms": 60_000,
        "reason": "keepalive_timeout",
    }] })
}

/// Lists the last connections of a client, also of one that is gone.
#[utoipa::path(
    get, path = "/clients/{client_id}/history", tag = "clients", operation_id = "clientHistory",
    params(ClientInPath,
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 10_000,
         description = "Maximum number of connections; default 100.")),
    responses(
        (status = 200, description = "The connections, the last one first.",
         body = PageAnswer<ShownConnection<'static>>, example = example),
        Fails<(Caller, Permission, Parameters, ClientId, NoClient)>,
    ),
)]
pub(super) async fn history(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let page = AskedPage::of(&Query::of(&request, &["limit"])?)?;
        let client_id = client_id_of_call(&request)?;
        caller.permit(&api, &client_id, &[Action::Observe])?;
        let mut text = page.begin(&api, &caller)?;
        let wanted = ListHistory::new(client_id, page.limit);
        let found = in_time(&api, api.0.control.list_history(wanted)).await?;
        let found = found.ok_or_else(ApiError::client_not_found)?;
        found.iter().try_for_each(|connection| text.push(&ShownConnection::of(connection)))?;
        Ok(text.end(None))
    };
    answer(&api, &request, RestRoute::ClientHistory, pin!(call)).await
}
