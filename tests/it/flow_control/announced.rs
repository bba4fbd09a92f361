//! Limits that client and broker announce: Receive Maximum and Maximum Packet Size.

use hearthmq::mqtt::{Packet, ReasonCode};

use crate::support::{Client, packets::*, world, world_within};

/// A lower Receive Maximum than on the last connection also applies to messages sent again.
#[actix_rt::test]
async fn what_is_sent_again_obeys_the_new_receive_maximum() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    for number in 1..=3 {
        broker.publish("t", b"x", QOS_1, false).await.unwrap();
        client.expect_publish(publish_1(number, "t", "x")).await;
    }
    client.vanish().await;
    broker.publish("t", b"x", QOS_1, false).await.unwrap();
    let mut packet = connect_lasting("c", V5);
    packet.properties.receive_maximum = Some(1);
    let mut client = Client::connected(&broker, packet).await;
    for number in 1..=3 {
        client.expect_publish(dup(publish_1(number, "t", "x"))).await;
        client.expect_nothing().await;
        client.send(puback(number, ReasonCode::Success)).await;
    }
    client.expect_publish(publish_1(4, "t", "x")).await;
}

/// [MQTT-3.3.4-7]
#[actix_rt::test]
async fn a_client_that_exceeds_the_brokers_receive_maximum_is_disconnected() {
    let broker = world_within(|limits| limits.receive_maximum = 2).await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("t", QOS_0).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    for number in 1..=2 {
        client.publish(publish_2(number, "t", "x")).await;
        client.expect(pubrec(number, ReasonCode::Success)).await;
    }
    // A repetition, and QoS 1 that is acknowledged at once, do not count.
    client.publish(dup(publish_2(1, "t", "x"))).await;
    client.expect(pubrec(1, ReasonCode::Success)).await;
    client.send(pubrel(1)).await;
    client.expect(pubcomp(1)).await;
    client.publish(publish_2(3, "t", "x")).await;
    client.expect(pubrec(3, ReasonCode::Success)).await;
    client.publish(publish_2(4, "t", "x")).await;
    client.expect_disconnect(ReasonCode::ReceiveMaximumExceeded).await;
    for _ in 0..3 {
        subscriber.expect_publish(publish("t", "x")).await;
    }
    subscriber.ping().await;
}

/// Section 4.9 starts the count again with each connection.
#[actix_rt::test]
async fn what_earlier_connections_left_does_not_count_against_the_receive_maximum() {
    let broker = world_within(|limits| limits.receive_maximum = 2).await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    for number in 1..=2 {
        client.publish(publish_2(number, "t", "x")).await;
        client.expect(pubrec(number, ReasonCode::NoMatchingSubscribers)).await;
    }
    client.vanish().await;
    let mut connect = connect_lasting("c", V5);
    connect.clean_start = false;
    let (mut client, _) = Client::connected_with(&broker, connect).await;
    for number in 3..=4 {
        client.publish(publish_2(number, "t", "x")).await;
        client.expect(pubrec(number, ReasonCode::NoMatchingSubscribers)).await;
    }
    client.publish(publish_2(5, "t", "x")).await;
    client.expect_disconnect(ReasonCode::ReceiveMaximumExceeded).await;
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[actix_rt::test]
async fn a_message_larger_than_the_client_accepts_is_dropped_and_the_rest_goes_on() {
    let broker = world().await;
    let mut packet = connect_lasting("c", V5);
    packet.properties.maximum_packet_size = Some(100);
    let mut client = Client::connected(&broker, packet.clone()).await;
    client.subscribe("t", QOS_2).await;
    // Type and length 2, topic 3, identifier 2, properties 1: 92 bytes are left.
    let (fits, too_large) = ("x".repeat(92), "x".repeat(93));
    for qos in [QOS_0, QOS_1, QOS_2] {
        broker.publish("t", too_large.as_bytes(), qos, false).await.unwrap();
    }
    broker.publish("t", too_large.as_bytes(), QOS_0, false).await.unwrap();
    client.expect_publish(publish("t", &too_large)).await;
    client.expect_publish(publish("t", &too_large)).await;
    broker.publish("t", fits.as_bytes(), QOS_2, false).await.unwrap();
    client
        .receive(|packet| {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            assert_eq!(publish.payload, fits.as_bytes());
        })
        .await;
    client.ping().await;
    client.vanish().await;
    // While the client is offline they are queued; their size is checked when they are sent.
    for payload in [&*too_large, "small"] {
        broker.publish("t", payload.as_bytes(), QOS_1, false).await.unwrap();
    }
    let mut client = Client::connected(&broker, packet).await;
    client.receive(|p| assert!(matches!(p, Packet::Publish(p) if p.flags.dup))).await;
    client.receive(|p| assert!(matches!(p, Packet::Publish(p) if p.payload == b"small"))).await;
    client.ping().await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().queued, 0);
}

/// A message in flight is dropped if it is too large for the new connection.
#[actix_rt::test]
async fn what_is_too_large_for_the_new_connection_is_not_sent_again() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    for payload in ["x".repeat(200), "small".to_owned()] {
        broker.publish("t", payload.as_bytes(), QOS_1, false).await.unwrap();
    }
    client.vanish().await;
    let mut packet = connect_lasting("c", V5);
    packet.properties.maximum_packet_size = Some(100);
    let mut client = Client::connected(&broker, packet).await;
    client.expect_publish(dup(publish_1(2, "t", "small"))).await;
    client.ping().await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().in_flight, 1);
}
