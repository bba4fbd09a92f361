//! A CONNECT whose CONNACK waits for the store, and CONNECTs that come meanwhile: every client gets
//! an answer, and no client is online before its CONNACK could be sent.

use hearthmq::{
    control::{Kick, KickOptions, WillRequest},
    mqtt::{ConnAck, Connect, Packet, ProtocolVersion, ReasonCode},
};
use serde_json::Value;

use crate::support::{
    Client,
    disk::{Disk, Powered},
    packets::*,
    pass, secs,
};

const ALL_VERSIONS: [ProtocolVersion; 3] = [V3_1, V3_1_1, V5];

/// Returns a client that has sent CONNECT, and may have to wait.
async fn connecting(powered: &Powered, version: ProtocolVersion) -> Client {
    connecting_with(powered, connect_lasting("c", version)).await
}

async fn connecting_with(powered: &Powered, connect: Connect<'_>) -> Client {
    let mut client = Client::new(&powered.broker, connect.version);
    client.send(Packet::Connect(Box::new(connect))).await;
    settle().await;
    client
}

/// Returns once everything that can happen now has happened.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn watcher(powered: &Powered) -> Client {
    let mut watcher = Client::connected(&powered.broker, connect("watcher")).await;
    watcher.subscribe("$events/client_connected", QOS_0).await;
    watcher.subscribe("$events/client_disconnected", QOS_0).await;
    watcher
}

/// Returns an event of the client: its name, version and reason.
async fn event(watcher: &mut Client) -> (String, u64, String) {
    watcher
        .receive(|packet| {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            let event: Value = serde_json::from_slice(publish.payload).unwrap();
            assert_eq!(event["clientid"], "c");
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            (text("event"), event["version"].as_u64().unwrap(), text("reason"))
        })
        .await
}

async fn expect_connected(watcher: &mut Client, version: u64) {
    let (name, found, _) = event(watcher).await;
    assert_eq!((&*name, found), ("client.connected", version));
}

async fn expect_disconnected(watcher: &mut Client, version: u64, reason: &str) {
    let (name, found, why) = event(watcher).await;
    assert_eq!((&*name, found, &*why), ("client.disconnected", version, reason));
}

async fn is_online(powered: &Powered) -> bool {
    let online = powered.broker.online("c").await.unwrap();
    let described = powered.broker.client("c").await.unwrap();
    assert_eq!(described.is_some_and(|client| client.online), online);
    online
}

/// [MQTT-3.1.4-3]
#[actix_rt::test]
async fn each_of_several_connects_hears_its_connack_and_then_that_it_was_taken_over() {
    for version in ALL_VERSIONS {
        let disk = Disk::default();
        let powered = disk.power().await;
        let mut watcher = watcher(&powered).await;
        powered.fail(true);
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(connecting(&powered, version).await);
        }
        assert!(!is_online(&powered).await);
        watcher.expect_nothing().await;
        powered.fail(false);
        let mut last = clients.pop().unwrap();
        let mut first_version = 0;
        for (at, mut client) in clients.into_iter().enumerate() {
            let present = client.expect_connected().await;
            assert_eq!(present, at > 0 && version != V3_1);
            client.expect_disconnect(ReasonCode::SessionTakenOver).await;
            let (name, found, _) = event(&mut watcher).await;
            first_version = if at == 0 { found } else { first_version };
            assert_eq!((&*name, found), ("client.connected", first_version + at as u64));
            expect_disconnected(&mut watcher, found, "takeovered").await;
        }
        last.expect_connected().await;
        last.ping().await;
        expect_connected(&mut watcher, first_version + 9).await;
        assert!(is_online(&powered).await);
        watcher.ping().await;
    }
}

/// The contract: "during a takeover a client is online throughout".
#[actix_rt::test]
async fn a_client_that_was_online_stays_so_while_its_new_connack_waits() {
    let disk = Disk::default();
    let powered = disk.power().await;
    let mut watcher = watcher(&powered).await;
    let mut old = Client::connected(&powered.broker, connect_lasting("c", V5)).await;
    let (_, version, _) = event(&mut watcher).await;
    powered.fail(true);
    let mut new = connecting(&powered, V5).await;
    old.expect_disconnect(ReasonCode::SessionTakenOver).await;
    expect_disconnected(&mut watcher, version, "takeovered").await;
    assert!(is_online(&powered).await);
    new.expect_nothing().await;
    watcher.expect_nothing().await;
    powered.fail(false);
    new.expect_connected().await;
    expect_connected(&mut watcher, version + 1).await;
    assert!(is_online(&powered).await);
}

/// What a client sends behind CONNECT is handled behind CONNACK.
#[actix_rt::test]
async fn a_client_that_does_not_wait_for_its_connack_is_heard_behind_it() {
    for version in ALL_VERSIONS {
        let disk = Disk::default();
        let powered = disk.power().await;
        let mut watcher = watcher(&powered).await;
        watcher.subscribe("$events/session_subscribed", QOS_0).await;
        watcher.receive(|_| ()).await;
        powered.fail(true);
        let mut client = connecting(&powered, version).await;
        client.send(subscribe(1, vec![filter("t", QOS_1)])).await;
        client.expect_nothing().await;
        powered.fail(false);
        client.expect_connected().await;
        client.expect(suback(1, &[ReasonCode::GrantedQoS1])).await;
        for expected in ["client.connected", "session.subscribed"] {
            assert_eq!(event(&mut watcher).await.0, expected);
        }
    }
}

