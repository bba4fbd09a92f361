//! Rules of one identity, which the policy asks before its own: of connected and of absent clients.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use hearthmq::{
    auth::{
        Attributes, AuthenticationError, Authenticator, Credentials, FilePolicy, Identity,
        OwnRules, Rule, own_rules,
    },
    mqtt::{Connect, ReasonCode, Timestamp},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Client, disk::Disk, packets::*, pass, secs, world_with};

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

/// Gives each client the rules that its user name is, for ten minutes of virtual time.
#[derive(Clone, Copy)]
struct ForTenMinutes {
    start: Instant,
    started: Timestamp,
}

#[async_trait]
impl Authenticator for ForTenMinutes {
    async fn authenticate(&self, shown: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        let identity = ByName.authenticate(shown).await?;
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap();
        let expires_at = Some(self.started.plus_millis(passed + 600_000));
        Ok(Identity { expires_at, ..identity })
    }
}

/// The subscriptions stay: a client that is back collects all again.
#[actix_rt::test]
async fn an_absent_client_collects_nothing_that_only_expired_rules_allowed() {
    let disk = Disk::default();
    let rules = json!([
        {"effect": "deny", "actions": ["subscribe"], "topics": ["open/a/secret"]},
        {"effect": "allow"},
    ]);
    let rules = rules.to_string();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let started = Timestamp(u64::try_from(since.as_millis()).unwrap());
    let source = ForTenMinutes { start: Instant::now(), started };
    let power = || {
        let open = json!([{"effect": "allow", "actions": ["subscribe"], "topics": ["open/#"]}]);
        let open = FilePolicy::new(serde_json::from_value::<Vec<Rule>>(open).unwrap());
        disk.power_with(|builder| builder.authenticator(source).authorizer(open))
    };
    let lasting = || Connect { username: Some(&rules), ..connect_lasting("c", V5) };
    let publish = async |broker: &hearthmq::Broker, text: &str| {
        for topic in ["open/a", "own/a", "shared/a"] {
            let payload = format!("{text} {topic}");
            broker.publish(topic, payload.as_bytes(), QOS_1, false).await.unwrap();
        }
    };
    let first = power().await;
    let mut client = Client::connected(&first.broker, lasting()).await;
    for filter in ["open/+", "own/#", "$share/g/shared/#"] {
        client.subscribe(filter, QOS_1).await;
    }
    client.vanish().await;
    publish(&first.broker, "before").await;
    pass(secs(601)).await;
    publish(&first.broker, "after").await;
    first.crash();
    // The record of the session has the expiry.
    let second = power().await;
    publish(&second.broker, "later").await;
    let mut client = Client::new(&second.broker, V5);
    assert!(client.connect(lasting()).await, "the session is there");
    let mut received = Vec::new();
    for _ in 0..5 {
        received.push(client.receive_payload().await);
    }
    received.sort_unstable();
    let expected =
        ["after open/a", "before open/a", "before own/a", "before shared/a", "later open/a"];
    assert_eq!(received, expected);
    publish(&second.broker, "now").await;
    let mut received = Vec::new();
    for _ in 0..3 {
        received.push(client.receive_payload().await);
    }
    received.sort_unstable();
    assert_eq!(received, ["now open/a", "now own/a", "now shared/a"]);
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
