//! Withdrawn permissions: after permissions or accounts have changed, all sessions are checked, and
//! what is no longer allowed ends, for online and offline clients.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use hearthmq::{
    Broker,
    auth::{
        AccessRequest, Action, AllowAll, AuthenticationError, Authenticator, Authorizer,
        Credentials, Decision, Identity, Standing,
    },
    mqtt::{Connect, LastWill, Packet, ReasonCode},
};
use serde_json::Value;

use crate::support::{Client, packets::*, pass, secs, world_with};

/// Allows everything except what is listed here: `connect c`, `subscribe t/#` or `publish t`.
#[derive(Clone, Default)]
pub(crate) struct Denied(Arc<Mutex<HashSet<String>>>);

impl Denied {
    pub(crate) fn deny(&self, what: &str) {
        self.0.lock().unwrap().insert(what.to_owned());
    }

    pub(crate) fn allow(&self, what: &str) {
        assert!(self.0.lock().unwrap().remove(what));
    }
}

impl Authorizer for Denied {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let asked = match request.action {
            Action::Connect => format!("connect {}", request.client_id),
            Action::Publish { topic, .. } => format!("publish {topic}"),
            Action::Subscribe { filter, .. } => format!("subscribe {filter}"),
            Action::Observe | Action::Control | Action::Administer => return Decision::Deny,
            _ => return Decision::Deny, // an action of a later version
        };
        if self.0.lock().unwrap().contains(&asked) { Decision::Deny } else { Decision::Allow }
    }
}

/// Admits every client, and later returns the standings that it is given.
#[derive(Clone, Default)]
pub(crate) struct Desk {
    standings: Arc<Mutex<HashMap<String, Standing>>>,
    generation: Arc<AtomicU64>,
}

impl Desk {
    pub(crate) fn now(&self, user: &str, standing: Standing) {
        self.standings.lock().unwrap().insert(user.to_owned(), standing);
        self.generation.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Authenticator for Desk {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        AllowAll.authenticate(credentials).await
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        let standings = self.standings.lock().unwrap();
        let standing = identity.username.as_deref().and_then(|user| standings.get(user).copied());
        match standing {
            // A client that has logged in since has presented the new credentials.
            Some(Standing::Changed) if since == self.generation() => Standing::Good,
            standing => standing.unwrap_or_default(),
        }
    }
}

struct World {
    broker: Broker,
    denied: Denied,
    desk: Desk,
    watcher: Client,
}

async fn world() -> World {
    let (denied, desk) = (Denied::default(), Desk::default());
    let (authorizer, authenticator) = (denied.clone(), desk.clone());
    let broker =
        world_with(|builder| builder.authorizer(authorizer).authenticator(authenticator)).await;
    let mut watcher = Client::connected(&broker, connect("watcher")).await;
    watcher.subscribe("$events/session_unsubscribed", QOS_0).await;
    World { broker, denied, desk, watcher }
}

impl World {
    /// Expects an event that exactly these subscriptions have ended.
    async fn expect_ended(&mut self, client_id: &str, filters: &[&str]) {
        let mut ended = HashSet::new();
        for _ in filters {
            let payload = self.watcher.receive_payload().await;
            let event: Value = serde_json::from_str(&payload).unwrap();
            assert_eq!(event["clientid"], client_id);
            ended.insert(event["topic"].as_str().unwrap().to_owned());
        }
        assert_eq!(ended, filters.iter().map(|&filter| filter.to_owned()).collect());
        self.watcher.expect_nothing().await;
    }

    async fn queued(&self, client_id: &str) -> usize {
        self.broker.client(client_id).await.unwrap().unwrap().queued
    }

    async fn say(&self, topic: &str, payload: &str) {
        self.broker.publish(topic, payload.as_bytes(), QOS_1, false).await.unwrap();
    }
}

pub(crate) fn connect_as<'a>(user: &'a str, connect: Connect<'a>) -> Connect<'a> {
    Connect { username: Some(user), ..connect }
}

pub(crate) fn with_will<'a>(connect: Connect<'a>, will: LastWill<'a>) -> Connect<'a> {
    Connect { will: Some(will), ..connect }
}

pub(crate) async fn take_payload(client: &mut Client, packet_id: u16, expected: &str) {
    assert_eq!(client.receive_payload().await, expected);
    client.take(QOS_1, packet_id).await;
}

#[actix_rt::test]
async fn a_live_subscription_that_is_no_longer_allowed_ends() {
    let mut world = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&world.broker, connect_in(version, "c")).await;
        client.subscribe("secret/#", QOS_1).await;
        client.subscribe("open/#", QOS_1).await;
        world.denied.deny("subscribe secret/#");
        world.broker.recheck().await;
        world.expect_ended("c", &["secret/#"]).await;
        world.say("secret/x", "1").await;
        world.say("open/x", "2").await;
        take_payload(&mut client, 1, "2").await;
        client.expect_nothing().await;
        world.denied.allow("subscribe secret/#");
        client.leave().await;
    }
}

