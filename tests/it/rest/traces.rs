//! `/api/v1/traces` on a real broker: the permissions for a trace, and the forms of its records.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use hearthmq::auth::{AuthenticationError, Authenticator, Credentials, Identity};
use hearthmq_test::{http::basic, mqtt::Client, mqtt::connect};
use serde_json::{Value, json};

use super::{
    callers::Accounts,
    failed,
    live::{self, Live, json, live_with, policy},
};

const OTHER: &str = "öps:pass:word";
const LINES: &str = "Accept: application/x-ndjson";
/// The time in which the records of a client arrive, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(30);

/// Knows the callers of the other tests, and lets every client in.
#[derive(Default)]
struct AnyClient(Accounts);

#[async_trait]
impl Authenticator for AnyClient {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        match credentials.client_id {
            Some(_) => Ok(Identity::default()),
            None => self.0.authenticate(credentials).await,
        }
    }
}

/// Starts a broker whose `ops` may do everything.
fn live() -> Live {
    live_where(live::RULES)
}

fn live_where(rules: &'static str) -> Live {
    live_with(move |builder| builder.authenticator(AnyClient::default()).authorizer(policy(rules)))
}

fn start(live: &Live, body: &Value) -> String {
    let made = json(&live.call_with("POST /api/v1/traces", &body.to_string()));
    assert_eq!(made["success"], true);
    made["id"].as_str().unwrap().to_owned()
}

