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

/// MQTT 3.1, section 3.1: an identifier has 1 to 23 characters there; the broker enforces only the
/// lower limit.
#[actix_rt::test]
async fn an_empty_client_identifier_is_refused_in_mqtt_3_1() {
    let broker = world().await;
    let mut client = Client::new(&broker, V3_1);
    client.send_bytes(&bytes_of(connect_in(V3_1, ""))).await;
    client.expect_refused(ReasonCode::ClientIdentifierNotValid).await;
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
