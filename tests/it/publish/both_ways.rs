//! Section 3.3: PUBLISH both ways. RETAIN is in `retained`, properties are in
//! `publish_properties`.

use hearthmq::{
    auth::{AccessRequest, Action},
    mqtt::{Packet, ProtocolVersion, ReasonCode},
};

use crate::{
    sessions::at_connect::lose,
    support::{Client, packets::*, refusing, world, world_where},
    wire::*,
};

/// [MQTT-3.3.1-1] [MQTT-3.3.1-3]; 3.1.1: [MQTT-3.3.1-1] [MQTT-3.3.1-3]
#[actix_rt::test]
async fn dup_says_that_the_broker_sends_again_and_nothing_of_the_publisher() {
    let broker = world().await;
    for version in VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        client.subscribe("t", QOS_2).await;
        publisher.publish(dup(publish_1(1, "t", "1"))).await;
        client.expect_publish(publish_1(1, "t", "1")).await;
        publisher.publish(dup(publish_2(2, "t", "2"))).await;
        client.expect_publish(publish_2(2, "t", "2")).await;
        lose(&broker, client, "c").await;
        // The first attempt of this one comes after the second attempt of the others.
        publisher.publish(dup(publish_1(3, "t", "3"))).await;
        for _ in 0..3 {
            publisher.receive(|_| ()).await;
        }
        for again in [true, true, false] {
            let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
            client.expect_publish(dup(publish_1(1, "t", "1"))).await;
            client.expect_publish(dup(publish_2(2, "t", "2"))).await;
            client
                .receive(|packet| {
                    let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                    assert_eq!(publish.packet_id, Some(id(3)));
                })
                .await;
            client.ping().await;
            if again {
                lose(&broker, client, "c").await;
            } else {
                client.leave().await;
            }
        }
        Client::connected(&broker, connect_in(version, "c")).await.leave().await;
    }
}

/// [MQTT-3.3.1-2]; 3.1.1: [MQTT-3.3.1-2]
#[actix_rt::test]
async fn dup_with_qos_0_closes_the_connection_and_is_never_sent() {
    let broker = world().await;
    for version in VERSIONS {
        let none = no_properties(version);
        let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
        subscriber.subscribe("t", QOS_0).await;
        for first in [0x38, 0x39] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.send_bytes(&packet(first, &[b"\0\x01t", none, b"x"])).await;
            client.expect_disconnect(ReasonCode::MalformedPacket).await;
        }
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.publish(dup(publish_1(1, "t", "x"))).await;
        client.expect(puback(1, ReasonCode::Success)).await;
        subscriber.expect_publish(publish("t", "x")).await;
        subscriber.ping().await;
    }
}

/// [MQTT-3.3.1-4]; 3.1.1: [MQTT-3.3.1-4]
#[actix_rt::test]
async fn qos_3_closes_the_connection() {
    let broker = world().await;
    for version in ALL_VERSIONS {
        for first in [0x36, 0x37, 0x3E, 0x3F] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            let bytes = packet(first, &[b"\0\x01t\0\x01", no_properties(version), b"x"]);
            client.send_bytes(&bytes).await;
            client.expect_disconnect(ReasonCode::MalformedPacket).await;
        }
    }
}

/// The topic is required, as the first field. [MQTT-3.3.2-1]; 3.1.1: [MQTT-3.3.2-1]
#[actix_rt::test]
async fn a_publish_without_a_topic_closes_the_connection() {
    let broker = world().await;
    for version in ALL_VERSIONS {
        let none = no_properties(version);
        for (body, reason) in [
            (&[][..], ReasonCode::MalformedPacket),
            (&[&b"\0"[..]], ReasonCode::MalformedPacket),
            (&[b"\0\x02t"], ReasonCode::MalformedPacket),
            (&[b"\0\0", none, b"x"], ReasonCode::ProtocolError),
        ] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.send_bytes(&packet(0x30, body)).await;
            client.expect_disconnect(reason).await;
        }
    }
}

/// A delivered message has the published topic, and it matches the filter. [MQTT-3.3.2-3];
/// 3.1.1: [MQTT-3.3.2-3]
#[actix_rt::test]
async fn the_topic_of_what_comes_matches_the_filter() {
    let broker = world().await;
    let topics = ["a", "a/b", "a/b/c", "/a", "a/", "b", "A", "a//b", "$a/b"];
    for version in ALL_VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        for (asked, expected) in [
            ("a", &["a"][..]),
            ("a/#", &["a", "a/b", "a/b/c", "a/", "a//b"]),
            ("a/+", &["a/b", "a/"]),
            ("+/b", &["a/b"]),
            ("+", &["a", "b", "A"]),
            ("/+", &["/a"]),
            ("a/+/b", &["a//b"]),
            ("$a/#", &["$a/b"]),
        ] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.subscribe(asked, QOS_0).await;
            for topic in topics {
                publisher.publish(publish(topic, topic)).await;
            }
            publisher.ping().await;
            for topic in expected {
                client.expect_publish(publish(topic, topic)).await;
            }
            client.ping().await;
        }
    }
}

