//! Section 3.1.2.11: the properties of CONNECT.

use std::collections::HashMap;

use hearthmq::mqtt::{Packet, ReasonCode};

use crate::{
    support::{Client, generous, packets::*, world, world_with},
    wire::*,
};

/// Returns a CONNECT of MQTT 5.0 with a Maximum Packet Size.
fn connect_within(maximum: u8) -> Vec<u8> {
    raw_connect_with(V5, CLEAN, &[5, 0x27, 0, 0, 0, maximum], &[b"\0\x01c"])
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[actix_rt::test]
async fn no_packet_exceeds_the_clients_maximum_packet_size() {
    let broker = world().await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    let (mut wire, _) = Wire::connected(&broker, &connect_within(40)).await;
    wire.send(&packet(0x82, &[b"\0\x01\0", b"\0\x01t\x02"])).await;
    wire.expect(b"\x90\x04\0\x01\0\x02").await;
    // 2 bytes of header, 3 of topic, 2 of identifier, 1 of Property Length.
    let (fits, too_large) = ("x".repeat(32), "x".repeat(33));
    for payload in [&too_large, &fits, &too_large, &fits] {
        publisher.publish(publish_1(1, "t", payload)).await;
        publisher.expect(puback(1, ReasonCode::Success)).await;
    }
    for _ in 0..2 {
        let received = wire.packet().await;
        assert_eq!(received.len(), 40);
        assert_eq!(received[8..], *fits.as_bytes());
        // A message that was too large counts as sent and completed: it blocks no other message.
        wire.send(&[0x40, 2, received[5], received[6]]).await;
    }
    wire.ping().await;
    // An answer that would be too large is not sent either; no other packet waits for it.
    let filters: Vec<u8> = (0..40).flat_map(|n| [0, 1, b'a' + n % 26, 0]).collect();
    wire.send(&packet(0x82, &[b"\0\x02\0", &filters])).await;
    wire.expect(b"\xE0\x01\x95").await;
}

/// [MQTT-3.1.2-25]: treated as completed, so a Receive Maximum of 1 is not used up.
#[actix_rt::test]
async fn a_message_that_is_too_large_does_not_count_as_unacknowledged() {
    let broker = world().await;
    let mut connect = connect("c");
    connect.properties.receive_maximum = Some(1);
    connect.properties.maximum_packet_size = Some(50);
    let mut client = Client::connected(&broker, connect).await;
    client.subscribe("t", QOS_2).await;
    for qos in [QOS_1, QOS_2, QOS_1] {
        broker.publish("t", &[b'x'; 100], qos, false).await.unwrap();
    }
    broker.publish("t", b"small", QOS_1, false).await.unwrap();
    assert_eq!(client.receive_payload().await, "small");
    client.ping().await;
}

/// [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-8] [MQTT-3.3.2-11]
#[actix_rt::test]
async fn no_topic_alias_exceeds_the_clients_maximum() {
    let broker = world().await;
    for maximum in [None, Some(0), Some(1), Some(3), Some(u16::MAX)] {
        let mut connect = connect("c");
        connect.properties.topic_alias_maximum = maximum;
        let mut client = Client::connected(&broker, connect).await;
        client.subscribe("t/#", QOS_0).await;
        let mut topics = HashMap::new();
        for _ in 0..2 {
            for number in 0..50 {
                let topic = format!("t/{number}");
                broker.publish(&topic, b"x", QOS_0, false).await.unwrap();
                let (name, alias) = client
                    .receive(|packet| {
                        let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                        (publish.topic.to_owned(), publish.properties.topic_alias)
                    })
                    .await;
                let Some(alias) = alias else {
                    assert_eq!(name, topic);
                    continue;
                };
                assert!((1..=maximum.unwrap_or(0)).contains(&alias), "{alias} of {maximum:?}");
                if !name.is_empty() {
                    topics.insert(alias, name);
                }
                assert_eq!(topics[&alias], topic, "an alias stands for what was said of it");
            }
        }
    }
}

/// Every packet with room for a Reason String or User Properties, except CONNACK, PUBLISH and
/// DISCONNECT, byte by byte. [MQTT-3.1.2-29]
#[actix_rt::test]
async fn no_problem_information_is_sent_where_none_is_wanted() {
    let mut limits = generous();
    limits.subscriptions_per_client_max = 1;
    limits.retained_messages_max = 0;
    let broker = world_with(|builder| builder.limits(limits)).await;
    let connect = raw_connect_with(V5, CLEAN, b"\x02\x17\0", &[b"\0\x01c"]);
    let (mut wire, _) = Wire::connected(&broker, &connect).await;
    for (sent, expected) in [
        // No subscriber; no room to retain; no such identifier.
        (&b"\x32\x06\0\x01t\0\x01\0"[..], &b"\x40\x03\0\x01\x10"[..]),
        (b"\x34\x06\0\x01t\0\x02\0", b"\x50\x03\0\x02\x10"),
        (b"\x33\x07\0\x01t\0\x03\0x", b"\x40\x03\0\x03\x97"),
        (b"\x62\x02\0\x09", b"\x70\x03\0\x09\x92"),
        (b"\x50\x02\0\x09", b"\x62\x03\0\x09\x92"),
        // A granted filter, one filter too many.
        (b"\x82\x0B\0\x04\0\0\x01a\0\0\x01b\0", b"\x90\x05\0\x04\0\0\x97"),
        (b"\xA2\x06\0\x05\0\0\x01x", b"\xB0\x04\0\x05\0\x11"),
    ] {
        wire.send(sent).await;
        wire.expect(expected).await;
    }
    wire.ping().await;
}

/// [MQTT-3.1.3-12] [MQTT-3.1.2-16] [MQTT-3.1.2-17]: an empty User Name and an empty Password count
/// as present, and any bytes are a valid Password.
#[actix_rt::test]
async fn a_user_name_is_text_and_a_password_is_bytes() {
    let broker = world().await;
    for version in VERSIONS {
        let flags = CLEAN | USER_NAME | PASSWORD;
        for password in [&b"\0\0"[..], b"\0\x03\0\xFF\xED"] {
            for username in [&b"\0\0"[..], b"\0\x02\xC3\xBC"] {
                let connect = raw_connect(version, flags, &[b"\0\x01c", username, password]);
                Wire::connected(&broker, &connect).await;
            }
        }
    }
}
