//! `/api/v1/cluster`: the cluster of which the broker is a member. Needs `observe` for any client.

use std::pin::pin;

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
    resource,
    target::Query,
};
use crate::{
    auth::Action,
    control::{ClusterMailView, ClusterMemberView, ClusterState, ClusterView},
    metrics::RestRoute,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let cluster = resource("/cluster", "GET, HEAD")
        .route(web::get().to(cluster))
        .route(web::head().to(cluster));
    config.service(cluster);
}

/// The cluster, as the broker that answers sees it.
#[derive(Serialize, ToSchema)]
#[schema(as = Cluster)]
struct ClusterAnswer {
    /// How the broker stands in it: `alone` (it is in no cluster), `connecting` (it has not reached NATS),
    /// `joining`, `serving`, or `fenced` (it must not act for clients until it has joined again).
    #[schema(pattern = "^(alone|connecting|joining|serving|fenced)$")]
    state: &'static str,
    /// The name of the broker in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Counts the lives of the broker in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    incarnation: Option<u64>,
    /// Why NATS cannot be used, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<Box<str>>,
    /// The members, in the order of their names, the broker among them.
    members: Vec<ClusterMemberAnswer>,
    /// Number of Topic Filters of the other brokers that the broker knows; a filter counts once for each of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    routes: Option<usize>,
    /// SUBACKs that the broker has sent before each other broker knew the filters.
    #[serde(skip_serializing_if = "Option::is_none")]
    subacks_early: Option<u64>,
    /// The place in the stream of retained messages up to which the broker has applied it.
    #[serde(skip_serializing_if = "Option::is_none")]
    retained_applied: Option<u64>,
    /// How far the broker is behind the last place that it knows to be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    retained_lag: Option<u64>,
    /// Messages with RETAIN of the broker that the stream did not take.
    #[serde(skip_serializing_if = "Option::is_none")]
    retained_refused: Option<u64>,
}

/// A broker of a cluster.
#[derive(Serialize, ToSchema)]
#[schema(as = ClusterMember)]
struct ClusterMemberAnswer {
    /// Its name.
    node: String,
    /// The state in its record: `joining`, `serving` or `dead`.
    #[schema(pattern = "^(joining|serving|dead)$")]
    state: &'static str,
    /// Counts its lives.
    incarnation: u64,
    /// The broker that does what follows from its death.
    #[serde(skip_serializing_if = "Option::is_none")]
    keeper: Option<String>,
    /// Milliseconds since the broker that answers saw that each of its leases was renewed.
    lease_ages_ms: Vec<u64>,
    /// The messages between the broker that answers and this one, since the start of the first; not for the
    /// broker itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    mail: Option<ClusterMailAnswer>,
}

/// The messages between two brokers.
#[derive(Serialize, ToSchema)]
#[schema(as = ClusterMail)]
struct ClusterMailAnswer {
    /// Messages sent.
    messages_sent: u64,
    /// Their bytes.
    bytes_sent: u64,
    /// Messages that have arrived.
    messages_received: u64,
    /// Bytes that have arrived.
    bytes_received: u64,
    /// Items that the other broker has not acknowledged.
    unacknowledged: u64,
    /// Messages that did not reach the other broker.
    dropped: u64,
}

impl From<ClusterMailView> for ClusterMailAnswer {
    fn from(mail: ClusterMailView) -> Self {
        Self {
            messages_sent: mail.messages_sent,
            bytes_sent: mail.bytes_sent,
            messages_received: mail.messages_received,
            bytes_received: mail.bytes_received,
            unacknowledged: mail.unacknowledged,
            dropped: mail.dropped,
        }
    }
}

impl From<ClusterView> for ClusterAnswer {
    fn from(view: ClusterView) -> Self {
        Self {
            state: view.state.name(),
            node: Some(view.node),
            incarnation: Some(view.incarnation),
            fault: view.fault,
            members: view.members.into_iter().map(ClusterMemberAnswer::from).collect(),
            routes: Some(view.routes),
            subacks_early: Some(view.subacks_early),
            retained_applied: Some(view.retained_applied),
            retained_lag: Some(view.retained_lag),
            retained_refused: Some(view.retained_refused),
        }
    }
}

impl From<ClusterMemberView> for ClusterMemberAnswer {
    fn from(view: ClusterMemberView) -> Self {
        Self {
            node: view.node,
            state: view.state.name(),
            incarnation: view.incarnation,
            keeper: view.keeper,
            lease_ages_ms: view.lease_ages_millis,
            mail: view.mail.map(ClusterMailAnswer::from),
        }
    }
}

/// Shows the cluster: its members, the ages of their leases, the messages between brokers, and whether the
/// broker is fenced.
#[utoipa::path(
    get, path = "/cluster", tag = "node", operation_id = "cluster",
    responses(
        (status = 200, description = "The cluster.", body = ClusterAnswer,
         example = json!({"state": "serving", "node": "a", "incarnation": 3, "members": [
            {"node": "a", "state": "serving", "incarnation": 3, "lease_ages_ms": [410, 412, 411]},
            {"node": "b", "state": "dead", "incarnation": 1, "keeper": "a",
             "lease_ages_ms": [90_210, 90_210, 90_212],
             "mail": {"messages_sent": 120, "bytes_sent": 9_600, "messages_received": 7,
                      "bytes_received": 812, "unacknowledged": 0, "dropped": 2}}],
            "routes": 12, "subacks_early": 0, "retained_applied": 4_711, "retained_lag": 0,
            "retained_refused": 0})),
        Fails<(Caller, Permission, Parameters)>,
    ),
)]
pub(super) async fn cluster(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        Query::parse(request.query_string(), &[])?;
        caller.permit(&api, "", &[Action::Observe])?;
        let alone = || ClusterAnswer {
            state: ClusterState::Alone.name(),
            node: None,
            incarnation: None,
            fault: None,
            members: Vec::new(),
            routes: None,
            subacks_early: None,
            retained_applied: None,
            retained_lag: None,
            retained_refused: None,
        };
        let view = api.0.control.cluster();
        Ok(Answer::json(&view.map_or_else(alone, ClusterAnswer::from)))
    };
    answer(&api, &request, RestRoute::Cluster, pin!(call)).await
}
