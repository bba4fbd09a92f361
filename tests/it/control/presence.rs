//! Presence events, section 5 of the contract: their contents, order and versions.

use std::sync::{Arc, Mutex};

use hearthmq::{
    Broker,
    control::{
        AccessControl as _, BanSubject, FeedFilter, FeedKind, FeedPosition, Follow, KickOptions,
        LiveClients, PutBan, SetKeepAlive, WillRequest,
    },
    hooks::{ClientDisconnected, Hooks},
    mqtt::{Packet, ReasonCode},
    store::DirectoryStore,
};
use serde_json::{Value, json};

use crate::support::{
    Client, builder, disk::Disk, packets::*, pass, refusing, secs, world, world_with, world_within,
};

/// Starts a broker, with a client that watches for events.
async fn watched() -> (Broker, Client) {
    let broker = world_with(|builder| builder.node("hearth-1")).await;
    let watcher = watcher(&broker).await;
    (broker, watcher)
}

async fn watcher(broker: &Broker) -> Client {
    let mut watcher = Client::connected(broker, connect("watcher")).await;
    watcher.subscribe("$events/#", QOS_2).await;
    event(&mut watcher, "session_subscribed").await;
    watcher
}

/// Returns the next event, which must have this name.
async fn event(watcher: &mut Client, name: &str) -> Value {
    watcher
        .receive(|packet| {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            assert_eq!(publish.topic, format!("$events/{name}"));
            assert_eq!((publish.flags.qos, publish.flags.retain), (QOS_0, false));
            serde_json::from_slice(publish.payload).unwrap()
        })
        .await
}

async fn version_of(watcher: &mut Client, name: &str) -> u64 {
    event(watcher, name).await["version"].as_u64().unwrap()
}

fn now_millis() -> u64 {
    let unix = std::time::UNIX_EPOCH.elapsed().unwrap();
    unix.as_millis() as u64
}

#[actix_rt::test]
async fn the_five_events_have_exactly_these_fields() {
    let (broker, mut watcher) = watched().await;
    let mut packet = connect_in(V3_1_1, "car/1 ü");
    packet.username = Some("alice");
    packet.keep_alive = 60;
    let mut client = Client::connected(&broker, packet).await;
    let found = event(&mut watcher, "client_connected").await;
    let connected_at = found["connected_at"].as_u64().unwrap();
    assert!(now_millis().abs_diff(connected_at) < 60_000);
    let version = found["version"].as_u64().unwrap();
    let number = found["number"].as_u64().unwrap();
    assert_eq!(
        found,
        json!({
            "clientid": "car/1 ü", "username": "alice", "event": "client.connected",
            "clean_start": true, "connected_at": connected_at, "keepalive": 60,
            "node": "hearth-1", "proto_ver": 4, "peername": "192.0.2.7:40000",
            "timestamp": connected_at, "version": version, "number": number,
        })
    );

    pass(secs(1)).await;
    client.subscribe("a/+", QOS_1).await;
    let found = event(&mut watcher, "session_subscribed").await;
    let timestamp = found["timestamp"].as_u64().unwrap();
    assert!((connected_at + 1000..connected_at + 1010).contains(&timestamp));
    assert_eq!(
        found,
        json!({
            "clientid": "car/1 ü", "username": "alice", "event": "session.subscribed",
            "topic": "a/+", "qos": 1, "timestamp": timestamp, "version": version, "number": number + 1,
        })
    );

    let request = SetKeepAlive::new("car/1 ü", 120).by("bob");
    LiveClients::set_keep_alive(&broker, request).await.unwrap();
    let expected = json!({
        "clientid": "car/1 ü", "username": "alice", "event": "client.keepalive_changed",
        "old": 60, "new": 120, "by": "bob", "timestamp": timestamp, "version": version, "number": number + 2,
    });
    assert_eq!(event(&mut watcher, "client_keepalive_changed").await, expected);

    client.send(unsubscribe(3, vec!["a/+", "unknown"])).await;
    client.receive(|_| ()).await;
    let expected = json!({
        "clientid": "car/1 ü", "username": "alice", "event": "session.unsubscribed",
        "topic": "a/+", "qos": 1, "timestamp": timestamp, "version": version, "number": number + 3,
    });
    assert_eq!(event(&mut watcher, "session_unsubscribed").await, expected);

    pass(secs(1)).await;
    client.leave().await;
    let found = event(&mut watcher, "client_disconnected").await;
    let disconnected_at = found["disconnected_at"].as_u64().unwrap();
    assert!((timestamp + 1000..timestamp + 1010).contains(&disconnected_at));
    assert_eq!(
        found,
        json!({
            "clientid": "car/1 ü", "username": "alice", "event": "client.disconnected",
            "reason": "normal", "node": "hearth-1", "peername": "192.0.2.7:40000",
            "connected_at": connected_at, "disconnected_at": disconnected_at,
            "timestamp": disconnected_at, "version": version, "number": number + 4,
        })
    );
    watcher.ping().await;
}

