//! What the broker says about itself and about errors, and to which clients.

use hearthmq::{
    Broker,
    auth::{AccessRequest, Action, Authorizer, Decision},
    broker::StartError,
    mqtt::{Connect, Packet, ReasonCode},
};

use crate::support::{Client, builder, packets::*, world, world_where, world_with, world_within};

/// Returns a CONNECT with Request Response Information.
fn curious(client_id: &str, request: Option<bool>) -> Connect<'_> {
    let mut packet = connect(client_id);
    packet.properties.request_response_information = request;
    packet
}

async fn response_information(broker: &Broker, connect: Connect<'_>) -> Option<String> {
    let mut client = Client::new(broker, connect.version);
    client.send(Packet::Connect(Box::new(connect))).await;
    client
        .receive(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
            assert_eq!(ack.reason, ReasonCode::Success);
            ack.properties.response_information.map(ToOwned::to_owned)
        })
        .await
}

/// [MQTT-3.1.2-28] and section 3.2.2.3.15.
#[actix_rt::test]
async fn response_information_is_for_those_who_ask_for_it() {
    let broker = world_with(|builder| builder.response_topic_prefix("responses/")).await;
    let told = response_information(&broker, curious("c", Some(true))).await;
    assert_eq!(told.as_deref(), Some("responses/c/"));
    for request in [None, Some(false)] {
        assert_eq!(response_information(&broker, curious("c", request)).await, None);
    }
    assert_eq!(response_information(&broker, connect_in(V3_1_1, "c")).await, None);
}

/// An assigned identifier works like any other.
#[actix_rt::test]
async fn response_information_of_an_assigned_identifier_has_it() {
    let broker = world_with(|builder| builder.response_topic_prefix("responses/")).await;
    let told = response_information(&broker, curious("", Some(true))).await.unwrap();
    assert!(told.starts_with("responses/auto-") && told.ends_with('/'), "{told}");
}

/// It must be valid in a Topic Name, and must not lead into the topics of another client.
#[actix_rt::test]
async fn an_identifier_that_is_no_level_of_a_topic_gets_no_response_information() {
    let broker = world_with(|builder| builder.response_topic_prefix("responses/")).await;
    for client_id in ["a/b", "+", "a#"] {
        assert_eq!(response_information(&broker, curious(client_id, Some(true))).await, None);
    }
}

/// [MQTT-3.1.2-24]
#[actix_rt::test]
async fn response_information_too_long_for_the_client_is_left_out() {
    let broker = world_with(|builder| builder.response_topic_prefix("responses/")).await;
    let mut packet = curious("c", Some(true));
    packet.properties.maximum_packet_size = Some(24);
    assert_eq!(response_information(&broker, packet).await, None);
}

#[actix_rt::test]
async fn without_a_prefix_there_is_no_response_information() {
    let broker = world().await;
    assert_eq!(response_information(&broker, curious("c", Some(true))).await, None);
    let outcome = builder().response_topic_prefix("a/+/").start().await;
    assert!(matches!(outcome, Err(StartError::ResponseTopicPrefix(_))));
}

struct NothingSecret;

impl Authorizer for NothingSecret {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let is_secret = match request.action {
            Action::Connect => request.client_id == "secret",
            Action::Publish { topic, .. } => topic == "secret",
            Action::Subscribe { filter, .. } => filter == "secret",
            Action::Observe | Action::Control | Action::Administer => false,
            _ => false, // an action of a later version
        };
        if is_secret { Decision::Deny } else { Decision::Allow }
    }
}

/// Sends a packet and returns the Reason String of the answer.
async fn why(client: &mut Client, packet: Packet<'_>) -> Option<String> {
    client.send(packet).await;
    client
        .receive(|packet| {
            let properties = match packet {
                Packet::PubAck(ack) | Packet::PubRec(ack) => ack.properties,
                Packet::SubAck(ack) => ack.properties,
                other => panic!("{other:?}"),
            };
            assert!(properties.user_properties.is_empty());
            properties.reason_string.map(ToOwned::to_owned)
        })
        .await
}

/// Starts a broker that retains nothing and grants each client one subscription.
async fn narrow_world() -> Broker {
    world_within(|limits| {
        limits.retained_messages_max = 0;
        limits.subscriptions_per_client_max = 1;
    })
    .await
}

/// [MQTT-3.1.2-29]: on everything but PUBLISH, CONNACK and DISCONNECT.
#[actix_rt::test]
async fn reason_strings_are_for_those_who_want_problem_information() {
    let broker = narrow_world().await;
    for request in [None, Some(true), Some(false)] {
        let mut packet = connect("c");
        packet.properties.request_problem_information = request;
        let mut client = Client::connected(&broker, packet).await;
        let wants = request != Some(false);
        for asked in [
            Packet::Publish(retained(publish_1(1, "t", "x"))),
            Packet::Publish(retained(publish_2(2, "t", "x"))),
            subscribe(3, vec![filter("one", QOS_0), filter("too many", QOS_0)]),
        ] {
            assert_eq!(why(&mut client, asked).await.is_some(), wants);
        }
        // Success has no Reason String.
        assert_eq!(why(&mut client, subscribe(4, vec![filter("one", QOS_0)])).await, None);
        assert_eq!(why(&mut client, Packet::Publish(publish_1(5, "t", "x"))).await, None);
        // DISCONNECT may have one in any case, but has none.
        client.send(Packet::PingResp).await;
        client
            .receive(|packet| {
                let Packet::Disconnect(disconnect) = packet else { panic!("{packet:?}") };
                assert_eq!(disconnect.properties.reason_string.is_some(), wants);
            })
            .await;
        client.expect_closed().await;
    }
}

/// [MQTT-3.2.2-19]: a refusal has a Reason String if the client accepts packets of that size.
#[actix_rt::test]
async fn a_refused_client_is_told_why_if_there_is_room() {
    let broker = world_where(NothingSecret).await;
    for (maximum, is_told) in [(None, true), (Some(20), false)] {
        for will_topic in ["secret", "open"] {
            let client_id = if will_topic == "open" { "secret" } else { "c" };
            let mut packet = connect(client_id);
            packet.properties.maximum_packet_size = maximum;
            packet.will = Some(will(will_topic, "x"));
            let mut client = Client::new(&broker, V5);
            client.send(Packet::Connect(Box::new(packet))).await;
            client
                .receive(|packet| {
                    let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
                    assert_eq!(ack.reason, ReasonCode::NotAuthorized);
                    assert_eq!(ack.properties.reason_string.is_some(), is_told);
                })
                .await;
            client.expect_closed().await;
        }
    }
}
