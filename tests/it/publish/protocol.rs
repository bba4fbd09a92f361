//! PUBLISH and its acknowledgements: each Quality of Service in both directions, order, and packets
//! that a client must not send.

use hearthmq::mqtt::{Auth, AuthProperties, Packet, ReasonCode, UnsubAck, UserProperties};

use crate::support::{Client, packets::*, world, world_where};
use hearthmq::auth::{AccessRequest, Action, Authorizer, Decision};

/// [MQTT-4.3.1-1]
#[actix_rt::test]
async fn qos_0_is_delivered_once_and_not_acknowledged() {
    let broker = world().await;
    for version in VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
        subscriber.subscribe("t", QOS_2).await;
        publisher.publish(publish("t", "x")).await;
        subscriber.expect_publish(publish("t", "x")).await;
        subscriber.expect_nothing().await;
        publisher.expect_nothing().await;
    }
}

/// [MQTT-4.3.2-4]
#[actix_rt::test]
async fn qos_1_is_acknowledged_to_the_publisher_and_by_the_subscriber() {
    let broker = world().await;
    for version in VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
        subscriber.subscribe("t", QOS_1).await;
        publisher.publish(publish_1(7, "t", "x")).await;
        publisher.expect(puback(7, ReasonCode::Success)).await;
        subscriber.expect_publish(publish_1(1, "t", "x")).await;
        assert_eq!(broker.client("s").await.unwrap().unwrap().in_flight, 1);
        subscriber.send(puback(1, ReasonCode::Success)).await;
        subscriber.ping().await;
        assert_eq!(broker.client("s").await.unwrap().unwrap().in_flight, 0);
    }
}

/// [MQTT-4.3.3-8] [MQTT-4.3.3-11] [MQTT-4.3.3-4]
#[actix_rt::test]
async fn qos_2_takes_two_round_trips_each_way() {
    let broker = world().await;
    for version in VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
        subscriber.subscribe("t", QOS_2).await;
        publisher.publish(publish_2(7, "t", "x")).await;
        publisher.expect(pubrec(7, ReasonCode::Success)).await;
        publisher.send(pubrel(7)).await;
        publisher.expect(pubcomp(7)).await;

        subscriber.expect_publish(publish_2(1, "t", "x")).await;
        subscriber.send(pubrec(1, ReasonCode::Success)).await;
        subscriber.expect(pubrel(1)).await;
        assert_eq!(broker.client("s").await.unwrap().unwrap().in_flight, 1);
        subscriber.send(pubcomp(1)).await;
        subscriber.ping().await;
        assert_eq!(broker.client("s").await.unwrap().unwrap().in_flight, 0);
    }
}

/// [MQTT-4.3.3-10]
#[actix_rt::test]
async fn a_repeated_qos_2_publish_is_acknowledged_again_and_not_delivered_again() {
    let broker = world().await;
    for version in VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
        subscriber.subscribe("t", QOS_0).await;
        publisher.publish(publish_2(7, "t", "x")).await;
        publisher.expect(pubrec(7, ReasonCode::Success)).await;
        for _ in 0..2 {
            publisher.publish(dup(publish_2(7, "t", "x"))).await;
            publisher.expect(pubrec(7, ReasonCode::Success)).await;
        }
        subscriber.expect_publish(publish("t", "x")).await;
        subscriber.expect_nothing().await;
        publisher.send(pubrel(7)).await;
        publisher.expect(pubcomp(7)).await;
    }
}

/// [MQTT-4.3.3-12]
#[actix_rt::test]
async fn after_pubrel_the_identifier_stands_for_a_new_message() {
    let broker = world().await;
    for version in VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
        subscriber.subscribe("t", QOS_0).await;
        for payload in ["first", "second"] {
            publisher.publish(publish_2(7, "t", payload)).await;
            publisher.expect_taken(QOS_2, 7, ReasonCode::Success).await;
            subscriber.expect_publish(publish("t", payload)).await;
        }
    }
}

