//! What belongs to a user and not to a client identifier: a session, its messages, its permissions.

use hearthmq::{
    auth::{AccessRequest, Action, Authorizer, Decision},
    mqtt::ReasonCode,
};

use crate::support::{Client, packets::*, world, world_where};

/// Only `admin` may publish below `secret/`.
struct Guarded;

impl Authorizer for Guarded {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let is_admin = request.identity.username.as_deref() == Some("admin");
        match request.action {
            Action::Publish { topic, .. } if topic.starts_with("secret/") && !is_admin => {
                Decision::Deny
            }
            _ => Decision::Allow,
        }
    }
}

#[actix_rt::test]
async fn another_user_under_the_same_client_identifier_has_not_the_former_ones_rights() {
    let broker = world_where(Guarded).await;
    for (user, reason) in [
        ("admin", ReasonCode::NoMatchingSubscribers),
        ("bob", ReasonCode::NotAuthorized),
        ("admin", ReasonCode::NoMatchingSubscribers),
    ] {
        let mut connect = connect_lasting("dev", V5);
        connect.username = Some(user);
        let mut client = Client::connected(&broker, connect).await;
        client.publish(publish_1(1, "secret/x", "x")).await;
        client.expect(puback(1, reason)).await;
        client.leave().await;
    }
}

#[actix_rt::test]
async fn another_user_under_the_same_client_identifier_gets_a_session_of_its_own() {
    let broker = world().await;
    let mut connect = connect_lasting("dev", V5);
    connect.username = Some("admin");
    let mut client = Client::connected(&broker, connect.clone()).await;
    client.subscribe("secret/#", QOS_1).await;
    client.leave().await;
    broker.publish("secret/x", b"x", QOS_1, false).await.unwrap();
    connect.username = Some("bob");
    let (mut client, session_present) = Client::connected_with(&broker, connect).await;
    assert!(!session_present);
    broker.publish("secret/x", b"y", QOS_1, false).await.unwrap();
    client.expect_nothing().await;
}

/// Receive Maximum exists since MQTT 5.0.
#[actix_rt::test]
async fn a_client_of_mqtt_3_may_have_more_than_a_receive_maximum_of_messages_under_way() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_in(V3_1_1, "meter")).await;
    for id in 1..=1500 {
        client.publish(publish_2(id, "t", "x")).await;
    }
    for id in 1..=1500 {
        client.expect(pubrec(id, ReasonCode::Success)).await;
    }
}
