//! SUBSCRIBE and UNSUBSCRIBE: their answers, and which messages come.

use hearthmq::mqtt::{Packet, ReasonCode};

use crate::support::{Client, packets::*, world};

/// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6]
#[actix_rt::test]
async fn every_filter_of_a_subscribe_is_answered_in_its_order() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        let filters = vec![filter("a", QOS_2), filter("b", QOS_0), filter("c", QOS_1)];
        client.send(subscribe(77, filters)).await;
        let granted = [ReasonCode::GrantedQoS2, ReasonCode::Success, ReasonCode::GrantedQoS1];
        client.expect(suback(77, &granted)).await;
        assert_eq!(broker.client("c").await.unwrap().unwrap().subscriptions, 3);
    }
}

/// Section 4.7.1: `(filter, matching topics, other topics)`.
#[actix_rt::test]
async fn wildcards_match_whole_levels() {
    let broker = world().await;
    for version in VERSIONS {
        for (asked, matching, others) in [
            (
                "sport/tennis/#",
                &["sport/tennis", "sport/tennis/a", "sport/tennis/a/b"][..],
                &["sport", "sport/tennisx"][..],
            ),
            ("#", &["a", "/", "a/b/c"], &["$SYS/a", "$x"]),
            ("+", &["a"], &["/a", "a/", "$a"]),
            ("+/+", &["/finance", "a/b", "/"], &["a", "a/b/c", "$a/b"]),
            ("/+", &["/finance"], &["finance", "/a/b"]),
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

/// [MQTT-3.3.4-2] [MQTT-3.3.4-4]
#[actix_rt::test]
async fn overlapping_subscriptions_bring_one_copy_at_the_highest_qos_with_all_identifiers() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    for (identifier, asked) in [
        (30, filter("a/#", QOS_0)),
        (10, filter("a/+", QOS_2)),
        (268_435_455, filter("a/b", QOS_1)),
    ] {
        client.send(subscribe_as(9, identifier, vec![asked])).await;
        client.receive(|_| ()).await;
    }
    client.subscribe("+/b", QOS_0).await;
    broker.publish("a/b", b"x", QOS_2, false).await.unwrap();
    let expected = identified(publish_2(1, "a/b", "x"), &[10, 30, 268_435_455]);
    client.expect_publish(expected).await;
    client.ping().await;
    let mut old = Client::connected(&broker, connect_in(V3_1_1, "old")).await;
    old.subscribe("a/#", QOS_0).await;
    old.subscribe("a/b", QOS_1).await;
    broker.publish("a/b", b"x", QOS_2, false).await.unwrap();
    old.expect_publish(publish_1(1, "a/b", "x")).await;
    old.ping().await;
}

/// [MQTT-3.8.3-3]
#[actix_rt::test]
async fn no_local_keeps_a_publisher_from_its_own_messages() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let asked = no_local(filter("t", QOS_1));
    client.send(subscribe(1, vec![asked])).await;
    client.expect(suback(1, &[ReasonCode::GrantedQoS1])).await;
    client.publish(publish("t", "own")).await;
    client.expect_nothing().await;
    let mut other = Client::connected(&broker, connect("other")).await;
    other.publish(publish("t", "foreign")).await;
    client.expect_publish(publish("t", "foreign")).await;
}

/// [MQTT-3.8.3-3] A client's own message comes only for subscriptions without No Local.
#[actix_rt::test]
async fn no_local_counts_for_its_own_subscription_only() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let asked = no_local(filter("t/#", QOS_2));
    client.send(subscribe_as(1, 1, vec![asked])).await;
    client.expect(suback(1, &[ReasonCode::GrantedQoS2])).await;
    client.send(subscribe_as(2, 2, vec![filter("t/a", QOS_1)])).await;
    client.expect(suback(2, &[ReasonCode::GrantedQoS1])).await;
    client.publish(publish_2(5, "t/a", "own")).await;
    client.expect_publish(identified(publish_1(1, "t/a", "own"), &[2])).await;
    client.expect(pubrec(5, ReasonCode::Success)).await;
    let mut other = Client::connected(&broker, connect("other")).await;
    other.publish(publish_2(5, "t/a", "foreign")).await;
    client.expect_publish(identified(publish_2(2, "t/a", "foreign"), &[1, 2])).await;
}

