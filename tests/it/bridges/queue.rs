//! The queue of a bridge: its own bounds, and the order in which it is sent over many connections.

use std::collections::BTreeSet;

use fastrand::Rng;
use hearthmq::{
    bridge::{BridgeOptions, Direction},
    control::BridgePhase,
    mqtt::{ConnAck, ConnAckProperties, Packet, PacketId, ProtocolVersion, ReasonCode},
};

use super::network::{Network, Server, bridge_with, connected, topic, until};
use crate::support::{Client, millis, packets::*, pass, secs, world_with};

/// Takes the CONNECT of a bridge, and accepts it.
async fn accepted(
    server: &mut Server,
    version: ProtocolVersion,
    session_present: bool,
    receive_maximum: Option<u16>,
) -> Client {
    let mut client = server.accept(version).await;
    client.receive(|packet| assert!(matches!(packet, Packet::Connect(_)), "{packet:?}")).await;
    let properties = ConnAckProperties { receive_maximum, ..ConnAckProperties::default() };
    let ack = ConnAck { session_present, properties, ..connack(ReasonCode::Success) };
    client.send(Packet::ConnAck(Box::new(ack))).await;
    client
}

/// Returns the next message: its identifier, its number, and whether it was sent before.
async fn next(client: &mut Client) -> (PacketId, u32, bool) {
    client
        .receive(|packet| match packet {
            Packet::Publish(publish) => {
                let number = str::from_utf8(publish.payload).unwrap().trim().parse().unwrap();
                (publish.packet_id.unwrap(), number, publish.flags.dup)
            }
            other => panic!("{other:?}"),
        })
        .await
}

/// Returns the numbers that are left of 20 messages of 100 bytes while nobody takes them.
async fn left_of_twenty(change: impl FnOnce(&mut BridgeOptions)) -> Vec<u32> {
    let network = Network::default();
    let bridge = bridge_with("remote", vec![topic("out/#", Direction::Out, QOS_1)], change);
    let broker = world_with(|builder| network.join(builder, [bridge])).await;
    let mut other = Client::connected(&broker, connect_lasting("other", V5)).await;
    other.subscribe("out/#", QOS_1).await;
    drop(other);
    pass(secs(1)).await;
    for number in 0..20 {
        let payload = format!("{number:100}");
        broker.publish("out/a", payload.as_bytes(), QOS_1, false).await.unwrap();
    }
    let view = until(&broker, "remote", BridgePhase::Waiting).await;
    // The bounds are those of the bridge alone.
    let other = broker.client("other").await.unwrap().unwrap();
    assert_eq!(other.queued, 20);
    let mut server = network.server("remote");
    let mut remote = accepted(&mut server, V5, false, None).await;
    let mut numbers = Vec::new();
    for _ in 0..view.queued.0 {
        numbers.push(next(&mut remote).await.1);
    }
    remote.expect_nothing_for(secs(1)).await;
    numbers
}

#[actix_rt::test]
async fn a_bridge_has_bounds_of_its_own_for_what_waits() {
    assert_eq!(left_of_twenty(|_| ()).await, (0..20).collect::<Vec<_>>());
    let left = left_of_twenty(|it| it.queue_messages_max = Some(3)).await;
    assert_eq!(left, [17, 18, 19], "the oldest give way");
    let left = left_of_twenty(|it| it.queue_bytes_max = Some(1_000)).await;
    assert!((2..10).contains(&left.len()), "{left:?}");
    assert_eq!(left, (20 - left.len() as u32..20).collect::<Vec<_>>());
}

/// Messages on the wire over many connections, each with acknowledgements in any order and a cut at any
/// moment. A connection begins with all that is not acknowledged, in the order of the first time.
async fn run(version: ProtocolVersion, seed: u64) {
    const MESSAGES: u32 = 120;
    let mut random = Rng::with_seed(seed);
    let network = Network::default();
    let mut server = network.server("remote");
    let bridge = bridge_with("remote", vec![topic("out/#", Direction::Out, QOS_1)], |it| {
        it.version = version;
        it.reconnect_max = secs(1);
        it.keep_alive_secs = u16::MAX; // no PINGREQ
    });
    let broker = world_with(|builder| network.join(builder, [bridge])).await;
    for number in 0..MESSAGES {
        broker.publish("out/a", number.to_string().as_bytes(), QOS_1, false).await.unwrap();
    }
    let mut done = BTreeSet::new();
    let mut seen_max = None;
    while done.len() < MESSAGES as usize {
        // A broker of MQTT 3.1.1 takes what Mosquitto takes by default.
        let receive_maximum = (version == V5).then(|| random.u16(1..=30));
        let window = usize::from(receive_maximum.unwrap_or(20));
        let mut remote = accepted(&mut server, version, seen_max.is_some(), receive_maximum).await;
        let mut expected =
            (0..MESSAGES).filter(|number| !done.contains(number)).collect::<Vec<_>>().into_iter();
        let mut held = Vec::new();
        for _ in 0..random.usize(0..60) {
            let is_full = held.len() == window || expected.len() == 0;
            if is_full {
                remote.expect_nothing().await;
            }
            if is_full || (!held.is_empty() && random.bool()) {
                if held.is_empty() {
                    break;
                }
                let (id, number): (PacketId, u32) = held.swap_remove(random.usize(0..held.len()));
                remote.send(puback(id.number(), ReasonCode::Success)).await;
                done.insert(number);
                continue;
            }
            let (id, number, is_dup) = next(&mut remote).await;
            assert_eq!(Some(number), expected.next(), "seed {seed}");
            // What was sent and not read here was sent before, too.
            assert!(is_dup || seen_max.is_none_or(|max| number > max), "seed {seed}");
            seen_max = seen_max.max(Some(number));
            held.push((id, number));
        }
        pass(millis(10)).await; // for the acknowledgements
    }
    let mut remote = accepted(&mut server, version, true, None).await;
    remote.expect_nothing_for(secs(2)).await;
    assert_eq!(connected(&broker, "remote").await.in_flight, 0);
}

#[actix_rt::test]
async fn what_is_sent_again_after_a_cut_comes_first_and_in_its_order() {
    for seed in 0..10 {
        run(V3_1_1, seed).await;
        run(V5, seed).await;
    }
}
