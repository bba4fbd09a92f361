//! Retained messages: stored, replaced, cleared, and sent to new subscriptions.

use std::collections::BTreeSet;

use hearthmq::mqtt::{Packet, ReasonCode};

use crate::support::{Client, packets::*, pass, secs, world};

/// [MQTT-4.7.2-1]
#[actix_rt::test]
async fn a_wildcard_brings_every_matching_retained_message_and_none_of_the_hidden() {
    let broker = world().await;
    for topic in ["a", "a/b", "a/b/c", "/", "$hidden/x"] {
        broker.publish(topic, b"x", QOS_0, true).await.unwrap();
    }
    for (asked, expected) in [
        ("#", &["a", "a/b", "a/b/c", "/"][..]),
        ("a/#", &["a", "a/b", "a/b/c"]),
        ("a/+", &["a/b"]),
        ("+/+", &["a/b", "/"]),
        ("$hidden/#", &["$hidden/x"]),
        ("$hidden/+", &["$hidden/x"]),
        ("+/x", &[]),
    ] {
        let mut client = Client::connected(&broker, connect_in(V3_1_1, "c")).await;
        client.subscribe(asked, QOS_0).await;
        let mut topics = BTreeSet::new();
        for _ in expected {
            topics.insert(
                client
                    .receive(|packet| {
                        let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                        assert!(publish.flags.retain);
                        publish.topic.to_owned()
                    })
                    .await,
            );
        }
        let expected: BTreeSet<String> = expected.iter().map(|&t| t.to_owned()).collect();
        assert_eq!(topics, expected, "{asked}");
        client.ping().await;
    }
}

/// [MQTT-3.3.2-5] [MQTT-3.3.2-6]
#[actix_rt::test]
async fn a_retained_message_counts_its_expiry_down_and_ends_with_it() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.publish(expiring(retained(publish("t", "x")), 100)).await;
    client.ping().await;
    pass(secs(40)).await;
    client.subscribe("t", QOS_0).await;
    let left = expiring(retained(publish("t", "x")), 60);
    client.expect_publish(left).await;
    pass(secs(60)).await;
    client.subscribe("t", QOS_0).await;
    client.expect_nothing().await;
}

/// [MQTT-4.7.1-1]
#[actix_rt::test]
async fn an_ill_formed_filter_brings_no_retained_messages() {
    let broker = world().await;
    broker.publish("a", b"x", QOS_0, true).await.unwrap();
    let mut client = Client::connected(&broker, connect("c")).await;
    client.send(subscribe(1, vec![filter("a#", QOS_0)])).await;
    client.expect_disconnect(ReasonCode::MalformedPacket).await;
}

/// More than the connection encodes ahead, and more than the client's window: all of them arrive.
#[actix_rt::test]
async fn many_retained_messages_come_as_fast_as_the_client_takes_them() {
    const TOPICS: u16 = 2000;
    let broker = world().await;
    let payload = vec![b'x'; 500];
    for number in 0..TOPICS {
        let topic = format!("t/{number}");
        broker.publish(&topic, &payload, QOS_1, true).await.unwrap();
    }
    let mut client = Client::connected(&broker, connect_in(V3_1_1, "c")).await;
    client.subscribe("t/+", QOS_1).await;
    let mut seen = BTreeSet::new();
    for _ in 0..TOPICS {
        let (topic, id) = client
            .receive(|packet| {
                let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                (publish.topic.to_owned(), publish.packet_id.unwrap().number())
            })
            .await;
        seen.insert(topic);
        client.send(puback(id, ReasonCode::Success)).await;
    }
    assert_eq!(seen.len(), usize::from(TOPICS));
    client.ping().await;
}
