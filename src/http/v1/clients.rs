//! `GET /api/v1/clients` and `POST /api/v1/clients/query`: the list of clients, by pages, as a number,
//! or as a stream of lines.
//!
//! Any account may call it. The list has the clients that the caller may observe.

use std::pin::pin;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::ACCEPT,
    web::{self, Bytes, Data, Payload, ServiceConfig},
};
use futures_util::{Stream, stream::try_unfold};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{Caller, ClientId, Elsewhere, Fails, Items as ItemFails, JsonBody, Parameters},
        live::LongAnswer,
        shares::OwnShare,
    },
    body::{self, BULK_BYTES_MAX},
    bulk::{self, Items},
    cursor, in_time_of_list,
    page::{AskedPage, LIMIT_DEFAULT, LIMIT_MAX, MissingNodeAnswer},
    resource,
    summary::{ClientInList, Fields, ShownClient},
    target::Query,
    walk,
};
use crate::{
    auth::Network,
    control::{
        ClientFilter, ClientPage, ClientPattern, ControlError, CountClients, ListClients,
        MemberState,
    },
    metrics::RestRoute,
};

/// The number of clients that a stream reads at once.
const STREAMED_AT_ONCE: usize = 1_000;

const PARAMETERS: &[&str] = &[
    "limit",
    "cursor",
    "client_id",
    "username",
    "address",
    "protocol",
    "connected",
    "listener",
    "keep_alive_min",
    "keep_alive_max",
    "idle_min_secs",
    "queued_min",
    "fields",
    "count",
];

pub(super) fn routes(config: &mut ServiceConfig) {
    let list = resource("/clients", "GET, HEAD");
    config.service(list.route(web::get().to(list_clients)).route(web::head().to(list_clients)));
}

/// Selects clients: the body of a `POST`, or the parameters of a `GET`. A client must satisfy
/// all conditions that are given.
#[derive(Default, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
#[schema(as = ClientQuery)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Maximum number of clients of a page.
    #[schema(minimum = 1, maximum = 10_000, default = 100)]
    #[param(minimum = 1, maximum = 10_000, default = 100)]
    limit: Option<u64>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// A pattern: `*` stands for any text.
    client_id: Option<String>,
    /// One of these Client Identifiers; only in a body.
    #[schema(value_type = Option<Vec<String>>, max_items = 10_000)]
    #[param(ignore)]
    client_ids: Option<Items<Box<RawValue>>>,
    /// The user name of the last connection.
    username: Option<String>,
    /// The IP address of the last connection, or its network.
    #[schema(example = "10.0.0.0/8")]
    #[param(example = "10.0.0.0/8")]
    address: Option<String>,
    /// Connected clients of MQTT 3.1 (3), 3.1.1 (4) or 5.0 (5).
    #[schema(minimum = 3, maximum = 5)]
    #[param(minimum = 3, maximum = 5)]
    protocol: Option<u64>,
    /// Only connected clients, or only absent ones.
    connected: Option<bool>,
    /// The URL of the listener of the last connection.
    listener: Option<String>,
    /// Connected clients whose Keep Alive in force has at least this number of seconds.
    #[schema(maximum = 65_535)]
    #[param(maximum = 65_535)]
    keep_alive_min: Option<u64>,
    /// Connected clients whose Keep Alive in force has at most this number of seconds.
    #[schema(maximum = 65_535)]
    #[param(maximum = 65_535)]
    keep_alive_max: Option<u64>,
    /// Connected clients whose last packet came at least these seconds ago.
    idle_min_secs: Option<u64>,
    /// At least this number of messages waits in the queue.
    queued_min: Option<u64>,
    /// The fields to show; `client_id` is always shown.
    #[schema(value_type = Option<Vec<String>>, max_items = 10_000)]
    #[param(value_type = Option<Vec<String>>, style = Form, explode = false)]
    fields: Option<Items<String>>,
    /// `true`: `total` is the number of all clients that match.
    count: Option<bool>,
}

/// A page of the list.
#[derive(ToSchema)]
#[schema(as = ClientPage)]
#[expect(dead_code, reason = "only described here; items are written one by one")]
pub(super) struct ListAnswer {
    /// The clients, in the order of their identifiers.
    items: Vec<ClientInList>,
    /// The cursor of the next page; absent if nothing follows.
    next: Option<String>,
    /// The number of all clients that match, with `count`.
    total: Option<u64>,
    /// The nodes of the cluster whose clients the page does not have; absent if it has all.
    missing_nodes: Option<Vec<MissingNodeAnswer>>,
}