/// Returns the lines of an answer, which comes in chunks.
fn lines(body: &str) -> Vec<Value> {
    let lines = body.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Connects a client, and ends its connection.
fn one_life(live: &Live, client_id: &str) {
    let mut client = Client::connected(live.mqtt_address(), connect(client_id));
    client.publish("a/b", b"hello", Some(7)).unwrap();
    client.receive(|_| ());
    client.ping();
}

#[test]
fn a_trace_is_started_read_listed_and_ended() {
    let live = live();
    let id = start(&live, &json!({"client_id": "car", "duration_seconds": 600}));
    one_life(&live, "car");
    let one = format!("/api/v1/traces/{id}");
    let so_far = format!("GET {one}?follow=false");
    let kinds = |answer: &str| -> Vec<String> {
        lines(answer).iter().map(|line| line["kind"].as_str().unwrap().to_owned()).collect()
    };
    let until_ping = ["connect", "connack", "publish", "puback", "pingreq", "pingresp"];
    // A packet is recorded after it is written, so the client may have it before the reader does.
    let began = Instant::now();
    let answer = loop {
        let answer = live.call_if(&so_far, LINES, "");
        if lines(&answer.body).len() >= until_ping.len() || began.elapsed() > PATIENCE {
            break answer;
        }
    };
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    assert_eq!(kinds(&answer.body)[..6], until_ping);
    let rest = live.call_if(&format!("{so_far}&after=4"), LINES, "");
    assert_eq!(lines(&rest.body)[0]["number"], 5);
    let events = live.call_if(&so_far, "Accept: text/event-stream\r\nLast-Event-ID: 5", "");
    assert!(events.body.contains("id: 6\ndata: {\"number\":6,"), "{}", events.body);
    assert!(!events.body.contains("id: 5\n"), "{}", events.body);
    let shown = json(&live.call(&format!("GET {one}")));
    assert_eq!((&shown["client_id"], &shown["by"]), (&"car".into(), &"ops".into()));
    assert_eq!((&shown["running"], &shown["dropped"]), (&true.into(), &0.into()));
    let second = start(&live, &json!({"address": "127.0.0.0/8", "kinds": ["connect"]}));
    let page = json(&live.call("GET /api/v1/traces?limit=1"));
    assert_eq!(page["items"][0]["id"], *id);
    let next = page["next"].as_str().unwrap();
    let page = json(&live.call(&format!("GET /api/v1/traces?cursor={next}")));
    assert_eq!((&page["items"][0]["id"], &page["next"]), (&second.into(), &Value::Null));
    assert_eq!(page["items"][0]["address"], "127.0.0.0/8");
    // A reader that follows is told of the end.
    let followed = std::thread::scope(|scope| {
        let reader = scope.spawn(|| live.call_if(&format!("GET {one}"), LINES, ""));
        one_life(&live, "car");
        assert_eq!(live.call(&format!("DELETE {one}")).outcome(), (200, r#"{"success":true}"#));
        reader.join().unwrap()
    });
    if followed.status == 200 {
        assert_eq!(kinds(&followed.body).last().unwrap(), "trace_ended");
    } else {
        assert_eq!(followed.failure(), failed(404, "trace_not_found")); // it came after the end
    }
    assert_eq!(live.call(&format!("GET {one}")).failure(), failed(404, "trace_not_found"));
    assert_eq!(live.call(&format!("DELETE {one}")).failure(), failed(404, "trace_not_found"));
    let audit = json(&live.call("GET /api/v1/audit"));
    assert_eq!(audit["items"][0]["action"], "trace");
}

#[test]
fn what_is_no_trace_is_refused() {
    let live = live();
    for (body, code) in [
        ("{}", "invalid_trace"),
        (r#"{"client_id":"a","username":"b"}"#, "invalid_trace"),
        (r#"{"client_id":null}"#, "invalid_trace"),
        (r#"{"client_id":""}"#, "invalid_trace"),
        (r#"{"username":""}"#, "invalid_trace"),
        (r#"{"client_id":"a\u0000"}"#, "invalid_client_id"),
        (r#"{"address":"10.0.0.1/8"}"#, "invalid_trace"),
        (r#"{"client_id":"a","duration_seconds":0}"#, "invalid_trace"),
        (r#"{"client_id":"a","duration_seconds":3601}"#, "invalid_trace"),
        (r#"{"client_id":"a","duration_seconds":-1}"#, "invalid_body"),
        (r#"{"client_id":"a","kinds":[]}"#, "invalid_trace"),
        (r#"{"client_id":"a","kinds":["PUBLISH"]}"#, "invalid_trace"),
        (r#"{"client_id":"a","payloads":1}"#, "invalid_body"),
        (r#"{"client_id":["a"]}"#, "invalid_body"),
        (r#"{"client_id":"a","more":1}"#, "invalid_body"),
        (r#"["a"]"#, "invalid_body"),
        ("null", "invalid_body"),
        ("", "invalid_body"),
    ] {
        let answer = live.call_with("POST /api/v1/traces", body);
        assert_eq!(answer.failure(), failed(400, code), "{body}");
    }
    let wrong = live.call("GET /api/v1/traces/x?after=1").failure();
    assert_eq!(wrong, failed(400, "unknown_parameter"), "without a stream there is no position");
    let nobody = live.call_if("GET /api/v1/traces/x?after=1", LINES, "").failure();
    assert_eq!(nobody, failed(404, "trace_not_found"));
    for _ in 0..4 {
        start(&live, &json!({"client_id": "a"}));
    }
    let further = live.call_with("POST /api/v1/traces", r#"{"client_id":"a"}"#);
    assert_eq!(further.failure(), failed(409, "too_many_traces"));
}

/// `ops` may do everything; `öps` may observe the cars.
const RULES: &str = r#"
[[rules]]
effect = "allow"
actions = ["connect", "observe", "control", "administer"]
users = ["ops"]

[[rules]]
effect = "allow"
actions = ["observe"]
users = ["öps"]
clients = ["car-*"]

[[rules]]
effect = "allow"
actions = ["connect", "publish", "subscribe"]
"#;

#[test]
fn who_may_not_observe_a_client_sees_none_of_its_packets() {
    let live = live_where(RULES);
    let ask =
        |line: &str, header: &str, body: &str| live.call_as(&basic(OTHER), line, header, body);
    let start_of = |body: Value| ask("POST /api/v1/traces", "", &body.to_string());
    assert_eq!(start_of(json!({"client_id": "truck"})).failure(), failed(403, "forbidden"));
    let with_payloads = json!({"client_id": "car-1", "payloads": true});
    assert_eq!(start_of(with_payloads).failure(), failed(403, "forbidden"));
    let own = json(&start_of(json!({"address": "127.0.0.1"})));
    let own = own["id"].as_str().unwrap();
    let of_ops = start(&live, &json!({"client_id": "car-1", "payloads": true}));
    one_life(&live, "car-1");
    one_life(&live, "truck");
    let answer = ask(&format!("GET /api/v1/traces/{own}?follow=false"), LINES, "");
    let found = lines(&answer.body);
    assert!(found.len() >= 6, "{}", answer.body);
    assert!(found.iter().all(|line| line["client_id"] == "car-1"), "{}", answer.body);
    // A trace of another account is not there, except for one that may administer.
    let other = format!("/api/v1/traces/{of_ops}");
    for line in [format!("GET {other}"), format!("DELETE {other}")] {
        assert_eq!(ask(&line, "", "").failure(), failed(404, "trace_not_found"), "{line}");
    }
    assert_eq!(ask(&format!("GET {other}"), LINES, "").failure(), failed(404, "trace_not_found"));
    let listed = |answer: Value| answer["items"].as_array().unwrap().len();
    assert_eq!(listed(json(&ask("GET /api/v1/traces", "", ""))), 1);
    assert_eq!(listed(json(&live.call("GET /api/v1/traces"))), 2);
    let answer = live.call_if(&format!("GET {other}?follow=false"), LINES, "");
    let published = lines(&answer.body).into_iter().find(|line| line["kind"] == "publish");
    assert_eq!(published.unwrap()["payload_base64"], "aGVsbG8=");
}

#[test]
fn the_busiest_clients_are_listed() {
    let live = live();
    let mut client = Client::connected(live.mqtt_address(), connect("car"));
    client.publish("a/b", b"hello", Some(7)).unwrap();
    client.receive(|_| ());
    let _idle = Client::connected(live.mqtt_address(), connect("idle"));
    let found = json(&live.call("GET /api/v1/busiest?limit=1"));
    let [first] = &found["items"].as_array().unwrap()[..] else { panic!("{found}") };
    assert_eq!((&first["client_id"], &first["total"]["messages_in"]), (&"car".into(), &1.into()));
    let found = json(&live.call("GET /api/v1/busiest?by=queued&client_id=id*"));
    assert_eq!(found["items"][0]["client_id"], "idle");
    for (query, code) in [
        ("by=size", "invalid_parameter"),
        ("limit=0", "invalid_parameter"),
        ("limit=1001", "invalid_parameter"),
        ("by=", "missing_parameter"),
        ("cursor=x", "unknown_parameter"),
    ] {
        let answer = live.call(&format!("GET /api/v1/busiest?{query}"));
        assert_eq!(answer.failure(), failed(400, code), "{query}");
    }
}
