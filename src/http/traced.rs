//! The span of a REST call whose caller records a trace, by the header `traceparent` of W3C Trace
//! Context.
//!
//! It shows method, route and status, and nothing that the caller has sent.

use std::sync::Arc;

use actix_web::HttpRequest;

use super::Api;
use crate::{
    metrics::RestRoute,
    spans::{SpanKind, SpanRecord, SpanValue, TRACEPARENT, TraceParent, Tracer, nanos_now},
};

/// The span of a call that has not been answered.
pub(super) struct CallSpan {
    tracer: Arc<Tracer>,
    parent: TraceParent,
    method: &'static str,
    route: &'static str,
    began: u64,
}

impl CallSpan {
    /// Begins the span of a call, if it is to be traced.
    pub(super) fn begin(api: &Api, request: &HttpRequest, route: RestRoute) -> Option<Self> {
        let tracer = api.0.tracer.get()?;
        let mut given = request.headers().get_all(TRACEPARENT);
        // Two headers contradict each other, and then the call is not traced.
        let (Some(traceparent), None) = (given.next(), given.next()) else { return None };
        let parent = tracer.accept(traceparent.to_str().ok()?)?;
        // A caller may send any method, and names of spans must stay few.
        let method = match request.method().as_str() {
            "DELETE" => "DELETE",
            "GET" => "GET",
            "HEAD" => "HEAD",
            "PATCH" => "PATCH",
            "POST" => "POST",
            "PUT" => "PUT",
            _ => "_OTHER",
        };
        let (tracer, route) = (Arc::clone(tracer), route.name());
        Some(Self { tracer, parent, method, route, began: nanos_now() })
    }

    /// Ends the span with the status of the answer.
    pub(super) fn end(self, status: u16) {
        let Self { tracer, parent, method, route, began } = self;
        let attributes = vec![
            ("http.request.method", SpanValue::from(method)),
            ("http.route", SpanValue::from(route)),
            ("http.response.status_code", SpanValue::Number(status.into())),
        ];
        tracer.record(SpanRecord {
            trace_id: parent.trace_id,
            span_id: tracer.next_id(),
            parent_id: parent.span_id,
            has_remote_parent: true,
            kind: SpanKind::Server,
            name: format!("{method} {route}").into(),
            began,
            ended: nanos_now(),
            attributes,
            events: Vec::new(),
            // A caller's mistake is no failure of the server.
            failed: (status >= 500).then_some("the broker could not answer the call"),
        });
    }
}
