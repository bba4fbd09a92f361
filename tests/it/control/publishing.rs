//! Messages that callers publish, on a real broker.

use std::sync::Arc;

use hearthmq::{
    Broker,
    control::{ControlError, PublishRequest, Published},
    mqtt::{Connect, Packet, PublicationBuilder, QoS, ReasonCode, Timestamp},
};

use crate::support::{Client, disk::Disk, packets::*, world, world_within};

async fn published(
    broker: &Broker,
    topic: &str,
    qos: QoS,
    retain: bool,
) -> Result<usize, ControlError> {
    let message = PublicationBuilder::new(topic, "x").qos(qos).retain(retain);
    let message = Arc::new(message.build(Timestamp(0)).unwrap());
    let published = broker.publish_counted(PublishRequest::new(message)).await;
    published.map(|Published { node, matched, .. }| {
        assert_eq!(&*node, "hearthmq");
        matched
    })
}

#[actix_rt::test]
async fn a_caller_learns_how_many_sessions_match() {
    let broker = world().await;
    assert_eq!(published(&broker, "t", QOS_1, false).await, Ok(0));
    let mut client = Client::connected(&broker, connect("c")).await;
    client.subscribe("t", QOS_1).await;
    client.subscribe("+", QOS_0).await;
    let mut absent = Client::connected(&broker, connect_lasting("absent", V5)).await;
    absent.subscribe("t", QOS_1).await;
    absent.leave().await;
    for member in ["m-1", "m-2"] {
        let mut member = Client::connected(&broker, connect_lasting(member, V5)).await;
        member.subscribe("$share/group/t", QOS_1).await;
        member.leave().await;
    }
    assert_eq!(published(&broker, "t", QOS_1, false).await, Ok(3));
    assert_eq!(client.receive_payload().await, "x");
}

#[actix_rt::test]
async fn a_message_that_cannot_be_kept_is_not_published() {
    let broker = world_within(|limits| {
        limits.retained_messages_max = 0;
        limits.packet_bytes_max = 1_000;
    })
    .await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.subscribe("#", QOS_1).await;
    assert_eq!(published(&broker, "t", QOS_1, true).await, Err(ControlError::RetainedFull));
    let long = "t".repeat(1_000);
    assert_eq!(published(&broker, &long, QOS_1, false).await, Err(ControlError::MessageTooLarge));
    let deep = "/".repeat(500);
    assert_eq!(published(&broker, &deep, QOS_1, false).await, Err(ControlError::TopicOverLimits));
    client.expect_nothing().await;
}

/// Otherwise an account could go beyond its share by REST.
#[actix_rt::test]
async fn a_retained_message_counts_for_its_caller() {
    let broker = world_within(|limits| limits.retained_messages_per_user_max = 1).await;
    let retain = async |topic: &str, username: &str| {
        let message = PublicationBuilder::new(topic, "x").retain(true);
        let message = Arc::new(message.build(Timestamp(0)).unwrap());
        let request = PublishRequest::new(message).by(username);
        broker.publish_counted(request).await.map(|published| published.matched)
    };
    assert_eq!(retain("a", "ann").await, Ok(0));
    assert_eq!(retain("a", "ann").await, Ok(0));
    assert_eq!(retain("b", "ann").await, Err(ControlError::RetainedFull));
    assert_eq!(retain("b", "bob").await, Ok(0));
    // It is the same account as that of the client with this name.
    let connect = Connect { username: Some("ann"), ..connect("c") };
    let mut client = Client::connected(&broker, connect).await;
    client.publish(retained(publish_1(1, "c", "x"))).await;
    let answer = |packet: Packet<'_>| {
        let Packet::PubAck(ack) = packet else { panic!("{packet:?}") };
        assert_eq!(ack.reason, ReasonCode::QuotaExceeded);
    };
    client.receive(answer).await;
}

#[actix_rt::test]
async fn a_message_that_was_answered_outlives_a_crash() {
    let disk = Disk::default();
    let powered = disk.power().await;
    let mut absent = Client::connected(&powered.broker, connect_lasting("absent", V5)).await;
    absent.subscribe("t", QOS_1).await;
    absent.leave().await;
    assert_eq!(published(&powered.broker, "t", QOS_1, false).await, Ok(1));
    powered.crash();
    let powered = disk.power().await;
    let mut client = Client::new(&powered.broker, V5);
    client.connect(connect_lasting("absent", V5)).await;
    assert_eq!(client.receive_payload().await, "x");
}