#[actix_rt::test]
async fn a_client_that_goes_before_its_connack_was_never_there() {
    for version in ALL_VERSIONS {
        let disk = Disk::default();
        let powered = disk.power().await;
        let mut watcher = watcher(&powered).await;
        powered.fail(true);
        let gone = connecting(&powered, version).await;
        let mut next = connecting(&powered, version).await;
        gone.vanish().await;
        // Its turn comes at once, and by now the trouble of the store is known.
        next.expect_refused(ReasonCode::ServerUnavailable).await;
        assert!(!is_online(&powered).await);
        powered.fail(false);
        watcher.expect_nothing_for(secs(5)).await;
    }
}

/// With a slow store, clients that retry do not accumulate connections.
#[actix_rt::test]
async fn of_those_that_wait_long_only_the_last_goes_on() {
    for version in ALL_VERSIONS {
        let disk = Disk::default();
        let powered = disk.power().await;
        powered.fail(true);
        let mut first = connecting(&powered, version).await;
        let mut second = connecting(&powered, version).await;
        pass(secs(3)).await;
        let mut third = connecting(&powered, version).await;
        second.expect_refused(ReasonCode::ServerBusy).await;
        first.expect_nothing().await;
        third.expect_nothing().await;
        powered.fail(false);
        first.expect_connected().await;
        first.expect_disconnect(ReasonCode::SessionTakenOver).await;
        third.expect_connected().await;
        third.ping().await;
    }
}

/// [MQTT-3.14.0-1]: no DISCONNECT before CONNACK.
#[actix_rt::test]
async fn a_client_that_is_sent_away_before_its_connack_is_refused() {
    for version in ALL_VERSIONS {
        let disk = Disk::default();
        let powered = disk.power().await;
        let mut watcher = watcher(&powered).await;
        powered.fail(true);
        let mut client = connecting(&powered, version).await;
        let kick = Kick::new("c", KickOptions::new());
        powered.broker.registry("c").send(kick).await.unwrap().unwrap();
        client.expect_refused(ReasonCode::ServerUnavailable).await;
        powered.fail(false);
        watcher.expect_nothing_for(secs(5)).await;
    }
}

/// Answers that must not be sent yet are dropped; DISCONNECT is sent.
#[actix_rt::test]
async fn a_suback_that_waits_does_not_keep_the_client_from_hearing_its_end() {
    let disk = Disk::default();
    let powered = disk.power().await;
    let mut client = Client::connected(&powered.broker, connect_lasting("c", V5)).await;
    powered.fail(true);
    client.send(subscribe(1, vec![filter("t", QOS_1)])).await;
    client.expect_nothing().await;
    let kick = Kick::new("c", KickOptions::new());
    powered.broker.registry("c").send(kick).await.unwrap().unwrap();
    client.expect_disconnect(ReasonCode::AdministrativeAction).await;
    powered.fail(false);
    let mut client = Client::new(&powered.broker, V5);
    pass(secs(2)).await;
    client.send(Packet::Connect(Box::new(connect_lasting("c", V5)))).await;
    client
        .receive(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
            let ConnAck { session_present, reason, .. } = *ack;
            assert_eq!((session_present, reason), (true, ReasonCode::Success));
        })
        .await;
}

/// A call reaches the connection that was the client's latest when the call came.
#[actix_rt::test]
async fn a_call_between_two_connects_is_about_the_connection_of_the_first() {
    let disk = Disk::default();
    let powered = disk.power().await;
    powered.fail(true);
    let with_keep_alive = || Connect { keep_alive: 60, ..connect_lasting("c", V5) };
    let mut first = connecting_with(&powered, with_keep_alive()).await;
    let mut second = connecting_with(&powered, with_keep_alive()).await;
    let call = |secs| {
        let broker = powered.broker.clone();
        actix_rt::spawn(async move { broker.set_keep_alive("c", secs).await })
    };
    let changed = call(77);
    settle().await;
    let broker = powered.broker.clone();
    let kicked = actix_rt::spawn(async move {
        broker.kick("c", KickOptions::new().will(WillRequest::Discard)).await
    });
    settle().await;
    let mut third = connecting_with(&powered, with_keep_alive()).await;
    let changed_again = call(88);
    settle().await;
    powered.fail(false);

    first.expect_connected().await;
    first.expect_disconnect(ReasonCode::SessionTakenOver).await;
    second.expect_connected().await;
    assert_eq!(changed.await.unwrap().unwrap().new_secs, 77);
    kicked.await.unwrap().unwrap();
    second.expect_disconnect(ReasonCode::AdministrativeAction).await;
    third.expect_connected().await;
    assert_eq!(changed_again.await.unwrap().unwrap().new_secs, 88);
    third.ping().await;
    assert_eq!(powered.broker.client("c").await.unwrap().unwrap().keep_alive_secs, 88);
}
