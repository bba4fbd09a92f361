//! Trouble with the store, its disk, its clock or its process: what the program reports in its log,
//! over HTTP and by Reason Codes, what continues meanwhile, and how it recovers.
//!
//! docs/operations.md has a table of this. This file has the helpers that the tests share.

mod clock;
mod disk;
mod full_disk;
mod slow_disk;
mod start;
mod stopped;

use std::process::Command;

use hearthmq::mqtt::{
    Ack, Connect, Packet, PacketId, ProtocolVersion, Publish, PublishFlags, PublishProperties, QoS,
    ReasonCode,
};

use crate::mqtt::{Client, connect};

/// Returns a CONNECT that resumes a durable session.
fn lasting(client_id: &str) -> Connect<'_> {
    let mut packet = connect(client_id);
    packet.clean_start = false;
    packet.properties.session_expiry_interval = Some(3_600);
    packet
}

/// The same in MQTT 3.1.1.
fn lasting_3(client_id: &str) -> Connect<'_> {
    Connect { version: ProtocolVersion::V3_1_1, clean_start: false, ..connect(client_id) }
}

/// Publishes with QoS 1; returns the Reason Code of PUBACK.
fn publish_1(client: &mut Client, topic: &str, payload: &[u8], id: u16) -> ReasonCode {
    client.publish(topic, payload, Some(id)).unwrap();
    puback(client)
}

/// Does the same for a retained message.
fn retain_1(client: &mut Client, topic: &str, payload: &[u8], id: u16) -> ReasonCode {
    client.send(&Packet::Publish(Publish {
        flags: PublishFlags { qos: QoS::AtLeastOnce, retain: true, ..PublishFlags::default() },
        topic,
        packet_id: PacketId::new(id),
        properties: PublishProperties::default(),
        payload,
    }));
    puback(client)
}

fn puback(client: &mut Client) -> ReasonCode {
    client.receive(|packet| match packet {
        Packet::PubAck(ack) => ack.reason,
        packet => panic!("PUBACK expected, not {packet:?}"),
    })
}

/// Expects messages with these payloads, and acknowledges each.
fn take(client: &mut Client, payloads: &[&[u8]]) {
    for payload in payloads {
        let arrived = client.message();
        assert_eq!(arrived.payload, *payload);
        if let Some(id) = arrived.packet_id {
            client.send(&Packet::PubAck(Ack::success(id)));
        }
    }
    client.ping();
}

/// Returns a command that gives the program its own file system, which ends with it; `None` where
/// the operating system does not permit it.
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn own_mounts() -> Option<&'static [&'static str]> {
    const WORDS: &[&str] = &["unshare", "--user", "--map-root-user", "--mount"];
    let mut command = Command::new(WORDS[0]);
    let tried = command.args(&WORDS[1..]).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if tried.is_ok_and(|output| output.status.success()) {
        return Some(WORDS);
    }
    eprintln!("LEFT OUT: file systems cannot be mounted here");
    None
}