/// Messages that were sent belong to the client. Queued ones are dropped, unless another
/// subscription matches them too.
#[actix_rt::test]
async fn what_waits_under_a_subscription_that_ends_is_dropped() {
    let mut world = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&world.broker, connect_lasting("c", version)).await;
        for filter in ["secret/#", "open/#", "secret/shown"] {
            client.subscribe(filter, QOS_1).await;
        }
        client.vanish().await;
        for topic in ["secret/x", "open/x", "secret/shown", "secret/y"] {
            world.say(topic, topic).await;
        }
        world.denied.deny("subscribe secret/#");
        world.broker.recheck().await;
        world.expect_ended("c", &["secret/#"]).await;
        world.say("secret/z", "secret/z").await;
        let connect = connect_lasting("c", version);
        let (mut client, present) = Client::connected_with(&world.broker, connect).await;
        assert!(present);
        take_payload(&mut client, 1, "open/x").await;
        take_payload(&mut client, 2, "secret/shown").await;
        client.expect_nothing().await;
        world.denied.allow("subscribe secret/#");
        Client::connected(&world.broker, connect_in(version, "c")).await.vanish().await;
    }
}

/// The same for an online client that has not acknowledged what it was sent.
#[actix_rt::test]
async fn what_waits_for_a_slow_client_is_dropped_as_well() {
    let world = world().await;
    let mut packet = connect("c");
    packet.properties.receive_maximum = Some(1);
    let mut client = Client::connected(&world.broker, packet).await;
    client.subscribe("secret/#", QOS_1).await;
    client.subscribe("open/#", QOS_1).await;
    for topic in ["secret/1", "secret/2", "open/3", "secret/4"] {
        world.say(topic, topic).await;
    }
    assert_eq!(client.receive_payload().await, "secret/1");
    world.denied.deny("subscribe secret/#");
    world.broker.recheck().await;
    assert_eq!(world.queued("c").await, 1);
    client.take(QOS_1, 1).await;
    take_payload(&mut client, 2, "open/3").await;
    client.expect_nothing().await;
}

#[actix_rt::test]
async fn a_client_that_may_no_longer_connect_is_disconnected_and_its_session_rests() {
    let world = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&world.broker, connect_lasting("c", version)).await;
        client.subscribe("t", QOS_1).await;
        world.denied.deny("connect c");
        world.broker.recheck().await;
        client.expect_disconnect(ReasonCode::NotAuthorized).await;
        world.say("t", "lost").await;
        assert_eq!(world.queued("c").await, 0);
        let mut refused = Client::new(&world.broker, version);
        refused.send(Packet::Connect(Box::new(connect_lasting("c", version)))).await;
        refused.expect_refused(ReasonCode::NotAuthorized).await;
        // It may connect again: messages published from then on are queued.
        world.denied.allow("connect c");
        world.broker.recheck().await;
        world.say("t", "kept").await;
        let connect = connect_lasting("c", version);
        let (mut client, present) = Client::connected_with(&world.broker, connect).await;
        assert!(present);
        take_payload(&mut client, 1, "kept").await;
        client.expect_nothing().await;
        Client::connected(&world.broker, connect_in(version, "c")).await.vanish().await;
    }
}

