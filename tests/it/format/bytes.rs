//! Chapters 1 and 2: data representation, and the form of a Control Packet.

use std::collections::HashSet;

use hearthmq::{
    Broker,
    mqtt::{Packet, ProtocolVersion, ReasonCode},
};

use crate::{
    support::{Client, packets::*, world},
    wire::*,
};

/// Returns CONNECTs with this string in each of their text fields.
fn connects_with(version: ProtocolVersion, string: &[u8]) -> Vec<Vec<u8>> {
    let (text, other) = (prefixed(string), prefixed(b"c"));
    let none = no_properties(version);
    vec![
        raw_connect(version, CLEAN, &[&text]),
        raw_connect(version, CLEAN | WILL, &[&other, none, &text, &other]),
        raw_connect(version, CLEAN | USER_NAME, &[&other, &text]),
    ]
}

/// Returns PUBLISH, SUBSCRIBE and UNSUBSCRIBE with this string.
fn packets_with(version: ProtocolVersion, string: &[u8]) -> Vec<Vec<u8>> {
    let (text, none) = (prefixed(string), no_properties(version));
    vec![
        packet(0x30, &[&text, none]),
        packet(0x82, &[b"\0\x01", none, &text, b"\0"]),
        packet(0xA2, &[b"\0\x01", none, &text]),
    ]
}

/// Returns the string as name and as value of a User Property, with Property Length.
fn user_properties(string: &[u8]) -> Vec<Vec<u8>> {
    let text = prefixed(string);
    vec![
        prefixed_by_byte(&[b"\x26", &text[..], b"\0\x01v"].concat()),
        prefixed_by_byte(&[b"\x26\0\x01n", &text[..]].concat()),
    ]
}

fn prefixed_by_byte(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8], bytes].concat()
}

/// Returns CONNECTs with this string in each string property.
fn connects_with_property(string: &[u8]) -> Vec<Vec<u8>> {
    let text = prefixed(string);
    let property = |identifier: u8| prefixed_by_byte(&[&[identifier], &text[..]].concat());
    let (client_id, topic) = (prefixed(b"c"), prefixed(b"t"));
    let with = |properties: &Vec<u8>| raw_connect_with(V5, CLEAN, properties, &[&client_id]);
    let with_will = |properties: &Vec<u8>| {
        raw_connect(V5, CLEAN | WILL, &[&client_id, properties, &topic, b"\0\0"])
    };
    let of_connect = user_properties(string);
    let of_will = [user_properties(string), vec![property(0x08), property(0x03)]].concat();
    of_connect.iter().map(with).chain(of_will.iter().map(with_will)).collect()
}

/// Returns packets with this string in each string property.
fn packets_with_property(string: &[u8]) -> Vec<Vec<u8>> {
    let text = prefixed(string);
    let property = |identifier: u8| prefixed_by_byte(&[&[identifier], &text[..]].concat());
    let mut packets: Vec<_> = [user_properties(string), vec![property(0x08), property(0x03)]]
        .concat()
        .iter()
        .map(|properties| packet(0x30, &[b"\0\x01t", properties]))
        .collect();
    for properties in user_properties(string) {
        packets.extend([
            packet(0x82, &[b"\0\x01", &properties, b"\0\x01t\0"]),
            packet(0xA2, &[b"\0\x01", &properties, b"\0\x01t"]),
            packet(0x40, &[b"\0\x01\0", &properties]),
            packet(0x62, &[b"\0\x01\0", &properties]),
        ]);
    }
    packets
}

/// Asserts that the broker closes the connection for each of these, as malformed.
async fn are_malformed(
    broker: &Broker,
    version: ProtocolVersion,
    connects: Vec<Vec<u8>>,
    packets: Vec<Vec<u8>>,
) {
    let refusal: &[u8] = if version == V5 { b"\x20\x03\0\x81\0" } else { b"" };
    for connect in connects {
        assert_eq!(answer(broker, &connect).await, refusal, "{version:?} {connect:02x?}");
    }
    for bytes in packets {
        let mut client = Client::connected(broker, connect_in(version, "c")).await;
        client.send_bytes(&bytes).await;
        client.expect_disconnect(ReasonCode::MalformedPacket).await;
    }
}

