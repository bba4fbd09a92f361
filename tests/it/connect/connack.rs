//! Section 3.2: CONNACK, byte by byte, and its promises.

use hearthmq::{
    Broker,
    mqtt::{ConnAckProperties, Connect, LastWill, Packet, ReasonCode},
};

use crate::{
    support::{Client, generous, packets::*, world, world_with},
    wire::*,
};

/// [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
/// 3.1.1: [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
#[actix_rt::test]
async fn the_acknowledge_flags_are_session_present_and_nothing_else() {
    let broker = world().await;
    let lasting: &[u8] = b"\x05\x11\0\0\0\xFF"; // Session Expiry Interval
    for version in VERSIONS {
        let properties = if version == V5 { lasting } else { b"" };
        let end: &[u8] = b"\xE0\0";
        for (flags, session_present) in
            [(CLEAN, 0), (0, u8::from(version == V5)), (0, 1), (CLEAN, 0)]
        {
            let connect = raw_connect_with(version, flags, properties, &[b"\0\x01c"]);
            let (mut wire, connack) = Wire::connected(&broker, &connect).await;
            assert_eq!(connack[2..4], [session_present, 0], "{version:?} {flags}");
            wire.send(end).await;
            assert_eq!(wire.rest().await, b"");
        }
    }
    // MQTT 3.1 has no Session Present; the byte is unused.
    for _ in 0..2 {
        let (mut wire, connack) =
            Wire::connected(&broker, &raw_connect(V3_1, 0, &[b"\0\x01d"])).await;
        assert_eq!(connack, b"\x20\x02\0\0");
        wire.send(b"\xE0\0").await;
        wire.rest().await;
    }
}

/// [MQTT-3.2.2-6]; 3.1.1: [MQTT-3.2.2-4]
#[actix_rt::test]
async fn a_refusal_never_has_session_present() {
    let mut limits = generous();
    limits.sessions_max = 1;
    let broker = world_with(|builder| builder.limits(limits)).await;
    Client::connected(&broker, connect_lasting("c", V5)).await.leave().await;
    // The session of `c` exists, but this CONNECT is refused.
    let method = b"\x05\x15\0\x02no";
    let connect = raw_connect_with(V5, 0, method, &[b"\0\x01c"]);
    assert_eq!(answer(&broker, &connect).await, b"\x20\x03\0\x8C\0");
    assert_eq!(answer(&broker, &raw_connect(V3_1_1, 0, &[b"\0\x01d"])).await, b"\x20\x02\0\x03");
    let refused = answer(&broker, &raw_connect(V5, 0, &[b"\0\x01d"])).await;
    assert_eq!((refused[0], &refused[2..4]), (0x20, &b"\0\x97"[..]));
}

/// All kinds of refusal: each answer has a code of the table, and the connection ends.
/// [MQTT-3.2.2-7] [MQTT-3.2.2-8]; 3.1.1: [MQTT-3.2.2-5] [MQTT-3.2.2-6]
#[actix_rt::test]
async fn refusals_have_a_reason_code_of_connack() {
    const OF_5_0: &[u8] = &[
        0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97,
        0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
    ];
    let broker = world().await;
    let will = |topic: &str| {
        let topic = prefixed(topic.as_bytes());
        [b"\0\x01c\0".to_vec(), topic, b"\0\0".to_vec()].concat()
    };
    for (flags, properties, payload) in [
        (CLEAN, &b"\0"[..], b"\0\x01\0".to_vec()),
        (CLEAN | 1, b"\0", b"\0\x01c".to_vec()),
        (CLEAN, b"\0", b"\0\x01c\0".to_vec()),
        (CLEAN, b"\x05\x15\0\x02no", b"\0\x01c".to_vec()),
        (CLEAN, b"\x03\x21\0\0", b"\0\x01c".to_vec()),
        (CLEAN | WILL, b"\0", will("a/#")),
        (CLEAN | WILL, b"\0", will("")),
        (CLEAN | WILL, b"\0", will(&"x".repeat(5000))),
        (CLEAN | WILL, b"\0", will(&"/".repeat(1000))),
        (CLEAN | WILL, b"\0", will("$events/mine")),
    ] {
        let connect = raw_connect_with(V5, flags, properties, &[&payload]);
        let answer = answer(&broker, &connect).await;
        let [0x20, _, 0, code, ..] = answer[..] else { panic!("{answer:02x?} to {connect:02x?}") };
        assert!(OF_5_0.contains(&code), "{code:#04x} to {connect:02x?}");
    }
    let huge = packet(0x10, &[&plain_connect(V5, "c")[2..], &[0; 300_000]]);
    let answer = answer(&broker, &huge).await;
    assert!(answer.is_empty() || answer == b"\x20\x03\0\x95\0", "{answer:02x?}");
}

