//! Clients are redirected to another server, section 4.11.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use hearthmq::{
    Broker,
    auth::{AccessRequest, Action, Authorizer, Decision, Identity},
    control::{Caller, ClientPattern, Clients, ControlError, Redirect, Redirection, Redirects},
    hooks::DisconnectReason,
    metrics::ConnectRefusal,
    mqtt::{Packet, ReasonCode},
};

use tokio::task::yield_now;

use crate::support::{Client, disk::Disk, packets::*, refused, secs, world, world_with};

fn elsewhere() -> Redirection {
    Redirection::new("b.example:1883 c.example", false).unwrap()
}

fn moved() -> Redirection {
    Redirection::new("b.example", true).unwrap()
}

fn all() -> Clients {
    Clients::Matching(ClientPattern::new("*").unwrap())
}

/// Expects DISCONNECT with this Reason Code and reference, and the end.
async fn expect_redirection(client: &mut Client, reason: ReasonCode, reference: Option<&str>) {
    client
        .receive(|packet| {
            let Packet::Disconnect(disconnect) = packet else { panic!("{packet:?}") };
            assert_eq!(disconnect.reason, reason);
            assert_eq!(disconnect.properties.server_reference, reference);
        })
        .await;
    client.expect_closed().await;
}

async fn redirected(broker: &Broker, clients: Clients, to: Redirection) -> usize {
    broker.redirect(clients, to).await.unwrap()
}

/// Sections 4.11 and 3.14.2.2.5; the session stays, and continues if the client returns.
#[actix_rt::test]
async fn a_client_is_told_where_to_go() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    let mut other = Client::connected(&broker, connect("other")).await;
    assert_eq!(redirected(&broker, Clients::One("c".into()), elsewhere()).await, 1);
    let reference = Some("b.example:1883 c.example");
    expect_redirection(&mut client, ReasonCode::UseAnotherServer, reference).await;
    other.ping().await;
    assert_eq!(redirected(&broker, Clients::One("c".into()), elsewhere()).await, 0);
    let (mut client, session_present) =
        Client::connected_with(&broker, connect_lasting("c", V5)).await;
    assert!(session_present);
    assert_eq!(redirected(&broker, Clients::One("c".into()), moved()).await, 1);
    expect_redirection(&mut client, ReasonCode::ServerMoved, Some("b.example")).await;
    let shard = broker.metrics().shard(0);
    assert_eq!(shard.disconnects.of(DisconnectReason::Redirected).value(), 2);
}

/// MQTT 3 has no packet for it.
#[actix_rt::test]
async fn a_client_of_mqtt_3_is_closed() {
    let broker = world().await;
    for version in [V3_1, V3_1_1] {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        assert_eq!(redirected(&broker, all(), elsewhere()).await, 1);
        client.expect_closed().await;
    }
}

#[actix_rt::test]
async fn those_that_match_a_pattern_are_sent_away_and_the_others_stay() {
    let broker = world().await;
    let mut clients = Vec::new();
    for number in 0..600 {
        let client_id =
            if number % 2 == 0 { format!("car-{number}") } else { format!("c-{number}") };
        clients.push(Client::connected(&broker, connect(&client_id)).await);
    }
    let cars = Clients::Matching(ClientPattern::new("car-*").unwrap());
    assert_eq!(redirected(&broker, cars, moved()).await, 300);
    for (number, client) in clients.iter_mut().enumerate() {
        if number % 2 == 0 {
            expect_redirection(client, ReasonCode::ServerMoved, Some("b.example")).await;
        } else {
            client.ping().await;
        }
    }
    assert_eq!(redirected(&broker, all(), moved()).await, 300);
    assert_eq!(broker.metrics().shard(0).connections.value(), 0);
}