/// Packets that are refused below are refused for their string: with another string they are valid.
#[actix_rt::test]
async fn text_is_welcome_in_every_field() {
    let broker = world().await;
    for string in [&b"c"[..], "\u{1}\u{7F}ü\u{FFFF}\u{10FFFF}".as_bytes()] {
        for version in ALL_VERSIONS {
            let mut connects = connects_with(version, string);
            let mut packets = packets_with(version, string);
            if version == V5 {
                connects.extend(connects_with_property(string));
                packets.extend(packets_with_property(string));
            }
            for connect in connects {
                Wire::connected(&broker, &connect).await;
            }
            for bytes in packets {
                let (mut wire, _) = Wire::connected(&broker, &plain_connect(version, "c")).await;
                wire.send(&[&bytes[..], b"\xC0\0"].concat()).await;
                while wire.packet().await != b"\xD0\0" {}
            }
        }
    }
}

/// [MQTT-1.5.4-1], and statements that repeat it: [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12]
/// [MQTT-3.3.2-1]
/// 3.1.1: [MQTT-1.5.3-1] [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11] [MQTT-3.3.2-1]
#[actix_rt::test]
async fn ill_formed_utf_8_closes_the_connection() {
    let broker = world().await;
    for string in ILL_FORMED {
        for version in ALL_VERSIONS {
            let (connects, packets) =
                (connects_with(version, string), packets_with(version, string));
            are_malformed(&broker, version, connects, packets).await;
        }
    }
}

/// [MQTT-1.5.4-2]; 3.1.1: [MQTT-1.5.3-2]
#[actix_rt::test]
async fn the_null_character_closes_the_connection() {
    let broker = world().await;
    for string in [&b"\0"[..], b"a\0b"] {
        for version in ALL_VERSIONS {
            let (connects, packets) =
                (connects_with(version, string), packets_with(version, string));
            are_malformed(&broker, version, connects, packets).await;
        }
        let (connects, packets) = (connects_with_property(string), packets_with_property(string));
        are_malformed(&broker, V5, connects, packets).await;
    }
}

/// [MQTT-1.5.7-1], and [MQTT-1.5.4-1] of each property that is a string: [MQTT-3.3.2-13]
/// [MQTT-3.3.2-19]
#[actix_rt::test]
async fn ill_formed_utf_8_in_a_property_closes_the_connection() {
    let broker = world().await;
    for string in ILL_FORMED {
        let (connects, packets) = (connects_with_property(string), packets_with_property(string));
        are_malformed(&broker, V5, connects, packets).await;
    }
}

/// [MQTT-1.5.4-3]; 3.1.1: [MQTT-1.5.3-3]
#[actix_rt::test]
async fn a_byte_order_mark_is_a_character_as_any_other() {
    let broker = world().await;
    for version in VERSIONS {
        let client_id = "\u{FEFF}c\u{FEFF}";
        let mut client = Client::connected(&broker, connect_in(version, client_id)).await;
        assert!(broker.online(client_id).await.unwrap());
        assert!(!broker.online("c").await.unwrap());
        client.subscribe("\u{FEFF}t/\u{FEFF}", QOS_0).await;
        let mut bare = Client::connected(&broker, connect_in(version, "bare")).await;
        bare.subscribe("t/+", QOS_0).await;
        for topic in ["t/", "t/\u{FEFF}", "\u{FEFF}t/", "\u{FEFF}t/\u{FEFF}"] {
            bare.publish(publish(topic, "x")).await;
        }
        bare.expect_publish(publish("t/", "x")).await;
        bare.expect_publish(publish("t/\u{FEFF}", "x")).await;
        bare.ping().await;
        client.expect_publish(publish("\u{FEFF}t/\u{FEFF}", "x")).await;
        client.ping().await;
    }
}

/// [MQTT-1.5.5-1]: MQTT 3 does not require it.
#[actix_rt::test]
async fn a_length_with_more_bytes_than_it_needs_is_malformed() {
    let broker = world().await;
    for bytes in [
        &b"\xC0\x80\0"[..],              // PINGREQ, Remaining Length 0 in two bytes
        b"\x30\x85\0\0\x01t\0x",         // PUBLISH, 5 in two bytes
        b"\x30\x85\x80\x80\0\0\x01t\0x", // … in four
        b"\x30\x06\0\x01t\x80\0x",       // Property Length 0 in two
        b"\x82\x0A\0\x01\x03\x0B\x81\0\0\x01t\0", // Subscription Identifier 1 in two
        b"\x30\xFF\xFF\xFF\xFF\x01\0\x01t\0x", // five bytes: over the maximum in any version
    ] {
        let mut client = Client::connected(&broker, connect_in(V5, "c")).await;
        client.send_bytes(bytes).await;
        client.expect_disconnect(ReasonCode::MalformedPacket).await;
    }
    let mut connect = plain_connect(V5, "c");
    connect.splice(1..2, [connect[1] | 0x80, 0]);
    assert_eq!(answer(&broker, &connect).await, b"\x20\x03\0\x81\0");
    let mut old = Client::connected(&broker, connect_in(V3_1_1, "old")).await;
    old.subscribe("t", QOS_0).await;
    old.send_bytes(b"\x30\x84\0\0\x01tx").await;
    old.expect_publish(publish("t", "x")).await;
    old.send_bytes(b"\x30\xFF\xFF\xFF\xFF\x01\0\x01tx").await;
    old.expect_closed().await;
}

