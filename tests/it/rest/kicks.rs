//! Calls that end connections of several clients, and that change subscriptions.

use super::{failed, world::rest};

const OPS: &str = "ops:pass:word";
const KICK: &str = "POST /api/v1/clients/kick";

#[test]
fn several_clients_are_kicked_by_a_list() {
    let rest = rest();
    let body = r#"{"client_ids":["a","secret","offline",7,"b"],"session":"end","will":"discard","reason":"be gone"}"#;
    let results = [
        r#"{"client_id":"a","success":true,"node":"here"}"#,
        r#"{"client_id":"secret","success":false,"code":"forbidden"}"#,
        r#"{"client_id":"offline","success":false,"code":"client_not_online"}"#,
        r#"{"client_id":7,"success":false,"code":"invalid_body"}"#,
        r#"{"client_id":"b","success":true,"node":"here"}"#,
    ];
    let expected = format!(r#"{{"results":[{}]}}"#, results.join(","));
    assert_eq!(rest.post_json(OPS, KICK, body).outcome(), (200, &*expected));
    let kicked = ["a", "offline", "b"].map(|id| format!("kick {id} end discard be gone"));
    assert_eq!(rest.asked(), kicked);
}

#[test]
fn several_clients_are_kicked_by_a_selector() {
    let rest = rest();
    let answer = rest.post_json(OPS, KICK, r#"{"clients":"car-*"}"#);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let lines: Vec<_> = answer.body.lines().filter(|line| line.starts_with('{')).collect();
    let expected = ["car-1", "car-2"]
        .map(|id| format!(r#"{{"client_id":"{id}","success":true,"node":"here"}}"#));
    assert_eq!(lines, expected);
    assert_eq!(rest.asked(), ["kick car-1 keep publish", "kick car-2 keep publish"]);
}

/// A client may have the identifier `kick`.
#[test]
fn what_does_not_say_who_is_kicked_is_refused() {
    let rest = rest();
    for (body, code) in [
        ("{}", "invalid_body"),
        ("[]", "invalid_body"),
        (r#"{"client_ids":["a"],"clients":"a"}"#, "invalid_body"),
        (r#"{"client_ids":["a"],"session":"stop"}"#, "invalid_parameter"),
        (r#"{"client_ids":["a"],"will":""}"#, "invalid_parameter"),
        (r#"{"client_ids":["a"],"x":1}"#, "invalid_body"),
    ] {
        assert_eq!(rest.post_json(OPS, KICK, body).failure(), failed(400, code), "{body}");
    }
    assert!(rest.asked().is_empty());
    assert_eq!(rest.call("DELETE /api/v1/clients/kick").status, 200);
    assert_eq!(rest.asked(), ["kick kick keep publish"]);
}

#[test]
fn subscriptions_are_changed_on_behalf_of_a_client() {
    let rest = rest();
    let on = |id: &str, body: &str| {
        rest.post_json(OPS, &format!("POST /api/v1/clients/{id}/subscribe"), body)
    };
    let body = r#"{"subscriptions":[{"filter":"a/#"},{"filter":"b","qos":2,"no_local":true,"retain_as_published":true,"retain_handling":1},{"filter":"denied"},{"filter":"quota"},{"filter":"wrong"}]}"#;
    let results = [
        r#"{"filter":"a/#","success":true,"qos":0}"#,
        r#"{"filter":"b","success":true,"qos":2}"#,
        r#"{"filter":"denied","success":false,"code":"client_not_authorized"}"#,
        r#"{"filter":"quota","success":false,"code":"quota_exceeded"}"#,
        r#"{"filter":"wrong","success":false,"code":"invalid_filter"}"#,
    ];
    let expected = format!(r#"{{"node":"here","results":[{}]}}"#, results.join(","));
    assert_eq!(on("x%2Fy", body).outcome(), (200, &*expected));
    assert_eq!(rest.asked(), ["x/y +a/# +b +denied +quota +wrong"]);
    let answer =
        rest.post_json(OPS, "POST /api/v1/clients/a/unsubscribe", r#"{"filters":["a","none"]}"#);
    let expected = r#"{"node":"here","results":[{"filter":"a","success":true,"qos":0},{"filter":"none","success":false,"code":"not_subscribed"}]}"#;
    assert_eq!(answer.outcome(), (200, expected));
    assert_eq!(rest.asked(), ["a -a -none"]);
    let one = r#"{"subscriptions":[{"filter":"a"}]}"#;
    for (id, status, code) in [
        ("secret", 403, "forbidden"),
        ("offline", 404, "client_not_online"),
        ("stuck", 504, "timeout"),
        ("%FF", 400, "invalid_client_id"),
    ] {
        assert_eq!(on(id, one).failure(), failed(status, code), "{id}");
    }
    let many =
        format!(r#"{{"subscriptions":[{}{{"filter":"a"}}]}}"#, r#"{"filter":"a"},"#.repeat(100));
    for (body, status, code) in [
        ("{}", 400, "invalid_body"),
        (r#"{"subscriptions":[{"filter":"a","qos":3}]}"#, 400, "invalid_body"),
        (r#"{"subscriptions":[{"filter":"a","retain_handling":3}]}"#, 400, "invalid_body"),
        (&many, 413, "too_many_items"),
    ] {
        assert_eq!(on("a", body).failure(), failed(status, code), "{body:.50}");
    }
}
