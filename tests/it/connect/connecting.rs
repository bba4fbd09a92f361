//! From the first byte to CONNACK, and how bytes become packets on a live connection.

use hearthmq::mqtt::{Connect, Packet, ReasonCode, encode};

use crate::support::{Client, generous, packets::*, pass, secs, world, world_within};

/// Returns CONNECT as bytes.
fn bytes_of(connect: Connect<'_>) -> Vec<u8> {
    bytes_in(connect.version, &[Packet::Connect(Box::new(connect))])
}

fn bytes_in(version: hearthmq::mqtt::ProtocolVersion, packets: &[Packet<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in packets {
        encode(packet, version, &mut bytes).unwrap();
    }
    bytes
}

/// Sections 3.2.2.3.3, 3.2.2.3.6 and 3.2.2.3.8.
#[actix_rt::test]
async fn connack_tells_the_bounds_of_the_broker() {
    let broker = world().await;
    let limits = generous();
    let mut client = Client::new(&broker, V5);
    client.send(Packet::Connect(Box::new(connect("c")))).await;
    let mut expected = connack(ReasonCode::Success);
    expected.properties.receive_maximum = Some(limits.receive_maximum);
    expected.properties.maximum_packet_size = Some(limits.packet_bytes_max);
    expected.properties.topic_alias_maximum = Some(limits.topic_alias_maximum);
    client.expect(Packet::ConnAck(Box::new(expected))).await;
    for version in [V3_1, V3_1_1] {
        let mut client = Client::new(&broker, version);
        client.send_bytes(&bytes_of(connect_in(version, "c"))).await;
        let expected = connack(ReasonCode::Success);
        client.expect(Packet::ConnAck(Box::new(expected))).await;
    }
}

/// [MQTT-3.1.0-1]; [MQTT-3.1.0-1] of 3.1.1
#[actix_rt::test]
async fn a_first_packet_that_is_not_connect_closes_the_connection() {
    let broker = world().await;
    for packet in [
        Packet::PingReq,
        disconnect(ReasonCode::Success),
        Packet::Publish(publish("t", "x")),
        subscribe(1, vec![filter("#", QOS_0)]),
    ] {
        let mut client = Client::new(&broker, V3_1_1);
        client.send(packet).await;
        client.expect_closed().await;
    }
    let mut client = Client::new(&broker, V5);
    client.send_bytes(b"GET / HTTP/1.1\r\n\r\n").await;
    client.expect_closed().await;
}

/// [MQTT-3.1.2-2]: a client that is too new is refused in MQTT 5.0; one that is too old, or has a
/// bridge's bit 0x80 in a level without that bit, in MQTT 3.1.1.
#[actix_rt::test]
async fn an_unsupported_version_is_told_so() {
    let broker = world().await;
    for (name, level, answer) in [
        (&b"MQTT"[..], 6, &[0x20, 3, 0, 0x84, 0][..]),
        (b"MQTT", 0x7F, &[0x20, 3, 0, 0x84, 0]),
        (b"MQTT", 3, &[0x20, 2, 0, 1]),
        (b"MQTT", 0x85, &[0x20, 2, 0, 1]),
        (b"MQTT", 0x83, &[0x20, 2, 0, 1]),
        (b"MQIsdp", 4, &[0x20, 2, 0, 1]),
        (b"MQIsdp", 0x84, &[0x20, 2, 0, 1]),
    ] {
        let mut client = Client::new(&broker, V5);
        let mut body = vec![0, name.len() as u8];
        body.extend_from_slice(name);
        body.extend_from_slice(&[level, 2, 0, 60, 0, 1, b'c']);
        let mut packet = vec![0x10, body.len() as u8];
        packet.extend_from_slice(&body);
        client.send_bytes(&packet).await;
        let mut answered = Vec::new();
        use tokio::io::AsyncReadExt;
        client.stream.read_to_end(&mut answered).await.unwrap();
        assert_eq!(answered, answer, "{name:?} {level}");
    }
}

/// [MQTT-3.1.2-1]
#[actix_rt::test]
async fn another_protocol_name_closes_the_connection() {
    let broker = world().await;
    let mut client = Client::new(&broker, V5);
    let packet = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'X', 5, 2, 0, 60, 0, 0, 0];
    client.send_bytes(&packet).await;
    client.expect_closed().await;
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-7]
#[actix_rt::test]
async fn an_empty_client_identifier_is_replaced_and_told() {
    let broker = world().await;
    let mut assigned = Vec::new();
    for _ in 0..2 {
        let mut client = Client::new(&broker, V5);
        client.send(Packet::Connect(Box::new(connect("")))).await;
        let client_id = client
            .receive(|packet| {
                let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
                let assigned = ack.properties.assigned_client_identifier;
                assigned.expect("an identifier").to_owned()
            })
            .await;
        assert!(broker.online(&client_id).await.unwrap());
        assigned.push((client_id, client));
    }
    assert_ne!(assigned[0].0, assigned[1].0);
}