/// [MQTT-1.5.5-1], just below and above each length that needs another byte.
#[actix_rt::test]
async fn lengths_that_the_broker_sends_take_no_more_bytes_than_they_need() {
    let broker = world().await;
    for version in VERSIONS {
        let mut publisher = Client::connected(&broker, connect_in(version, "p")).await;
        let (mut wire, _) = Wire::connected(&broker, &plain_connect(version, "s")).await;
        wire.send(&packet(0x82, &[b"\0\x01", no_properties(version), b"\0\x01t\0"])).await;
        wire.packet().await;
        let header = 3 + no_properties(version).len();
        for (length, encoded) in [
            (127, &b"\x30\x7F"[..]),
            (128, b"\x30\x80\x01"),
            (16_383, b"\x30\xFF\x7F"),
            (16_384, b"\x30\x80\x80\x01"),
        ] {
            let payload = "x".repeat(length - header);
            publisher.publish(publish("t", &payload)).await;
            let expected = [encoded, b"\0\x01t", no_properties(version), payload.as_bytes()];
            wire.expect(&expected.concat()).await;
        }
    }
}

/// Returns valid examples of the packets that a client may send.
fn packets_of_a_client(version: ProtocolVersion) -> Vec<Vec<u8>> {
    let none = no_properties(version);
    let mut packets = vec![
        packet(0x40, &[b"\0\x01"]),
        packet(0x50, &[b"\0\x01"]),
        packet(0x62, &[b"\0\x01"]),
        packet(0x70, &[b"\0\x01"]),
        packet(0x82, &[b"\0\x01", none, b"\0\x01t\0"]),
        packet(0xA2, &[b"\0\x01", none, b"\0\x01t"]),
        packet(0xC0, &[]),
        packet(0xE0, &[]),
    ];
    if version == V5 {
        packets.push(packet(0xF0, &[]));
    }
    packets
}

/// MQTT 3.1 says that DUP, QoS and RETAIN "are not used in the CONNECT message".
#[actix_rt::test]
async fn the_flags_of_connect_do_not_count_in_3_1() {
    let broker = world().await;
    let mut connect = plain_connect(V3_1, "c");
    for flags in 1..16 {
        connect[0] = 0x10 | flags;
        Wire::connected(&broker, &connect).await.0.ping().await;
        // However the bytes are split.
        let mut wire = Wire::open(&broker);
        for byte in &connect {
            wire.send(&[*byte]).await;
        }
        wire.expect(b"\x20\x02\0\0").await;
        // An unknown version does not make the flags valid.
        let mut unknown = connect.clone();
        unknown[10] = 4;
        assert_eq!(answer(&broker, &unknown).await, b"");
    }
}

/// [MQTT-2.1.3-1]; 3.1.1: [MQTT-2.2.2-1] [MQTT-2.2.2-2]
#[actix_rt::test]
async fn other_flags_than_those_of_the_table_close_the_connection() {
    let broker = world().await;
    for version in VERSIONS {
        for mut bytes in packets_of_a_client(version) {
            let right = bytes[0] & 0x0F;
            for wrong in (0..16).filter(|flags| *flags != right) {
                bytes[0] = bytes[0] & 0xF0 | wrong;
                let mut client = Client::connected(&broker, connect_in(version, "c")).await;
                client.send_bytes(&bytes).await;
                client.expect_disconnect(ReasonCode::MalformedPacket).await;
            }
        }
        let mut connect = plain_connect(version, "c");
        for flags in 1..16 {
            connect[0] = 0x10 | flags;
            let answer = answer(&broker, &connect).await;
            assert!(answer.is_empty() || version == V5 && answer == b"\x20\x03\0\x81\0");
        }
    }
}

