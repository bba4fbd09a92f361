//! `GET /api/v1/stats/history`: the most important numbers over time. Needs `observe` for any client.

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        Api,
        admission::{self, CallEffect},
        calls::{Answer, answer},
        failures::{Caller, Fails, Parameters, Permission},
    },
    in_time, resource,
    target::Query,
};
use crate::{
    auth::Action,
    metrics::{RestRoute, TrendSpan},
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let history_route = resource("/stats/history", "GET, HEAD");
    config.service(history_route.route(web::get().to(history)).route(web::head().to(history)));
}

/// The numbers of all nodes.
#[derive(Serialize, ToSchema)]
#[schema(as = StatsHistory)]
struct HistoryAnswer {
    /// The nodes.
    nodes: Vec<NodeHistory>,
}

/// The numbers of one node.
#[derive(Serialize, ToSchema)]
struct NodeHistory {
    /// The name of the node.
    #[schema(value_type = String)]
    node: Arc<str>,
    /// The times of the values, in milliseconds since the Unix epoch, oldest first.
    times: Vec<u64>,
    /// The numbers.
    series: Vec<Series>,
}

/// One number over time.
#[derive(Serialize, ToSchema)]
struct Series {
    /// Its name.
    name: &'static str,
    /// Whether the values are a growth per second.
    per_second: bool,
    /// The value at each time.
    values: Vec<f64>,
}

/// Returns the most important numbers over time: every ten seconds of the last hour, or every two
/// minutes of the last day.
///
/// They are kept in memory, from the start of the broker.
#[utoipa::path(
    get, path = "/stats/history", tag = "node", operation_id = "statsHistory",
    params(
        ("span" = Option<String>, Query, pattern = "^(hour|day)$", example = "hour",
         description = "`hour`, the default, or `day`."),
    ),
    responses(
        (status = 200, description = "The numbers.", body = HistoryAnswer, example = json!({"nodes": [{
            "node": "hearthmq", "times": [1_764_321_000_000_u64, 1_764_321_010_000_u64], "series": [
            {"name": "messages_received", "per_second": true, "values": [120.5, 98.0]},
            {"name": "connections", "per_second": false, "values": [2.0, 2.0]}]}]})),
        Fails<(Caller, Permission, Parameters)>,
    ),
)]
pub(super) async fn history(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let query = Query::parse(request.query_string(), &["span"])?;
        let span = query.value("span", "must be hour or day", |text| match text {
            "hour" => Some(TrendSpan::Hour),
            "day" => Some(TrendSpan::Day),
            _ => None,
        })?;
        caller.permit(&api, "", &[Action::Observe])?;
        let node = in_time(&api, api.0.control.node()).await?.node;
        let found = api.0.metrics.trends(span.unwrap_or(TrendSpan::Hour));
        let series = found.trends.into_iter().map(|trend| Series {
            name: trend.name,
            per_second: trend.is_rate,
            values: trend.values,
        });
        let series = series.collect();
        Ok(Answer::json(&HistoryAnswer {
            nodes: vec![NodeHistory { node, times: found.at_millis, series }],
        }))
    };
    answer(&api, &request, RestRoute::StatsHistory, pin!(call)).await
}