#[actix_rt::test]
async fn who_has_no_user_name_has_null() {
    let (broker, mut watcher) = watched().await;
    let _client = Client::connected(&broker, connect_lasting("c", V5)).await;
    let found = event(&mut watcher, "client_connected").await;
    assert_eq!(found["username"], Value::Null);
    assert_eq!(found["proto_ver"], 5);
    assert_eq!(found["clean_start"], false);
    assert_eq!(found["keepalive"], 0);
    broker.kick("c", KickOptions::new().end_session()).await.unwrap();
    assert_eq!(event(&mut watcher, "client_disconnected").await["username"], Value::Null);
    let _client = Client::connected(&broker, connect_in(V3_1, "c")).await;
    assert_eq!(event(&mut watcher, "client_connected").await["proto_ver"], 3);
    broker.set_keep_alive("c", 30).await.unwrap_err();
    watcher.ping().await;
}

#[actix_rt::test]
async fn at_a_takeover_the_end_of_the_old_comes_before_the_beginning_of_the_new() {
    let (broker, mut watcher) = watched().await;
    for clean_start in [false, true] {
        let mut packet = connect_lasting("c", V5);
        packet.clean_start = clean_start;
        let mut old = Client::connected(&broker, packet.clone()).await;
        let version = version_of(&mut watcher, "client_connected").await;
        let new = Client::connected(&broker, packet).await;
        let ended = event(&mut watcher, "client_disconnected").await;
        assert_eq!(ended["reason"], "takeovered");
        assert_eq!(ended["version"], version);
        assert_eq!(version_of(&mut watcher, "client_connected").await, version + 1);
        old.expect_disconnect(ReasonCode::SessionTakenOver).await;
        watcher.ping().await;
        new.leave().await;
        assert_eq!(version_of(&mut watcher, "client_disconnected").await, version + 1);
    }
}

/// With and without a session in between, and whatever other clients do.
#[actix_rt::test]
async fn the_version_of_a_client_only_grows() {
    let (broker, mut watcher) = watched().await;
    let mut last = 0;
    for round in 0..20 {
        let packet = match round % 4 {
            0 => connect("c"),
            1 => connect_lasting("c", V5),
            2 => connect_in(V3_1_1, "c"),
            _ => connect_lasting("c", V3_1_1),
        };
        Client::connected(&broker, packet).await.leave().await;
        let connected = version_of(&mut watcher, "client_connected").await;
        let disconnected = version_of(&mut watcher, "client_disconnected").await;
        assert!(connected > last, "{connected} after {last}");
        assert_eq!(connected, disconnected);
        last = connected;
        let other = format!("other{round}");
        Client::connected(&broker, connect(&other)).await.leave().await;
        event(&mut watcher, "client_connected").await;
        event(&mut watcher, "client_disconnected").await;
    }
}

#[actix_rt::test]
async fn the_version_grows_over_restarts_of_the_broker() {
    let directory = tempfile::tempdir().unwrap();
    tokio::time::pause();
    let mut last = 0;
    for _ in 0..3 {
        let store = DirectoryStore::open(directory.path()).unwrap();
        let broker = builder().store(store).start().await.unwrap();
        let mut watcher = watcher(&broker).await;
        for client_id in ["c", "c", "c"] {
            let _client = Client::connected(&broker, connect(client_id)).await;
            let version = version_of(&mut watcher, "client_connected").await;
            assert!(version > last, "{version} after {last}");
            last = version;
            broker
                .kick("c", KickOptions::new().end_session().will(WillRequest::Discard))
                .await
                .unwrap();
            assert_eq!(version_of(&mut watcher, "client_disconnected").await, version);
        }
        broker.shutdown(secs(1)).await;
        drop((broker, watcher));
        pass(secs(1)).await;
    }
}

/// Two brokers must not use the same directory.
#[actix_rt::test]
async fn a_data_directory_is_of_one_broker() {
    let directory = tempfile::tempdir().unwrap();
    let _store = DirectoryStore::open(directory.path()).unwrap();
    let error = DirectoryStore::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("in use by another broker"), "{error}");
}

/// Records the reasons why connections ended.
#[derive(Clone, Default)]
struct Reasons(Arc<Mutex<Vec<String>>>);

impl Hooks for Reasons {
    fn client_disconnected(&self, event: &ClientDisconnected) {
        self.0.lock().unwrap().push(event.reason.name().to_owned());
    }
}

