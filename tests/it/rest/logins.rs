//! How long a login may take, and which callers reuse accepted credentials.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    sync::mpsc,
    thread,
    time::Duration,
};

use hearthmq::{auth::Standing, http::ApiOptions};

use super::{
    connections::{ask, connect},
    failed,
    world::{basic, options, rest, rest_with},
};

#[test]
fn a_login_that_takes_too_long_is_answered_with_503() {
    let login_timeout = Duration::from_millis(50);
    let rest = rest_with(&ApiOptions { login_timeout, ..options() });
    let answer = rest.call_as(Some(&basic("pending:x")), "GET /client-id/demo/status");
    assert_eq!(answer.failure(), failed(503, "unavailable"));
    assert_eq!(answer.header("retry-after"), "1");
}

/// They wait for the broker's work, and must not take all its places from calls that need none.
#[test]
fn calls_that_wait_for_their_check_displace_each_other_and_no_other_calls() {
    let login_timeout = Duration::from_secs(3_600);
    let rest = rest_with(&ApiOptions { login_timeout, password_checks_max: 2, ..options() });
    let request = format!(
        "GET /client-id/demo/status HTTP/1.1\r\nHost: h\r\nAuthorization: {}\r\n\r\n",
        basic("pending:x")
    );
    let streams = [1, 2, 3].map(|host| connect(&rest, [127, 0, 0, host]));
    let (answered, answers) = mpsc::channel();
    thread::scope(|scope| {
        for mut stream in &streams {
            stream.write_all(request.as_bytes()).unwrap();
            let answered = answered.clone();
            scope.spawn(move || {
                let mut bytes = [0; 1024];
                let read = stream.read(&mut bytes).unwrap_or(0);
                drop(answered.send(String::from_utf8_lossy(&bytes[..read]).into_owned()));
            });
        }
        let first = answers.recv_timeout(Duration::from_secs(60));
        let others = rest.call("GET /client-id/demo/status").status;
        let second = answers.try_recv();
        streams.iter().for_each(|stream| stream.shutdown(Shutdown::Both).unwrap());
        let first = first.expect("only two may wait");
        assert!(first.starts_with("HTTP/1.1 503 "), "{first}");
        assert!(first.contains("retry-after: 1\r\n") && first.contains("unavailable"), "{first}");
        assert_eq!(others, 200);
        assert!(second.is_err(), "two may wait");
    });
}

#[test]
fn who_is_refused_for_earlier_failures_is_told_so() {
    let rest = rest();
    let answer = rest.call_as(Some(&basic("throttled:x")), "GET /client-id/demo/status");
    assert_eq!(answer.failure(), failed(429, "too_many_requests"));
    let said = r#"Too many failed attempts of the user \"throttled\" from 127.0.0.1, or from this address in total; try again in 7 s."#;
    assert!(answer.body.contains(said), "{}", answer.body);
}

/// The double gives a caller with proven credentials another name.
#[test]
fn the_same_credentials_again_on_one_connection_are_known_to_be_so() {
    let rest = rest();
    let call = |user: &str, connection: &str| {
        let authorization = basic(&format!("{user}:x"));
        format!(
            "POST /keep-alive?client-id=demo&interval=60 HTTP/1.1\r\nHost: h\r\n\
             Connection: {connection}\r\nContent-Length: 0\r\nAuthorization: {authorization}\r\n\r\n"
        )
    };
    let calls = [("goes-on", "keep-alive"), ("goes-on", "keep-alive"), ("goes-on-2", "keep-alive")];
    let calls: String = calls.iter().map(|(user, connection)| call(user, connection)).collect();
    rest.send(&(calls + &call("goes-on-2", "close")));
    let by = |name: &str| format!("demo 60 by {name}");
    assert_eq!(rest.asked(), [by("first"), by("again"), by("first"), by("again")]);
    rest.send(&call("goes-on", "close"));
    assert_eq!(rest.asked(), [by("first")], "on another connection nothing is known");
}

/// The double numbers its checks, and the log of the double names the caller.
#[test]
fn an_identity_is_remembered_on_its_connection_until_accounts_change() {
    let rest = rest();
    let mut streams = [(); 2].map(|()| connect(&rest, [127, 0, 0, 1]));
    let mut call = |stream: usize, user: &str| {
        let authorization = basic(&format!("{user}:x"));
        let request = format!(
            "POST /keep-alive?client-id=demo&interval=60 HTTP/1.1\r\nHost: h\r\n\
             Content-Length: 0\r\nAuthorization: {authorization}\r\n\r\n"
        );
        ask(&mut streams[stream], &request);
    };
    for (stream, user) in [(0, "remembered"), (0, "remembered"), (1, "remembered")] {
        call(stream, user);
    }
    call(0, "remembered-too");
    call(0, "remembered-too");
    rest.accounts.change(Standing::Good);
    call(0, "remembered-too");
    call(1, "remembered");
    let by = |check: u64| format!("demo 60 by check-{check}");
    assert_eq!(rest.asked(), [0, 0, 1, 2, 2, 3, 4].map(by));
}
