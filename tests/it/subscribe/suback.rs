//! Sections 3.8 and 3.9: SUBSCRIBE and SUBACK.

use hearthmq::{
    auth::{AccessRequest, Action},
    mqtt::{Packet, ProtocolVersion, ReasonCode, RetainHandling},
};

use crate::support::{self, Client, packets::*, refusing, world, world_with};

/// Returns whether it is a subscription to `secret`.
fn is_secret(request: &AccessRequest<'_>) -> bool {
    matches!(request.action, Action::Subscribe { filter: "secret", .. })
}

/// Returns a SUBSCRIBE with identifier 1 and this payload of less than 120 bytes.
pub(super) fn subscribe_bytes(version: ProtocolVersion, payload: &[u8]) -> Vec<u8> {
    let properties: &[u8] = if version == V5 { &[0] } else { &[] };
    let remaining = 2 + properties.len() + payload.len();
    [&[0x82, remaining as u8, 0, 1], properties, payload].concat()
}

/// [MQTT-3.8.1-1]
/// 3.1.1: [MQTT-3.8.1-1]
#[actix_rt::test]
async fn subscribe_with_other_flags_is_malformed() {
    let broker = world().await;
    for version in VERSIONS {
        for flags in (0..16).filter(|flags| *flags != 2) {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            let mut packet = subscribe_bytes(version, b"\x00\x01a\x00");
            packet[0] = 0x80 | flags;
            client.send_bytes(&packet).await;
            client.expect_disconnect(ReasonCode::MalformedPacket).await;
            assert_eq!(broker.metrics().totals().subscriptions.value(), 0);
        }
    }
}

/// [MQTT-3.8.3-1]
/// 3.1.1: [MQTT-3.8.3-1]
/// Ill-formed, a surrogate, an overlong form, U+0000, cut off.
#[actix_rt::test]
async fn a_topic_filter_that_is_not_utf_8_is_malformed() {
    let broker = world().await;
    for version in VERSIONS {
        for filter in [
            &b"\x00\x01\xFF\x00"[..],
            b"\x00\x02\xC3\x28\x00",
            b"\x00\x03\xED\xA0\x80\x00",
            b"\x00\x02\xC0\xAF\x00",
            b"\x00\x03a\x00b\x00",
            b"\x00\x05a\x00",
        ] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.send_bytes(&subscribe_bytes(version, filter)).await;
            client.expect_disconnect(ReasonCode::MalformedPacket).await;
        }
    }
}

/// [MQTT-3.8.3-2]
/// 3.1.1: [MQTT-3.8.3-3]
#[actix_rt::test]
async fn subscribe_without_a_topic_filter_is_a_protocol_error() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.send_bytes(&subscribe_bytes(version, b"")).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
    }
}

/// [MQTT-3.8.3-3]
/// The Client Identifier decides, not the connection.
#[actix_rt::test]
async fn with_no_local_a_client_gets_only_what_others_publish() {
    let broker = world().await;
    let mut other = Client::connected(&broker, connect("other")).await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.send(subscribe(1, vec![no_local(filter("t", QOS_1)), filter("u", QOS_1)])).await;
    client.expect(suback(1, &[ReasonCode::GrantedQoS1; 2])).await;
    for _ in 0..2 {
        client.publish(publish("t", "own")).await;
        client.ping().await;
        client.publish(publish("u", "own")).await;
        client.expect_publish(publish("u", "own")).await;
        other.publish(publish("t", "foreign")).await;
        client.expect_publish(publish("t", "foreign")).await;
        let (again, present) = Client::connected_with(&broker, connect_lasting("c", V5)).await;
        assert!(present);
        client = again;
    }
}

/// [MQTT-3.8.3-4]
#[actix_rt::test]
async fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.send_bytes(&subscribe_bytes(V5, b"\x00\x0A$share/g/a\x04")).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}

/// [MQTT-3.8.3-5]
/// 3.1.1: [MQTT-3.8.3-4]
#[actix_rt::test]
async fn reserved_bits_of_the_subscription_options_are_malformed() {
    let broker = world().await;
    for (version, reserved) in [(V5, 6..8), (V3_1_1, 2..8)] {
        for bit in reserved {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            let payload = [0, 1, b'a', 1, 0, 1, b'b', 1 | 1 << bit];
            client.send_bytes(&subscribe_bytes(version, &payload)).await;
            client.expect_disconnect(ReasonCode::MalformedPacket).await;
        }
    }
}

