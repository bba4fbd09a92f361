//! Credentials that expire while their client is connected, or while it is away.

use std::{
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use hearthmq::{
    Broker,
    auth::{
        AuthenticationError, Authenticator, Credentials, EnhancedAuthenticator, Exchange,
        ExchangeStart, Identity, Step,
    },
    hooks::{ClientDisconnected, DisconnectReason, Hooks},
    mqtt::{Connect, Packet, ReasonCode, Timestamp},
};
use tokio::time::Instant;

use crate::{
    riddle::{auth_by, connect_by},
    support::{Client, packets::*, pass, secs, world_with},
};

/// Passes that last as many seconds as the password or Authentication Data says; none without it.
#[derive(Clone)]
struct Passes {
    start: Instant,
    started: Timestamp,
}

const PASSES: &str = "PASSES";

impl Passes {
    fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self { start: Instant::now(), started: Timestamp(since.as_millis() as u64) }
    }

    fn identity(&self, secs: Option<&[u8]>) -> Identity {
        let secs = secs.map(|secs| str::from_utf8(secs).unwrap().parse::<u64>().unwrap());
        let now = self.started.plus_millis(self.start.elapsed().as_millis() as u64);
        let expires_at = secs.map(|secs| now.plus_secs(secs));
        Identity { username: Some("ann".into()), expires_at, ..Identity::default() }
    }
}

#[async_trait]
impl Authenticator for Passes {
    async fn authenticate(&self, shown: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        Ok(self.identity(shown.password))
    }
}

impl EnhancedAuthenticator for Passes {
    fn knows(&self, method: &str) -> bool {
        method == PASSES
    }

    fn begin(&self, _: ExchangeStart<'_>) -> Box<dyn Exchange> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Exchange for Passes {
    async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError> {
        Ok(Step::Done { identity: self.identity(data), data: None })
    }
}

/// Keeps the reasons of all disconnects.
#[derive(Clone, Default)]
struct Reasons(Arc<Mutex<Vec<DisconnectReason>>>);

impl Hooks for Reasons {
    fn client_disconnected(&self, event: &ClientDisconnected) {
        self.0.lock().unwrap().push(event.reason);
    }
}

async fn world() -> (Broker, Reasons) {
    let (passes, reasons) = (Passes::new(), Reasons::default());
    let hooks = reasons.clone();
    let broker = world_with(|builder| {
        builder.authenticator(passes.clone()).enhanced_authenticator(passes).hooks(hooks)
    });
    (broker.await, reasons)
}

fn for_secs<'a>(connect: Connect<'a>, secs: &'a str) -> Connect<'a> {
    Connect { username: Some("ann"), password: Some(secs.as_bytes()), ..connect }
}

#[actix_rt::test]
async fn a_connection_ends_when_its_credentials_expire_and_its_session_stays() {
    let (broker, reasons) = world().await;
    for version in VERSIONS {
        let client_id = format!("{version:?}");
        let mut other = Client::connected(&broker, connect("other")).await;
        other.subscribe("will", QOS_0).await;
        let lasting = || connect_lasting(&client_id, version);
        let first = Connect { will: Some(will("will", "gone")), ..for_secs(lasting(), "30") };
        let mut client = Client::connected(&broker, first).await;
        client.expect_nothing_for(secs(29)).await;
        client.expect_disconnect(ReasonCode::NotAuthorized).await;
        other.expect_publish(publish("will", "gone")).await;
        let ends = std::mem::take(&mut *reasons.0.lock().unwrap());
        assert_eq!(ends, [DisconnectReason::AuthenticationExpired]);
        let again = for_secs(lasting(), "30");
        let (client, session_present) = Client::connected_with(&broker, again).await;
        assert!(session_present, "it resumes its session");
        client.leave().await;
        other.leave().await;
        reasons.0.lock().unwrap().clear();
    }
}

#[actix_rt::test]
async fn credentials_that_have_expired_let_nobody_in() {
    let (broker, _) = world().await;
    for version in VERSIONS {
        let mut client = Client::new(&broker, version);
        let connect = for_secs(connect_in(version, "c"), "0");
        client.send(Packet::Connect(Box::new(connect))).await;
        client.expect_refused(ReasonCode::NotAuthorized).await;
    }
}

#[actix_rt::test]
async fn a_client_that_authenticates_again_stays_until_its_new_credentials_expire() {
    let (broker, reasons) = world().await;
    let first = connect_by(connect("c"), PASSES, Some(b"30"));
    let mut client = Client::connected(&broker, first).await;
    let again =
        |secs: &'static str| auth_by(ReasonCode::ReAuthenticate, PASSES, Some(secs.as_bytes()));
    for _ in 0..3 {
        client.expect_nothing_for(secs(20)).await;
        client.send(again("30")).await;
        client.expect(auth_by(ReasonCode::Success, PASSES, None)).await;
    }
    // A shorter time counts as well.
    client.send(again("10")).await;
    client.expect(auth_by(ReasonCode::Success, PASSES, None)).await;
    client.expect_nothing_for(secs(9)).await;
    client.expect_disconnect(ReasonCode::NotAuthorized).await;

    let connect = connect_by(connect("d"), PASSES, Some(b"30"));
    let mut late = Client::connected(&broker, connect).await;
    late.send(again("0")).await;
    late.expect_disconnect(ReasonCode::NotAuthorized).await;
    assert_eq!(*reasons.0.lock().unwrap(), [DisconnectReason::AuthenticationExpired; 2]);
}

#[actix_rt::test]
async fn credentials_of_a_former_connection_do_not_end_the_present_one() {
    let (broker, reasons) = world().await;
    let mut former = Client::connected(&broker, for_secs(connect("c"), "30")).await;
    let without_end = Connect { username: Some("ann"), ..connect("c") };
    let mut client = Client::connected(&broker, without_end).await;
    former.expect_disconnect(ReasonCode::SessionTakenOver).await;
    client.expect_nothing_for(secs(60)).await;
    assert_eq!(*reasons.0.lock().unwrap(), [DisconnectReason::Takeovered]);
}

#[actix_rt::test]
async fn messages_wait_for_an_absent_client_whatever_its_credentials_were() {
    let (broker, _) = world().await;
    let connect = || connect_lasting("c", V5);
    let mut client = Client::connected(&broker, for_secs(connect(), "30")).await;
    client.subscribe("t", QOS_1).await;
    client.vanish().await;
    pass(secs(60)).await;
    broker.publish("t", b"waits", QOS_1, false).await.unwrap();
    let mut client = Client::new(&broker, V5);
    assert!(client.connect(for_secs(connect(), "30")).await);
    assert_eq!(client.receive_payload().await, "waits");
}