#[actix_rt::test]
async fn an_empty_client_identifier_goes_with_a_lasting_session_in_mqtt_5() {
    let broker = world().await;
    let packet = connect_lasting("", V5);
    Client::connected(&broker, packet).await;
}

/// 3.1.1: [MQTT-3.1.3-7] [MQTT-3.1.3-8]
#[actix_rt::test]
async fn an_empty_client_identifier_needs_clean_session_in_mqtt_3_1_1() {
    let broker = world().await;
    Client::connected(&broker, connect_in(V3_1_1, "")).await;
    let mut client = Client::new(&broker, V3_1_1);
    client.send_bytes(&bytes_of(connect_lasting("", V3_1_1))).await;
    client.expect_refused(ReasonCode::ClientIdentifierNotValid).await;
}

/// MQTT 3.1, section 3.1: an identifier has 1 to 23 characters there; the broker enforces only the
/// lower limit.
#[actix_rt::test]
async fn an_empty_client_identifier_is_refused_in_mqtt_3_1() {
    let broker = world().await;
    let mut client = Client::new(&broker, V3_1);
    client.send_bytes(&bytes_of(connect_in(V3_1, ""))).await;
    client.expect_refused(ReasonCode::ClientIdentifierNotValid).await;
}

/// [MQTT-4.12.0-1]
#[actix_rt::test]
async fn an_authentication_method_is_refused() {
    let broker = world().await;
    let mut client = Client::new(&broker, V5);
    let mut packet = connect("c");
    packet.properties.authentication_method = Some("SCRAM-SHA-256");
    client.send(Packet::Connect(Box::new(packet))).await;
    client.expect_refused(ReasonCode::BadAuthenticationMethod).await;
}

#[actix_rt::test]
async fn what_comes_in_the_same_write_as_connect_is_handled_after_it() {
    let broker = world().await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("t", QOS_1).await;
    for version in [V3_1, V3_1_1, V5] {
        let mut client = Client::new(&broker, version);
        let bytes = bytes_in(
            version,
            &[
                Packet::Connect(Box::new(connect_in(version, "c"))),
                Packet::Publish(publish("t", "x")),
                Packet::PingReq,
                disconnect(ReasonCode::Success),
            ],
        );
        client.send_bytes(&bytes).await;
        client.receive(|p| assert!(matches!(p, Packet::ConnAck(_)))).await;
        client.expect(Packet::PingResp).await;
        client.expect_closed().await;
        subscriber.expect_publish(publish("t", "x")).await;
    }
}

#[actix_rt::test]
async fn packets_may_come_byte_by_byte() {
    let broker = world().await;
    for version in [V3_1, V3_1_1, V5] {
        let mut client = Client::new(&broker, version);
        let bytes = bytes_in(
            version,
            &[
                Packet::Connect(Box::new(connect_in(version, "c"))),
                subscribe(1, vec![filter("t", QOS_2)]),
                Packet::Publish(publish_2(2, "t", "payload")),
            ],
        );
        for byte in bytes {
            client.send_bytes(&[byte]).await;
            tokio::task::yield_now().await;
        }
        client.receive(|p| assert!(matches!(p, Packet::ConnAck(_)))).await;
        client.expect(suback(1, &[ReasonCode::GrantedQoS2])).await;
        client.expect_publish(publish_2(1, "t", "payload")).await;
        client.expect(pubrec(2, ReasonCode::Success)).await;
    }
}

#[actix_rt::test]
async fn packets_may_be_split_anywhere() {
    let broker = world().await;
    for version in VERSIONS {
        let bytes = bytes_in(
            version,
            &[
                Packet::Connect(Box::new(connect_in(version, "c"))),
                subscribe(1, vec![filter("t", QOS_0)]),
                Packet::Publish(publish("t", "payload")),
                Packet::PingReq,
            ],
        );
        for split in 1..bytes.len() {
            let mut client = Client::new(&broker, version);
            client.send_bytes(&bytes[..split]).await;
            pass(std::time::Duration::from_millis(1)).await;
            client.send_bytes(&bytes[split..]).await;
            client.receive(|p| assert!(matches!(p, Packet::ConnAck(_)))).await;
            client.expect(suback(1, &[ReasonCode::Success])).await;
            client.expect_publish(publish("t", "payload")).await;
            client.expect(Packet::PingResp).await;
        }
    }
}