/// With QoS 1 an identifier does not reveal a duplicate: delivery is at least once.
#[actix_rt::test]
async fn a_repeated_qos_1_publish_is_delivered_again() {
    let broker = world().await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("t", QOS_0).await;
    for packet in [publish_1(7, "t", "x"), dup(publish_1(7, "t", "x"))] {
        publisher.publish(packet).await;
        publisher.expect(puback(7, ReasonCode::Success)).await;
        subscriber.expect_publish(publish("t", "x")).await;
    }
}

/// DUP belongs to a single hop. [MQTT-3.3.1-3]
#[actix_rt::test]
async fn dup_is_not_passed_on() {
    let broker = world().await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("t", QOS_1).await;
    publisher.publish(dup(publish_1(7, "t", "x"))).await;
    publisher.expect(puback(7, ReasonCode::Success)).await;
    subscriber.expect_publish(publish_1(1, "t", "x")).await;
}

/// Section 3.6.2.1: a client that releases too early gets an answer and stays connected.
#[actix_rt::test]
async fn pubrel_of_an_unknown_identifier_is_answered_not_found() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.send(pubrel(7)).await;
    client.expect(Packet::PubComp(not_found(7))).await;
    let mut old = Client::connected(&broker, connect_in(V3_1_1, "old")).await;
    old.send(pubrel(7)).await;
    old.expect(pubcomp(7)).await;
}

#[actix_rt::test]
async fn pubrec_of_an_unknown_identifier_is_answered_not_found() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.send(pubrec(7, ReasonCode::Success)).await;
    client.expect(Packet::PubRel(not_found(7))).await;
}

#[actix_rt::test]
async fn unknown_identifiers_in_puback_and_pubcomp_do_no_harm() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.send(puback(7, ReasonCode::Success)).await;
        client.send(pubcomp(8)).await;
        client.ping().await;
    }
}

/// Section 4.4 of MQTT 5.0: PUBREC with a failure ends the delivery.
#[actix_rt::test]
async fn pubrec_with_an_error_ends_the_delivery() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.subscribe("t", QOS_2).await;
    broker.publish("t", b"x", QOS_2, false).await.unwrap();
    client.expect_publish(publish_2(1, "t", "x")).await;
    client.send(pubrec(1, ReasonCode::ImplementationSpecificError)).await;
    client.ping().await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().in_flight, 0);
}

#[actix_rt::test]
async fn a_repeated_pubrec_is_answered_with_pubrel_again() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.subscribe("t", QOS_2).await;
    broker.publish("t", b"x", QOS_2, false).await.unwrap();
    client.expect_publish(publish_2(1, "t", "x")).await;
    for _ in 0..2 {
        client.send(pubrec(1, ReasonCode::Success)).await;
        client.expect(pubrel(1)).await;
    }
    client.send(pubcomp(1)).await;
    client.ping().await;
}

/// [MQTT-3.3.4-1] [MQTT-4.3.3-4] [MQTT-4.3.3-11]
/// A message in flight awaits PUBACK, PUBREC or, after PUBREC, PUBCOMP. Either of the other two is
/// a Protocol Error, except for a repeated PUBREC, which is answered again.
#[actix_rt::test]
async fn an_acknowledgement_that_is_not_awaited_is_a_protocol_error() {
    let broker = world().await;
    let success = ReasonCode::Success;
    for version in [V3_1, V3_1_1, V5] {
        for (qos, is_released, tolerated) in
            [(QOS_1, false, [0, 0]), (QOS_2, false, [1, 1]), (QOS_2, true, [1, 2])]
        {
            let acks = [puback(1, success), pubrec(1, success), pubcomp(1)];
            for (at, ack) in acks.into_iter().enumerate() {
                let mut client = Client::connected(&broker, connect_in(version, "c")).await;
                client.subscribe("t", qos).await;
                broker.publish("t", b"x", qos, false).await.unwrap();
                client.receive(|packet| assert!(matches!(packet, Packet::Publish(_)))).await;
                if is_released {
                    client.send(pubrec(1, success)).await;
                    client.expect(pubrel(1)).await;
                }
                client.send(ack).await;
                if !tolerated.contains(&at) {
                    client.expect_disconnect(ReasonCode::ProtocolError).await;
                    continue;
                }
                if at == 1 {
                    client.expect(pubrel(1)).await;
                }
                client.ping().await;
                let in_flight = broker.client("c").await.unwrap().unwrap().in_flight;
                assert_eq!(in_flight, usize::from(at == 1));
            }
        }
    }
}