/// The reference is optional; the maximum size is binding. [MQTT-3.1.2-24]
#[actix_rt::test]
async fn a_reference_too_long_for_the_client_is_left_out() {
    let broker = world().await;
    let mut packet = connect("c");
    packet.properties.maximum_packet_size = Some(30);
    let mut client = Client::connected(&broker, packet.clone()).await;
    let far = Redirection::new(&"x".repeat(100), false).unwrap();
    assert_eq!(redirected(&broker, all(), far.clone()).await, 1);
    expect_redirection(&mut client, ReasonCode::UseAnotherServer, None).await;
    broker.drain(Some(far)).await;
    let mut client = Client::new(&broker, V5);
    client.send(Packet::Connect(Box::new(packet))).await;
    client.expect(Packet::ConnAck(Box::new(connack(ReasonCode::UseAnotherServer)))).await;
    client.expect_closed().await;
}

/// The Will is published as after any end that the client did not ask for. [MQTT-3.1.2-8]
#[actix_rt::test]
async fn the_will_of_a_client_that_is_sent_away_is_published() {
    let broker = world().await;
    let mut watcher = Client::connected(&broker, connect("watcher")).await;
    watcher.subscribe("w", QOS_0).await;
    let mut packet = connect("c");
    packet.will = Some(will("w", "gone"));
    let _client = Client::connected(&broker, packet).await;
    redirected(&broker, Clients::One("c".into()), moved()).await;
    watcher.expect_publish(publish("w", "gone")).await;
}

/// Section 3.2.2.3.16; MQTT 3 clients get Server unavailable.
#[actix_rt::test]
async fn while_the_broker_is_drained_clients_are_refused_and_those_that_are_there_stay() {
    let broker = world().await;
    let mut here = Client::connected(&broker, connect("here")).await;
    for (to, reason) in
        [(elsewhere(), ReasonCode::UseAnotherServer), (moved(), ReasonCode::ServerMoved)]
    {
        let reference = to.server_reference().clone();
        broker.drain(Some(to)).await;
        let mut client = Client::new(&broker, V5);
        client.send(Packet::Connect(Box::new(connect("c")))).await;
        let mut expected = connack(reason);
        expected.properties.server_reference = Some(&reference);
        client.expect(Packet::ConnAck(Box::new(expected))).await;
        client.expect_closed().await;
        for version in [V3_1, V3_1_1] {
            let mut client = Client::new(&broker, version);
            client.send(Packet::Connect(Box::new(connect_in(version, "c")))).await;
            client.expect_refused(ReasonCode::ServerUnavailable).await;
        }
    }
    assert_eq!(refused(&broker, ConnectRefusal::Redirected), 6);
    here.expect_nothing_for(secs(60)).await;
    broker.drain(None).await;
    Client::connected(&broker, connect("c")).await.ping().await;
    here.ping().await;
}

/// The result is no longer needed, and the shard has other work.
#[actix_rt::test]
async fn a_walk_ends_when_its_caller_has_gone() {
    let broker = world().await;
    let mut clients = Vec::new();
    for number in 0..1_000 {
        clients.push(Client::connected(&broker, connect(&format!("c-{number}"))).await);
    }
    let mut asked = Box::pin(broker.redirect(all(), moved()));
    let connections = || broker.metrics().shard(0).connections.value();
    while connections() == 1_000 {
        assert_eq!((&mut asked).now_or_never(), None);
        yield_now().await;
    }
    drop(asked);
    clients.last_mut().unwrap().expect_nothing_for(secs(1)).await;
    assert!((1..1_000).contains(&connections()));
}

#[actix_rt::test]
async fn few_walks_are_made_at_once() {
    let broker = world().await;
    let _client = Client::connected(&broker, connect("c")).await;
    let others = || Clients::Matching(ClientPattern::new("other-*").unwrap());
    let mut walks: Vec<_> = (0..4).map(|_| Box::pin(broker.redirect(others(), moved()))).collect();
    for walk in &mut walks {
        assert_eq!(walk.now_or_never(), None);
    }
    assert_eq!(broker.redirect(all(), moved()).await, Err(ControlError::Unavailable));
    assert_eq!(redirected(&broker, Clients::One("c".into()), moved()).await, 1);
    drop(walks);
    assert_eq!(redirected(&broker, all(), moved()).await, 0);
}

