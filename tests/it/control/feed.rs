//! The feed of presence: a snapshot, then every change, and nothing missed in silence.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use hearthmq::{
    Broker,
    auth::{Action, Identity},
    broker::simulation::SimulatedShards,
    control::{
        Caller, ClientPattern, ControlError, EventId, FeedFilter, FeedKind, FeedPart, FeedPosition,
        Follow, KickOptions,
    },
};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    post::Post,
    support::{Client, millis, packets::*, pass, refusing, secs, world, world_where, world_with},
};

/// Follows, and returns the kinds and clients of the items, and where to continue.
async fn follow(broker: &Broker, request: Follow) -> (Vec<String>, FeedPosition) {
    let FeedPart { items, next, .. } = broker.follow(request).await.unwrap();
    let items = items.iter().map(|item| {
        let json: Value = serde_json::from_slice(&item.json).unwrap();
        format!("{} {}", item.kind.name(), json["clientid"].as_str().unwrap_or("-"))
    });
    (items.collect(), next)
}

/// Returns the position behind a snapshot.
async fn caught_up(broker: &Broker) -> FeedPosition {
    follow(broker, Follow::new(FeedPosition::Start)).await.1
}

fn caller(username: &str) -> Caller {
    let identity = Identity { username: Some(username.into()), ..Identity::default() };
    Caller { identity, peer: "192.0.2.1:1".parse().unwrap(), listener: "http".into() }
}

#[actix_rt::test]
async fn a_follower_receives_a_snapshot_and_then_every_change() {
    let broker = world().await;
    let mut packet = connect("a");
    packet.keep_alive = 60;
    let mut client = Client::connected(&broker, packet).await;
    let first = broker.follow(Follow::new(FeedPosition::Start)).await.unwrap();
    let kinds: Vec<_> = first.items.iter().map(|item| item.kind).collect();
    assert_eq!(kinds, [FeedKind::Snapshot, FeedKind::SnapshotEnd]);
    let json: Value = serde_json::from_slice(&first.items[0].json).unwrap();
    assert_eq!(json["clientid"], "a");
    assert_eq!(json["event"], "client.connected");
    assert_eq!((&json["clean_start"], &json["keepalive"]), (&Value::Bool(true), &60.into()));
    assert_eq!((&json["peername"], &json["proto_ver"]), (&"192.0.2.7:40000".into(), &5.into()));
    let version = json["version"].as_u64().unwrap();
    assert_eq!(first.next, FeedPosition::After(first.items[1].id));

    client.subscribe("t", QOS_1).await;
    broker.set_keep_alive("a", 90).await.unwrap();
    client.leave().await;
    let then = broker.follow(Follow::new(first.next)).await.unwrap();
    let kinds: Vec<_> = then.items.iter().map(|item| item.kind).collect();
    let expected = [
        FeedKind::SessionSubscribed,
        FeedKind::ClientKeepAliveChanged,
        FeedKind::ClientDisconnected,
    ];
    assert_eq!(kinds, expected);
    for item in &then.items {
        let json: Value = serde_json::from_slice(&item.json).unwrap();
        assert_eq!(json["version"], version);
        assert_eq!(json["number"], item.id.number);
        assert_eq!(item.id.epoch, first.items[0].id.epoch);
    }
    // Each of them is a place to continue from.
    let after_first = FeedPosition::After(then.items[0].id);
    let (items, next) = follow(&broker, Follow::new(after_first)).await;
    assert_eq!(items, ["client_keepalive_changed a", "client_disconnected a"]);
    assert_eq!(follow(&broker, Follow::new(next)).await, (vec![], next));
}

#[actix_rt::test]
async fn a_follower_that_cannot_continue_is_reset() {
    let broker = world().await;
    let _client = Client::connected(&broker, connect("a")).await;
    let first = broker.follow(Follow::new(FeedPosition::Start)).await.unwrap();
    let EventId { epoch, number } = first.items[1].id;
    let inside = first.items[0].id;
    for id in [
        inside, // It does not know which clients it has not seen.
        EventId { epoch: epoch ^ 1, number },
        EventId { epoch, number: number + 1_000 },
        EventId { epoch, number: 0 },
    ] {
        let (items, next) = follow(&broker, Follow::new(FeedPosition::After(id))).await;
        assert_eq!(items, ["reset -", "snapshot a", "snapshot_end -"], "{id}");
        assert_eq!(follow(&broker, Follow::new(next)).await, (vec![], next));
    }
    // The snapshots of others are no place to continue from, and need no reset.
    let after = FeedPosition::After(first.items[1].id);
    let (items, next) = follow(&broker, Follow::new(after)).await;
    assert!(items.is_empty());
    assert_eq!(follow(&broker, Follow::new(next)).await, (vec![], next));
    let gone = FeedPosition::Inside { id: EventId { epoch: 1, number }, shard: 0, slot: 7 };
    let (items, _) = follow(&broker, Follow::new(gone)).await;
    assert_eq!(items, ["reset -", "snapshot a", "snapshot_end -"]);
}

