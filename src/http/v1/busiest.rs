//! `GET /api/v1/busiest`: the connected clients with the most messages, bytes or the like.
//!
//! Any account may call; the answer has the clients for which it has `observe`.

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect},
        calls::answer,
        failures::{Caller, Fails, Parameters},
    },
    in_time_of_list,
    page::PageText,
    resource,
    target::Query,
    walk,
};
use crate::{
    control::{BusyBy, BusyClient, ClientPattern, ClientTraffic, FindBusiest},
    labels::Label as _,
    metrics::RestRoute,
};

/// The number of clients, if the caller does not say.
const LIMIT_DEFAULT: u64 = 20;
/// Bytes for which room is taken for each client.
const CLIENT_BYTES: usize = 512;

pub(super) fn routes(config: &mut ServiceConfig) {
    let busiest = resource("/busiest", "GET, HEAD")
        .route(web::get().to(busiest))
        .route(web::head().to(busiest));
    config.service(busiest);
}

/// Which clients.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described here")]
struct BusiestParameters {
    /// By what they are compared: `messages_in`, `messages_out`, `bytes_in`, `bytes_out` (each in a second),
    /// `queued` or `idle`.
    #[param(
        default = "messages_in",
        pattern = "^(messages_in|messages_out|bytes_in|bytes_out|queued|idle)$"
    )]
    by: Option<String>,
    /// Maximum number of clients.
    #[param(minimum = 1, maximum = 1_000, default = 20)]
    limit: Option<u64>,
    /// A pattern for the Client Identifier: `*` stands for any text.
    client_id: Option<String>,
}

/// Messages and bytes of a client.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientTraffic)]
struct TrafficPart {
    /// Messages from the client.
    messages_in: u64,
    /// Messages to the client.
    messages_out: u64,
    /// Bytes from the client.
    bytes_in: u64,
    /// Bytes to the client.
    bytes_out: u64,
}

impl From<ClientTraffic> for TrafficPart {
    fn from(traffic: ClientTraffic) -> Self {
        let ClientTraffic { messages_in, messages_out, bytes_in, bytes_out } = traffic;
        Self { messages_in, messages_out, bytes_in, bytes_out }
    }
}

/// A connected client and what it does.
#[derive(Serialize, ToSchema)]
#[schema(as = BusyClient)]
struct BusyAnswer {
    /// Client Identifier.
    #[schema(value_type = String)]
    client_id: Arc<str>,
    /// User name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    username: Option<Arc<str>>,
    /// IP address and port.
    address: String,
    /// The node that has the connection.
    #[schema(value_type = String)]
    node: Arc<str>,
    /// In each second since an earlier call, at least one second ago, or since the connection began.
    per_sec: TrafficPart,
    /// Since the connection began.
    total: TrafficPart,
    /// Messages that wait in the queue.
    queued: usize,
    /// Messages in flight to the client.
    in_flight: usize,
    /// Milliseconds since the last packet.
    idle_ms: u64,
    /// When the connection began, in milliseconds since the Unix epoch.
    connected_at: u64,
}

impl From<BusyClient> for BusyAnswer {
    fn from(client: BusyClient) -> Self {
        Self {
            client_id: client.client_id,
            username: client.username,
            address: client.peer.to_string(),
            node: client.node,
            per_sec: client.per_sec.into(),
            total: client.total.into(),
            queued: client.queued,
            in_flight: client.in_flight,
            idle_ms: client.idle_millis,
            connected_at: client.connected_at_millis,
        }
    }
}

/// The busiest clients.
#[derive(ToSchema)]
#[schema(as = Busiest)]
#[expect(dead_code, reason = "only described here; items are written one by one")]
struct BusiestAnswer {
    /// The clients, that with the highest value first.
    items: Vec<BusyAnswer>,
}

/// Lists the connected clients with the highest values.
///
/// The list has the clients for which the caller has `observe`. Rates are the mean since an earlier call
/// of any caller, one to two seconds ago if calls come each second.
#[utoipa::path(
    get, path = "/busiest", tag = "clients", operation_id = "busiest", params(BusiestParameters),
    responses(
        (status = 200, description = "The clients.", body = BusiestAnswer, example = json!({
            "items": [{"client_id": "car-17", "username": "cars", "address": "192.0.2.7:40000",
                "node": "hearthmq",
                "per_sec": {"messages_in": 250, "messages_out": 2, "bytes_in": 18_000, "bytes_out": 1_080},
                "total": {"messages_in": 7_512, "messages_out": 60, "bytes_in": 540_864, "bytes_out": 32_466},
                "queued": 0, "in_flight": 0, "idle_ms": 3, "connected_at": 1_764_321_000_000_u64}]})),
        Fails<(Caller, Parameters)>,
    ),
)]
pub(super) async fn busiest(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let query = Query::parse(request.query_string(), &["by", "limit", "client_id"])?;
        let names = BusyBy::ALL.iter().map(|by| by.name()).collect::<Vec<_>>().join(", ");
        let by = query.value("by", &format!("must be one of {names}"), BusyBy::from_name)?;
        let limit = query.number("limit", 1..=FindBusiest::LIMIT_MAX as u64)?;
        let limit = limit.unwrap_or(LIMIT_DEFAULT) as usize;
        let mut wanted =
            FindBusiest::new(by.unwrap_or(BusyBy::MessagesIn), limit).by(caller.as_data());
        if let Some(pattern) = query.text("client_id")? {
            let error = |error| {
                ApiError::invalid_parameter("client_id", &format!("is not a pattern: {error}"))
            };
            wanted = wanted.matching(ClientPattern::new(&pattern).map_err(error)?);
        }
        // The search visits every session, so it counts as a walk.
        let _place = walk::begin(&api, &caller)?;
        let mut text = PageText::begin(&api, &caller, limit * CLIENT_BYTES)?;
        let found = in_time_of_list(&api, api.0.control.find_busiest(wanted)).await?;
        found.into_iter().try_for_each(|client| text.push(&BusyAnswer::from(client)))?;
        Ok(text.end(None))
    };
    answer(&api, &request, RestRoute::Busiest, pin!(call)).await
}
