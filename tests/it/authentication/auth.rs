//! Section 3.15, AUTH, and section 4.12, enhanced authentication, of MQTT 5.0.
//!
//! No other version has them, so these tests do not run over `VERSIONS`.

use hearthmq::{
    Broker,
    mqtt::{Connect, Packet, ReasonCode},
};

use crate::{
    riddle::{RIDDLE, Riddle, again, answer, auth_by, connect_by, question, riddled, settled},
    support::{Client, packets::*, world, world_with},
};

async fn riddling() -> Broker {
    world_with(|builder| builder.enhanced_authenticator(Riddle)).await
}

/// Returns a client that has been challenged and has not answered.
async fn asked(broker: &Broker) -> Client {
    let mut client = Client::new(broker, V5);
    client.send(Packet::Connect(Box::new(riddled(connect("c"))))).await;
    client.expect(question()).await;
    client
}

/// Returns a client that has answered and is connected.
async fn let_in(broker: &Broker, name: &str) -> Client {
    let mut client = asked(broker).await;
    client.send(answer(&format!("I am {name}"))).await;
    expect_success(&mut client, Some((RIDDLE, b"welcome"))).await;
    client
}

/// Expects CONNACK with success and these properties of authentication.
async fn expect_success(client: &mut Client, method_and_data: Option<(&str, &[u8])>) {
    client
        .receive(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("CONNACK expected, not {packet:?}") };
            assert_eq!(ack.reason, ReasonCode::Success);
            assert_eq!(ack.properties.authentication_method, method_and_data.map(|(m, _)| m));
            assert_eq!(ack.properties.authentication_data, method_and_data.map(|(_, d)| d));
        })
        .await;
}

/// Returns a CONNECT with these properties and an empty Client Identifier.
fn raw_connect(properties: &[u8]) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x05\x02\0\0".to_vec();
    body.push(properties.len() as u8);
    body.extend_from_slice(properties);
    body.extend_from_slice(b"\0\0");
    [&[0x10, body.len() as u8], &body[..]].concat()
}

/// Returns an AUTH with this Reason Code and these properties.
fn raw_auth(reason: u8, properties: &[u8]) -> Vec<u8> {
    let head = [0xF0, properties.len() as u8 + 2, reason, properties.len() as u8];
    [&head[..], properties].concat()
}

/// Authentication Method and Authentication Data.
const METHOD: &[u8] = b"\x15\0\x06RIDDLE";
const DATA: &[u8] = b"\x16\0\x08I am ann";

/// Returns invalid AUTH packets with the expected Reason Codes. Section numbers are in the comments
/// where the standard has no number for the statement.
fn wrong_auths() -> Vec<(&'static str, Vec<u8>, ReasonCode)> {
    let malformed = ReasonCode::MalformedPacket;
    let protocol_error = ReasonCode::ProtocolError;
    let both = [METHOD, DATA].concat();
    let mut flags = raw_auth(0x18, &both);
    flags[0] |= 0b0010;
    let beyond = [&raw_auth(0x18, &both)[..], b"\0"].concat();
    let mut longer = beyond;
    longer[1] += 1;
    vec![
        ("[MQTT-3.15.1-1]: a reserved flag", flags, malformed),
        ("[MQTT-3.15.2-1]: a Reason Code of other packets", raw_auth(0x87, &both), protocol_error),
        ("3.15.2.1: Success is the server's to say", raw_auth(0x00, &both), protocol_error),
        ("3.15.2.1: Success in its short form", b"\xF0\0".to_vec(), protocol_error),
        ("3.15.2: no Property Length", b"\xF0\x01\x18".to_vec(), malformed),
        ("3.15.2.2.2: no method", raw_auth(0x18, b""), protocol_error),
        ("3.15.2.2.2: data without a method", raw_auth(0x18, DATA), protocol_error),
        ("3.15.2.2.2: two methods", raw_auth(0x18, &[METHOD, METHOD].concat()), protocol_error),
        ("3.15.2.2.3: data twice", raw_auth(0x18, &[&both, DATA].concat()), protocol_error),
        (
            "3.15.2.2.4: two Reason Strings",
            raw_auth(0x18, &[METHOD, b"\x1F\0\x01a\x1F\0\x01b"].concat()),
            protocol_error,
        ),
        (
            "2.2.2.2: a property of others",
            raw_auth(0x18, &[METHOD, b"\x23\0\x01"].concat()),
            malformed,
        ),
        ("2.2.2.2: no property at all", raw_auth(0x18, &[METHOD, b"\x7F"].concat()), malformed),
        ("[MQTT-1.5.4-1]: a method that is no UTF-8", raw_auth(0x18, b"\x15\0\x01\xFF"), malformed),
        ("more than the properties", longer, malformed),
        ("[MQTT-4.12.0-5]: another method", raw_auth(0x18, b"\x15\0\x05OTHER"), protocol_error),
    ]
}

