//! Section 4.7: Topic Names and Topic Filters.

use hearthmq::mqtt::{Packet, ReasonCode};

use crate::{
    sessions::delivery::bytes_of,
    support::{self, Client, packets::*, world, world_with},
};

/// [MQTT-3.3.2-2] [MQTT-4.7.0-1]
/// 3.1.1: [MQTT-3.3.2-2] [MQTT-4.7.1-1]
/// Also in the topic of a Will.
#[actix_rt::test]
async fn a_wildcard_in_a_topic_name_ends_the_connection() {
    let broker = world().await;
    for version in [V3_1, V3_1_1, V5] {
        let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
        subscriber.subscribe("#", QOS_2).await;
        for topic in ["#", "+", "a/#", "a/+/b", "a#", "a#b", "a+", "a+b", "$share/g/+"] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.publish(publish(topic, "x")).await;
            client.expect_disconnect(ReasonCode::TopicNameInvalid).await;
            let mut client = Client::new(&broker, version);
            let mut packet = connect_in(version, "c");
            packet.will = Some(will(topic, "gone"));
            let packet = Packet::Connect(Box::new(packet));
            client.send_bytes(&bytes_of(version, &[packet])).await;
            if version == V5 {
                client.expect_refused(ReasonCode::TopicNameInvalid).await;
            } else {
                client.expect_closed().await;
            }
        }
        subscriber.ping().await;
    }
}

/// [MQTT-4.7.1-1] [MQTT-4.7.1-2]
/// 3.1.1: [MQTT-3.3.2-3] [MQTT-4.7.1-2] [MQTT-4.7.1-3]
/// The examples of section 4.7.1: `(filter, matching topics, other topics)`
#[actix_rt::test]
async fn wildcards_stand_for_levels() {
    let broker = world().await;
    for version in VERSIONS {
        for (asked, matching, others) in [
            (
                "sport/tennis/player1/#",
                &[
                    "sport/tennis/player1",
                    "sport/tennis/player1/ranking",
                    "sport/tennis/player1/score/wimbledon",
                ][..],
                &["sport/tennis", "sport/tennis/player2", "sport/tennis/player10"][..],
            ),
            ("sport/#", &["sport", "sport/", "sport/a/b"], &["sports", "/sport", "Sport"]),
            ("#", &["a", "/", "//", "a/b"], &[]),
            (
                "sport/tennis/+",
                &["sport/tennis/player1", "sport/tennis/"],
                &["sport/tennis", "sport/tennis/player1/ranking"],
            ),
            ("sport/+", &["sport/"], &["sport"]),
            ("+", &["a"], &["/a", "a/", "/"]),
            ("+/tennis/#", &["a/tennis", "/tennis", "a/tennis/b"], &["tennis", "a/b/tennis"]),
            ("+/+", &["/finance", "a/b", "/"], &["finance", "a/b/c"]),
            ("/+", &["/finance"], &["finance", "//finance"]),
            ("a//+", &["a//b", "a//"], &["a/b", "a/b/c"]),
            ("a/+/c", &["a/b/c", "a//c"], &["a/c", "a/b/c/d"]),
            ("+/b/#", &["a/b", "a/b/c"], &["$a/b", "a/c"]),
            ("$own/#", &["$own", "$own/a"], &["own/a"]),
            ("$own/+", &["$own/a"], &["$own"]),
            ("a", &["a"], &["A", "a/", "/a"]),
        ] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.subscribe(asked, QOS_0).await;
            for topic in others.iter().chain(matching) {
                broker.publish(topic, b"x", QOS_0, false).await.unwrap();
            }
            for topic in matching {
                client.expect_publish(publish(topic, "x")).await;
            }
            client.ping().await;
        }
    }
}