#[actix_rt::test]
async fn the_session_of_a_client_that_is_away_and_may_not_connect_collects_nothing() {
    let world = world().await;
    let mut client = Client::connected(&world.broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    client.vanish().await;
    world.say("t", "1").await;
    world.denied.deny("connect c");
    world.broker.recheck().await;
    world.say("t", "2").await;
    assert_eq!(world.queued("c").await, 1);
    world.denied.allow("connect c");
    // It reconnects before the next check.
    let mut client = Client::connected(&world.broker, connect_lasting("c", V5)).await;
    take_payload(&mut client, 1, "1").await;
    world.say("t", "3").await;
    take_payload(&mut client, 2, "3").await;
    client.expect_nothing().await;
}

#[actix_rt::test]
async fn a_client_whose_account_is_gone_loses_connection_and_session() {
    let world = world().await;
    for version in VERSIONS {
        for is_away in [false, true] {
            let connect = || connect_as("ann", connect_lasting("c", version));
            let mut client = Client::connected(&world.broker, connect()).await;
            client.subscribe("t", QOS_1).await;
            let away = if is_away {
                client.vanish().await;
                None
            } else {
                Some(client)
            };
            world.desk.now("ann", Standing::Gone);
            world.broker.recheck().await;
            if let Some(mut client) = away {
                client.expect_disconnect(ReasonCode::NotAuthorized).await;
            }
            assert!(world.broker.client("c").await.unwrap().is_none());
            world.desk.now("ann", Standing::Good);
        }
    }
}

#[actix_rt::test]
async fn a_client_whose_account_is_disabled_is_disconnected_and_collects_nothing() {
    let world = world().await;
    let connect = || connect_as("ann", connect_lasting("c", V5));
    let mut client = Client::connected(&world.broker, connect()).await;
    client.subscribe("t", QOS_1).await;
    world.desk.now("ann", Standing::Suspended);
    world.broker.recheck().await;
    client.expect_disconnect(ReasonCode::NotAuthorized).await;
    world.say("t", "lost").await;
    world.desk.now("ann", Standing::Good);
    let (mut client, present) = Client::connected_with(&world.broker, connect()).await;
    assert!(present);
    world.say("t", "kept").await;
    take_payload(&mut client, 1, "kept").await;
}

#[actix_rt::test]
async fn other_credentials_end_the_connection_and_the_session_waits_for_the_new_ones() {
    let world = world().await;
    let connect = || connect_as("ann", connect_lasting("c", V5));
    let mut client = Client::connected(&world.broker, connect()).await;
    client.subscribe("t", QOS_1).await;
    world.desk.now("ann", Standing::Changed);
    world.broker.recheck().await;
    client.expect_disconnect(ReasonCode::NotAuthorized).await;
    world.say("t", "kept").await;
    let mut client = Client::connected(&world.broker, connect()).await;
    take_payload(&mut client, 1, "kept").await;
    world.broker.recheck().await;
    client.ping().await; // it has presented the new ones
}

#[actix_rt::test]
async fn a_will_is_judged_again_when_it_is_due() {
    let mut world = world().await;
    world.watcher.subscribe("will/#", QOS_0).await;
    for version in VERSIONS {
        for reason in ["publish will/c", "connect c"] {
            let packet = with_will(connect_in(version, "c"), will("will/c", "gone"));
            let client = Client::connected(&world.broker, packet).await;
            world.denied.deny(reason);
            client.vanish().await;
            if reason == "connect c" {
                // Its topic is still permitted.
                assert_eq!(world.watcher.receive_payload().await, "gone");
            }
            world.watcher.expect_nothing().await;
            world.denied.allow(reason);
        }
        let packet = with_will(connect_in(version, "c"), will("will/c", "gone"));
        let mut client = Client::connected(&world.broker, connect_as("ann", packet)).await;
        world.desk.now("ann", Standing::Gone);
        world.broker.recheck().await;
        client.expect_disconnect(ReasonCode::NotAuthorized).await;
        world.watcher.expect_nothing().await;
        world.desk.now("ann", Standing::Good);
    }
    // A delayed Will.
    let mut last_will = will("will/c", "late");
    last_will.properties.will_delay_interval = Some(60);
    let packet = with_will(connect_lasting("c", V5), last_will);
    Client::connected(&world.broker, packet).await.vanish().await;
    pass(secs(30)).await;
    world.denied.deny("publish will/c");
    pass(secs(31)).await;
    world.watcher.expect_nothing().await;
}

#[actix_rt::test]
async fn what_happened_between_login_and_session_is_not_overlooked() {
    /// Answers slowly; the rules change meanwhile.
    struct Slow(Denied, Desk);

    #[async_trait]
    impl Authenticator for Slow {
        async fn authenticate(
            &self,
            credentials: Credentials<'_>,
        ) -> Result<Identity, AuthenticationError> {
            let identity = self.1.authenticate(credentials).await;
            if credentials.username == Some("ann") {
                self.1.now("ann", Standing::Gone);
            }
            identity
        }

        fn generation(&self) -> u64 {
            self.1.generation()
        }

        fn standing(&self, identity: &Identity, since: u64) -> Standing {
            self.1.standing(identity, since)
        }
    }

    let slow = Slow(Denied::default(), Desk::default());
    let rules = slow.0.clone();
    let broker = world_with(|builder| builder.authorizer(rules).authenticator(slow)).await;
    for version in VERSIONS {
        let mut client = Client::new(&broker, version);
        let packet = connect_as("ann", connect_in(version, "c"));
        client.send(Packet::Connect(Box::new(packet))).await;
        client.expect_refused(ReasonCode::NotAuthorized).await;
    }
}

/// More sessions than are checked in one turn, with more subscriptions than fit into one.
#[actix_rt::test]
async fn all_sessions_and_all_subscriptions_are_gone_along() {
    let world = world().await;
    let mut clients = Vec::new();
    for number in 0..600 {
        let client_id = format!("c{number}");
        let mut client = Client::connected(&world.broker, connect(&client_id)).await;
        client.subscribe("secret/#", QOS_0).await;
        clients.push(client);
    }
    let mut hub = Client::connected(&world.broker, connect("hub")).await;
    for number in 0..600 {
        hub.subscribe(&format!("hub/{number}"), QOS_0).await;
        if number % 2 == 0 {
            world.denied.deny(&format!("subscribe hub/{number}"));
        }
    }
    world.denied.deny("subscribe secret/#");
    let again = async { (world.broker.recheck().await, world.broker.recheck().await) };
    futures_util::future::join(world.broker.recheck(), again).await;
    assert_eq!(world.broker.client("hub").await.unwrap().unwrap().subscriptions, 300);
    for number in 0..600 {
        let client = world.broker.client(&format!("c{number}")).await.unwrap().unwrap();
        assert_eq!(client.subscriptions, 0);
    }
}
