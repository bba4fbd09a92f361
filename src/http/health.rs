//! Endpoints for monitoring: liveness, readiness and metrics.

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{
        Method,
        header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    },
    web::Data,
};

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api, ApiError, MetricsAccess, admission, browsers,
    failures::{Fails, Metrics, OtherMethod},
};
use crate::{control::ClusterState, metrics};

/// Seconds after which a check that failed should be repeated.
const RETRY_READY_SECS: u32 = 1;

/// Says in which state the broker is.
#[derive(Serialize, ToSchema)]
struct HealthAnswer<'a> {
    /// `live` or `ready`; or why clients and callers are not accepted: `not_ready`,
    /// `store_unavailable`, `redirecting` or `cluster_unavailable`.
    status: &'a str,
}

/// Answers 200 as long as the HTTP thread responds.
#[utoipa::path(
    get, path = "/health/live", tag = "node", operation_id = "live", security(()),
    responses(
        (status = 200, description = "The thread responds.", body = HealthAnswer<'static>,
         example = json!({"status": "live"})),
        Fails<(OtherMethod,)>,
    ),
)]
pub(super) async fn live(request: HttpRequest) -> HttpResponse {
    match reading(&request) {
        Ok(()) => state(&mut HttpResponse::Ok(), "live"),
        Err(error) => error.answer_to(&request),
    }
}

/// Answers 200 while clients and callers are accepted.
///
/// Otherwise 503: from the beginning of a shutdown, while the store cannot be written, while clients
/// are redirected to another server, and while the broker does not serve in its cluster.
#[utoipa::path(
    get, path = "/health/ready", tag = "node", operation_id = "ready", security(()),
    responses(
        (status = 200, description = "Clients and callers are accepted.",
         body = HealthAnswer<'static>, example = json!({"status": "ready"})),
        (status = 503, description = "Clients or callers are not accepted.",
         headers(("Retry-After" = u32, description = "Seconds after which to check again.")),
         body = HealthAnswer<'static>, example = json!({"status": "store_unavailable"})),
        Fails<(OtherMethod,)>,
    ),
)]
pub(super) async fn ready(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    if let Err(error) = reading(&request) {
        return error.answer_to(&request);
    }
    let readiness = readiness(&api);
    if readiness == "ready" {
        return state(&mut HttpResponse::Ok(), readiness);
    }
    let mut response = HttpResponse::ServiceUnavailable();
    state(response.insert_header((RETRY_AFTER, RETRY_READY_SECS)), readiness)
}

/// Returns `ready`, or why clients and callers are not accepted.
pub(super) fn readiness(api: &Api) -> &'static str {
    if !api.is_ready() {
        "not_ready"
    } else if !api.0.control.is_storing() {
        "store_unavailable"
    } else if api.0.control.drained_to().is_some() {
        "redirecting"
    } else if api.0.control.cluster().is_some_and(|it| it.state != ClusterState::Serving) {
        "cluster_unavailable"
    } else {
        "ready"
    }
}

/// Returns the metrics as OpenMetrics text, for callers allowed by `metrics_access`.
#[utoipa::path(
    get, path = "/metrics", tag = "node", operation_id = "metrics", security(()),
    responses(
        (status = 200, description = "The metrics.", body = String,
         content_type = "application/openmetrics-text",
         example = "hearthmq_connections 2\n# EOF\n"),
        Fails<(Metrics,)>,
    ),
)]
pub(super) async fn metrics(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    match may_read_metrics(&request, &api) {
        Ok(()) => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, metrics::CONTENT_TYPE))
            .body(api.0.metrics.encode()),
        Err(error) => error.answer_to(&request),
    }
}

fn may_read_metrics(request: &HttpRequest, api: &Api) -> Result<(), ApiError> {
    let options = api.options();
    match options.metrics_access {
        MetricsAccess::Nobody => return Err(ApiError::not_found()),
        MetricsAccess::Loopback => {
            if !admission::peer(api, request)?.ip().is_loopback() {
                return Err(ApiError::not_found());
            }
            browsers::refuse_other_hosts(request.headers(), &options.metrics_hosts)?;
        }
        MetricsAccess::Anyone => {}
    }
    reading(request)
}

fn reading(request: &HttpRequest) -> Result<(), ApiError> {
    match *request.method() {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(ApiError::method_not_allowed("GET, HEAD")),
    }
}

fn state(response: &mut HttpResponseBuilder, status: &str) -> HttpResponse {
    response.insert_header((CACHE_CONTROL, "no-store")).json(HealthAnswer { status })
}
