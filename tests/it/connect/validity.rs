//! Section 3.1: which CONNECT is valid, which is refused, and how.

use std::sync::Arc;

use async_trait::async_trait;
use hearthmq::{
    Broker,
    auth::{AuthenticationError, Authenticator, Credentials, Identity},
    mqtt::{Packet, ProtocolVersion, ReasonCode},
};
use tokio::net::TcpStream;

use crate::{
    support::{Client, builder, packets::*, world, world_with},
    wire::*,
};

/// Returns the CONNACK to a malformed CONNECT: MQTT 5.0 has a Reason Code, MQTT 3 only closes.
const fn malformed(version: ProtocolVersion) -> &'static [u8] {
    if version.has_properties() { b"\x20\x03\0\x81\0" } else { b"" }
}

/// Asserts that a CONNECT of this version, flags and payload is malformed.
async fn is_malformed(broker: &Broker, version: ProtocolVersion, flags: u8, payload: &[&[u8]]) {
    let connect = raw_connect(version, flags, payload);
    let answer = answer(broker, &connect).await;
    assert_eq!(answer, malformed(version), "{version:?} {flags:#04x} {payload:02x?}");
}

/// Asserts that it is accepted.
async fn is_accepted(broker: &Broker, version: ProtocolVersion, flags: u8, payload: &[&[u8]]) {
    Wire::connected(broker, &raw_connect(version, flags, payload)).await;
}

/// [MQTT-3.1.0-1] [MQTT-3.2.0-1]; 3.1.1: [MQTT-3.1.0-1] [MQTT-3.2.0-1]
#[actix_rt::test]
async fn a_first_packet_that_is_not_connect_closes_the_connection() {
    let broker = world().await;
    let mut witness = Client::connected(&broker, connect("witness")).await;
    witness.subscribe("#", QOS_2).await;
    for version in ALL_VERSIONS {
        let none = no_properties(version);
        for first in [
            packet(0x20, &[b"\0\0", none]),
            packet(0x30, &[b"\0\x01t", none, b"x"]),
            packet(0x34, &[b"\0\x01t\0\x01", none, b"x"]),
            packet(0x40, &[b"\0\x01"]),
            packet(0x62, &[b"\0\x01"]),
            packet(0x82, &[b"\0\x01", none, b"\0\x01t\0"]),
            packet(0xA2, &[b"\0\x01", none, b"\0\x01t"]),
            packet(0xC0, &[]),
            packet(0xE0, &[]),
            packet(0xF0, &[]),
            packet(0x00, &[]),
            b"GET /mqtt HTTP/1.1\r\n\r\n".to_vec(),
        ] {
            let bytes = [first, plain_connect(version, "c")].concat();
            assert_eq!(answer(&broker, &bytes).await, b"", "{bytes:02x?}");
        }
    }
    witness.ping().await;
}

/// [MQTT-3.1.0-2] [MQTT-3.2.0-2] [MQTT-4.13.1-1]; 3.1.1: [MQTT-3.1.0-2]
#[actix_rt::test]
async fn a_second_connect_is_a_protocol_error() {
    let broker = world().await;
    for version in ALL_VERSIONS {
        for second in ["c", "another"] {
            let (mut wire, _) = Wire::connected(&broker, &plain_connect(version, "c")).await;
            wire.send(&plain_connect(version, second)).await;
            wire.send(b"\xC0\0").await;
            let answer = wire.rest().await;
            let is_told = answer.get(..1) == Some(b"\xE0") && answer.get(2) == Some(&0x82);
            assert!(if version == V5 { is_told } else { answer.is_empty() }, "{answer:02x?}");
            assert!(!broker.online("c").await.unwrap());
            assert!(!broker.online("another").await.unwrap());
        }
    }
}

/// Returns a CONNECT with this protocol name and level, otherwise as in MQTT 3.1.1.
fn connect_named(name: &[u8], level: u8) -> Vec<u8> {
    packet(0x10, &[&prefixed(name), &[level, CLEAN, 0, 0], b"\0\x01c"])
}

