//! Messages that callers publish.

use serde_json::{Value, json};

use super::{
    failed,
    world::{basic, rest},
};

const OPS: &str = "ops:pass:word";
const PUBLISH: &str = "POST /api/v1/publish";

/// Returns a body without the identifiers of its messages.
fn without_ids(body: &str) -> String {
    let mut parts = body.split("\"message_id\":\"");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| text + part.split_once("\",").unwrap().1)
}

#[test]
fn a_body_is_published_to_the_topic_in_the_path() {
    let rest = rest();
    for (target, published) in [
        ("a", "a 1 0 bytes: x"),
        ("a%2Fb+%C3%BC?qos=0", "a/b+ü 0 0 bytes: x"),
        ("a?qos=2&retained=true", "a 2 retained 0 bytes: x"),
        // Each property has one byte for its kind; texts have two for their length.
        ("a?ResponseTopic=r&CorrelationData=cd&ContentType=t", "a 1 13 bytes: x"),
        ("a?PayloadFormatIndicator=1", "a 1 2 bytes: x"),
        ("a?PayloadFormatIndicator=0&MessageExpiryInterval=60", "a 1 0 bytes: x"),
        (
            "a?UserProp.2.Key=k&UserProp.2.Value=v&UserProp.1.Key=a&UserProp.1.Value=",
            "a 1 13 bytes: x",
        ),
    ] {
        if target.starts_with("a%2Fb+") {
            continue; // `+` is a wildcard, see below
        }
        let answer = rest.call_with(&format!("POST /topics/{target}"), "", "x");
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        assert_eq!(
            without_ids(&answer.body),
            r#"{"success":true,"node":"here","matched":7}"#,
            "{target}"
        );
        let id = answer.header("x-message-id");
        assert!(!id.is_empty() && answer.body.contains(id));
        assert_eq!(rest.asked(), [published], "{target}");
    }
    let answer = rest.call_with("POST /topics/a%2Fb%20%C3%BC?qos=0", "", "x");
    assert_eq!((answer.status, rest.asked()), (200, vec!["a/b ü 0 0 bytes: x".to_owned()]));
    let ids = [(); 2].map(|()| rest.call("POST /topics/a").header("x-message-id").to_owned());
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn what_cannot_be_published_is_refused() {
    let rest = rest();
    for (target, status, code) in [
        ("a%2F%23", 400, "invalid_topic"),
        ("a%FF", 400, "invalid_topic"),
        ("deep", 400, "invalid_topic"),
        ("a?qos=3", 400, "invalid_parameter"),
        ("a?qos=", 400, "missing_parameter"),
        ("a?retained=yes", 400, "invalid_parameter"),
        ("a?x=1", 400, "unknown_parameter"),
        ("a?PayloadFormatIndicator=2", 400, "invalid_parameter"),
        ("a?MessageExpiryInterval=4294967296", 400, "invalid_parameter"),
        ("a?ResponseTopic=%23", 400, "invalid_property"),
        ("a?UserProp.1.Key=k", 400, "invalid_parameter"),
        ("a?UserProp.0.Key=k&UserProp.0.Value=v", 400, "invalid_parameter"),
        ("a?UserProp.1.Key=k&UserProp.1.Key=k", 400, "duplicate_parameter"),
        ("a?UserProp.1.Name=k", 400, "invalid_parameter"),
        ("full", 409, "retained_full"),
        ("large", 413, "message_too_large"),
        ("stuck", 504, "timeout"),
        ("$SYS%2Fx", 403, "forbidden"),
        ("$SETOPTS%2Fmqtt%2Fkeepalive", 403, "forbidden"),
        ("a/b", 404, "not_found"),
    ] {
        let answer = rest.call(&format!("POST /topics/{target}"));
        assert_eq!(answer.failure(), failed(status, code), "{target}");
    }
    assert_eq!(rest.asked().len(), 4);
    let answer = rest.call_as(Some(&basic("öps:pass:word")), "POST /topics/a");
    assert_eq!(answer.failure(), failed(403, "forbidden"));
    assert_eq!(rest.call_as(None, "POST /topics/a").failure(), failed(401, "unauthenticated"));
    let answer = rest.call("GET /topics/a");
    assert_eq!(
        (answer.failure(), answer.header("allow")),
        (failed(405, "method_not_allowed"), "POST")
    );
    assert!(rest.asked().is_empty());
}

#[test]
fn each_message_of_a_list_has_a_result_in_its_place() {
    let rest = rest();
    let body = r#"[{"topic":"a","payload":"ü"},{"topic":"b","payload_base64":"aGk=","qos":2,"retained":true},
        {"topic":"c","qos":0,"response_topic":"r","correlation_data":"cd","content_type":"t","payload_format_indicator":1,"message_expiry_interval":5,"user_properties":[{"key":"k","value":"v"}]},
        {"topic":"a","payload":"","payload_base64":""},{"topic":"a","payload_base64":"?"},{"topic":"a","qos":3},
        {"topic":""},{"topic":"$SYS/a"},{"topic":"a","x":1},{},7,{"topic":"full"},{"topic":"a","payload_format_indicator":2},
        {"topic":"z"}]"#;
    let answer = rest.post_json(OPS, PUBLISH, body);
    assert_eq!(answer.status, 200);
    let ok = r#"{"success":true,"node":"here","matched":7}"#.to_owned();
    let failed = |code: &str| format!(r#"{{"success":false,"code":"{code}"}}"#);
    let invalid = || failed("invalid_body");
    let results = [
        ok.clone(),
        ok.clone(),
        ok.clone(),
        invalid(),
        invalid(),
        invalid(),
        failed("invalid_topic"),
        failed("forbidden"),
        invalid(),
        invalid(),
        invalid(),
        failed("retained_full"),
        invalid(),
        ok,
    ];
    assert_eq!(without_ids(&answer.body), format!(r#"{{"results":[{}]}}"#, results.join(",")));
    let asked = [
        "a 1 0 bytes: ü",
        "b 2 retained 0 bytes: hi",
        "c 0 22 bytes: ",
        "full 1 0 bytes: ",
        "z 1 0 bytes: ",
    ];
    assert_eq!(rest.asked(), asked);
}

#[test]
fn a_call_that_waits_is_answered_with_the_counts() {
    let rest = rest();
    for (query, counts) in [
        ("wait=stored", r#""stored":4,"delivered":0,"acknowledged":5000,"queued":2,"dropped":0"#),
        (
            "wait=delivered&timeout_ms=60000&qos=0",
            r#""stored":4,"delivered":5,"acknowledged":60000,"queued":2,"dropped":0"#,
        ),
        (
            "timeout_ms=1&wait=acknowledged",
            r#""stored":4,"delivered":5,"acknowledged":1,"queued":2,"dropped":0"#,
        ),
    ] {
        let answer = rest.call_with(&format!("POST /topics/a?{query}"), "", "x");
        let expected = format!(r#"{{"success":true,"node":"here","matched":7,{counts}}}"#);
        assert_eq!((answer.status, without_ids(&answer.body)), (200, expected), "{query}");
    }
    for (query, code) in [
        ("wait=sent", "invalid_parameter"),
        ("wait=", "missing_parameter"),
        ("timeout_ms=5", "missing_parameter"),
        ("wait=stored&timeout_ms=0", "invalid_parameter"),
        ("wait=stored&timeout_ms=60001", "invalid_parameter"),
    ] {
        let answer = rest.call(&format!("POST /topics/a?{query}"));
        assert_eq!(answer.failure(), failed(400, code), "{query}");
        let answer = rest.post_json(OPS, &format!("POST /api/v1/publish?{query}"), "[]");
        assert_eq!(answer.failure(), failed(400, code), "{query}");
    }
    let answer = rest.call("POST /topics/crowded?wait=stored");
    assert_eq!(answer.failure(), failed(409, "too_many_deliveries"));
}

/// The message was published, so the answer says what has happened so far.
#[test]
fn a_call_whose_time_has_passed_is_504_with_the_counts() {
    let rest = rest();
    let answer = rest.call_with("POST /topics/late?wait=delivered&timeout_ms=7", "", "x");
    assert_eq!(answer.status, 504);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let message = "The message was published, but not all deliveries came that far in time.";
    let expected = json!({
        "success": false, "code": "timeout", "message": message, "message_id": body["message_id"],
        "node": "here", "matched": 7, "stored": 4, "delivered": 5, "acknowledged": 7, "queued": 2, "dropped": 0,
    });
    assert_eq!(body, expected);
    assert!(body["message_id"].is_string());
    let body = r#"[{"topic":"late"},{"topic":"a"},{"topic":"full"}]"#;
    let answer = rest.post_json(OPS, "POST /api/v1/publish?wait=stored", body);
    let counts = r#""node":"here","matched":7,"stored":4,"delivered":0,"acknowledged":5000,"queued":2,"dropped":0"#;
    let results = [
        format!(r#"{{"success":false,{counts},"code":"timeout"}}"#),
        format!(r#"{{"success":true,{counts}}}"#),
        r#"{"success":false,"code":"retained_full"}"#.to_owned(),
    ];
    let expected = format!(r#"{{"results":[{}]}}"#, results.join(","));
    assert_eq!((answer.status, without_ids(&answer.body)), (200, expected));
}

#[test]
fn at_most_100_messages_of_one_call_wait() {
    let rest = rest();
    let body = |count: usize| format!("[{}]", vec![r#"{"topic":"a"}"#; count].join(","));
    let line = "POST /api/v1/publish?wait=stored";
    assert_eq!(rest.post_json(OPS, line, &body(100)).status, 200);
    assert_eq!(rest.post_json(OPS, line, &body(101)).failure(), failed(413, "too_many_items"));
}