/// [MQTT-3.3.4-1]; 3.1.1: [MQTT-3.3.4-1]
#[actix_rt::test]
async fn each_qos_has_its_answer() {
    let broker = world().await;
    for version in ALL_VERSIONS {
        let none = no_properties(version);
        let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
        subscriber.subscribe("t", QOS_0).await;
        let (mut wire, _) = Wire::connected(&broker, &plain_connect(version, "c")).await;
        wire.send(&packet(0x30, &[b"\0\x01t", none, b"0"])).await;
        wire.ping().await;
        wire.send(&packet(0x32, &[b"\0\x01t\0\x01", none, b"1"])).await;
        wire.expect(b"\x40\x02\0\x01").await;
        wire.ping().await;
        wire.send(&packet(0x34, &[b"\0\x01t\0\x02", none, b"2"])).await;
        wire.expect(b"\x50\x02\0\x02").await;
        wire.ping().await;
        for payload in ["0", "1", "2"] {
            subscriber.expect_publish(publish("t", payload)).await;
        }
    }
}

/// [MQTT-3.3.4-2]; [MQTT-3.3.5-1] of 3.1.1
#[actix_rt::test]
async fn overlapping_subscriptions_bring_the_highest_qos_among_them() {
    let broker = world().await;
    for version in ALL_VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        for (first, second, third) in
            [(QOS_0, QOS_1, QOS_2), (QOS_2, QOS_1, QOS_0), (QOS_1, QOS_2, QOS_0)]
        {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            for (asked, qos) in [("a/b", first), ("a/#", second), ("+/b", third)] {
                client.subscribe(asked, qos).await;
            }
            publisher.publish(publish_2(1, "a/b", "x")).await;
            publisher.expect_taken(QOS_2, 1, ReasonCode::Success).await;
            client.expect_publish(publish_2(1, "a/b", "x")).await;
            client.take(QOS_2, 1).await;
            client.ping().await;
        }
    }
}

/// A single copy has all identifiers; separate copies have one each. [MQTT-3.3.4-3] [MQTT-3.3.4-4]
/// [MQTT-3.3.4-5]
#[actix_rt::test]
async fn a_message_names_the_subscriptions_that_it_comes_for() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    for (identifier, asked) in
        [(Some(1), "a/b"), (Some(268_435_455), "a/#"), (None, "+/b"), (Some(7), "other")]
    {
        let filters = vec![filter(asked, QOS_0)];
        client
            .send(match identifier {
                Some(identifier) => subscribe_as(1, identifier, filters),
                None => subscribe(1, filters),
            })
            .await;
        client.expect(suback(1, &[ReasonCode::Success])).await;
    }
    let identifiers = |packet: Packet<'_>| {
        let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
        let mut identifiers = publish.properties.subscription_identifiers;
        identifiers.sort_unstable();
        identifiers
    };
    client.publish(publish("a/b", "x")).await;
    assert_eq!(client.receive(identifiers).await, [1, 268_435_455]);
    client.publish(publish("c/b", "x")).await;
    assert_eq!(client.receive(identifiers).await, [0_u32; 0]);
    // A shared subscription brings a separate copy.
    client.send(subscribe_as(1, 30, vec![filter("$share/g/a/+", QOS_0)])).await;
    client.expect(suback(1, &[ReasonCode::Success])).await;
    client.publish(publish("a/b", "x")).await;
    let mut copies = [client.receive(identifiers).await, client.receive(identifiers).await];
    copies.sort();
    assert_eq!(copies, [vec![1, 268_435_455], vec![30]]);
    client.ping().await;
}

/// [MQTT-3.3.4-6] [MQTT-4.13.1-1]
#[actix_rt::test]
async fn a_subscription_identifier_from_a_client_is_a_protocol_error() {
    let broker = world().await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("t", QOS_0).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.publish(identified(publish("t", "x"), &[1])).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
    subscriber.ping().await;
}

/// Returns whether it is a message.
fn is_publish(request: &AccessRequest<'_>) -> bool {
    matches!(request.action, Action::Publish { .. })
}

/// MQTT 3 has no code for it and acknowledges. [MQTT-3.3.5-2] of 3.1.1
#[actix_rt::test]
async fn a_publish_without_permission_is_acknowledged_and_not_delivered() {
    let broker = world_where(refusing(is_publish)).await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("t", QOS_0).await;
    for version in ALL_VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.publish(retained(publish("t", "x"))).await;
        client.publish(publish_1(1, "t", "x")).await;
        client.expect(puback(1, refusal(version))).await;
        client.publish(publish_2(2, "t", "x")).await;
        client.expect(pubrec(2, refusal(version))).await;
        if version != V5 {
            client.send(pubrel(2)).await;
            client.expect(pubcomp(2)).await;
        }
        client.ping().await;
        client.subscribe("t", QOS_0).await;
        client.ping().await;
    }
    subscriber.ping().await;
}

fn refusal(version: ProtocolVersion) -> ReasonCode {
    if version == V5 { ReasonCode::NotAuthorized } else { ReasonCode::Success }
}
