//! `/api/v1/bridges`: connections to other brokers. Seen with `observe` on the client identifier of the
//! bridge's session, started and stopped with `administer`.

use std::pin::pin;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Api,
        admission::{self, CallEffect},
        calls::{Answer, answer},
        failures::{
            Administration, BridgeStopped, Caller, Change, Fails, JsonBody, NoBridge, Parameters,
            Permission,
        },
    },
    Done, body, resource,
    rules::administrator,
    target::Query,
};
use crate::{
    auth::{Action, BRIDGE_CLIENTS},
    control::{BridgeCounts, BridgeFault, BridgeTopicView, BridgeView},
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

/// Maximum bytes of a body.
const BODY_BYTES_MAX: usize = 1024;

pub(super) fn routes(config: &mut ServiceConfig) {
    let all =
        resource("/bridges", "GET, HEAD").route(web::get().to(list)).route(web::head().to(list));
    let one = resource("/bridges/{name}", "GET, HEAD, PATCH")
        .route(web::get().to(show))
        .route(web::head().to(show))
        .route(web::patch().to(change));
    let reconnect = resource("/bridges/{name}/reconnect", "POST").route(web::post().to(reconnect));
    config.service(all).service(one).service(reconnect);
}

/// The bridge in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only described here")]
pub(super) struct BridgeInPath {
    /// The name of the bridge.
    name: String,
}

/// Whether a bridge is started.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BridgeChange)]
struct BridgeForm {
    /// `false` stops it; its session collects messages all the same.
    enabled: bool,
}

/// All bridges.
#[derive(Serialize, ToSchema)]
#[schema(as = BridgeList)]
struct BridgesAnswer {
    /// In the order of their names.
    items: Vec<BridgeAnswer>,
}

/// A connection to another broker.
#[derive(Serialize, ToSchema)]
#[schema(as = Bridge)]
struct BridgeAnswer {
    /// Its name.
    name: String,
    /// The client identifier of its session in this broker.
    client_id: String,
    /// Whether it is started.
    enabled: bool,
    /// The state of the bridge: `stopped`, `connecting`, `connected`, or `waiting` for its next attempt.
    #[schema(pattern = "^(stopped|connecting|connected|waiting)$")]
    state: &'static str,
    /// Since when, in milliseconds since the Unix epoch.
    since: u64,
    /// The address to which it is connected, or connects.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Box<str>>,
    /// The version of MQTT: `5` or `3.1.1`.
    #[schema(pattern = "^(5|3\\.1\\.1)$")]
    protocol: &'static str,
    /// Whether the other broker had a session of the bridge when it connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_present: Option<bool>,
    /// How often it has connected since the broker started.
    connects: u64,
    /// How many attempts and connections have failed since then.
    failures: u64,
    /// When it tries again, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<u64>,
    /// The last fault since the broker started.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<BridgeErrorAnswer>,
    /// Messages to the other broker.
    out: BridgeCountsAnswer,
    /// Messages from the other broker.
    r#in: BridgeCountsAnswer,
    /// Messages that wait in its session.
    queued: BridgeQueuedAnswer,
    /// Messages that the other broker has not acknowledged.
    in_flight: usize,
    /// The topics that go over.
    topics: Vec<BridgeTopicAnswer>,
}

/// A fault of a bridge.
#[derive(Serialize, ToSchema)]
#[schema(as = BridgeFault)]
struct BridgeErrorAnswer {
    /// When, in milliseconds since the Unix epoch.
    at: u64,
    /// Its kind.
    code: &'static str,
    /// A text for people.
    message: Box<str>,
}

/// Counts of one direction, since the broker started.
#[derive(Serialize, ToSchema)]
#[schema(as = BridgeCounts)]
struct BridgeCountsAnswer {
    /// Messages that went over.
    messages: u64,
    /// Bytes of their payloads.
    bytes: u64,
    /// Messages that did not go over.
    dropped: u64,
}

/// The queue of a bridge.
#[derive(Serialize, ToSchema)]
#[schema(as = BridgeQueued)]
struct BridgeQueuedAnswer {
    /// Messages.
    messages: usize,
    /// Their bytes.
    bytes: usize,
}

/// Topics that go over a bridge.
#[derive(Serialize, ToSchema)]
#[schema(as = BridgeTopic)]
struct BridgeTopicAnswer {
    /// Topic Filter, without the prefixes.
    filter: String,
    /// `out`, `in` or `both`.
    #[schema(pattern = "^(out|in|both)$")]
    direction: &'static str,
    /// Maximum QoS.
    #[schema(minimum = 0, maximum = 2)]
    qos: u8,
    /// Prefix in this broker.
    local_prefix: String,
    /// Prefix at the other broker.
    remote_prefix: String,
    /// When retained messages go over.
    #[schema(pattern = "^(new|always|never)$")]
    retained: &'static str,
}

impl From<BridgeView> for BridgeAnswer {
    fn from(view: BridgeView) -> Self {
        let (messages, bytes) = view.queued;
        Self {
            name: view.name,
            client_id: view.client_id,
            enabled: view.enabled,
            state: view.phase.name(),
            since: view.since.millis(),
            address: view.address,
            protocol: view.protocol,
            session_present: view.session_present,
            connects: view.connects,
            failures: view.failures,
            retry_at: view.retry_at.map(|at| at.millis()),
            last_error: view.last_error.map(BridgeErrorAnswer::from),
            out: view.outgoing.into(),
            r#in: view.incoming.into(),
            queued: BridgeQueuedAnswer { messages, bytes },
            in_flight: view.in_flight,
            topics: view.topics.into_iter().map(BridgeTopicAnswer::from).collect(),
        }
    }
}

impl From<BridgeFault> for BridgeErrorAnswer {
    fn from(fault: BridgeFault) -> Self {
        let BridgeFault { at, code, message, .. } = fault;
        Self { at: at.millis(), code, message }
    }
}

impl From<BridgeCounts> for BridgeCountsAnswer {
    fn from(counts: BridgeCounts) -> Self {
        let BridgeCounts { messages, bytes, dropped, .. } = counts;
        Self { messages, bytes, dropped }
    }
}

impl From<BridgeTopicView> for BridgeTopicAnswer {
    fn from(view: BridgeTopicView) -> Self {
        let BridgeTopicView {
            filter, direction, qos, local_prefix, remote_prefix, retained, ..
        } = view;
        Self { filter, direction, qos, local_prefix, remote_prefix, retained }
    }
}

/// Lists the bridges that the caller may observe.
#[utoipa::path(
    get, path = "/bridges", tag = "bridges", operation_id = "listBridges",
    responses(
        (status = 200, description = "The bridges.", body = BridgesAnswer,
         example = json!({"items": []})),
        Fails<(Caller, Parameters)>,
    ),
)]
pub(super) async fn list(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        Query::parse(request.query_string(), &[])?;
        let all = api.0.control.list_bridges().await;
        let seen = all.into_iter().filter(|it| caller.may(&api, &it.client_id, Action::Observe));
        Ok(Answer::json(&BridgesAnswer { items: seen.map(BridgeAnswer::from).collect() }))
    };
    answer(&api, &request, RestRoute::Bridges, pin!(call)).await
}

