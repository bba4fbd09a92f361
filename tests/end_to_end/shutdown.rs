//! SIGTERM: all clients are notified, no acknowledged message is lost, and the program ends.

use std::{
    collections::HashSet,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Packet, ProtocolVersion, QoS, ReasonCode};

use crate::{
    http::{basic, exchange, request},
    mqtt::{Client, arrived, connect, tcp},
    program::{PASSWORD, PATIENCE, Place},
};

/// Maximum number of QoS 1 messages of one publisher in flight.
const WINDOW: u32 = 64;

/// Publishes until the broker ends the connection; returns the number of acknowledged messages.
fn publish_until_the_end(mut client: Client, name: &str) -> u32 {
    let (mut sent, mut acknowledged) = (0, 0);
    loop {
        while sent < acknowledged + WINDOW {
            let id = u16::try_from(sent % WINDOW + 1).unwrap();
            let payload = format!("{name} {sent}");
            // The broker may have closed; its last packets are read below.
            if client.publish("load", payload.as_bytes(), Some(id)).is_err() {
                break;
            }
            sent += 1;
        }
        let goes_on = client.receive(|packet| match packet {
            Packet::PubAck(ack) => {
                assert_eq!(ack.reason, ReasonCode::Success);
                true
            }
            Packet::Disconnect(disconnect) => {
                assert_eq!(disconnect.reason, ReasonCode::ServerShuttingDown);
                false
            }
            packet => panic!("{packet:?}"),
        });
        if !goes_on {
            return acknowledged;
        }
        acknowledged += 1;
    }
}

/// Returns everything that arrives until the broker announces its shutdown.
fn receive_until_the_end(mut client: Client) -> HashSet<String> {
    let mut messages = HashSet::new();
    loop {
        let message = client.receive(|packet| match packet {
            Packet::Publish(publish) => Some(arrived(&publish).payload),
            Packet::Disconnect(disconnect) => {
                assert_eq!(disconnect.reason, ReasonCode::ServerShuttingDown);
                None
            }
            packet => panic!("{packet:?}"),
        });
        let Some(payload) = message else {
            return messages;
        };
        let is_new = messages.insert(String::from_utf8(payload).unwrap());
        assert!(is_new, "nothing comes twice");
    }
}

fn client(address: SocketAddr, client_id: &str) -> Client {
    let mut packet = connect(client_id);
    packet.username = Some("ops");
    packet.password = Some(PASSWORD.as_bytes());
    Client::connected(address, packet)
}

/// QoS 1 in, QoS 0 out: Receive Maximum does not delay an acknowledged message.
#[test]
fn under_load_whatever_was_acknowledged_arrives_before_everybody_is_told_and_the_program_ends() {
    // Room for subscribers that a busy machine slows down: a full queue drops QoS 0.
    let place = Place::new()
        .set("limits.queue_messages_per_client_max=1000000")
        .set("shutdown_deadline_secs=120");
    let mut program = place.start();
    let mqtt = program.address("mqtt");
    let subscribers: Vec<_> = (0..4)
        .map(|number| {
            let mut subscriber = client(mqtt, &format!("subscriber-{number}"));
            subscriber.subscribe("load", QoS::AtMostOnce);
            thread::spawn(move || receive_until_the_end(subscriber))
        })
        .collect();
    let publishers: Vec<_> = (0..4)
        .map(|number| {
            let name = format!("publisher-{number}");
            thread::spawn(move || {
                let acknowledged = publish_until_the_end(client(mqtt, &name), &name);
                (name, acknowledged)
            })
        })
        .collect();
    let mut old = connect("old");
    old.version = ProtocolVersion::V3_1_1;
    let mut old = program.connected(old);

    thread::sleep(Duration::from_millis(500)); // of load
    program.signal("-TERM");
    old.expect_disconnect(ReasonCode::ServerShuttingDown);
    let published: Vec<_> = publishers.into_iter().map(|it| it.join().unwrap()).collect();
    let received: Vec<_> = subscribers.into_iter().map(|it| it.join().unwrap()).collect();
    assert_eq!(program.wait(PATIENCE).code(), Some(0));

    for (name, acknowledged) in published {
        assert!(acknowledged > 0);
        for messages in &received {
            let lost = (0..acknowledged).find(|n| !messages.contains(&format!("{name} {n}")));
            assert_eq!(lost, None, "{name} was told that {acknowledged} messages are safe");
        }
    }
}

#[test]
fn an_idle_http_connection_does_not_hold_the_end_up() {
    let place = Place::new().set("shutdown_deadline_secs=600"); // longer than the test waits
    let mut program = place.start();
    let login = basic(&format!("ops:{PASSWORD}"));
    let mut idle = tcp(program.address("http"));
    let kept =
        request("GET /client-id/a/status", Some(&login)).replace("Connection: close\r\n", "");
    std::io::Write::write_all(&mut idle, kept.as_bytes()).unwrap();
    std::io::Read::read(&mut idle, &mut [0; 4096]).unwrap();
    program.signal("-TERM");
    assert_eq!(program.wait(PATIENCE).code(), Some(0));
    assert!(exchange(idle, kept).is_err());
}

#[test]
fn a_client_that_does_not_read_is_cut_off_at_the_deadline() {
    let place = Place::new().set("shutdown_deadline_secs=1");
    let mut program = place.start();
    let mut deaf = program.client("deaf");
    deaf.subscribe("much", QoS::AtMostOnce);
    let mut publisher = program.client("publisher");
    for _ in 0..15 {
        publisher.publish("much", &vec![0; 1_000_000], None).unwrap();
    }
    publisher.ping();
    let began = Instant::now();
    program.signal("-TERM");
    assert_eq!(program.wait(PATIENCE).code(), Some(0));
    assert!(began.elapsed() >= Duration::from_millis(900));
    publisher.expect_disconnect(ReasonCode::ServerShuttingDown);
}
