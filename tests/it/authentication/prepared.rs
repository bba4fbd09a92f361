//! An authorizer that loads the rules of a client before it decides about it.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hearthmq::{
    Broker,
    auth::{
        AccessRequest, Action, Authorizer, Decision, Preparation, PrepareError, PrepareRequest,
        Prepared,
    },
    metrics::ConnectRefusal,
    mqtt::{Packet, ProtocolVersion, ReasonCode},
};
use tokio::time::Instant;

use crate::{
    riddle::{Riddle, again, answer, question, riddled, settled},
    support::{Client, disk::Disk, packets::*, pass, refused, secs, world_with},
};

/// What the database does with a question.
#[derive(Clone, Copy)]
enum Mood {
    Answers,
    /// It answers after this time.
    Slow(Duration),
    Fails,
    /// It never answers.
    IsDown,
}

/// Topics that clients may use, in a database.
#[derive(Clone)]
struct Database(Arc<Contents>);

struct Contents {
    topics: Mutex<BTreeSet<String>>,
    mood: Mutex<Mood>,
    generation: AtomicU64,
    asked: AtomicUsize,
    /// Questions at the same time: now, and the most.
    under_way: AtomicUsize,
    most: AtomicUsize,
}

/// The topics as they were loaded.
struct Topics(BTreeSet<String>);

impl Database {
    fn with(topics: &[&str]) -> Self {
        let database = Self(Arc::new(Contents {
            topics: Mutex::default(),
            mood: Mutex::new(Mood::Answers),
            generation: AtomicU64::new(0),
            asked: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        }));
        database.set(topics);
        database
    }

    fn set(&self, topics: &[&str]) {
        *self.0.topics.lock().unwrap() = topics.iter().map(|topic| (*topic).to_owned()).collect();
        self.0.generation.fetch_add(1, Relaxed);
    }

    fn now(&self, mood: Mood) {
        *self.0.mood.lock().unwrap() = mood;
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Relaxed)
    }

    async fn load(&self) -> Result<Prepared, PrepareError> {
        let Contents { topics, mood, asked, under_way, most, .. } = &*self.0;
        asked.fetch_add(1, Relaxed);
        most.fetch_max(under_way.fetch_add(1, Relaxed) + 1, Relaxed);
        let mood = *mood.lock().unwrap();
        let loaded = Topics(topics.lock().unwrap().clone());
        match mood {
            Mood::Answers => {}
            Mood::Slow(time) => tokio::time::sleep(time).await,
            Mood::Fails => {
                under_way.fetch_sub(1, Relaxed);
                return Err(PrepareError::new("the database says no"));
            }
            Mood::IsDown => pending().await,
        }
        under_way.fetch_sub(1, Relaxed);
        Ok(Prepared::new(Arc::new(loaded)))
    }
}

impl Authorizer for Database {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let loaded = request.identity.prepared.get::<Topics>();
        let may = |topic| loaded.is_some_and(|Topics(all)| all.contains(topic));
        let is_allowed = match request.action {
            Action::Connect => loaded.is_some(),
            Action::Publish { topic, .. } => may(topic),
            Action::Subscribe { filter, .. } => may(filter),
            _ => false,
        };
        if is_allowed { Decision::Allow } else { Decision::Deny }
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Relaxed)
    }

    fn prepare<'a>(&'a self, request: PrepareRequest<'a>) -> Option<Preparation<'a>> {
        assert!(request.client_id.is_some());
        Some(Box::pin(self.load()))
    }
}

async fn world(topics: &[&str]) -> (Broker, Database) {
    let database = Database::with(topics);
    let rules = database.clone();
    let world = world_with(|builder| builder.authorizer(rules).enhanced_authenticator(Riddle));
    (world.await, database)
}

/// Returns a client that waits for longer than a CONNECT may take.
fn patient(broker: &Broker, version: ProtocolVersion) -> Client {
    let mut client = Client::new(broker, version);
    client.patience = secs(12);
    client
}

async fn subscriptions(broker: &Broker, client_id: &str) -> usize {
    broker.client(client_id).await.unwrap().unwrap().subscriptions
}