/// 3.1.1: [MQTT-3.8.3-4]
/// Sections 3.8.2.1.2 and 3.8.3.1: Maximum QoS 3, Retain Handling 3, and a Subscription Identifier
/// that is 0 or given twice.
#[actix_rt::test]
async fn values_that_subscribe_may_not_hold_are_protocol_errors() {
    let broker = world().await;
    for wrong in [
        &b"\x82\x07\x00\x01\x00\x00\x01a\x03"[..],
        b"\x82\x07\x00\x01\x00\x00\x01a\x30",
        b"\x82\x09\x00\x01\x02\x0B\x00\x00\x01a\x00",
        b"\x82\x0B\x00\x01\x04\x0B\x01\x0B\x01\x00\x01a\x00",
    ] {
        let mut client = Client::connected(&broker, connect("c")).await;
        client.send_bytes(wrong).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
    }
    let mut client = Client::connected(&broker, connect_in(V3_1_1, "c")).await;
    client.send_bytes(b"\x82\x06\x00\x01\x00\x01a\x03").await;
    client.expect_closed().await;
}

/// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-7] [MQTT-3.9.3-2]
/// 3.1.1: [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.9.3-2]
#[actix_rt::test]
async fn subscribe_is_answered_with_its_identifier_and_the_qos_that_is_granted() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        for (packet_id, qos) in [(1, QOS_0), (0x1234, QOS_1), (0xFFFF, QOS_2)] {
            client.send(subscribe(packet_id, vec![filter("a", qos)])).await;
            let [high, low] = packet_id.to_be_bytes();
            if version == V5 {
                client.expect_bytes(&[0x90, 4, high, low, 0, qos.number()]).await;
            } else {
                client.expect_bytes(&[0x90, 3, high, low, qos.number()]).await;
            }
        }
        client.ping().await;
    }
}

/// [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
/// 3.1.1: [MQTT-3.8.4-5] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
#[actix_rt::test]
async fn each_topic_filter_has_its_code_in_its_order() {
    let mut limits = support::generous();
    limits.subscriptions_per_client_max = 3;
    let configured = |builder: hearthmq::broker::Builder| builder.limits(limits);
    let broker = world_with(|builder| configured(builder).authorizer(refusing(is_secret))).await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_terse(version, "c")).await;
        let asked = [("a", QOS_2), ("secret", QOS_1), ("b", QOS_0), ("c", QOS_1), ("d", QOS_1)];
        let filters = asked.iter().map(|(name, qos)| filter(name, *qos)).collect();
        client.send(subscribe(1, filters)).await;
        if version == V5 {
            client.expect_bytes(b"\x90\x08\x00\x01\x00\x02\x87\x00\x01\x97").await;
        } else {
            client.expect_bytes(b"\x90\x07\x00\x01\x02\x80\x00\x01\x80").await;
        }
        for topic in ["secret", "d"] {
            client.publish(publish(topic, "x")).await;
        }
        client.ping().await;
    }
}

/// [MQTT-3.8.4-3]
/// 3.1.1: [MQTT-3.8.4-3]
/// There is one subscription, with the new QoS, options and identifier. A different filter is
/// another subscription, even if it matches the same topics.
#[actix_rt::test]
async fn an_identical_filter_replaces_the_subscription() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let mut old = Client::connected(&broker, connect_in(V3_1_1, "old")).await;
    client.send(subscribe_as(1, 5, vec![no_local(as_published(filter("t", QOS_2)))])).await;
    client.expect(suback(1, &[ReasonCode::GrantedQoS2])).await;
    client.send(subscribe_as(2, 6, vec![filter("t", QOS_1)])).await;
    client.expect(suback(2, &[ReasonCode::GrantedQoS1])).await;
    old.subscribe("t", QOS_2).await;
    old.subscribe("t", QOS_0).await;
    assert_eq!(broker.metrics().totals().subscriptions.value(), 2);
    client.publish(retained(publish_1(7, "t", "x"))).await;
    client.expect_publish(identified(publish_1(1, "t", "x"), &[6])).await;
    client.expect(puback(7, ReasonCode::Success)).await;
    client.ping().await;
    old.expect_publish(publish("t", "x")).await;
    old.ping().await;
    client.send(subscribe_as(3, 7, vec![filter("+", QOS_0)])).await;
    client.expect(suback(3, &[ReasonCode::Success])).await;
    client.expect_publish(identified(retained(publish("t", "x")), &[7])).await;
    client.publish(publish("t", "y")).await;
    client.expect_publish(identified(publish("t", "y"), &[6, 7])).await;
    client.send(unsubscribe(4, vec!["t"])).await;
    client.expect(unsuback(4, &[ReasonCode::Success])).await;
    client.publish(publish("t", "z")).await;
    client.expect_publish(identified(publish("t", "z"), &[7])).await;
}

