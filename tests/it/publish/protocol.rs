//! Packets that a client sends at the wrong time, or must not send at all.

use hearthmq::mqtt::{Packet, ReasonCode, UnsubAck};

use crate::support::{Client, packets::*, world};

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