#[actix_rt::test]
async fn many_packets_may_come_in_one_write() {
    let broker = world().await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("t", QOS_0).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let payloads: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
    let packets: Vec<_> =
        payloads.iter().map(|payload| Packet::Publish(publish("t", payload))).collect();
    client.send_bytes(&bytes_in(V5, &packets)).await;
    for payload in &payloads {
        subscriber.expect_publish(publish("t", payload)).await;
    }
    client.ping().await;
}

/// Larger than any buffer of the broker, among small packets.
#[actix_rt::test]
async fn a_packet_of_300_kilobytes_goes_through_unharmed() {
    let broker = world().await;
    let payload: String = (0..300_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    for version in VERSIONS {
        for qos in [QOS_0, QOS_1, QOS_2] {
            let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
            subscriber.subscribe("t", qos).await;
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            for number in 1..=3 {
                for text in ["before", &payload, "after"] {
                    client.publish(publish("t", text)).await;
                    subscriber.expect_publish(publish("t", text)).await;
                }
                let mut packet = publish_1(number, "t", &payload);
                packet.flags.qos = qos;
                packet.packet_id = packet.packet_id.filter(|_| qos != QOS_0);
                client.publish(packet.clone()).await;
                client.expect_taken(qos, number, ReasonCode::Success).await;
                subscriber.expect_publish(packet).await;
                subscriber.take(qos, number).await;
            }
        }
    }
}

/// The largest permitted packet is accepted, one more byte is not. [MQTT-3.2.2-15]
#[actix_rt::test]
async fn a_packet_over_the_maximum_is_too_large_as_soon_as_it_says_so() {
    let broker = world_within(|limits| limits.packet_bytes_max = 1000).await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        let properties = usize::from(version == V5);
        let payload = "x".repeat(1000 - 3 - 3 - properties);
        client.publish(publish("t", &payload)).await;
        client.ping().await;
        client.send_bytes(&[0x30, 0xE6, 0x07]).await; // Remaining Length 998
        client.expect_disconnect(ReasonCode::PacketTooLarge).await;
    }
}

#[actix_rt::test]
async fn malformed_packets_end_the_connection_with_their_reason() {
    let broker = world().await;
    for (bytes, reason) in [
        (&[0x00, 0][..], ReasonCode::MalformedPacket),
        (&[0x36, 0], ReasonCode::MalformedPacket), // QoS 3
        (&[0x38, 4, 0, 1, b't', 0], ReasonCode::MalformedPacket), // DUP with QoS 0
        (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], ReasonCode::MalformedPacket),
        (&[0x80, 2, 0, 1], ReasonCode::MalformedPacket), // flags of SUBSCRIBE
        (&[0x82, 3, 0, 1, 0], ReasonCode::ProtocolError), // SUBSCRIBE of nothing
        (&[0xC1, 0], ReasonCode::MalformedPacket),
        (&[0x32, 6, 0, 1, b't', 0, 0, 0], ReasonCode::ProtocolError), // Packet Identifier 0
        (&[0x30, 5, 0, 2, 0xC3, 0x28, 0], ReasonCode::MalformedPacket), // not UTF-8
    ] {
        let mut client = Client::connected(&broker, connect("c")).await;
        client.send_bytes(bytes).await;
        client.expect_disconnect(reason).await;
    }
}

#[actix_rt::test]
async fn a_client_that_says_nothing_is_closed() {
    let broker = world().await;
    let mut client = Client::new(&broker, V5);
    client.send_bytes(&[0x10]).await;
    client.expect_nothing_for(secs(9)).await;
    client.expect_closed().await;
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-2]
#[actix_rt::test]
async fn disconnect_closes_the_connection_and_ends_being_online() {
    let broker = world().await;
    for version in [V3_1, V3_1_1, V5] {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client
            .send_bytes(&bytes_in(version, &[disconnect(ReasonCode::Success), Packet::PingReq]))
            .await;
        client.expect_closed().await;
        assert!(!broker.online("c").await.unwrap());
    }
}

#[actix_rt::test]
async fn ping_is_answered() {
    let broker = world().await;
    for version in [V3_1, V3_1_1, V5] {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.ping().await;
    }
}
