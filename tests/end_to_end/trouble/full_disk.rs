//! A nearly full disk, a full disk, and files that may not grow: no acknowledged message is lost,
//! requests that need the store are refused, and everything else continues.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::Command,
};

use hearthmq::mqtt::{Connect, LastWill, Packet, ProtocolVersion, QoS, ReasonCode, WillProperties};
use serde_json::{Value, json};

use super::{lasting, lasting_3, own_mounts, puback, publish_1, retain_1, take};
use crate::{
    mqtt::{Client, connect, tcp},
    program::{PASSWORD, PATIENCE, Place, Program},
};

/// Creates a durable session that is subscribed to `durable`, with one queued message.
fn leave_subscriber(program: &Program) {
    let mut subscriber = program.connected(lasting("subscriber"));
    subscriber.subscribe("durable", QoS::AtLeastOnce);
    drop(subscriber);
    let mut publisher = program.client("publisher");
    assert_eq!(publish_1(&mut publisher, "durable", b"before", 1), ReasonCode::Success);
}

/// Returns the Reason Code of CONNACK.
fn refusal(program: &Program, mut packet: Connect<'_>) -> ReasonCode {
    packet.username = Some("ops");
    packet.password = Some(PASSWORD.as_bytes());
    Client::on(tcp(program.address("mqtt")), packet).unwrap().1
}

/// Checks what is refused, with which code, and what continues, while the store accepts nothing.
fn expect_refusals(program: &Program, reason: ReasonCode) {
    program.wait_for_readiness(503, "store_unavailable");
    assert_eq!(program.call_as(None, "GET /health/live").status, 200);
    let metrics = program.call_as(None, "GET /metrics").body;
    assert!(metrics.lines().any(|line| line.ends_with("store_writable 0")), "{metrics}");

    let mut live = program.client("live");
    live.subscribe("#", QoS::AtLeastOnce);
    let mut publisher = program.client("publisher");
    assert_eq!(publish_1(&mut publisher, "durable", b"refused", 1), reason);
    assert_eq!(retain_1(&mut publisher, "live", b"refused", 2), reason);
    // MQTT 3 has no code, so there is no acknowledgement: the client must send it again.
    let mut old = program.connected(Connect { version: ProtocolVersion::V3_1_1, ..connect("old") });
    old.publish("durable", b"refused", Some(1)).unwrap();
    old.expect_closed();
    assert_eq!(refusal(program, lasting("new")), ReasonCode::ServerUnavailable);
    assert_eq!(refusal(program, lasting_3("old-and-new")), ReasonCode::ServerUnavailable);

    publisher.publish("durable", b"QoS 0", None).unwrap();
    assert_eq!(publish_1(&mut publisher, "live", b"QoS 1", 3), ReasonCode::Success);
    take(&mut live, &[b"QoS 0", b"QoS 1"]);
}

fn free_bytes(path: &Path) -> u64 {
    let found = rustix::fs::statvfs(path).unwrap();
    found.f_bavail * found.f_frsize
}

