//! Endpoints for monitoring: liveness, readiness and metrics.

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{
        Method,
        header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    },
    web::Data,
};

use super::{Api, ApiError, MetricsAccess, admission, browsers};
use crate::metrics;

/// Seconds after which a check that failed should be repeated.
const RETRY_READY_SECS: u32 = 1;

/// `GET /health/live`: 200 as long as this thread responds.
pub(super) async fn live(request: HttpRequest) -> HttpResponse {
    match reading(&request) {
        Ok(()) => state(&mut HttpResponse::Ok(), "live"),
        Err(error) => error.answer_to(&request),
    }
}

/// `GET /health/ready`: 200 while clients and callers are accepted; 503 from the beginning of a
/// shutdown, while the store cannot be written, and while clients are redirected to another server.
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
    } else {
        "ready"
    }
}

/// `GET /metrics`: OpenMetrics text, for callers allowed by `metrics_access`.
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
    response
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(serde_json::json!({ "status": status }))
}
