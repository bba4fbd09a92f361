//! Section 4.8.2: shared subscriptions.

use hearthmq::{
    Broker,
    mqtt::{Packet, QoS, ReasonCode},
};

use crate::support::{Client, packets::*, world};

/// Connects a member of the group of `t`, with this QoS.
async fn member(broker: &Broker, client_id: &str, qos: QoS) -> Client {
    let mut client = Client::connected(broker, connect_lasting(client_id, V5)).await;
    client.subscribe("$share/g/t", qos).await;
    client
}

/// Returns the identifier of a PUBLISH with this payload if one comes before PINGRESP; does not
/// acknowledge it.
async fn gets(client: &mut Client, payload: &[u8]) -> Option<u16> {
    client.send(Packet::PingReq).await;
    let mut came = None;
    loop {
        let is_end = client
            .receive(|packet| match packet {
                Packet::PingResp => true,
                Packet::Publish(publish) => {
                    assert_eq!(publish.payload, payload);
                    assert!(came.is_none(), "it comes once");
                    came = publish.packet_id.map(|id| id.number());
                    false
                }
                other => panic!("{other:?}"),
            })
            .await;
        if is_end {
            return came;
        }
    }
}

/// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
/// A name of at least one character, without wildcards, then `/` and a filter.
#[actix_rt::test]
async fn a_shared_subscription_has_a_name_and_a_filter() {
    let broker = world().await;
    for wrong in [
        "$share/",
        "$share//t",
        "$share/+/t",
        "$share/#/t",
        "$share/g+/t",
        "$share/g#/t",
        "$share/g",
        "$share/g/",
        "$share/g/a#",
    ] {
        for packet in [subscribe(1, vec![filter(wrong, QOS_0)]), unsubscribe(1, vec![wrong])] {
            for version in VERSIONS {
                let mut client = Client::connected(&broker, connect_in(version, "c")).await;
                client.send(packet.clone()).await;
                client.expect_disconnect(ReasonCode::MalformedPacket).await;
            }
        }
    }
    let mut client = Client::connected(&broker, connect("c")).await;
    for (name, topic) in [("$share/g/t", "t"), ("$share/\u{e5} b/a/#", "a/b"), ("$share/g//", "/")]
    {
        client.subscribe(name, QOS_0).await;
        broker.publish(topic, b"x", QOS_0, false).await.unwrap();
        client.expect_publish(publish(topic, "x")).await;
    }
    // Without the separator it is an ordinary topic.
    client.subscribe("$share", QOS_0).await;
    broker.publish("$share", b"x", QOS_0, false).await.unwrap();
    client.expect_publish(publish("$share", "x")).await;
}

/// [MQTT-4.8.2-3]
#[actix_rt::test]
async fn each_member_gets_messages_with_the_qos_that_it_was_granted() {
    let broker = world().await;
    let mut members = Vec::new();
    for (client_id, qos) in [("0", QOS_0), ("1", QOS_1), ("2", QOS_2)] {
        members.push((member(&broker, client_id, qos).await, qos));
    }
    for published in [QOS_2, QOS_1, QOS_0] {
        for _ in 0..members.len() {
            broker.publish("t", b"x", published, false).await.unwrap();
        }
        for (client, granted) in &mut members {
            client
                .receive(|packet| {
                    let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                    assert_eq!(publish.flags.qos, published.min(*granted));
                })
                .await;
            client.ping().await;
        }
    }
}

/// [MQTT-4.8.2-4]
/// A QoS 2 delivery that was started with one member is completed with it.
#[actix_rt::test]
async fn a_delivery_that_was_begun_waits_for_its_member() {
    let broker = world().await;
    for released in [false, true] {
        let mut chosen = member(&broker, "a", QOS_2).await;
        broker.publish("t", b"x", QOS_2, false).await.unwrap();
        chosen.expect_publish(publish_2(1, "t", "x")).await;
        let mut other = member(&broker, "b", QOS_2).await;
        if released {
            chosen.send(pubrec(1, ReasonCode::Success)).await;
            chosen.expect(pubrel(1)).await;
        }
        drop(chosen);
        let mut chosen = Client::connected(&broker, connect_lasting("a", V5)).await;
        if released {
            chosen.expect(pubrel(1)).await;
            chosen.send(pubcomp(1)).await;
        } else {
            chosen.expect_publish(dup(publish_2(1, "t", "x"))).await;
            chosen.take(QOS_2, 1).await;
        }
        chosen.ping().await;
        other.ping().await;
        for client_id in ["a", "b"] {
            Client::connected(&broker, connect(client_id)).await.leave().await;
        }
    }
}

/// [MQTT-4.8.2-6]
#[actix_rt::test]
async fn a_message_that_a_member_refuses_goes_to_nobody_else() {
    let broker = world().await;
    let mut members = [member(&broker, "a", QOS_2).await, member(&broker, "b", QOS_2).await];
    for (qos, first) in [(QOS_1, 0x40), (QOS_2, 0x50), (QOS_1, 0x40), (QOS_2, 0x50)] {
        broker.publish("t", b"x", qos, false).await.unwrap();
        let mut refused = 0;
        for client in &mut members {
            if let Some(packet_id) = gets(client, b"x").await {
                let [high, low] = packet_id.to_be_bytes();
                client.send_bytes(&[first, 3, high, low, 0x97]).await;
                refused += 1;
            }
        }
        assert_eq!(refused, 1);
        for client in &mut members {
            client.ping().await;
        }
    }
    for client_id in ["a", "b"] {
        assert_eq!(broker.client(client_id).await.unwrap().unwrap().in_flight, 0);
    }
}

/// Sections 3.8.3.1 and 4.8.2: a new shared subscription gets no retained messages.
#[actix_rt::test]
async fn what_is_retained_is_not_sent_to_a_shared_subscription() {
    let broker = world().await;
    broker.publish("t", b"kept", QOS_1, true).await.unwrap();
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe("$share/g/t", QOS_1).await;
        client.ping().await;
    }
}
