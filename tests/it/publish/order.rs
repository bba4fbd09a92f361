//! Section 4.6: the order of messages and of acknowledgements.

use hearthmq::mqtt::{Packet, QoS, ReasonCode};

use crate::{
    sessions::delivery::bytes_of,
    support::{Client, packets::*, world},
};

/// Returns a PUBLISH with this QoS, and with the number as identifier.
fn numbered(number: u16, qos: QoS, payload: &str) -> Packet<'_> {
    let mut packet = publish_1(number, "t", payload);
    packet.flags.qos = qos;
    packet.packet_id = packet.packet_id.filter(|_| qos != QOS_0);
    Packet::Publish(packet)
}

/// [MQTT-4.6.0-5] [MQTT-4.6.0-6]
/// 3.1.1: [MQTT-4.6.0-5] [MQTT-4.6.0-6]
/// Also for more messages than may be in flight, with every QoS, and for messages that were queued
/// while the client was offline.
#[actix_rt::test]
async fn messages_of_a_topic_and_qos_come_in_the_order_in_which_they_were_published() {
    const MESSAGES: u16 = 500;
    let broker = world().await;
    for version in VERSIONS {
        for qos in [QOS_0, QOS_1, QOS_2] {
            let mut here = Client::connected(&broker, connect_in(version, "here")).await;
            here.subscribe("t", QOS_2).await;
            let mut away = Client::connected(&broker, connect_lasting("away", version)).await;
            away.subscribe("t", QOS_2).await;
            away.leave().await;
            let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
            for number in 1..=MESSAGES {
                publisher.send(numbered(number, qos, &number.to_string())).await;
                publisher.expect_taken(qos, number, ReasonCode::Success).await;
            }
            for number in 1..=MESSAGES {
                take_number(&mut here, number).await;
            }
            let mut away = Client::connected(&broker, connect_lasting("away", version)).await;
            for number in (1..=MESSAGES).filter(|_| qos != QOS_0) {
                take_number(&mut away, number).await;
            }
            Client::connected(&broker, connect_in(version, "away")).await.leave().await;
        }
    }
}

/// Expects the message of this number, before or after PUBRELs, and acknowledges it.
async fn take_number(client: &mut Client, number: u16) {
    loop {
        let came = client
            .receive(|packet| match packet {
                Packet::Publish(publish) => {
                    assert_eq!(publish.payload, number.to_string().as_bytes());
                    Ok((publish.flags.qos, publish.packet_id.map_or(0, |id| id.number())))
                }
                Packet::PubRel(ack) => Err(ack.packet_id.number()),
                other => panic!("{other:?}"),
            })
            .await;
        match came {
            Err(released) => client.send(pubcomp(released)).await,
            Ok((QOS_0, _)) => return,
            Ok((QOS_1, packet_id)) => {
                return client.send(puback(packet_id, ReasonCode::Success)).await;
            }
            Ok((QOS_2, packet_id)) => {
                return client.send(pubrec(packet_id, ReasonCode::Success)).await;
            }
        }
    }
}

/// [MQTT-4.6.0-2] [MQTT-4.6.0-3]
/// 3.1.1: [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-6]
#[actix_rt::test]
async fn acknowledgements_come_in_the_order_of_the_messages() {
    let broker = world().await;
    for version in VERSIONS {
        let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
        subscriber.subscribe("t", QOS_0).await;
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        let order = [(9, QOS_2), (3, QOS_1), (7, QOS_1), (1, QOS_2), (8, QOS_1), (2, QOS_2)];
        let packets = order.map(|(number, qos)| numbered(number, qos, "x"));
        client.send_bytes(&bytes_of(version, &packets)).await;
        for (number, qos) in order {
            let expected = if qos == QOS_1 { puback } else { pubrec };
            client.expect(expected(number, ReasonCode::Success)).await;
        }
        client.ping().await;
    }
}

/// [MQTT-4.6.0-4]
/// 3.1.1: [MQTT-4.6.0-4] [MQTT-4.6.0-6]
/// Independent of the order of the messages.
#[actix_rt::test]
async fn pubrels_come_in_the_order_of_the_pubrecs() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe("t", QOS_2).await;
        for number in 1..=5 {
            broker.publish("t", b"x", QOS_2, false).await.unwrap();
            client.expect_publish(publish_2(number, "t", "x")).await;
        }
        let order = [4, 1, 5, 2, 3];
        let packets = order.map(|number| pubrec(number, ReasonCode::Success));
        client.send_bytes(&bytes_of(version, &packets)).await;
        for number in order {
            client.expect(pubrel(number)).await;
        }
        client.ping().await;
    }
}
