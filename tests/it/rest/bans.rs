//! `/api/v1/bans`, `/api/v1/audit` and `/api/v1/logins` on a real broker.

use std::net::SocketAddr;

use hearthmq::auth::{
    Accounts as FileAccounts, AuthenticationConfig, FileAuthenticator, hash_password,
};
use hearthmq_test::http::basic;
use serde_json::json;

use super::{
    failed,
    live::{json, live, live_with, policy},
};

#[test]
fn a_ban_is_set_shown_replaced_and_lifted() {
    let live = live();
    let set = |body: &str| live.call_with("POST /api/v1/bans", body);
    let first = set(r#"{"client_id":"a/b c","reason":"stolen"}"#);
    let tag = first.header("etag").to_owned();
    let first = json(&first);
    assert_eq!((&first["kind"], &first["value"]), (&json!("client_id"), &json!("a/b c")));
    let path = "/api/v1/bans/client_id/a%2Fb%20c";
    let shown = live.call(&format!("GET {path}"));
    assert_eq!(shown.header("etag"), tag);
    let shown = json(&shown);
    assert_eq!((&shown["reason"], &shown["by"]), (&json!("stolen"), &json!("ops")));
    assert_eq!((&shown["flapping"], shown["expires_at"].is_null()), (&json!(false), true));
    let second = json(&set(r#"{"client_id":"a/b c","ttl_seconds":60}"#));
    assert!(second["revision"].as_u64() > first["revision"].as_u64());
    let shown = json(&live.call(&format!("GET {path}")));
    let time = shown["expires_at"].as_u64().unwrap() - shown["set_at"].as_u64().unwrap();
    assert_eq!((time, shown["reason"].is_null()), (60_000, true));
    let stale = live.call_if(&format!("DELETE {path}"), &format!("If-Match: {tag}"), "");
    assert_eq!(stale.failure(), failed(412, "precondition_failed"));
    assert_eq!(json(&live.call(&format!("DELETE {path}")))["value"], "a/b c");
    for method in ["GET", "DELETE"] {
        let answer = live.call(&format!("{method} {path}"));
        assert_eq!(answer.failure(), failed(404, "ban_not_found"));
    }
    json(&set(r#"{"address":"10.0.0.0/8"}"#));
    json(&live.call("GET /api/v1/bans/address/10.0.0.0%2F8"));
}

#[test]
fn a_mistake_in_a_ban_is_named() {
    let live = live();
    for (body, code) in [
        ("{}", "invalid_ban"),
        (r#"{"client_id":"a","user":"b"}"#, "invalid_ban"),
        (r#"{"client_id":""}"#, "invalid_ban"),
        (r#"{"address":"10.0.0.1/8"}"#, "invalid_ban"),
        (r#"{"address":"host"}"#, "invalid_ban"),
        (r#"{"user":"a","ttl_seconds":0}"#, "invalid_ttl"),
        (r#"{"user":"a","until":0}"#, "invalid_body"),
    ] {
        let answer = live.call_with("POST /api/v1/bans", body);
        assert_eq!(answer.failure(), failed(400, code), "{body}");
    }
    let long = json!({"user": "a", "reason": "x".repeat(1_025)}).to_string();
    assert_eq!(live.call_with("POST /api/v1/bans", &long).failure(), failed(400, "invalid_ban"));
    let answer = live.call("GET /api/v1/bans/name/x");
    assert_eq!(answer.failure(), failed(400, "invalid_ban"));
}

#[test]
fn bans_are_listed_page_by_page() {
    let live = live();
    for (kind, value) in [("user", "b"), ("client_id", "z"), ("address", "::1"), ("user", "a*")] {
        json(&live.call_with("POST /api/v1/bans", &json!({kind: value}).to_string()));
    }
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = json(&live.call(&format!("GET /api/v1/bans?limit=3{cursor}")));
        let items = page["items"].as_array().unwrap().iter();
        found.extend(items.map(|ban| format!("{} {}", ban["kind"], ban["value"]).replace('"', "")));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(found, ["address ::1/128", "client_id z", "user a*", "user b"]);
    // Nothing follows a last page that is full.
    for path in ["bans", "audit"] {
        let page = json(&live.call(&format!("GET /api/v1/{path}?limit=4")));
        assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (4, &json!(null)));
    }
}

#[test]
fn every_change_is_in_the_audit_log() {
    let live = live();
    let rule = r#"{"effect":"deny","users":["x"]}"#;
    json(&live.call_with("PUT /api/v1/rules/r", rule));
    json(&live.call_with("PUT /api/v1/rules/r", r#"{"effect":"deny","users":["y"]}"#));
    json(&live.call_with("POST /api/v1/bans", r#"{"user":"x","reason":"noise"}"#));
    live.call("DELETE /api/v1/bans/user/x");
    live.call("DELETE /api/v1/bans/user/x"); // fails, and changes nothing
    let page = json(&live.call("GET /api/v1/audit?limit=3"));
    let items = page["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    let parts = |at: usize, name: &str| items[at][name].as_str().unwrap_or("-").to_owned();
    assert_eq!([parts(0, "action"), parts(0, "target")], ["rule", "r"]);
    assert_eq!([parts(0, "target_kind"), parts(2, "target_kind")], ["rule", "ban"]);
    assert_eq!([parts(0, "old"), parts(0, "new")], ["-", rule]);
    assert_eq!(parts(1, "old"), rule);
    assert_eq!([parts(2, "target"), parts(2, "new")], ["user x", "banned: noise"]);
    assert_eq!(parts(2, "user"), "ops");
    assert!(parts(2, "address").parse::<SocketAddr>().is_ok());
    assert!(parts(2, "listener").starts_with("http://"));
    let next = page["next"].as_str().unwrap();
    let page = json(&live.call(&format!("GET /api/v1/audit?limit=3&cursor={next}")));
    let items = page["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["new"]), (1, &json!("none")));
    assert!(page["next"].is_null());
}

#[test]
fn failed_logins_are_seen_and_forgotten() {
    let hash = hash_password(b"pass:word");
    let accounts = format!("[[users]]\nname = \"ops\"\npassword_hash = \"{hash}\"\n");
    let live = live_with(move |builder| {
        let accounts = FileAccounts::parse(std::path::Path::new("users.toml"), &accounts);
        builder.authenticator(FileAuthenticator::new(
            accounts.unwrap(),
            AuthenticationConfig::default(),
        ))
    });
    assert_eq!(live.call("GET /api/v1/logins").body, r#"{"items":[]}"#);
    for password in ["1", "2"] {
        let as_ann = basic(&format!("ann:{password}"));
        assert_eq!(live.call_as(&as_ann, "GET /api/v1/logins", "", "").status, 401);
    }
    let all = json(&live.call("GET /api/v1/logins"));
    assert_eq!(all["items"], json!([{"address": "127.0.0.1", "over": "rest", "failures": 2}]));
    let of_user = |name: &str| {
        let found = json(&live.call(&format!("GET /api/v1/logins/127.0.0.1?username={name}")));
        found["items"].clone()
    };
    let counts = |over: &str, failures: u32| json!({"address": "127.0.0.1", "over": over, "failures": failures});
    assert_eq!(of_user("ann"), json!([counts("mqtt", 0), counts("rest", 2)]));
    assert_eq!(of_user("ben"), json!([counts("mqtt", 0), counts("rest", 0)]));
    let forget = |query: &str| live.call(&format!("DELETE /api/v1/logins/127.0.0.1{query}"));
    assert_eq!(forget("?username=ann").body, r#"{"success":true}"#);
    assert_eq!(forget("?username=ann").failure(), failed(404, "no_failed_logins"));
    assert_eq!(of_user("ann"), json!([counts("mqtt", 0), counts("rest", 0)]));
    assert_eq!(json(&live.call("GET /api/v1/logins/127.0.0.1"))["items"], all["items"]);
    assert_eq!(forget("").status, 200);
    assert_eq!(live.call("GET /api/v1/logins/127.0.0.1").body, r#"{"items":[]}"#);
    let answer = live.call("GET /api/v1/logins/host");
    assert_eq!(answer.failure(), failed(400, "invalid_parameter"));
}

#[test]
fn only_administrators_keep_clients_out_and_see_who_did() {
    let live = live_with(|builder| builder.authorizer(policy("[[rules]]\neffect = \"allow\"\n")));
    for (line, body) in [
        ("GET /api/v1/bans", ""),
        ("POST /api/v1/bans", r#"{"user":"x"}"#),
        ("GET /api/v1/bans/user/x", ""),
        ("DELETE /api/v1/bans/user/x", ""),
        ("GET /api/v1/audit", ""),
        ("GET /api/v1/logins", ""),
        ("GET /api/v1/logins/::1", ""),
        ("DELETE /api/v1/logins/::1", ""),
    ] {
        assert_eq!(live.call_with(line, body).failure(), failed(403, "forbidden"), "{line}");
    }
}
