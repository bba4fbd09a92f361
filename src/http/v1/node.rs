//! `GET /api/v1/node`: the node and what limits it. `GET /api/v1/stats`: the metrics as JSON.
//!
//! Both need `observe` for any client.

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect},
        calls::{Answer, answer},
        failures::{Caller, Fails, Parameters, Permission},
        health,
    },
    in_time, resource,
    target::Query,
};
use crate::{auth::Action, metrics::RestRoute};

pub(super) fn routes(config: &mut ServiceConfig) {
    let node =
        resource("/node", "GET, HEAD").route(web::get().to(node)).route(web::head().to(node));
    let stats =
        resource("/stats", "GET, HEAD").route(web::get().to(stats)).route(web::head().to(stats));
    config.service(node).service(stats);
}

async fn admit(api: &Api, request: &HttpRequest) -> Result<(), ApiError> {
    let caller = admission::admit(api, request, CallEffect::Looks).await?;
    Query::parse(request.query_string(), &[])?;
    caller.permit(api, "", &[Action::Observe])
}

/// The node and what limits it.
#[derive(Serialize, ToSchema)]
#[schema(as = Node)]
struct NodeAnswer<'a> {
    /// The name of the node.
    node: &'a str,
    /// The version of the broker.
    version: &'a str,
    /// When the broker started, in milliseconds since the Unix epoch.
    started_at: u64,
    /// Seconds since the start.
    uptime_secs: u64,
    /// Whether clients and callers are accepted.
    ready: bool,
    /// `ready`, or why not, as `/health/ready` says.
    readiness: &'a str,
    /// Where new clients are redirected; `null` if they are not.
    #[schema(required)]
    draining: Option<DrainingPart>,
    /// The number of shards.
    shards: usize,
    /// The number of connections.
    connections: usize,
    /// The number of sessions, with and without a connection.
    sessions: usize,
    /// The URLs of the MQTT listeners.
    #[schema(value_type = Vec<String>)]
    listeners: &'a [Arc<str>],
    /// The limits in force, named as in the configuration.
    #[schema(value_type = Object)]
    limits: Value,
}

/// Where new clients are redirected.
#[derive(Serialize, ToSchema)]
#[schema(as = Draining)]
struct DrainingPart {
    /// The other server.
    server_reference: String,
    /// Whether clients should use it permanently.
    permanent: bool,
}

/// Describes the node: version, uptime, limits, listeners and readiness.
#[utoipa::path(
    get, path = "/node", tag = "node", operation_id = "node",
    responses(
        (status = 200, description = "The node.", body = NodeAnswer<'static>, example = json!({
            "node": "hearthmq", "version": "0.1.0", "started_at": 1_764_321_000_000_u64,
            "uptime_secs": 60, "ready": true, "readiness": "ready", "draining": null, "shards": 2,
            "connections": 2, "sessions": 2, "listeners": ["mqtt://127.0.0.1:1883"],
            "limits": {"connections_max": 100_000}})),
        Fails<(Caller, Permission, Parameters)>,
    ),
)]
pub(super) async fn node(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        admit(&api, &request).await?;
        let node = in_time(&api, api.0.control.node()).await?;
        let draining = api.0.control.drained_to();
        let draining = draining.map(|to| DrainingPart {
            server_reference: (**to.server_reference()).to_owned(),
            permanent: to.is_permanent(),
        });
        let readiness = health::readiness(&api);
        Ok(Answer::json(&NodeAnswer {
            node: &node.node,
            version: node.version,
            started_at: node.started_at_millis,
            uptime_secs: node.now_millis.saturating_sub(node.started_at_millis) / 1000,
            ready: readiness == "ready",
            readiness,
            draining,
            shards: node.shards,
            connections: node.connections,
            sessions: node.sessions,
            listeners: &node.listeners,
            limits: json!(node.limits),
        }))
    };
    answer(&api, &request, RestRoute::Node, pin!(call)).await
}

/// The metrics.
#[derive(Serialize, ToSchema)]
#[schema(as = Stats)]
struct StatsAnswer {
    /// The rates of the most important counters; none in the first ten seconds.
    rates: Vec<RatePart>,
    /// All samples.
    metrics: Vec<Sample>,
}

/// The rate of a counter.
#[derive(Serialize, ToSchema)]
#[schema(as = Rate)]
struct RatePart {
    /// The name of the counter, as in `/metrics`.
    name: &'static str,
    /// Per second, over the last ten seconds.
    per_second_10s: f64,
    /// Per second, over the last minute or since the start.
    per_second_60s: f64,
}

/// A value of a metric.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
struct Sample {
    /// The name, as in `/metrics`.
    name: String,
    /// The labels, as in `/metrics`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    labels: Map<String, Value>,
    /// The value.
    #[schema(value_type = f64)]
    value: Value,
}

/// Returns the metrics as JSON.
#[utoipa::path(
    get, path = "/stats", tag = "node", operation_id = "stats",
    responses(
        (status = 200, description = "The metrics.", body = StatsAnswer, example = json!(
            {"rates": [{"name": "hearthmq_messages_received_total", "per_second_10s": 120.5,
            "per_second_60s": 98.0}], "metrics": [{"name": "hearthmq_connections", "value": 2}]})),
        Fails<(Caller, Permission, Parameters)>,
    ),
)]
pub(super) async fn stats(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        admit(&api, &request).await?;
        let text = api.0.metrics.encode();
        let metrics = text.lines().filter_map(sample).collect();
        let rates = api.0.metrics.rates().into_iter().map(|rate| RatePart {
            name: rate.name,
            per_second_10s: rate.per_sec_10s,
            per_second_60s: rate.per_sec_60s,
        });
        Ok(Answer::json(&StatsAnswer { rates: rates.collect(), metrics }))
    };
    answer(&api, &request, RestRoute::Stats, pin!(call)).await
}

/// Parses a line of OpenMetrics; `None` if it has no sample. The encoder writes the lines, and escapes
/// `\`, `"` and line ends in the values of labels.
fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (name_and_labels, value) = line.rsplit_once(' ')?;
    let (name, labels) = name_and_labels.split_once('{').unwrap_or((name_and_labels, ""));
    let number = match value.parse::<u64>() {
        Ok(number) => Value::from(number),
        Err(_) => Value::from(value.parse::<f64>().ok()?),
    };
    let labels = labels_of(labels.strip_suffix('}').unwrap_or(labels));
    Some(Sample { name: name.to_owned(), labels, value: number })
}

fn labels_of(text: &str) -> Map<String, Value> {
    let mut labels = Map::new();
    let mut rest = text;
    while let Some((name, quoted)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        let mut end = quoted.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    end = at + 1;
                    break;
                }
                // The escapes of the exposition format: backslash, quotation mark, line break.
                '\\' => match characters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, escaped)) => value.push(escaped),
                    None => break,
                },
                other => value.push(other),
            }
        }
        labels.insert(name.trim_start_matches(',').to_owned(), Value::from(value));
        rest = &quoted[end..];
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_metrics_becomes_a_sample() {
        let found = |line| serde_json::to_string(&sample(line)).unwrap();
        assert_eq!(found("# EOF"), "null");
        assert_eq!(found("a_total 7"), r#"{"name":"a_total","value":7}"#);
        assert_eq!(found("a 0.5"), r#"{"name":"a","value":0.5}"#);
        assert_eq!(
            found(r#"a_bucket{le="+Inf",route="/x, \"y\" {z}"} 1.0"#),
            r#"{"name":"a_bucket","labels":{"le":"+Inf","route":"/x, \"y\" {z}"},"value":1.0}"#
        );
    }
}
