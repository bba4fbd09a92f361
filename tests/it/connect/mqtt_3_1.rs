//! Differences in MQTT 3.1, which IBM specified in 2010.

use hearthmq::{
    auth::{AccessRequest, Action},
    mqtt::{Packet, ReasonCode},
};

use crate::support::{Client, packets::*, refusing, world, world_where, world_within};

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

/// Returns whether it is a subscription to `secret`.
fn is_secret(request: &AccessRequest<'_>) -> bool {
    matches!(request.action, Action::Subscribe { filter: "secret", .. })
}

/// SUBACK has no failure code: it grants the requested QoS, as other brokers do, and no message
/// comes.
#[actix_rt::test]
async fn a_refused_subscription_is_answered_as_if_it_were_granted() {
    let broker = world_where(refusing(is_secret)).await;
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
