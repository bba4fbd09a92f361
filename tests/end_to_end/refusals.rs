//! Refused callers: unknown, not permitted, too many, or too late.

use std::{thread, time::Duration};

use hearthmq::mqtt::QoS;

use crate::{
    http::basic,
    program::{PASSWORD, PATIENCE, Place},
};

const CALLS: [&str; 2] =
    ["POST /keep-alive?client-id=demo&interval=60", "GET /client-id/demo/status"];

#[test]
fn no_or_wrong_credentials_are_answered_with_401_and_how_to_give_them() {
    let place = Place::new();
    let program = place.start();
    let _demo = program.client("demo");
    let right = basic(&format!("ops:{PASSWORD}"));
    for authorization in [
        None,
        Some(basic("ops:wrong")),
        Some(basic("ops:pass")),
        Some(basic("ops:pass:word ")),
        Some(basic("ops")),
        Some(basic("nobody:pass:word")),
        Some(basic(":")),
        Some("Basic".into()),
        Some("Basic *".into()),
        Some("Bearer abc".into()),
        Some(right["Basic ".len()..].to_owned()),
        Some(format!("{right}\r\nAuthorization: {right}")),
    ] {
        for line in CALLS {
            let answer = program.call_as(authorization.as_deref(), line);
            let failure = answer.failure();
            assert_eq!(failure, (401, "unauthenticated".into()), "{authorization:?}");
            // Exactly this text, the name of the header included.
            let challenge = "www-authenticate: Basic realm=\"hearthmq\", charset=\"UTF-8\"";
            let head = answer.head.lines().find(|line| line.len() == challenge.len());
            assert!(head.is_some_and(|line| line.eq_ignore_ascii_case(challenge)));
        }
    }
    for line in CALLS {
        assert_eq!(program.call_as(Some(&right.replace("Basic", "bAsIc")), line).status, 200);
    }
}

#[test]
fn without_permission_the_answer_is_403_whether_or_not_the_client_is_there() {
    let place = Place::new();
    let program = place.start();
    let _demo = program.client("demo");
    let _allowed = program.client("allowed-1");
    for (user, client_id, status) in [
        ("stranger", "demo", 403),
        ("stranger", "unknown", 403),
        ("limited", "demo", 403),
        ("limited", "unknown", 403),
        ("limited", "allowed-1", 200),
    ] {
        let login = basic(&format!("{user}:{PASSWORD}"));
        for line in [
            format!("POST /keep-alive?client-id={client_id}&interval=60"),
            format!("GET /client-id/{client_id}/status"),
        ] {
            let answer = program.call_as(Some(&login), &line);
            assert_eq!(answer.status, status, "{user} {line}");
            if status == 403 {
                assert_eq!(answer.failure().1, "forbidden");
            }
        }
    }
    // A mistake in the call is reported before missing permission, and both before 404.
    let login = basic(&format!("limited:{PASSWORD}"));
    let wrong = program.call_as(Some(&login), "POST /keep-alive?client-id=demo&interval=1");
    assert_eq!(wrong.failure().0, 400);
    let away = program.call_as(Some(&login), "POST /keep-alive?client-id=allowed-2&interval=60");
    assert_eq!(away.failure(), (404, "client_not_online".into()));
}

#[test]
fn over_the_rate_of_an_account_or_an_address_is_429_with_when_to_try_again() {
    for bound in ["account", "address"] {
        let place = Place::new()
            .set(format!("http.calls_per_{bound}_per_sec=1"))
            .set(format!("http.calls_per_{bound}_burst=2"));
        let program = place.start();
        let answers = [0; 2].map(|_| program.call(CALLS[1]).status);
        assert_eq!(answers, [200, 200]);
        // Sooner or later a call comes within a second of the last one.
        let refused = || Some(program.call(CALLS[1])).filter(|answer| answer.status != 200);
        let refused = std::iter::repeat_with(refused).take(10_000).find_map(|refused| refused);
        let refused = refused.expect("10,000 calls in as many seconds");
        assert_eq!(refused.failure(), (429, "too_many_requests".into()));
        assert_eq!(refused.header("retry-after"), "1");
        let again = || program.call(CALLS[1]).status == 200;
        while !again() {
            thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn repeated_failures_are_429_even_with_the_right_password() {
    let place =
        Place::new().set("auth.throttle.failures_max=3").set("auth.throttle.refusal_secs=60");
    let program = place.start();
    for guess in 0..3 {
        let login = basic(&format!("ops:wrong{guess}"));
        assert_eq!(program.call_as(Some(&login), CALLS[1]).status, 401);
    }
    let answer = program.call(CALLS[1]);
    assert_eq!(answer.failure(), (429, "too_many_requests".into()));
    let retry_after: u32 = answer.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&retry_after));
}

#[test]
fn while_the_broker_shuts_down_calls_are_answered_with_503() {
    let place = Place::new().set("shutdown_deadline_secs=600"); // longer than the test waits
    let mut program = place.start();
    // A client that does not read delays the shutdown: its queued output must be written.
    let mut deaf = program.client("deaf");
    deaf.subscribe("much", QoS::AtMostOnce);
    let mut publisher = program.client("publisher");
    for _ in 0..15 {
        publisher.publish("much", &vec![0; 1_000_000], None).unwrap();
    }
    publisher.ping();
    program.signal("-TERM");
    while program.call_as(None, "GET /health/ready").status == 200 {
        thread::sleep(Duration::from_millis(1));
    }
    for line in CALLS {
        let answer = program.call(line);
        assert_eq!(answer.failure(), (503, "unavailable".into()), "{line}");
        assert_eq!(answer.header("retry-after"), "1");
    }
    let live = program.call_as(None, "GET /health/live");
    assert_eq!(live.outcome(), (200, r#"{"status":"live"}"#));
    drop((deaf, publisher));
    assert!(program.wait(PATIENCE).success());
    let address = program.address("http");
    std::net::TcpStream::connect(address).unwrap_err();
}
