//! Messages that callers publish.

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
        assert_eq!(without_ids(&answer.body), r#"{"success":true,"matched":7}"#, "{target}");
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
    let ok = r#"{"success":true,"matched":7}"#.to_owned();
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