#[actix_rt::test]
async fn a_follower_that_is_too_far_behind_is_reset() {
    let broker = world().await;
    let (name, username) = ("x", "u".repeat(60_000));
    let mut packet = connect(name);
    packet.username = Some(&username);
    packet.keep_alive = 60;
    let _client = Client::connected(&broker, packet).await;
    let behind = caught_up(&broker).await;
    for secs in 0..100 {
        broker.set_keep_alive(name, 100 + secs).await.unwrap();
    }
    let (mut read, mut next) = (0, behind);
    while read < 100 {
        let found = broker.follow(Follow::new(next)).await.unwrap();
        assert!(!found.items.is_empty() && found.items.len() < 6, "an answer is bounded in bytes");
        read += found.items.len();
        next = found.next;
    }
    for secs in 0..200 {
        broker.set_keep_alive(name, 100 + secs).await.unwrap();
    }
    let found = broker.follow(Follow::new(behind)).await.unwrap();
    assert_eq!(found.items[0].kind, FeedKind::Reset);
    let found = broker.follow(Follow::new(next)).await.unwrap();
    assert_eq!(found.items[0].kind, FeedKind::ClientKeepAliveChanged);
}

#[actix_rt::test]
async fn events_are_kept_for_five_minutes_after_the_last_question() {
    let broker = world().await;
    let mut next = caught_up(&broker).await;
    for _ in 0..2 {
        pass(secs(299)).await;
        Client::connected(&broker, connect("a")).await.leave().await;
        let (items, then) = follow(&broker, Follow::new(next)).await;
        assert_eq!(items, ["client_connected a", "client_disconnected a"]);
        next = then;
    }
    pass(secs(301)).await;
    let _client = Client::connected(&broker, connect("b")).await;
    let (items, next) = follow(&broker, Follow::new(next)).await;
    assert_eq!(items, ["reset -", "snapshot b", "snapshot_end -"]);
    let _client = Client::connected(&broker, connect("c")).await;
    assert_eq!(follow(&broker, Follow::new(next)).await.0, ["client_connected c"]);
}

#[actix_rt::test]
async fn a_caller_sees_the_clients_that_it_may_observe_now() {
    let hides = Arc::new(AtomicBool::new(false));
    let hidden = Arc::clone(&hides);
    let broker = world_where(refusing(move |request| {
        let is_hidden = request.client_id == "secret" || hidden.load(Ordering::Relaxed);
        request.action == Action::Observe && is_hidden
    }))
    .await;
    let _one = Client::connected(&broker, connect("secret")).await;
    let _other = Client::connected(&broker, connect("open")).await;
    let ask = |from| Follow::new(from).by(caller("ops"));
    let (items, next) = follow(&broker, ask(FeedPosition::Start)).await;
    assert_eq!(items, ["snapshot open", "snapshot_end -"]);
    broker.kick("secret", KickOptions::default()).await.unwrap();
    let _more = Client::connected(&broker, connect("more")).await;
    let (items, next) = follow(&broker, ask(next)).await;
    assert_eq!(items, ["client_connected more"]);
    hides.store(true, Ordering::Relaxed);
    broker.kick("more", KickOptions::default()).await.unwrap();
    let (items, next) = follow(&broker, ask(next)).await;
    assert!(items.is_empty());
    hides.store(false, Ordering::Relaxed);
    assert!(follow(&broker, ask(next)).await.0.is_empty(), "what was hidden stays hidden");
}

#[actix_rt::test]
async fn a_filter_selects_clients_users_and_kinds() {
    let broker = world().await;
    let mut ann = connect("car-1");
    ann.username = Some("ann");
    let mut car = Client::connected(&broker, ann).await;
    let ship = Client::connected(&broker, connect("ship-1")).await;
    let pattern = || FeedFilter::default().clients(ClientPattern::new("car-*").unwrap());
    let user = || FeedFilter::default().username("ann");
    let ends = || FeedFilter::default().kinds([FeedKind::ClientDisconnected]);
    let start = caught_up(&broker).await;
    car.subscribe("t", QOS_0).await;
    car.leave().await;
    ship.leave().await;
    for (filter, changes) in [
        (pattern(), vec!["session_subscribed car-1", "client_disconnected car-1"]),
        (user(), vec!["session_subscribed car-1", "client_disconnected car-1"]),
        (ends(), vec!["client_disconnected car-1", "client_disconnected ship-1"]),
    ] {
        let (items, next) = follow(&broker, Follow::new(start).matching(filter)).await;
        assert_eq!(items, changes);
        assert_eq!(follow(&broker, Follow::new(next)).await.0, Vec::<String>::new());
    }
    let _car = Client::connected(&broker, connect("car-2")).await;
    let _ship = Client::connected(&broker, connect("ship-2")).await;
    for (filter, clients) in
        [(pattern(), vec!["snapshot car-2"]), (user(), vec![]), (ends(), vec![])]
    {
        let (mut items, _) =
            follow(&broker, Follow::new(FeedPosition::Start).matching(filter)).await;
        assert_eq!(items.pop().as_deref(), Some("snapshot_end -"));
        assert_eq!(items, clients);
    }
}

