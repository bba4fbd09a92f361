//! Who receives a message, retained messages, and the node, with doubles behind them.

use serde_json::{Value, json};

use super::{
    failed,
    world::{basic, rest},
};

#[test]
fn receivers_are_asked_for_by_topic_or_by_filter() {
    let rest = rest();
    let answer = rest.call("GET /api/v1/subscriptions?topic=a/b&limit=7");
    let expected = r#"{"items":[{"client_id":"car-1","online":true,"node":"here","qos":1},{"client_id":"car-2","online":false,"node":"here","shares":["$share/g/a/+"]}],"next":"AWNhci0y"}"#;
    assert_eq!(answer.outcome(), (200, expected));
    let next = "GET /api/v1/subscriptions?filter=%24share/g/a/%2B&cursor=AWNhci0y";
    assert_eq!(rest.call(next).status, 200);
    assert_eq!(
        rest.asked(),
        ["receivers of topic a/b 7 - by ops", "receivers of filter $share/g/a/+ 100 car-2 by ops",]
    );
    for (query, code) in [
        ("", "missing_parameter"),
        ("?topic=a&filter=a", "invalid_parameter"),
        ("?topic=a/%2B", "invalid_parameter"),
        ("?filter=a/%23/b", "invalid_parameter"),
        ("?topic=a&cursor=x", "invalid_parameter"),
        ("?topic=a&limit=0", "invalid_parameter"),
        ("?topic=", "missing_parameter"),
    ] {
        let answer = rest.call(&format!("GET /api/v1/subscriptions{query}"));
        assert_eq!(answer.failure(), failed(400, code), "{query}");
    }
    for (topic, status, code) in [("full", 503, "unavailable"), ("stuck", 504, "timeout")] {
        let answer = rest.call(&format!("GET /api/v1/subscriptions?topic={topic}"));
        assert_eq!(answer.failure(), failed(status, code));
    }
}

#[test]
fn retained_messages_are_listed_shown_and_removed() {
    let rest = rest();
    let listed = rest.call("GET /api/v1/retained?filter=a/%23&payload=true&limit=1&cursor=AWEvYQ");
    let expected = r#"{"items":[{"topic":"a/b","qos":1,"payload_bytes":2,"payload_base64":"aGk="}],"next":"AWEvYg"}"#;
    assert_eq!(listed.outcome(), (200, expected));
    let expected = r#"{"items":[{"topic":"a/b","qos":1,"payload_bytes":2}],"next":"AWEvYg"}"#;
    assert_eq!(rest.call("GET /api/v1/retained").outcome(), (200, expected));
    // Slashes may be encoded or not.
    for path in ["a/b", "a%2Fb"] {
        let shown = rest.call(&format!("GET /api/v1/retained/{path}"));
        let expected = r#"{"topic":"a/b","qos":0,"payload_bytes":2,"expires_at":9000,"payload_base64":"aGk=","response_topic":"r","correlation_data_base64":"/2Nk","content_type":"t","payload_format_indicator":1,"user_properties":[{"key":"k","value":"v"},{"key":"k","value":"w"}]}"#;
        assert_eq!(shown.outcome(), (200, expected));
        let removed = rest.call(&format!("DELETE /api/v1/retained/{path}"));
        assert_eq!(removed.outcome(), (200, r#"{"success":true}"#));
    }
    assert_eq!(
        rest.asked(),
        [
            "retained a/# 1 a/a true",
            "retained # 100 - false",
            "show a/b",
            "clear a/b",
            "show a/b",
            "clear a/b",
        ]
    );
    for method in ["GET", "DELETE"] {
        let answer = rest.call(&format!("{method} /api/v1/retained/offline"));
        assert_eq!(answer.failure(), failed(404, "retained_not_found"));
        let answer = rest.call(&format!("{method} /api/v1/retained/a/%23"));
        assert_eq!(answer.failure(), failed(400, "invalid_parameter"));
    }
    assert_eq!(rest.asked(), ["show offline", "clear offline"]);
    let answer = rest.call("GET /api/v1/retained?filter=%24share/g/a");
    assert_eq!(answer.failure(), failed(400, "invalid_parameter"));
}

#[test]
fn retained_messages_need_the_permissions_of_their_topic() {
    let rest = rest();
    let other = basic("öps:pass:word"); // may neither subscribe nor publish
    for line in ["GET /api/v1/retained/a", "DELETE /api/v1/retained/a"] {
        assert_eq!(rest.call_as(Some(&other), line).failure(), failed(403, "forbidden"));
    }
    assert!(rest.asked().is_empty());
}

#[test]
fn the_node_says_what_it_is_and_how_it_is() {
    let rest = rest();
    let answer = rest.call("GET /api/v1/node");
    let mut node: Value = serde_json::from_str(&answer.body).unwrap();
    assert!(node["limits"].as_object_mut().unwrap().remove("sessions_max").is_some());
    node["limits"] = Value::Null;
    assert_eq!(
        node,
        json!({
            "node": "here", "version": env!("CARGO_PKG_VERSION"), "started_at": 1_000,
            "uptime_secs": 60, "ready": true, "readiness": "ready", "draining": null, "shards": 2,
            "connections": 3, "sessions": 4, "listeners": ["mqtt://127.0.0.1:1883"], "limits": null,
        })
    );
    rest.api.set_ready(false);
    let answer = rest.call("GET /api/v1/node");
    let node: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&node["ready"], &node["readiness"]), (&json!(false), &json!("not_ready")));
    assert_eq!(rest.call("GET /api/v1/node?x=1").failure(), failed(400, "unknown_parameter"));
    let other = basic("öps:pass:word");
    for path in ["node", "stats"] {
        let answer = rest.call_as(Some(&other), &format!("GET /api/v1/{path}"));
        assert_eq!(answer.failure(), failed(403, "forbidden"));
    }
    let stats: Value = serde_json::from_str(&rest.call("GET /api/v1/stats").body).unwrap();
    assert_eq!(stats["rates"], json!([]), "nobody takes samples here");
    assert!(stats["metrics"].as_array().unwrap().len() > 50);
}
