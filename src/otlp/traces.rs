//! Spans as OTLP has them.

use super::wire::{
    KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span, Status, TracesRequest, Value,
    WireEvent,
};
use crate::spans::{SpanKind, SpanRecord, SpanValue};

/// The flag of a trace that is recorded.
const SAMPLED: u32 = 1;
/// Two flags: the place of the parent is known, and it is in another process.
const KNOWS_PARENT: u32 = 0x100;
const HAS_REMOTE_PARENT: u32 = 0x200;
/// The code of the Status of a failed operation.
const STATUS_ERROR: i32 = 2;

/// Returns the request that exports these spans.
pub(super) fn request(spans: Vec<SpanRecord>, resource: Resource, scope: Scope) -> TracesRequest {
    let spans = spans.into_iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    TracesRequest { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans }] }
}

fn span(span: SpanRecord) -> Span {
    let remote = if span.has_remote_parent { HAS_REMOTE_PARENT } else { 0 };
    let event =
        |(name, time_unix_nano): (&str, u64)| WireEvent { time_unix_nano, name: name.to_owned() };
    Span {
        trace_id: span.trace_id.to_vec(),
        span_id: span.span_id.to_vec(),
        parent_span_id: span.parent_id.to_vec(),
        name: span.name.into_owned(),
        kind: match span.kind {
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
            SpanKind::Producer => 4,
            SpanKind::Consumer => 5,
        },
        start_time_unix_nano: span.began,
        // Clocks may step back, and a span must not end before its beginning.
        end_time_unix_nano: span.ended.max(span.began),
        attributes: span.attributes.into_iter().map(attribute).collect(),
        events: span.events.into_iter().map(event).collect(),
        status: span.failed.map(|why| Status { message: why.to_owned(), code: STATUS_ERROR }),
        flags: SAMPLED | KNOWS_PARENT | remote,
    }
}

fn attribute((key, value): (&'static str, SpanValue)) -> KeyValue {
    let value = match value {
        SpanValue::Text(text) => Value::Text(text.into_owned()),
        SpanValue::Number(number) => Value::Number(number),
        SpanValue::Flag(flag) => Value::Flag(flag),
    };
    KeyValue::new(key, value)
}
