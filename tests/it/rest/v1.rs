//! Calls below `/api/v1`, call by call.

use std::time::Duration;

use hearthmq::http::ApiOptions;

use super::{
    failed,
    world::{hosted_with_certificates, options, rest, rest_with},
};

const OPS: &str = "ops:pass:word";
const STATUS: &str = "POST /api/v1/status";

#[test]
fn the_states_of_several_clients_come_in_their_order() {
    let rest = rest();
    let body = r#"{"client_ids":["b","offline","a/ü","b"]}"#;
    let answer = rest.post_json(OPS, STATUS, body);
    let expected = r#"{"results":[{"client_id":"b","online":true,"node":"here"},{"client_id":"offline","online":false},{"client_id":"a/ü","online":true,"node":"here"},{"client_id":"b","online":true,"node":"here"}]}"#;
    assert_eq!(answer.outcome(), (200, expected));
    assert_eq!(rest.asked(), ["b", "offline", "a/ü", "b"]);
    let answer = rest.post_json(OPS, STATUS, r#"{"client_ids":[]}"#);
    assert_eq!(answer.outcome(), (200, r#"{"results":[]}"#));
}

/// An item that cannot be answered does not refuse the others.
#[test]
fn each_item_has_a_result_or_a_code() {
    let rest = rest();
    let long = "x".repeat(65_536);
    let body = format!(r#"{{"client_ids":["secret",7,"a\u0000b","{long}","full","b"]}}"#);
    let answer = rest.post_json(OPS, STATUS, &body);
    let expected = format!(
        r#"{{"results":[{{"client_id":"secret","code":"forbidden"}},{{"client_id":7,"code":"invalid_body"}},{{"client_id":"a\u0000b","code":"invalid_client_id"}},{{"client_id":"{long}","code":"invalid_client_id"}},{{"client_id":"full","code":"unavailable"}},{{"client_id":"b","online":true,"node":"here"}}]}}"#
    );
    assert_eq!(answer.outcome(), (200, &*expected));
    assert_eq!(rest.asked(), ["full", "b"]);
}

#[test]
fn more_items_than_a_call_may_have_are_refused() {
    // A busy machine takes more than a moment for a long body.
    let rest = rest_with(&ApiOptions { call_timeout: Duration::from_secs(60), ..options() });
    let ids = |count: usize| format!(r#"{{"client_ids":[{}"x"]}}"#, r#""x","#.repeat(count - 1));
    let answer = rest.post_json(OPS, STATUS, &ids(10_001));
    assert_eq!(answer.failure(), failed(413, "too_many_items"));
    assert!(rest.asked().is_empty());
    assert_eq!(rest.post_json(OPS, STATUS, &ids(10_000)).status, 200);
    let large = format!(r#"{{"client_ids":["{}"]}}"#, "x".repeat(8 * 1024 * 1024));
    assert_eq!(rest.post_json(OPS, STATUS, &large).failure(), failed(413, "body_too_large"));
}

#[test]
fn a_call_changes_at_most_100_subscriptions() {
    let rest = rest();
    for (verb, list, item) in
        [("subscribe", "subscriptions", r#"{"filter":"a"}"#), ("unsubscribe", "filters", r#""a""#)]
    {
        let line = format!("POST /api/v1/clients/c/{verb}");
        for items in [101, 10_001] {
            let body = format!(r#"{{"{list}":[{}]}}"#, vec![item; items].join(","));
            let answer = rest.post_json(OPS, &line, &body);
            assert_eq!(answer.failure(), failed(413, "too_many_items"), "{verb} {items}");
        }
        let body = format!(r#"{{"{list}":[{}]}}"#, vec![item; 100].join(","));
        assert_eq!(rest.post_json(OPS, &line, &body).status, 200, "{verb}");
    }
}

#[test]
fn a_body_that_the_call_does_not_expect_is_refused() {
    let rest = rest();
    for body in ["", "[]", "{}", r#"{"client_ids":"a"}"#, r#"{"client_ids":[],"x":1}"#] {
        let answer = rest.post_json(OPS, STATUS, body);
        assert_eq!(answer.failure(), failed(400, "invalid_body"), "{body}");
    }
    assert_eq!(rest.call(STATUS).failure(), failed(415, "unsupported_media_type"));
    let answer = rest.call("GET /api/v1/status");
    assert_eq!(answer.failure(), failed(405, "method_not_allowed"));
    assert_eq!(answer.header("allow"), "POST");
    assert_eq!(rest.call("GET /api/v1/stranger").failure(), failed(404, "not_found"));
    let answer = rest.post_json("ops:wrong", STATUS, "{}");
    assert_eq!(answer.failure(), failed(401, "unauthenticated"));
}

#[test]
fn a_client_is_kicked() {
    let rest = rest();
    for (target, kick) in [
        ("a%2Fb%20c", "kick a/b c keep publish"),
        ("a?session=keep&will=publish", "kick a keep publish"),
        ("a?session=end&will=discard&reason=be+gone", "kick a end discard be gone"),
        ("%2E%2E?session=end", "kick .. end publish"),
    ] {
        let answer = rest.call(&format!("DELETE /api/v1/clients/{target}"));
        assert_eq!(answer.outcome(), (200, r#"{"success":true,"node":"here"}"#), "{target}");
        assert_eq!(rest.asked(), [kick]);
    }
    for (target, status, code) in [
        ("secret", 403, "forbidden"),
        ("offline", 404, "client_not_online"),
        ("full", 503, "unavailable"),
        ("stuck", 504, "timeout"),
        ("%FF", 400, "invalid_client_id"),
        ("a?session=end&session=end", 400, "duplicate_parameter"),
        ("a?session=stop", 400, "invalid_parameter"),
        ("a?will=", 400, "missing_parameter"),
        ("a?reason=%00", 400, "invalid_parameter"),
        ("a?sessions=end", 400, "unknown_parameter"),
    ] {
        let answer = rest.call(&format!("DELETE /api/v1/clients/{target}"));
        assert_eq!(answer.failure(), failed(status, code), "{target}");
    }
    assert_eq!(
        rest.asked(),
        ["kick offline keep publish", "kick full keep publish", "kick stuck keep publish"]
    );
}

/// An application mounts the calls below a path of its own.
#[test]
fn the_client_id_is_found_below_the_path_of_an_application() {
    let rest = hosted_with_certificates();
    let answer = rest.call_as(None, "DELETE /broker/api/v1/clients/a%2Fb");
    assert_eq!(answer.status, 200);
    assert_eq!(rest.asked(), ["kick a/b keep publish"]);
}