/// [MQTT-4.12.0-2], [MQTT-4.12.0-3] and [MQTT-4.12.0-5], byte for byte
#[actix_rt::test]
async fn server_and_client_take_turns_with_auth_until_connack() {
    let broker = riddling().await;
    let mut client = Client::new(&broker, V5);
    client.send_bytes(&raw_connect(METHOD)).await;
    for _ in 0..3 {
        client.expect(question()).await;
        client.send_bytes(&raw_auth(0x18, &[METHOD, b"\x16\0\x01x"].concat())).await;
    }
    client.expect(question()).await;
    client.send_bytes(&raw_auth(0x18, &[METHOD, DATA].concat())).await;
    expect_success(&mut client, Some((RIDDLE, b"welcome"))).await;
    client.ping().await;
}

/// [MQTT-4.12.0-5]: if the data in CONNECT suffices, no AUTH is needed
#[actix_rt::test]
async fn connack_has_the_method_of_connect_where_no_auth_was_needed() {
    let broker = riddling().await;
    let mut client = Client::new(&broker, V5);
    let connect = connect_by(connect("c"), RIDDLE, Some(b"I am ann"));
    client.send(Packet::Connect(Box::new(connect))).await;
    expect_success(&mut client, Some((RIDDLE, b"welcome"))).await;
}

/// [MQTT-4.12.0-1]
#[actix_rt::test]
async fn a_method_that_the_server_does_not_support_is_refused_and_the_connection_closed() {
    let without = world().await;
    let with = riddling().await;
    for (broker, method) in
        [(&without, RIDDLE), (&with, "riddle"), (&with, "RIDDLE-PLUS"), (&with, "")]
    {
        let mut client = Client::new(broker, V5);
        let connect = connect_by(connect("c"), method, Some(b"I am ann"));
        client.send(Packet::Connect(Box::new(connect))).await;
        client.expect_refused(ReasonCode::BadAuthenticationMethod).await;
    }
}

/// [MQTT-4.12.0-4]
#[actix_rt::test]
async fn the_server_can_reject_the_authentication_at_any_point_and_closes_the_connection() {
    let broker = riddling().await;
    for (text, reason) in [
        ("wrong", ReasonCode::BadUserNameOrPassword),
        ("barred", ReasonCode::NotAuthorized),
        ("busy", ReasonCode::ServerUnavailable),
    ] {
        let mut at_once = Client::new(&broker, V5);
        let connect = connect_by(connect("c"), RIDDLE, Some(text.as_bytes()));
        at_once.send(Packet::Connect(Box::new(connect))).await;
        at_once.expect_refused(reason).await;
        let mut later = asked(&broker).await;
        later.send(answer("hm")).await;
        later.expect(question()).await;
        later.send(answer(text)).await;
        later.expect_refused(reason).await;
    }
}

/// [MQTT-3.1.2-30]
#[actix_rt::test]
async fn a_client_with_a_method_sends_nothing_but_auth_and_disconnect_before_connack() {
    let broker = riddling().await;
    let others = [
        Packet::PingReq,
        Packet::Publish(publish("a", "b")),
        subscribe(1, vec![filter("a", QOS_0)]),
        unsubscribe(1, vec!["a"]),
        puback(1, ReasonCode::Success),
        pubrec(1, ReasonCode::Success),
        pubrel(1),
        pubcomp(1),
        Packet::Connect(Box::new(riddled(connect("c")))),
    ];
    for packet in others {
        let mut client = asked(&broker).await;
        client.send(packet).await;
        client.expect_refused(ReasonCode::ProtocolError).await;
    }
    let mut leaving = asked(&broker).await;
    leaving.send(disconnect(ReasonCode::Success)).await;
    leaving.expect_closed().await;
}

