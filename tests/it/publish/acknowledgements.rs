//! Sections 3.4 to 3.7: PUBACK, PUBREC, PUBREL and PUBCOMP, as bytes.

use hearthmq::{
    Broker,
    auth::{AccessRequest, Action},
    mqtt::{Packet, ReasonCode, encoded_size},
};

use crate::support::{Client, generous, packets::*, refusing, world, world_where, world_with};

/// Returns whether it is a message to `secret`.
fn is_secret(request: &AccessRequest<'_>) -> bool {
    matches!(request.action, Action::Publish { topic: "secret", .. })
}

/// [MQTT-3.4.2-1] [MQTT-3.5.2-1]
/// Before MQTT 5.0 the answer has only the identifier.
#[actix_rt::test]
async fn puback_and_pubrec_say_what_became_of_the_message() {
    let broker = world_where(refusing(is_secret)).await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("wanted", QOS_0).await;
    for version in VERSIONS {
        for (topic, reason) in [("wanted", None), ("nobody", Some(0x10)), ("secret", Some(0x87))] {
            for (publish, first) in
                [(publish_1(0x1234, topic, "x"), 0x40), (publish_2(0x1234, topic, "x"), 0x50)]
            {
                let mut client = Client::connected(&broker, connect_in(version, "c")).await;
                client.publish(publish).await;
                match reason.filter(|_| version == V5) {
                    Some(reason) => client.expect_bytes(&[first, 3, 0x12, 0x34, reason]).await,
                    None => client.expect_bytes(&[first, 2, 0x12, 0x34]).await,
                }
                client.ping().await;
            }
        }
    }
}

/// [MQTT-4.3.3-9]
/// A refused message was never started: the same identifier means a new one, with DUP or without.
#[actix_rt::test]
async fn the_identifier_of_a_refused_message_means_a_new_one() {
    let broker = world_where(refusing(is_secret)).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.subscribe("wanted", QOS_0).await;
    client.publish(publish_2(0x1234, "secret", "x")).await;
    client.expect_bytes(b"\x50\x03\x12\x34\x87").await;
    client.publish(dup(publish_2(0x1234, "wanted", "x"))).await;
    client.expect_publish(publish("wanted", "x")).await;
    client.expect_bytes(b"\x50\x02\x12\x34").await;
    client.send_bytes(b"\x62\x02\x12\x34").await;
    client.expect_bytes(b"\x70\x02\x12\x34").await;
}

/// [MQTT-3.6.1-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
/// 3.1.1: [MQTT-3.6.1-1]
#[actix_rt::test]
async fn pubrel_and_pubcomp_say_whether_the_identifier_is_known() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.send_bytes(b"\x62\x02\x12\x34").await;
        client.send_bytes(b"\x50\x02\x12\x34").await;
        if version == V5 {
            client.expect_bytes(b"\x70\x03\x12\x34\x92").await;
            client.expect_bytes(b"\x62\x03\x12\x34\x92").await;
        } else {
            client.expect_bytes(b"\x70\x02\x12\x34").await;
            client.expect_bytes(b"\x62\x02\x12\x34").await;
        }
        client.publish(publish_2(0x1234, "t", "x")).await;
        client.receive(|packet| assert!(matches!(packet, Packet::PubRec(_)))).await;
        client.send_bytes(b"\x62\x02\x12\x34").await;
        client.expect_bytes(b"\x70\x02\x12\x34").await;
        client.subscribe("t", QOS_2).await;
        broker.publish("t", b"x", QOS_2, false).await.unwrap();
        client.expect_publish(publish_2(1, "t", "x")).await;
        client.send_bytes(b"\x50\x02\x00\x01").await;
        client.expect_bytes(b"\x62\x02\x00\x01").await;
    }
}

/// [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
#[actix_rt::test]
async fn a_reason_code_that_is_not_of_the_packet_is_a_protocol_error() {
    let broker = world().await;
    for (first, wrong) in [
        (0x40, [0x01, 0x11, 0x92, 0x8E, 0xFF]),
        (0x50, [0x02, 0x11, 0x92, 0x8E, 0xFF]),
        (0x62, [0x10, 0x80, 0x87, 0x91, 0xFF]),
        (0x70, [0x10, 0x80, 0x87, 0x91, 0xFF]),
    ] {
        for reason in wrong {
            let mut client = Client::connected(&broker, connect("c")).await;
            client.send_bytes(&[first, 3, 0, 1, reason]).await;
            client.expect_disconnect(ReasonCode::ProtocolError).await;
        }
    }
}

