//! Section 4.9: the send quota.

use hearthmq::mqtt::{Packet, ReasonCode};

use crate::support::{self, Client, packets::*, world, world_with};

/// [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2]
/// PUBACK, PUBCOMP and a refusing PUBREC raise it again; a successful PUBREC does not, nor does an
/// acknowledgement of an unknown message.
#[actix_rt::test]
async fn no_more_than_receive_maximum_messages_are_on_their_way() {
    let broker = world().await;
    for receive_maximum in [1_u16, 2, 5] {
        let mut packet = connect("c");
        packet.properties.receive_maximum = Some(receive_maximum);
        let mut client = Client::connected(&broker, packet).await;
        client.subscribe("t", QOS_2).await;
        for number in 0..40 {
            let qos = if number % 2 == 0 { QOS_2 } else { QOS_1 };
            broker.publish("t", b"x", qos, false).await.unwrap();
        }
        for packet_id in 1..=receive_maximum {
            let expected = if packet_id % 2 == 1 { publish_2 } else { publish_1 };
            client.expect_publish(expected(packet_id, "t", "x")).await;
        }
        for packet_id in 1..=40 - receive_maximum {
            client.send(puback(1000, ReasonCode::Success)).await;
            client.send(pubcomp(1000)).await;
            client.ping().await;
            if packet_id % 2 == 0 {
                client.send(puback(packet_id, ReasonCode::Success)).await;
            } else if packet_id % 4 == 1 {
                client.send(pubrec(packet_id, ReasonCode::UnspecifiedError)).await;
            } else {
                client.send(pubrec(packet_id, ReasonCode::Success)).await;
                client.expect(pubrel(packet_id)).await;
                client.ping().await;
                client.send(pubcomp(packet_id)).await;
            }
            let next = packet_id + receive_maximum;
            let expected = if next % 2 == 1 { publish_2 } else { publish_1 };
            client.expect_publish(expected(next, "t", "x")).await;
        }
    }
}

/// [MQTT-3.3.4-10] [MQTT-4.9.0-3]
/// Also after a reconnect: PUBRELs of the session do not wait behind messages without quota.
#[actix_rt::test]
async fn pubrel_does_not_wait_for_the_quota() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_2).await;
    for packet_id in 1..=3 {
        broker.publish("t", b"x", QOS_2, false).await.unwrap();
        client.expect_publish(publish_2(packet_id, "t", "x")).await;
    }
    client.send(pubrec(2, ReasonCode::Success)).await;
    client.expect(pubrel(2)).await;
    let mut packet = connect_lasting("c", V5);
    packet.properties.receive_maximum = Some(1);
    let mut client = Client::connected(&broker, packet.clone()).await;
    client.expect(pubrel(2)).await;
    client.ping().await;
    // For a message that was not sent on this connection: it counts now, and no other comes.
    client.send(pubrec(3, ReasonCode::Success)).await;
    client.expect(pubrel(3)).await;
    client.send(pubcomp(2)).await;
    client.ping().await;
    let mut client = Client::connected(&broker, packet).await;
    client.expect(pubrel(3)).await;
    client.send(pubcomp(3)).await;
    client.expect_publish(dup(publish_2(1, "t", "x"))).await;
    client.ping().await;
    client.take(QOS_2, 1).await;
    broker.publish("t", b"x", QOS_1, false).await.unwrap();
    client.expect_publish(publish_1(4, "t", "x")).await;
}

/// [MQTT-4.9.0-1]
/// Without Receive Maximum it is 65,535, and the broker's own limit is lower but not zero.
/// Receive Maximum 0 is a Protocol Error.
#[actix_rt::test]
async fn the_send_quota_is_not_zero() {
    let mut limits = support::generous();
    limits.in_flight_max = 3;
    let broker = world_with(|builder| builder.limits(limits)).await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe("t", QOS_1).await;
        for _ in 0..4 {
            broker.publish("t", b"x", QOS_1, false).await.unwrap();
        }
        for packet_id in 1..=3 {
            client.expect_publish(publish_1(packet_id, "t", "x")).await;
        }
        client.ping().await;
    }
    let mut client = Client::new(&broker, V5);
    client.send_bytes(b"\x10\x11\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00\x00\x00\x01c").await;
    client.expect_refused(ReasonCode::ProtocolError).await;
}

/// [MQTT-3.3.4-10] [MQTT-4.9.0-3]
/// QoS 0 does not wait for the quota either.
#[actix_rt::test]
async fn everything_else_goes_on_while_the_quota_is_used_up() {
    let broker = world().await;
    let mut packet = connect("c");
    packet.properties.receive_maximum = Some(2);
    let mut client = Client::connected(&broker, packet).await;
    client.subscribe("t", QOS_2).await;
    for _ in 0..4 {
        broker.publish("t", b"x", QOS_2, false).await.unwrap();
    }
    for packet_id in 1..=2 {
        client.expect_publish(publish_2(packet_id, "t", "x")).await;
    }
    client.ping().await;
    client.send(subscribe(10, vec![filter("u", QOS_0)])).await;
    client.expect(suback(10, &[ReasonCode::Success])).await;
    client.publish(publish_1(11, "none", "x")).await;
    client.expect(puback(11, ReasonCode::NoMatchingSubscribers)).await;
    client.publish(publish_2(12, "none", "x")).await;
    client.expect_taken(QOS_2, 12, ReasonCode::NoMatchingSubscribers).await;
    client.publish(publish("u", "QoS 0")).await;
    client.expect_publish(publish("u", "QoS 0")).await;
    client.send(pubrec(2, ReasonCode::Success)).await;
    client.expect(pubrel(2)).await;
    client.send(unsubscribe(13, vec!["u"])).await;
    client.expect(unsuback(13, &[ReasonCode::Success])).await;
    client.send(pubcomp(2)).await;
    client.receive(|packet| assert!(matches!(packet, Packet::Publish(_)))).await;
    client.ping().await;
}