/// [MQTT-3.1.2-30]: a packet sent together with CONNECT comes before CONNACK, for every method
#[actix_rt::test]
async fn a_client_with_a_method_sends_nothing_along_with_connect() {
    let broker = riddling().await;
    for properties in [METHOD, &[METHOD, DATA].concat()] {
        let mut hasty = Client::new(&broker, V5);
        hasty.send_bytes(&[&raw_connect(properties)[..], b"\xC0\0"].concat()).await;
        hasty.expect_refused(ReasonCode::ProtocolError).await;
        // The broker has not challenged it yet.
        let mut foreseeing = Client::new(&broker, V5);
        let auth = raw_auth(0x18, &[METHOD, DATA].concat());
        foreseeing.send_bytes(&[&raw_connect(properties)[..], &auth].concat()).await;
        foreseeing.expect_refused(ReasonCode::ProtocolError).await;
    }
    let mut leaving = Client::new(&broker, V5);
    leaving.send_bytes(&[&raw_connect(METHOD)[..], b"\xE0\0"].concat()).await;
    leaving.expect(question()).await;
    leaving.expect_closed().await;
}

/// [MQTT-3.15.1-1], [MQTT-3.15.2-1], [MQTT-4.12.0-3] and [MQTT-4.12.0-5]; section 3.15.2.2
#[actix_rt::test]
async fn an_auth_that_is_wrong_ends_the_exchange_at_connect() {
    let broker = riddling().await;
    for (what, bytes, reason) in wrong_auths() {
        let mut client = asked(&broker).await;
        client.send_bytes(&bytes).await;
        let said = client.receive(connack_reason).await;
        assert_eq!(said, reason, "{what}");
        client.expect_closed().await;
    }
    // 0x19 is for connected clients. [MQTT-4.12.0-3]
    let mut client = asked(&broker).await;
    client.send(again("I am ann")).await;
    client.expect_refused(ReasonCode::ProtocolError).await;
}

fn connack_reason(packet: Packet<'_>) -> ReasonCode {
    let Packet::ConnAck(ack) = packet else { panic!("CONNACK expected, not {packet:?}") };
    ack.reason
}

/// Section 3.1.2.11.9 and 3.1.2.11.10
#[actix_rt::test]
async fn a_connect_with_two_methods_or_data_without_a_method_is_a_protocol_error() {
    let broker = riddling().await;
    let (twice, data_twice) = ([METHOD, METHOD].concat(), [METHOD, DATA, DATA].concat());
    for properties in [DATA, &twice, &data_twice] {
        let mut client = Client::new(&broker, V5);
        client.send_bytes(&raw_connect(properties)).await;
        client.expect_refused(ReasonCode::ProtocolError).await;
    }
}

/// [MQTT-4.12.0-6]
#[actix_rt::test]
async fn a_client_without_a_method_gets_no_auth_and_no_method() {
    let broker = riddling().await;
    for version in [V3_1, V3_1_1, V5] {
        let mut client = Client::new(&broker, version);
        client.send(Packet::Connect(Box::new(connect_in(version, "c")))).await;
        expect_success(&mut client, None).await;
        client.ping().await;
    }
}

/// [MQTT-4.12.0-7]
#[actix_rt::test]
async fn a_client_without_a_method_sends_no_auth() {
    let broker = riddling().await;
    for packet in [again("I am ann"), answer("I am ann"), settled()] {
        let mut client = Client::connected(&broker, connect("c")).await;
        client.send(packet).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
    }
    // Packet type 15 is reserved there. [MQTT-2.2.2-2] of 3.1.1
    for version in [V3_1, V3_1_1] {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.send_bytes(b"\xF0\0").await;
        client.expect_closed().await;
    }
}