/// Lists clients: connected ones, and the sessions of absent ones.
///
/// Any account may call; the list has the clients for which it has `observe`. With `Accept:
/// application/x-ndjson` the answer is the whole list, one object on each line.
#[utoipa::path(
    get, path = "/clients", tag = "clients", operation_id = "listClients", params(Wanted),
    responses(
        (status = 200, description = "A page of clients, or a line for each client.", content(
            (ListAnswer = "application/json", example = json!(
                {"items": [{"client_id": "car-17", "online": true}], "next": "AWNhci0xNw"})),
            (ClientInList = "application/x-ndjson",
             example = json!({"client_id": "car-17", "online": true})))),
        Fails<(Caller, Parameters, Elsewhere)>,
    ),
)]
pub(super) async fn list_clients(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let wanted = Wanted::of_query(request.query_string())?;
        list(&api, &request, &caller, wanted).await
    };
    answer(&api, &request, RestRoute::Clients, pin!(call)).await
}

/// Lists clients that a body selects.
#[utoipa::path(
    post, path = "/clients/query", tag = "clients", operation_id = "queryClients",
    request_body(content = Wanted, description = "The clients to list.", example = json!(
        {"client_ids": ["car-17", "nobody"], "connected": true, "fields": ["online"]})),
    responses(
        (status = 200, description = "A page of clients, or a line for each client.", content(
            (ListAnswer = "application/json",
             example = json!({"items": [{"client_id": "car-17", "online": true}]})),
            (ClientInList = "application/x-ndjson",
             example = json!({"client_id": "car-17", "online": true})))),
        Fails<(Caller, Parameters, ClientId, JsonBody, ItemFails, Elsewhere)>,
    ),
)]
pub(super) async fn query_clients(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let body = body::read_json(&api, &request, payload, BULK_BYTES_MAX).await?;
        let wanted = body::parse(&body.bytes)?;
        list(&api, &request, &caller, wanted).await
    };
    answer(&api, &request, RestRoute::ClientsQuery, pin!(call)).await
}

async fn list(
    api: &Data<Api>,
    request: &HttpRequest,
    caller: &HttpCaller,
    wanted: Wanted,
) -> Result<Answer, ApiError> {
    let counts = wanted.count == Some(true);
    let has_limit = wanted.limit.is_some();
    let fields = wanted.fields()?;
    let wanted = wanted.question()?.by(caller.as_data());
    if accepts_lines(request) {
        // A stream has no page, so both would be ignored silently.
        if counts || has_limit {
            let name = if counts { "count" } else { "limit" };
            return Err(ApiError::invalid_parameter(name, "is not for application/x-ndjson"));
        }
        let place = (walk::begin(api, caller)?, Data::clone(api));
        let lines = lines(place, ListClients { limit: STREAMED_AT_ONCE, ..wanted }, fields);
        return Ok(Answer::long(LongAnswer::to(api, caller), lines));
    }
    let mut text = AskedPage { after: None, limit: wanted.limit }.begin(api, caller)?;
    // Made before the filter is given away.
    let count = CountClients::new(wanted.filter.clone()).by(caller.as_data());
    let control = &api.0.control;
    let page = in_time_of_list(api, control.list_clients(wanted)).await?;
    let total = match counts {
        true => Some(in_time_of_list(api, control.count_clients(count)).await?),
        false => None,
    };
    page.clients.iter().try_for_each(|client| text.push(&ShownClient { client, fields }))?;
    Ok(text.end_counted(page.next.as_deref().map(cursor::after), total, page.missing))
}

/// Returns whether the caller wants lines of JSON.
fn accepts_lines(request: &HttpRequest) -> bool {
    let accepted = request.headers().get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let media_type = range.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("application/x-ndjson")
    })
}

/// Returns the list as lines. The next clients are read when the caller has taken those before.
fn lines(
    place: (OwnShare, Data<Api>),
    wanted: ListClients,
    fields: Fields,
) -> impl Stream<Item = Result<Bytes, ApiError>> {
    try_unfold((place, Some(wanted)), move |(place, wanted)| async move {
        let Some(wanted) = wanted else { return Ok(None) };
        let found = async { whole(place.1.0.control.list_clients(wanted.clone()).await?) };
        let page = in_time_of_list(&place.1, found).await?;
        let lines = page.clients.iter().map(|client| walk::line(&ShownClient { client, fields }));
        let lines = lines.collect::<Vec<_>>().concat();
        let next = page.next.map(|next| wanted.after(next));
        Ok(Some((lines.into(), (place, next))))
    })
}

