//! Sections 3.12 to 3.14: PINGREQ, PINGRESP and DISCONNECT.

use hearthmq::{
    auth::{AccessRequest, Action},
    control::{KickOptions, WillRequest},
    mqtt::{Packet, ReasonCode, encode},
};

use crate::support::{Client, packets::*, refusing, world, world_where, world_with};

/// [MQTT-3.12.4-1]
/// 3.1.1: [MQTT-3.12.4-1]
/// Each PINGREQ, even while the client has unacknowledged messages.
#[actix_rt::test]
async fn pingreq_is_answered() {
    let broker = world().await;
    for version in [V3_1, V3_1_1, V5] {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.send_bytes(b"\xC0\x00").await;
        client.expect_bytes(b"\xD0\x00").await;
        client.subscribe("t", QOS_2).await;
        broker.publish("t", b"x", QOS_2, false).await.unwrap();
        client.expect_publish(publish_2(1, "t", "x")).await;
        client.send_bytes(b"\xC0\x00\xC0\x00").await;
        client.expect_bytes(b"\xD0\x00\xD0\x00").await;
    }
}

/// Returns whether it is a CONNECT of `stranger`.
fn is_stranger(request: &AccessRequest<'_>) -> bool {
    matches!(request.action, Action::Connect) && request.client_id == "stranger"
}

/// [MQTT-3.14.0-1]
/// Whatever the mistake: a packet other than CONNECT is not answered, a CONNECT by CONNACK at most.
#[actix_rt::test]
async fn without_a_successful_connack_there_is_no_disconnect() {
    let broker = world_where(refusing(is_stranger)).await;
    for bytes in [&b"\xC0\x00"[..], b"\xE0\x00", b"\x00\x00", b"\xF0\x00", b"\x10\x02\x00\x00"] {
        let mut client = Client::new(&broker, V5);
        client.send_bytes(bytes).await;
        client.expect_closed().await;
    }
    for (bytes, reason) in [
        (&b"\x10\x0E\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x01c"[..], ReasonCode::MalformedPacket),
        (
            b"\x10\x0D\x00\x04MQTT\x07\x02\x00\x00\x00\x00\x00",
            ReasonCode::UnsupportedProtocolVersion,
        ),
    ] {
        let mut client = Client::new(&broker, V5);
        client.send_bytes(bytes).await;
        client.expect_refused(reason).await;
    }
    let mut client = Client::new(&broker, V5);
    client.send(Packet::Connect(Box::new(connect("stranger")))).await;
    client.expect_refused(ReasonCode::NotAuthorized).await;
}

/// [MQTT-3.14.1-1]
/// 3.1.1: [MQTT-3.14.1-1]
#[actix_rt::test]
async fn disconnect_with_reserved_bits_is_malformed() {
    let broker = world().await;
    for version in VERSIONS {
        for flags in 1..16 {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.send_bytes(&[0xE0 | flags, 0]).await;
            client.expect_disconnect(ReasonCode::MalformedPacket).await;
        }
    }
}

/// [MQTT-3.14.2-1]
/// A code of other packets, or an undefined one.
#[actix_rt::test]
async fn a_reason_code_that_is_not_of_disconnect_is_a_protocol_error() {
    let broker = world().await;
    for reason in [0x01, 0x02, 0x10, 0x18, 0x84, 0x91, 0xFF] {
        let mut client = Client::connected(&broker, connect("c")).await;
        client.send_bytes(&[0xE0, 1, reason]).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
    }
}

/// [MQTT-3.14.2-1] [MQTT-3.14.2-2]
/// Reason String is the only property of the broker's DISCONNECT.
#[actix_rt::test]
async fn the_broker_says_why_it_disconnects() {
    let broker = world_with(|builder| {
        let mut limits = crate::support::generous();
        limits.packet_bytes_max = 1000;
        limits.receive_maximum = 1;
        builder.limits(limits)
    })
    .await;
    let mut receive_maximum = Vec::new();
    for packet in [publish_2(1, "t", "x"), publish_2(2, "t", "x")] {
        encode(&Packet::Publish(packet), V5, &mut receive_maximum).unwrap();
    }
    for (bytes, reason) in [
        (&b"\x82\x02\x00\x01"[..], 0x81),
        (b"\x20\x03\x00\x00\x00", 0x82),
        (b"\x30\x04\x00\x01#\x00", 0x90),
        (b"\x30\x07\x00\x01a\x03\x23\x00\x00", 0x94),
        (b"\x30\x80\x10", 0x95),
        (&receive_maximum, 0x93),
    ] {
        let mut packet = connect_lasting("c", V5);
        packet.clean_start = true;
        let mut client = Client::connected(&broker, packet).await;
        client.send_bytes(bytes).await;
        if reason == 0x93 {
            client.receive(|packet| assert!(matches!(packet, Packet::PubRec(_)))).await;
        }
        client.receive(|packet| expect_why(&packet, reason)).await;
        client.expect_closed().await;
    }
    let mut client = Client::connected(&broker, connect("c")).await;
    Client::connected(&broker, connect("c")).await.leave().await;
    client.expect_bytes(b"\xE0\x01\x8E").await;
    let mut client = Client::connected(&broker, connect("c")).await;
    broker.kick("c", KickOptions::new().will(WillRequest::Discard)).await.unwrap();
    client.expect_bytes(b"\xE0\x01\x98").await;
}

