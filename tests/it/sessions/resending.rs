//! Deliveries in progress do not change as time passes.

use hearthmq::mqtt::{Packet, ReasonCode};

use crate::support::{Client, packets::*, pass, secs, world};

/// [MQTT-4.4.0-1]
/// 3.1.1: [MQTT-4.4.0-1]
/// Only a new connection causes a repetition.
#[actix_rt::test]
async fn nothing_is_sent_again_while_the_connection_stays() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        client.subscribe("t", QOS_2).await;
        broker.publish("t", b"1", QOS_1, false).await.unwrap();
        broker.publish("t", b"2", QOS_2, false).await.unwrap();
        broker.publish("t", b"3", QOS_2, false).await.unwrap();
        client.expect_publish(publish_1(1, "t", "1")).await;
        client.expect_publish(publish_2(2, "t", "2")).await;
        client.expect_publish(publish_2(3, "t", "3")).await;
        client.send(pubrec(3, ReasonCode::Success)).await;
        client.expect(pubrel(3)).await;
        client.expect_nothing_for(secs(1800)).await;
        Client::connected(&broker, connect_in(version, "c")).await.vanish().await;
    }
}

/// [MQTT-4.3.3-7] It expires meanwhile, is sent again nevertheless, and is completed.
#[actix_rt::test]
async fn a_message_that_was_sent_does_not_expire() {
    let broker = world().await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_2).await;
    for (number, packet) in [(1, publish_2(1, "t", "x")), (2, publish_2(2, "t", "x"))] {
        publisher.publish(expiring(packet.clone(), 10)).await;
        publisher.expect_taken(QOS_2, number, ReasonCode::Success).await;
        client.expect_publish(expiring(packet, 10)).await;
    }
    client.send(pubrec(2, ReasonCode::Success)).await;
    client.expect(pubrel(2)).await;
    pass(secs(60)).await;
    client.vanish().await;
    pass(secs(60)).await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.expect(pubrel(2)).await;
    client.expect_publish(dup(expiring(publish_2(1, "t", "x"), 0))).await;
    client.take(QOS_2, 1).await;
    client.send(pubcomp(2)).await;
    client.ping().await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().in_flight, 0);
}

/// [MQTT-4.3.3-13] For the publisher nothing changes when the message expires before its PUBREL.
#[actix_rt::test]
async fn a_message_that_expires_is_acknowledged_to_the_end() {
    let broker = world().await;
    let mut away = Client::connected(&broker, connect_lasting("away", V5)).await;
    away.subscribe("t", QOS_2).await;
    away.vanish().await;
    let mut publisher = Client::connected(&broker, connect_lasting("p", V5)).await;
    publisher.publish(expiring(publish_2(7, "t", "x"), 10)).await;
    publisher.expect(pubrec(7, ReasonCode::Success)).await;
    pass(secs(60)).await;
    publisher.publish(dup(expiring(publish_2(7, "t", "x"), 10))).await;
    publisher.expect(pubrec(7, ReasonCode::Success)).await;
    publisher.vanish().await;
    let mut publisher = Client::connected(&broker, connect_lasting("p", V5)).await;
    publisher.send(pubrel(7)).await;
    publisher.expect(pubcomp(7)).await;
    let mut away = Client::connected(&broker, connect_lasting("away", V5)).await;
    away.send(Packet::PingReq).await;
    away.expect(Packet::PingResp).await;
}
