//! `/api/v1/rules` on a real broker and a real policy.

use serde_json::{Value, json};

use super::{
    failed,
    live::{Live, json, live, live_with, policy},
};

const DENY: &str = r#"{"effect":"deny","priority":5,"actions":["publish"],"topics":["secret/#"]}"#;

fn check(live: &Live, question: Value) -> Value {
    json(&live.call_with("POST /api/v1/rules/check", &question.to_string()))
}

#[test]
fn a_rule_is_written_shown_replaced_and_removed() {
    let live = live();
    let created = json(&live.call_with("POST /api/v1/rules", DENY));
    let id = created["id"].as_str().unwrap();
    assert_eq!((id.len(), &created["sessions_touched"]), (16, &json!(0)));
    let path = format!("/api/v1/rules/{id}");
    let shown = live.call(&format!("GET {path}"));
    assert_eq!(shown.header("etag"), format!("\"{}\"", created["revision"]));
    let shown = json(&shown);
    assert_eq!(shown["rule"], serde_json::from_str::<Value>(DENY).unwrap());
    assert_eq!((&shown["priority"], &shown["by"]), (&json!(5), &json!("ops")));
    let other = r#"{"effect":"deny","users":["ann"]}"#;
    let replaced = json(&live.call_with(&format!("PUT {path}"), other));
    assert!(replaced["revision"].as_u64() > created["revision"].as_u64());
    assert_eq!(json(&live.call(&format!("GET {path}")))["priority"], 1000);
    assert_eq!(json(&live.call(&format!("DELETE {path}")))["id"], id);
    for line in ["GET", "DELETE"] {
        let answer = live.call(&format!("{line} {path}"));
        assert_eq!(answer.failure(), failed(404, "rule_not_found"));
    }
}

#[test]
fn of_two_callers_that_replace_a_rule_the_later_one_is_told() {
    let live = live();
    let put = |header: &str| live.call_if("PUT /api/v1/rules/a", header, DENY);
    assert_eq!(put("If-Match: *").failure(), failed(412, "precondition_failed"));
    let first = put("If-None-Match: *").header("etag").to_owned();
    assert_eq!(put("If-None-Match: *").failure(), failed(412, "precondition_failed"));
    assert_eq!(put(&format!("If-Match: {first}")).status, 200);
    assert_eq!(put(&format!("If-Match: {first}")).failure(), failed(412, "precondition_failed"));
    assert_eq!(put("If-Match: 7").failure(), failed(400, "invalid_precondition"));
    let remove = |header: &str| live.call_if("DELETE /api/v1/rules/a", header, "");
    assert_eq!(remove(&format!("If-Match: {first}")).failure(), failed(412, "precondition_failed"));
    assert_eq!(remove("If-Match: *").status, 200);
}

