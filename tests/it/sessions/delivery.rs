//! Sections 4.1 to 4.5: what a session stores, and the delivery of messages of each Quality of
//! Service.

use std::collections::BTreeSet;

use hearthmq::{
    Broker,
    mqtt::{Packet, ProtocolVersion, QoS, ReasonCode},
};

use crate::support::{self, Client, packets::*, world, world_with};

/// Returns the bytes of these packets, in order.
pub(crate) fn bytes_of(version: ProtocolVersion, packets: &[Packet<'_>]) -> Vec<u8> {
    packets.iter().flat_map(|packet| encoded(packet, version)).collect()
}

/// Ends the session of `c`.
async fn forget(broker: &Broker, version: ProtocolVersion) {
    Client::connected(broker, connect_in(version, "c")).await.leave().await;
}

/// [MQTT-4.2.0-1]
/// 3.1.1: [MQTT-7.1.1-1]
/// A stream has no packet boundaries.
#[actix_rt::test]
async fn packets_may_come_byte_by_byte_or_many_at_once() {
    let broker = world().await;
    for version in [V3_1, V3_1_1, V5] {
        let mut client = Client::new(&broker, version);
        let first = Packet::Connect(Box::new(connect_in(version, "c")));
        for byte in encoded(&first, version) {
            client.send_bytes(&[byte]).await;
            tokio::task::yield_now().await;
        }
        client.expect_connected().await;
        let packets = [
            subscribe(1, vec![filter("t", QOS_0)]),
            Packet::Publish(publish_1(2, "t", "x")),
            Packet::PingReq,
        ];
        let bytes = bytes_of(version, &packets);
        for byte in &bytes {
            client.send_bytes(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        for _ in 0..2 {
            client.expect(suback(1, &[ReasonCode::Success])).await;
            client.expect_publish(publish("t", "x")).await;
            client.expect(puback(2, ReasonCode::Success)).await;
            client.expect(Packet::PingResp).await;
            client.send_bytes(&bytes).await;
        }
    }
}

/// [MQTT-4.3.1-1]
/// 3.1.1: [MQTT-4.3.1-1]
/// One byte shows it: type 3, DUP, QoS and RETAIN all zero; no identifier, no answer.
#[actix_rt::test]
async fn qos_0_is_sent_once_without_dup() {
    let broker = world().await;
    for version in VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        client.subscribe("t", QOS_2).await;
        let bytes: &[u8] =
            if version == V5 { b"\x30\x05\x00\x01t\x00x" } else { b"\x30\x04\x00\x01tx" };
        publisher.send_bytes(bytes).await;
        client.expect_bytes(bytes).await;
        publisher.ping().await;
        client.ping().await;
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        client.ping().await;
        forget(&broker, version).await;
    }
}

/// [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.3-1] [MQTT-4.3.3-2]
/// 3.1.1: [MQTT-4.3.2-1] [MQTT-4.3.3-1]
#[actix_rt::test]
async fn each_new_message_has_an_identifier_that_is_not_in_use_and_no_dup() {
    let broker = world().await;
    for version in VERSIONS {
        for qos in [QOS_1, QOS_2] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.subscribe("t", QOS_2).await;
            let mut in_use = BTreeSet::new();
            for round in 0..600 {
                broker.publish("t", b"x", qos, false).await.unwrap();
                let packet_id = client.receive(|packet| new_message(&packet, qos)).await;
                assert!(in_use.insert(packet_id), "{packet_id} is in use");
                // Every third message stays unacknowledged; QoS 2 needs PUBCOMP to complete.
                if round % 3 != 0 {
                    client.take(qos, packet_id).await;
                    in_use.remove(&packet_id);
                } else if qos == QOS_2 && round % 2 == 0 {
                    client.send(pubrec(packet_id, ReasonCode::Success)).await;
                    client.expect(pubrel(packet_id)).await;
                }
            }
        }
    }
}

/// Returns the identifier of a message that comes for the first time.
fn new_message(packet: &Packet<'_>, qos: QoS) -> u16 {
    let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
    assert_eq!((publish.flags.qos, publish.flags.dup), (qos, false));
    publish.packet_id.unwrap().number()
}

/// Starts a broker with at most one message in flight to a client, and connects such a client.
async fn one_at_a_time(version: ProtocolVersion) -> (Broker, Client) {
    let mut limits = support::generous();
    limits.in_flight_max = 1;
    let broker = world_with(|builder| builder.limits(limits)).await;
    let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
    client.subscribe("t", QOS_2).await;
    (broker, client)
}

/// [MQTT-4.3.2-3]
/// 3.1.1: [MQTT-4.3.2-1]
/// An answer to another message does not count.
#[actix_rt::test]
async fn a_qos_1_message_is_unacknowledged_until_its_puback() {
    for version in VERSIONS {
        let (broker, mut client) = one_at_a_time(version).await;
        broker.publish("t", b"1", QOS_1, false).await.unwrap();
        broker.publish("t", b"2", QOS_1, false).await.unwrap();
        client.expect_publish(publish_1(1, "t", "1")).await;
        client.send(puback(2, ReasonCode::Success)).await;
        client.ping().await;
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        client.expect_publish(dup(publish_1(1, "t", "1"))).await;
        client.ping().await;
        client.send(puback(1, ReasonCode::Success)).await;
        client.expect_publish(publish_1(2, "t", "2")).await;
        client.ping().await;
    }
}

/// [MQTT-4.3.2-4] [MQTT-4.3.2-5]
/// 3.1.1: [MQTT-4.3.2-2]
#[actix_rt::test]
async fn a_qos_1_message_is_acknowledged_and_then_its_identifier_means_a_new_one() {
    let broker = world().await;
    for version in VERSIONS {
        let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
        subscriber.subscribe("t", QOS_0).await;
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        for packet in [publish_1(0x1234, "t", "x"), dup(publish_1(0x1234, "t", "x"))] {
            client.publish(packet).await;
            client.expect_bytes(b"\x40\x02\x12\x34").await;
            subscriber.expect_publish(publish("t", "x")).await;
        }
        subscriber.ping().await;
        client.ping().await;
    }
}

/// [MQTT-4.3.3-3] [MQTT-4.3.3-4] [MQTT-4.3.3-5] [MQTT-4.3.3-6]
/// 3.1.1: [MQTT-4.3.3-1]
#[actix_rt::test]
async fn a_qos_2_message_is_sent_until_pubrec_and_its_pubrel_until_pubcomp() {
    for version in VERSIONS {
        let (broker, mut client) = one_at_a_time(version).await;
        broker.publish("t", b"1", QOS_2, false).await.unwrap();
        broker.publish("t", b"2", QOS_2, false).await.unwrap();
        client.expect_publish(publish_2(1, "t", "1")).await;
        // Before PUBREC there is no PUBREL; a PUBCOMP is a Protocol Error and does not complete it.
        client.send(pubcomp(1)).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        client.expect_publish(dup(publish_2(1, "t", "1"))).await;
        client.ping().await;
        client.send(pubrec(1, ReasonCode::Success)).await;
        client.expect_bytes(b"\x62\x02\x00\x01").await;
        client.ping().await;
        for _ in 0..2 {
            client = Client::connected(&broker, connect_lasting("c", version)).await;
            client.expect_bytes(b"\x62\x02\x00\x01").await;
            client.ping().await;
        }
        client.send(pubcomp(1)).await;
        client.expect_publish(publish_2(2, "t", "2")).await;
        client.ping().await;
    }
}

/// [MQTT-4.3.3-8] [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12]
/// 3.1.1: [MQTT-4.3.3-2]
#[actix_rt::test]
async fn a_qos_2_message_is_delivered_once_until_its_pubrel() {
    let broker = world().await;
    for version in VERSIONS {
        let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
        subscriber.subscribe("t", QOS_0).await;
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        for payload in ["first", "second"] {
            client.publish(publish_2(0x1234, "t", payload)).await;
            client.expect_bytes(b"\x50\x02\x12\x34").await;
            subscriber.expect_publish(publish("t", payload)).await;
            client.publish(publish_2(0x1234, "t", payload)).await;
            client.expect_bytes(b"\x50\x02\x12\x34").await;
            client = Client::connected(&broker, connect_lasting("c", version)).await;
            client.publish(dup(publish_2(0x1234, "t", payload))).await;
            client.expect_bytes(b"\x50\x02\x12\x34").await;
            client.send_bytes(b"\x62\x02\x12\x34").await;
            client.expect_bytes(b"\x70\x02\x12\x34").await;
            subscriber.ping().await;
        }
        forget(&broker, version).await;
    }
}

/// [MQTT-4.1.0-1] [MQTT-4.4.0-1] [MQTT-4.6.0-1]
/// 3.1.1: [MQTT-4.1.0-1] [MQTT-4.1.0-2] [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-4.6.0-6]
/// With their identifiers, in their order, before any new message; and never at another time.
#[actix_rt::test]
async fn what_is_unacknowledged_is_sent_again_when_the_client_comes_back() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        client.subscribe("t/#", QOS_2).await;
        for (number, qos) in (1..).zip([QOS_2, QOS_1, QOS_2, QOS_1, QOS_2, QOS_1]) {
            broker.publish("t/x", &[b'0' + number], qos, false).await.unwrap();
            client.receive(|packet| assert!(matches!(packet, Packet::Publish(_)))).await;
        }
        client.send(pubrec(3, ReasonCode::Success)).await;
        client.expect(pubrel(3)).await;
        client.send(puback(4, ReasonCode::Success)).await;
        client.take(QOS_2, 1).await;
        client.ping().await;
        let (mut client, present) =
            Client::connected_with(&broker, connect_lasting("c", version)).await;
        assert!(present);
        broker.publish("t/y", b"new", QOS_1, false).await.unwrap();
        client.expect(pubrel(3)).await;
        client.expect_publish(dup(publish_1(2, "t/x", "2"))).await;
        client.expect_publish(dup(publish_2(5, "t/x", "5"))).await;
        client.expect_publish(dup(publish_1(6, "t/x", "6"))).await;
        client.expect_publish(publish_1(7, "t/y", "new")).await;
        client.ping().await;
        // Nothing of a session is left for the next one.
        forget(&broker, version).await;
        let (mut client, present) =
            Client::connected_with(&broker, connect_lasting("c", version)).await;
        assert!(!present);
        client.ping().await;
        forget(&broker, version).await;
    }
}

