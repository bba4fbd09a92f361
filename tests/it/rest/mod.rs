//! The contract of the REST calls, row by row, over real sockets. Doubles stand behind them; other
//! tests make the calls on a real broker.

mod answers;
mod audited;
mod bans;
mod bridges;
mod browsers;
mod callers;
mod connections;
mod events;
mod feed;
mod keep_alives;
mod kicks;
mod listeners;
mod lists;
pub(crate) mod live;
mod logins;
mod messages;
mod names;
mod openapi;
mod options;
mod proxies;
mod publish;
mod publisher;
mod redirect;
mod repeated;
mod requests;
mod room;
mod rules;
mod sessions;
mod settings;
mod standing;
mod tokens;
mod topics;
mod traces;
mod users;
mod v1;
mod views;
mod world;

use std::num::NonZeroU32;

use hearthmq::http::{ApiOptions, CallRate, MetricsAccess};
use world::{basic, hosted_with_certificates, options, rest, rest_with};

const KEEP_ALIVE: &str = "POST /keep-alive?client-id=demo&interval=120";

fn failed(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn a_keep_alive_is_changed() {
    let rest = rest();
    let answer = rest.call(KEEP_ALIVE);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, r#"{"success":true,"keepalive":120}"#);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(rest.asked(), ["demo 120 by ops"]);
}

/// Calls at the same time go to the broker together.
#[test]
fn of_many_calls_at_once_each_gets_its_own_answer() {
    let rest = rest();
    let calls = [
        ("GET /client-id/demo/status", r#"{"online":true}"#),
        ("GET /client-id/offline/status", r#"{"online":false}"#),
        ("POST /keep-alive?client-id=a&interval=40", r#"{"success":true,"keepalive":40}"#),
        ("POST /keep-alive?client-id=b&interval=50", r#"{"success":true,"keepalive":50}"#),
    ];
    std::thread::scope(|scope| {
        for (line, answer) in calls.iter().cycle().take(32) {
            let rest = &rest;
            scope.spawn(move || {
                for _ in 0..5 {
                    assert_eq!(rest.call(line).body, *answer, "{line}");
                }
            });
        }
    });
    assert_eq!(rest.asked().len(), 32 * 5);
}

#[test]
fn the_client_id_of_a_keep_alive_is_percent_encoded() {
    let rest = rest();
    let target = "interval=30&client-id=a%2Fb%23%2B%20%E2%82%AC%25";
    assert_eq!(rest.call(&format!("POST /keep-alive?{target}")).status, 200);
    assert_eq!(rest.asked(), ["a/b#+ €% 30 by ops"]);
}

#[test]
fn wrong_parameters_are_answered_with_400_and_change_nothing() {
    let rest = rest();
    for (query, code) in [
        ("", "missing_parameter"),
        ("?", "missing_parameter"),
        ("?interval=60", "missing_parameter"),
        ("?client-id=&interval=60", "missing_parameter"),
        ("?client-id=demo&interval=", "missing_parameter"),
        ("?client-id=a&client-id=b&interval=60", "duplicate_parameter"),
        ("?client-id=a&interval=60&interval=60", "duplicate_parameter"),
        ("?client-id=demo&interval=0", "invalid_interval"),
        ("?client-id=demo&interval=29", "invalid_interval"),
        ("?client-id=demo&interval=1201", "invalid_interval"),
        ("?client-id=demo&interval=-60", "invalid_interval"),
        ("?client-id=demo&interval=+60", "invalid_interval"),
        ("?client-id=demo&interval=60.5", "invalid_interval"),
        ("?client-id=demo&interval=1e2", "invalid_interval"),
        ("?client-id=demo&interval=18446744073709551676", "invalid_interval"),
        ("?client-id=demo&interval=sixty", "invalid_interval"),
        ("?client-id=%zz&interval=60", "invalid_client_id"),
        ("?client-id=%FF&interval=60", "invalid_client_id"),
        ("?client-id=%00&interval=60", "invalid_client_id"),
    ] {
        let answer = rest.call(&format!("POST /keep-alive{query}"));
        assert_eq!(answer.failure(), failed(400, code), "{query}");
    }
    assert!(rest.asked().is_empty());
}

#[test]
fn the_ends_of_the_interval_are_in_it() {
    let rest = rest();
    for secs in [30, 1200] {
        let answer = rest.call(&format!("POST /keep-alive?client-id=demo&interval={secs}"));
        assert_eq!(answer.body, format!(r#"{{"success":true,"keepalive":{secs}}}"#));
    }
}

#[test]
fn what_the_broker_cannot_do_has_its_status() {
    let rest = rest();
    for (client_id, status, code) in [
        ("offline", 404, "client_not_online"),
        ("keep-alive-off", 409, "keep_alive_disabled"),
        ("full", 503, "unavailable"),
        ("slow", 504, "timeout"),
        ("stuck", 504, "timeout"),
    ] {
        let answer = rest.call(&format!("POST /keep-alive?client-id={client_id}&interval=60"));
        assert_eq!(answer.failure(), failed(status, code));
        assert_eq!(answer.header("retry-after").is_empty(), status != 503);
    }
    for (client_id, status, code) in [("full", 503, "unavailable"), ("stuck", 504, "timeout")] {
        let answer = rest.call(&format!("GET /client-id/{client_id}/status"));
        assert_eq!(answer.failure(), failed(status, code));
    }
}

#[test]
fn the_status_of_a_client_is_asked_by_get_and_by_post() {
    let rest = rest();
    assert_eq!(rest.call("HEAD /client-id/demo/status").status, 200);
    for method in ["GET", "POST"] {
        for (client_id, body) in
            [("demo", r#"{"online":true}"#), ("offline", r#"{"online":false}"#)]
        {
            let answer = rest.call(&format!("{method} /client-id/{client_id}/status"));
            assert_eq!((answer.status, answer.body.as_str()), (200, body));
            assert_eq!(answer.header("cache-control"), "no-store");
        }
    }
}

#[test]
fn a_client_id_in_a_path_may_hold_anything_percent_encoded() {
    let rest = rest();
    for (encoded, client_id) in [
        ("a%2Fb", "a/b"),
        ("a%2fb", "a/b"),
        ("%2F", "/"),
        ("%23%2B%3F%25", "#+?%"),
        ("a+b", "a+b"),
        ("%20", " "),
        ("%E6%BC%A2%F0%9F%94%A5", "漢🔥"),
        ("%2e%2E", ".."),
        ("status", "status"),
    ] {
        let answer = rest.call(&format!("GET /client-id/{encoded}/status"));
        assert_eq!(answer.status, 200, "{encoded}");
        assert_eq!(rest.asked(), [client_id]);
    }
}

#[test]
fn an_invalid_client_id_in_a_path_is_answered_with_400() {
    let rest = rest();
    for (encoded, code) in [
        ("", "missing_parameter"),
        ("a/b", "invalid_client_id"),
        ("x/client-id/demo", "invalid_client_id"),
        ("../client-id/demo", "invalid_client_id"),
        ("x/../demo", "invalid_client_id"),
        ("..", "invalid_client_id"),
        (".", "invalid_client_id"),
        ("%", "invalid_client_id"),
        ("%2", "invalid_client_id"),
        ("%2x", "invalid_client_id"),
        ("%C3", "invalid_client_id"),
        ("a%00b", "invalid_client_id"),
    ] {
        let answer = rest.call(&format!("GET /client-id/{encoded}/status"));
        assert_eq!(answer.failure(), failed(400, code), "{encoded:?}");
    }
    assert!(rest.asked().is_empty());
}

#[test]
fn an_id_as_long_as_a_request_may_be_is_answered() {
    let rest = rest();
    let id = "x".repeat(65_000);
    assert_eq!(rest.call(&format!("GET /client-id/{id}/status")).status, 200);
    // Longer request targets are refused before they are parsed.
    let id = "x".repeat(65_536);
    assert_eq!(rest.call(&format!("GET /client-id/{id}/status")).status, 400);
    assert_eq!(rest.asked().len(), 1);
}

#[test]
fn no_or_wrong_credentials_are_answered_with_401_and_how_to_give_them() {
    let rest = rest();
    let token = basic("ops:pass:word").split_off("Basic ".len());
    for authorization in [
        None,
        Some(basic("ops:wrong")),
        Some(basic("ops:pass")),
        Some(basic("ops")),
        Some(basic("nobody:pass:word")),
        Some(basic(":")),
        Some("Basic".into()),
        Some("Basic *".into()),
        Some("Basic /w==".into()), // not UTF-8, and no colon
        Some("Bearer abc".into()),
        Some("Bearer".into()),
        Some("Bearer token ops".into()),
        Some(token),
    ] {
        let answer = rest.call_as(authorization.as_deref(), KEEP_ALIVE);
        assert_eq!(answer.failure(), failed(401, "unauthenticated"), "{authorization:?}");
        let challenge = r#"Basic realm="hearthmq", charset="UTF-8", Bearer realm="hearthmq""#;
        assert_eq!(answer.header("www-authenticate"), challenge);
    }
    assert!(rest.asked().is_empty());
}

#[test]
fn two_authorization_headers_are_no_credentials() {
    let rest = rest();
    let right = basic("ops:pass:word");
    let twice = format!("{right}\r\nAuthorization: {right}");
    let answer = rest.call_as(Some(&twice), KEEP_ALIVE);
    assert_eq!(answer.failure(), failed(401, "unauthenticated"));
}

#[test]
fn basic_is_read_as_its_standard_has_it() {
    let rest = rest();
    for authorization in [basic("ops:pass:word").replace("Basic", "bAsIc"), basic("öps:pass:word")]
    {
        assert_eq!(rest.call_as(Some(&authorization), KEEP_ALIVE).status, 200);
    }
    assert_eq!(rest.asked(), ["demo 120 by ops", "demo 120 by öps"]);
}

/// The double knows the token `token-of-ops`, and the user of a certificate named `ops`.
#[test]
fn a_bearer_token_is_a_credential_of_its_own() {
    let rest = rest();
    for authorization in ["Bearer token-of-ops", "bearer  token-of-ops"] {
        assert_eq!(rest.call_as(Some(authorization), KEEP_ALIVE).status, 200);
    }
    assert_eq!(rest.asked(), ["demo 120 by ops"; 2]);
}

#[test]
fn what_the_authenticator_says_has_its_status() {
    let rest = rest();
    for (user, status, code, retry_after) in [
        ("throttled", 429, "too_many_requests", "7"),
        ("wrong-way", 403, "forbidden", ""),
        ("unknowable", 503, "unavailable", "1"),
        ("expired", 401, "unauthenticated", ""),
        ("unloadable", 503, "unavailable", "1"),
    ] {
        let answer = rest.call_as(Some(&basic(&format!("{user}:x"))), KEEP_ALIVE);
        assert_eq!(answer.failure(), failed(status, code));
        assert_eq!(answer.header("retry-after"), retry_after);
    }
    assert_eq!(rest.call_as(Some(&basic("expires:x")), KEEP_ALIVE).status, 200, "not yet");
}

#[test]
fn without_permission_nothing_about_the_client_is_looked_up() {
    let rest = rest();
    for line in [
        "POST /keep-alive?client-id=secret&interval=60",
        "POST /keep-alive?client-id=%73ecret&interval=60",
        "GET /client-id/secret/status",
    ] {
        assert_eq!(rest.call(line).failure(), failed(403, "forbidden"));
    }
    assert!(rest.asked().is_empty());
}

#[test]
fn other_methods_are_answered_with_405_and_the_right_ones() {
    let rest = rest();
    for (target, methods, allow) in [
        ("/keep-alive?client-id=a&interval=60", "GET PUT DELETE OPTIONS BREW", "POST"),
        ("/client-id/a/status", "PUT DELETE PATCH", "GET, HEAD, POST"),
        ("/metrics", "POST", "GET, HEAD"),
        ("/health/live", "DELETE", "GET, HEAD"),
    ] {
        for method in methods.split(' ') {
            // Without credentials: the method is checked first.
            let answer = rest.call_as(None, &format!("{method} {target}"));
            assert_eq!(answer.failure(), failed(405, "method_not_allowed"));
            assert_eq!(answer.header("allow"), allow);
        }
    }
}

#[test]
fn a_path_that_leads_nowhere_is_answered_like_every_failure() {
    let rest = rest();
    for line in [
        "GET /",
        "GET /keep-alive/?client-id=a&interval=60",
        "POST /keep%2Dalive/x",
        "GET /client-id/a",
        "GET /client-id/a/status/",
        "DELETE /client-id/a",
    ] {
        let answer = rest.call(line);
        assert_eq!(answer.failure(), failed(404, "not_found"), "{line}");
        assert!(answer.body.contains("POST /keep-alive?client-id="), "{}", answer.body);
    }
}

#[test]
fn over_the_rate_of_an_account_or_an_address_is_429() {
    let rate = CallRate { per_sec: NonZeroU32::MIN, burst: NonZeroU32::new(2).unwrap() };
    for options in [limited(Some(rate), None), limited(None, Some(rate))] {
        let rest = rest_with(&options);
        assert_eq!(rest.call(KEEP_ALIVE).status, 200);
        assert_eq!(rest.call("GET /client-id/demo/status").status, 200);
        let answer = rest.call(KEEP_ALIVE);
        assert_eq!(answer.failure(), failed(429, "too_many_requests"));
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(rest.asked().len(), 2);
    }
}

fn limited(account_rate: Option<CallRate>, address_rate: Option<CallRate>) -> ApiOptions {
    ApiOptions { account_rate, address_rate, ..options() }
}

#[test]
fn wrong_credentials_count_for_the_address() {
    let rate = CallRate { per_sec: NonZeroU32::MIN, burst: NonZeroU32::MIN };
    let rest = rest_with(&limited(None, Some(rate)));
    assert_eq!(rest.call_as(None, KEEP_ALIVE).status, 401);
    assert_eq!(rest.call(KEEP_ALIVE).status, 429);
}

#[test]
fn http_1_0_is_served() {
    let rest = rest();
    let authorization = basic("ops:pass:word");
    for (line, body) in [
        (KEEP_ALIVE, r#"{"success":true,"keepalive":120}"#),
        ("GET /client-id/demo/status", r#"{"online":true}"#),
    ] {
        // A POST of HTTP/1.0 must give the length of its body (RFC 1945, section 8.3).
        let request = format!(
            "{line} HTTP/1.0\r\nContent-Length: 0\r\nAuthorization: {authorization}\r\n\r\n"
        );
        let answer = rest.send(&request);
        assert_eq!((answer.status, answer.body.as_str()), (200, body));
    }
}

#[test]
fn a_body_means_nothing() {
    let rest = rest();
    let authorization = basic("ops:pass:word");
    let answer = rest.send(&format!(
        "{KEEP_ALIVE} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: {authorization}\
         \r\nContent-Length: 12\r\n\r\ninterval=999"
    ));
    assert_eq!(answer.body, r#"{"success":true,"keepalive":120}"#);
}

#[test]
fn a_certificate_is_an_identity_and_a_different_user_beside_it_is_not() {
    let rest = hosted_with_certificates();
    let line = "POST /broker/keep-alive?client-id=demo&interval=60";
    assert_eq!(rest.call_as(None, line).status, 200);
    let same = basic("device-7:its password is not looked at");
    assert_eq!(rest.call_as(Some(&same), line).status, 200);
    assert_eq!(rest.asked(), ["demo 60 by device-7", "demo 60 by device-7"]);
    for other in [basic("ops:pass:word"), "Bearer abc".into()] {
        let answer = rest.call_as(Some(&other), line);
        assert_eq!(answer.failure(), failed(401, "unauthenticated"));
    }
}

#[test]
fn a_host_mounts_the_routes_where_it_likes() {
    let rest = hosted_with_certificates();
    let answer = rest.call_as(None, "GET /broker/client-id/a%2Fb/status");
    assert_eq!(answer.body, r#"{"online":true}"#);
    assert_eq!(rest.asked(), ["a/b"]);
    let answer = rest.call_as(None, "GET /client-id/a/status");
    assert_eq!(answer.failure(), failed(404, "not_found"));
    for path in ["a/b", "x/client-id/a", "..", "a/../b"] {
        let answer = rest.call_as(None, &format!("GET /broker/client-id/{path}/status"));
        assert_eq!(answer.failure(), failed(400, "invalid_client_id"), "{path}");
    }
}

#[test]
fn health_needs_no_account_and_readiness_ends_with_the_broker() {
    let rest = rest();
    let ask = |path: &str| {
        let answer = rest.call_as(None, path);
        (answer.status, answer.body)
    };
    assert_eq!(ask("GET /health/live"), (200, r#"{"status":"live"}"#.into()));
    assert_eq!(ask("GET /health/ready"), (200, r#"{"status":"ready"}"#.into()));
    assert_eq!(ask("HEAD /health/ready"), (200, String::new()));
    rest.api.set_ready(false);
    assert_eq!(ask("GET /health/ready"), (503, r#"{"status":"not_ready"}"#.into()));
    assert_eq!(ask("GET /health/live").0, 200);
}

#[test]
fn metrics_count_the_calls() {
    let rest = rest();
    rest.call(KEEP_ALIVE);
    rest.call_as(None, KEEP_ALIVE);
    rest.call("GET /client-id/demo/status");
    let answer = rest.call_as(None, "GET /metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    for line in [
        r#"hearthmq_rest_calls_total{route="/keep-alive",status="200"} 1"#,
        r#"hearthmq_rest_calls_total{route="/keep-alive",status="401"} 1"#,
        r#"hearthmq_rest_latency_seconds_count{route="/client-id/{client_id}/status"} 1"#,
    ] {
        assert!(answer.body.lines().any(|found| found == line), "{}", answer.body);
    }
}

#[test]
fn metrics_can_be_turned_off() {
    let rest = rest_with(&ApiOptions { metrics_access: MetricsAccess::Nobody, ..options() });
    let answer = rest.call("GET /metrics");
    assert_eq!(answer.failure(), failed(404, "not_found"));
}
