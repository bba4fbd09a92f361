//! The call that changes a live connection's Keep Alive, through the whole chain: HTTP, accounts,
//! permissions, the client's home shard, its connection, and the event that reports it.

use std::{
    io::{ErrorKind, Write},
    thread,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{ProtocolVersion, QoS, ReasonCode};

use crate::{
    http::{basic, exchange, request},
    mqtt::{Client, connect, tcp},
    program::{PASSWORD, Place, Program},
};

/// Starts a client with Keep Alive 60, and one that watches every change.
fn world() -> (Place, Program, Client, Client) {
    world_at(Place::new())
}

/// Does the same in a place of the test.
fn world_at(place: Place) -> (Place, Program, Client, Client) {
    let program = place.start();
    let mut watcher = program.client("watcher");
    watcher.subscribe("$events/client_keepalive_changed", QoS::AtMostOnce);
    let demo = program.client("demo");
    (place, program, demo, watcher)
}

/// Returns the next reported change: client identifier, old and new interval, and caller.
fn change(watcher: &mut Client) -> (String, u64, u64, String) {
    let event: serde_json::Value = serde_json::from_slice(&watcher.message().payload).unwrap();
    assert_eq!(event["event"], "client.keepalive_changed");
    assert!(event["version"].as_u64().unwrap() > 0);
    let text = |field: &str| event[field].as_str().unwrap().to_owned();
    let number = |field: &str| event[field].as_u64().unwrap();
    (text("clientid"), number("old"), number("new"), text("by"))
}

#[test]
fn a_change_is_answered_in_force_and_reported() {
    let (_place, program, mut demo, mut watcher) = world();
    let mut before = 60;
    for secs in [30, 1200, 120] {
        let answer = program.call(&format!("POST /keep-alive?client-id=demo&interval={secs}"));
        let body = format!(r#"{{"success":true,"keepalive":{secs}}}"#);
        assert_eq!(answer.outcome(), (200, body.as_str()));
        assert_eq!(answer.header("content-type"), "application/json");
        let reported = ("demo".into(), before, secs, "ops".into());
        assert_eq!(change(&mut watcher), reported);
        before = secs;
    }
    demo.ping(); // the connection is still the same
}

#[test]
fn a_client_id_may_hold_anything_percent_encoded() {
    let (_place, program, _demo, mut watcher) = world();
    for (id, encoded) in [
        ("a/b", "a%2Fb"),
        ("a/b", "a/b"),
        ("#+ ?%&=", "%23%2B%20%3F%25%26%3D"),
        ("two words", "two+words"),
        ("漢🔥", "%E6%BC%A2%F0%9F%94%A5"),
        ("\u{FEFF}bom", "%EF%BB%BFbom"),
    ] {
        let _client = program.client(id);
        let line = format!("POST /keep-alive?interval=45&client-id={encoded}");
        assert_eq!(program.call(&line).status, 200, "{encoded}");
        assert_eq!(change(&mut watcher), (id.into(), 60, 45, "ops".into()));
    }
    // An invalid HTTP request target is refused before it is parsed further.
    for raw in ["漢🔥", "a b"] {
        let line = format!("POST /keep-alive?interval=45&client-id={raw}");
        assert_eq!(program.call(&line).status, 400, "{raw}");
    }
}

#[test]
fn wrong_parameters_are_answered_with_400_and_change_nothing() {
    let (_place, program, _demo, mut watcher) = world();
    for (query, code) in [
        ("", "missing_parameter"),
        ("?", "missing_parameter"),
        ("?interval=60", "missing_parameter"),
        ("?client-id=demo", "missing_parameter"),
        ("?client-id=&interval=60", "missing_parameter"),
        ("?client-id=demo&interval=", "missing_parameter"),
        ("?client_id=demo&interval=60", "missing_parameter"),
        ("?client-id=demo&client-id=demo&interval=60", "duplicate_parameter"),
        ("?client-id=demo&interval=60&interval=90", "duplicate_parameter"),
        ("?client-id=demo&client%2Did=&interval=60", "duplicate_parameter"),
        ("?client-id=%&interval=60", "invalid_client_id"),
        ("?client-id=demo%2&interval=60", "invalid_client_id"),
        ("?client-id=%zz&interval=60", "invalid_client_id"),
        ("?client-id=%FF&interval=60", "invalid_client_id"),
        ("?client-id=%C0%80&interval=60", "invalid_client_id"),
        ("?client-id=%ED%A0%80&interval=60", "invalid_client_id"),
        ("?client-id=demo%00&interval=60", "invalid_client_id"),
    ] {
        let answer = program.call(&format!("POST /keep-alive{query}"));
        assert_eq!(answer.failure(), (400, code.into()), "{query}");
    }
    for interval in [
        "0",
        "1",
        "29",
        "1201",
        "65535",
        "65536",
        "65596",
        "18446744073709551676",
        "99999999999999999999999999",
        "+30",
        "-30",
        "%2B30",
        "%2D30",
        "60.0",
        "60.5",
        "60,5",
        "6e1",
        "0x3c",
        "sixty",
        "60s",
        "60%20",
        "%2060",
        "%D9%A6%D9%A0",
        "%00",
        "%zz",
        "NaN",
    ] {
        let line = format!("POST /keep-alive?client-id=demo&interval={interval}");
        let failure = program.call(&line).failure();
        assert_eq!(failure, (400, "invalid_interval".into()), "{interval}");
    }
    // The first reported change is that of the first valid call.
    let right = program.call("POST /keep-alive?client-id=demo&interval=0099");
    assert_eq!(right.body, r#"{"success":true,"keepalive":99}"#);
    assert_eq!(change(&mut watcher), ("demo".into(), 60, 99, "ops".into()));
}

#[test]
fn a_client_id_of_many_bytes_is_found() {
    let place = Place::new().set("limits.client_id_bytes_max=65535");
    let (_place, program, _demo, mut watcher) = world_at(place);
    let id = "x".repeat(65_000);
    let _client = program.client(&id);
    let line = format!("POST /keep-alive?client-id={id}&interval=45");
    assert_eq!(program.call(&line).status, 200);
    assert_eq!(change(&mut watcher).0, id);
    let status = program.call(&format!("GET /client-id/{id}/status"));
    assert_eq!(status.outcome(), (200, r#"{"online":true}"#));
    // A request target has at most 65,534 bytes, so a longer identifier cannot be requested.
    for length in [65_535, 65_536, 70_000] {
        let id = "x".repeat(length);
        let line = format!("POST /keep-alive?client-id={id}&interval=45");
        assert_eq!(program.call(&line).status, 400);
        assert_eq!(program.call(&format!("GET /client-id/{id}/status")).status, 400);
    }
}

#[test]
fn a_client_that_is_not_connected_is_not_found() {
    let (_place, program, _demo, _watcher) = world();
    let mut offline = connect("offline");
    offline.properties.session_expiry_interval = Some(3600);
    let client = program.connected(offline);
    drop(client);
    while program.is_online("offline") {
        thread::sleep(Duration::from_millis(5));
    }
    for id in ["offline", "unknown", "Demo", "demo%20"] {
        let answer = program.call(&format!("POST /keep-alive?client-id={id}&interval=60"));
        assert_eq!(answer.failure(), (404, "client_not_online".into()));
    }
}

#[test]
fn keep_alive_0_stays_off() {
    let (_place, program, _demo, _watcher) = world();
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        let mut off = connect("off");
        (off.version, off.keep_alive) = (version, 0);
        let mut client = program.connected(off);
        let answer = program.call("POST /keep-alive?client-id=off&interval=60");
        assert_eq!(answer.failure(), (409, "keep_alive_disabled".into()));
        client.ping();
    }
}

#[test]
fn it_is_called_by_post_alone_and_in_both_versions_of_http() {
    let (_place, program, _demo, mut watcher) = world();
    let target = "/keep-alive?client-id=demo&interval=60";
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = program.call_as(None, &format!("{method} {target}"));
        assert_eq!(answer.failure(), (405, "method_not_allowed".into()));
        assert_eq!(answer.header("allow"), "POST");
    }
    let head = program.call(&format!("HEAD {target}"));
    assert_eq!((head.outcome(), head.header("allow")), ((405, ""), "POST"));

    let login = basic(&format!("ops:{PASSWORD}"));
    let old =
        format!("POST {target} HTTP/1.0\r\nContent-Length: 0\r\nAuthorization: {login}\r\n\r\n");
    let answer = program.send(old);
    assert_eq!(answer.outcome(), (200, r#"{"success":true,"keepalive":60}"#));
    assert!(answer.head.starts_with("HTTP/1.0 200"), "{}", answer.head);
    change(&mut watcher);

    // Two calls on one connection, sent together.
    let first = format!(
        "POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nAuthorization: {login}\r\n\r\n"
    );
    let second = request("POST /keep-alive?client-id=demo&interval=61", Some(&login));
    let mut stream = tcp(program.address("http"));
    stream.write_all(first.as_bytes()).unwrap();
    let answers = exchange(stream, second).unwrap();
    assert!(answers.body.ends_with(r#"{"success":true,"keepalive":61}"#));
    assert_eq!(change(&mut watcher).2, 60);
    assert_eq!(change(&mut watcher).2, 61);
}

/// Returns when a silent client is disconnected, counted from before it connected.
fn silent_for(program: &Program, client_id: &str) -> Duration {
    let began = Instant::now();
    let mut packet = connect(client_id);
    packet.keep_alive = 6;
    let mut client = program.connected(packet);
    client.expect_disconnect(ReasonCode::KeepAliveTimeout);
    began.elapsed()
}

/// Coarse, because a machine may be slow: only "never early" is certain.
#[test]
fn a_silent_client_is_disconnected_not_before_its_time_and_a_longer_keep_alive_saves_it() {
    let (_place, program, _demo, _watcher) = world();
    let mut packet = connect("saved");
    packet.keep_alive = 6;
    let mut saved = program.connected(packet);
    let answer = program.call("POST /keep-alive?client-id=saved&interval=30");
    assert_eq!(answer.status, 200);
    assert!(silent_for(&program, "silent") >= Duration::from_secs(9));
    assert!(!program.is_online("silent"));

    saved.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let nothing = saved.try_receive(|packet| panic!("nothing expected, not {packet:?}"));
    let kind = nothing.unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind:?}");
    assert!(program.is_online("saved"));
}

#[test]
fn many_calls_for_one_client_at_once_are_all_answered() {
    let (_place, program, mut demo, _watcher) = world();
    let login = basic(&format!("ops:{PASSWORD}"));
    // From now on the account is verified, so that no call waits for its password.
    assert_eq!(program.call("POST /keep-alive?client-id=demo&interval=31").status, 200);
    let calls: Vec<_> = (0..64)
        .map(|number| {
            let mut stream = tcp(program.address("http"));
            let line = format!("POST /keep-alive?client-id=demo&interval={}", 30 + number);
            stream.write_all(request(&line, Some(&login)).as_bytes()).unwrap();
            stream
        })
        .collect();
    for stream in calls {
        assert_eq!(exchange(stream, "").unwrap().status, 200);
    }
    demo.ping();
}