async fn connack_properties(
    broker: &Broker,
    connect: Connect<'_>,
    check: impl FnOnce(&ConnAckProperties<'_>),
) {
    let mut client = Client::new(broker, V5);
    client.send(Packet::Connect(Box::new(connect))).await;
    client
        .receive(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
            assert_eq!(ack.reason, ReasonCode::Success);
            check(&ack.properties);
        })
        .await;
}

/// Maximum QoS and Retain Available are left out, which means full support. [MQTT-3.2.2-9]
/// [MQTT-3.2.2-10] [MQTT-3.2.2-12] [MQTT-3.2.2-13]
#[actix_rt::test]
async fn all_of_qos_and_retain_is_supported() {
    let broker = world().await;
    connack_properties(&broker, connect("c"), |properties| {
        assert_eq!(properties.maximum_qos, None);
        assert_eq!(properties.retain_available, None);
        assert_eq!(properties.wildcard_subscription_available, None);
        assert_eq!(properties.subscription_identifiers_available, None);
        assert_eq!(properties.shared_subscription_available, None);
    })
    .await;
    let mut connect = connect("c");
    let last_will = will("w", "x");
    connect.will = Some(LastWill { qos: QOS_2, retain: true, ..last_will });
    let mut client = Client::connected(&broker, connect).await;
    for qos in [QOS_0, QOS_1, QOS_2] {
        client.subscribe("t", qos).await;
    }
    client.publish(retained(publish_2(1, "t", "x"))).await;
    client.expect_publish(publish_2(1, "t", "x")).await;
    client.expect_taken(QOS_2, 1, ReasonCode::Success).await;
}

/// [MQTT-3.2.2-21] [MQTT-3.2.2-22] [MQTT-3.1.2-21]: tests on virtual time show the effect of the
/// Keep Alive.
#[actix_rt::test]
async fn server_keep_alive_is_told_where_another_keep_alive_counts() {
    let mut limits = generous();
    limits.keep_alive_secs_max = 100;
    let broker = world_with(|builder| builder.limits(limits)).await;
    for (asked, told) in [(0, None), (1, None), (100, None), (101, Some(100)), (65_535, Some(100))]
    {
        let mut connect = connect("c");
        connect.keep_alive = asked;
        connack_properties(&broker, connect, |properties| {
            assert_eq!(properties.server_keep_alive, told, "{asked}");
        })
        .await;
    }
}

/// CONNACK is never larger than the client accepts; if it cannot be that small, the client is not
/// connected. [MQTT-3.1.2-24] [MQTT-3.2.0-1] [MQTT-3.2.2-19] [MQTT-3.2.2-20]
#[actix_rt::test]
async fn a_client_that_cannot_take_connack_is_not_connected() {
    let broker = world().await;
    let mut accepted = Vec::new();
    for maximum in 1..100_u8 {
        let properties = [5, 0x27, 0, 0, 0, maximum];
        for client_id in [&b"\0\x01c"[..], b"\0\0"] {
            let connect = raw_connect_with(V5, CLEAN, &properties, &[client_id]);
            let mut wire = Wire::open(&broker);
            wire.send(&[&connect[..], b"\xE0\0"].concat()).await;
            let answer = wire.rest().await;
            assert!(answer.len() <= usize::from(maximum), "{maximum}: {answer:02x?}");
            match answer[..] {
                [] => assert!(maximum < 5, "{maximum} is enough to be told"),
                [0x20, 3, 0, 0x95, 0] => {}
                [0x20, _, 0, 0, ..] => accepted.push((maximum, client_id.len())),
                _ => panic!("{answer:02x?}"),
            }
        }
    }
    assert!(!broker.online("c").await.unwrap());
    let least = |length| accepted.iter().find(|(_, id)| *id == length).unwrap().0;
    assert!(least(3) < 20, "a CONNACK of this broker takes no more than it must");
    assert!(least(2) < 50);
}
