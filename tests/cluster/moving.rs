//! No message is lost when clients move between brokers: those that arrive during a hand-over follow the session.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use hearthmq::mqtt::{Packet, ReasonCode};
use hearthmq_test::{
    nats::NatsServers,
    packets::{V5, publish_1, publish_2, pubrel},
};

use crate::{
    running::Node,
    subscriber::{Stream, Subscriber},
    support::PATIENCE,
};

/// Publishes a message of QoS 1 and one of QoS 2, again and again; returns how many were acknowledged.
fn publish(node: &Node, name: &str, stop: &AtomicBool) -> BTreeMap<Stream, u64> {
    let (mut client, _) = node.connected(name, V5);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let text = format!("{name} {number}");
        client.send(&Packet::Publish(publish_1(1, "hop/one", &text)));
        client.send(&Packet::Publish(publish_2(2, "hop/two", &text)));
        let mut left = 2;
        while left > 0 {
            let reply = client.receive(|packet| match packet {
                Packet::PubAck(ack) => {
                    assert_eq!(ack.reason, ReasonCode::Success, "{name} {number}");
                    None
                }
                Packet::PubRec(ack) => {
                    assert_eq!(ack.reason, ReasonCode::Success, "{name} {number}");
                    Some(ack.packet_id.0.get())
                }
                Packet::PubComp(_) => None,
                packet @ (Packet::Connect(_)
                | Packet::ConnAck(_)
                | Packet::Publish(_)
                | Packet::PubRel(_)
                | Packet::Subscribe(_)
                | Packet::SubAck(_)
                | Packet::Unsubscribe(_)
                | Packet::UnsubAck(_)
                | Packet::PingReq
                | Packet::PingResp
                | Packet::Disconnect(_)
                | Packet::Auth(_)
                | _) => panic!("{packet:?}"),
            });
            match reply {
                Some(id) => client.send(&pubrel(id)),
                None => left -= 1,
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    [1, 2].map(|qos| ((name.to_owned(), qos), number)).into()
}

/// A client moves between two brokers 50 times, while a publisher on each sends messages of QoS 1 and 2. None is
/// missing, none of QoS 2 is doubled, and those of each publisher and QoS come in order.
#[test]
fn no_message_is_lost_or_reordered_while_a_client_hops() {
    const HOPS: usize = 50;
    let Some(servers) = NatsServers::start(1) else { return };
    let nodes = [Node::serving("a", &servers), Node::serving("b", &servers)];
    let mut hopper = Subscriber::default();
    assert!(!hopper.connect(&nodes[0], "hopper"));
    hopper.subscribe();
    let stop = AtomicBool::new(false);
    let acknowledged: BTreeMap<Stream, u64> = thread::scope(|scope| {
        let (nodes, stop) = (&nodes, &stop);
        let publishers = [("left", 0), ("right", 1)]
            .map(|(name, node)| scope.spawn(move || publish(&nodes[node], name, stop)));
        for hop in 1..=HOPS {
            hopper.receive(Duration::from_millis(10 + 7 * (hop as u64 % 13)), |_| false);
            assert!(hopper.connect(&nodes[hop % 2], "hopper"), "Session Present, hop {hop}");
        }
        stop.store(true, Ordering::Relaxed);
        let ended = publishers.map(|publisher| {
            loop {
                hopper.receive(Duration::from_millis(20), |_| false);
                if publisher.is_finished() {
                    break publisher.join().unwrap();
                }
            }
        });
        ended.into_iter().flatten().collect()
    });
    hopper.receive(PATIENCE / 3, |hopper| hopper.missing(&acknowledged).is_empty());
    hopper.receive(Duration::from_millis(200), |_| false);
    println!("acknowledged: {acknowledged:?}, out of order: {}", hopper.out_of_order.len());
    assert_eq!(hopper.missing(&acknowledged), vec![]);
    assert_eq!(hopper.doubled(), vec![]);
    assert_eq!(hopper.out_of_order, vec![]);
}
