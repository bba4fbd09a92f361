//! A process that gets no CPU time for a while: data sent to it waits in the sockets, and no client
//! is disconnected for silence.

use std::{
    io::ErrorKind,
    os::unix::process::CommandExt as _,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Ack, Packet, QoS, ReasonCode};

use super::{lasting, puback};
use crate::{
    mqtt::{Client, connect},
    program::{PATIENCE, Place},
};

const STOPPED_FOR: Duration = Duration::from_secs(7);
const MESSAGES: u16 = 200;

/// Checks that a stopped process sends nothing, for as long as it must stay stopped.
fn expect_silence(client: &mut Client) {
    let patience = client.stream.read_timeout().unwrap();
    client.stream.set_read_timeout(Some(STOPPED_FOR)).unwrap();
    let silence = client.try_receive(|packet| panic!("{packet:?} from a stopped process"));
    assert_eq!(silence.unwrap_err().kind(), ErrorKind::WouldBlock);
    client.stream.set_read_timeout(patience).unwrap();
}

#[test]
fn a_process_that_is_stopped_for_a_while_loses_nothing_and_nobody() {
    let place = Place::new();
    let mut command = place.command();
    // The kernel continues a stopped process when the shell of its process group ends.
    command.process_group(0);
    let mut program = place.start_by(command);
    let mut durable = program.connected(lasting("durable"));
    durable.subscribe("t", QoS::AtLeastOnce);
    drop(durable);
    let mut live = program.client("live");
    live.subscribe("t", QoS::AtLeastOnce);
    let mut publisher = program.client("publisher");

    let mut publish = |numbers: std::ops::Range<u16>| {
        for number in numbers {
            publisher.publish("t", &number.to_be_bytes(), Some(number + 1)).unwrap();
        }
    };
    publish(0..MESSAGES / 2);
    // Its deadline of 1.5 times as much passes meanwhile; its PINGREQ has arrived before.
    let mut impatient = connect("impatient");
    impatient.keep_alive = 4;
    let mut impatient = program.connected(impatient);
    program.suspend();
    publish(MESSAGES / 2..MESSAGES);
    impatient.send(&Packet::PingReq);
    expect_silence(&mut impatient);
    program.signal("-CONT");

    for _ in 0..MESSAGES {
        assert_eq!(puback(&mut publisher), ReasonCode::Success);
    }
    impatient.receive(|packet| assert_eq!(packet, Packet::PingResp));
    assert!(program.is_online("impatient"));
    program.wait_for_readiness(200, "ready");
    let numbers = 0..MESSAGES;
    for number in numbers.clone() {
        let arrived = live.message();
        assert_eq!(arrived.payload, number.to_be_bytes());
        live.send(&Packet::PubAck(Ack::success(arrived.packet_id.unwrap())));
    }
    // It was stored, too.
    program.signal("-KILL");
    program.killed();
    let program = place.start();
    let mut durable = program.connected(lasting("durable"));
    for number in numbers {
        let arrived = durable.message();
        assert_eq!(arrived.payload, number.to_be_bytes());
        durable.send(&Packet::PubAck(Ack::success(arrived.packet_id.unwrap())));
    }
}

/// A subscriber that held publishers is not given up either: it could not make room.
#[test]
fn while_the_process_is_stopped_nobody_loses_patience() {
    const WAITING: u16 = 10;
    let place = Place::new()
        .set("shards=1")
        .set("limits.queue_full=hold-publisher")
        .set("limits.queue_hold_secs_max=6")
        .set(format!("limits.queue_messages_per_client_max={WAITING}"));
    let program = place.start();
    let mut packet = connect("slow");
    packet.properties.receive_maximum = Some(1);
    let mut slow = program.connected(packet);
    slow.subscribe("t", QoS::AtLeastOnce);
    let mut other = program.client("other");
    let mut publisher = program.client("publisher");
    for number in 0..2 * WAITING {
        publisher.publish("t", &number.to_be_bytes(), Some(number + 1)).unwrap();
    }
    let is_held = || {
        let metrics = program.call_as(None, "GET /metrics").body;
        metrics.lines().any(|line| line.ends_with("publishers_held 1"))
    };
    let until = Instant::now() + PATIENCE;
    while !is_held() {
        assert!(Instant::now() < until);
        other.ping();
    }
    program.suspend();
    expect_silence(&mut other);
    program.signal("-CONT");
    for number in 0..2 * WAITING {
        let arrived = slow.message();
        assert_eq!(arrived.payload, number.to_be_bytes());
        slow.send(&Packet::PubAck(Ack::success(arrived.packet_id.unwrap())));
        assert_eq!(puback(&mut publisher), ReasonCode::Success);
    }
}
