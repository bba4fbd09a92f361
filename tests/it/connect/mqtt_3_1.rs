//! Differences in MQTT 3.1, which IBM specified in 2010.

use hearthmq::{
    auth::{AccessRequest, Action, Authorizer, Decision},
    mqtt::{Packet, ReasonCode},
};

use crate::support::{Client, packets::*, world, world_where, world_within};

/// Returns a CONNECT of MQTT 3.1 as bytes: name, level, Clean Session, no Keep Alive, this
/// identifier.
fn connect_bytes(name: &str, level: u8, client_id: &str) -> Vec<u8> {
    let mut body = vec![0, name.len() as u8];
    body.extend(name.as_bytes());
    body.extend([level, 2, 0, 0, 0, client_id.len() as u8]);
    body.extend(client_id.as_bytes());
    let mut bytes = vec![0x10, body.len() as u8];
    bytes.append(&mut body);
    bytes
}

/// "The name of the protocol is MQIsdp, its version 3": no other combination is valid.
#[actix_rt::test]
async fn the_protocol_is_mqisdp_3() {
    let broker = world().await;
    let mut client = Client::new(&broker, V3_1);
    client.send_bytes(&connect_bytes("MQIsdp", 3, "c")).await;
    client.expect(Packet::ConnAck(Box::new(connack(ReasonCode::Success)))).await;
    for (name, level) in [("MQIsdp", 4), ("MQIsdp", 5), ("MQTT", 3)] {
        let mut client = Client::new(&broker, V3_1_1);
        client.send_bytes(&connect_bytes(name, level, "c")).await;
        client.expect_refused(ReasonCode::UnsupportedProtocolVersion).await;
    }
}

/// An unknown protocol name is not answered: [MQTT-3.1.2-1] of MQTT 3.1.1 lets a server choose.
#[actix_rt::test]
async fn an_unknown_protocol_name_is_closed_without_an_answer() {
    let broker = world().await;
    for (name, level) in [("mqtt", 4), ("MQTTX", 5), ("", 4), ("MQIsd", 3), ("HTTP", 5)] {
        let mut client = Client::new(&broker, V3_1_1);
        client.send_bytes(&connect_bytes(name, level, "c")).await;
        client.expect_closed().await;
    }
}

/// The second byte of CONNACK is reserved there, and 0 with and without a session.
#[actix_rt::test]
async fn there_is_no_session_present_flag() {
    let broker = world().await;
    for _ in 0..2 {
        let mut client = Client::new(&broker, V3_1);
        client.send(Packet::Connect(Box::new(connect_lasting("c", V3_1)))).await;
        // Decoded in the later version, which has the flag.
        client.version = V3_1_1;
        client.expect(Packet::ConnAck(Box::new(connack(ReasonCode::Success)))).await;
        client.vanish().await;
    }
}

/// "Between 1 and 23 characters", which clients hardly ever respected.
#[actix_rt::test]
async fn a_long_identifier_is_accepted_unless_the_broker_is_strict() {
    let long = "ä".repeat(24);
    let broker = world().await;
    Client::connected(&broker, connect_in(V3_1, &long)).await.ping().await;
    let mut client = Client::new(&broker, V3_1);
    client.send(Packet::Connect(Box::new(connect_in(V3_1, "")))).await;
    client.expect_refused(ReasonCode::ClientIdentifierNotValid).await;
}

/// Other versions have no such limit.
#[actix_rt::test]
async fn a_strict_broker_refuses_an_identifier_of_more_than_23_characters() {
    let long = "ä".repeat(24);
    let broker = world_within(|limits| limits.client_id_v3_1_chars_max = 23).await;
    let mut client = Client::new(&broker, V3_1);
    client.send(Packet::Connect(Box::new(connect_in(V3_1, &long)))).await;
    client.expect_refused(ReasonCode::ClientIdentifierNotValid).await;
    Client::connected(&broker, connect_in(V3_1, &"ä".repeat(23))).await.ping().await;
    for version in VERSIONS {
        Client::connected(&broker, connect_in(version, &long)).await.ping().await;
    }
}

struct NothingSecret;

impl Authorizer for NothingSecret {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let is_secret = matches!(request.action, Action::Subscribe { filter: "secret", .. });
        if is_secret { Decision::Deny } else { Decision::Allow }
    }
}

/// SUBACK has no failure code: it grants the requested QoS, as other brokers do, and no message
/// comes.
#[actix_rt::test]
async fn a_refused_subscription_is_answered_as_if_it_were_granted() {
    let broker = world_where(NothingSecret).await;
    let mut client = Client::connected(&broker, connect_in(V3_1, "c")).await;
    client.send(subscribe(1, vec![filter("secret", QOS_2), filter("open", QOS_1)])).await;
    client.expect(suback(1, &[ReasonCode::GrantedQoS2, ReasonCode::GrantedQoS1])).await;
    for topic in ["secret", "open"] {
        broker.publish(topic, b"x", QOS_2, false).await.unwrap();
    }
    client.expect_publish(publish_1(1, "open", "x")).await;
    client.ping().await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().subscriptions, 1);
}
