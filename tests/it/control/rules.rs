//! Rules in the store: they hold when the call returns, for live clients too, and after a restart.

use hearthmq::{
    auth::FilePolicy,
    control::{AccessControl as _, AccessError, PutRule, RemoveRule},
    mqtt::{Packet, ReasonCode},
    records::{Put, RecordKey},
};

use crate::support::{Client, disk::Disk, packets::*, pass, secs, world, world_where};

/// Allows everything, by a rule of the application with the default priority.
fn policy() -> FilePolicy {
    FilePolicy::new(vec![serde_json::from_str(r#"{"effect": "allow"}"#).unwrap()])
}

fn rule(id: &str, json: &str) -> PutRule {
    PutRule::new(json).with_id(id)
}

#[actix_rt::test]
async fn a_rule_ends_what_it_denies_and_its_removal_allows_it_again() {
    let broker = world_where(policy()).await;
    let mut ann = Client::connected(&broker, connect("ann")).await;
    ann.subscribe("a/#", QOS_0).await;
    ann.subscribe("b", QOS_0).await;
    let mut ben = Client::connected(&broker, connect("ben")).await;

    let deny = r#"{"effect":"deny","priority":1,"actions":["subscribe"],"topics":["a/secret"]}"#;
    assert_eq!(broker.put_rule(rule("s", deny)).await.unwrap().sessions_touched, 1);
    broker.publish("a/secret", b"x", QOS_0, false).await.unwrap();
    broker.publish("b", b"y", QOS_0, false).await.unwrap();
    ann.expect_publish(publish("b", "y")).await;

    let deny = r#"{"effect":"deny","priority":1,"actions":["connect"],"clients":["b*"]}"#;
    assert_eq!(broker.put_rule(rule("c", deny)).await.unwrap().sessions_touched, 1);
    ben.expect_disconnect(ReasonCode::NotAuthorized).await;
    broker.remove_rule(RemoveRule::new("c")).await.unwrap();
    Client::connected(&broker, connect("ben")).await;
    let gone = broker.remove_rule(RemoveRule::new("c")).await;
    assert_eq!(gone, Err(AccessError::NotFound));
}

/// What only a rule of the store allowed ends with it.
#[actix_rt::test]
async fn the_removal_of_a_rule_that_allows_ends_what_it_allowed() {
    let broker = world_where(FilePolicy::new(Vec::new())).await;
    let allow = r#"{"effect":"allow","clients":["b*"]}"#;
    broker.put_rule(rule("b", allow)).await.unwrap();
    let allow = r#"{"effect":"allow","clients":["*"],"actions":["connect"]}"#;
    broker.put_rule(rule("all", allow)).await.unwrap();
    let mut ben = Client::connected(&broker, connect("ben")).await;
    ben.subscribe("a", QOS_0).await;
    let mut ann = Client::connected(&broker, connect("ann")).await;
    let removed = broker.remove_rule(RemoveRule::new("b")).await.unwrap();
    assert_eq!(removed.sessions_touched, 1, "the subscription has ended");
    broker.publish("a", b"x", QOS_0, false).await.unwrap();
    ben.ping().await;
    let removed = broker.remove_rule(RemoveRule::new("all")).await.unwrap();
    assert_eq!(removed.sessions_touched, 2);
    for client in [&mut ann, &mut ben] {
        client.expect_disconnect(ReasonCode::NotAuthorized).await;
    }
}

#[actix_rt::test]
async fn rules_of_the_store_hold_before_the_first_client_of_a_later_run() {
    let disk = Disk::default();
    let power = || disk.power_with(|builder| builder.authorizer(policy()));
    let first = power().await;
    let deny = r#"{"effect":"deny","priority":1,"actions":["connect"],"clients":["b*"]}"#;
    first.broker.put_rule(rule("c", deny)).await.unwrap();
    first.crash();
    let second = power().await;
    let mut ben = Client::new(&second.broker, V5);
    ben.send(Packet::Connect(Box::new(connect("ben")))).await;
    ben.expect_refused(ReasonCode::NotAuthorized).await;
    let rules = second.broker.list_rules().await.unwrap();
    assert_eq!((rules.len(), &*rules[0].id, rules[0].priority), (1, "c", 1));
}

/// As an import or another node does it.
#[actix_rt::test]
async fn a_rule_that_comes_by_the_records_holds_as_well() {
    let broker = world_where(policy()).await;
    let mut ben = Client::connected(&broker, connect("ben")).await;
    let name = |key: &str| RecordKey::new("rules", key).unwrap();
    let value = r#"{"rule":{"effect":"deny","priority":1,"clients":["b*"]},"at":1}"#;
    broker.records().put(Put::new(name("x"), value)).await.unwrap();
    broker.records().put(Put::new(name("broken"), r#"{"rule":{"effect":"?"}}"#)).await.unwrap();
    pass(secs(1)).await;
    ben.expect_disconnect(ReasonCode::NotAuthorized).await;
}

#[actix_rt::test]
async fn an_authorizer_of_the_application_takes_no_rules() {
    let broker = world().await;
    let refused = broker.put_rule(PutRule::new(r#"{"effect":"deny"}"#)).await;
    assert_eq!(refused, Err(AccessError::NotSupported));
}