#[actix_rt::test]
async fn every_end_has_its_reason() {
    let reasons = Reasons::default();
    let hooks = reasons.clone();
    let broker = world_with(|builder| builder.hooks(hooks)).await;
    let last = || reasons.0.lock().unwrap().last().cloned().unwrap_or_default();

    Client::connected(&broker, connect("c")).await.leave().await;
    assert_eq!(last(), "normal");

    Client::connected(&broker, connect("c")).await.vanish().await;
    assert_eq!(last(), "tcp_closed");

    let _old = Client::connected(&broker, connect("c")).await;
    let client = Client::connected(&broker, connect("c")).await;
    assert_eq!(last(), "takeovered");

    broker.kick("c", KickOptions::new()).await.unwrap();
    drop(client);
    assert_eq!(last(), "kicked");

    let mut packet = connect("c");
    packet.keep_alive = 1;
    let mut client = Client::connected(&broker, packet).await;
    client.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
    assert_eq!(last(), "keepalive_timeout");

    let mut client = Client::connected(&broker, connect("c")).await;
    client.send_bytes(&[0, 0]).await;
    client.expect_disconnect(ReasonCode::MalformedPacket).await;
    assert_eq!(last(), "protocol_error");

    let mut client = Client::connected(&broker, connect("c")).await;
    client.send_bytes(&[0x30, 0xFF, 0xFF, 0x7F]).await;
    client.expect_disconnect(ReasonCode::PacketTooLarge).await;
    assert_eq!(last(), "quota_exceeded");

    let mut client = Client::connected(&broker, connect("c")).await;
    broker.shutdown(secs(5)).await;
    client.expect_disconnect(ReasonCode::ServerShuttingDown).await;
    assert_eq!(last(), "server_shutdown");
}

#[actix_rt::test]
async fn no_client_may_publish_events() {
    let (broker, mut watcher) = watched().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    event(&mut watcher, "client_connected").await;
    client.publish(publish("$events/client_connected", "false")).await;
    client.publish(publish_1(1, "$events/x", "false")).await;
    client.expect(puback(1, ReasonCode::NotAuthorized)).await;
    client.publish(publish_2(2, "$events/x/y", "false")).await;
    client.expect(pubrec(2, ReasonCode::NotAuthorized)).await;
    client.publish(aliased(publish("$events/x", "false"), 1)).await;
    client.publish(aliased(publish("", "false"), 1)).await;
    client.publish(retained(publish("$events/x", "false"))).await;
    client.ping().await;
    watcher.ping().await;
    assert_eq!(broker.metrics().totals().retained_messages.value(), 0);
    let mut old = Client::connected(&broker, connect_in(V3_1_1, "old")).await;
    event(&mut watcher, "client_connected").await;
    old.publish(publish_1(1, "$events/x", "false")).await;
    old.expect(puback(1, ReasonCode::Success)).await;
    watcher.ping().await;
}

/// A Will is refused as well.
#[actix_rt::test]
async fn a_will_on_an_event_topic_is_refused() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::new(&broker, version);
        let mut packet = connect_in(version, "c");
        packet.will = Some(will("$events/client_connected", "false"));
        client.send(Packet::Connect(Box::new(packet))).await;
        client.expect_refused(ReasonCode::NotAuthorized).await;
    }
}

/// `#` does not match them: no client gets them by accident. [MQTT-4.7.2-1]
#[actix_rt::test]
async fn events_come_only_to_those_who_name_them() {
    let broker = world().await;
    let mut everything = Client::connected(&broker, connect("e")).await;
    everything.subscribe("#", QOS_0).await;
    let mut one = Client::connected(&broker, connect("o")).await;
    one.subscribe("$events/client_connected", QOS_0).await;
    Client::connected(&broker, connect("c")).await.leave().await;
    assert_eq!(event(&mut one, "client_connected").await["clientid"], "c");
    one.ping().await;
    everything.ping().await;
}

#[actix_rt::test]
async fn a_refused_client_is_announced_at_a_limited_rate() {
    let authorizer = refusing(|request| {
        request.action == hearthmq::auth::Action::Connect && request.client_id == "stranger"
    });
    let broker = world_with(|builder| builder.authorizer(authorizer)).await;
    let mut watcher = watcher(&broker).await;
    let start = broker.follow(Follow::new(FeedPosition::Start)).await.unwrap().next;
    let attempts = 60;
    for _ in 0..attempts {
        let mut packet = connect("stranger");
        packet.username = Some("ann");
        let mut client = Client::new(&broker, V5);
        client.send(Packet::Connect(Box::new(packet))).await;
        client.receive(|_| ()).await;
    }
    let found = event(&mut watcher, "client_refused").await;
    let (timestamp, number) = (&found["timestamp"], &found["number"]);
    let expected = json!({
        "clientid": "stranger", "username": "ann", "event": "client.refused",
        "reason": "not_authorized", "peername": "192.0.2.7:40000",
        "timestamp": timestamp, "number": number,
    });
    assert_eq!(found, expected);
    let found = broker.follow(Follow::new(start)).await.unwrap().items;
    assert!((20..attempts).contains(&found.len()), "{}", found.len());
    assert!(found.iter().all(|item| item.kind == FeedKind::ClientRefused));
    assert_eq!(found[0].id.number, number.as_u64().unwrap());
}