fn everybody(to: Redirection) -> Redirect {
    Redirect::new(all(), to)
}

async fn expect_refused(broker: &Broker, reason: ReasonCode, reference: &str) {
    let mut client = Client::new(broker, V5);
    client.send(Packet::Connect(Box::new(connect("late")))).await;
    let mut expected = connack(reason);
    expected.properties.server_reference = Some(reference);
    client.expect(Packet::ConnAck(Box::new(expected))).await;
    client.expect_closed().await;
}

#[actix_rt::test]
async fn an_evacuated_broker_is_empty_and_stays_so() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    assert_eq!(broker.evacuate(everybody(moved())).await, Ok(1));
    expect_redirection(&mut client, ReasonCode::ServerMoved, Some("b.example")).await;
    expect_refused(&broker, ReasonCode::ServerMoved, "b.example").await;
}

#[actix_rt::test]
async fn an_evacuation_that_does_not_succeed_leaves_the_broker_as_open_as_it_was() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let mut evacuation = broker.evacuate(everybody(moved()));
    assert_eq!((&mut evacuation).now_or_never(), None);
    expect_nobody_else_evacuates(&broker).await;
    drop(evacuation);
    client.ping().await;
    Client::connected(&broker, connect("late")).await.ping().await;

    let tell = elsewhere();
    broker.drain(Some(tell.clone())).await;
    let mut evacuation = broker.evacuate(everybody(moved()));
    assert_eq!((&mut evacuation).now_or_never(), None);
    drop(evacuation);
    expect_refused(&broker, ReasonCode::UseAnotherServer, tell.server_reference()).await;
}

/// Otherwise one attempt would restore the target of the other.
async fn expect_nobody_else_evacuates(broker: &Broker) {
    let second = broker.evacuate(everybody(elsewhere())).await;
    assert_eq!(second, Err(ControlError::Unavailable));
}

#[actix_rt::test]
async fn what_was_decided_during_an_evacuation_holds_after_its_failure() {
    let broker = world().await;
    broker.drain(Some(elsewhere())).await;
    let mut evacuation = broker.evacuate(everybody(elsewhere()));
    assert_eq!((&mut evacuation).now_or_never(), None);
    broker.drain(Some(moved())).await;
    drop(evacuation);
    expect_refused(&broker, ReasonCode::ServerMoved, "b.example").await;
    let mut evacuation = broker.evacuate(everybody(elsewhere()));
    assert_eq!((&mut evacuation).now_or_never(), None);
    broker.drain(None).await;
    drop(evacuation);
    Client::connected(&broker, connect("c")).await.ping().await;
}

#[actix_rt::test]
async fn new_clients_are_redirected_after_a_restart_too() {
    let disk = Disk::default();
    let first = disk.power().await;
    first.broker.drain(Some(moved())).await;
    first.crash();
    let second = disk.power().await;
    expect_refused(&second.broker, ReasonCode::ServerMoved, "b.example").await;
    second.broker.evacuate(everybody(elsewhere())).await.unwrap();
    second.crash();
    let third = disk.power().await;
    let to = elsewhere();
    expect_refused(&third.broker, ReasonCode::UseAnotherServer, to.server_reference()).await;
    third.broker.drain(None).await;
    third.crash();
    let fourth = disk.power().await;
    Client::connected(&fourth.broker, connect("c")).await.ping().await;
    assert_eq!(fourth.broker.drained_to(), None);
}

/// The record is written while an evacuation is under way that then fails.
#[actix_rt::test]
async fn the_target_of_an_evacuation_that_fails_is_not_stored() {
    for to in [Some(elsewhere()), None] {
        let disk = Disk::default();
        let first = disk.power().await;
        let mut drain = Box::pin(first.broker.drain(to.clone()));
        assert_eq!((&mut drain).now_or_never(), None);
        let mut evacuation = first.broker.evacuate(everybody(moved()));
        assert_eq!((&mut evacuation).now_or_never(), None);
        drain.await;
        drop(evacuation);
        assert_eq!(first.broker.drained_to(), to);
        first.crash();
        let second = disk.power().await;
        assert_eq!(second.broker.drained_to(), to);
    }
}