/// [MQTT-4.12.1-1]
#[actix_rt::test]
async fn a_client_authenticates_again_at_any_time_and_as_often_as_it_likes() {
    let broker = riddling().await;
    let mut client = let_in(&broker, "ann").await;
    client.subscribe("a", QOS_0).await;
    for _ in 0..3 {
        client.send(again("I am ann")).await;
        client.expect(settled()).await;
        client.send(again("hm")).await;
        client.expect(question()).await;
        client.send(answer("hm")).await;
        client.expect(question()).await;
        // Section 4.12.1: other packets flow meanwhile.
        client.publish(publish("a", "meanwhile")).await;
        client.expect_publish(publish("a", "meanwhile")).await;
        client.send(answer("I am ann")).await;
        client.expect(settled()).await;
    }
    client.ping().await;
}

/// [MQTT-4.12.1-1] and [MQTT-4.12.0-5]
#[actix_rt::test]
async fn a_client_authenticates_again_by_the_method_of_connect_only() {
    let broker = riddling().await;
    for method in ["OTHER", "SCRAM-SHA-256", ""] {
        let mut client = let_in(&broker, "ann").await;
        client.send(auth_by(ReasonCode::ReAuthenticate, method, Some(b"I am ann"))).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
    }
}

/// [MQTT-4.12.1-2]
#[actix_rt::test]
async fn a_client_that_fails_to_authenticate_again_is_told_and_disconnected() {
    let broker = riddling().await;
    for (text, reason) in [
        ("wrong", ReasonCode::NotAuthorized),
        ("barred", ReasonCode::NotAuthorized),
        ("busy", ReasonCode::ServerBusy),
        ("I am ben", ReasonCode::NotAuthorized),
    ] {
        let mut at_once = let_in(&broker, "ann").await;
        at_once.send(again(text)).await;
        at_once.expect_disconnect(reason).await;
        let mut later = let_in(&broker, "ann").await;
        later.send(again("hm")).await;
        later.expect(question()).await;
        later.send(answer(text)).await;
        later.expect_disconnect(reason).await;
    }
}

/// [MQTT-3.15.1-1], [MQTT-3.15.2-1] and [MQTT-4.12.0-5]; section 3.15.2.2
#[actix_rt::test]
async fn an_auth_that_is_wrong_ends_the_connection() {
    let broker = riddling().await;
    for (what, bytes, reason) in wrong_auths() {
        let mut client = let_in(&broker, "ann").await;
        client.send(again("hm")).await;
        client.expect(question()).await;
        client.send_bytes(&bytes).await;
        let said = client
            .receive(|packet| {
                let Packet::Disconnect(end) = packet else { panic!("not {packet:?}: {what}") };
                end.reason
            })
            .await;
        assert_eq!(said, reason, "{what}");
        client.expect_closed().await;
    }
}

/// [MQTT-4.12.0-3]: an answer without a challenge, and a new start in place of an answer
#[actix_rt::test]
async fn an_auth_out_of_turn_is_a_protocol_error() {
    let broker = riddling().await;
    let mut unasked = let_in(&broker, "ann").await;
    unasked.send(answer("I am ann")).await;
    unasked.expect_disconnect(ReasonCode::ProtocolError).await;
    let mut fresh = let_in(&broker, "ann").await;
    fresh.send(again("hm")).await;
    fresh.expect(question()).await;
    fresh.send(again("I am ann")).await;
    fresh.expect_disconnect(ReasonCode::ProtocolError).await;
    let mut both = let_in(&broker, "ann").await;
    both.send(again("slow")).await;
    both.send(answer("I am ann")).await;
    both.expect_disconnect(ReasonCode::ProtocolError).await;
}

/// [MQTT-3.1.2-24], [MQTT-3.15.2-2] and [MQTT-3.15.2-3]: it has neither Reason String nor User
/// Properties, and the data of the method cannot be left out
#[actix_rt::test]
async fn no_auth_is_larger_than_the_client_accepts() {
    let broker = riddling().await;
    for (packet_bytes_max, is_enough) in [(17, true), (16, false)] {
        let mut connect: Connect<'_> = riddled(connect("c"));
        connect.properties.maximum_packet_size = Some(packet_bytes_max);
        let mut client = Client::new(&broker, V5);
        client.send(Packet::Connect(Box::new(connect))).await;
        if is_enough {
            client.expect(question()).await;
            client.send(answer("I am ann")).await; // CONNACK carries data too
        }
        client.expect_refused(ReasonCode::PacketTooLarge).await;
    }
}
