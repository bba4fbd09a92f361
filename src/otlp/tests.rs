//! The export to collectors that take what is sent, are busy, refuse it, or are silent.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use prost::Message as _;

use super::*;
use crate::{
    metrics::{OtlpSignal, SpanLoss},
    mqtt::{QoS, UserPropertiesBuf},
    otlp::wire::{MetricsRequest, TracesRequest},
    spans::ReceivedMessage,
};

/// A collector that gives these answers in turn, and repeats the last one. Sends path and body of each
/// request.
fn collector(answers: &'static [&'static str]) -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let (seen, requests) = mpsc::channel();
    thread::spawn(move || {
        let mut answers = answers.iter();
        let mut answer = "";
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            while let Some(request) = read_request(&mut stream) {
                answer = answers.next().copied().unwrap_or(answer);
                if seen.send(request).is_err() {
                    return;
                }
                let head = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(head.as_bytes()).expect("the caller reads");
            }
        }
    });
    (format!("http://{address}/team"), requests)
}

fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8(head).expect("text");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    assert!(head.contains("api-key: s3cret"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.expect("a length").parse().expect("a number")];
    stream.read_exact(&mut body).ok()?;
    let path = head.split(' ').nth(1).expect("a path").to_owned();
    Some((path, body))
}

fn start(endpoint: &str) -> (Arc<Metrics>, Arc<Tracer>, RunningOtlp) {
    let metrics = Arc::new(Metrics::new(1));
    let otlp = Otlp::new(OtlpUrl::new(endpoint).expect("it is one"))
        .header("api-key", "s3cret")
        .expect("it is one")
        .service_name("fleet")
        .resource("team", "north")
        .expect("it has a name");
    let prepared = PreparedOtlp::new(otlp, "node-1", &metrics).expect("no file");
    let tracer = Arc::clone(prepared.tracer().expect("messages are traced"));
    (metrics, tracer, prepared.start().expect("a thread"))
}

fn trace_message(tracer: &Arc<Tracer>) {
    let mut properties = UserPropertiesBuf::new();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    properties.push("traceparent", parent).expect("short");
    let span = tracer.receive(properties.as_user_properties(), || ReceivedMessage {
        topic: "cars/17",
        publisher: "car-17",
        qos: QoS::AtMostOnce,
        retain: true,
        payload_bytes: 3,
    });
    span.expect("it is sampled").answered(0);
}

#[test]
fn spans_and_metrics_arrive_at_the_end_at_the_latest() {
    let (endpoint, requests) = collector(&["200 OK"]);
    let (metrics, tracer, export) = start(&endpoint);
    trace_message(&tracer);
    export.stop();
    let (path, body) = requests.recv().expect("metrics");
    assert_eq!(path, "/team/v1/metrics");
    let request = MetricsRequest::decode(&*body).expect("metrics");
    let scope = &request.resource_metrics[0].scope_metrics[0];
    assert!(scope.metrics.iter().any(|metric| metric.name == "hearthmq_connections"));
    let (path, body) = requests.recv().expect("spans");
    assert_eq!(path, "/team/v1/traces");
    let request = TracesRequest::decode(&*body).expect("spans");
    let resource = format!("{:?}", request.resource_spans[0].resource);
    for text in ["service.name", "fleet", "service.instance.id", "node-1", "team", "north"] {
        assert!(resource.contains(text), "{text} is not in {resource}");
    }
    let [span] = &request.resource_spans[0].scope_spans[0].spans[..] else { panic!("one span") };
    assert_eq!((&*span.name, span.kind, span.flags), ("mqtt receive", 5, 0x301));
    assert!(span.status.is_none() && span.start_time_unix_nano <= span.end_time_unix_nano);
    let counts = metrics.otlp().expect("they are exported");
    assert_eq!((counts.spans_exported(), counts.exports_failed(OtlpSignal::Traces)), (1, 0));
}

#[test]
fn a_refused_batch_is_tried_again_if_the_collector_is_only_busy() {
    let (endpoint, requests) = collector(&["503 Service Unavailable\r\nretry-after: 0", "200 OK"]);
    let (metrics, tracer, export) = start(&endpoint);
    trace_message(&tracer);
    let bodies: Vec<_> = (0..2).map(|_| requests.recv().expect("spans")).collect();
    assert_eq!(bodies[0], bodies[1]);
    let counts = metrics.otlp().expect("they are exported");
    let until = Instant::now() + Duration::from_secs(60);
    while counts.spans_exported() == 0 && Instant::now() < until {
        thread::yield_now(); // the answer is on its way
    }
    assert_eq!(counts.spans_exported(), 1);
    export.stop();
    assert_eq!(counts.exports_failed(OtlpSignal::Traces), 1);
}

#[test]
fn a_batch_that_is_wrong_is_dropped_and_counted() {
    let (endpoint, requests) = collector(&["400 Bad Request"]);
    let (metrics, tracer, export) = start(&endpoint);
    trace_message(&tracer);
    requests.recv().expect("spans");
    export.stop();
    let counts = metrics.otlp().expect("they are exported");
    assert_eq!((counts.spans_exported(), counts.spans_lost(SpanLoss::NotTaken)), (0, 1));
}

#[test]
fn a_collector_that_is_silent_does_not_keep_the_broker_from_ending() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (metrics, tracer, export) = start(&endpoint);
    trace_message(&tracer);
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        export.stop();
        done.send(())
    });
    ended.recv_timeout(Duration::from_secs(60)).expect("it ends");
    drop(listener);
    let counts = metrics.otlp().expect("they are exported");
    assert_eq!(counts.spans_exported(), 0);
}