#[actix_rt::test]
async fn a_follower_waits_for_a_change() {
    let broker = world().await;
    let next = caught_up(&broker).await;
    let began = Instant::now();
    let filter = FeedFilter::default().clients(ClientPattern::new("a").unwrap());
    let ask = Follow::new(next).matching(filter).waiting(secs(20));
    let waiting = follow(&broker, ask.clone());
    let connecting = async {
        for number in 0..5 {
            pass(secs(1)).await;
            drop(Client::connected(&broker, connect(&format!("b{number}"))).await);
        }
        drop(Client::connected(&broker, connect("a")).await);
    };
    let ((items, next), ()) = tokio::join!(waiting, connecting);
    assert_eq!(items[0], "client_connected a");
    assert!(began.elapsed() < secs(6));
    pass(secs(1)).await;
    let began = Instant::now();
    let mut ask = ask;
    ask.from = follow(&broker, Follow::new(next)).await.1;
    assert!(follow(&broker, ask.clone()).await.0.is_empty());
    assert!((secs(20)..secs(21)).contains(&began.elapsed()));

    let ending = async {
        pass(secs(1)).await;
        broker.shutdown(secs(5)).await;
    };
    let (answer, ()) = tokio::join!(broker.follow(ask.waiting(secs(60))), ending);
    assert_eq!(answer, Err(ControlError::Unavailable));
}

/// The table of a follower: which clients are online, by the rules of docs/events.md.
#[derive(Default)]
struct Table {
    versions: BTreeMap<String, (u64, bool)>,
    resets: usize,
}

impl Table {
    fn apply(&mut self, part: &FeedPart) {
        for item in &part.items {
            let json: Value = serde_json::from_slice(&item.json).unwrap();
            let client = json["clientid"].as_str().unwrap_or_default().to_owned();
            let version = json["version"].as_u64().unwrap_or_default();
            let stored = self.versions.get(&client).map_or(0, |stored| stored.0);
            match item.kind {
                FeedKind::Reset => {
                    self.resets += 1;
                    self.versions.clear();
                }
                FeedKind::Snapshot | FeedKind::ClientConnected if version > stored => {
                    self.versions.insert(client, (version, true));
                }
                FeedKind::ClientDisconnected if version >= stored => {
                    self.versions.insert(client, (version, false));
                }
                _ => {}
            }
        }
    }

    fn online(&self) -> Vec<&str> {
        let online = self.versions.iter().filter(|(_, (_, is_online))| *is_online);
        online.map(|(client, _)| &**client).collect()
    }
}

/// Clients come and go on three shards while a follower reads its snapshot in small parts, and the
/// mail between the shards comes in any order.
#[actix_rt::test]
async fn nothing_is_missed_between_the_snapshot_and_the_changes() {
    for seed in 0..15 {
        let mut rng = Rng::with_seed(seed);
        let post = Post::open(&SimulatedShards::new(3, seed), seed);
        let broker = world_with(|builder| builder.simulated(post.shards())).await;
        let mut clients: BTreeMap<String, Client> = BTreeMap::new();
        let (mut table, mut next, mut has_ended) = (Table::default(), FeedPosition::Start, false);
        for step in 0..150 {
            for _ in 0..rng.usize(..4) {
                let name = format!("c{}", rng.u8(..30));
                match rng.u8(..4) {
                    0 => drop(clients.remove(&name)),
                    1 if clients.contains_key(&name) => {
                        broker.kick(&name, KickOptions::default()).await.ok();
                        clients.remove(&name);
                    }
                    2 => {
                        let connect = connect_lasting(&name, V5);
                        clients.insert(name.clone(), Client::connected(&broker, connect).await);
                    }
                    _ => {
                        let connect = connect(&name);
                        clients.insert(name.clone(), Client::connected(&broker, connect).await);
                    }
                }
            }
            if step < 140 && rng.u8(..3) == 0 {
                let part = broker.follow(Follow::new(next).at_most(1 + rng.usize(..3))).await;
                let part = part.unwrap();
                table.apply(&part);
                has_ended |= part.items.iter().any(|item| item.kind == FeedKind::SnapshotEnd);
                next = part.next;
            }
        }
        pass(millis(100)).await;
        loop {
            let part = broker.follow(Follow::new(next)).await.unwrap();
            table.apply(&part);
            next = part.next;
            if part.items.is_empty() && matches!(next, FeedPosition::After(_)) {
                break;
            }
        }
        assert!(has_ended && table.resets == 0, "{seed}");
        let online: Vec<_> = clients.keys().map(String::as_str).collect();
        assert_eq!(table.online(), online, "{seed}");
        drop(clients);
        broker.shutdown(Duration::from_secs(5)).await;
    }
}