/// Sections 3.4.2.1 and 3.4.2.2.1: Reason Code and Property Length are optional, and properties are
/// allowed.
#[actix_rt::test]
async fn an_acknowledgement_may_be_short_or_long() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.subscribe("t", QOS_2).await;
    for (packet_id, details) in [
        (1, &b""[..]),
        (2, b"\x00"),
        (3, b"\x00\x00"),
        (4, b"\x10\x0A\x1F\x00\x00\x26\x00\x01a\x00\x01b"),
    ] {
        broker.publish("t", b"x", QOS_1, false).await.unwrap();
        client.receive(|packet| assert!(matches!(packet, Packet::Publish(_)))).await;
        let mut puback = vec![0x40, 2 + details.len() as u8, 0, packet_id];
        puback.extend_from_slice(details);
        client.send_bytes(&puback).await;
        client.ping().await;
        assert_eq!(broker.client("c").await.unwrap().unwrap().in_flight, 0);
    }
}

/// [MQTT-3.6.1-1]
/// 3.1.1: [MQTT-3.6.1-1]
#[actix_rt::test]
async fn pubrel_with_other_flags_is_malformed() {
    let broker = world().await;
    for version in VERSIONS {
        for flags in (0..16).filter(|flags| *flags != 2) {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.publish(publish_2(1, "t", "x")).await;
            client.receive(|packet| assert!(matches!(packet, Packet::PubRec(_)))).await;
            client.send_bytes(&[0x60 | flags, 2, 0, 1]).await;
            client.expect_disconnect(ReasonCode::MalformedPacket).await;
        }
    }
}

/// Returns the answers to messages and subscriptions over the limits, for a client with this
/// Maximum Packet Size: for each answer its size and whether it has a Reason String.
async fn refusals(broker: &Broker, packet_bytes_max: Option<u32>) -> [(usize, bool); 3] {
    let mut packet = connect("c");
    packet.properties.maximum_packet_size = packet_bytes_max;
    let mut client = Client::connected(broker, packet).await;
    client.publish(retained(publish_1(1, "new", "x"))).await;
    client.publish(retained(publish_2(2, "new", "x"))).await;
    client.send(subscribe(3, vec![filter("a", QOS_0), filter("b", QOS_0)])).await;
    let mut answers = [(0, false); 3];
    for answer in &mut answers {
        *answer = client
            .receive(|packet| {
                let properties = match &packet {
                    Packet::PubAck(ack) | Packet::PubRec(ack) => &ack.properties,
                    Packet::SubAck(ack) => &ack.properties,
                    other => panic!("{other:?}"),
                };
                assert!(properties.user_properties.iter().next().is_none());
                (encoded_size(&packet, V5).unwrap(), properties.reason_string.is_some())
            })
            .await;
    }
    answers
}

/// [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.9.2-1]
/// A Reason String is sent if it fits, and left out if it is one byte too long.
#[actix_rt::test]
async fn a_reason_string_is_left_out_where_it_has_no_room() {
    let mut limits = generous();
    limits.retained_messages_max = 1;
    limits.subscriptions_per_client_max = 1;
    let broker = world_with(|builder| builder.limits(limits)).await;
    broker.publish("kept", b"x", QOS_0, true).await.unwrap();
    let in_full = refusals(&broker, None).await;
    for (at, (size, has_reason)) in in_full.into_iter().enumerate() {
        assert!(has_reason);
        assert_eq!(refusals(&broker, Some(size as u32)).await[at], (size, true));
        let (shorter, has_reason) = refusals(&broker, Some(size as u32 - 1)).await[at];
        assert!(shorter < size && !has_reason);
    }
}

/// [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3]
/// [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2]
/// Optional properties never make an answer larger than the client's Maximum Packet Size.
#[actix_rt::test]
async fn no_answer_is_larger_than_the_client_accepts() {
    let broker = world_where(refusing(is_secret)).await;
    let mut packet = connect("c");
    packet.properties.maximum_packet_size = Some(16);
    let mut client = Client::connected(&broker, packet).await;
    client.publish(publish_1(1, "secret", "x")).await;
    client.expect_bytes(b"\x40\x03\x00\x01\x87").await;
    client.publish(publish_2(2, "secret", "x")).await;
    client.expect_bytes(b"\x50\x03\x00\x02\x87").await;
    client.send_bytes(b"\x62\x02\x00\x03").await;
    client.expect_bytes(b"\x70\x03\x00\x03\x92").await;
    client.send_bytes(b"\x50\x02\x00\x04").await;
    client.expect_bytes(b"\x62\x03\x00\x04\x92").await;
    let deep = ["a"; 200].join("/");
    client.send(subscribe(5, vec![filter(&deep, QOS_1), filter("t", QOS_2)])).await;
    client.expect_bytes(b"\x90\x05\x00\x05\x00\x8F\x02").await;
    client.send(unsubscribe(6, vec!["none", "t"])).await;
    client.expect_bytes(b"\xB0\x05\x00\x06\x00\x11\x00").await;
    assert!(broker.online("c").await.unwrap());
}
