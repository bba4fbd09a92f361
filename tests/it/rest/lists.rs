//! The list of clients, call by call.

use std::{io::Write as _, net::TcpStream, time::Duration};

use hearthmq::http::ApiOptions;

use super::{
    failed,
    world::{Rest, basic, options, rest, rest_with},
};

const OPS: &str = "ops:pass:word";

fn list(rest: &Rest, query: &str) -> (u16, String) {
    let answer = rest.call(&format!("GET /api/v1/clients{query}"));
    (answer.status, answer.body)
}

fn query(rest: &Rest, body: &str) -> (u16, String) {
    let answer = rest.post_json(OPS, "POST /api/v1/clients/query", body);
    (answer.status, answer.body)
}

#[test]
fn a_list_comes_in_pages_and_ends() {
    let rest = rest();
    let (status, body) = list(&rest, "?limit=2&fields=online");
    let first = r#"{"items":[{"client_id":"a/ü","online":true},{"client_id":"car-1","online":true}],"next":""#;
    assert_eq!((status, body.starts_with(first)), (200, true), "{body}");
    let cursor = body.strip_prefix(first).unwrap().strip_suffix("\"}").unwrap();
    let (_, body) = list(&rest, &format!("?limit=2&fields=online&cursor={cursor}"));
    let last =
        r#"{"items":[{"client_id":"car-2","online":true},{"client_id":"ship","online":true}]}"#;
    assert_eq!(body, last);
    assert_eq!(rest.asked(), ["list 2 after -", "list 2 after car-1"]);
    let (_, body) =
        query(&rest, &format!(r#"{{"limit":2,"fields":["online"],"cursor":"{cursor}"}}"#));
    assert_eq!(body, last);
    assert_eq!(rest.call("HEAD /api/v1/clients").status, 200);
}

#[test]
fn a_client_is_shown_in_full_unless_fields_are_chosen() {
    let rest = rest();
    let (_, body) = list(&rest, "?client_id=car-1");
    assert_eq!(
        body,
        r#"{"items":[{"client_id":"car-1","online":true,"address":"192.0.2.7:4711","node":"","connected_at":0,"session_expiry_interval":0,"subscriptions":0,"queued":0,"in_flight":0,"version":0}]}"#
    );
    let (_, body) = list(&rest, "?client_id=car-*&fields=client_id&count=true");
    assert_eq!(body, r#"{"items":[{"client_id":"car-1"},{"client_id":"car-2"}],"total":2}"#);
    let (_, body) = query(&rest, r#"{"client_ids":["ship","nobody","ship"],"fields":[]}"#);
    assert_eq!(body, r#"{"items":[{"client_id":"ship"}]}"#);
}

#[test]
fn all_conditions_reach_the_broker() {
    let rest = rest();
    let conditions = "client_id=a*&username=ann&address=192.0.2.0/24&protocol=4&connected=true\
                      &listener=tcp://x&keep_alive_min=30&keep_alive_max=60&idle_min_secs=5\
                      &queued_min=7";
    assert_eq!(list(&rest, &format!("?{conditions}")).0, 200);
    let asked = "list 100 after - ann 192.0.2.0/24 4 true tcp://x 30 60 5 7";
    assert_eq!(rest.asked(), [asked]);
    let body = r#"{"client_id":"a*","username":"ann","address":"192.0.2.0/24","protocol":4,
        "connected":true,"listener":"tcp://x","keep_alive_min":30,"keep_alive_max":60,
        "idle_min_secs":5,"queued_min":7}"#;
    assert_eq!(query(&rest, body).0, 200);
    assert_eq!(rest.asked(), [asked]);
}

#[test]
fn a_wrong_condition_is_refused() {
    let rest = rest();
    for (query, code) in [
        ("limit=0", "invalid_parameter"),
        ("limit=10001", "invalid_parameter"),
        ("limit=-1", "invalid_parameter"),
        ("cursor=x", "invalid_parameter"),
        ("cursor=", "missing_parameter"),
        (&format!("client_id={}", "*a".repeat(17)), "invalid_parameter"),
        ("address=10.0.0.1/8", "invalid_parameter"),
        ("address=here", "invalid_parameter"),
        ("protocol=6", "invalid_parameter"),
        ("connected=yes", "invalid_parameter"),
        ("keep_alive_min=65536", "invalid_parameter"),
        ("keep_alive_max=x", "invalid_parameter"),
        ("fields=password", "invalid_parameter"),
        ("fields=online,", "invalid_parameter"),
        ("client_ids=a", "unknown_parameter"),
        ("online=true", "unknown_parameter"),
        ("limit=1&limit=1", "duplicate_parameter"),
    ] {
        let answer = rest.call(&format!("GET /api/v1/clients?{query}"));
        assert_eq!(answer.failure(), failed(400, code), "{query}");
    }
    for (body, status, code) in [
        ("[]", 400, "invalid_body"),
        (r#"{"limit":"1"}"#, 400, "invalid_body"),
        (r#"{"limits":1}"#, 400, "invalid_body"),
        (r#"{"limit":0}"#, 400, "invalid_parameter"),
        (r#"{"client_ids":[7]}"#, 400, "invalid_body"),
        (r#"{"client_ids":["\u0000"]}"#, 400, "invalid_client_id"),
    ] {
        let answer = rest.post_json(OPS, "POST /api/v1/clients/query", body);
        assert_eq!(answer.failure(), failed(status, code), "{body}");
    }
    let many = format!(r#"{{"client_ids":[{}"x"]}}"#, r#""x","#.repeat(10_000));
    let answer = rest.post_json(OPS, "POST /api/v1/clients/query", &many);
    assert_eq!(answer.failure(), failed(413, "too_many_items"));
    assert_eq!(rest.call("PUT /api/v1/clients").failure(), failed(405, "method_not_allowed"));
    let answer = rest.post_json(OPS, "POST /api/v1/clients/car-1", "{}");
    assert_eq!(answer.failure(), failed(405, "method_not_allowed"));
    assert!(rest.asked().is_empty());
}

#[test]
fn the_broker_may_be_unable_to_list() {
    let rest = rest();
    let answer = rest.call("GET /api/v1/clients?username=full");
    assert_eq!(answer.failure(), failed(503, "unavailable"));
    assert_eq!(answer.header("retry-after"), "1");
}

#[test]
fn the_whole_list_comes_as_lines() {
    let rest = rest();
    let lines = |accept: &str, target: &str| {
        rest.call_with(&format!("GET {target}"), &format!("Accept: {accept}"), "")
    };
    let accept = "text/html, application/x-ndjson;q=0.9";
    let answer = lines(accept, "/api/v1/clients?fields=online");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let found: Vec<&str> = answer.body.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(
        found,
        [
            r#"{"client_id":"a/ü","online":true}"#,
            r#"{"client_id":"car-1","online":true}"#,
            r#"{"client_id":"car-2","online":true}"#,
            r#"{"client_id":"ship","online":true}"#,
        ]
    );
    assert!(answer.body.ends_with("0\r\n\r\n"), "it is complete");
    assert_eq!(rest.asked(), ["list 1000 after -"]);
    // An error is the last line, and the stream has no end.
    let answer = lines(accept, "/api/v1/clients?username=full");
    assert!(answer.body.contains(r#"{"success":false,"code":"unavailable","#), "{}", answer.body);
    assert!(!answer.body.ends_with("0\r\n\r\n"), "{}", answer.body);
    for query in ["limit=1", "count=true"] {
        let answer = lines(accept, &format!("/api/v1/clients?{query}"));
        assert_eq!(answer.failure(), failed(400, "invalid_parameter"));
    }
}

#[test]
fn an_account_has_few_streams_at_a_time() {
    let rest = rest_with(&ApiOptions { call_timeout: Duration::from_secs(60), ..options() });
    let accept = "Accept: application/x-ndjson";
    let request = rest.request("GET /api/v1/clients?username=stuck", accept, "");
    let stuck: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = TcpStream::connect(rest.address()).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    while rest.asked_so_far() < 2 {
        std::thread::yield_now();
    }
    let stream = || rest.call_with("GET /api/v1/clients", accept, "");
    assert_eq!(stream().failure(), failed(503, "busy"));
    let of_another = rest.request("GET /api/v1/clients", accept, "");
    let of_another = of_another.replace(&basic(OPS), &basic("öps:pass:word"));
    assert_eq!(rest.send(&of_another).status, 200, "another account has its own");
    drop(stuck);
    // The broker notices soon that nobody waits.
    while stream().status == 503 {
        std::thread::yield_now();
    }
}

#[test]
fn a_client_is_shown_with_all_that_is_known() {
    let rest = rest();
    let expected = r#"{"client_id":"a/b","online":true,"node":"","version":0,"connection":{"address":"192.0.2.7:4711","listener":"tls://0.0.0.0:8883","transport":"tls","protocol":5,"tls":{"version":"1.3","certificate":{"subject":"CN=device-7","issuer":"","names":["device-7.example"],"serial_number":"","expires_at":99}},"connected_at":0,"keep_alive":{"asked":60,"in_force":120,"changed_by":"ann","changed_at":5000,"deadline":180000}},"session":{"expiry_interval":0,"subscriptions":0,"queue":{"messages":0,"bytes":0},"in_flight":{"messages":0,"bytes":0,"messages_max":64}}}"#;
    for target in ["clients/a%2Fb", "client?id=a%2Fb", "client?id=a/b"] {
        let answer = rest.call(&format!("GET /api/v1/{target}"));
        assert_eq!(answer.outcome(), (200, expected), "{target}");
        assert_eq!(rest.asked(), ["show a/b"]);
    }
    let answer = rest.call("GET /api/v1/clients/away");
    let expected = r#"{"client_id":"away","online":false,"node":"","version":0,"connection":{"address":"192.0.2.7:4711","connected_at":0},"session":{"expiry_interval":0,"expires_at":10000,"subscriptions":0,"queue":{"messages":0,"bytes":0,"oldest_since":7000},"in_flight":{"messages":0,"bytes":0},"dropped":{"queue_full":3},"losing":{"messages":3,"since":8000}},"last_end":{"reason":"kicked","at":9000,"by":"ops"}}"#;
    assert_eq!(answer.outcome(), (200, expected));
    assert_eq!(rest.call("HEAD /api/v1/clients/query").status, 200, "an id like any other");
    rest.asked();
    for (target, status, code) in [
        ("clients/secret", 403, "forbidden"),
        ("client?id=secret", 403, "forbidden"),
        ("client", 400, "missing_parameter"),
        ("client?id=", 400, "missing_parameter"),
        ("client?id=%00", 400, "invalid_client_id"),
        ("clients/a?x=1", 400, "unknown_parameter"),
        ("clients/%FF", 400, "invalid_client_id"),
    ] {
        let answer = rest.call(&format!("GET /api/v1/{target}"));
        assert_eq!(answer.failure(), failed(status, code), "{target}");
    }
    assert!(rest.asked().is_empty());
    for (client_id, status, code) in [
        ("offline", 404, "client_not_found"),
        ("full", 503, "unavailable"),
        ("stuck", 504, "timeout"),
    ] {
        let answer = rest.call(&format!("GET /api/v1/clients/{client_id}"));
        assert_eq!(answer.failure(), failed(status, code), "{client_id}");
    }
}

#[test]
fn a_history_is_shown_with_the_newest_connection_first() {
    let rest = rest();
    let expected = r#"{"items":[{"version":4,"online":true,"address":"[2001:db8::7]:4711","listener":"","node":"","protocol":5,"connected_at":9500},{"version":3,"online":false,"address":"192.0.2.7:4711","listener":"tls://0.0.0.0:8883","node":"","username":"ann","protocol":5,"connected_at":5000,"ended_at":9000,"duration_ms":4000,"reason":"kicked","by":"ops"}]}"#;
    let answer = rest.call("GET /api/v1/clients/a%2Fb/history");
    assert_eq!(answer.outcome(), (200, expected));
    let answer = rest.call("GET /api/v1/client/history?id=a/b&limit=7");
    assert_eq!(answer.outcome(), (200, expected));
    assert_eq!(rest.asked(), ["history a/b 100", "history a/b 7"]);
    for (line, status, code) in [
        ("GET /api/v1/clients/secret/history", 403, "forbidden"),
        ("GET /api/v1/client/history?id=secret", 403, "forbidden"),
        ("GET /api/v1/client/history", 400, "missing_parameter"),
        ("GET /api/v1/client/history?id=%00", 400, "invalid_client_id"),
        ("GET /api/v1/clients/c/history?limit=0", 400, "invalid_parameter"),
        ("GET /api/v1/clients/c/history?cursor=x", 400, "unknown_parameter"),
        ("DELETE /api/v1/clients/c/history", 405, "method_not_allowed"),
        ("POST /api/v1/client/history", 405, "method_not_allowed"),
    ] {
        assert_eq!(rest.call(line).failure(), failed(status, code), "{line}");
    }
    assert!(rest.asked().is_empty());
    let answer = rest.call("GET /api/v1/clients/offline/history");
    assert_eq!(answer.failure(), failed(404, "client_not_found"));
}

#[test]
fn advice_comes_page_by_page() {
    let rest = rest();
    let body = rest.call("GET /api/v1/keep-alive/advice?limit=2&listener=mqtt://a").body;
    let survived = r#""survived":{"p50":1,"p90":2,"p99":3,"max":4}"#;
    let of = r#"{"network":"192.0.2.0/24","listener":"mqtt://a","connections":7,"#;
    let expected = format!(
        r#"{{"items":[{of}{survived},"fatal":{{"count":5,"shortest":60,"p50":90}},"advised_keep_alive":40,"certainty":"medium"}},{of}{survived}}}],"next":""#
    );
    let cursor = body.strip_prefix(&expected).expect(&body).strip_suffix("\"}").unwrap();
    let answer = rest.call(&format!("GET /api/v1/keep-alive/advice?cursor={cursor}"));
    assert!(answer.status == 200 && !answer.body.contains("next"), "{}", answer.body);
    let asked =
        [r#"advice Some("mqtt://a") None 2"#, r#"advice None Some((192.0.2.7, "mqtt://a")) 100"#];
    assert_eq!(rest.asked(), asked);
    for (line, status, code) in [
        ("GET /api/v1/keep-alive/advice?limit=1001", 400, "invalid_parameter"),
        ("GET /api/v1/keep-alive/advice?cursor=AWE", 400, "invalid_parameter"),
        ("GET /api/v1/keep-alive/advice?id=c", 400, "unknown_parameter"),
        ("POST /api/v1/keep-alive/advice", 405, "method_not_allowed"),
    ] {
        assert_eq!(rest.call(line).failure(), failed(status, code), "{line}");
    }
}

#[test]
fn a_session_is_looked_into_page_by_page() {
    let rest = rest();
    let body = rest.call("GET /api/v1/clients/a%2Fb/subscriptions?limit=1").body;
    let first = r#"{"items":[{"filter":"a/+","qos":1,"no_local":false,"retain_as_published":false,"retain_handling":0}],"next":""#;
    let cursor = body.strip_prefix(first).unwrap().strip_suffix("\"}").unwrap();
    let line = format!("GET /api/v1/clients/a%2Fb/subscriptions?cursor={cursor}");
    assert_eq!(rest.call(&line).status, 200);
    let body = rest.call("GET /api/v1/clients/c/queue?limit=1").body;
    let first = r#"{"items":[{"topic":"t","qos":1,"retain":false,"payload_bytes":2,"received_at":7000,"age_ms":12}],"next":""#;
    let cursor = body.strip_prefix(first).unwrap().strip_suffix("\"}").unwrap();
    let answer = rest.call(&format!("GET /api/v1/clients/c/queue?cursor={cursor}"));
    assert_eq!(answer.status, 200);
    let answer = rest.call("DELETE /api/v1/clients/c/queue");
    assert_eq!(answer.outcome(), (200, r#"{"cleared":3,"success":true}"#));
    assert_eq!(
        rest.asked(),
        [
            "subscriptions a/b 1 -",
            "subscriptions a/b 100 a/+",
            "queue c 1 None false",
            "queue c 100 Some(Stored(7)) false",
            "clear c"
        ]
    );
    for (line, status, code) in [
        ("GET /api/v1/clients/secret/subscriptions", 403, "forbidden"),
        ("GET /api/v1/clients/secret/queue", 403, "forbidden"),
        ("DELETE /api/v1/clients/secret/queue", 403, "forbidden"),
        ("GET /api/v1/clients/c/queue?cursor=AXg", 400, "invalid_parameter"),
        ("GET /api/v1/clients/c/queue?payload=yes", 400, "invalid_parameter"),
        ("GET /api/v1/clients/c/queue?limit=10001", 400, "invalid_parameter"),
        ("DELETE /api/v1/clients/c/queue?limit=1", 400, "unknown_parameter"),
        ("POST /api/v1/clients/c/queue", 405, "method_not_allowed"),
        ("GET /api/v1/subscriptions", 400, "missing_parameter"),
        ("GET /api/v1/subscriptions?topic=a/%2B", 400, "invalid_parameter"),
        ("GET /api/v1/subscriptions?topic=a&filter=a", 400, "invalid_parameter"),
        ("GET /api/v1/subscriptions?filter=a/%23/b", 400, "invalid_parameter"),
        ("GET /api/v1/retained?filter=$share/g/a", 400, "invalid_parameter"),
        ("GET /api/v1/retained/a/%2B", 400, "invalid_parameter"),
        ("PUT /api/v1/retained/a", 405, "method_not_allowed"),
        ("GET /api/v1/node?x=1", 400, "unknown_parameter"),
        ("POST /api/v1/stats", 405, "method_not_allowed"),
    ] {
        assert_eq!(rest.call(line).failure(), failed(status, code), "{line}");
    }
    assert!(rest.asked().is_empty());
    for (target, code) in [("subscriptions", "client_not_found"), ("queue", "client_not_found")] {
        let answer = rest.call(&format!("GET /api/v1/clients/offline/{target}"));
        assert_eq!(answer.failure(), failed(404, code), "{target}");
    }
    let stats = rest.call("GET /api/v1/stats");
    assert_eq!(stats.status, 200);
    assert!(stats.body.contains(r#"{"name":"hearthmq_"#), "{}", stats.body);
}
