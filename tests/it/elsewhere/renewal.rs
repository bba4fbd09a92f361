//! Identities that are renewed while their client stays connected.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use hearthmq::{
    Broker,
    auth::{
        AuthenticationError, Authenticator, Credentials, FilePolicy, Identity, Renew, Renewal,
        Rule, own_rules,
    },
    mqtt::{Packet, ProtocolVersion, ReasonCode, Timestamp},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Client, packets::*, secs, world_with};

/// Answers with the next of these, each for 30 seconds and due for renewal after 20.
#[derive(Clone)]
struct Service(Arc<Answers>);

struct Answers {
    start: Instant,
    started: Timestamp,
    next: Mutex<VecDeque<Result<Value, AuthenticationError>>>,
}

impl Service {
    fn new(answers: impl IntoIterator<Item = Result<Value, AuthenticationError>>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let started = Timestamp(since.as_millis() as u64);
        let next = Mutex::new(answers.into_iter().collect());
        Self(Arc::new(Answers { start: Instant::now(), started, next }))
    }

    fn ask(&self) -> Result<Identity, AuthenticationError> {
        let rules = self.0.next.lock().unwrap().pop_front().expect("it is not asked again")?;
        let now = self.0.started.plus_millis(self.0.start.elapsed().as_millis() as u64);
        Ok(Identity {
            username: Some("ann".into()),
            rules: own_rules(&rules).unwrap(),
            expires_at: Some(now.plus_secs(30)),
            renewal: Renewal::new(now.plus_secs(20), Arc::new(self.clone())),
            ..Identity::default()
        })
    }

    fn is_exhausted(&self) -> bool {
        self.0.next.lock().unwrap().is_empty()
    }
}

#[async_trait]
impl Authenticator for Service {
    async fn authenticate(&self, _: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        self.ask()
    }
}

#[async_trait]
impl Renew for Service {
    async fn renew(&self) -> Result<Identity, AuthenticationError> {
        self.ask()
    }
}

fn allowing(topic: &str) -> Result<Value, AuthenticationError> {
    Ok(json!([
        {"effect": "allow", "actions": ["connect"]},
        {"effect": "allow", "actions": ["publish", "subscribe"], "topics": [topic]},
    ]))
}

async fn client_of(service: &Service, version: ProtocolVersion) -> (Client, Broker) {
    let policy = Arc::new(FilePolicy::new(Vec::<Rule>::new()));
    let service = service.clone();
    let broker = world_with(|builder| builder.authenticator(service).authorizer(policy)).await;
    let client = Client::connected(&broker, connect_in(version, "c")).await;
    (client, broker)
}

async fn may_publish(client: &mut Client, topic: &str) -> bool {
    client.publish(publish_1(1, topic, "x")).await;
    client
        .receive(|packet| match packet {
            Packet::PubAck(answer) => answer.reason != ReasonCode::NotAuthorized,
            other => panic!("{other:?}"),
        })
        .await
}

#[actix_rt::test]
async fn a_client_stays_with_the_permissions_of_the_last_answer() {
    let service = Service::new([allowing("a"), allowing("b"), allowing("b")]);
    let (mut client, _broker) = client_of(&service, V5).await;
    assert!(may_publish(&mut client, "a").await);
    assert!(!may_publish(&mut client, "b").await);
    client.subscribe("a", QOS_0).await;
    client.expect_nothing_for(secs(21)).await;
    assert!(may_publish(&mut client, "b").await);
    assert!(!may_publish(&mut client, "a").await);
    client.expect_nothing_for(secs(25)).await;
    assert!(service.is_exhausted());
}

#[actix_rt::test]
async fn a_client_that_is_refused_now_is_disconnected() {
    for version in VERSIONS {
        let service = Service::new([allowing("a"), Err(AuthenticationError::BadCredentials)]);
        let (mut client, _broker) = client_of(&service, version).await;
        client.expect_nothing_for(secs(19)).await;
        client.expect_disconnect(ReasonCode::NotAuthorized).await;
    }
}

#[actix_rt::test]
async fn a_source_that_is_unavailable_is_asked_again_until_the_identity_expires() {
    let down = || Err(AuthenticationError::Unavailable);
    let service = Service::new([allowing("a"), down(), allowing("b"), down(), down()]);
    let (mut client, _broker) = client_of(&service, V5).await;
    client.expect_nothing_for(secs(26)).await; // asked after 20 s and 25 s
    assert!(may_publish(&mut client, "b").await);
    client.expect_nothing_for(secs(28)).await; // asked after 45 s and 50 s
    client.expect_disconnect(ReasonCode::NotAuthorized).await; // after 55 s
    assert!(service.is_exhausted());
}
