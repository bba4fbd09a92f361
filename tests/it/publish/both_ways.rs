//! Section 3.3: PUBLISH both ways. RETAIN is in `retained`, properties are in
//! `publish_properties`.

use hearthmq::{
    auth::{AccessRequest, Action, Authorizer, Decision},
    mqtt::{Packet, ProtocolVersion, ReasonCode},
};

use crate::{
    sessions::at_connect::lose,
    sockets::{broker, broker_with, connected},
    support::{generous, packets::*},
    wire::*,
};

/// [MQTT-3.3.1-1] [MQTT-3.3.1-3]; 3.1.1: [MQTT-3.3.1-1] [MQTT-3.3.1-3]
#[actix_rt::test]
async fn dup_says_that_the_broker_sends_again_and_nothing_of_the_publisher() {
    let (broker, address) = broker().await;
    for version in VERSIONS {
        let mut publisher = connected(address, connect_in(version, "p")).await;
        let mut client = connected(address, connect_lasting("c", version)).await;
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
            let mut client = connected(address, connect_lasting("c", version)).await;
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
        connected(address, connect_in(version, "c")).await.leave().await;
    }
}

/// [MQTT-3.3.1-2]; 3.1.1: [MQTT-3.3.1-2]
#[actix_rt::test]
async fn dup_with_qos_0_closes_the_connection_and_is_never_sent() {
    let (_broker, address) = broker().await;
    for version in VERSIONS {
        let none = no_properties(version);
        let mut subscriber = connected(address, connect_in(version, "s")).await;
        subscriber.subscribe("t", QOS_0).await;
        for first in [0x38, 0x39] {
            let mut client = connected(address, connect_in(version, "c")).await;
            client.send_bytes(&packet(first, &[b"\0\x01t", none, b"x"])).await;
            client.expect_disconnect(ReasonCode::MalformedPacket).await;
        }
        let mut client = connected(address, connect_in(version, "c")).await;
        client.publish(dup(publish_1(1, "t", "x"))).await;
        client.expect(puback(1, ReasonCode::Success)).await;
        subscriber.expect_publish(publish("t", "x")).await;
        subscriber.ping().await;
    }
}

/// [MQTT-3.3.1-4]; 3.1.1: [MQTT-3.3.1-4]
#[actix_rt::test]
async fn qos_3_closes_the_connection() {
    let (_broker, address) = broker().await;
    for version in ALL_VERSIONS {
        for first in [0x36, 0x37, 0x3E, 0x3F] {
            let mut client = connected(address, connect_in(version, "c")).await;
            let bytes = packet(first, &[b"\0\x01t\0\x01", no_properties(version), b"x"]);
            client.send_bytes(&bytes).await;
            client.expect_disconnect(ReasonCode::MalformedPacket).await;
        }
    }
}

/// The topic is required, as the first field. [MQTT-3.3.2-1]; 3.1.1: [MQTT-3.3.2-1]
#[actix_rt::test]
async fn a_publish_without_a_topic_closes_the_connection() {
    let (_broker, address) = broker().await;
    for version in ALL_VERSIONS {
        let none = no_properties(version);
        for (body, reason) in [
            (&[][..], ReasonCode::MalformedPacket),
            (&[&b"\0"[..]], ReasonCode::MalformedPacket),
            (&[b"\0\x02t"], ReasonCode::MalformedPacket),
            (&[b"\0\0", none, b"x"], ReasonCode::ProtocolError),
        ] {
            let mut client = connected(address, connect_in(version, "c")).await;
            client.send_bytes(&packet(0x30, body)).await;
            client.expect_disconnect(reason).await;
        }
    }
}

/// [MQTT-3.3.2-2]; 3.1.1: [MQTT-3.3.2-2]
#[actix_rt::test]
async fn a_topic_with_wildcards_closes_the_connection() {
    let (_broker, address) = broker().await;
    for version in ALL_VERSIONS {
        let mut subscriber = connected(address, connect_in(version, "s")).await;
        subscriber.subscribe("#", QOS_2).await;
        for topic in ["#", "+", "a/#", "a/+/b", "a+", "a#b", "$share/g/+"] {
            let mut client = connected(address, connect_in(version, "c")).await;
            client.publish(publish(topic, "x")).await;
            client.expect_disconnect(ReasonCode::TopicNameInvalid).await;
        }
        subscriber.ping().await;
    }
}

