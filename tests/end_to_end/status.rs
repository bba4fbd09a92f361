//! The call that asks whether a client is online, through the whole chain; the answer is the live
//! state.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use hearthmq::mqtt::{Packet, ProtocolVersion, ReasonCode};

use crate::{
    http::basic,
    mqtt::connect,
    program::{PASSWORD, Place},
};

#[test]
fn an_id_is_one_percent_encoded_segment_of_the_path() {
    let place = Place::new();
    let program = place.start();
    for (id, encoded) in [
        ("a/b", "a%2Fb"),
        ("a/b", "a%2fb"),
        ("/", "%2F"),
        ("#+?%", "%23%2B%3F%25"),
        ("a+b c", "a+b%20c"),
        ("..", "%2E%2e"),
        ("status", "status"),
        ("漢🔥", "%E6%BC%A2%F0%9F%94%A5"),
    ] {
        for method in ["GET", "POST"] {
            let ask = || program.call(&format!("{method} /client-id/{encoded}/status")).body;
            assert_eq!(ask(), r#"{"online":false}"#, "{id}");
            let mut client = program.client(id);
            assert_eq!(ask(), r#"{"online":true}"#, "{id}");
            client.send(&Packet::Disconnect(hearthmq::mqtt::Disconnect {
                reason: ReasonCode::Success,
                properties: Default::default(),
            }));
            // When the socket closes, the broker knows of the end; from then on no answer may be
            // outdated.
            client.try_receive(|_| ()).unwrap_err();
            assert_eq!(ask(), r#"{"online":false}"#, "{id}");
        }
    }
}

#[test]
fn an_invalid_id_is_answered_with_400() {
    let place = Place::new();
    let program = place.start();
    for (encoded, code) in [
        ("", "missing_parameter"),
        ("a/b", "invalid_client_id"),
        ("%", "invalid_client_id"),
        ("%2", "invalid_client_id"),
        ("%2x", "invalid_client_id"),
        ("%C3", "invalid_client_id"),
        ("%ED%A0%80", "invalid_client_id"),
        ("a%00b", "invalid_client_id"),
    ] {
        for method in ["GET", "POST"] {
            let answer = program.call(&format!("{method} /client-id/{encoded}/status"));
            assert_eq!(answer.failure(), (400, code.into()), "{encoded:?}");
        }
    }
}

#[test]
fn it_is_asked_by_get_and_post_and_in_both_versions_of_http() {
    let place = Place::new();
    let program = place.start();
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = program.call_as(None, &format!("{method} /client-id/a/status"));
        assert_eq!(answer.failure(), (405, "method_not_allowed".into()));
        assert_eq!(answer.header("allow"), "GET, HEAD, POST");
    }
    let head = program.call("HEAD /client-id/a/status");
    assert_eq!((head.outcome(), head.header("content-type")), ((200, ""), "application/json"));
    let login = basic(&format!("ops:{PASSWORD}"));
    let old = format!("GET /client-id/a/status HTTP/1.0\r\nAuthorization: {login}\r\n\r\n");
    let answer = program.send(old);
    assert_eq!(answer.outcome(), (200, r#"{"online":false}"#));
    assert!(answer.head.starts_with("HTTP/1.0 200"), "{}", answer.head);
}

#[test]
fn an_offline_session_is_not_online() {
    let place = Place::new();
    let program = place.start();
    let mut packet = connect("car");
    (packet.version, packet.clean_start) = (ProtocolVersion::V3_1_1, false);
    let client = program.connected(packet);
    assert!(program.is_online("car"));
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut client = client;
    client.try_receive(|_| ()).unwrap_err();
    assert!(!program.is_online("car"));
}

#[test]
fn during_takeovers_a_client_is_online_throughout() {
    let place = Place::new();
    let program = place.start();
    let mut current = program.client("car");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert!(program.is_online("car"));
                asked += 1;
            }
            asked
        });
        for _ in 0..100 {
            let next = program.client("car");
            current.expect_disconnect(ReasonCode::SessionTakenOver);
            current = next;
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(asking.join().unwrap() > 0);
    });
}
