//! Rules of one identity, which the policy asks before its own: of connected and of absent clients.

use std::sync::Arc;

use async_trait::async_trait;
use hearthmq::{
    auth::{
        Attributes, AuthenticationError, Authenticator, Credentials, FilePolicy, Identity,
        OwnRules, Rule, own_rules,
    },
    mqtt::{Connect, ReasonCode},
};
use serde_json::{Value, json};

use crate::support::{Client, disk::Disk, packets::*, world_with};

/// Gives each client the rules that its user name is.
struct ByName;

#[async_trait]
impl Authenticator for ByName {
    async fn authenticate(&self, shown: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        let name = shown.username.unwrap_or("null");
        let rules: Value = serde_json::from_str(name).unwrap();
        let rules = own_rules(&rules).unwrap();
        let attributes = Attributes::new([("id", "c")]).unwrap();
        let username = Some(name.into());
        Ok(Identity { username, rules, attributes, ..Identity::default() })
    }
}

/// Allows everything but to publish to `a/#`.
fn policy() -> Arc<FilePolicy> {
    let rules = json!([
        {"effect": "deny", "actions": ["publish"], "topics": ["a/#"]},
        {"effect": "allow"},
    ]);
    Arc::new(FilePolicy::new(serde_json::from_value::<Vec<Rule>>(rules).unwrap()))
}

#[actix_rt::test]
async fn own_rules_decide_before_those_of_the_policy() {
    let broker = world_with(|builder| builder.authenticator(ByName).authorizer(policy())).await;
    let rules = json!([
        {"priority": 2, "effect": "deny", "actions": ["publish"], "topics": ["b"]},
        {"priority": 1, "effect": "allow", "actions": ["publish"], "topics": ["a/${clientId}"]},
    ]);
    let rules = rules.to_string();
    let as_user = |id| Connect { username: Some(&rules), ..connect(id) };
    let mut client = Client::connected(&broker, as_user("c")).await;
    for (topic, reason) in [
        ("a/c", ReasonCode::NoMatchingSubscribers),
        ("a/d", ReasonCode::NotAuthorized), // by the policy
        ("b", ReasonCode::NotAuthorized),
        ("else", ReasonCode::NoMatchingSubscribers),
    ] {
        client.publish(publish_1(1, topic, "x")).await;
        client.expect_taken(QOS_1, 1, reason).await;
    }
}

/// The policy alone would let nobody in, so that the session would collect nothing.
#[actix_rt::test]
async fn own_rules_of_an_absent_client_outlive_the_broker() {
    let disk = Disk::default();
    let rules = json!([{"effect": "allow", "clients": ["${attributes.id}"]}]).to_string();
    let power = || {
        let nothing = Arc::new(FilePolicy::new(Vec::new()));
        disk.power_with(|builder| builder.authenticator(ByName).authorizer(nothing))
    };
    let lasting = || Connect { username: Some(&rules), ..connect_lasting("c", V5) };
    let first = power().await;
    let mut client = Client::connected(&first.broker, lasting()).await;
    client.subscribe("open", QOS_1).await;
    client.vanish().await;
    first.crash();
    let second = power().await;
    second.broker.publish("open", b"waits", QOS_1, false).await.unwrap();
    let mut client = Client::new(&second.broker, V5);
    assert!(client.connect(lasting()).await, "the session is there");
    assert_eq!(client.receive_payload().await, "waits");
}

#[test]
fn rules_that_cannot_be_read_deny() {
    use hearthmq::auth::{AccessRequest, Action, Authorizer as _, Decision};
    let decide = |rules| {
        let identity = Identity { rules, ..Identity::default() };
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let (client_id, listener, action) = ("c", "in-process", Action::Connect);
        let request = AccessRequest { identity: &identity, client_id, peer, listener, action };
        policy().authorize(&request)
    };
    assert_eq!(decide(OwnRules::default()), Decision::Allow);
    assert_eq!(decide(OwnRules::from_json("[]")), Decision::Allow);
    assert_eq!(decide(OwnRules::from_json(r#"[{"effect":"later"}]"#)), Decision::Deny);
    assert_eq!(decide(OwnRules::from_json(&"x".repeat(20_000))), Decision::Deny);
}