/// [MQTT-4.7.2-1]
/// 3.1.1: [MQTT-4.7.2-1]
/// For messages retained before, and published after. A lower level may begin with `$`, and a
/// filter that names the first level matches.
#[actix_rt::test]
async fn a_leading_wildcard_does_not_match_a_leading_dollar() {
    let broker = world().await;
    for topic in ["$own/x", "$hidden"] {
        broker.publish(topic, b"kept", QOS_0, true).await.unwrap();
    }
    for version in VERSIONS {
        for asked in ["#", "+/x", "+", "+/#", "$share/g/#", "$share/g/+/x"] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.subscribe(asked, QOS_0).await;
            for topic in ["$own/x", "$hidden", "$", "$own"] {
                client.publish(publish(topic, "x")).await;
            }
            client.ping().await;
        }
        for (asked, topic) in
            [("$own/#", "$own/x"), ("$own/+", "$own/x"), ("a/+", "a/$b"), ("+/$b", "a/$b")]
        {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.subscribe(asked, QOS_0).await;
            if topic.starts_with('$') {
                client.expect_publish(retained(publish(topic, "kept"))).await;
            }
            client.publish(publish(topic, "x")).await;
            client.expect_publish(publish(topic, "x")).await;
        }
    }
}

/// [MQTT-4.7.3-1]
/// 3.1.1: [MQTT-4.7.3-1]
/// An empty name and an empty filter; one character is enough, even the separator.
#[actix_rt::test]
async fn a_topic_is_at_least_one_character_long() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        for topic in ["/", " ", "x"] {
            client.subscribe(topic, QOS_0).await;
            client.publish(publish(topic, "x")).await;
            client.expect_publish(publish(topic, "x")).await;
        }
        client.publish(publish("", "x")).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
        for packet in [subscribe(1, vec![filter("", QOS_0)]), unsubscribe(1, vec![""])] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.send(packet).await;
            client.expect_disconnect(ReasonCode::MalformedPacket).await;
        }
    }
}

/// [MQTT-4.7.3-2]
/// 3.1.1: [MQTT-4.7.3-2]
#[actix_rt::test]
async fn a_topic_does_not_hold_the_null_character() {
    let broker = world().await;
    for version in VERSIONS {
        let properties: &[u8] = if version == V5 { &[0] } else { &[] };
        let publish = [b"\x00\x03a\x00b", properties, b"x"].concat();
        let subscribe = [b"\x00\x01", properties, b"\x00\x03a\x00b\x00"].concat();
        let unsubscribe = [b"\x00\x01", properties, b"\x00\x03a\x00b"].concat();
        for (first, body) in [(0x30, publish), (0x82, subscribe), (0xA2, unsubscribe)] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.send_bytes(&[&[first, body.len() as u8], &body[..]].concat()).await;
            client.expect_disconnect(ReasonCode::MalformedPacket).await;
        }
    }
}

/// [MQTT-4.7.3-3]
/// 3.1.1: [MQTT-4.7.3-3]
/// More than 65,535 bytes cannot be encoded; 65,535 are accepted if the limits allow it.
#[actix_rt::test]
async fn the_longest_topic_is_65_535_bytes_long() {
    let mut limits = support::generous();
    limits.topic_bytes_max = u16::MAX;
    let broker = world_with(|builder| builder.limits(limits)).await;
    let topic = "x".repeat(usize::from(u16::MAX));
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe(&topic, QOS_0).await;
        client.publish(publish(&topic, "x")).await;
        let whole = [Packet::Publish(publish(&topic, "x"))];
        client.expect_bytes(&bytes_of(version, &whole)).await;
        client.ping().await;
    }
}

/// [MQTT-4.7.3-4]
/// 3.1.1: [MQTT-4.7.3-4]
/// Case, composition, separators, spaces and unassigned characters all count, and none is changed
/// on the way.
#[actix_rt::test]
async fn topics_are_compared_as_they_are() {
    let broker = world().await;
    let topics = [
        "a/\u{c5}",
        "a/A\u{30a}",
        "A/\u{c5}",
        "a//\u{c5}",
        "a/\u{c5}/",
        "a/\u{c5} ",
        "a/\u{feff}\u{c5}",
        "\u{feff}a/\u{c5}",
        "a/\u{e000}",
        "a/\u{10ffff}",
        "a/%C3%85",
        "a/./\u{c5}",
    ];
    for version in VERSIONS {
        let mut clients = Vec::new();
        for (number, topic) in topics.iter().enumerate() {
            let client_id = format!("c{number}");
            let mut client = Client::connected(&broker, connect_in(version, &client_id)).await;
            client.subscribe(topic, QOS_0).await;
            clients.push(client);
        }
        for topic in topics {
            clients[0].publish(publish(topic, topic)).await;
        }
        for (client, topic) in clients.iter_mut().zip(topics) {
            client.expect_publish(publish(topic, topic)).await;
            client.ping().await;
        }
    }
}