/// Shows a bridge.
#[utoipa::path(
    get, path = "/bridges/{name}", tag = "bridges", operation_id = "showBridge",
    params(BridgeInPath),
    responses(
        (status = 200, description = "The bridge.", body = BridgeAnswer,
         example = json!({"name": "plant", "client_id": "$bridge/plant", "enabled": true,
            "state": "connected", "since": 1_764_321_000_000_u64,
            "address": "mqtts://broker.example:8883", "protocol": "5", "session_present": true,
            "connects": 3, "failures": 1,
            "last_error": {"at": 1_764_320_990_000_u64, "code": "unreachable",
                "message": "mqtts://broker.example:8883: Connection refused (os error 111)"},
            "out": {"messages": 10, "bytes": 1234, "dropped": 0},
            "in": {"messages": 4, "bytes": 99, "dropped": 0},
            "queued": {"messages": 0, "bytes": 0}, "in_flight": 0,
            "topics": [{"filter": "sensors/#", "direction": "out", "qos": 1, "local_prefix": "",
                "remote_prefix": "site7/", "retained": "new"}]})),
        Fails<(Caller, Permission, Parameters, NoBridge)>,
    ),
)]
pub(super) async fn show(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        Query::parse(request.query_string(), &[])?;
        let name = name_in_path(&request);
        caller.permit(&api, &format!("{BRIDGE_CLIENTS}{name}"), &[Action::Observe])?;
        let found = api.0.control.find_bridge(name).await?;
        Ok(Answer::json(&BridgeAnswer::from(found)))
    };
    answer(&api, &request, RestRoute::Bridge, pin!(call)).await
}