/// Flags and lengths of every packet that the broker sends, byte by byte. [MQTT-2.1.3-1]
/// [MQTT-2.2.1-2] [MQTT-2.2.2-1]; 3.1.1: [MQTT-2.2.2-1] [MQTT-2.3.1-5]
#[actix_rt::test]
async fn what_the_broker_sends_has_the_form_of_chapter_2() {
    let broker = world().await;
    for version in VERSIONS {
        let none = no_properties(version);
        let (mut wire, connack) = Wire::connected(&broker, &plain_connect(version, "c")).await;
        assert_eq!(connack[0], 0x20);
        wire.send(&packet(0x82, &[b"\x12\x34", none, b"\0\x01t\x02"])).await;
        wire.expect(&packet(0x90, &[b"\x12\x34", none, b"\x02"])).await;
        wire.send(&packet(0x30, &[b"\0\x01t", none, b"x"])).await;
        wire.expect(&packet(0x30, &[b"\0\x01t", none, b"x"])).await;
        wire.send(&packet(0x32, &[b"\0\x01t\0\x07", none, b"x"])).await;
        wire.expect(&packet(0x32, &[b"\0\x01t\0\x01", none, b"x"])).await;
        wire.expect(b"\x40\x02\0\x07").await;
        wire.send(b"\x40\x02\0\x01").await;
        wire.send(&packet(0x34, &[b"\0\x01t\0\x08", none, b"x"])).await;
        wire.expect(&packet(0x34, &[b"\0\x01t\0\x02", none, b"x"])).await;
        wire.expect(b"\x50\x02\0\x08").await;
        wire.send(b"\x62\x02\0\x08").await;
        wire.expect(b"\x70\x02\0\x08").await;
        wire.send(b"\x50\x02\0\x02").await;
        wire.expect(b"\x62\x02\0\x02").await;
        wire.send(b"\x70\x02\0\x02").await;
        wire.send(&packet(0xA2, &[b"\x12\x35", none, b"\0\x01t"])).await;
        let reasons: &[u8] = if version == V5 { b"\0" } else { b"" };
        wire.expect(&packet(0xB0, &[b"\x12\x35", none, reasons])).await;
        wire.ping().await;
        wire.send(&[0]).await;
        let end = wire.rest().await;
        assert_eq!(end.first(), (version == V5).then_some(&0xE0));
    }
}

/// [MQTT-2.2.2-1]: another byte is then read as the Property Length.
#[actix_rt::test]
async fn a_packet_that_leaves_its_property_length_out_is_malformed() {
    let broker = world().await;
    for bytes in [&b"\x30\x03\0\x01t"[..], b"\x32\x05\0\x01t\0\x01", b"\x82\x02\0\x01"] {
        let mut client = Client::connected(&broker, connect_in(V5, "c")).await;
        client.send_bytes(bytes).await;
        client.expect_disconnect(ReasonCode::MalformedPacket).await;
    }
    let connect = packet(0x10, &[b"\0\x04MQTT\x05\x02\0\0"]);
    assert_eq!(answer(&broker, &connect).await, b"\x20\x03\0\x81\0");
}

/// A QoS 0 PUBLISH has no Packet Identifier: these bytes are payload. [MQTT-2.2.1-2];
/// 3.1.1: [MQTT-2.3.1-5]
#[actix_rt::test]
async fn two_bytes_behind_the_topic_of_a_qos_0_publish_are_no_identifier() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe("t", QOS_2).await;
        client.send_bytes(&packet(0x30, &[b"\0\x01t", no_properties(version), b"\0\x01"])).await;
        client.expect_publish(publish("t", "\0\x01")).await;
        client.ping().await;
    }
}

/// [MQTT-2.2.1-3]; 3.1.1: [MQTT-2.3.1-1]
#[actix_rt::test]
async fn packet_identifier_0_closes_the_connection() {
    let broker = world().await;
    for version in VERSIONS {
        let none = no_properties(version);
        for bytes in [
            packet(0x32, &[b"\0\x01t\0\0", none]),
            packet(0x34, &[b"\0\x01t\0\0", none]),
            packet(0x82, &[b"\0\0", none, b"\0\x01t\0"]),
            packet(0xA2, &[b"\0\0", none, b"\0\x01t"]),
        ] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.send_bytes(&bytes).await;
            client.expect_disconnect(ReasonCode::ProtocolError).await;
        }
    }
}

