//! `GET /api/v1/messages` on a whole broker: what a caller hears, what it misses, and what ends it. The
//! options and the log of the program, which is a double.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::{Arc, Mutex},
};

use hearthmq::http::{InvalidLogFilter, OptionInForce, Program};
use hearthmq_test::{
    http::{basic, request},
    mqtt::tcp,
};
use serde_json::{Value, json};

use super::{
    failed,
    live::{Live, json as json_of, live},
    world::rest,
};

/// Asks for the messages of a query; returns the head of the answer, and what follows.
fn ask(live: &Live, user: &str, query: &str) -> (String, BufReader<TcpStream>) {
    let mut stream = BufReader::new(tcp(live.address()));
    let authorization = basic(&format!("{user}:pass:word"));
    let line = format!("GET /api/v1/messages?{query} HTTP/1.1");
    let head = format!("{line}\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n");
    stream.get_mut().write_all(head.as_bytes()).unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
    }
    (head, stream)
}

/// Follows the messages of a query; returns the lines of the answer behind its head.
fn listen(live: &Live, user: &str, query: &str) -> BufReader<TcpStream> {
    let (head, stream) = ask(live, user, query);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("application/x-ndjson"), "{head}");
    stream
}

/// Checks that a query is refused so. An answer that goes on would never end.
fn is_refused(live: &Live, user: &str, query: &str, expected: &(u16, String)) {
    let (head, _) = ask(live, user, query);
    assert!(head.starts_with(&format!("HTTP/1.1 {} ", expected.0)), "{query:.80}: {head}");
    let authorization = basic(&format!("{user}:pass:word"));
    let answer = live.call_as(&authorization, &format!("GET /api/v1/messages?{query}"), "", "");
    assert_eq!(answer.failure(), *expected, "{query:.80}");
}

/// Returns the next message; `None` at the end of the answer.
fn next(stream: &mut BufReader<TcpStream>) -> Option<Value> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        if line.starts_with('{') {
            return Some(serde_json::from_str(&line).unwrap());
        }
    }
}

fn publish(live: &Live, topic: &str, payload: &str) {
    let body = json!([{ "topic": topic, "payload": payload, "qos": 1 }]).to_string();
    let answer = json_of(&live.call_with("POST /api/v1/publish", &body));
    assert_eq!(answer["results"][0]["success"], true, "{answer}");
}

#[test]
fn a_caller_hears_what_is_published_on_its_topics() {
    let live = live();
    let body = json!([
        {"topic": "a/kept", "payload": "before", "retained": true},
        {"topic": "b/kept", "payload": "other", "retained": true},
    ]);
    assert_eq!(live.call_with("POST /api/v1/publish", &body.to_string()).status, 200);
    let mut quiet = listen(&live, "ops", "filter=a/%23&payload_bytes_max=3");
    let mut whole = listen(&live, "ops", "filter=a/%23&retained=true");
    publish(&live, "b/1", "nobody hears this");
    let body = json!([{"topic": "a/1", "payload": "12345", "qos": 2, "content_type": "text/plain",
        "user_properties": [{"key": "k", "value": "v"}]}]);
    assert_eq!(live.call_with("POST /api/v1/publish", &body.to_string()).status, 200);
    assert_eq!(
        next(&mut quiet).unwrap(),
        json!({"topic": "a/1", "qos": 2, "retain": false, "payload_base64": "MTIz", "payload_bytes": 5,
            "content_type": "text/plain", "user_properties": [{"key": "k", "value": "v"}]})
    );
    let kept = next(&mut whole).unwrap();
    assert_eq!((&kept["topic"], &kept["retain"]), (&json!("a/kept"), &json!(true)));
    assert_eq!(next(&mut whole).unwrap()["payload_base64"], "MTIzNDU=");
}

#[test]
fn a_caller_that_does_not_read_is_told_how_many_messages_it_misses() {
    const MESSAGES: u64 = 300;
    let live = live();
    let mut stream = listen(&live, "ops", "filter=flood&payload_bytes_max=200000");
    let payload = "x".repeat(100_000);
    for _ in 0..MESSAGES {
        publish(&live, "flood", &payload);
    }
    let (mut heard, mut missed) = (0, 0);
    while heard + missed < MESSAGES {
        heard += 1;
        missed += next(&mut stream).unwrap()["missed"].as_u64().unwrap_or_default();
    }
    assert!(missed > 0, "{heard} messages of 100 KB have found room");
    publish(&live, "flood", "end");
    let end = next(&mut stream).unwrap();
    assert_eq!((&end["payload_bytes"], &end["missed"]), (&json!(3), &Value::Null));
}

