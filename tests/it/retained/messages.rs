//! Retained messages: stored, replaced, cleared, and sent to new subscriptions.

use std::collections::BTreeSet;

use hearthmq::mqtt::{Packet, ReasonCode, RetainHandling};

use crate::support::{Client, packets::*, pass, secs, world};

/// [MQTT-3.3.1-5] [MQTT-3.3.1-8] [MQTT-3.3.1-9]
/// 3.1.1: [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8] [MQTT-3.3.1-12]
#[actix_rt::test]
async fn a_new_subscription_gets_the_last_retained_message_with_retain_set() {
    let broker = world().await;
    for version in VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        for payload in ["first", "second"] {
            publisher.publish(retained(publish("t", payload))).await;
        }
        publisher.publish(publish("t", "not retained")).await;
        publisher.ping().await;
        let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
        subscriber.subscribe("t", QOS_2).await;
        subscriber.expect_publish(retained(publish("t", "second"))).await;
        subscriber.expect_nothing().await;
    }
}

/// [MQTT-3.3.1-12]; [MQTT-3.3.1-9] of 3.1.1
#[actix_rt::test]
async fn an_existing_subscription_gets_a_retained_message_without_retain() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.send(unsubscribe(1, vec!["t"])).await;
        client.receive(|_| ()).await;
        client.publish(retained(publish("t", ""))).await;
        client.subscribe("t", QOS_0).await;
        client.publish(retained(publish("t", "x"))).await;
        client.expect_publish(publish("t", "x")).await;
    }
}

/// [MQTT-3.3.1-13]
#[actix_rt::test]
async fn retain_as_published_keeps_the_flag() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let asked = as_published(filter("t", QOS_0));
    client.send(subscribe(1, vec![asked])).await;
    client.expect(suback(1, &[ReasonCode::Success])).await;
    client.publish(retained(publish("t", "x"))).await;
    client.expect_publish(retained(publish("t", "x"))).await;
    client.publish(publish("t", "y")).await;
    client.expect_publish(publish("t", "y")).await;
}

/// [MQTT-3.3.1-6] [MQTT-3.3.1-7]; 3.1.1: [MQTT-3.3.1-10] [MQTT-3.3.1-11]
#[actix_rt::test]
async fn an_empty_payload_clears_and_is_delivered_but_not_kept() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.publish(retained(publish("t", "x"))).await;
        client.subscribe("other", QOS_0).await;
        assert_eq!(broker.metrics().totals().retained_messages.value(), 1);
        client.publish(retained(publish("t", ""))).await;
        client.ping().await;
        assert_eq!(broker.metrics().totals().retained_messages.value(), 0);
        assert_eq!(broker.metrics().totals().retained_bytes.value(), 0);
        client.subscribe("t", QOS_0).await;
        client.publish(retained(publish("t", ""))).await;
        client.expect_publish(publish("t", "")).await;
        client.subscribe("t", QOS_0).await;
        client.expect_nothing().await;
    }
}

/// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
#[actix_rt::test]
async fn retain_handling_says_when_retained_messages_are_sent() {
    let broker = world().await;
    broker.publish("t", b"x", QOS_0, true).await.unwrap();
    let expected = || retained(publish("t", "x"));
    for (handled, on_new, on_existing) in [
        (RetainHandling::Send, true, true),
        (RetainHandling::SendIfNew, true, false),
        (RetainHandling::DoNotSend, false, false),
    ] {
        let mut client = Client::connected(&broker, connect("c")).await;
        for comes in [on_new, on_existing] {
            let asked = handling(filter("t", QOS_0), handled);
            client.send(subscribe(1, vec![asked])).await;
            client.expect(suback(1, &[ReasonCode::Success])).await;
            if comes {
                client.expect_publish(expected()).await;
            }
            client.ping().await;
        }
    }
}

/// Before MQTT 5.0 every SUBSCRIBE brings them. [MQTT-3.8.4-3] of 3.1.1
#[actix_rt::test]
async fn subscribing_again_brings_retained_messages_again() {
    let broker = world().await;
    broker.publish("t", b"x", QOS_1, true).await.unwrap();
    let mut client = Client::connected(&broker, connect_in(V3_1_1, "c")).await;
    for packet_id in 1..=2 {
        client.subscribe("t", QOS_1).await;
        client.expect_publish(retained(publish_1(packet_id, "t", "x"))).await;
    }
}

/// [MQTT-3.8.4-8]
#[actix_rt::test]
async fn a_retained_message_comes_with_the_lower_qos_and_the_identifier() {
    let broker = world().await;
    broker.publish("t", b"x", QOS_2, true).await.unwrap();
    let mut client = Client::connected(&broker, connect("c")).await;
    client.send(subscribe_as(1, 12, vec![filter("t", QOS_1)])).await;
    client.expect(suback(1, &[ReasonCode::GrantedQoS1])).await;
    let expected = identified(retained(publish_1(1, "t", "x")), &[12]);
    client.expect_publish(expected).await;
}

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
