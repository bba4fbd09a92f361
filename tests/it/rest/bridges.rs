//! `/api/v1/bridges` on a real broker, whose bridge reaches nobody.

use hearthmq::{
    bridge::{Bridge, BridgeTopic, Direction},
    mqtt::QoS,
};
use serde_json::json;

use super::{
    failed,
    live::{json, live, live_with},
};

fn plant() -> Bridge {
    let topic = BridgeTopic {
        filter: "sensors/#".into(),
        direction: Direction::Out,
        qos: QoS::AtLeastOnce,
        remote_prefix: "site7/".into(),
        ..BridgeTopic::default()
    };
    // The address is of a network that leads nowhere.
    Bridge::new("plant", vec!["mqtt://192.0.2.1".parse().unwrap()], vec![topic]).unwrap()
}

#[test]
fn bridges_are_listed_shown_stopped_and_started() {
    let live = live_with(|builder| builder.bridge(plant()));
    let all = json(&live.call("GET /api/v1/bridges"));
    let one = json(&live.call("GET /api/v1/bridges/plant"));
    assert_eq!(
        (all["items"].as_array().unwrap().len(), &all["items"][0]["name"]),
        (1, &json!("plant"))
    );
    assert_eq!((&one["client_id"], &one["enabled"]), (&json!("$bridge/plant"), &json!(true)));
    assert_eq!(
        one["topics"],
        json!([{"filter": "sensors/#", "direction": "out", "qos": 1, "local_prefix": "",
            "remote_prefix": "site7/", "retained": "new"}])
    );
    json(&live.call("POST /api/v1/bridges/plant/reconnect"));
    let stopped = json(&live.call_with("PATCH /api/v1/bridges/plant", r#"{"enabled":false}"#));
    assert_eq!(stopped["enabled"], json!(false));
    let refused = live.call("POST /api/v1/bridges/plant/reconnect");
    assert_eq!(refused.failure(), failed(409, "bridge_disabled"));
    let started = json(&live.call_with("PATCH /api/v1/bridges/plant", r#"{"enabled":true}"#));
    assert_eq!(started["enabled"], json!(true));
    let session = json(&live.call("GET /api/v1/clients/%24bridge%2Fplant"));
    assert_eq!((&session["username"], &session["online"]), (&json!("bridge:plant"), &json!(false)));
}

#[test]
fn an_unknown_bridge_and_a_wrong_body_are_named() {
    let live = live();
    for call in
        ["GET /api/v1/bridges/a", "GET /api/v1/bridges/%2e", "POST /api/v1/bridges/a/reconnect"]
    {
        assert_eq!(live.call(call).failure(), failed(404, "bridge_not_found"), "{call}");
    }
    for body in [
        "null",
        "[]",
        "[true]",
        "{}",
        r#"{"enabled":null}"#,
        r#"{"enabled":1}"#,
        r#"{"enabled":true,"a":1}"#,
    ] {
        let answer = live.call_with("PATCH /api/v1/bridges/a", body);
        assert_eq!(answer.failure(), failed(400, "invalid_body"), "{body}");
    }
    let answer = live.call_with("PATCH /api/v1/bridges/a", r#"{"enabled":true}"#);
    assert_eq!(answer.failure(), failed(404, "bridge_not_found"));
    assert_eq!(
        live.call("GET /api/v1/bridges?limit=1").failure(),
        failed(400, "unknown_parameter")
    );
    assert_eq!(live.call("DELETE /api/v1/bridges/a").failure(), failed(405, "method_not_allowed"));
}