/// No Local belongs to the client, not to the connection.
#[actix_rt::test]
async fn no_local_lasts_as_long_as_the_session() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    let asked = no_local(filter("t", QOS_0));
    client.send(subscribe(1, vec![asked])).await;
    client.expect(suback(1, &[ReasonCode::Success])).await;
    client.vanish().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.publish(publish("t", "own")).await;
    client.expect_nothing().await;
}

/// [MQTT-3.8.4-3]
#[actix_rt::test]
async fn subscribing_again_replaces_the_options() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.send(subscribe_as(1, 5, vec![filter("t", QOS_2)])).await;
    client.expect(suback(1, &[ReasonCode::GrantedQoS2])).await;
    client.subscribe("t", QOS_1).await;
    broker.publish("t", b"x", QOS_2, false).await.unwrap();
    client.expect_publish(publish_1(1, "t", "x")).await;
    client.ping().await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().subscriptions, 1);
}

/// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.11.3-1]
#[actix_rt::test]
async fn unsubscribing_ends_delivery_and_tells_what_existed() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe("a/+", QOS_1).await;
        client.send(unsubscribe(3, vec!["a/b", "a/+", "a/+"])).await;
        let answers = [
            ReasonCode::NoSubscriptionExisted,
            ReasonCode::Success,
            ReasonCode::NoSubscriptionExisted,
        ];
        let answers = if version == V5 { &answers[..] } else { &[] };
        client.expect(unsuback(3, answers)).await;
        broker.publish("a/b", b"x", QOS_1, false).await.unwrap();
        client.expect_nothing().await;
    }
}

/// [MQTT-3.10.4-3]: a started delivery is completed.
#[actix_rt::test]
async fn unsubscribing_does_not_break_off_a_delivery() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe("t", QOS_2).await;
        broker.publish("t", b"x", QOS_2, false).await.unwrap();
        client.expect_publish(publish_2(1, "t", "x")).await;
        client.send(unsubscribe(3, vec!["t"])).await;
        client.receive(|p| assert!(matches!(p, Packet::UnsubAck(_)))).await;
        client.take(QOS_2, 1).await;
        client.ping().await;
    }
}

/// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.8.2-1] [MQTT-4.8.2-2]; [MQTT-4.8.0-1] of
/// 3.1.1
#[actix_rt::test]
async fn an_ill_formed_filter_ends_the_connection_and_nothing_of_its_packet_is_done() {
    let broker = world().await;
    for wrong in [
        "a#",
        "a/#/b",
        "a+",
        "+a/b",
        "##",
        "",
        "$share/g",
        "$share/g/",
        "$share//t",
        "$share/+/t",
        "$share/g/a#",
    ] {
        let filters = vec![filter("good", QOS_1), filter(wrong, QOS_1), filter("fine", QOS_0)];
        for version in [V3_1, V3_1_1, V5] {
            for packet in [subscribe(2, filters.clone()), unsubscribe(2, vec!["kept", wrong])] {
                let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
                client.subscribe("kept", QOS_1).await;
                client.send(packet).await;
                client.expect_disconnect(ReasonCode::MalformedPacket).await;
                assert_eq!(broker.client("c").await.unwrap().unwrap().subscriptions, 1);
            }
        }
    }
}

/// [MQTT-3.8.3-4]
#[actix_rt::test]
async fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let asked = no_local(filter("$share/g/t", QOS_0));
    client.send(subscribe(1, vec![asked])).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}

/// A publisher that subscribes gets its own messages like any other client.
#[actix_rt::test]
async fn a_client_gets_its_own_messages() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe("t", QOS_0).await;
        client.publish(publish("t", "x")).await;
        client.expect_publish(publish("t", "x")).await;
    }
}

/// Subscriptions of a thousand clients to one topic, and of one client to a thousand topics.
#[actix_rt::test]
async fn many_subscribers_each_get_the_message_once() {
    let broker = world().await;
    let mut clients = Vec::new();
    for number in 0..1000 {
        let client_id = format!("c{number}");
        let mut client = Client::on(crate::support::stream_of(&broker, 4096), V3_1_1);
        let packet = connect_in(V3_1_1, &client_id);
        client.send(Packet::Connect(Box::new(packet))).await;
        client.receive(|_| ()).await;
        client.subscribe("all", QOS_0).await;
        clients.push(client);
    }
    broker.publish("all", b"x", QOS_0, false).await.unwrap();
    for client in &mut clients {
        client.expect_publish(publish("all", "x")).await;
        client.ping().await;
    }
}