/// [MQTT-3.1.2-1]; 3.1.1: [MQTT-3.1.2-1]
#[actix_rt::test]
async fn another_protocol_name_is_not_taken_for_mqtt() {
    let broker = world().await;
    for name in
        [&b"mqtt"[..], b"MQTX", b"MQTT ", b"MQTTX", b"MQT", b"", b"\xFFQTT", b"MQIsd", b"AMQP"]
    {
        for level in [3, 4, 5] {
            assert_eq!(answer(&broker, &connect_named(name, level)).await, b"", "{name:?}");
        }
    }
    assert!(!broker.online("c").await.unwrap());
}

/// A client that is too new is refused in MQTT 5.0; one that is too old, or has a bridge's bit 0x80
/// in a level without that bit, in MQTT 3.1.1. [MQTT-3.1.2-2] [MQTT-3.2.2-7]; 3.1.1: [MQTT-3.1.2-2]
#[actix_rt::test]
async fn an_unsupported_protocol_version_is_told_and_closed() {
    let broker = world().await;
    let (too_new, too_old) = (&b"\x20\x03\0\x84\0"[..], &b"\x20\x02\0\x01"[..]);
    for (name, level, expected) in [
        (&b"MQTT"[..], 0, too_old),
        (b"MQTT", 3, too_old),
        (b"MQTT", 6, too_new),
        (b"MQTT", 0x7F, too_new),
        (b"MQTT", 0x85, too_old),
        (b"MQTT", 0x83, too_old),
        (b"MQIsdp", 0x84, too_old),
        (b"MQIsdp", 2, too_old),
        (b"MQIsdp", 4, too_old),
        (b"MQIsdp", 5, too_old),
    ] {
        let answer = answer(&broker, &connect_named(name, level)).await;
        assert_eq!(answer, expected, "{name:?} {level}");
    }
    assert!(!broker.online("c").await.unwrap());
}

/// [MQTT-3.1.2-3]; 3.1.1: [MQTT-3.1.2-3]
#[actix_rt::test]
async fn the_reserved_connect_flag_is_0() {
    let broker = world().await;
    for version in VERSIONS {
        is_malformed(&broker, version, CLEAN | 1, &[b"\0\x01c"]).await;
        is_accepted(&broker, version, CLEAN, &[b"\0\x01c"]).await;
    }
}

/// [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13]
/// 3.1.1: [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-14] [MQTT-3.1.2-15]
#[actix_rt::test]
async fn will_qos_and_will_retain_are_0_without_a_will_and_the_qos_is_never_3() {
    let broker = world().await;
    for version in VERSIONS {
        let none = no_properties(version);
        let with_will = [&b"\0\x01c"[..], none, b"\0\x01w", b"\0\x01x"];
        for qos in 0..=3 {
            for retain in [0, WILL_RETAIN] {
                let flags = CLEAN | qos << 3 | retain;
                if flags != CLEAN {
                    is_malformed(&broker, version, flags, &[b"\0\x01c"]).await;
                    is_malformed(&broker, version, flags, &with_will).await;
                }
                if qos == 3 {
                    is_malformed(&broker, version, flags | WILL, &with_will).await;
                } else {
                    is_accepted(&broker, version, flags | WILL, &with_will).await;
                }
            }
        }
    }
}

/// [MQTT-3.1.2-9] [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19]
/// 3.1.1: [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20]
/// [MQTT-3.1.2-21] of 3.1.1
#[actix_rt::test]
async fn what_the_flags_announce_is_in_the_payload_and_nothing_else() {
    let broker = world().await;
    for version in VERSIONS {
        let will = [no_properties(version), b"\0\x01w", b"\0\x01x"].concat();
        for flags in [WILL, USER_NAME, USER_NAME | PASSWORD, WILL | USER_NAME | PASSWORD] {
            let mut payload = vec![&b"\0\x01c"[..]];
            if flags & WILL != 0 {
                payload.push(&will);
            }
            if flags & USER_NAME != 0 {
                payload.push(b"\0\x01u");
            }
            if flags & PASSWORD != 0 {
                payload.push(b"\0\x01p");
            }
            is_accepted(&broker, version, CLEAN | flags, &payload).await;
            // A field that was not announced, and an announced one that is missing.
            let too_much = [&payload[..], &[b"\0\x01z"]].concat();
            is_malformed(&broker, version, CLEAN | flags, &too_much).await;
            let too_little = &payload[..payload.len() - 1];
            is_malformed(&broker, version, CLEAN | flags, too_little).await;
        }
    }
}

