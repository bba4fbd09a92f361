//! Presence as subscribers of `$events/…` see it: order at a takeover, and versions that only grow,
//! across restarts and a kill.

use std::time::Instant;

use hearthmq::mqtt::{QoS, ReasonCode};
use serde_json::Value;

use crate::{
    mqtt::Client,
    program::{PATIENCE, Place, Program},
};

fn watcher(program: &Program) -> Client {
    let mut watcher = program.client("watcher");
    watcher.subscribe("$events/client_connected", QoS::AtMostOnce);
    watcher.subscribe("$events/client_disconnected", QoS::AtMostOnce);
    watcher
}

fn event(watcher: &mut Client) -> Value {
    let message = watcher.message();
    let event: Value = serde_json::from_slice(&message.payload).unwrap();
    let topic = event["event"].as_str().unwrap().replace('.', "_");
    assert_eq!(message.topic, format!("$events/{topic}"));
    event
}

fn version(event: &Value) -> u64 {
    event["version"].as_u64().unwrap()
}

#[test]
fn on_a_takeover_the_old_connection_ends_before_the_new_one_begins() {
    let place = Place::new();
    let program = place.start();
    let mut watcher = watcher(&program);
    let mut current = program.client("car");
    let mut connected = event(&mut watcher);
    for _ in 0..50 {
        let next = program.client("car");
        current.expect_disconnect(ReasonCode::SessionTakenOver);
        current = next;
        let gone = event(&mut watcher);
        assert_eq!(gone["event"], "client.disconnected");
        assert_eq!(gone["reason"], "takeovered");
        assert_eq!(gone["connected_at"], connected["connected_at"]);
        assert_eq!(version(&gone), version(&connected));
        connected = event(&mut watcher);
        assert_eq!(connected["event"], "client.connected");
        assert_eq!(version(&connected), version(&gone) + 1);
    }
}

#[test]
fn versions_grow_across_restarts_and_a_kill() {
    let place = Place::new();
    let mut last = 0;
    for end in ["-TERM", "-KILL", "-KILL", "-INT", "-TERM"] {
        let mut program = place.start();
        let mut watcher = watcher(&program);
        for _ in 0..2 {
            let car = program.client("car");
            let connected = event(&mut watcher);
            assert_eq!(connected["clientid"], "car");
            assert!(version(&connected) > last, "{connected} after {last}");
            drop(car);
            let gone = event(&mut watcher);
            assert_eq!(
                (&gone["reason"], version(&gone)),
                (&"tcp_closed".into(), version(&connected))
            );
            last = version(&gone);
        }
        program.signal(end);
        program.wait(PATIENCE);
    }
}

#[test]
fn a_client_may_not_publish_events() {
    let place = Place::new();
    let program = place.start();
    let mut watcher = watcher(&program);
    let mut liar = program.client("liar");
    let connected = event(&mut watcher);
    let forged = connected.to_string().replace("liar", "victim");
    for id in [None, Some(1)] {
        liar.publish("$events/client_connected", forged.as_bytes(), id).unwrap();
    }
    let refused = liar.receive(|packet| match packet {
        hearthmq::mqtt::Packet::PubAck(ack) => ack.reason,
        packet => panic!("PUBACK expected, not {packet:?}"),
    });
    assert_eq!(refused, ReasonCode::NotAuthorized);
    drop(liar);
    assert_eq!(event(&mut watcher)["event"], "client.disconnected");
}

/// Returns the names of the events of one part of the feed, and where the next one begins.
fn part_of_feed(program: &Program, query: &str) -> (Vec<String>, String) {
    let answer = program.call(&format!("GET /api/v1/events?{query}"));
    let part: Value = serde_json::from_str(&answer.body).expect(&answer.body);
    let events = part["events"].as_array().unwrap().iter();
    let names = events.map(|event| event["event"].as_str().unwrap().to_owned());
    (names.collect(), part["next"].as_str().unwrap().to_owned())
}

/// Reads the feed from a place until this event has come; returns all names, and the next place.
fn feed_until(program: &Program, mut from: String, last: &str) -> (Vec<String>, String) {
    let mut names = Vec::new();
    let until = Instant::now() + 2 * PATIENCE;
    while names.last().is_none_or(|name| name != last) {
        let (more, next) = part_of_feed(program, &format!("wait=60&{from}"));
        names.extend(more);
        assert!(Instant::now() < until, "no {last} comes: {names:?}");
        from = format!("after={next}");
    }
    (names, from)
}

#[test]
fn a_follower_that_continues_after_a_restart_is_reset_and_has_a_snapshot() {
    let place = Place::new();
    let mut program = place.start();
    let car = program.client("car");
    let (names, place_before) = feed_until(&program, String::new(), "snapshot_end");
    assert_eq!(names, ["snapshot", "snapshot_end"]);
    drop(car);
    let (_, next) = feed_until(&program, place_before, "client_disconnected");
    for end in ["-TERM", "-KILL"] {
        program.signal(end);
        program.wait(PATIENCE);
        program = place.start();
        let (names, from) = feed_until(&program, next.clone(), "snapshot_end");
        assert_eq!(names, ["reset", "snapshot_end"], "{end}");
        let car = program.client("car");
        let (names, _) = feed_until(&program, from, "client_connected");
        assert_eq!(names, ["client_connected"], "{end}");
        drop(car);
    }
}
