//! A client whose queue is full: the log says when it begins to lose messages, and how many it has lost.

use hearthmq::mqtt::QoS;

use crate::{
    mqtt::{Client, connect},
    program::{PASSWORD, Place},
};

#[test]
fn a_queue_that_loses_messages_is_told_when_it_begins_and_when_it_is_over() {
    let place = Place::new().set("limits.queue_messages_per_client_max=5");
    let program = place.start();
    let mut packet = connect("sleeper");
    (packet.username, packet.password) = (Some("ops"), Some(PASSWORD.as_bytes()));
    packet.clean_start = false;
    packet.properties.session_expiry_interval = Some(600);
    let mut sleeper = Client::connected(program.address("mqtt"), packet);
    sleeper.subscribe("t", QoS::AtLeastOnce);
    drop(sleeper);
    program.line_with(&["disconnected", "sleeper"]);
    let mut publisher = program.client("publisher");
    for _ in 0..105 {
        publisher.publish("t", b"x", Some(1)).unwrap();
        publisher.receive(|_| ());
    }
    let begins = program.line_with(&["queue full, drops messages"]);
    assert!(begins.contains("WARN hearthmq::clients") && !begins.contains("peer="), "{begins}");
    assert!(begins.contains(r#"client_id="sleeper" user="ops""#), "{begins}");
    let ends = program.line_with(&["drops no more messages"]);
    assert!(ends.contains("messages=100 ") && ends.contains(r#"client_id="sleeper""#), "{ends}");
    let lines = program.logged();
    let told = lines.iter().filter(|line| line.contains("queue full")).count();
    assert_eq!(told, 1, "{lines:#?}");
}
