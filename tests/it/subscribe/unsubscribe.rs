//! Sections 3.10 and 3.11: UNSUBSCRIBE and UNSUBACK.

use hearthmq::mqtt::{Packet, ProtocolVersion, ReasonCode};

use crate::support::{Client, packets::*, world};

/// Returns an UNSUBSCRIBE with identifier 1 and this payload of less than 120 bytes.
fn unsubscribe_bytes(version: ProtocolVersion, payload: &[u8]) -> Vec<u8> {
    let mut packet = super::suback::subscribe_bytes(version, payload);
    packet[0] = 0xA2;
    packet
}

/// [MQTT-3.10.1-1]
/// 3.1.1: [MQTT-3.10.1-1]
#[actix_rt::test]
async fn unsubscribe_with_other_flags_is_malformed() {
    let broker = world().await;
    for version in VERSIONS {
        for flags in (0..16).filter(|flags| *flags != 2) {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            let mut packet = unsubscribe_bytes(version, b"\x00\x01a");
            packet[0] = 0xA0 | flags;
            client.send_bytes(&packet).await;
            client.expect_disconnect(ReasonCode::MalformedPacket).await;
        }
    }
}

/// [MQTT-3.10.3-1]
/// 3.1.1: [MQTT-3.10.3-1]
#[actix_rt::test]
async fn a_topic_filter_that_is_not_utf_8_is_malformed() {
    let broker = world().await;
    for version in VERSIONS {
        for filter in [
            &b"\x00\x01\xFF"[..],
            b"\x00\x03\xED\xA0\x80",
            b"\x00\x02\xC0\xAF",
            b"\x00\x03a\x00b",
            b"\x00\x01a\x00\x05b",
        ] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.send_bytes(&unsubscribe_bytes(version, filter)).await;
            client.expect_disconnect(ReasonCode::MalformedPacket).await;
        }
    }
}

/// [MQTT-3.10.3-2]
/// 3.1.1: [MQTT-3.10.3-2]
#[actix_rt::test]
async fn unsubscribe_without_a_topic_filter_is_a_protocol_error() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.send_bytes(&unsubscribe_bytes(version, b"")).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
    }
}

/// [MQTT-3.10.4-1]
/// 3.1.1: [MQTT-3.10.4-1]
/// Filters that match it, or look similar, are different filters.
#[actix_rt::test]
async fn only_the_very_same_filter_is_unsubscribed() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        for name in ["a/+", "a/b", "A/b", "\u{e5}/b", "$share/g/a/b"] {
            client.subscribe(name, QOS_0).await;
        }
        let subscriptions = broker.metrics().totals().subscriptions.value();
        let others = vec!["a/#", "#", "a/b/", "/a/b", "a", "a/B", "a\u{30a}/b", "$share/h/a/b"];
        client.send(unsubscribe(1, others)).await;
        client.receive(|packet| assert!(matches!(packet, Packet::UnsubAck(_)))).await;
        assert_eq!(broker.metrics().totals().subscriptions.value(), subscriptions);
        client.send(unsubscribe(2, vec!["a/b", "$share/g/a/b"])).await;
        client.receive(|packet| assert!(matches!(packet, Packet::UnsubAck(_)))).await;
        assert_eq!(broker.metrics().totals().subscriptions.value(), subscriptions - 2);
        broker.publish("a/b", b"by a/+", QOS_0, false).await.unwrap();
        client.expect_publish(publish("a/b", "by a/+")).await;
        client.send(unsubscribe(3, vec!["a/+"])).await;
        client.receive(|packet| assert!(matches!(packet, Packet::UnsubAck(_)))).await;
        broker.publish("a/b", b"by nothing", QOS_0, false).await.unwrap();
        client.ping().await;
    }
}

/// [MQTT-3.10.4-2]
/// 3.1.1: [MQTT-3.10.4-2]
/// Not even from a publisher that has just published to the topic.
#[actix_rt::test]
async fn after_unsuback_no_new_message_comes() {
    let broker = world().await;
    for version in VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        client.subscribe("t", QOS_1).await;
        publisher.publish(publish("t", "before")).await;
        client.expect_publish(publish("t", "before")).await;
        client.send(unsubscribe(1, vec!["t"])).await;
        client.receive(|packet| assert!(matches!(packet, Packet::UnsubAck(_)))).await;
        publisher.publish(publish_1(1, "t", "after")).await;
        publisher.expect_taken(QOS_1, 1, ReasonCode::NoMatchingSubscribers).await;
        client.ping().await;
        let (mut client, present) =
            Client::connected_with(&broker, connect_lasting("c", version)).await;
        assert!(present);
        client.ping().await;
        Client::connected(&broker, connect_in(version, "c")).await.leave().await;
    }
}

/// [MQTT-3.10.4-3]
/// 3.1.1: [MQTT-3.10.4-3]
/// QoS 1 and QoS 2 messages in flight are completed, on this connection and the next.
#[actix_rt::test]
async fn unsubscribing_does_not_break_off_a_delivery() {
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
        client.send(unsubscribe(1, vec!["t"])).await;
        client.receive(|packet| assert!(matches!(packet, Packet::UnsubAck(_)))).await;
        client.take(QOS_2, 2).await;
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        client.expect_publish(dup(publish_1(1, "t", "1"))).await;
        client.expect_publish(dup(publish_2(3, "t", "3"))).await;
        client.take(QOS_1, 1).await;
        client.take(QOS_2, 3).await;
        client.ping().await;
        assert_eq!(broker.client("c").await.unwrap().unwrap().in_flight, 0);
        Client::connected(&broker, connect_in(version, "c")).await.leave().await;
    }
}

/// [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.11.3-1] [MQTT-3.11.3-2]
/// 3.1.1: [MQTT-3.10.4-4] [MQTT-3.10.4-5]
/// Before MQTT 5.0 UNSUBACK does not say whether there was a subscription.
#[actix_rt::test]
async fn unsubscribe_is_answered_with_its_identifier_whatever_there_was() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        for name in ["a", "b"] {
            client.subscribe(name, QOS_0).await;
        }
        client.send(unsubscribe(0x1234, vec!["none"])).await;
        client.send(unsubscribe(0xFFFF, vec!["a", "none", "b"])).await;
        if version == V5 {
            client.expect_bytes(b"\xB0\x04\x12\x34\x00\x11").await;
            client.expect_bytes(b"\xB0\x06\xFF\xFF\x00\x00\x11\x00").await;
        } else {
            client.expect_bytes(b"\xB0\x02\x12\x34").await;
            client.expect_bytes(b"\xB0\x02\xFF\xFF").await;
        }
        client.ping().await;
    }
}

/// [MQTT-3.10.4-6]
/// 3.1.1: [MQTT-3.10.4-6]
/// One answer; the second of two identical filters no longer exists.
#[actix_rt::test]
async fn several_filters_are_handled_as_if_each_came_alone() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        for name in ["a", "b", "c"] {
            client.subscribe(name, QOS_0).await;
        }
        client.send(unsubscribe(1, vec!["a", "a", "c"])).await;
        let reasons = [ReasonCode::Success, ReasonCode::NoSubscriptionExisted, ReasonCode::Success];
        client.expect(unsuback(1, if version == V5 { &reasons } else { &[] })).await;
        for topic in ["a", "b", "c"] {
            broker.publish(topic, b"x", QOS_0, false).await.unwrap();
        }
        client.expect_publish(publish("b", "x")).await;
        client.ping().await;
    }
}