/// [MQTT-2.2.1-5]; 3.1.1: [MQTT-2.3.1-6]
#[actix_rt::test]
async fn acknowledgements_carry_the_packet_identifier_of_the_publish() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe("other", QOS_2).await;
        for number in [1, 0x0102, u16::MAX] {
            let reason = ReasonCode::NoMatchingSubscribers;
            client.publish(publish_1(number, "t", "x")).await;
            client.expect_taken(QOS_1, number, reason).await;
            client.publish(publish_2(number, "t", "x")).await;
            client.expect_taken(QOS_2, number, reason).await;
        }
        for number in 1..=3 {
            client.publish(publish_2(9, "other", "x")).await;
            client.expect_publish(publish_2(number, "other", "x")).await;
            client.expect_taken(QOS_2, 9, ReasonCode::Success).await;
            client.take(QOS_2, number).await;
        }
    }
}

/// [MQTT-2.2.1-6]; 3.1.1: [MQTT-2.3.1-7]
#[actix_rt::test]
async fn suback_and_unsuback_carry_the_packet_identifier_of_the_request() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        for number in [1, 0x1234, u16::MAX] {
            client.send(subscribe(number, vec![filter("a", QOS_1)])).await;
            client.expect(suback(number, &[ReasonCode::GrantedQoS1])).await;
            client.send(unsubscribe(number, vec!["a"])).await;
            client
                .receive(|packet| {
                    let Packet::UnsubAck(ack) = packet else { panic!("{packet:?}") };
                    assert_eq!(ack.packet_id, id(number));
                })
                .await;
        }
    }
}

/// Many messages in flight at a time, and more messages than identifiers. [MQTT-2.2.1-4]
/// 3.1.1: [MQTT-2.3.1-1] [MQTT-2.3.1-2] [MQTT-2.3.1-4]
#[actix_rt::test]
async fn an_identifier_that_the_broker_gives_is_not_0_and_not_in_use() {
    const MESSAGES: usize = 70_000;
    const AT_ONCE: usize = 100;
    let broker = world().await;
    let mut publisher = Client::connected(&broker, connect_in(V3_1_1, "p")).await;
    let mut client = Client::connected(&broker, connect_in(V3_1_1, "c")).await;
    client.subscribe("t", QOS_1).await;
    let burst = packet(0x32, &[b"\0\x01t\0\x01x"]).repeat(AT_ONCE);
    let (mut in_use, mut seen) = (HashSet::new(), HashSet::new());
    for _ in 0..MESSAGES / AT_ONCE {
        publisher.send_bytes(&burst).await;
        for _ in 0..AT_ONCE {
            publisher.expect(puback(1, ReasonCode::Success)).await;
            let number = client
                .receive(|packet| {
                    let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                    publish.packet_id.unwrap().number()
                })
                .await;
            assert!(in_use.insert(number), "{number} is in use");
            seen.insert(number);
        }
        let acks: Vec<u8> =
            in_use.drain().flat_map(|number| packet(0x40, &[&number.to_be_bytes()])).collect();
        client.send_bytes(&acks).await;
    }
    assert_eq!(seen.len(), usize::from(u16::MAX), "all but 0 are used");
}

/// PUBLISH and PUBREL keep their identifier when they are sent again.
/// 3.1.1: [MQTT-2.3.1-3] [MQTT-2.3.1-4]
#[actix_rt::test]
async fn what_is_sent_again_keeps_its_packet_identifier() {
    let broker = world().await;
    for version in VERSIONS {
        let mut connect = connect_lasting("c", version);
        connect.clean_start = true;
        drop(Client::connected(&broker, connect).await);
        let connect = connect_lasting("c", version);
        let mut client = Client::connected(&broker, connect.clone()).await;
        client.subscribe("t", QOS_2).await;
        for qos in [QOS_1, QOS_2, QOS_2] {
            broker.publish("t", b"x", qos, false).await.unwrap();
        }
        client.expect_publish(publish_1(1, "t", "x")).await;
        client.expect_publish(publish_2(2, "t", "x")).await;
        client.expect_publish(publish_2(3, "t", "x")).await;
        client.send(pubrec(3, ReasonCode::Success)).await;
        client.expect(pubrel(3)).await;
        drop(client);
        let (mut client, session_present) = Client::connected_with(&broker, connect).await;
        assert!(session_present);
        // The order among them is not specified.
        let mut expected = vec![
            Packet::Publish(dup(publish_1(1, "t", "x"))),
            Packet::Publish(dup(publish_2(2, "t", "x"))),
            pubrel(3),
        ];
        while !expected.is_empty() {
            client
                .receive(|packet| {
                    let at = expected.iter().position(|expected| *expected == packet);
                    expected.remove(at.unwrap_or_else(|| panic!("unexpected: {packet:?}")));
                })
                .await;
        }
        client.ping().await;
    }
}
