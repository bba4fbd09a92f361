//! Calls with an `Idempotency-Key`, and what a repeated one is answered.

use std::{io::Write as _, time::Duration};

use hearthmq::http::ApiOptions;
use hearthmq_test::mqtt::tcp;

use super::{
    failed,
    world::{Answer, Rest, basic, options, rest, rest_with},
};

fn call(rest: &Rest, line: &str, key: &str, body: &str) -> Answer {
    rest.call_with(line, &format!("Idempotency-Key: {key}"), body)
}

fn is_repeated(answer: &Answer) -> bool {
    answer.header("idempotent-replayed") == "true"
}

#[test]
fn a_repeated_call_gets_the_answer_of_the_first() {
    let rest = rest();
    for (line, body) in [
        ("POST /topics/a?qos=0", "x"),
        ("POST /api/v1/publish", r#"[{"topic":"a"}]"#),
        ("POST /api/v1/request", r#"{"topic":"a","correlation_data":"cd"}"#),
        ("POST /api/v1/keep-alive", r#"[{"client_id":"a","interval":60}]"#),
        ("POST /api/v1/clients/kick", r#"{"client_ids":["a"]}"#),
        ("POST /api/v1/clients/a/subscribe", r#"{"subscriptions":[{"filter":"f"}]}"#),
        ("POST /api/v1/clients/a/unsubscribe", r#"{"filters":["f"]}"#),
    ] {
        let [first, again] = [(); 2].map(|()| call(&rest, line, &format!("\"{line}\""), body));
        assert_eq!(first.status, 200, "{line}: {}", first.body);
        assert_eq!(first.outcome(), again.outcome(), "{line}");
        assert_eq!(first.header("x-message-id"), again.header("x-message-id"));
        assert_eq!([&first, &again].map(is_repeated), [false, true], "{line}");
        assert_eq!(rest.asked().len(), 1, "{line}");
        let other = call(&rest, line, &format!("other {line}"), body);
        assert_eq!((other.status, is_repeated(&other)), (200, false), "{line}");
        assert_eq!(rest.asked().len(), 1, "{line}");
        // Without a key, each call is a call of its own.
        for _ in 0..2 {
            rest.call_with(line, "", body);
        }
        assert_eq!(rest.asked().len(), 2, "{line}");
    }
}

#[test]
fn another_call_needs_another_key() {
    let rest = rest();
    assert_eq!(call(&rest, "POST /topics/a", "k", "x").status, 200);
    for (line, body) in [
        ("POST /topics/a", "y"),
        ("POST /topics/b", "x"),
        ("POST /topics/a?qos=0", "x"),
        ("POST /api/v1/publish", "[]"),
    ] {
        let answer = call(&rest, line, "k", body);
        assert_eq!(answer.failure(), failed(422, "idempotency_key_reused"), "{line}");
    }
    assert_eq!(call(&rest, "POST /topics/a", "\"k\"", "x").status, 200, "the same key");
    assert_eq!(rest.asked().len(), 1);
    for key in ["", "\"\"", "a\"b", "a\\b", "ä", &"x".repeat(256), "k\r\nIdempotency-Key: l"] {
        let answer = call(&rest, "POST /topics/a", key, "x");
        assert_eq!(answer.failure(), failed(400, "invalid_idempotency_key"), "{key}");
    }
    assert_eq!(call(&rest, "POST /topics/a", &"x".repeat(255), "x").status, 200);
}

/// An account cannot see what another one was answered.
#[test]
fn each_account_has_keys_of_its_own() {
    let rest = rest();
    let call_as = |user: &str| {
        let authorization = basic(user);
        rest.send(&format!(
            "POST /api/v1/clients/kick HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\nIdempotency-Key: k\r\n\
             Authorization: {authorization}\r\n\r\n{{}}"
        ))
    };
    let list = r#"{"client_ids":[]}"#;
    assert_eq!(call(&rest, "POST /api/v1/clients/kick", "k", list).status, 200);
    let own = call_as("ops:pass:word");
    assert_eq!(own.failure(), failed(422, "idempotency_key_reused"));
    assert_ne!(call_as("öps:pass:word").status, 422);
}

/// It may be repeated under its key.
#[test]
fn a_call_that_has_changed_nothing_is_not_kept() {
    let rest = rest();
    for topic in ["full", "large", "deep"] {
        let line = format!("POST /topics/{topic}");
        let [first, again] = [(); 2].map(|()| call(&rest, &line, topic, "x"));
        assert_eq!(first.outcome(), again.outcome());
        assert!(!is_repeated(&again));
        assert_eq!(rest.asked().len(), 2, "{topic}");
    }
}

/// Nobody knows whether it was published.
#[test]
fn a_call_without_an_answer_in_time_is_not_made_again() {
    let rest = rest();
    for _ in 0..2 {
        let answer = call(&rest, "POST /topics/stuck", "k", "x");
        assert_eq!(answer.failure(), failed(504, "timeout"));
    }
    let late = "POST /topics/late?wait=delivered&timeout_ms=7";
    let [first, again] = [(); 2].map(|()| call(&rest, late, "late", "x"));
    assert_eq!((first.status, first.outcome()), (504, again.outcome()));
    assert_eq!(rest.asked().len(), 2);
}

/// The caller will repeat it, because it has no answer.
#[test]
fn a_call_goes_on_when_its_caller_leaves() {
    let rest = rest();
    let request = rest.request("POST /topics/stuck", "Idempotency-Key: k", "x");
    let mut stream = tcp(rest.address());
    stream.write_all(request.as_bytes()).unwrap();
    while rest.asked_so_far() == 0 {
        std::thread::yield_now();
    }
    drop(stream);
    let answer = loop {
        let answer = call(&rest, "POST /topics/stuck", "k", "x");
        if answer.status != 409 {
            break answer;
        }
        assert_eq!(answer.failure(), failed(409, "idempotency_key_in_use"));
    };
    assert_eq!(answer.failure(), failed(504, "timeout"));
    assert_eq!(rest.asked().len(), 1);
}

#[test]
fn a_call_that_has_not_ended_is_409() {
    let rest = rest_with(&ApiOptions { call_timeout: Duration::from_secs(3_600), ..options() });
    let request = rest.request("POST /topics/stuck", "Idempotency-Key: k", "x");
    let mut stream = tcp(rest.address());
    stream.write_all(request.as_bytes()).unwrap();
    while rest.asked_so_far() == 0 {
        std::thread::yield_now();
    }
    let answer = call(&rest, "POST /topics/stuck", "k", "x");
    assert_eq!(answer.failure(), failed(409, "idempotency_key_in_use"));
}

#[test]
fn a_long_answer_is_not_kept() {
    let rest = rest_with(&ApiOptions { call_timeout: Duration::from_secs(60), ..options() });
    let list = format!("[{}]", vec![r#"{"topic":"a"}"#; 400].join(","));
    let selector = r#"{"clients":"car-*","interval":60}"#;
    for (line, body) in [("POST /api/v1/publish", &*list), ("POST /api/v1/keep-alive", selector)] {
        assert_eq!(call(&rest, line, line, body).status, 200, "{line}");
        rest.asked();
        let again = call(&rest, line, line, body);
        assert_eq!(again.failure(), failed(409, "answer_not_kept"), "{line}");
        assert!(rest.asked().is_empty(), "{line}");
    }
}