/// A delivered message has the published topic, and it matches the filter. [MQTT-3.3.2-3];
/// 3.1.1: [MQTT-3.3.2-3]
#[actix_rt::test]
async fn the_topic_of_what_comes_matches_the_filter() {
    let (_broker, address) = broker().await;
    let topics = ["a", "a/b", "a/b/c", "/a", "a/", "b", "A", "a//b", "$a/b"];
    for version in ALL_VERSIONS {
        let mut publisher = connected(address, connect_in(version, "p")).await;
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
            let mut client = connected(address, connect_in(version, "c")).await;
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
    let (_broker, address) = broker().await;
    for version in ALL_VERSIONS {
        let none = no_properties(version);
        let mut subscriber = connected(address, connect_in(version, "s")).await;
        subscriber.subscribe("t", QOS_0).await;
        let (mut wire, _) = Wire::connected(address, &plain_connect(version, "c")).await;
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
    let (_broker, address) = broker().await;
    for version in ALL_VERSIONS {
        let mut publisher = connected(address, connect_in(version, "p")).await;
        for (first, second, third) in
            [(QOS_0, QOS_1, QOS_2), (QOS_2, QOS_1, QOS_0), (QOS_1, QOS_2, QOS_0)]
        {
            let mut client = connected(address, connect_in(version, "c")).await;
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
    let (_broker, address) = broker().await;
    let mut client = connected(address, connect("c")).await;
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
    let (_broker, address) = broker().await;
    let mut subscriber = connected(address, connect("s")).await;
    subscriber.subscribe("t", QOS_0).await;
    let mut client = connected(address, connect("c")).await;
    client.publish(identified(publish("t", "x"), &[1])).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
    subscriber.ping().await;
}

/// [MQTT-3.3.4-7]: the broker's own Receive Maximum, as sent in CONNACK.
#[actix_rt::test]
async fn a_client_that_exceeds_the_receive_maximum_is_disconnected() {
    let mut limits = generous();
    limits.receive_maximum = 3;
    let (_broker, address) = broker_with(|builder| builder.limits(limits)).await;
    let mut client = connected(address, connect("c")).await;
    for number in 1..=3 {
        client.publish(publish_2(number, "t", "x")).await;
        client.expect(pubrec(number, ReasonCode::NoMatchingSubscribers)).await;
    }
    client.send(pubrel(2)).await;
    client.expect(pubcomp(2)).await;
    client.publish(publish_2(4, "t", "x")).await;
    client.expect(pubrec(4, ReasonCode::NoMatchingSubscribers)).await;
    client.publish(publish_2(5, "t", "x")).await;
    client.expect_disconnect(ReasonCode::ReceiveMaximumExceeded).await;
}

/// The client's Receive Maximum delays messages of QoS 1 and 2, and no other packets.
/// [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3]
#[actix_rt::test]
async fn no_more_messages_are_under_way_than_the_clients_receive_maximum() {
    let (broker, address) = broker().await;
    for maximum in [1, 2, 7] {
        let mut connect = connect("c");
        connect.properties.receive_maximum = Some(maximum);
        let mut client = connected(address, connect).await;
        client.subscribe("t", QOS_2).await;
        for number in 0..=maximum {
            let qos = if number % 2 == 0 { QOS_2 } else { QOS_1 };
            broker.publish("t", b"x", qos, false).await.unwrap();
        }
        for number in 1..=maximum {
            client
                .receive(|packet| {
                    let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                    assert_eq!(publish.packet_id, Some(id(number)));
                })
                .await;
        }
        // The quota is used up: everything except QoS 1 and 2 messages continues.
        client.ping().await;
        client.publish(publish("t", "QoS 0")).await;
        client.expect_publish(publish("t", "QoS 0")).await;
        client.publish(publish_1(1, "other", "x")).await;
        client.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
        client.publish(publish_2(2, "other", "x")).await;
        client.expect_taken(QOS_2, 2, ReasonCode::NoMatchingSubscribers).await;
        client.subscribe("elsewhere", QOS_0).await;
        // A QoS 2 message is in flight until PUBCOMP.
        client.send(pubrec(1, ReasonCode::Success)).await;
        client.expect(pubrel(1)).await;
        client.ping().await;
        client.send(pubcomp(1)).await;
        client
            .receive(|packet| {
                let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                assert_eq!(publish.packet_id, Some(id(maximum + 1)));
            })
            .await;
        client.ping().await;
        // A PUBREC with an error completes it as well.
        if maximum > 2 {
            broker.publish("t", b"x", QOS_2, false).await.unwrap();
            client.ping().await;
            client.send(pubrec(3, ReasonCode::UnspecifiedError)).await;
            client.expect_publish(publish_2(maximum + 2, "t", "x")).await;
        }
    }
}

struct OnlyReading;

impl Authorizer for OnlyReading {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        match request.action {
            Action::Publish { .. } => Decision::Deny,
            _ => Decision::Allow,
        }
    }
}

/// MQTT 3 has no code for it and acknowledges. [MQTT-3.3.5-2] of 3.1.1
#[actix_rt::test]
async fn a_publish_without_permission_is_acknowledged_and_not_delivered() {
    let (_broker, address) = broker_with(|builder| builder.authorizer(OnlyReading)).await;
    let mut subscriber = connected(address, connect("s")).await;
    subscriber.subscribe("t", QOS_0).await;
    for version in ALL_VERSIONS {
        let mut client = connected(address, connect_in(version, "c")).await;
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