/// What was decided during an evacuation counts, in force and in the store.
#[actix_rt::test]
async fn what_was_decided_during_an_evacuation_that_succeeds_is_stored() {
    for to in [Some(elsewhere()), None] {
        let disk = Disk::default();
        let first = disk.power().await;
        let mut evacuation = first.broker.evacuate(everybody(moved()));
        assert_eq!((&mut evacuation).now_or_never(), None);
        first.broker.drain(to.clone()).await;
        evacuation.await.unwrap();
        assert_eq!(first.broker.drained_to(), to);
        first.crash();
        let second = disk.power().await;
        assert_eq!(second.broker.drained_to(), to);
    }
}

/// It waits for the record of another call at that time.
#[actix_rt::test]
async fn a_redirection_is_stored_even_if_its_caller_has_gone() {
    let disk = Disk::default();
    let first = disk.power_slowly().await;
    first.hold_writes(true);
    let mut earlier = Box::pin(first.broker.drain(Some(elsewhere())));
    let mut later = Box::pin(first.broker.drain(Some(moved())));
    for _ in 0..10 {
        assert_eq!((&mut earlier).now_or_never(), None);
        yield_now().await;
    }
    for _ in 0..10 {
        assert_eq!((&mut later).now_or_never(), None);
        yield_now().await;
    }
    drop(later);
    first.hold_writes(false);
    earlier.await;
    let stored = || disk.record("redirect").map(|value| String::from_utf8(value).unwrap());
    let begun = Instant::now();
    while !stored().is_some_and(|stored| stored.contains(r#""permanent":true"#)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", stored());
        yield_now().await;
    }
    assert_eq!(first.broker.drained_to(), Some(moved()));
}

/// The clients of a node whose disk has failed can be sent away, although that cannot be stored.
#[actix_rt::test]
async fn new_clients_are_redirected_while_the_store_is_in_trouble() {
    let disk = Disk::default();
    let first = disk.power().await;
    first.fail(true);
    first.broker.drain(Some(moved())).await;
    expect_refused(&first.broker, ReasonCode::ServerMoved, "b.example").await;
    first.crash();
    let second = disk.power().await;
    Client::connected(&second.broker, connect("c")).await.ping().await;
}

/// Lets `ops` control cars, from one address and over one listener.
struct CarsOnly;

impl Authorizer for CarsOnly {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let AccessRequest { identity, client_id, peer, listener, action } = request;
        let is_allowed = match action {
            Action::Control => {
                identity.username.as_deref() == Some("ops")
                    && client_id.starts_with("car-")
                    && peer.ip().is_loopback()
                    && *listener == "https://127.0.0.1:8443"
            }
            _ => true,
        };
        if is_allowed { Decision::Allow } else { Decision::Deny }
    }
}

#[actix_rt::test]
async fn a_pattern_redirects_the_clients_alone_that_its_caller_may_control() {
    let broker = world_with(|builder| builder.authorizer(CarsOnly)).await;
    let ids = ["car-1", "car-2", "ship-1"];
    let mut clients = Vec::new();
    for id in ids {
        clients.push(Client::connected(&broker, connect(id)).await);
    }
    let named = |name: &str| Identity { username: Some(name.into()), ..Identity::default() };
    let ops = Caller {
        identity: named("ops"),
        peer: "127.0.0.1:4711".parse().unwrap(),
        listener: "https://127.0.0.1:8443".into(),
    };
    let others = [
        Caller { identity: named("ben"), ..ops.clone() },
        Caller { peer: "192.0.2.1:4711".parse().unwrap(), ..ops.clone() },
        Caller { listener: "https://[::]:8443".into(), ..ops.clone() },
    ];
    let by = |caller| Redirect::new(all(), moved()).by(caller);
    for other in others {
        assert_eq!(Redirects::redirect(&broker, by(other)).await, Ok(0));
    }
    assert_eq!(Redirects::redirect(&broker, by(ops)).await, Ok(2));
    clients[2].ping().await;
}