#[test]
fn with_little_room_from_the_start_durable_messages_are_refused_and_queues_drain() {
    let place = Place::new();
    let mut program = place.start();
    leave_subscriber(&program);
    assert_eq!(program.readiness(), (200, r#"{"status":"ready"}"#.to_owned()));
    program.signal("-KILL");
    program.killed();

    let bound = free_bytes(&place.path("data")) * 2;
    let place = place.set(format!("store.free_bytes_min={bound}"));
    let mut program = place.start();
    expect_refusals(&program, ReasonCode::QuotaExceeded);
    // Changes that only remove data continue: a session can be resumed, and left again.
    let mut subscriber = program.connected(lasting("subscriber"));
    take(&mut subscriber, &[b"before"]);
    drop(subscriber);
    program.signal("-TERM");
    assert!(program.wait(PATIENCE).success());
    let log = program.killed();
    assert!(
        log.contains("disk of the store is nearly full: durable messages are refused"),
        "{log}"
    );
    assert!(!log.contains("could not be kept"), "{log}");

    let place = place.set("store.free_bytes_min=1");
    let program = place.start();
    assert_eq!(program.readiness(), (200, r#"{"status":"ready"}"#.to_owned()));
    let mut subscriber = program.connected(lasting("subscriber"));
    let mut publisher = program.client("publisher");
    assert_eq!(publish_1(&mut publisher, "durable", b"after", 1), ReasonCode::Success);
    take(&mut subscriber, &[b"after"]);
}

/// A start ends a session that should not outlive its connection. Its Will, which waits for the
/// client, moves to a record of its own.
#[test]
fn with_little_room_from_the_start_a_will_that_waits_stays_stored() {
    let place = Place::new();
    let mut program = place.start();
    let mut device = program.connected(lasting("device"));
    device.subscribe("t", QoS::AtLeastOnce);
    drop(device);
    let will = LastWill {
        topic: "status",
        payload: b"dead",
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: WillProperties::default(),
    };
    let mut device =
        program.connected(Connect { clean_start: false, will: Some(will), ..connect("device") });
    device.ping();
    program.signal("-KILL");
    program.killed();

    let bound = free_bytes(&place.path("data")) * 2;
    let place = place.set(format!("store.free_bytes_min={bound}"));
    let program = place.start();
    assert_eq!(program.readiness().0, 503);
    // An export has everything that was noted so far.
    let export = Command::new(env!("CARGO_BIN_EXE_hearthmq"))
        .args(["store", "export", "--data-dir"])
        .arg(place.path("data"))
        .output()
        .unwrap();
    let lines = String::from_utf8(export.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let own: Vec<_> = lines.filter(|line| line["client_id"] == "device").collect();
    let [session] = &own[..] else { panic!("{own:?}") };
    assert_eq!(session["subscriptions"], json!([]));
    assert_eq!(session["will"]["message"]["topic"], "status");
}

#[test]
fn that_there_is_little_room_is_known_before_anybody_comes() {
    let place = Place::new();
    let bound = free_bytes(&place.path("data")) * 2;
    let program = place.set(format!("store.free_bytes_min={bound}")).start();
    assert_eq!(program.readiness(), (503, r#"{"status":"store_unavailable"}"#.to_owned()));
}

/// Without a quarter of the limit nothing can be reserved.
#[test]
fn without_any_room_there_is_no_start() {
    let place = Place::new().set(format!("store.free_bytes_min={}", i64::MAX));
    let output = place.run();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("hearthmq: the disk with data is full; free space"), "{said}");
}

/// Fills the file system of `path`, except for this many bytes.
fn fill(path: &Path, but_for: u64) {
    let mut filler = File::create(path).unwrap();
    let chunk = vec![7; 64 << 10];
    while free_bytes(path) > but_for && filler.write_all(&chunk).is_ok() {}
}

/// Returns a place with its data on a small file system of its own, and the program that runs
/// there.
fn small_disk(free_bytes_min: u64) -> Option<(Place, Program)> {
    let shell = own_mounts()?;
    let place =
        Place::new().set("data_dir=disk").set(format!("store.free_bytes_min={free_bytes_min}"));
    fs::create_dir(place.path("disk")).unwrap();
    let mount = "mount -t tmpfs -o size=192m none disk && cp data/* disk";
    let program = place.start_by(place.command_after(shell, mount));
    Some((place, program))
}

#[test]
fn a_disk_that_fills_up_and_has_room_again_needs_nobody_who_restarts_the_broker() {
    const MIB: u64 = 1 << 20;
    let Some((place, mut program)) = small_disk(8 * MIB) else { return };
    leave_subscriber(&program);
    let filler = program.file(&place.path("disk/filler"));
    fill(&filler, 12 * MIB);
    expect_refusals(&program, ReasonCode::QuotaExceeded);
    fs::remove_file(&filler).unwrap();
    program.wait_for_readiness(200, "ready");
    let mut publisher = program.client("publisher");
    assert_eq!(publish_1(&mut publisher, "durable", b"after", 1), ReasonCode::Success);
    take(&mut program.connected(lasting("subscriber")), &[b"before", b"after"]);
    let log = program.killed();
    assert!(log.contains("nearly full: durable messages are refused until there is room"), "{log}");
    assert!(log.contains("can be written again: durable messages are taken again"), "{log}");
}

/// The limit does not help if others fill the disk between two checks.
#[test]
fn what_a_full_disk_did_not_take_is_acknowledged_once_it_does() {
    let Some((place, mut program)) = small_disk(1) else { return };
    leave_subscriber(&program);
    let filler = program.file(&place.path("disk/filler"));
    fill(&filler, 0);
    let mut publisher = program.client("flood");
    let payload = vec![7; 64 << 10];
    let mut sent = 0;
    while program.readiness().0 == 200 {
        sent += 1;
        publisher.publish("durable", &payload, Some(sent)).unwrap();
        assert!(sent < 4_000, "the disk is never full");
    }
    expect_refusals(&program, ReasonCode::QuotaExceeded);
    fs::remove_file(&filler).unwrap();
    let outcomes: Vec<ReasonCode> = (0..sent).map(|_| puback(&mut publisher)).collect();
    program.wait_for_readiness(200, "ready");
    let taken = outcomes.iter().filter(|reason| **reason == ReasonCode::Success).count();
    let is_known =
        |reason: &ReasonCode| matches!(reason, ReasonCode::Success | ReasonCode::QuotaExceeded);
    assert!(taken > 0 && outcomes.iter().all(is_known), "{outcomes:?}");
    let mut subscriber = program.connected(lasting("subscriber"));
    let payloads = [&b"before"[..]].into_iter().chain((0..taken).map(|_| &payload[..]));
    take(&mut subscriber, &payloads.collect::<Vec<_>>());
    let log = program.killed();
    assert!(log.contains("the store cannot be written: durable messages are refused"), "{log}");
    assert!(log.contains("can be written again"), "{log}");
}

#[test]
fn a_limit_of_file_sizes_ends_neither_the_program_nor_what_it_has_acknowledged() {
    let place = Place::new();
    let mut program = place.start();
    leave_subscriber(&program);
    program.signal("-KILL");
    program.killed();
    let mut program = place.start_by(place.command_after(&["env"], "ulimit -f 1024"));
    let mut publisher = program.client("flood");
    let payload = vec![7; 16 << 10];
    let mut sent = 0;
    while program.readiness().0 == 200 {
        sent += 1;
        publisher.publish("durable", &payload, Some(sent)).unwrap();
        assert!(sent < 1_000, "the limit is never met");
    }
    expect_refusals(&program, ReasonCode::ImplementationSpecificError);
    let log = program.killed();
    let complaints = log.lines().filter(|line| line.contains(" ERROR "));
    assert_eq!(complaints.count(), 1, "{log}");
    assert!(log.contains("the store cannot be written"), "{log}");
    let mut acknowledged = 0;
    while let Ok(reason) = publisher.try_receive(|packet| match packet {
        Packet::PubAck(ack) => ack.reason,
        packet => panic!("PUBACK expected, not {packet:?}"),
    }) {
        acknowledged += usize::from(reason == ReasonCode::Success);
    }
    assert!(acknowledged > 0);
    let program = place.start();
    assert_eq!(program.readiness(), (200, r#"{"status":"ready"}"#.to_owned()));
    let mut subscriber = program.connected(lasting("subscriber"));
    // More messages may exist than were acknowledged.
    assert_eq!(subscriber.message().payload, b"before");
    for _ in 0..acknowledged {
        assert_eq!(subscriber.message().payload, payload);
    }
}
