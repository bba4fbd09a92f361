//! Redirecting clients to another server, call by call.

use std::fs;

use hearthmq::auth::FilePolicy;

use super::{
    failed,
    world::{Answer, Rest, hosted_with_certificates, rest, rest_where},
};

const OPS: &str = "ops:pass:word";

fn post(rest: &Rest, body: &str) -> Answer {
    rest.post_json(OPS, "POST /api/v1/redirect", body)
}

#[test]
fn one_client_is_sent_away() {
    let rest = rest();
    let answer = post(&rest, r#"{"client_id":"demo","server_reference":"b:1883"}"#);
    assert_eq!((answer.status, &*answer.body), (200, r#"{"success":true,"redirected":1}"#));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(rest.asked(), ["demo 9c b:1883"]);
}

#[test]
fn only_matching_clients_that_the_caller_may_control_are_sent_away() {
    let rest = rest();
    let body = r#"{"clients":"*","server_reference":"b c","permanent":true}"#;
    assert_eq!(post(&rest, body).body, r#"{"success":true,"redirected":3}"#);
    assert_eq!(rest.asked(), ["car-1 9d b c", "car-2 9d b c", "ship 9d b c"]);
    let answer = post(&rest, r#"{"clients":"bus-*","server_reference":"b"}"#);
    assert_eq!(answer.body, r#"{"success":true,"redirected":0}"#);
}

#[test]
fn a_list_is_no_object() {
    let rest = rest();
    for (path, body) in [
        ("POST /api/v1/redirect", r#"[null,"*","h:1"]"#),
        ("POST /api/v1/status", r#"[["demo"]]"#),
        ("POST /api/v1/clients/kick", r#"[["demo"]]"#),
        ("POST /api/v1/clients/query", "[]"),
    ] {
        let answer = rest.post_json(OPS, path, body);
        assert_eq!(answer.failure(), failed(400, "invalid_body"), "{path}");
    }
    assert!(rest.asked().is_empty());
}

#[test]
fn what_cannot_be_done_has_its_status() {
    let rest = rest();
    for (client_id, status, code) in [
        ("secret", 403, "forbidden"),
        ("offline", 404, "client_not_online"),
        ("full", 503, "unavailable"),
        ("stuck", 504, "timeout"),
    ] {
        let body = format!(r#"{{"client_id":"{client_id}","server_reference":"b"}}"#);
        assert_eq!(post(&rest, &body).failure(), failed(status, code));
    }
    assert_eq!(post(&rest, "{}").failure(), failed(400, "invalid_body"));
    let body = format!(r#"{{"clients":"{}","server_reference":"b"}}"#, "*a".repeat(17));
    assert_eq!(post(&rest, &body).failure(), failed(400, "invalid_pattern"));
    let answer = post(&rest, r#"{"clients":"*","server_reference":""}"#);
    assert_eq!(answer.failure(), failed(400, "invalid_server_reference"));
    let answer = rest.post_json("ops:wrong", "POST /api/v1/redirect", "{}");
    assert_eq!(answer.failure(), failed(401, "unauthenticated"));
    let answer = rest.call("PUT /api/v1/redirect");
    assert_eq!(answer.failure(), failed(405, "method_not_allowed"));
    assert_eq!(answer.header("allow"), "GET, HEAD, POST, DELETE");
}

/// A form that a page makes a browser send is not a valid call.
#[test]
fn a_body_that_does_not_say_that_it_is_json_is_refused() {
    let rest = rest();
    let answer = rest.call("POST /api/v1/redirect");
    assert_eq!(answer.failure(), failed(415, "unsupported_media_type"));
    assert!(answer.body.contains("Content-Type: application/json"));
    assert!(rest.asked().is_empty());
}

#[test]
fn new_clients_are_refused_until_that_is_ended() {
    let rest = rest();
    let body = r#"{"clients":"*","server_reference":"b","refuse_connects":true}"#;
    assert_eq!(post(&rest, body).status, 200);
    assert_eq!(rest.asked()[0], "drain to b");
    let state = rest.call("GET /api/v1/redirect");
    let body = r#"{"redirecting":true,"server_reference":"b","permanent":false}"#;
    assert_eq!((state.status, &*state.body), (200, body));
    let ready = rest.call_as(None, "GET /health/ready");
    assert_eq!((ready.status, &*ready.body), (503, r#"{"status":"redirecting"}"#));
    let answer = rest.call("DELETE /api/v1/redirect");
    assert_eq!((answer.status, &*answer.body), (200, r#"{"success":true}"#));
    assert_eq!(rest.asked(), ["drain to nowhere"]);
    assert_eq!(rest.call("GET /api/v1/redirect").body, r#"{"redirecting":false}"#);
    assert_eq!(rest.call_as(None, "GET /health/ready").status, 200);
}

#[test]
fn the_state_is_told_to_those_who_may_end_it_or_observe() {
    let path = "/broker/api/v1/redirect";
    let rest = hosted_with_certificates();
    let answer = rest.call_as(None, &format!("GET {path}"));
    assert_eq!(answer.failure(), failed(403, "forbidden"));
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.toml");
    let rule = "[[rules]]\neffect = \"allow\"\nactions = [\"observe\"]\nusers = [\"ops\"]\n";
    fs::write(&policy, rule).unwrap();
    let rest = rest_where(FilePolicy::open(&policy).unwrap());
    assert_eq!(rest.call("GET /api/v1/redirect").status, 200);
    assert_eq!(rest.call("HEAD /api/v1/redirect").status, 200);
    assert_eq!(rest.call("DELETE /api/v1/redirect").failure(), failed(403, "forbidden"));
}

/// Redirecting a client needs `control`; `connect` and `observe` permit only the two calls.
#[test]
fn each_call_has_its_permission() {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.toml");
    let body = r#"{"client_id":"demo","server_reference":"b:1883"}"#;
    for (action, keep_alive, status, redirect) in [
        ("connect", 200, 200, 403),
        ("observe", 403, 200, 403),
        ("control", 200, 403, 200),
        ("administer", 403, 403, 403),
        ("publish", 403, 403, 403),
    ] {
        let rule = format!("[[rules]]\neffect = \"allow\"\nactions = [{action:?}]\n");
        fs::write(&policy, rule).unwrap();
        let rest = rest_where(FilePolicy::open(&policy).unwrap());
        let found = rest.call("POST /keep-alive?client-id=demo&interval=60").status;
        assert_eq!(found, keep_alive, "{action}");
        assert_eq!(rest.call("GET /client-id/demo/status").status, status, "{action}");
        assert_eq!(post(&rest, body).status, redirect, "{action}");
        let all = post(&rest, r#"{"clients":"*","server_reference":"b"}"#);
        let sent = if action == "control" { 4 } else { 0 };
        assert_eq!(all.body, format!(r#"{{"success":true,"redirected":{sent}}}"#), "{action}");
    }
}

#[test]
fn to_refuse_new_clients_takes_a_permission_of_its_own() {
    let rest = hosted_with_certificates();
    let line = "POST /broker/api/v1/redirect";
    let body = r#"{"clients":"*","server_reference":"b","refuse_connects":true}"#;
    assert_eq!(rest.post_json("device-7:", line, body).failure(), failed(403, "forbidden"));
    let answer = rest.call_as(None, "DELETE /broker/api/v1/redirect");
    assert_eq!(answer.failure(), failed(403, "forbidden"));
    assert!(rest.asked().is_empty());
    let body = r#"{"clients":"car-*","server_reference":"b"}"#;
    let answer = rest.post_json("device-7:", line, body);
    assert_eq!(answer.body, r#"{"success":true,"redirected":2}"#);
}

#[test]
fn a_policy_has_to_name_the_permission_to_refuse_new_clients() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    let everything = "[[rules]]\neffect = \"allow\"\nusers = [\"ops\"]\n";
    let body = r#"{"clients":"*","server_reference":"b","refuse_connects":true}"#;
    fs::write(&path, everything).unwrap();
    let rest = rest_where(FilePolicy::open(&path).unwrap());
    assert_eq!(post(&rest, body).failure(), failed(403, "forbidden"));
    assert_eq!(rest.call("DELETE /api/v1/redirect").failure(), failed(403, "forbidden"));
    assert!(rest.asked().is_empty());
    assert_eq!(post(&rest, r#"{"clients":"car-*","server_reference":"b"}"#).status, 200);

    fs::write(&path, format!("{everything}topics = [\"$control/redirect\"]\n{everything}"))
        .unwrap();
    let rest = rest_where(FilePolicy::open(&path).unwrap());
    assert_eq!(post(&rest, body).status, 200);
    assert_eq!(rest.call("DELETE /api/v1/redirect").status, 200);
}
