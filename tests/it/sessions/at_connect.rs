//! Section 3.1: what CONNECT does to the session of its client, and Client Identifiers.

use hearthmq::{
    Broker,
    mqtt::{Packet, ProtocolVersion, ReasonCode},
};

use crate::{
    support::{Client, packets::*, world},
    wire::*,
};

/// Loses the connection, and waits until the broker has noticed.
pub(crate) async fn lose(broker: &Broker, client: Client, client_id: &str) {
    drop(client);
    while broker.online(client_id).await.unwrap() {
        tokio::task::yield_now().await;
    }
}

/// Leaves a session with a subscription to `t`, with or without DISCONNECT.
async fn leave_a_session(broker: &Broker, version: ProtocolVersion, by_disconnect: bool) {
    let mut client = Client::connected(broker, connect_lasting("c", version)).await;
    client.subscribe("t", QOS_2).await;
    if by_disconnect {
        client.leave().await;
    } else {
        lose(broker, client, "c").await;
    }
}

/// [MQTT-3.1.2-4] [MQTT-3.1.4-4] [MQTT-3.2.2-2]
/// 3.1.1: [MQTT-3.1.2-6] [MQTT-3.1.4-3] [MQTT-3.2.2-1]
#[actix_rt::test]
async fn a_clean_start_discards_the_session() {
    let broker = world().await;
    for version in VERSIONS {
        leave_a_session(&broker, version, true).await;
        broker.publish("t", b"waits", QOS_1, false).await.unwrap();
        let (mut client, session_present) =
            Client::connected_with(&broker, connect_in(version, "c")).await;
        assert!(!session_present);
        broker.publish("t", b"nobody subscribes", QOS_1, false).await.unwrap();
        client.ping().await;
        client.subscribe("t", QOS_1).await;
        client.leave().await;
        // That session has ended with its connection.
        broker.publish("t", b"nobody subscribes", QOS_1, false).await.unwrap();
        let (mut client, session_present) =
            Client::connected_with(&broker, connect_lasting("c", version)).await;
        assert!(!session_present);
        broker.publish("t", b"nobody subscribes", QOS_1, false).await.unwrap();
        client.ping().await;
        client.leave().await;
        Client::connected(&broker, connect_in(version, "c")).await.leave().await;
    }
}

/// [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.4-4] [MQTT-3.2.2-3]
/// 3.1.1: [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.4-3] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
#[actix_rt::test]
async fn without_a_clean_start_the_session_goes_on_or_begins() {
    let broker = world().await;
    for version in VERSIONS {
        for by_disconnect in [true, false] {
            let first = connect_lasting("c", version);
            let (client, session_present) = Client::connected_with(&broker, first).await;
            assert!(!session_present, "there is none yet");
            client.leave().await;
            leave_a_session(&broker, version, by_disconnect).await;
            broker.publish("t", b"1", QOS_1, false).await.unwrap();
            broker.publish("t", b"2", QOS_2, false).await.unwrap();
            broker.publish("other", b"3", QOS_1, false).await.unwrap();
            let again = connect_lasting("c", version);
            let (mut client, session_present) = Client::connected_with(&broker, again).await;
            assert!(session_present);
            client.expect_publish(publish_1(1, "t", "1")).await;
            client.take(QOS_1, 1).await;
            client.expect_publish(publish_2(2, "t", "2")).await;
            client.take(QOS_2, 2).await;
            client.publish(publish("t", "still subscribed")).await;
            client.expect_publish(publish("t", "still subscribed")).await;
            client.ping().await;
            client.leave().await;
            Client::connected(&broker, connect_in(version, "c")).await.leave().await;
        }
    }
}

/// [MQTT-3.1.2-7] of 3.1.1; section 4.1 of MQTT 5.0 says the same.
#[actix_rt::test]
async fn retained_messages_outlive_the_session_of_their_publisher() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.publish(retained(publish("t", "kept"))).await;
        client.ping().await;
        client.leave().await;
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe("t", QOS_0).await;
        client.expect_publish(retained(publish("t", "kept"))).await;
        client.leave().await;
    }
}

/// A session belongs to exactly its Client Identifier, bit by bit. [MQTT-3.1.3-2];
/// 3.1.1: [MQTT-3.1.3-2]
#[actix_rt::test]
async fn the_client_identifier_tells_sessions_apart() {
    let broker = world().await;
    for version in VERSIONS {
        let ids = ["a", "A", "a ", " a", "ä", "a\u{308}", "a/b", "+", "#"];
        for (number, client_id) in ids.iter().enumerate() {
            let mut client = Client::connected(&broker, connect_lasting(client_id, version)).await;
            client.subscribe(&format!("to/{number}"), QOS_1).await;
            client.leave().await;
        }
        for number in 0..ids.len() {
            let payload = number.to_string();
            let topic = format!("to/{number}");
            broker.publish(&topic, payload.as_bytes(), QOS_1, false).await.unwrap();
        }
        for (number, client_id) in ids.iter().enumerate() {
            let connect = connect_lasting(client_id, version);
            let (mut client, session_present) = Client::connected_with(&broker, connect).await;
            assert!(session_present, "{client_id:?}");
            assert_eq!(client.receive_payload().await, number.to_string());
            client.ping().await;
            client.leave().await;
            // Discarding one session leaves the others alone.
            Client::connected(&broker, connect_in(version, client_id)).await.leave().await;
            for (other, other_id) in ids.iter().enumerate() {
                assert_eq!(broker.client(other_id).await.unwrap().is_some(), other > number);
            }
        }
    }
}