/// [MQTT-3.1.2-22] of 3.1.1, which MQTT 5.0 no longer requires.
#[actix_rt::test]
async fn a_password_needs_a_user_name_before_mqtt_5() {
    let broker = world().await;
    let payload = [&b"\0\x01c"[..], b"\0\x01p"];
    is_malformed(&broker, V3_1_1, CLEAN | PASSWORD, &payload).await;
    is_accepted(&broker, V5, CLEAN | PASSWORD, &payload).await;
}

/// The Client Identifier is the first field. [MQTT-3.1.3-3]; 3.1.1: [MQTT-3.1.3-3]
#[actix_rt::test]
async fn a_connect_without_a_client_identifier_is_malformed() {
    let broker = world().await;
    for version in ALL_VERSIONS {
        is_malformed(&broker, version, CLEAN, &[]).await;
        is_malformed(&broker, version, CLEAN, &[b"\0\x02c"]).await;
    }
}

/// [MQTT-3.1.4-1]; without CONNACK: [MQTT-3.1.4-1] of 3.1.1, [MQTT-3.2.2-6] of 3.1.1
#[actix_rt::test]
async fn a_connect_of_another_form_closes_the_connection() {
    let broker = world().await;
    for version in ALL_VERSIONS {
        is_malformed(&broker, version, CLEAN, &[b"\0\x01c", b"\0"]).await;
        is_malformed(&broker, version, CLEAN, &[b"\0\x01c", b"\xC0\0"]).await;
        // Cut off within each field.
        let whole = plain_connect(version, "c");
        let level = whole.len() - if version == V5 { 8 } else { 7 };
        for length in level + 1..whole.len() {
            let cut = packet(0x10, &[&whole[2..length]]);
            assert_eq!(answer(&broker, &cut).await, malformed(version), "{cut:02x?}");
        }
    }
    for properties in [
        &b"\x03\x21\0\0"[..],        // Receive Maximum 0
        b"\x05\x27\0\0\0\0",         // Maximum Packet Size 0
        b"\x06\x21\0\x01\x21\0\x01", // Receive Maximum twice
        b"\x02\x19\x02",             // Request Response Information 2
        b"\x02\x17\x02",             // Request Problem Information 2
        b"\x04\x16\0\x01x",          // Authentication Data without a method
        b"\x03\x13\0\x0A",           // Server Keep Alive, which only a server may send
        b"\x02\x7F\0",               // not a property
        b"\x09\x11\0\0\0\x01",       // longer than what follows
    ] {
        let connect = raw_connect_with(V5, CLEAN, properties, &[b"\0\x01c"]);
        let answer = answer(&broker, &connect).await;
        assert!(matches!(answer[..], [0x20, 3, 0, 0x81 | 0x82, 0]), "{connect:02x?} {answer:02x?}");
    }
    assert!(!broker.online("c").await.unwrap());
}

/// Admits only Alice, with her password.
struct OnlyAlice;

#[async_trait]
impl Authenticator for OnlyAlice {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        match (credentials.client_id, credentials.username, credentials.password) {
            (Some("c"), Some("alice"), Some(b"secret")) => {
                Ok(Identity { username: Some(Arc::from("alice")), ..Identity::default() })
            }
            _ => Err(AuthenticationError::BadCredentials),
        }
    }
}

/// [MQTT-3.1.4-2] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-4.13.2-1]
/// 3.1.1: [MQTT-3.2.2-4] [MQTT-3.2.2-5]
#[actix_rt::test]
async fn wrong_credentials_are_told_and_closed() {
    let broker = world_with(|builder| builder.authenticator(OnlyAlice)).await;
    for version in ALL_VERSIONS {
        // A CONNECT without a user name has no wrong one.
        let unauthorized: &[u8] =
            if version == V5 { b"\x20\x03\0\x87\0" } else { b"\x20\x02\0\x05" };
        let connect = raw_connect(version, 0, &[b"\0\x01c"]);
        assert_eq!(answer(&broker, &connect).await, unauthorized, "{version:?}");
        let refused: &[u8] = if version == V5 { b"\x20\x03\0\x86\0" } else { b"\x20\x02\0\x04" };
        for (flags, payload) in [
            (CLEAN | USER_NAME, &[&b"\0\x01c"[..], b"\0\x05alice"][..]),
            (CLEAN | USER_NAME | PASSWORD, &[b"\0\x01c", b"\0\x05alice", b"\0\x05wrong"]),
            (CLEAN | USER_NAME | PASSWORD, &[b"\0\x01c", b"\0\x03bob", b"\0\x06secret"]),
        ] {
            let connect = raw_connect(version, flags, payload);
            assert_eq!(answer(&broker, &connect).await, refused, "{version:?} {payload:02x?}");
            assert!(!broker.online("c").await.unwrap());
        }
    }
}