/// Starts or stops a bridge.
///
/// This lasts over reloads and restarts, until a call says otherwise. The session of a stopped bridge
/// collects messages.
#[utoipa::path(
    patch, path = "/bridges/{name}", tag = "bridges", operation_id = "changeBridge",
    params(BridgeInPath),
    request_body(content = BridgeForm,
        description = "Whether it is started.", example = json!({"enabled": false})),
    responses(
        (status = 200, description = "The bridge.", body = BridgeAnswer,
         example = json!({"name": "plant", "client_id": "$bridge/plant", "enabled": false,
            "state": "stopped", "since": 1_764_321_000_000_u64, "protocol": "5",
            "connects": 3, "failures": 0,
            "out": {"messages": 10, "bytes": 1234, "dropped": 0},
            "in": {"messages": 4, "bytes": 99, "dropped": 0},
            "queued": {"messages": 0, "bytes": 0}, "in_flight": 0, "topics": []})),
        Fails<(Caller, Change, Administration, Parameters, JsonBody, NoBridge)>,
    ),
)]
pub(super) async fn change(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::parse(request.query_string(), &[])?;
        let form: BridgeForm = body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let name = name_in_path(&request);
        // Looked up for the audit log, which has the value before the change.
        let former = api.0.control.find_bridge(name).await?;
        let changed = api.0.control.set_bridge_enabled(name, form.enabled).await?;
        let word = |enabled| if enabled { "enabled" } else { "disabled" };
        let (old, new) = (Some(word(former.enabled)), Some(word(form.enabled)));
        let target = Some(ChangedObject::Client(&changed.client_id));
        caller.tell_changed(&api, Changed { call: "bridges", target, old, new });
        Ok(Answer::json(&BridgeAnswer::from(changed)))
    };
    answer(&api, &request, RestRoute::Bridge, pin!(call)).await
}

/// Ends the connection of a bridge, or its wait, and connects now.
#[utoipa::path(
    post, path = "/bridges/{name}/reconnect", tag = "bridges", operation_id = "reconnectBridge",
    params(BridgeInPath),
    responses(
        (status = 200, description = "The bridge connects.", body = Done,
         example = json!({"success": true})),
        Fails<(Caller, Change, Administration, Parameters, NoBridge, BridgeStopped)>,
    ),
)]
pub(super) async fn reconnect(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::parse(request.query_string(), &[])?;
        let name = name_in_path(&request);
        api.0.control.reconnect_bridge(name).await?;
        let client_id = format!("{BRIDGE_CLIENTS}{name}");
        let (target, new) = (Some(ChangedObject::Client(&client_id)), Some("reconnect"));
        caller.tell_changed(&api, Changed { call: "bridges", target, old: None, new });
        Ok(Answer::json(&Done::NOW))
    };
    answer(&api, &request, RestRoute::BridgeReconnect, pin!(call)).await
}

/// Returns the name in the path. No bridge has a name that must be percent-encoded.
fn name_in_path(request: &HttpRequest) -> &str {
    request.match_info().get("name").unwrap_or_default()
}
