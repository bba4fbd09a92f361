//! The login of a person on a page: the cookie, what it is good for, and what ends it; who the caller
//! is; and the files of the console.

use std::{
    io::{Read as _, Write as _},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use actix_web::{App, HttpServer};
use hearthmq::{
    auth::{ClientCertificate, Standing},
    http::{ApiOptions, CallRate, routes},
};
use hearthmq_test::mqtt::tcp;

use super::{
    failed,
    world::{Answer, Rest, basic, options, rest, rest_with, serving},
};

const OPS: &str = r#"{"username":"ops","password":"pass:word"}"#;
const ME: &str = "GET /api/v1/me";
const OF_PAGE: &str = "X-HearthMQ-Console: active";

/// Sends a call with these headers, and without `Authorization`.
fn call(rest: &Rest, line: &str, headers: &[&str], body: &str) -> Answer {
    let host = if headers.iter().any(|line| line.starts_with("Host:")) {
        ""
    } else {
        "Host: localhost\r\n"
    };
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    rest.send(&format!(
        "{line} HTTP/1.1\r\n{host}Connection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    ))
}

fn log_in(rest: &Rest, body: &str) -> Answer {
    call(rest, "POST /api/v1/session", &[OF_PAGE], body)
}

/// Logs in as `ops`; returns the header with the cookie.
fn cookie(rest: &Rest) -> String {
    cookie_of(&log_in(rest, OPS))
}

fn cookie_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let pair = answer.header("set-cookie").split(';').next().unwrap();
    format!("Cookie: other=1; {pair}")
}

#[test]
fn a_login_gives_a_cookie_with_which_the_page_makes_calls() {
    let rest = rest();
    let answer = log_in(&rest, OPS);
    assert!(
        answer.body.starts_with(r#"{"login":"open","username":"ops","ends_at":"#),
        "{}",
        answer.body
    );
    let set = answer.header("set-cookie");
    assert!(
        set.starts_with("hearthmq=") && set.ends_with("; Path=/; HttpOnly; SameSite=Strict"),
        "{set}"
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    let cookie = cookie_of(&answer);
    let answer = call(&rest, ME, &[&cookie, OF_PAGE], "");
    assert!(answer.body.contains(r#""username":"ops""#), "{}", answer.body);
    let line = "POST /keep-alive?client-id=demo&interval=120";
    let own = "Origin: http://localhost\r\nSec-Fetch-Site: same-origin";
    assert_eq!(call(&rest, line, &[&cookie, OF_PAGE, own], "").status, 200);
    assert_eq!(rest.asked(), ["demo 120 by ops"]);
    let shown = call(&rest, "GET /api/v1/session", &[&cookie, OF_PAGE], "");
    assert!(shown.body.contains(r#""username":"ops""#), "{}", shown.body);
}

/// Another site makes a browser send the cookie, but not the header.
#[test]
fn a_cookie_counts_with_the_header_of_the_page_alone() {
    let rest = rest();
    let cookie = cookie(&rest);
    let answer = call(&rest, ME, &[&cookie], "");
    assert_eq!(answer.failure(), failed(401, "unauthenticated"));
    assert!(answer.header("www-authenticate").starts_with("Basic"));
    for site in
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: http://evil.example"]
    {
        let answer = call(&rest, ME, &[&cookie, OF_PAGE, site], "");
        assert_eq!(answer.failure(), failed(401, "unauthenticated"), "{site}");
        let answer = call(&rest, "DELETE /api/v1/session", &[&cookie, OF_PAGE, site], "");
        assert_eq!(answer.failure(), failed(403, "cross_site"), "{site}");
    }
    let shown = call(&rest, "GET /api/v1/session", &[&cookie], "");
    assert_eq!(shown.outcome(), (200, r#"{"login":"open"}"#));
}

/// A browser that is challenged shows a form of its own.
#[test]
fn the_page_is_refused_without_a_challenge() {
    let rest = rest();
    let wrong = "Cookie: hearthmq=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for headers in [&[OF_PAGE][..], &[OF_PAGE, wrong], &[OF_PAGE, "Cookie: hearthmq=x"]] {
        for line in [ME, "DELETE /api/v1/session", "GET /client-id/demo/status"] {
            let answer = call(&rest, line, headers, "");
            assert_eq!(answer.failure(), failed(401, "unauthenticated"), "{line}");
            assert_eq!(answer.header("www-authenticate"), "", "{line}");
        }
        let shown = call(&rest, "GET /api/v1/session", headers, "");
        assert_eq!(shown.outcome(), (200, r#"{"login":"open"}"#));
    }
    let answer = log_in(&rest, r#"{"username":"ops","password":"wrong"}"#);
    assert_eq!(answer.failure(), failed(401, "unauthenticated"));
    assert_eq!(answer.header("www-authenticate"), "");
    assert_eq!(answer.header("set-cookie"), "");
}

#[test]
fn a_login_is_refused_as_every_login_is() {
    let rest = rest();
    for (user, status, code) in [
        ("throttled", 429, "too_many_requests"),
        ("wrong-way", 403, "forbidden"),
        ("unknowable", 503, "unavailable"),
        ("expired", 401, "unauthenticated"),
        ("unloadable", 503, "unavailable"),
        ("goes-on", 200, ""),
    ] {
        let answer = log_in(&rest, &format!(r#"{{"username":"{user}","password":"x"}}"#));
        match status {
            200 => assert!(answer.body.contains(r#""username":"first""#), "{}", answer.body),
            _ => assert_eq!(answer.failure(), failed(status, code), "{user}"),
        }
    }
    for (body, status, code) in [
        ("", 400, "invalid_body"),
        ("null", 400, "invalid_body"),
        (r#"["ops","pass:word"]"#, 400, "invalid_body"),
        (r#"{"username":"ops"}"#, 400, "invalid_body"),
        (r#"{"username":null,"password":"pass:word"}"#, 400, "invalid_body"),
        (r#"{"username":"ops","password":"pass:word","remember":true}"#, 400, "invalid_body"),
        (
            &format!(r#"{{"username":"ops","password":"{}"}}"#, "x".repeat(9_000)),
            413,
            "body_too_large",
        ),
    ] {
        assert_eq!(log_in(&rest, body).failure(), failed(status, code), "{body:.60}");
    }
    let site = "Sec-Fetch-Site: cross-site";
    let answer = call(&rest, "POST /api/v1/session", &[OF_PAGE, site], OPS);
    assert_eq!(
        answer.failure(),
        failed(403, "cross_site"),
        "a login that its user does not know of"
    );
    let text = OPS.len();
    let answer = rest.send(&format!(
        "POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: \
         text/plain\r\nContent-Length: {text}\r\n\r\n{OPS}"
    ));
    assert_eq!(answer.failure(), failed(415, "unsupported_media_type"), "a form of another site");
}

/// The same connection logs in twice: its first login proves nothing about the second.
#[test]
fn a_login_by_form_is_no_proof_for_the_next_one() {
    let rest = rest();
    let form = r#"{"username":"goes-on","password":"x"}"#;
    let mut stream = tcp(rest.address());
    let request = |end: &str| {
        format!(
            "POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\n{end}Content-Type: application/json\
             \r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        )
    };
    let both = request("") + &request("Connection: close\r\n");
    stream.write_all(both.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches(r#""username":"first""#).count(), 2, "{text}");
}

#[test]
fn a_logout_ends_the_session_at_once() {
    let rest = rest();
    let (cookie, other) = (cookie(&rest), cookie(&rest));
    let answer = call(&rest, "DELETE /api/v1/session", &[&cookie, OF_PAGE], "");
    assert_eq!(answer.outcome(), (200, r#"{"success":true}"#));
    let set = answer.header("set-cookie");
    assert!(set.starts_with("hearthmq=;") && set.ends_with("; Max-Age=0"), "{set}");
    assert_eq!(call(&rest, ME, &[&cookie, OF_PAGE], "").failure(), failed(401, "unauthenticated"));
    assert_eq!(call(&rest, ME, &[&other, OF_PAGE], "").status, 200);
    let basic = format!("Authorization: {}", basic("ops:pass:word"));
    let answer = call(&rest, "DELETE /api/v1/session", &[&basic, OF_PAGE], "");
    assert_eq!(answer.failure(), failed(401, "unauthenticated"), "there is no session");
    // A login in the same browser replaces the session before.
    let answer = call(&rest, "POST /api/v1/session", &[&other, OF_PAGE], OPS);
    assert_eq!(call(&rest, ME, &[&cookie_of(&answer), OF_PAGE], "").status, 200);
    assert_eq!(call(&rest, ME, &[&other, OF_PAGE], "").status, 401);
}

#[test]
fn a_session_ends_when_its_account_is_changed_or_removed() {
    for standing in [Standing::Good, Standing::Changed, Standing::Suspended, Standing::Gone] {
        let rest = rest();
        let cookie = cookie(&rest);
        rest.accounts.change(standing);
        let status = call(&rest, ME, &[&cookie, OF_PAGE], "").status;
        let is_good = standing == Standing::Good;
        assert_eq!(status, if is_good { 200 } else { 401 }, "{standing:?}");
        rest.accounts.change(Standing::Good);
        let status = call(&rest, ME, &[&cookie, OF_PAGE], "").status;
        assert_eq!(status, if is_good { 200 } else { 401 }, "{standing:?}: it does not come back");
    }
}

#[test]
fn a_session_ends_when_nobody_uses_it() {
    let rest = rest();
    let cookie = cookie(&rest);
    rest.api.set_options(&ApiOptions { session_idle: Duration::from_nanos(1), ..options() });
    assert_eq!(call(&rest, ME, &[&cookie, OF_PAGE], "").status, 401);
    rest.api.set_options(&options());
    assert_eq!(call(&rest, ME, &[&cookie, OF_PAGE], "").status, 401, "it has ended");
}

#[test]
fn a_feed_ends_with_the_session_of_its_page() {
    let rest = rest();
    let cookie = cookie(&rest);
    let mut stream = tcp(rest.address());
    let request = format!(
        "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\
         {cookie}\r\n{OF_PAGE}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    while !text.ends_with(": still here\n\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    assert_eq!(call(&rest, "DELETE /api/v1/session", &[&cookie, OF_PAGE], "").status, 200);
    rest.let_feed_go_on();
    let mut end = [0; 5];
    stream.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"0\r\n\r\n", "nothing more is told");
}

#[test]
fn there_is_no_login_where_a_password_would_be_readable() {
    let rest = rest();
    let elsewhere = "Host: broker.example:8080";
    let shown = call(&rest, "GET /api/v1/session", &[OF_PAGE, elsewhere], "");
    assert_eq!(shown.outcome(), (200, r#"{"login":"insecure"}"#));
    let answer = call(&rest, "POST /api/v1/session", &[OF_PAGE, elsewhere], OPS);
    assert_eq!(answer.failure(), failed(403, "insecure_connection"));
    // The cookie of the loopback interface is none elsewhere.
    let cookie = cookie(&rest);
    let answer = call(&rest, ME, &[&cookie, OF_PAGE, "Host: broker.example"], "");
    assert_eq!(answer.failure(), failed(401, "unauthenticated"));
}

#[test]
fn the_cookie_of_https_is_for_https_and_this_host_alone() {
    let proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let rest = rest_with(&ApiOptions { proxies, ..options() });
    let of_proxy = ["Host: broker.example", "X-Forwarded-For: 192.0.2.1"];
    let [host, from] = of_proxy;
    let answer = call(&rest, "POST /api/v1/session", &[OF_PAGE, host, from], OPS);
    assert_eq!(answer.failure(), failed(403, "insecure_connection"));
    let https = "X-Forwarded-Proto: https";
    let answer = call(&rest, "POST /api/v1/session", &[OF_PAGE, host, from, https], OPS);
    let set = answer.header("set-cookie");
    let end = "; Path=/; HttpOnly; SameSite=Strict; Secure";
    assert!(set.starts_with("__Host-hearthmq=") && set.ends_with(end), "{set}");
    let cookie = cookie_of(&answer);
    assert_eq!(call(&rest, ME, &[&cookie, OF_PAGE, host, from, https], "").status, 200);
    assert_eq!(call(&rest, ME, &[&cookie, OF_PAGE, host, from], "").status, 401);
    // What the browser has sent stands before what the proxy has appended, and no header contradicts.
    for lines in [
        &["X-Forwarded-Proto: https, http"][..],
        &["Forwarded: proto=https, for=192.0.2.1;proto=http"],
        &["X-Forwarded-Proto: https", "Forwarded: for=192.0.2.1;proto=http"],
    ] {
        let headers = [&[OF_PAGE, host, from], lines].concat();
        let answer = call(&rest, "POST /api/v1/session", &headers, OPS);
        assert_eq!(answer.failure(), failed(403, "insecure_connection"), "{lines:?}");
    }
}

#[test]
fn logins_on_pages_can_be_turned_off() {
    let rest = rest();
    let cookie = cookie(&rest);
    rest.api.set_options(&ApiOptions { session_idle: Duration::ZERO, ..options() });
    assert_eq!(log_in(&rest, OPS).failure(), failed(403, "sessions_off"));
    let shown = call(&rest, "GET /api/v1/session", &[&cookie, OF_PAGE], "");
    assert_eq!(shown.outcome(), (200, r#"{"login":"off"}"#));
    assert_eq!(call(&rest, ME, &[&cookie, OF_PAGE], "").status, 401);
}

#[test]
fn calls_of_a_page_count_for_its_account_and_its_address() {
    let rate = CallRate { per_sec: NonZeroU32::MIN, burst: NonZeroU32::new(2).unwrap() };
    for options in [
        ApiOptions { account_rate: Some(rate), ..options() },
        ApiOptions { address_rate: Some(rate), ..options() },
    ] {
        let rest = rest_with(&options);
        let cookie = cookie(&rest);
        assert_eq!(call(&rest, ME, &[&cookie, OF_PAGE], "").status, 200);
        let answer = call(&rest, ME, &[&cookie, OF_PAGE], "");
        assert_eq!(answer.failure(), failed(429, "too_many_requests"));
    }
}

/// The double takes every certificate for a login.
#[test]
fn a_session_of_a_certificate_needs_that_certificate() {
    let has_certificate = Arc::new(AtomicBool::new(true));
    let shown = Arc::clone(&has_certificate);
    let rest = serving(move |api, listener| {
        let server = HttpServer::new(move || App::new().configure(routes(api.clone())));
        let server = server.on_connect(move |_, data| {
            if shown.load(Relaxed) {
                let common_name = "device-7".into();
                data.insert(ClientCertificate { common_name, serial_number: "07".into() });
            }
        });
        let server = server.workers(1).disable_signals().listen(listener);
        actix_web::rt::spawn(server.unwrap().run());
    });
    let answer = log_in(&rest, OPS);
    assert_eq!(answer.failure(), failed(401, "unauthenticated"), "it is another user's");
    let of_device = cookie_of(&log_in(&rest, r#"{"username":"device-7","password":"x"}"#));
    let answer = call(&rest, ME, &[&of_device, OF_PAGE], "");
    assert!(answer.body.contains(r#""username":"device-7""#), "{}", answer.body);
    has_certificate.store(false, Relaxed);
    assert_eq!(call(&rest, ME, &[&of_device, OF_PAGE], "").status, 401, "without the certificate");
    let of_ops = cookie(&rest);
    assert_eq!(call(&rest, ME, &[&of_ops, OF_PAGE], "").status, 200);
    has_certificate.store(true, Relaxed);
    assert_eq!(call(&rest, ME, &[&of_ops, OF_PAGE], "").status, 401, "with another user's");
    assert_eq!(call(&rest, ME, &[&of_device, OF_PAGE], "").status, 200, "it has not ended");
}

#[test]
fn a_caller_learns_who_it_is_and_what_it_may_do() {
    let rest = rest();
    let me = |user: &str, query: &str| {
        let authorization = basic(&format!("{user}:pass:word"));
        let answer = rest.call_as(Some(&authorization), &format!("{ME}{query}"));
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        (answer.status, body["permissions"].to_string())
    };
    let rights = |observe, control, administer| {
        format!(r#"{{"administer":{administer},"control":{control},"observe":{observe}}}"#)
    };
    assert_eq!(me("ops", ""), (200, rights(true, true, true)));
    assert_eq!(me("ops", "?client_id=secret"), (200, rights(false, false, true)));
    assert_eq!(me("öps", ""), (200, rights(false, false, false)));
    assert_eq!(me("öps", "?client_id=a%2Fb"), (200, rights(true, true, false)));
    for (topic, publish, subscribe) in [
        ("a/b", true, true),
        ("%23", false, true),
        ("a%2F%23%2F", false, false),
        ("$SYS/x", false, true),
    ] {
        let (status, rights) = me("ops", &format!("?topic={topic}"));
        let expected =
            format!(r#""publish":{publish},"publish_retained":{publish},"subscribe":{subscribe}"#);
        assert!(status == 200 && rights.contains(&expected), "{topic}: {rights}");
    }
    for (query, code) in [
        ("?client=x", "unknown_parameter"),
        ("?client_id=%00", "invalid_client_id"),
        ("?topic=", "missing_parameter"),
    ] {
        assert_eq!(rest.call(&format!("{ME}{query}")).failure(), failed(400, code), "{query}");
    }
}

#[test]
fn numbers_over_time_need_the_permission_to_observe() {
    let rest = rest();
    let answer = rest.call("GET /api/v1/stats/history");
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let node = &body["nodes"][0];
    assert_eq!((&node["node"], &node["times"]), (&"here".into(), &serde_json::json!([])));
    let names = node["series"].as_array().unwrap().iter().map(|series| series["name"].to_string());
    assert!(
        names.clone().any(|name| name == "\"messages_received\""),
        "{:?}",
        names.collect::<Vec<_>>()
    );
    assert_eq!(rest.call("HEAD /api/v1/stats/history?span=day").status, 200);
    let answer = rest.call("GET /api/v1/stats/history?span=week");
    assert_eq!(answer.failure(), failed(400, "invalid_parameter"));
    let other = basic("öps:pass:word");
    let answer = rest.call_as(Some(&other), "GET /api/v1/stats/history");
    assert_eq!(answer.failure(), failed(403, "forbidden"));
}

#[test]
fn the_console_loads_its_own_files_alone() {
    let rest = rest();
    let page = rest.call_as(None, "GET /console");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.split("; ").any(|it| it == part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let quoted = page.body.split('"').filter(|text| text.starts_with("console/"));
    let mut files: Vec<_> = quoted.map(str::to_owned).collect();
    assert!(files.len() > 2, "{files:?}");
    let mut seen = 0;
    while let Some(file) = files.get(seen).cloned() {
        seen += 1;
        let request =
            format!("GET /{file} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut stream = tcp(rest.address());
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 200 "), "{file}: {text:.100}");
        assert!(text.contains("nosniff"), "{file}");
        for imported in text.split(" from \"./").skip(1).filter_map(|rest| rest.split('"').next()) {
            let imported = format!("console/{imported}");
            if !files.contains(&imported) {
                files.push(imported);
            }
        }
    }
    let answer = rest.call_as(None, "GET /console/");
    assert_eq!((answer.status, answer.header("location")), (307, "../console"));
    let answer = rest.call_as(None, "GET /console/nothing.js");
    assert_eq!(answer.failure(), failed(404, "not_found"));
    let answer = rest.call_as(None, "POST /console");
    assert_eq!(answer.failure(), failed(405, "method_not_allowed"));
}

#[test]
fn a_browser_gets_the_files_of_the_console_compressed() {
    let rest = rest();
    let plain = rest.call_as(None, "HEAD /console/main.js");
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "Accept-Encoding"));
    let length = |answer: &str| answer.parse::<u32>().expect(answer);
    for accepted in ["gzip, deflate, br", "gzip;q=0.5, identity;q=0.1"] {
        let accept = format!("Accept-Encoding: {accepted}");
        let compressed = rest.call_with("HEAD /console/main.js", &accept, "");
        assert_eq!(compressed.header("content-encoding"), "gzip", "{accepted}");
        assert_eq!(compressed.header("content-type"), "text/javascript; charset=utf-8");
        let lengths = [&compressed, &plain].map(|answer| length(answer.header("content-length")));
        assert!(lengths[0] * 2 < lengths[1], "{lengths:?}");
        // The bytes differ, so their tags do.
        assert_ne!(compressed.header("etag"), plain.header("etag"));
        let known = format!("{accept}\r\nIf-None-Match: {}", compressed.header("etag"));
        assert_eq!(rest.call_with("GET /console/main.js", &known, "").status, 304);
        let known = format!("{accept}\r\nIf-None-Match: {}", plain.header("etag"));
        assert_eq!(rest.call_with("HEAD /console/main.js", &known, "").status, 200);
    }
    for refused in ["identity", "gzip;q=0", "br"] {
        let answer =
            rest.call_with("HEAD /console/main.js", &format!("Accept-Encoding: {refused}"), "");
        assert_eq!((answer.status, answer.header("content-encoding")), (200, ""), "{refused}");
    }
}