#[actix_rt::test]
async fn a_client_waits_for_its_rules_once_and_not_when_it_publishes() {
    let (broker, database) = world(&["a"]).await;
    database.now(Mood::Slow(secs(3)));
    let mut client = Client::new(&broker, V5);
    client.send(Packet::Connect(Box::new(connect("c")))).await;
    client.expect_nothing_for(secs(2)).await;
    client.expect_connected().await;
    for number in 1..=100 {
        client.publish(publish_1(number, "a", "x")).await;
        client.expect_taken(QOS_1, number, ReasonCode::NoMatchingSubscribers).await;
    }
    client.publish(publish_1(101, "b", "x")).await;
    client.expect_taken(QOS_1, 101, ReasonCode::NotAuthorized).await;
    assert_eq!(database.asked(), 1);
}

#[actix_rt::test]
async fn a_client_whose_rules_cannot_be_loaded_is_refused_for_now() {
    let (broker, database) = world(&["a"]).await;
    for (so_far, version) in [0, 3].into_iter().zip(VERSIONS) {
        for (mood, at_least) in [(Mood::Fails, 0), (Mood::IsDown, 9), (Mood::Slow(secs(11)), 9)] {
            database.now(mood);
            let start = Instant::now();
            let mut client = patient(&broker, version);
            client.send(Packet::Connect(Box::new(connect_in(version, "c")))).await;
            client.expect_refused(ReasonCode::ServerUnavailable).await;
            assert!(start.elapsed() >= secs(at_least) && start.elapsed() < secs(11));
        }
        assert_eq!(refused(&broker, ConnectRefusal::AuthorizerUnavailable), so_far + 3);
        database.now(Mood::Answers);
        Client::connected(&broker, connect_in(version, "c")).await;
    }
}

#[actix_rt::test]
async fn rules_that_change_while_they_are_loaded_let_nobody_in() {
    let (broker, database) = world(&["a"]).await;
    database.now(Mood::Slow(secs(3)));
    let mut client = patient(&broker, V5);
    client.send(Packet::Connect(Box::new(connect("c")))).await;
    pass(secs(1)).await;
    database.set(&[]);
    broker.recheck().await;
    client.expect_refused(ReasonCode::ServerUnavailable).await;
    database.now(Mood::Answers);
    Client::connected(&broker, connect("c")).await;
}

#[actix_rt::test]
async fn a_recheck_loads_rules_again_and_keeps_the_former_ones_if_it_cannot() {
    let (broker, database) = world(&["a", "b"]).await;
    let mut clients = Vec::new();
    for number in 0..200 {
        let mut client = Client::connected(&broker, connect(&format!("c{number}"))).await;
        client.subscribe("a", QOS_0).await;
        client.subscribe("b", QOS_0).await;
        clients.push(client);
    }
    database.set(&["b"]);
    for (mood, at_least) in [(Mood::Fails, 0), (Mood::IsDown, 10)] {
        database.now(mood);
        let start = Instant::now();
        broker.recheck().await;
        // A database that is down costs the time of one question, however many sessions there are.
        assert!(start.elapsed() >= secs(at_least) && start.elapsed() < secs(at_least + 1));
        for number in [0, 63, 64, 199] {
            assert_eq!(subscriptions(&broker, &format!("c{number}")).await, 2, "{number}");
        }
    }
    database.0.under_way.store(0, Relaxed);
    database.0.most.store(0, Relaxed);
    database.now(Mood::Slow(secs(1)));
    let asked = database.asked();
    broker.recheck().await;
    assert_eq!(database.asked() - asked, 200);
    assert_eq!(database.0.most.load(Relaxed), 64, "the others wait");
    for number in [0, 63, 64, 199] {
        assert_eq!(subscriptions(&broker, &format!("c{number}")).await, 1, "{number}");
    }
    clients[0].publish(publish_1(1, "a", "x")).await;
    clients[0].expect_taken(QOS_1, 1, ReasonCode::NotAuthorized).await;
}

