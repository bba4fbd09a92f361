//! The spans of one message: received, routed, stored, and one for each delivery.
//!
//! ```text
//! publisher's span
//!  └─ mqtt receive          until the broker may acknowledge the message
//!      ├─ mqtt route        until each target has it, in its output or in a queue
//!      │   └─ mqtt deliver  for each target: until the client has acknowledged it
//!      └─ mqtt store        until the changes are stored that the acknowledgement waits for
//! ```

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use super::{
    SpanKind, SpanRecord, SpanValue, TRACEPARENT, TraceParent, Tracer, deliveries::DeliveryDraft,
    nanos_now,
};
use crate::mqtt::{QoS, Receipt, Timestamp, UserProperties};

/// A message that the broker has received.
pub(crate) struct ReceivedMessage<'a> {
    pub(crate) topic: &'a str,
    /// The client identifier of the publisher.
    pub(crate) publisher: &'a str,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) payload_bytes: usize,
}

/// A traced message, shared by its deliveries on all shards.
pub(crate) struct MessageTrace {
    tracer: Arc<Tracer>,
    parent: TraceParent,
    /// The identifiers of the spans `receive` and `route`.
    receive_id: [u8; 8],
    route_id: [u8; 8],
    topic: Option<SpanValue>,
    qos: QoS,
    payload_bytes: usize,
    /// The spans that its deliveries may still have.
    deliveries_left: AtomicU32,
}

/// The span `receive` of a message, and `store` if its acknowledgement waits for the store. Both end
/// when it is dropped.
pub(crate) struct ReceiveSpan {
    pub(crate) trace: Arc<MessageTrace>,
    began: u64,
    publisher: Option<SpanValue>,
    retain: bool,
    /// The Reason Code of the acknowledgement; `None` if the message was not accepted.
    reason: Option<u8>,
    /// When it began to wait for the store.
    waits_since: Option<u64>,
    is_stored: bool,
}

impl Tracer {
    /// Returns the span of a message if the broker traces it: it has one user property `traceparent`, which
    /// requests this.
    pub(crate) fn receive<'a>(
        self: &Arc<Self>,
        properties: UserProperties<'_>,
        message: impl FnOnce() -> ReceivedMessage<'a>,
    ) -> Option<Box<ReceiveSpan>> {
        let mut given = properties.iter().filter(|(name, _)| *name == TRACEPARENT);
        // Several parents would be contradictory, so such a message is not traced.
        let (Some((_, traceparent)), None) = (given.next(), given.next()) else { return None };
        let parent = self.accept(traceparent)?;
        // Only now, because most messages are not traced.
        let ReceivedMessage { topic, publisher, qos, retain, payload_bytes } = message();
        let options = &self.options;
        let shown = |shows: bool, text| shows.then(|| SpanValue::of_stranger(text));
        let trace = Arc::new(MessageTrace {
            tracer: Arc::clone(self),
            parent,
            receive_id: self.next_id(),
            route_id: self.next_id(),
            topic: shown(options.shows_topics, topic),
            qos,
            payload_bytes,
            deliveries_left: AtomicU32::new(options.deliveries_max.into()),
        });
        Some(Box::new(ReceiveSpan {
            trace,
            began: nanos_now(),
            publisher: shown(options.shows_client_ids, publisher),
            retain,
            reason: None,
            waits_since: None,
            is_stored: false,
        }))
    }
}

impl MessageTrace {
    /// Ends the span `route`, which began at this time, with the number of targets.
    pub(crate) fn routed(&self, began: u64, targets: usize) {
        let spans_max = usize::from(self.tracer.options.deliveries_max);
        let attributes = vec![
            ("hearthmq.deliveries", SpanValue::count(targets)),
            (
                "hearthmq.deliveries_without_span",
                SpanValue::count(targets.saturating_sub(spans_max)),
            ),
        ];
        self.record(SpanRecord {
            span_id: self.route_id,
            parent_id: self.receive_id,
            name: "mqtt route".into(),
            attributes,
            ..self.span(SpanKind::Internal, began)
        });
    }

