//! Which messages are traced, the tree of their spans, and what is dropped at the bounds.

use super::*;
use crate::mqtt::{QoS, Timestamp, UserPropertiesBuf};

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn tracer(options: TraceOptions) -> Arc<Tracer> {
    Tracer::new(options, Arc::default(), 17)
}

fn properties(pairs: &[(&str, &str)]) -> UserPropertiesBuf {
    let mut properties = UserPropertiesBuf::new();
    pairs.iter().for_each(|(name, value)| properties.push(name, value).expect("short"));
    properties
}

fn receive(tracer: &Arc<Tracer>, pairs: &[(&str, &str)]) -> Option<Box<ReceiveSpan>> {
    let properties = properties(pairs);
    tracer.receive(properties.as_user_properties(), || ReceivedMessage {
        topic: "cars/17",
        publisher: "car-17",
        qos: QoS::AtLeastOnce,
        retain: false,
        payload_bytes: 5,
    })
}

fn attribute<'s>(span: &'s SpanRecord, name: &str) -> Option<&'s SpanValue> {
    span.attributes.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
}

#[test]
fn a_message_with_one_sampled_parent_is_traced() {
    let tracer = tracer(TraceOptions::default());
    let unsampled = SAMPLED.replace("-01", "-00");
    assert!(receive(&tracer, &[]).is_none());
    assert!(receive(&tracer, &[("traceparent", "00-1-2-01")]).is_none());
    assert!(receive(&tracer, &[("traceparent", &unsampled)]).is_none());
    assert!(receive(&tracer, &[("Traceparent", SAMPLED)]).is_none());
    let twice = [("traceparent", SAMPLED), ("traceparent", SAMPLED)];
    assert!(receive(&tracer, &twice).is_none(), "nobody knows which one counts");
    assert!(receive(&tracer, &[("a", "b"), ("traceparent", SAMPLED)]).is_some());
}

#[test]
fn the_spans_of_a_message_are_a_tree_below_that_of_its_publisher() {
    let tracer = tracer(TraceOptions::default());
    let mut span = receive(&tracer, &[("traceparent", SAMPLED)]).expect("it is sampled");
    let receipt = span.trace.delivery(Some("screen"), Timestamp(1)).expect("it is the first");
    span.trace.routed(nanos_now(), 1);
    receipt.sent(false);
    receipt.acknowledged();
    span.answered(0);
    span.waits_for_store();
    span.stored();
    let spans = tracer.take();
    let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["mqtt route", "mqtt deliver", "mqtt store", "mqtt receive"]);
    let [route, deliver, store, receive] = &spans[..] else { panic!("four spans") };
    let parent = TraceParent::parse(SAMPLED).expect("it is one");
    assert!(spans.iter().all(|span| span.trace_id == parent.trace_id && span.failed.is_none()));
    assert!(spans.iter().all(|span| span.began <= span.ended));
    assert_eq!((receive.parent_id, receive.has_remote_parent), (parent.span_id, true));
    assert_eq!((route.parent_id, store.parent_id), (receive.span_id, receive.span_id));
    assert_eq!((deliver.parent_id, deliver.has_remote_parent), (route.span_id, false));
    assert_eq!(attribute(deliver, "messaging.client.id"), Some(&SpanValue::of_stranger("screen")));
    assert_eq!(attribute(deliver, "hearthmq.outcome"), Some(&SpanValue::from("acknowledged")));
    assert_eq!(deliver.events.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["sent"]);
    let topic = attribute(receive, "messaging.destination.name");
    assert_eq!(topic, Some(&SpanValue::of_stranger("cars/17")));
}

#[test]
fn topics_and_client_identifiers_can_be_left_out() {
    let options =
        TraceOptions { shows_topics: false, shows_client_ids: false, ..TraceOptions::default() };
    let tracer = tracer(options);
    let span = receive(&tracer, &[("traceparent", SAMPLED)]).expect("it is sampled");
    drop(span.trace.delivery(Some("screen"), Timestamp(1)));
    drop(span);
    let shown = format!("{:?}", tracer.take());
    for hidden in ["cars/17", "car-17", "screen"] {
        assert!(!shown.contains(hidden), "{hidden} is in {shown}");
    }
}

#[test]
fn deliveries_beyond_the_bound_have_no_span() {
    let tracer = tracer(TraceOptions { deliveries_max: 2, ..TraceOptions::default() });
    let span = receive(&tracer, &[("traceparent", SAMPLED)]).expect("it is sampled");
    let receipts: Vec<_> = (0..5).map(|_| span.trace.delivery(None, Timestamp(1))).collect();
    assert_eq!(receipts.iter().flatten().count(), 2);
    span.trace.routed(nanos_now(), 5);
    let route = tracer.take().pop().expect("the span that has ended");
    let without = attribute(&route, "hearthmq.deliveries_without_span");
    assert_eq!(without, Some(&SpanValue::Number(3)));
}

#[test]
fn a_full_queue_and_a_full_rate_drop_and_count() {
    let options = TraceOptions {
        queue_spans_max: 1,
        per_sec_max: NonZeroU32::new(2).expect("not 0"),
        ..TraceOptions::default()
    };
    let metrics = Arc::new(OtlpMetrics::default());
    let tracer = Tracer::new(options, Arc::clone(&metrics), 0);
    let spans: Vec<_> = (0..3).map(|_| receive(&tracer, &[("traceparent", SAMPLED)])).collect();
    assert_eq!(spans.iter().flatten().count(), 2);
    assert_eq!(metrics.spans_lost(SpanLoss::Rate), 1);
    drop(spans);
    assert_eq!((tracer.take().len(), metrics.spans_lost(SpanLoss::QueueFull)), (1, 1));
}

#[test]
fn a_message_that_is_not_accepted_or_not_stored_has_failed() {
    let tracer = tracer(TraceOptions::default());
    let mut span = receive(&tracer, &[("traceparent", SAMPLED)]).expect("it is sampled");
    drop(span.trace.delivery(None, Timestamp(1)));
    span.answered(0x87);
    span.waits_for_store();
    drop(span);
    let failed: Vec<_> = tracer.take().into_iter().filter_map(|span| span.failed).collect();
    let expected =
        ["the message was dropped", "the message was not stored", "the message was not accepted"];
    assert_eq!(failed, expected);
}

#[test]
fn a_delivery_that_does_not_end_leaves_the_table() {
    let tracer = tracer(TraceOptions::default());
    let span = receive(&tracer, &[("traceparent", SAMPLED)]).expect("it is sampled");
    let receipt = span.trace.delivery(None, Timestamp(1)).expect("it is the first");
    tracer.end_old_deliveries(false);
    assert!(tracer.take().is_empty(), "it is young");
    tracer.end_old_deliveries(true);
    let ended = tracer.take();
    assert_eq!(attribute(&ended[0], "hearthmq.outcome"), Some(&SpanValue::from("waiting")));
    receipt.sent(true);
    assert!(tracer.take().is_empty(), "its span has ended");
}

#[test]
fn identifiers_of_spans_differ() {
    let ids = SpanIds { seed: 3, last: AtomicU64::new(0) };
    let mut all: Vec<_> = (0..10_000).map(|_| ids.next()).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 10_000);
    assert!(!all.contains(&[0; 8]));
}
