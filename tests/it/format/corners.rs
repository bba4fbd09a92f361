//! Common mistakes of brokers, at the edges of the standard: empty levels, a second CONNECT,
//! identifiers.

use hearthmq::mqtt::{Packet, ProtocolVersion, ReasonCode, encode};

use crate::support::{Client, packets::*, world};

fn bytes_of(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes).unwrap();
    bytes
}

/// Section 4.7.1.1: a level may be empty and still counts as a level, retained or not.
#[actix_rt::test]
async fn an_empty_level_is_a_level() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        for (topic, filters) in [
            ("/", &["/", "+/+", "/+", "+/", "#", "/#", "+/#"][..]),
            ("//", &["//", "+/+/+", "/+/", "#", "/#", "//#"]),
            ("a//b", &["a//b", "a/+/b", "a/+/+", "a//+", "a//#"]),
            ("a/", &["a/", "a/+", "+/+", "a/#", "a//#"]),
            ("/a", &["/a", "+/a", "+/+", "/#"]),
        ] {
            for asked in filters {
                client.subscribe(asked, QOS_0).await;
                broker.publish(topic, b"x", QOS_0, true).await.unwrap();
                client.expect_publish(publish(topic, "x")).await;
                client.send(unsubscribe(2, vec![asked])).await;
                client.receive(|packet| assert!(matches!(packet, Packet::UnsubAck(_)))).await;
                client.subscribe(asked, QOS_0).await;
                client.expect_publish(retained(publish(topic, "x"))).await;
                broker.publish(topic, b"", QOS_0, true).await.unwrap();
                client.expect_publish(publish(topic, "")).await;
                client.send(unsubscribe(2, vec![asked])).await;
                client.receive(|packet| assert!(matches!(packet, Packet::UnsubAck(_)))).await;
            }
            for other in ["a", "+", "a/b", "+/+/+/+", "///"] {
                client.subscribe(other, QOS_0).await;
                broker.publish(topic, b"x", QOS_0, false).await.unwrap();
                client.ping().await;
                client.send(unsubscribe(2, vec![other])).await;
                client.receive(|packet| assert!(matches!(packet, Packet::UnsubAck(_)))).await;
            }
        }
    }
}

/// [MQTT-3.1.0-2]: it is not processed, so it changes neither the Will nor the session.
#[actix_rt::test]
async fn a_second_connect_replaces_nothing() {
    let broker = world().await;
    let mut watcher = Client::connected(&broker, connect("watcher")).await;
    watcher.subscribe("w/#", QOS_0).await;
    for version in VERSIONS {
        let mut packet = connect_lasting("c", version);
        packet.will = Some(will("w/1", "first"));
        let mut client = Client::connected(&broker, packet).await;
        client.subscribe("t", QOS_1).await;
        let mut packet = connect_in(version, "c");
        packet.will = Some(will("w/2", "second"));
        client.send(Packet::Connect(Box::new(packet))).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
        watcher.expect_publish(publish("w/1", "first")).await;
        watcher.ping().await;
        let connect = connect_lasting("c", version);
        let (_, session_present) = Client::connected_with(&broker, connect).await;
        assert!(session_present);
        assert_eq!(broker.client("c").await.unwrap().unwrap().subscriptions, 1);
    }
}

/// Section 2.2.1: client and broker assign identifiers independently of each other.
#[actix_rt::test]
async fn both_sides_may_use_the_same_identifier_at_once() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe("t", QOS_2).await;
        client.publish(publish_2(1, "t", "x")).await;
        let mut packets = Vec::new();
        for _ in 0..2 {
            packets.push(client.receive(|packet| bytes_of(&packet, version)).await);
        }
        let expected: [&Packet<'_>; 2] =
            [&Packet::Publish(publish_2(1, "t", "x")), &pubrec(1, ReasonCode::Success)];
        assert_eq!(packets, expected.map(|packet| bytes_of(packet, version)));
        // Both deliveries, each to its end.
        client.send(pubrec(1, ReasonCode::Success)).await;
        client.expect(pubrel(1)).await;
        client.send(pubrel(1)).await;
        client.expect(pubcomp(1)).await;
        client.send(pubcomp(1)).await;
        client.ping().await;
        assert_eq!(broker.client("c").await.unwrap().unwrap().in_flight, 0);
    }
}