/// [MQTT-3.8.4-8]
#[actix_rt::test]
async fn the_qos_of_a_delivery_is_the_lower_of_message_and_subscription() {
    let broker = world().await;
    for version in VERSIONS {
        for (subscribed, published, expected) in [
            (QOS_0, QOS_2, publish("t", "x")),
            (QOS_1, QOS_0, publish("t", "x")),
            (QOS_1, QOS_2, publish_1(1, "t", "x")),
            (QOS_2, QOS_1, publish_1(1, "t", "x")),
            (QOS_2, QOS_2, publish_2(1, "t", "x")),
        ] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.subscribe("t", subscribed).await;
            broker.publish("t", b"x", published, false).await.unwrap();
            client.expect_publish(expected).await;
        }
    }
}

/// [MQTT-4.6.0-2] [MQTT-4.6.0-5] [MQTT-4.6.0-6]
#[actix_rt::test]
async fn messages_of_a_topic_and_qos_come_in_the_order_published() {
    let broker = world().await;
    for version in VERSIONS {
        for qos in [QOS_0, QOS_1, QOS_2] {
            let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
            let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
            subscriber.subscribe("t", qos).await;
            for number in 1..=1000_u16 {
                let payload = number.to_string();
                let mut packet = publish_1(number, "t", &payload);
                packet.flags.qos = qos;
                packet.packet_id = packet.packet_id.filter(|_| qos != QOS_0);
                publisher.publish(packet).await;
                publisher.expect_taken(qos, number, ReasonCode::Success).await;
            }
            let mut taken = 0;
            while taken < 1000 {
                let published = subscriber.receive(|packet| order_and_id(&packet)).await;
                let Some((order, id)) = published else {
                    continue;
                };
                taken += 1;
                assert_eq!(order, taken);
                if qos == QOS_1 {
                    subscriber.send(puback(id, ReasonCode::Success)).await;
                }
                if qos == QOS_2 {
                    subscriber.send(pubrec(id, ReasonCode::Success)).await;
                    subscriber.send(pubcomp(id)).await;
                }
            }
        }
    }
}

/// Returns the content and the identifier of a PUBLISH; `None` for a PUBREL.
fn order_and_id(packet: &Packet<'_>) -> Option<(u16, u16)> {
    match packet {
        Packet::Publish(publish) => Some((
            str::from_utf8(publish.payload).unwrap().parse().unwrap(),
            publish.packet_id.map_or(0, |id| id.number()),
        )),
        Packet::PubRel(_) => None,
        other => panic!("{other:?}"),
    }
}

/// Section 3.4.2.1.
#[actix_rt::test]
async fn a_publisher_is_told_that_nobody_subscribes() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.publish(publish_1(1, "t", "x")).await;
    client.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
    client.publish(publish_2(2, "t", "x")).await;
    client.expect_taken(QOS_2, 2, ReasonCode::NoMatchingSubscribers).await;
    let mut old = Client::connected(&broker, connect_in(V3_1_1, "old")).await;
    old.publish(publish_1(1, "t", "x")).await;
    old.expect(puback(1, ReasonCode::Success)).await;
}

struct OnlyReading;

impl Authorizer for OnlyReading {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        match request.action {
            Action::Publish { .. } => Decision::Deny,
            _ => Decision::Allow,
        }
    }
}

