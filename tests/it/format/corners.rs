//! Common mistakes of brokers: strings, identifiers, order of packets, at the edges of the
//! standard.

use hearthmq::mqtt::{Connect, Packet, ProtocolVersion, ReasonCode, encode};

use crate::support::{Client, packets::*, world};

fn bytes_of(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes).unwrap();
    bytes
}

/// Returns the same bytes with this text in place of `XXXX`, which is as long.
fn with_text(mut bytes: Vec<u8>, text: [u8; 4]) -> Vec<u8> {
    let at = bytes.windows(4).position(|window| window == b"XXXX").unwrap();
    bytes[at..at + 4].copy_from_slice(&text);
    bytes
}

/// Four bytes that are not a valid MQTT string: U+0000, both ends of the surrogates, an overlong
/// slash, and a character above U+10FFFF.
const NO_STRINGS: [[u8; 4]; 5] = [
    *b"a\0bc",
    [b'a', 0xED, 0xA0, 0x80],
    [b'a', 0xED, 0xBF, 0xBF],
    [b'a', b'b', 0xC0, 0xAF],
    [0xF4, 0x90, 0x80, 0x80],
];

/// [MQTT-1.5.4-1] [MQTT-1.5.4-2]: in every string of every packet that has one.
#[actix_rt::test]
async fn a_string_with_null_or_a_surrogate_ends_the_connection() {
    let broker = world().await;
    for version in VERSIONS {
        for text in NO_STRINGS {
            let mut packets = vec![
                Packet::Publish(publish("XXXX", "x")),
                subscribe(1, vec![filter("XXXX", QOS_0)]),
                unsubscribe(1, vec!["XXXX"]),
            ];
            if version == V5 {
                let mut typed = publish("t", "x");
                typed.properties.content_type = Some("XXXX");
                packets.push(Packet::Publish(typed));
                let mut answered = publish("t", "x");
                answered.properties.response_topic = Some("XXXX");
                packets.push(Packet::Publish(answered));
            }
            for packet in packets {
                let mut client = Client::connected(&broker, connect_in(version, "c")).await;
                client.send_bytes(&with_text(bytes_of(&packet, version), text)).await;
                client.expect_disconnect(ReasonCode::MalformedPacket).await;
            }
        }
    }
}

/// The same for CONNECT: Client Identifier, Will Topic, User Name.
#[actix_rt::test]
async fn a_connect_whose_strings_are_none_is_refused() {
    let broker = world().await;
    for version in VERSIONS {
        let plain = connect_in(version, "c");
        let connects = [
            connect_in(version, "XXXX"),
            Connect { will: Some(will("XXXX", "x")), ..plain.clone() },
            Connect { username: Some("XXXX"), ..plain },
        ];
        for packet in connects {
            for text in NO_STRINGS {
                let bytes = bytes_of(&Packet::Connect(Box::new(packet.clone())), version);
                let mut client = Client::new(&broker, version);
                client.send_bytes(&with_text(bytes, text)).await;
                if version == V5 {
                    client.expect_refused(ReasonCode::MalformedPacket).await;
                } else {
                    client.expect_closed().await;
                }
            }
        }
    }
}

/// [MQTT-1.5.4-3]: U+FEFF is a character in any position. Different characters are never equal.
/// [MQTT-4.7.3-4]
#[actix_rt::test]
async fn strings_are_compared_byte_by_byte() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let topics =
        ["a", "\u{FEFF}a", "a\u{FEFF}", "A", "a ", " a", "\u{E4}", "a\u{308}", "\u{10FFFF}"];
    for topic in topics {
        client.subscribe(topic, QOS_0).await;
        for published in topics {
            broker.publish(published, b"x", QOS_0, false).await.unwrap();
        }
        client.expect_publish(publish(topic, "x")).await;
        client.ping().await;
        client.send(unsubscribe(2, vec![topic])).await;
        client.expect(unsuback(2, &[ReasonCode::Success])).await;
    }
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

/// [MQTT-3.14.4-1]: bytes after DISCONNECT are ignored, even in the same write.
#[actix_rt::test]
async fn what_follows_disconnect_is_not_looked_at() {
    let broker = world().await;
    let mut watcher = Client::connected(&broker, connect("watcher")).await;
    watcher.subscribe("#", QOS_2).await;
    for version in VERSIONS {
        let mut packet = connect_in(version, "c");
        packet.will = Some(will("w", "x"));
        let mut client = Client::connected(&broker, packet).await;
        let mut bytes = bytes_of(&disconnect(ReasonCode::Success), version);
        bytes.extend(bytes_of(&Packet::Publish(publish("t", "x")), version));
        bytes.extend(bytes_of(&Packet::Publish(publish_1(1, "t", "x")), version));
        bytes.extend([0; 10]);
        client.send_bytes(&bytes).await;
        client.expect_closed().await;
    }
    watcher.expect_nothing().await;
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