/// Returns a page for a stream, which has no place for the names of nodes that do not answer.
fn whole(page: ClientPage) -> Result<ClientPage, ControlError> {
    match page.missing.iter().any(|missing| missing.state == MemberState::Serving) {
        true => Err(ControlError::NodeUnreachable),
        false => Ok(page),
    }
}

impl Wanted {
    fn of_query(query: &str) -> Result<Self, ApiError> {
        let query = Query::parse(query, PARAMETERS)?;
        let fields = query.text("fields")?;
        let fields =
            fields.map(|fields| Items::all(fields.split(',').map(str::to_owned).collect()));
        Ok(Self {
            limit: query.number("limit", 0..=u64::MAX)?,
            cursor: query.text("cursor")?,
            client_id: query.text("client_id")?,
            client_ids: None,
            username: query.text("username")?,
            address: query.text("address")?,
            protocol: query.number("protocol", 0..=u64::MAX)?,
            connected: query.flag("connected")?,
            listener: query.text("listener")?,
            keep_alive_min: query.number("keep_alive_min", 0..=u64::MAX)?,
            keep_alive_max: query.number("keep_alive_max", 0..=u64::MAX)?,
            idle_min_secs: query.number("idle_min_secs", 0..=u64::MAX)?,
            queued_min: query.number("queued_min", 0..=u64::MAX)?,
            fields,
            count: query.flag("count")?,
        })
    }

    fn fields(&self) -> Result<Fields, ApiError> {
        let Some(names) = &self.fields else { return Ok(Fields::ALL) };
        let fields = Fields::of(names.items.iter().map(String::as_str));
        fields.ok_or_else(|| {
            let expected = format!("must be names among {}", Fields::NAMES.join(", "));
            ApiError::invalid_parameter("fields", &expected)
        })
    }

    fn question(self) -> Result<ListClients, ApiError> {
        let pattern = |pattern: String| {
            let error = |error| {
                ApiError::invalid_parameter("client_id", &format!("is not a pattern: {error}"))
            };
            ClientPattern::new(&pattern).map_err(error)
        };
        let network = |address: String| {
            let error = |error| ApiError::invalid_parameter("address", &format!("is {error}"));
            address.parse::<Network>().map_err(error)
        };
        let seconds = |name, secs| ranged(name, secs, 0, u16::MAX.into()).map(|secs| secs as u16);
        let level = |level| ranged("protocol", level, 3, 5).map(|level| level as u8);
        let (min, max) = (self.keep_alive_min, self.keep_alive_max);
        let mut filter = ClientFilter {
            client_id: self.client_id.map(pattern).transpose()?,
            username: self.username,
            network: self.address.map(network).transpose()?,
            protocol: self.protocol.map(level).transpose()?,
            online: self.connected,
            listener: self.listener,
            keep_alive_secs_min: min.map(|it| seconds("keep_alive_min", it)).transpose()?,
            keep_alive_secs_max: max.map(|it| seconds("keep_alive_max", it)).transpose()?,
            idle_secs_min: self.idle_min_secs,
            queued_min: self.queued_min.map(|it| usize::try_from(it).unwrap_or(usize::MAX)),
            ..ClientFilter::default()
        };
        if let Some(client_ids) = self.client_ids {
            // The excess is refused before the identifiers are parsed.
            client_ids.check()?;
            let ids = client_ids.items.iter().map(|item| bulk::client_id_in(Some(item)));
            filter = filter.among(ids.collect::<Result<Vec<String>, _>>()?);
        }
        let limit = self.limit.map(|limit| ranged("limit", limit, 1, LIMIT_MAX));
        let limit = limit.transpose()?.unwrap_or(LIMIT_DEFAULT) as usize;
        let question = ListClients::new(filter, limit);
        match self.cursor {
            Some(cursor) => Ok(question.after(cursor::key_of(&cursor)?)),
            None => Ok(question),
        }
    }
}

/// Checks that a number is between two bounds.
fn ranged(name: &str, number: u64, min: u64, max: u64) -> Result<u64, ApiError> {
    match (min..=max).contains(&number) {
        true => Ok(number),
        false => {
            let expected = format!("must be a whole number from {min} to {max}");
            Err(ApiError::invalid_parameter(name, &expected))
        }
    }
}