/// [MQTT-4.3.3-9]: a refused QoS 2 message needs no PUBREL.
#[actix_rt::test]
async fn a_publish_without_permission_is_refused_and_the_connection_stays() {
    let broker = world_where(OnlyReading).await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("t", QOS_0).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.publish(publish("t", "x")).await;
    client.publish(publish_1(1, "t", "x")).await;
    client.expect(puback(1, ReasonCode::NotAuthorized)).await;
    client.publish(publish_2(2, "t", "x")).await;
    client.expect(pubrec(2, ReasonCode::NotAuthorized)).await;
    client.send(pubrel(2)).await;
    client.expect(Packet::PubComp(not_found(2))).await;
    // Older versions have no code for it. [MQTT-3.3.5-2] of 3.1.1
    let mut old = Client::connected(&broker, connect_in(V3_1_1, "old")).await;
    for (qos, packet) in [(QOS_1, publish_1(1, "t", "x")), (QOS_2, publish_2(2, "t", "x"))] {
        let packet_id = packet.packet_id.unwrap().number();
        old.publish(packet).await;
        old.expect_taken(qos, packet_id, ReasonCode::Success).await;
    }
    subscriber.expect_nothing().await;
}

/// [MQTT-3.1.0-2]
#[actix_rt::test]
async fn a_second_connect_is_a_protocol_error() {
    let broker = world().await;
    for version in [V3_1, V3_1_1, V5] {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        let again = connect_in(version, "c");
        client.send(Packet::Connect(Box::new(again))).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
        assert!(!broker.online("c").await.unwrap());
    }
}

#[actix_rt::test]
async fn packets_that_only_a_server_sends_are_protocol_errors() {
    let broker = world().await;
    for version in VERSIONS {
        for packet in [
            Packet::ConnAck(Box::new(connack(ReasonCode::Success))),
            suback(1, &[ReasonCode::Success]),
            Packet::UnsubAck(UnsubAck {
                packet_id: id(1),
                properties: Default::default(),
                reasons: vec![ReasonCode::Success],
            }),
            Packet::PingResp,
        ] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.send(packet).await;
            client.expect_disconnect(ReasonCode::ProtocolError).await;
        }
    }
}

/// [MQTT-4.12.0-7]: without a method in CONNECT there is no AUTH.
#[actix_rt::test]
async fn auth_without_a_method_in_connect_is_a_protocol_error() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let properties = AuthProperties {
        authentication_method: Some("m"),
        user_properties: UserProperties::NONE,
        ..AuthProperties::default()
    };
    client.send(Packet::Auth(Auth { reason: ReasonCode::ReAuthenticate, properties })).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}

/// [MQTT-3.3.2-2]
#[actix_rt::test]
async fn publishing_to_a_wildcard_ends_the_connection() {
    let broker = world().await;
    for version in VERSIONS {
        for topic in ["a/#", "+", "a/+/b"] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.publish(publish(topic, "x")).await;
            client.expect_disconnect(ReasonCode::TopicNameInvalid).await;
        }
    }
}

/// [MQTT-4.7.3-1]
#[actix_rt::test]
async fn an_empty_topic_ends_the_connection() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.publish(publish("", "x")).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
    }
}

/// [MQTT-3.3.4-6]
#[actix_rt::test]
async fn a_subscription_identifier_from_a_client_is_a_protocol_error() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.publish(identified(publish("t", "x"), &[1])).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}

/// Packets before the error in the same write are answered before the connection ends.
#[actix_rt::test]
async fn what_came_before_an_error_is_still_answered() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let mut bytes = Vec::new();
    let packet = Packet::Publish(publish_1(1, "t", "x"));
    hearthmq::mqtt::encode(&packet, V5, &mut bytes).unwrap();
    bytes.extend_from_slice(&[0x00, 0x00]);
    client.send_bytes(&bytes).await;
    client.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
    client.expect_disconnect(ReasonCode::MalformedPacket).await;
}
