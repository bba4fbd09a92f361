//! Requests to devices, and their replies.

use std::sync::atomic::{AtomicUsize, Ordering};

use hearthmq::auth::{AccessRequest, Action, Authorizer, Decision};

use super::{
    failed,
    world::{basic, rest, rest_by},
};

const OPS: &str = "ops:pass:word";
const REQUEST: &str = "POST /api/v1/request";

/// Returns a body without the identifier of its message.
fn without_id(body: &str) -> String {
    let (before, after) = body.split_once(r#""message_id":""#).unwrap();
    format!("{before}{}", after.split_once("\",").unwrap().1)
}

#[test]
fn a_request_is_answered_with_the_reply() {
    let rest = rest();
    let rest_of_reply =
        r#""content_type":"text/plain","user_properties":[{"key":"k","value":"v"}],"took_ms":0}"#;
    for (body, asked, reply) in [
        (
            r#"{"topic":"a","payload":"x","correlation_data":"cd","qos":2}"#,
            "a by ops for 5000: own/1 cd",
            r#"{"success":true,"node":"here","client_id":"device","topic":"r","qos":1,"payload":"21 °C","#,
        ),
        (
            r#"{"topic":"binary","response_topic":"named/r","correlation_data":"cd"}"#,
            "binary by ops for 5000: named/r cd",
            r#"{"success":true,"node":"here","client_id":"device","topic":"r","qos":1,"payload_base64":"/wA=","#,
        ),
        (
            r#"{"topic":"by-caller","correlation_data":"cd"}"#,
            "by-caller by ops for 5000: own/1 cd",
            r#"{"success":true,"node":"here","topic":"r","qos":1,"payload":"21 °C","#,
        ),
    ] {
        let answer = rest.post_json(OPS, REQUEST, body);
        let expected = format!("{reply}{rest_of_reply}");
        assert_eq!((answer.status, without_id(&answer.body)), (200, expected));
        assert_eq!(rest.asked(), [asked]);
    }
    let answer = rest.post_json(OPS, &format!("{REQUEST}?timeout_ms=60000"), r#"{"topic":"a"}"#);
    assert_eq!(answer.status, 200);
    let asked = rest.asked().remove(0);
    let data = asked.strip_prefix("a by ops for 60000: own/1 ").expect(&asked);
    assert!(!data.is_empty());
}

#[test]
fn a_request_without_a_reply_has_a_code() {
    let rest = rest();
    for (body, status, code) in [
        (r#"{"topic":"silent"}"#, 504, "timeout"),
        (r#"{"topic":"unheard"}"#, 404, "no_subscriber"),
        (r#"{"topic":"busy"}"#, 503, "unavailable"),
        (r#"{"topic":"a","response_topic":"a"}"#, 400, "invalid_body"),
        (r#"{"topic":"a","response_topic":"r/#"}"#, 400, "invalid_property"),
        (r#"{"topic":"a","timeout_ms":5}"#, 400, "invalid_body"),
        (r##"{"topic":"#"}"##, 400, "invalid_topic"),
        (r#"{"topic":"$SYS/x"}"#, 403, "forbidden"),
        ("[]", 400, "invalid_body"),
    ] {
        let answer = rest.post_json(OPS, REQUEST, body);
        assert_eq!(answer.failure(), failed(status, code), "{body}");
    }
    assert_eq!(rest.asked().len(), 3);
    let answer = rest.call(&format!("{REQUEST}?timeout_ms=60001"));
    assert_eq!(answer.failure(), failed(400, "invalid_parameter"));
    let answer = rest.post_json("öps:pass:word", REQUEST, r#"{"topic":"a"}"#);
    assert_eq!(answer.failure(), failed(403, "forbidden"));
    assert_eq!(rest.call_as(None, REQUEST).failure(), failed(401, "unauthenticated"));
    let get = rest.call_as(Some(&basic(OPS)), "GET /api/v1/request");
    assert_eq!((get.failure(), get.header("allow")), (failed(405, "method_not_allowed"), "POST"));
}

/// Allows everything, but to publish only once.
struct Once(AtomicUsize);

impl Authorizer for Once {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        match request.action {
            Action::Publish { .. } if self.0.fetch_add(1, Ordering::Relaxed) > 0 => Decision::Deny,
            _ => Decision::Allow,
        }
    }
}

/// A reload may have taken the permission while the call waited.
#[test]
fn a_reply_that_comes_after_the_permission_is_gone_is_not_given() {
    let rest = rest_by(Once(AtomicUsize::new(0)));
    let answer = rest.post_json(OPS, REQUEST, r#"{"topic":"a"}"#);
    assert_eq!(answer.failure(), failed(403, "forbidden"));
    assert_eq!(rest.asked().len(), 1);
}
