//! `/api/v1/tokens` on a real broker: who has a token may do what its rules allow, and nothing else.

use std::time::{Duration, Instant};

use hearthmq::{
    auth::{Chain, Source, TokenAuthenticator},
    broker::Builder,
};
use serde_json::{Value, json};

use super::{
    callers::Accounts,
    failed,
    live::{Live, json, live_with, policy},
};

fn with_tokens(builder: Builder) -> Builder {
    let tokens = Source::new("tokens", TokenAuthenticator::new());
    builder.authenticator(Chain::new().with(tokens).with(Source::new("own", Accounts::default())))
}

fn live() -> Live {
    live_with(with_tokens)
}

fn create(live: &Live, token: &Value) -> String {
    let made = json(&live.call_with("POST /api/v1/tokens", &token.to_string()));
    let secret = made["token"].as_str().unwrap();
    assert!(secret.starts_with("hmq_t_") && secret.len() == 49, "{secret}");
    format!("Bearer {secret}")
}

fn observing(name: &str) -> Value {
    json!({"name": name, "rules": [
        {"effect": "allow", "actions": ["observe"], "clients": ["car-*"]}]})
}

const STATUS: &str = "GET /client-id/car-1/status";

#[test]
fn a_caller_with_a_token_may_do_what_its_rules_allow_and_nothing_else() {
    let live = live();
    let token = create(&live, &observing("ci"));
    let call = |line: &str| live.call_as(&token, line, "", "");
    assert_eq!(call(STATUS).outcome(), (200, r#"{"online":false}"#));
    // The policy lets everybody connect, which opens this call to everybody else.
    assert_eq!(call("GET /client-id/truck/status").failure(), failed(403, "forbidden"));
    let change = "POST /keep-alive?client-id=car-1&interval=60";
    assert_eq!(call(change).failure(), failed(403, "forbidden"));
    assert_eq!(call("POST /topics/t").failure(), failed(403, "forbidden"));
    assert_eq!(call("GET /api/v1/tokens").failure(), failed(403, "forbidden"));
    let wrong = format!("{}x", &token[..token.len() - 1]);
    assert_eq!(live.call_as(&wrong, STATUS, "", "").failure(), failed(401, "unauthenticated"));
}

#[test]
fn a_token_that_administers_has_its_name_in_the_audit_log() {
    let live = live();
    let rules = json!([{"effect": "allow", "actions": ["administer"]}]);
    let token = create(&live, &json!({"name": "ops.1", "rules": rules}));
    let body = r#"{"user":"x"}"#;
    assert_eq!(live.call_as(&token, "POST /api/v1/bans", "", body).status, 200);
    let audit = live.call("GET /api/v1/audit").body;
    assert!(audit.contains(r#""user":"token:ops.1""#), "{audit}");
    assert!(!audit.contains("hmq_t_"), "{audit}");
}

#[test]
fn a_token_is_listed_without_its_secret_and_with_its_last_use() {
    let live = live();
    let token = create(&live, &observing("b"));
    create(&live, &observing("a"));
    let shown = || json(&live.call("GET /api/v1/tokens/b"));
    assert!(shown()["last_used_at"].is_null());
    live.call_as(&token, STATUS, "", "");
    let found = shown();
    assert!(found["last_used_at"].as_u64() >= found["created_at"].as_u64());
    assert_eq!((&found["by"], found["expires_at"].is_null()), (&json!("ops"), true));
    let page = live.call("GET /api/v1/tokens?limit=1");
    assert!(!page.body.contains("hmq_t_") && !page.body.contains("hash"), "{}", page.body);
    let page = json(&page);
    assert_eq!(page["items"][0]["name"], "a");
    let next = page["next"].as_str().unwrap();
    let page = json(&live.call(&format!("GET /api/v1/tokens?limit=1&cursor={next}")));
    assert_eq!((&page["items"][0]["name"], page["next"].is_null()), (&json!("b"), true));
}

#[test]
fn a_removed_token_is_refused_and_its_name_is_free() {
    let live = live();
    let first = create(&live, &observing("ci"));
    let again = live.call_with("POST /api/v1/tokens", &observing("ci").to_string());
    assert_eq!(again.failure(), failed(409, "token_exists"));
    assert_eq!(live.call("DELETE /api/v1/tokens/ci").body, r#"{"success":true}"#);
    assert_eq!(live.call_as(&first, STATUS, "", "").failure(), failed(401, "unauthenticated"));
    for method in ["GET", "DELETE"] {
        let answer = live.call(&format!("{method} /api/v1/tokens/ci"));
        assert_eq!(answer.failure(), failed(404, "token_not_found"));
    }
    let second = create(&live, &observing("ci"));
    assert_eq!(live.call_as(&second, STATUS, "", "").status, 200);
    assert_eq!(live.call_as(&first, STATUS, "", "").status, 401);
}

#[test]
fn a_token_expires() {
    let live = live();
    let mut token = observing("short");
    token["ttl_seconds"] = json!(2);
    let begun = Instant::now();
    let token = create(&live, &token);
    while live.call_as(&token, STATUS, "", "").status == 200 {
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let shown = json(&live.call("GET /api/v1/tokens/short"));
    let time = shown["expires_at"].as_u64().unwrap() - shown["created_at"].as_u64().unwrap();
    assert_eq!(time, 2_000);
}

#[test]
fn a_mistake_in_a_token_is_named() {
    let live = live();
    let rule = json!({"effect": "allow"});
    for (token, code, named) in [
        (json!({"name": "a/b", "rules": []}), "invalid_token", "name"),
        (json!({"name": "", "rules": []}), "invalid_token", "name"),
        (json!({"name": "a", "rules": {}}), "invalid_token", "rules"),
        (json!({"name": "a", "rules": [{"effect": "?"}]}), "invalid_token", "rule 1"),
        (json!({"name": "a", "rules": vec![&rule; 64]}), "invalid_token", "at most"),
        (json!({"name": "a", "rules": [], "ttl_seconds": 0}), "invalid_ttl", "ttl_seconds"),
        (json!({"name": "a", "rules": [], "secret": "x"}), "invalid_body", "secret"),
    ] {
        let answer = live.call_with("POST /api/v1/tokens", &token.to_string());
        assert_eq!(answer.failure(), failed(400, code), "{token}");
        assert!(answer.body.contains(named), "{token}: {}", answer.body);
    }
    assert_eq!(live.call("GET /api/v1/tokens").body, r#"{"items":[]}"#);
}

#[test]
fn tokens_are_bounded_and_need_an_authenticator_that_takes_them() {
    let live = live_with(|builder| {
        let limits = hearthmq::limits::Limits { tokens_max: 1, ..Default::default() };
        with_tokens(builder).limits(limits)
    });
    create(&live, &observing("a"));
    let second = live.call_with("POST /api/v1/tokens", &observing("b").to_string());
    assert_eq!(second.failure(), failed(409, "too_many"));
    let without = super::live::live();
    for (line, body) in
        [("POST /api/v1/tokens", observing("a").to_string()), ("GET /api/v1/tokens", String::new())]
    {
        assert_eq!(without.call_with(line, &body).failure(), failed(409, "not_supported"));
    }
}

#[test]
fn only_administrators_make_tokens() {
    let live = live_with(|builder| {
        with_tokens(builder).authorizer(policy("[[rules]]\neffect = \"allow\"\n"))
    });
    for (line, body) in [
        ("GET /api/v1/tokens", String::new()),
        ("POST /api/v1/tokens", observing("a").to_string()),
        ("GET /api/v1/tokens/a", String::new()),
        ("DELETE /api/v1/tokens/a", String::new()),
    ] {
        assert_eq!(live.call_with(line, &body).failure(), failed(403, "forbidden"), "{line}");
    }
}