    /// Begins the span of a delivery; returns the receipt that ends it, or `None` if the message has
    /// had as many as it may have. `subscriber` is `None` for the application in process.
    pub(crate) fn delivery(
        &self,
        subscriber: Option<&str>,
        until: Timestamp,
    ) -> Option<Arc<Receipt>> {
        // Decremented for each delivery: a message to many subscribers must not fill the queue of spans.
        let taken = self.deliveries_left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        taken.ok()?;
        let tracer = &self.tracer;
        let mut attributes = self.attributes("send", "deliver");
        if let Some(subscriber) = subscriber.filter(|_| tracer.options.shows_client_ids) {
            attributes.push(("messaging.client.id", SpanValue::of_stranger(subscriber)));
        }
        let span = SpanRecord {
            span_id: tracer.next_id(),
            parent_id: self.route_id,
            name: "mqtt deliver".into(),
            attributes,
            ..self.span(SpanKind::Producer, nanos_now())
        };
        // The span is open, and counts, from the moment when the receipt exists.
        let watcher = DeliveryDraft::open(tracer, span)?;
        Some(Arc::new(Receipt::watched(Box::new(watcher), until)))
    }

    /// Returns the attributes that all spans of messaging operations of this message have.
    fn attributes(
        &self,
        kind: &'static str,
        operation: &'static str,
    ) -> Vec<(&'static str, SpanValue)> {
        let mut attributes = vec![
            ("messaging.system", "mqtt".into()),
            ("messaging.operation.type", kind.into()),
            ("messaging.operation.name", operation.into()),
            ("messaging.message.body.size", SpanValue::count(self.payload_bytes)),
            ("mqtt.qos", SpanValue::Number(self.qos.number().into())),
        ];
        attributes.extend(self.topic.clone().map(|topic| ("messaging.destination.name", topic)));
        attributes
    }

    /// Returns a span of this trace that ends now.
    fn span(&self, kind: SpanKind, began: u64) -> SpanRecord {
        SpanRecord {
            trace_id: self.parent.trace_id,
            span_id: [0; 8],
            parent_id: [0; 8],
            has_remote_parent: false,
            kind,
            name: "".into(),
            began,
            ended: nanos_now(),
            attributes: Vec::new(),
            events: Vec::new(),
            failed: None,
        }
    }

    fn record(&self, span: SpanRecord) {
        self.tracer.record(span);
    }
}

impl ReceiveSpan {
    /// Notes how the message is acknowledged.
    pub(crate) const fn answered(&mut self, reason: u8) {
        self.reason = Some(reason);
    }

    /// Notes that the acknowledgement waits for the store from now on.
    pub(crate) fn waits_for_store(&mut self) {
        self.waits_since = Some(nanos_now());
    }

    /// Ends the spans: all changes that the acknowledgement waits for are stored.
    pub(crate) fn stored(mut self) {
        self.is_stored = true;
    }
}

impl Drop for ReceiveSpan {
    fn drop(&mut self) {
        let trace = &self.trace;
        // The span of the store ends with the acknowledgement, and so does this one.
        if let Some(began) = self.waits_since {
            trace.record(SpanRecord {
                span_id: trace.tracer.next_id(),
                parent_id: trace.receive_id,
                name: "mqtt store".into(),
                failed: (!self.is_stored).then_some("the message was not stored"),
                ..trace.span(SpanKind::Internal, began)
            });
        }
        let mut attributes = trace.attributes("receive", "receive");
        attributes.push(("mqtt.retain", SpanValue::Flag(self.retain)));
        attributes.extend(self.publisher.take().map(|id| ("messaging.client.id", id)));
        let reason = self.reason.map(|code| ("mqtt.reason_code", SpanValue::Number(code.into())));
        attributes.extend(reason);
        // Reason Codes from 0x80 on are failures.
        let is_accepted = self.reason.is_some_and(|code| code < 0x80);
        trace.record(SpanRecord {
            span_id: trace.receive_id,
            parent_id: trace.parent.span_id,
            has_remote_parent: true,
            name: "mqtt receive".into(),
            attributes,
            failed: (!is_accepted).then_some("the message was not accepted"),
            ..trace.span(SpanKind::Consumer, self.began)
        });
    }
}