/// Asserts a DISCONNECT with this Reason Code and no property except a Reason String.
fn expect_why(packet: &Packet<'_>, reason: u8) {
    let Packet::Disconnect(disconnect) = packet else { panic!("{packet:?}") };
    assert_eq!(disconnect.reason.number(), reason, "{disconnect:?}");
    assert!(disconnect.properties.session_expiry_interval.is_none());
    assert!(disconnect.properties.reason_string.is_some(), "{disconnect:?}");
    assert!(disconnect.properties.server_reference.is_none());
    assert!(disconnect.properties.user_properties.iter().next().is_none());
}

/// [MQTT-3.14.2-3] [MQTT-3.14.2-4]
/// A Reason String that does not fit is left out.
#[actix_rt::test]
async fn disconnect_is_no_larger_than_the_client_accepts() {
    let broker = world().await;
    let subscribe_with_reserved_bits = b"\x82\x07\x00\x01\x00\x00\x01a\x80";
    let with_its_reason = b"\xE0\x11\x81\x0F\x1F\x00\x0CMQTT-3.8.3-5";
    let mut packet = connect("c");
    packet.properties.maximum_packet_size = Some(with_its_reason.len() as u32);
    let mut client = Client::connected(&broker, packet.clone()).await;
    client.send_bytes(subscribe_with_reserved_bits).await;
    client.expect_bytes(with_its_reason).await;
    client.expect_closed().await;
    packet.properties.maximum_packet_size = Some(with_its_reason.len() as u32 - 1);
    let mut client = Client::connected(&broker, packet).await;
    client.send_bytes(subscribe_with_reserved_bits).await;
    client.expect_bytes(b"\xE0\x01\x81").await;
    client.expect_closed().await;
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-2]
/// Messages that arrive for the session after the broker's DISCONNECT are not sent any more.
#[actix_rt::test]
async fn after_its_disconnect_the_broker_sends_nothing_and_closes() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    let mut bytes = Vec::new();
    encode(&Packet::PingReq, V5, &mut bytes).unwrap();
    bytes.extend_from_slice(b"\x20\x03\x00\x00\x00");
    encode(&Packet::Publish(publish("t", "too late")), V5, &mut bytes).unwrap();
    encode(&Packet::PingReq, V5, &mut bytes).unwrap();
    client.send_bytes(&bytes).await;
    client.expect(Packet::PingResp).await;
    broker.publish("t", b"for the session", QOS_1, false).await.unwrap();
    loop {
        let is_end = client
            .receive(|packet| match packet {
                Packet::Publish(publish) => {
                    assert_eq!(publish.payload, b"for the session");
                    false
                }
                Packet::Disconnect(disconnect) => {
                    assert_eq!(disconnect.reason, ReasonCode::ProtocolError);
                    true
                }
                other => panic!("{other:?}"),
            })
            .await;
        if is_end {
            break;
        }
    }
    client.expect_closed().await;
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-2]
/// 3.1.1: [MQTT-3.14.4-1] [MQTT-3.14.4-2]
/// Packets after a client's DISCONNECT are not handled, and the broker closes the connection if the
/// client does not.
#[actix_rt::test]
async fn after_a_clients_disconnect_nothing_is_handled_and_the_connection_closed() {
    let broker = world().await;
    for version in [V3_1, V3_1_1, V5] {
        let mut subscriber = Client::connected(&broker, connect_in(version, "s")).await;
        subscriber.subscribe("#", QOS_2).await;
        let mut packet = connect_in(version, "c");
        packet.will = Some(will("w", "x"));
        let mut client = Client::connected(&broker, packet).await;
        let mut bytes = b"\xE0\x00".to_vec();
        encode(&Packet::Publish(publish("t", "too late")), version, &mut bytes).unwrap();
        encode(&Packet::Publish(publish_1(1, "t", "too late")), version, &mut bytes).unwrap();
        encode(&Packet::PingReq, version, &mut bytes).unwrap();
        bytes.extend([0; 10]);
        client.send_bytes(&bytes).await;
        client.expect_closed().await;
        assert!(!broker.online("c").await.unwrap());
        subscriber.ping().await;
    }
}

/// [MQTT-3.1.2-10] [MQTT-3.14.4-3]
/// 3.1.1: [MQTT-3.1.2-10] [MQTT-3.14.4-3]
/// With Reason Code 0x00, sent or implied, no Will is published; with any other code it is.
#[actix_rt::test]
async fn disconnect_discards_the_will() {
    let broker = world().await;
    let mut watcher = Client::connected(&broker, connect("watcher")).await;
    watcher.subscribe("will", QOS_0).await;
    for (version, bytes, is_published) in [
        (V3_1, &b"\xE0\x00"[..], false),
        (V3_1_1, b"\xE0\x00", false),
        (V5, b"\xE0\x00", false),
        (V5, b"\xE0\x01\x00", false),
        (V5, b"\xE0\x02\x00\x00", false),
        (V5, b"\xE0\x01\x04", true),
        (V5, b"\xE0\x01\x80", true),
        (V5, b"\xE0\x01\x97", true),
    ] {
        let mut packet = connect_in(version, "c");
        packet.will = Some(will("will", "gone"));
        let mut client = Client::connected(&broker, packet).await;
        client.send_bytes(bytes).await;
        client.expect_closed().await;
        if is_published {
            watcher.expect_publish(publish("will", "gone")).await;
        }
        watcher.ping().await;
    }
}