#[test]
fn a_mistake_in_a_rule_is_named_and_changes_nothing() {
    let live = live();
    for (body, named) in [
        (r#"{"effect":"deny","topics":["a/#/b"]}"#, "topics[0]"),
        (r#"{"effect":"deny","addresses":["10.0.0.1/8"]}"#, "addresses[0]"),
        (r#"{"effect":"deny","topic":["a"]}"#, "unknown field `topic`"),
        (r#"{"priority":1}"#, "effect"),
        ("[]", "rule is not valid"),
    ] {
        let answer = live.call_with("POST /api/v1/rules", body);
        assert_eq!(answer.failure(), failed(400, "invalid_rule"), "{body}");
        assert!(answer.body.contains(named), "{body}: {}", answer.body);
    }
    for id in ["a%2Fb", "check%21", &"x".repeat(65)] {
        let answer = live.call_with(&format!("PUT /api/v1/rules/{id}"), DENY);
        assert_eq!(answer.failure(), failed(400, "invalid_rule"), "{id}");
    }
    assert_eq!(live.call_with("POST /api/v1/rules", "{").failure(), failed(400, "invalid_body"));
    assert_eq!(live.call("GET /api/v1/rules").body, r#"{"items":[]}"#);
}

#[test]
fn rules_are_listed_in_the_order_of_evaluation() {
    let live = live();
    for (id, priority) in [("b", 7), ("a", 7), ("z", -3), ("c", 500)] {
        let rule = json!({"effect": "deny", "users": ["nobody"], "priority": priority});
        json(&live.call_with(&format!("PUT /api/v1/rules/{id}"), &rule.to_string()));
    }
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = json(&live.call(&format!("GET /api/v1/rules?limit=2{cursor}")));
        let items = page["items"].as_array().unwrap();
        found.extend(items.iter().map(|rule| rule["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(found, ["z", "a", "b", "c"]);
    let answer = live.call("GET /api/v1/rules?cursor=AWE");
    assert_eq!(answer.failure(), failed(400, "invalid_parameter"));
}

#[test]
fn as_many_rules_as_the_limit_says() {
    let live = live_with(|builder| {
        builder.limits(hearthmq::limits::Limits { stored_rules_max: 1, ..Default::default() })
    });
    json(&live.call_with("PUT /api/v1/rules/a", DENY));
    assert_eq!(live.call_with("PUT /api/v1/rules/b", DENY).failure(), failed(409, "too_many"));
    json(&live.call_with("PUT /api/v1/rules/a", DENY));
}

#[test]
fn only_administrators_see_and_change_rules() {
    let live = live_with(|builder| {
        let rules = "[[rules]]\neffect = \"allow\"\n"; // everything but administer
        builder.authorizer(policy(rules))
    });
    for (line, body) in [
        ("GET /api/v1/rules", ""),
        ("POST /api/v1/rules", DENY),
        ("GET /api/v1/rules/a", ""),
        ("PUT /api/v1/rules/a", DENY),
        ("DELETE /api/v1/rules/a", ""),
        ("POST /api/v1/rules/check", "{}"),
    ] {
        assert_eq!(live.call_with(line, body).failure(), failed(403, "forbidden"), "{line}");
    }
}

/// Returns a question about `ann` with all facts.
fn known(mut question: Value) -> Value {
    let of_ann = json!({"username": "ann", "acl": [], "attributes": {}, "groups": []});
    question.as_object_mut().unwrap().extend(of_ann.as_object().unwrap().clone());
    question
}

#[test]
fn a_check_names_the_ban_that_decides() {
    let live = live();
    let question = |action: &str| {
        let mut question = known(json!({"action": action, "topic": "t", "client_id": "car-1"}));
        question["address"] = json!("192.0.2.7");
        question
    };
    let allowed = json!({"decision": "allow", "by": "file", "line": 8});
    for (kind, value) in [("client_id", "car-*"), ("user", "ann"), ("address", "192.0.2.0/24")] {
        assert_eq!(check(&live, question("publish")), allowed);
        let ban = json!({kind: value}).to_string();
        json(&live.call_with("POST /api/v1/bans", &ban));
        let banned =
            json!({"decision": "deny", "by": "ban", "ban": {"kind": kind, "value": value}});
        for action in ["connect", "publish", "subscribe"] {
            assert_eq!(check(&live, question(action)), banned, "{action}");
        }
        // Bans do not concern REST callers.
        assert_eq!(check(&live, question("observe"))["by"], "no_rule");
        let value = value.replace('/', "%2F").replace('*', "%2A");
        json(&live.call(&format!("DELETE /api/v1/bans/{kind}/{value}")));
    }
    let mut by_certificate = json!({"action": "connect", "certificate_common_name": "ann"});
    json(&live.call_with("POST /api/v1/bans", r#"{"user":"ann"}"#));
    assert_eq!(check(&live, by_certificate.clone())["by"], "ban");
    by_certificate["certificate_common_name"] = json!("ben");
    assert_eq!(check(&live, by_certificate)["by"], "file");
}

#[test]
fn a_check_takes_rules_of_the_identity_and_says_what_it_does_not_know() {
    let live = live();
    let mut question = json!({"username": "ann", "action": "publish", "topic": "a/b"});
    let unknown = json!(["acl", "attributes", "groups"]);
    assert_eq!(check(&live, question.clone())["not_known"], unknown);
    question["acl"] = json!([
        {"permission": "allow", "action": "publish", "topic": "x"},
        {"permission": "deny", "action": "publish", "topic": "a/#"},
    ]);
    let by_own = json!({"decision": "deny", "by": "acl", "position": 2,
        "not_known": ["attributes", "groups"]});
    assert_eq!(check(&live, question.clone()), by_own);
    for invalid in [json!([{"effect": "perhaps"}]), json!({}), json!("x")] {
        question["acl"] = invalid;
        let answer = live.call_with("POST /api/v1/rules/check", &question.to_string());
        assert_eq!(answer.failure(), failed(400, "invalid_body"), "{question}");
    }
    for missing in ["acl", "attributes", "groups"] {
        let mut question = known(json!({"action": "connect"}));
        question[missing] = Value::Null;
        let answer = live.call_with("POST /api/v1/rules/check", &question.to_string());
        assert_eq!(answer.failure(), failed(400, "invalid_body"), "{missing}");
    }
    // A client without a user name has no identity from outside.
    assert_eq!(check(&live, json!({"action": "connect"})).get("not_known"), None);
}

#[test]
fn a_check_names_the_rule_that_decides() {
    let live = live();
    let publish = |topic: &str| known(json!({"action": "publish", "topic": topic}));
    let by_file = json!({"decision": "allow", "by": "file", "line": 8});
    assert_eq!(check(&live, publish("secret/a")), by_file);
    json(&live.call_with("PUT /api/v1/rules/s", DENY));
    let by_store = json!({"decision": "deny", "by": "stored", "id": "s"});
    assert_eq!(check(&live, publish("secret/a")), by_store);
    assert_eq!(check(&live, publish("other")), by_file);
    let by_broker = json!({"decision": "deny", "by": "broker"});
    assert_eq!(check(&live, publish("$SYS/broker/uptime")), by_broker);
    let nobody = json!({"decision": "deny", "by": "no_rule"});
    assert_eq!(check(&live, known(json!({"action": "administer"}))), nobody);
    let subscribe = json!({"action": "subscribe", "topic": "$share/g/secret/#", "qos": 1});
    assert_eq!(check(&live, subscribe), by_file);

    // A file's rule goes first where priorities are equal; an address that is not given is undecided.
    let rule = |priority: i64, effect: &str| {
        json!({"priority": priority, "effect": effect, "addresses": ["10.0.0.0/8"]}).to_string()
    };
    json(&live.call_with("PUT /api/v1/rules/n", &rule(1000, "deny")));
    assert_eq!(check(&live, publish("other")), by_file);
    json(&live.call_with("PUT /api/v1/rules/n", &rule(999, "deny")));
    let by_network = json!({"decision": "deny", "by": "stored", "id": "n"});
    assert_eq!(check(&live, publish("other")), by_network);
    let mut elsewhere = publish("other");
    elsewhere["address"] = json!("192.0.2.7");
    assert_eq!(check(&live, elsewhere), by_file);
    json(
        &live
            .call_with("PUT /api/v1/rules/g", r#"{"effect":"deny","priority":2,"groups":["out"]}"#),
    );
    let mut grouped = publish("other");
    grouped["groups"] = json!(["in", "out"]);
    assert_eq!(check(&live, grouped)["id"], "g");
    for (question, code) in [
        (json!({"action": "publish"}), "invalid_body"),
        (json!({"action": "publish", "topic": "a/#"}), "invalid_topic"),
        (json!({"action": "subscribe", "topic": "a#"}), "invalid_filter"),
        (json!({"action": "publish", "topic": "a", "qos": 3}), "invalid_body"),
        (json!({"action": "fly"}), "invalid_body"),
        (json!({"action": "connect", "user": "ann"}), "invalid_body"),
    ] {
        let answer = live.call_with("POST /api/v1/rules/check", &question.to_string());
        assert_eq!(answer.failure(), failed(400, code), "{question}");
    }
}
