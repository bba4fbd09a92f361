//! What all answers have in common: the form of errors, and what they say about rates.

use std::num::NonZeroU32;

use hearthmq::http::{ApiOptions, CallRate, MetricsAccess};
use serde_json::{Value, json};

use super::{
    failed,
    world::{basic, hosted_with_certificates, options, rest, rest_with},
};

const PROBLEM: &str = "Accept: application/problem+json";

/// Calls as nobody, or as `user:password`.
fn asked_as(user: Option<&str>, line: &str, header: &str) -> String {
    let authorization =
        user.map_or(String::new(), |it| format!("Authorization: {}\r\n", basic(it)));
    format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\
         {header}\r\n{authorization}\r\n"
    )
}

fn rate(per_sec: u32, burst: u32) -> Option<CallRate> {
    let number = |number| NonZeroU32::new(number).unwrap();
    Some(CallRate { per_sec: number(per_sec), burst: number(burst) })
}

/// Errors of calls, and those that come before a call is known or run.
#[test]
fn each_error_is_a_problem_where_the_caller_accepts_that() {
    let one_call = ApiOptions { account_rate: rate(1, 1), ..options() };
    let hidden = ApiOptions { metrics_access: MetricsAccess::Nobody, ..options() };
    let ops = Some("ops:pass:word");
    for (line, user, title, status, code) in [
        (
            "POST /keep-alive?client-id=offline&interval=60",
            ops,
            "Not Found",
            404,
            "client_not_online",
        ),
        ("POST /keep-alive", ops, "Bad Request", 400, "missing_parameter"),
        ("GET /keep-alive", ops, "Method Not Allowed", 405, "method_not_allowed"),
        ("GET /client-id/secret/status", ops, "Forbidden", 403, "forbidden"),
        ("GET /client-id/a/status", None, "Unauthorized", 401, "unauthenticated"),
        ("GET /client-id/full/status", ops, "Service Unavailable", 503, "unavailable"),
        ("GET /client-id/slow/status", ops, "Gateway Timeout", 504, "timeout"),
        ("GET /client-id/a", ops, "Not Found", 404, "not_found"),
        ("GET /", None, "Not Found", 404, "not_found"),
        ("GET /api/v1/nothing", None, "Not Found", 404, "not_found"),
        ("PUT /api/v1/clients", ops, "Method Not Allowed", 405, "method_not_allowed"),
        ("POST /api/v1/clients/x", ops, "Method Not Allowed", 405, "method_not_allowed"),
        ("POST /health/live", None, "Method Not Allowed", 405, "method_not_allowed"),
        ("POST /health/ready", None, "Method Not Allowed", 405, "method_not_allowed"),
        ("GET /metrics", None, "Not Found", 404, "not_found"),
        ("GET /topics/a", ops, "Method Not Allowed", 405, "method_not_allowed"),
        ("GET /api/v1/events?wait=61", ops, "Bad Request", 400, "invalid_parameter"),
    ] {
        let rest = rest_with(&hidden);
        let plain = rest.send(&asked_as(user, line, "Accept: */*"));
        assert_eq!(plain.failure(), failed(status, code), "{line}");
        let answer = rest.send(&asked_as(user, line, PROBLEM));
        assert_eq!(answer.header("content-type"), "application/problem+json", "{line}");
        let plain: Value = serde_json::from_str(&plain.body).unwrap();
        let message = &plain["message"];
        let expected = json!({
            "title": title, "status": status, "detail": message,
            "success": false, "code": code, "message": message,
        });
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, problem), (status, expected), "{line}");
    }
    let rest = rest_with(&one_call);
    let line = "GET /client-id/a/status";
    assert_eq!(rest.send(&asked_as(ops, line, PROBLEM)).outcome(), (200, r#"{"online":true}"#));
    let answer = rest.send(&asked_as(ops, line, PROBLEM));
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("retry-after"), "1");
}

/// Several headers are one list, and qualities are respected.
#[test]
fn a_caller_that_prefers_json_is_answered_json() {
    let rest = rest();
    for (header, expected) in [
        (
            "Accept: application/json\r\nAccept: application/problem+json",
            "application/problem+json",
        ),
        ("Accept: application/problem+json;q=0.5, application/json", "application/json"),
        ("Accept: application/problem+json;q=0", "application/json"),
        ("X: y", "application/json"),
    ] {
        let answer = rest.send(&asked_as(Some("ops:pass:word"), "POST /keep-alive", header));
        assert_eq!(answer.header("content-type"), expected, "{header}");
    }
}

#[test]
fn an_answer_says_what_is_left_of_the_rate_of_the_account() {
    let rest = rest_with(&ApiOptions { account_rate: rate(2, 5), ..options() });
    let line = "GET /client-id/a/status";
    let fields = |line: &str| {
        let answer = rest.call(line);
        let [policy, limit] =
            ["ratelimit-policy", "ratelimit"].map(|name| answer.header(name).to_owned());
        assert_eq!(policy, r#""account";q=5;w=3"#, "five calls in the time that two a second take");
        (answer.status, limit)
    };
    assert_eq!(fields(line), (200, r#""account";r=4;t=1"#.into()));
    // An error counts too, and the beginning of an answer that goes on.
    assert_eq!(fields("GET /client-id/slow/status"), (504, r#""account";r=3;t=1"#.into()));
    let rest = rest_with(&ApiOptions { account_rate: rate(1, 2), ..options() });
    let limits = [(); 3].map(|()| {
        let answer = rest.call("GET /client-id/secret/status");
        (answer.status, answer.header("ratelimit").to_owned())
    });
    let limit = |left: u32| format!(r#""account";r={left};t={}"#, 2 - left);
    assert_eq!(limits, [(403, limit(1)), (403, limit(0)), (429, limit(0))]);
}

#[test]
fn an_answer_to_a_stranger_or_without_a_limit_says_nothing_of_rates() {
    let rest = rest_with(&ApiOptions { account_rate: rate(1, 9), ..options() });
    for line in ["GET /client-id/a/status", "GET /nothing", "GET /health/live"] {
        assert_eq!(rest.call_as(None, line).header("ratelimit"), "", "{line}");
    }
    let rest = rest_with(&options());
    assert_eq!(rest.call("GET /client-id/a/status").header("ratelimit-policy"), "");
}

#[test]
fn an_application_that_mounts_the_calls_has_the_same_forms() {
    let rest = hosted_with_certificates();
    let request = asked_as(None, "GET /nothing", PROBLEM);
    assert_eq!(rest.send(&request).header("content-type"), "application/problem+json");
}