/// [MQTT-3.8.4-4]
/// 3.1.1: [MQTT-3.8.4-3]
#[actix_rt::test]
async fn replacing_a_subscription_sends_what_is_retained_and_loses_nothing() {
    let broker = world().await;
    for version in VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        publisher.publish(retained(publish("t/kept", "kept"))).await;
        publisher.ping().await;
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        let mut last = 0;
        let mut kept = 0;
        for round in 1..=20_u16 {
            client.send(subscribe(round, vec![filter("t/+", QOS_0)])).await;
            publisher.publish(publish("t/x", &round.to_string())).await;
            publisher.ping().await;
        }
        client.send(Packet::PingReq).await;
        let mut done = false;
        while !done {
            client
                .receive(|packet| match packet {
                    Packet::SubAck(_) => {}
                    Packet::PingResp => done = true,
                    Packet::Publish(packet) if packet.flags.retain => kept += 1,
                    Packet::Publish(packet) => {
                        let number: u16 = str::from_utf8(packet.payload).unwrap().parse().unwrap();
                        assert!(number == last + 1 || last == 0, "{number} after {last}");
                        last = number;
                    }
                    other => panic!("{other:?}"),
                })
                .await;
        }
        assert_eq!((kept, last), (20, 20));
    }
}

/// [MQTT-3.8.4-4]
/// Retain Handling decides whether retained messages come again.
#[actix_rt::test]
async fn only_retain_handling_0_sends_what_is_retained_again() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.publish(retained(publish("t", "kept"))).await;
    for (retain_handling, comes) in [
        (RetainHandling::SendIfNew, true),
        (RetainHandling::Send, true),
        (RetainHandling::SendIfNew, false),
        (RetainHandling::DoNotSend, false),
        (RetainHandling::Send, true),
    ] {
        client.send(subscribe(1, vec![handling(filter("t", QOS_0), retain_handling)])).await;
        client.expect(suback(1, &[ReasonCode::Success])).await;
        if comes {
            client.expect_publish(retained(publish("t", "kept"))).await;
        }
        client.ping().await;
    }
}

/// [MQTT-3.8.4-5]
/// 3.1.1: [MQTT-3.8.4-4]
/// One SUBACK, and retained messages for each filter; of two identical filters the last one counts.
#[actix_rt::test]
async fn several_filters_are_handled_as_if_each_came_alone() {
    let broker = world().await;
    for version in VERSIONS {
        broker.publish("a", b"kept", QOS_2, true).await.unwrap();
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        let filters = [("a", QOS_1), ("+", QOS_2), ("a", QOS_0)];
        let filters = filters.iter().map(|(name, qos)| filter(name, *qos)).collect();
        client.send(subscribe(1, filters)).await;
        let granted = [ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2, ReasonCode::Success];
        client.expect(suback(1, &granted)).await;
        client.expect_publish(retained(publish_1(1, "a", "kept"))).await;
        client.expect_publish(retained(publish_2(2, "a", "kept"))).await;
        client.expect_publish(retained(publish("a", "kept"))).await;
        client.send(unsubscribe(2, vec!["+"])).await;
        client.receive(|packet| assert!(matches!(packet, Packet::UnsubAck(_)))).await;
        broker.publish("a", b"new", QOS_2, false).await.unwrap();
        client.expect_publish(publish("a", "new")).await;
        client.ping().await;
    }
}

/// [MQTT-3.8.4-8]
/// 3.1.1: [MQTT-3.8.4-6]
/// Also for retained messages.
#[actix_rt::test]
async fn a_message_comes_with_the_lower_qos_of_its_own_and_the_granted_one() {
    let broker = world().await;
    let levels = [QOS_0, QOS_1, QOS_2];
    for version in VERSIONS {
        for (published, granted) in levels.iter().flat_map(|p| levels.map(|g| (*p, g))) {
            broker.publish("t", b"kept", published, true).await.unwrap();
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.subscribe("t", granted).await;
            broker.publish("t", b"new", published, false).await.unwrap();
            for payload in [b"kept".as_slice(), b"new"] {
                client
                    .receive(|packet| {
                        let Packet::Publish(packet) = packet else { panic!("{packet:?}") };
                        assert_eq!(packet.payload, payload);
                        assert_eq!(packet.flags.qos, published.min(granted));
                    })
                    .await;
            }
        }
    }
}