/// [MQTT-3.1.3-1]; 3.1.1: [MQTT-3.1.3-1]
#[actix_rt::test]
async fn the_fields_of_the_payload_have_their_order() {
    let broker = world_with(|builder| builder.authenticator(OnlyAlice)).await;
    for version in ALL_VERSIONS {
        let none = no_properties(version);
        let fields =
            [b"\0\x01c", none, b"\0\x04will", b"\0\x04gone", b"\0\x05alice", b"\0\x06secret"];
        let flags = CLEAN | WILL | USER_NAME | PASSWORD;
        let mut wills = broker.subscribe("will", QOS_0).unwrap();
        let (wire, _) = Wire::connected(&broker, &raw_connect(version, flags, &fields)).await;
        assert!(broker.online("c").await.unwrap());
        drop(wire);
        let message = wills.next().await.unwrap();
        assert_eq!(message.message.publication().payload, b"gone");
    }
}

/// Packets after a refused CONNECT are not handled. The client still gets the reason, even if it
/// continues to send without reading: a socket that is closed then would discard it.
/// [MQTT-3.1.4-6] [MQTT-3.1.4-2]; 3.1.1: [MQTT-3.1.4-5]
#[actix_rt::test]
async fn nothing_is_handled_after_a_connect_that_is_refused() {
    let broker = builder().authenticator(OnlyAlice).tcp("127.0.0.1:0").start().await.unwrap();
    let address = broker.local_addrs()[0];
    let flags = CLEAN | USER_NAME | PASSWORD;
    let mut witness = Wire::open(&broker);
    let payload = [&b"\0\x01c"[..], b"\0\x05alice", b"\0\x06secret"];
    witness.send(&raw_connect(V3_1_1, flags, &payload)).await;
    witness.expect(b"\x20\x02\0\0").await;
    witness.send(&packet(0x82, &[b"\0\x01", b"\0\x01#\0"])).await;
    witness.expect(b"\x90\x03\0\x01\0").await;
    for version in ALL_VERSIONS {
        let refused: &[u8] = if version == V5 { b"\x20\x03\0\x87\0" } else { b"\x20\x02\0\x05" };
        let connect = raw_connect(version, CLEAN, &[b"\0\x01x"]);
        for count in [1, 1_000_000] {
            let publish = packet(0x31, &[b"\0\x01t", no_properties(version), b"x"]);
            let bytes = [&connect[..], &publish.repeat(count), &connect, b"\xC0\0"].concat();
            let mut wire = Wire(TcpStream::connect(address).await.unwrap());
            wire.send(&bytes).await;
            assert_eq!(wire.rest().await, refused, "{version:?} {count}");
        }
    }
    witness.ping().await;
}

/// [MQTT-3.1.4-5] [MQTT-3.2.0-1]; 3.1.1: [MQTT-3.1.4-4] [MQTT-3.2.0-1]
#[actix_rt::test]
async fn connack_comes_first_and_says_success() {
    let broker = world().await;
    for version in ALL_VERSIONS {
        // A request sent together with CONNECT is answered after its CONNACK.
        let mut client = Client::new(&broker, version);
        let ask = packet(0x82, &[b"\0\x01", no_properties(version), b"\0\x01t\0"]);
        client.send_bytes(&[plain_connect(version, "c"), ask].concat()).await;
        client
            .receive(|packet| {
                let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
                assert_eq!((ack.reason, ack.session_present), (ReasonCode::Success, false));
            })
            .await;
        client.expect(suback(1, &[ReasonCode::Success])).await;
        client.ping().await;
    }
}