/// [MQTT-3.1.3-5]; 3.1.1: [MQTT-3.1.3-5]
#[actix_rt::test]
async fn client_identifiers_of_1_to_23_letters_and_digits_are_welcome() {
    let broker = world().await;
    let alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in ALL_VERSIONS {
        for length in 1..=23 {
            for start in (0..alphabet.len()).step_by(length) {
                let client_id: String = alphabet.chars().cycle().skip(start).take(length).collect();
                let (_wire, _) =
                    Wire::connected(&broker, &plain_connect(version, &client_id)).await;
                assert!(broker.online(&client_id).await.unwrap());
            }
        }
    }
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]
#[actix_rt::test]
async fn an_empty_client_identifier_is_replaced_by_a_new_one_that_is_told() {
    let broker = world().await;
    let mut clients = Vec::new();
    for clean_start in [true, false, true, false] {
        let mut connect = connect_lasting("", V5);
        connect.clean_start = clean_start;
        let mut client = Client::new(&broker, V5);
        client.send(Packet::Connect(Box::new(connect))).await;
        let client_id = client
            .receive(|packet| {
                let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
                assert!(!ack.session_present);
                let assigned = ack.properties.assigned_client_identifier;
                assigned.expect("an identifier").to_owned()
            })
            .await;
        assert!(broker.online(&client_id).await.unwrap());
        client.subscribe(&client_id, QOS_1).await;
        assert!(!clients.iter().any(|(other, _)| *other == client_id), "{client_id} is in use");
        clients.push((client_id, client));
    }
    // It is an ordinary identifier: the session can be resumed under it.
    for (client_id, client) in clients {
        client.leave().await;
        broker.publish(&client_id, b"x", QOS_1, false).await.unwrap();
        let (mut client, session_present) =
            Client::connected_with(&broker, connect_lasting(&client_id, V5)).await;
        assert!(session_present);
        client.expect_publish(publish_1(1, &client_id, "x")).await;
    }
}

/// Only with Clean Session. [MQTT-3.1.3-6] of 3.1.1, [MQTT-3.1.3-7] of 3.1.1,
/// [MQTT-3.1.3-8] of 3.1.1, [MQTT-3.1.3-9] of 3.1.1, [MQTT-3.2.2-4] of 3.1.1,
/// [MQTT-3.2.2-5] of 3.1.1
#[actix_rt::test]
async fn mqtt_3_1_1_may_leave_the_client_identifier_out_of_a_clean_session() {
    let broker = world().await;
    let nameless = |flags| raw_connect(V3_1_1, flags, &[b"\0\0"]);
    let (mut first, _) = Wire::connected(&broker, &nameless(CLEAN)).await;
    let (mut second, _) = Wire::connected(&broker, &nameless(CLEAN)).await;
    assert_eq!(broker.connections(), 2);
    // They are two clients, and neither disturbs the other.
    for wire in [&mut first, &mut second] {
        wire.send(&packet(0x82, &[b"\0\x01", b"\0\x01t\0"])).await;
        wire.expect(b"\x90\x03\0\x01\0").await;
    }
    broker.publish("t", b"x", QOS_0, false).await.unwrap();
    for wire in [&mut first, &mut second] {
        wire.expect(b"\x30\x04\0\x01tx").await;
        wire.ping().await;
    }
    assert_eq!(answer(&broker, &nameless(0)).await, b"\x20\x02\0\x02");
}

/// [MQTT-3.1.4-3]; 3.1.1: [MQTT-3.1.4-2]
#[actix_rt::test]
async fn a_client_that_connects_again_ends_its_older_connection() {
    let broker = world().await;
    for older in ALL_VERSIONS {
        for newer in ALL_VERSIONS {
            for lasting in [true, false] {
                let connect = |version| match lasting {
                    true => connect_lasting("c", version),
                    false => connect_in(version, "c"),
                };
                let mut old = Client::connected(&broker, connect(older)).await;
                old.subscribe("t", QOS_1).await;
                let mut new = Client::connected(&broker, connect(newer)).await;
                old.expect_disconnect(ReasonCode::SessionTakenOver).await;
                new.publish(publish("t", "x")).await;
                if lasting {
                    new.expect_publish(publish("t", "x")).await;
                }
                new.ping().await;
                assert!(broker.online("c").await.unwrap());
                new.leave().await;
                Client::connected(&broker, connect_in(newer, "c")).await.leave().await;
            }
        }
    }
}
