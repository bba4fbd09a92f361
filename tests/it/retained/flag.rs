//! Section 3.3.1.3: RETAIN.

use std::collections::BTreeSet;

use hearthmq::mqtt::{Packet, Publish, QoS, ReasonCode, RetainHandling};

use crate::{
    support::{Client, packets::*, world},
    wire::ALL_VERSIONS,
};

/// Returns a retained message with this QoS.
fn retained_at<'a>(qos: QoS, topic: &'a str, payload: &'a str) -> Publish<'a> {
    retained(match qos {
        QoS::AtMostOnce => publish(topic, payload),
        QoS::AtLeastOnce => publish_1(1, topic, payload),
        QoS::ExactlyOnce => publish_2(1, topic, payload),
    })
}

/// The message and its QoS replace the previous one, whatever the QoS of either.
/// [MQTT-3.3.1-5]; 3.1.1: [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8]
#[actix_rt::test]
async fn the_last_retained_message_is_kept_for_later_subscribers() {
    let broker = world().await;
    for version in ALL_VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        for first in [QOS_0, QOS_1, QOS_2] {
            for second in [QOS_0, QOS_1, QOS_2] {
                for (qos, payload) in [(first, "first"), (second, "second")] {
                    publisher.publish(retained_at(qos, "t/1", payload)).await;
                    let none = ReasonCode::NoMatchingSubscribers;
                    publisher.expect_taken(qos, 1, none).await;
                }
                publisher.publish(retained(publish("t/2", "other"))).await;
                publisher.ping().await;
                for _ in 0..2 {
                    let mut late = Client::connected(&broker, connect_in(version, "late")).await;
                    late.subscribe("t/1", QOS_2).await;
                    late.expect_publish(retained_at(second, "t/1", "second")).await;
                    late.ping().await;
                    late.subscribe("t/2", QOS_2).await;
                    late.expect_publish(retained(publish("t/2", "other"))).await;
                    late.ping().await;
                }
            }
        }
    }
}

/// [MQTT-3.3.1-6] [MQTT-3.3.1-7]; 3.1.1: [MQTT-3.3.1-10] [MQTT-3.3.1-11]
#[actix_rt::test]
async fn an_empty_retained_message_clears_the_topic_and_is_delivered_as_any_other() {
    let broker = world().await;
    for version in ALL_VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        let mut present = Client::connected(&broker, connect_in(version, "present")).await;
        present.subscribe("t", QOS_0).await;
        for qos in [QOS_0, QOS_1, QOS_2] {
            // With and without an earlier retained message.
            for payloads in [&["x", ""][..], &[""]] {
                for payload in payloads {
                    publisher.publish(retained_at(qos, "t", payload)).await;
                    publisher.expect_taken(qos, 1, ReasonCode::Success).await;
                    present.expect_publish(publish("t", payload)).await;
                }
                let mut late = Client::connected(&broker, connect_in(version, "late")).await;
                late.subscribe("t", QOS_2).await;
                late.subscribe("#", QOS_2).await;
                late.ping().await;
                assert_eq!(broker.metrics().totals().retained_messages.value(), 0);
                assert_eq!(broker.metrics().totals().retained_bytes.value(), 0);
            }
        }
    }
}

/// [MQTT-3.3.1-8]; [MQTT-3.3.1-12] of 3.1.1
#[actix_rt::test]
async fn a_message_without_retain_is_not_kept_and_leaves_what_is() {
    let broker = world().await;
    for version in ALL_VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        for payload in ["passes", ""] {
            publisher.publish(publish("t", payload)).await;
            publisher.ping().await;
            let mut late = Client::connected(&broker, connect_in(version, "late")).await;
            late.subscribe("t", QOS_0).await;
            late.ping().await;
            drop(late);
            publisher.publish(retained(publish("t", "kept"))).await;
            publisher.publish(publish("t", payload)).await;
            publisher.ping().await;
            let mut late = Client::connected(&broker, connect_in(version, "late")).await;
            late.subscribe("t", QOS_0).await;
            late.expect_publish(retained(publish("t", "kept"))).await;
            late.ping().await;
            publisher.publish(retained(publish("t", ""))).await;
            publisher.ping().await;
        }
    }
}

/// For each filter of a SUBSCRIBE, even if several match. [MQTT-3.3.1-9] [MQTT-3.3.1-10]
/// [MQTT-3.3.1-11]
#[actix_rt::test]
async fn retain_handling_decides_whether_retained_messages_are_sent() {
    let broker = world().await;
    for topic in ["a", "b/1", "b/2"] {
        broker.publish(topic, b"x", QOS_0, true).await.unwrap();
    }
    for (handled, when_new, when_not) in [
        (RetainHandling::Send, true, true),
        (RetainHandling::SendIfNew, true, false),
        (RetainHandling::DoNotSend, false, false),
    ] {
        let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
        for comes in [when_new, when_not, when_not] {
            let filters = ["a", "b/#"].map(|asked| handling(filter(asked, QOS_0), handled));
            client.send(subscribe(1, filters.to_vec())).await;
            client.expect(suback(1, &[ReasonCode::Success, ReasonCode::Success])).await;
            let mut topics = BTreeSet::new();
            for _ in 0..if comes { 3 } else { 0 } {
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
            assert_eq!(topics.len(), if comes { 3 } else { 0 });
            client.ping().await;
        }
        // On a connection that resumes the session the subscription is not new either.
        client.leave().await;
        let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
        client.send(subscribe(1, vec![handling(filter("a", QOS_0), handled)])).await;
        client.expect(suback(1, &[ReasonCode::Success])).await;
        if when_not {
            client.expect_publish(retained(publish("a", "x"))).await;
        }
        client.ping().await;
        client.leave().await;
        Client::connected(&broker, connect("c")).await.leave().await;
    }
}

/// [MQTT-3.3.1-12] [MQTT-3.3.1-13]; [MQTT-3.3.1-9] of 3.1.1
#[actix_rt::test]
async fn retain_is_passed_on_to_those_alone_that_asked_for_it() {
    let broker = world().await;
    let mut asks = Client::connected(&broker, connect("asks")).await;
    asks.send(subscribe(1, vec![as_published(filter("t", QOS_0))])).await;
    asks.expect(suback(1, &[ReasonCode::Success])).await;
    for version in ALL_VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        publisher.publish(retained(publish("t", ""))).await;
        asks.expect_publish(retained(publish("t", ""))).await;
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe("t", QOS_0).await;
        for payload in ["x", ""] {
            publisher.publish(retained(publish("t", payload))).await;
            client.expect_publish(publish("t", payload)).await;
            asks.expect_publish(retained(publish("t", payload))).await;
            publisher.publish(publish("t", payload)).await;
            client.expect_publish(publish("t", payload)).await;
            asks.expect_publish(publish("t", payload)).await;
        }
        client.ping().await;
    }
}