/// [MQTT-4.4.0-2]
/// Neither on this connection nor on the next.
#[actix_rt::test]
async fn a_message_that_the_client_refuses_is_not_sent_again() {
    let broker = world().await;
    for (reason, refusal) in [(0x80, "\x40"), (0x97, "\x50"), (0x83, "\x50"), (0x99, "\x40")] {
        let first = refusal.as_bytes()[0];
        let qos = if first == 0x40 { QOS_1 } else { QOS_2 };
        let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
        client.subscribe("t", QOS_2).await;
        broker.publish("t", b"x", qos, false).await.unwrap();
        client.receive(|packet| assert!(matches!(packet, Packet::Publish(_)))).await;
        client.send_bytes(&[first, 3, 0, 1, reason]).await;
        // Refused a second time, its identifier is unknown, and no message is released.
        client.send_bytes(&[first, 3, 0, 1, reason]).await;
        client.ping().await;
        let (mut client, present) = Client::connected_with(&broker, connect_lasting("c", V5)).await;
        assert!(present);
        client.ping().await;
        forget(&broker, V5).await;
    }
}

/// [MQTT-4.5.0-1]
/// 3.1.1: [MQTT-4.5.0-1]
/// In every version, with or without a connection, once for each session.
#[actix_rt::test]
async fn a_message_comes_to_every_session_with_a_matching_subscription() {
    let broker = world().await;
    let mut here = Vec::new();
    for version in [V3_1, V3_1_1, V5] {
        for (number, name) in ["t/a", "t/+", "#", "t/#", "other"].into_iter().enumerate() {
            let client_id = format!("{version:?}{number}");
            let mut client = Client::connected(&broker, connect_lasting(&client_id, version)).await;
            client.subscribe(name, QOS_1).await;
            if number % 2 == 0 {
                here.push((name, client));
            } else {
                client.leave().await;
            }
        }
    }
    let mut publisher = Client::connected(&broker, connect("p")).await;
    publisher.publish(publish_1(1, "t/a", "x")).await;
    publisher.expect(puback(1, ReasonCode::Success)).await;
    for (name, mut client) in here {
        if name != "other" {
            client.expect_publish(publish_1(1, "t/a", "x")).await;
        }
        client.ping().await;
    }
    for version in [V3_1, V3_1_1, V5] {
        for number in [1, 3] {
            let client_id = format!("{version:?}{number}");
            let mut client = Client::connected(&broker, connect_lasting(&client_id, version)).await;
            client.expect_publish(publish_1(1, "t/a", "x")).await;
            client.ping().await;
        }
    }
}