#[actix_rt::test]
async fn a_client_that_authenticates_again_has_its_rules_loaded_again() {
    let (broker, database) = world(&["a"]).await;
    let mut client = Client::new(&broker, V5);
    client.send(Packet::Connect(Box::new(riddled(connect("c"))))).await;
    client.expect(question()).await;
    client.send(answer("I am ann")).await;
    client.expect_connected().await;
    client.publish(publish_1(1, "a", "x")).await;
    client.expect_taken(QOS_1, 1, ReasonCode::NoMatchingSubscribers).await;
    database.set(&["b"]);
    client.send(again("I am ann")).await;
    client.expect(settled()).await;
    for (packet_id, topic, reason) in
        [(2, "a", ReasonCode::NotAuthorized), (3, "b", ReasonCode::NoMatchingSubscribers)]
    {
        client.publish(publish_1(packet_id, topic, "x")).await;
        client.expect_taken(QOS_1, packet_id, reason).await;
    }
    database.now(Mood::Fails);
    client.send(again("I am ann")).await;
    client.expect_disconnect(ReasonCode::ServerBusy).await;
}

/// Connects clients with sessions that last and a subscription each, and ends the broker.
async fn leave_sessions(disk: &Disk, database: &Database, count: usize) {
    let first = disk.power_with(|builder| builder.authorizer(database.clone())).await;
    for number in 0..count {
        let client_id = format!("c{number}");
        let mut client = Client::connected(&first.broker, connect_lasting(&client_id, V5)).await;
        client.subscribe("a", QOS_1).await;
        client.vanish().await;
    }
    first.crash();
}

async fn waiting(broker: &Broker) -> usize {
    broker.publish("a", b"x", QOS_1, false).await.unwrap();
    broker.client("c0").await.unwrap().unwrap().queued
}

#[actix_rt::test]
async fn a_start_loads_the_rules_of_sessions_before_it_judges_them() {
    for (topics, subscribed) in [(&["a"][..], 1), (&[], 0)] {
        let (disk, database) = (Disk::default(), Database::with(&["a"]));
        leave_sessions(&disk, &database, 200).await;
        database.set(topics);
        database.now(Mood::Slow(secs(1)));
        database.0.most.store(0, Relaxed);
        let second = disk.power_with(|builder| builder.authorizer(database.clone())).await;
        assert_eq!(database.asked(), 400, "once at each login, and once at the start");
        assert_eq!(database.0.most.load(Relaxed), 64);
        assert_eq!(subscriptions(&second.broker, "c0").await, subscribed);
        assert_eq!(waiting(&second.broker).await, subscribed);
        second.crash();
    }
}

#[actix_rt::test]
async fn sessions_whose_rules_a_start_cannot_load_rest_until_it_can() {
    for (mood, at_least) in [(Mood::Fails, 0), (Mood::IsDown, 10)] {
        let (disk, database) = (Disk::default(), Database::with(&["a"]));
        leave_sessions(&disk, &database, 600).await;
        database.now(mood);
        let start = Instant::now();
        let second = disk.power_with(|builder| builder.authorizer(database.clone())).await;
        assert!(start.elapsed() >= secs(at_least) && start.elapsed() < secs(at_least + 1));
        assert_eq!(waiting(&second.broker).await, 0);
        broker_rechecks_in_vain(&second.broker, &database).await;
        database.now(Mood::Answers);
        second.broker.recheck().await;
        assert_eq!(waiting(&second.broker).await, 1);
        assert_eq!(subscriptions(&second.broker, "c599").await, 1);
        // A client that connects has its rules loaded for itself.
        let connect = connect_lasting("c1", V5);
        let (mut client, session_present) = Client::connected_with(&second.broker, connect).await;
        assert!(session_present);
        assert_eq!(client.receive_payload().await, "x");
        second.crash();
    }
}

/// A session that rests goes on resting.
async fn broker_rechecks_in_vain(broker: &Broker, database: &Database) {
    database.now(Mood::Fails);
    broker.recheck().await;
    assert_eq!(waiting(broker).await, 0);
    assert_eq!(subscriptions(broker, "c0").await, 1, "it keeps its subscription");
}
