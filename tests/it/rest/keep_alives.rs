//! `/api/v1/keep-alive`: the Keep Alive of several clients.

use super::{
    failed,
    world::{Rest, rest},
};

const OPS: &str = "ops:pass:word";
const KEEP_ALIVES: &str = "POST /api/v1/keep-alive";

/// Returns the lines of the answer to a call with a selector, without the sizes of its chunks.
fn lines(rest: &Rest, body: &str) -> Vec<String> {
    let answer = rest.post_json(OPS, KEEP_ALIVES, body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    answer.body.lines().filter(|line| line.starts_with('{')).map(str::to_owned).collect()
}

#[test]
fn each_item_of_a_list_has_a_result_in_its_place() {
    let rest = rest();
    let body = r#"[{"client_id":"a","interval":120},
        {"client_id":"b","interval":30,"dry_run":true},
        {"client_id":"secret","interval":60},{"client_id":"offline","interval":60},
        {"client_id":"keep-alive-off","interval":60},{"client_id":"a","interval":29},
        {"client_id":"a","interval":1201},{"client_id":"a","interval":"60"},{"client_id":"a"},
        {"client_id":7,"interval":60},{"interval":60},{"client_id":"a\u0000","interval":60},
        {"client_id":"a","interval":60,"secs":1},7,[[]],{"client_id":"ü","interval":1200}]"#;
    let answer = rest.post_json(OPS, KEEP_ALIVES, body);
    let results = [
        r#"{"client_id":"a","success":true,"node":"here","keepalive":120}"#,
        r#"{"client_id":"b","success":true,"node":"here","keepalive":30}"#,
        r#"{"client_id":"secret","success":false,"code":"forbidden"}"#,
        r#"{"client_id":"offline","success":false,"code":"client_not_online"}"#,
        r#"{"client_id":"keep-alive-off","success":false,"code":"keep_alive_disabled"}"#,
        r#"{"client_id":"a","success":false,"code":"invalid_interval"}"#,
        r#"{"client_id":"a","success":false,"code":"invalid_interval"}"#,
        r#"{"client_id":"a","success":false,"code":"invalid_interval"}"#,
        r#"{"client_id":"a","success":false,"code":"invalid_interval"}"#,
        r#"{"client_id":7,"success":false,"code":"invalid_body"}"#,
        r#"{"client_id":null,"success":false,"code":"invalid_body"}"#,
        r#"{"client_id":"a\u0000","success":false,"code":"invalid_client_id"}"#,
        r#"{"client_id":null,"success":false,"code":"invalid_body"}"#,
        r#"{"client_id":null,"success":false,"code":"invalid_body"}"#,
        r#"{"client_id":null,"success":false,"code":"invalid_body"}"#,
        r#"{"client_id":"ü","success":true,"node":"here","keepalive":1200}"#,
    ];
    let expected = format!(r#"{{"results":[{}]}}"#, results.join(","));
    assert_eq!(answer.outcome(), (200, &*expected));
    let asked = ["a 120 by ops", "b 30 by ops dry", "offline 60 by ops"];
    let asked = asked.into_iter().chain(["keep-alive-off 60 by ops", "ü 1200 by ops"]);
    assert_eq!(rest.asked(), asked.collect::<Vec<_>>());
    assert_eq!(rest.post_json(OPS, KEEP_ALIVES, " []").outcome(), (200, r#"{"results":[]}"#));
}

#[test]
fn a_client_that_does_not_answer_costs_its_portion_only() {
    let rest = rest();
    let many = r#"{"client_id":"a","interval":60},"#.repeat(500);
    let body = format!(r#"[{many}{{"client_id":"stuck","interval":60}}]"#);
    let answer = rest.post_json(OPS, KEEP_ALIVES, &body);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body.matches(r#""success":true"#).count(), 500);
    assert!(answer.body.ends_with(r#"{"client_id":"stuck","success":false,"code":"timeout"}]}"#));
}

#[test]
fn a_body_that_is_neither_list_nor_selector_is_refused() {
    let rest = rest();
    for (body, status, code) in [
        ("", 400, "invalid_body"),
        ("7", 400, "invalid_body"),
        ("[7", 400, "invalid_body"),
        ("{}", 400, "invalid_body"),
        (r#"{"interval":60}"#, 400, "invalid_body"),
        (r#"{"clients":"a","interval":60,"x":1}"#, 400, "invalid_body"),
        (r#"{"clients":"a","interval":20}"#, 400, "invalid_interval"),
        (r#"{"clients":"a"}"#, 400, "invalid_interval"),
        (
            r#"{"clients":"*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*","interval":60}"#,
            400,
            "invalid_pattern",
        ),
        (&format!("[{}7]", "7,".repeat(10_000)), 413, "too_many_items"),
    ] {
        let answer = rest.post_json(OPS, KEEP_ALIVES, body);
        assert_eq!(answer.failure(), failed(status, code), "{body:.80}");
    }
    assert!(rest.asked().is_empty());
    let answer = rest.call("DELETE /api/v1/keep-alive");
    assert_eq!(
        (answer.failure(), answer.header("allow")),
        (failed(405, "method_not_allowed"), "POST")
    );
    assert_eq!(
        rest.post_json("ops:x", KEEP_ALIVES, "[]").failure(),
        failed(401, "unauthenticated")
    );
    assert_eq!(rest.call(KEEP_ALIVES).failure(), failed(415, "unsupported_media_type"));
}

#[test]
fn a_selector_is_answered_with_a_line_for_each_client_that_the_caller_may_control() {
    let rest = rest();
    let all = [
        r#"{"client_id":"car-1","success":true,"node":"here","keepalive":300}"#,
        r#"{"client_id":"keep-alive-off","success":false,"code":"keep_alive_disabled"}"#,
        r#"{"client_id":"car-2","success":true,"node":"here","keepalive":300}"#,
    ];
    assert_eq!(lines(&rest, r#"{"username":"fleet","interval":300}"#), all);
    assert_eq!(rest.asked(), ["car-1 300 by ops", "keep-alive-off 300 by ops", "car-2 300 by ops"]);
    let cars = [all[0], all[2]];
    assert_eq!(lines(&rest, r#"{"clients":"car-*","interval":300,"dry_run":true}"#), cars);
    assert_eq!(rest.asked(), ["car-1 300 by ops dry", "car-2 300 by ops dry"]);
    let none = r#"{"clients":"car-*","username":"other","interval":300}"#;
    assert!(lines(&rest, none).is_empty());
}

#[test]
fn a_walk_that_fails_on_the_way_says_so_in_its_last_line() {
    let rest = rest();
    let lines = lines(&rest, r#"{"clients":"broken*","interval":300}"#);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with(r#"{"success":false,"code":"unavailable","message":""#));
}

#[test]
fn sticky_values_and_times_to_live_are_items_too() {
    let rest = rest();
    let body = r#"[{"client_id":"a","interval":120,"sticky":true,"ttl_seconds":31536000},
        {"client_id":"old","interval":30,"sticky":true},{"client_id":"old","interval":90,"sticky":true},
        {"client_id":"a","interval":120,"ttl_seconds":0},{"client_id":"a","interval":120,"sticky":1},
        {"client_id":"a","interval":120,"ttl_seconds":31536001}]"#;
    let answer = rest.post_json(OPS, KEEP_ALIVES, body);
    let results = [
        r#"{"client_id":"a","success":true,"node":"here","keepalive":120}"#,
        r#"{"client_id":"old","success":true,"node":"here","keepalive":30,"not_told":true,"warning":"The value is below the client's own Keep Alive, and the client cannot be told: it may be disconnected at every interval."}"#,
        r#"{"client_id":"old","success":true,"node":"here","keepalive":90,"not_told":true}"#,
        r#"{"client_id":"a","success":false,"code":"invalid_ttl"}"#,
        r#"{"client_id":null,"success":false,"code":"invalid_body"}"#,
        r#"{"client_id":"a","success":false,"code":"invalid_ttl"}"#,
    ];
    let expected = format!(r#"{{"results":[{}]}}"#, results.join(","));
    assert_eq!(answer.outcome(), (200, &*expected));
    let asked =
        ["a 120 by ops sticky for 31536000", "old 30 by ops sticky", "old 90 by ops sticky"];
    assert_eq!(rest.asked(), asked);
}

/// `ops` may administer.
#[test]
fn a_caller_that_may_not_administer_has_a_share_of_the_sticky_values() {
    let rest = rest();
    let body =
        r#"[{"client_id":"a","interval":120,"sticky":true},{"client_id":"a","interval":120}]"#;
    let answer = rest.post_json("öps:pass:word", KEEP_ALIVES, body);
    assert_eq!(answer.status, 200);
    assert_eq!(rest.asked(), ["a 120 by öps sticky within its share", "a 120 by öps"]);
    let settings = r#"{"message_rate":10,"sticky":true}"#;
    let answer = rest.post_json("öps:pass:word", "PATCH /api/v1/clients/a", settings);
    assert_eq!(answer.status, 200);
    assert_eq!(rest.asked(), ["a Some(Some(10)) sticky within its share by öps"]);
}

#[test]
fn a_pattern_removes_the_sticky_values_that_the_caller_may_control() {
    let rest = rest();
    let overrides = |query: &str| rest.call(&format!("DELETE /api/v1/keep-alive/overrides{query}"));
    assert_eq!(overrides("?clients=id-1*").outcome(), (200, r#"{"success":true,"removed":10}"#));
    let asked = rest.asked();
    assert_eq!((&*asked[0], asked.len()), ("remove id-10 by ops", 10));
    assert_eq!(overrides("?clients=id*").outcome(), (200, r#"{"success":true,"removed":31}"#));
    assert_eq!(overrides("?clients=full").failure(), failed(503, "unavailable"));
    // All but `secret` and `full`, where the next call begins.
    let stopped = r#"{"success":true,"removed":31,"next":"AQ"}"#;
    assert_eq!(overrides("?clients=*").outcome(), (200, stopped));
    assert_eq!(overrides("?clients=*&cursor=AQ").outcome(), (200, stopped));
    assert_eq!(overrides("?clients=none*").outcome(), (200, r#"{"success":true,"removed":0}"#));
    assert_eq!(overrides("").failure(), failed(400, "missing_parameter"));
    let pattern = format!("?clients={}", "*a".repeat(17));
    assert_eq!(overrides(&pattern).failure(), failed(400, "invalid_pattern"));
    assert_eq!(overrides("?clients=*&cursor=x").failure(), failed(400, "invalid_parameter"));
    let settings = rest.call("DELETE /api/v1/settings?clients=*");
    assert_eq!(settings.outcome(), (200, r#"{"success":true,"removed":2}"#));
}

#[test]
fn an_override_is_looked_at_and_removed() {
    let rest = rest();
    let answer = rest.call("GET /api/v1/keep-alive/overrides/a%2Fb");
    let expected = r#"{"client_id":"a/b","interval":300,"by":"ops","set_at":7,"expires_at":9}"#;
    assert_eq!(answer.outcome(), (200, expected));
    let answer = rest.call("DELETE /api/v1/keep-alive/overrides/a%2Fb");
    assert_eq!(answer.outcome(), (200, r#"{"success":true}"#));
    assert_eq!(rest.asked(), ["remove a/b by ops"]);
    for method in ["GET", "DELETE"] {
        for (id, status, code) in [
            ("nobody", 404, "override_not_found"),
            ("secret", 403, "forbidden"),
            ("%FF", 400, "invalid_client_id"),
            ("a?x=1", 400, "unknown_parameter"),
        ] {
            let answer = rest.call(&format!("{method} /api/v1/keep-alive/overrides/{id}"));
            assert_eq!(answer.failure(), failed(status, code), "{method} {id}");
        }
    }
    let answer = rest.call("POST /api/v1/keep-alive/overrides/a");
    assert_eq!(answer.header("allow"), "GET, HEAD, DELETE");
}

#[test]
fn a_list_of_overrides_goes_on_at_its_cursor() {
    let rest = rest();
    let page = |query: &str| {
        let answer = rest.call(&format!("GET /api/v1/keep-alive/overrides?{query}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let page: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let items = page["items"].as_array().unwrap().clone();
        let ids: Vec<_> =
            items.iter().map(|it| it["client_id"].as_str().unwrap().to_owned()).collect();
        (ids, page.get("next").map(|next| next.as_str().unwrap().to_owned()))
    };
    let (mut all, mut cursor) = page("limit=7");
    assert_eq!(all.len(), 7);
    while let Some(next) = cursor {
        let (more, next) = page(&format!("limit=8&cursor={next}"));
        assert!(!more.is_empty());
        all.extend(more);
        cursor = next;
    }
    let ids = (0..=30).map(|number| format!("id-{number:02}"));
    let expected: Vec<_> = ["full".to_owned()].into_iter().chain(ids).collect();
    assert_eq!(all, expected);
    // The last visible one fills the page, and what follows may not be seen.
    assert_eq!(page("limit=32").1, None);
    assert_eq!(page("").0.len(), 32);
    for query in ["limit=0", "limit=1001", "cursor=%25", "cursor=_w"] {
        let answer = rest.call(&format!("GET /api/v1/keep-alive/overrides?{query}"));
        assert_eq!(answer.failure(), failed(400, "invalid_parameter"), "{query}");
    }
}
