//! Accounts and permissions that are changed while there is no broker, and messages that expire then.

use std::{collections::BTreeSet, fs, process::Command, thread, time::Duration};

use hearthmq::{
    auth::{add_user, hash_password, remove_user},
    mqtt::{Packet, PacketId, ProtocolVersion, Publish, PublishFlags, PublishProperties, QoS},
};
use serde_json::Value;

use crate::{
    mqtt::{Client, connect},
    program::{PASSWORD, PATIENCE, Place, Program},
};

/// The session of a user that stays, with these subscriptions; its client has gone.
fn leave_session(program: &Program, user: &str, client_id: &str, filters: &[&str]) {
    let mut packet = connect(client_id);
    (packet.version, packet.clean_start) = (ProtocolVersion::V3_1_1, false);
    (packet.username, packet.password) = (Some(user), Some(PASSWORD.as_bytes()));
    let mut client = Client::connected(program.address("mqtt"), packet);
    for filter in filters {
        client.subscribe(filter, QoS::AtLeastOnce);
    }
    drop(client);
    while program.is_online(client_id) {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Publishes a message of QoS 1 and waits until it is acknowledged.
fn say(program: &Program, topic: &str, expiry: Option<u32>) {
    let mut client = program.client("speaker");
    client.send(&Packet::Publish(Publish {
        flags: PublishFlags { qos: QoS::AtLeastOnce, ..PublishFlags::default() },
        topic,
        packet_id: PacketId::new(1),
        properties: PublishProperties {
            message_expiry_interval: expiry,
            ..PublishProperties::default()
        },
        payload: b"x",
    }));
    client.receive(|packet| match packet {
        Packet::PubAck(ack) => assert!(!ack.reason.is_failure(), "{ack:?}"),
        packet => panic!("{packet:?}"),
    });
}

/// The topics of what waits on the disk, and the clients of the sessions there.
fn on_disk(place: &Place) -> (Vec<String>, BTreeSet<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
    command.args(["store", "export", "--data-dir", "data"]).current_dir(place.path(""));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let queued = lines.iter().filter(|line| line["kind"] == "queued");
    let topics = queued.map(|line| line["message"]["topic"].as_str().unwrap().to_owned());
    let sessions = lines.iter().filter(|line| line["kind"] == "session");
    let clients = sessions.map(|line| line["client_id"].as_str().unwrap().to_owned());
    (topics.collect(), clients.filter(|client_id| !client_id.is_empty()).collect())
}

/// Waits until the disk has just that.
fn wait_for(place: &Place, topics: &[&str], clients: &[&str]) {
    let begun = std::time::Instant::now();
    loop {
        let (found, sessions) = on_disk(place);
        if found == topics && sessions.iter().map(|client| &**client).eq(clients.iter().copied()) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{found:?} {sessions:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn stop(mut program: Program) {
    program.signal("-TERM");
    assert!(program.wait(PATIENCE).success());
}

#[test]
fn what_changes_while_there_is_no_broker_holds_from_its_start_on() {
    let place = Place::new();
    let accounts = place.path("data/users.toml");
    add_user(&accounts, "device-2", &hash_password(PASSWORD.as_bytes())).unwrap();
    let program = place.start();
    leave_session(&program, "device-1", "one", &["secret/#", "open/#"]);
    leave_session(&program, "device-2", "two", &["open/#"]);
    for topic in ["secret/x", "open/x"] {
        say(&program, topic, None);
    }
    stop(program);
    assert_eq!(on_disk(&place).0.len(), 3);
    remove_user(&accounts, "device-2").unwrap();
    // As those who come by password over TCP they may connect and have the rest.
    let policy = "[[rules]]\neffect = \"allow\"\nusers = [\"ops\"]\n\
                  [[rules]]\neffect = \"deny\"\nactions = [\"subscribe\"]\ntopics = [\"secret/#\"]\n\
                  [[rules]]\neffect = \"allow\"\nlogin = [\"password\"]\nlisteners = [\"mqtt://*\"]\n";
    fs::write(place.path("data/policy.toml"), policy).unwrap();
    let program = place.start();
    for topic in ["secret/y", "open/y"] {
        say(&program, topic, None);
    }
    wait_for(&place, &["open/x", "open/y"], &["one"]);
}

#[test]
fn what_expires_for_a_client_that_is_away_leaves_the_disk() {
    let place = Place::new();
    let program = place.start();
    leave_session(&program, "device-1", "one", &["t/#"]);
    say(&program, "t/stays", Some(3_600));
    say(&program, "t/goes", Some(3));
    wait_for(&place, &["t/stays"], &["one"]);
    // While there is no broker, too.
    say(&program, "t/goes", Some(1));
    stop(program);
    thread::sleep(Duration::from_secs(1));
    let _program = place.start();
    wait_for(&place, &["t/stays"], &["one"]);
}