#[actix_rt::test]
async fn a_ban_is_announced_before_the_end_of_its_clients() {
    let broker = world_within(|limits| limits.flapping_connects_max = 2).await;
    let mut watcher = watcher(&broker).await;
    let start = broker.follow(Follow::new(FeedPosition::Start)).await.unwrap().next;
    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.push(Client::connected(&broker, connect("car")).await);
        pass(secs(1)).await;
    }
    // One connection too many: the broker bans the client.
    let mut third = Client::new(&broker, V5);
    third.send(Packet::Connect(Box::new(connect("car")))).await;
    for name in ["client_connected", "client_disconnected", "client_connected"] {
        event(&mut watcher, name).await;
    }
    let found = event(&mut watcher, "client_banned").await;
    let (timestamp, number) = (&found["timestamp"], &found["number"]);
    let expected = json!({
        "clientid": "car", "username": null, "event": "client.banned", "kind": "client_id",
        "value": "car", "reason": "it connected too often", "by": null, "flapping": true,
        "expires_at": timestamp.as_u64().unwrap() + 300_000, "timestamp": timestamp,
        "number": number,
    });
    assert_eq!(found, expected);
    // The refusal and the end of the other connection have no order.
    let mut others = [next(&mut watcher).await, next(&mut watcher).await];
    others.sort();
    assert_eq!(others, ["client.disconnected", "client.refused"]);

    let subject = |kind, value| BanSubject::parse(kind, value).unwrap();
    for (kind, value, username) in [("user", "ann", json!("ann")), ("user", "a*", Value::Null)] {
        let mut ban = PutBan::new(subject(kind, value));
        (ban.by, ban.reason, ban.ttl_secs) = (Some("ops".into()), Some("left".into()), Some(60));
        broker.put_ban(ban).await.unwrap();
        let found = event(&mut watcher, "client_banned").await;
        assert_eq!((&found["kind"], &found["value"]), (&json!(kind), &json!(value)));
        assert_eq!((&found["clientid"], &found["username"]), (&Value::Null, &username));
        assert_eq!((&found["by"], &found["reason"]), (&json!("ops"), &json!("left")));
        let set_at = found["timestamp"].as_u64().unwrap();
        assert_eq!(
            (&found["flapping"], &found["expires_at"]),
            (&json!(false), &json!(set_at + 60_000))
        );
    }
    let filter = FeedFilter::default().kinds([FeedKind::ClientBanned]);
    let follow = Follow::new(start).matching(filter);
    let found = broker.follow(follow).await.unwrap().items;
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].id.number, number.as_u64().unwrap());
}

/// Returns the name of the next event.
async fn next(watcher: &mut Client) -> String {
    watcher
        .receive(|packet| {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            let event: Value = serde_json::from_slice(publish.payload).unwrap();
            event["event"].as_str().unwrap().to_owned()
        })
        .await
}

#[actix_rt::test]
async fn a_start_is_announced_to_durable_subscribers_when_they_are_back() {
    let disk = Disk::default();
    let powered = disk.power().await;
    let mut watcher = Client::connected(&powered.broker, connect_lasting("watcher", V5)).await;
    watcher.subscribe("$events/broker_started", QOS_1).await;
    watcher.leave().await;
    powered.broker.shutdown(secs(5)).await;
    drop(powered);
    let powered = disk.power().await;
    let mut packet = connect_lasting("watcher", V5);
    packet.clean_start = false;
    let (mut watcher, is_present) = Client::connected_with(&powered.broker, packet).await;
    assert!(is_present);
    let json: Value = watcher
        .receive(|packet| {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            assert_eq!((publish.topic, publish.flags.qos), ("$events/broker_started", QOS_1));
            serde_json::from_slice(publish.payload).unwrap()
        })
        .await;
    let start = powered.broker.follow(Follow::new(FeedPosition::Start)).await.unwrap();
    let epoch = format!("{:016x}", start.items[0].id.epoch);
    let expected = json!({
        "event": "broker.started", "node": json["node"], "epoch": epoch,
        "timestamp": json["timestamp"], "number": 1,
    });
    assert_eq!(json, expected);
}
