//! Section 4.13 of MQTT 5.0 and section 4.8 of MQTT 3.1.1: what ends a connection.

use hearthmq::mqtt::{Packet, ProtocolVersion, ReasonCode};

use crate::support::{Client, packets::*, world};

/// Packets that no client may send once it is connected, with the error; in all versions, or only
/// in MQTT 5.0.
const WRONG: &[(&[u8], ReasonCode, &[ProtocolVersion])] = &[
    (b"\x00\x00", ReasonCode::MalformedPacket, &VERSIONS),
    (b"\xF0\x00", ReasonCode::MalformedPacket, &[V3_1_1]),
    (b"\x36\x00", ReasonCode::MalformedPacket, &VERSIONS),
    (b"\xC1\x00", ReasonCode::MalformedPacket, &VERSIONS),
    (b"\xC0\x01\x00", ReasonCode::MalformedPacket, &VERSIONS),
    (b"\x40\x01\x00", ReasonCode::MalformedPacket, &VERSIONS),
    (b"\x30\xFF\xFF\xFF\xFF\x01", ReasonCode::MalformedPacket, &VERSIONS),
    (b"\x30\x03\x00\x05a", ReasonCode::MalformedPacket, &VERSIONS),
    (b"\x30\x05\x00\x01\xFF\x00x", ReasonCode::MalformedPacket, &VERSIONS),
    (b"\x30\x06\x00\x01a\x02\x11\x00", ReasonCode::MalformedPacket, &[V5]),
    (b"\x30\x09\x00\x01a\x04\x01\x00\x01\x00x", ReasonCode::ProtocolError, &[V5]),
    (b"\xD0\x00", ReasonCode::ProtocolError, &VERSIONS),
    (b"\x20\x02\x00\x00", ReasonCode::ProtocolError, &[V3_1_1]),
    (b"\x20\x03\x00\x00\x00", ReasonCode::ProtocolError, &[V5]),
    (b"\x32\x07\x00\x01a\x00\x00\x00x", ReasonCode::ProtocolError, &[V5]),
    (b"\x32\x06\x00\x01a\x00\x00x", ReasonCode::ProtocolError, &[V3_1_1]),
];

/// [MQTT-4.13.1-1] [MQTT-4.13.2-1]
/// 3.1.1: [MQTT-4.8.0-1]
/// Other connected clients do not notice.
#[actix_rt::test]
async fn a_malformed_packet_and_a_protocol_error_end_the_connection() {
    let broker = world().await;
    let mut bystander = Client::connected(&broker, connect("bystander")).await;
    bystander.subscribe("#", QOS_0).await;
    for (bytes, reason, versions) in WRONG {
        for version in *versions {
            let mut client = Client::connected(&broker, connect_in(*version, "c")).await;
            client.send_bytes(bytes).await;
            client.expect_disconnect(*reason).await;
        }
    }
    bystander.ping().await;
}

/// [MQTT-4.13.2-1]
/// Also for the client's own codes: 0x80 and above end the connection.
#[actix_rt::test]
async fn a_code_of_failure_closes_its_sender() {
    let broker = world().await;
    for reason in [0x80, 0x81, 0x82, 0x83, 0x93, 0x97, 0x99] {
        let mut client = Client::connected(&broker, connect("c")).await;
        client.send_bytes(&[0xE0, 1, reason]).await;
        client.expect_closed().await;
    }
    // Refused in CONNACK: a Topic Alias Maximum given twice.
    let mut client = Client::new(&broker, V5);
    let twice = b"\x10\x14\x00\x04MQTT\x05\x02\x00\x00\x06\x22\x00\x01\x22\x00\x01\x00\x01c";
    client.send_bytes(twice).await;
    client
        .receive(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
            assert_eq!(ack.reason, ReasonCode::ProtocolError);
        })
        .await;
    client.expect_closed().await;
}

/// 3.1.1: [MQTT-7.0.0-2]
/// The simplest possible client works with an unmodified broker, using only packets that version
/// 3.1.1 defines.
#[actix_rt::test]
async fn a_plain_client_needs_no_extension() {
    let broker = world().await;
    let mut client = Client::new(&broker, V3_1_1);
    client.send_bytes(b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01c").await;
    client.expect_bytes(b"\x20\x02\x00\x00").await;
    client.send_bytes(b"\x82\x06\x00\x01\x00\x01a\x01").await;
    client.expect_bytes(b"\x90\x03\x00\x01\x01").await;
    client.send_bytes(b"\x32\x06\x00\x01a\x00\x02x").await;
    client.expect_bytes(b"\x32\x06\x00\x01a\x00\x01x").await;
    client.expect_bytes(b"\x40\x02\x00\x02").await;
    client.send_bytes(b"\x40\x02\x00\x01").await;
    client.send_bytes(b"\xE0\x00").await;
    client.expect_closed().await;
}