#[test]
fn only_a_caller_that_may_subscribe_hears_messages() {
    let live = live();
    let rule = r#"{"priority":1,"effect":"deny","actions":["subscribe"],"users":["öps"],"topics":["s/#"]}"#;
    assert_eq!(live.call_with("PUT /api/v1/rules/secret", rule).status, 200);
    for query in ["filter=s/%23", "filter=s/1"] {
        is_refused(&live, "öps", query, &failed(403, "forbidden"));
    }
    let mut stream = listen(&live, "öps", "filter=t/%23");
    publish(&live, "t/1", "heard");
    assert_eq!(next(&mut stream).unwrap()["topic"], "t/1");
    let rule = r#"{"priority":1,"effect":"deny","actions":["subscribe"],"users":["öps"],"topics":["t/#"]}"#;
    assert_eq!(live.call_with("PUT /api/v1/rules/secret", rule).status, 200);
    publish(&live, "t/1", "not for this caller any more");
    assert_eq!(next(&mut stream), None);
    let mut rest = String::new();
    assert_eq!(stream.read_to_string(&mut rest).unwrap(), 0);
}

#[test]
fn a_wrong_question_about_messages_is_answered_with_400() {
    let live = live();
    for (query, code) in [
        ("", "missing_parameter"),
        ("filter=a/%23/b", "invalid_parameter"),
        ("filter=%24share/g/a", "invalid_parameter"),
        ("filter=a&retained=1", "invalid_parameter"),
        ("filter=a&payload_bytes_max=268435457", "invalid_parameter"),
        ("filter=a&qos=1", "unknown_parameter"),
    ] {
        is_refused(&live, "ops", query, &failed(400, code));
    }
    // As in a SUBSCRIBE, the limits of topics hold for filters.
    let deep = format!("filter={}", "a/".repeat(1_000));
    is_refused(&live, "ops", &deep, &failed(400, "invalid_topic"));
}

/// The double of a program.
#[derive(Default)]
struct Knobs(Mutex<String>);

impl Program for Knobs {
    fn options(&self) -> Vec<OptionInForce> {
        vec![OptionInForce {
            name: "http.workers".into(),
            value: json!(3),
            default: json!(1),
            is_changed: true,
            is_hidden: false,
            needs_restart: true,
        }]
    }

    fn log_filter(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn set_log_filter(&self, filter: &str) -> Result<(), InvalidLogFilter> {
        if filter == "wrong" {
            return Err(InvalidLogFilter);
        }
        filter.clone_into(&mut self.0.lock().unwrap());
        Ok(())
    }
}

#[test]
fn options_and_log_are_those_of_the_program() {
    let rest = rest();
    for line in ["GET /api/v1/configuration", "GET /api/v1/log"] {
        assert_eq!(rest.call(line).failure(), failed(404, "no_program"), "{line}");
    }
    rest.api.set_program(Arc::new(Knobs::default()));
    assert_eq!(
        rest.call("GET /api/v1/configuration").body,
        r#"{"options":[{"name":"http.workers","value":3,"default":1,"is_changed":true,"is_hidden":false,"needs_restart":true}]}"#
    );
    let change = |body: &str| rest.call_with("PUT /api/v1/log", "", body);
    assert_eq!(change(r#"{"filter":"debug"}"#).body, r#"{"filter":"debug"}"#);
    assert_eq!(rest.call("GET /api/v1/log").body, r#"{"filter":"debug"}"#);
    for (body, code) in [
        (r#"{"filter":"wrong"}"#, "invalid_log_filter"),
        (r#"{"filter":""}"#, "invalid_log_filter"),
        (&format!(r#"{{"filter":"{}"}}"#, "a,".repeat(600)), "invalid_log_filter"),
        (r#"["debug"]"#, "invalid_body"),
        (r#"{"filter":null}"#, "invalid_body"),
        (r#"{"filter":"info","for":60}"#, "invalid_body"),
    ] {
        assert_eq!(change(body).failure(), failed(400, code), "{body:.40}");
    }
    let other = basic("öps:pass:word");
    for line in ["GET /api/v1/configuration", "GET /api/v1/log", "PUT /api/v1/log"] {
        let answer = rest.send(&request(line, Some(&other)));
        assert_eq!(answer.failure(), failed(403, "forbidden"), "{line}");
    }
}
