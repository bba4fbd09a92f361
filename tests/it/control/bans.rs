//! Bans: clients are kept out before their password is checked, and disconnected if they are there.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use hearthmq::{
    Broker,
    auth::{AllowAll, AuthenticationError, Authenticator, Credentials, Identity},
    control::{AccessControl as _, AccessError, BanSubject, ListBans, PutBan, RemoveBan},
    limits::Limits,
    metrics::ConnectRefusal,
    mqtt::{Connect, Packet, ReasonCode},
};

use crate::support::{
    Client, disk::Disk, packets::*, pass, refused, secs, world, world_with, world_within,
};

fn ban(kind: &str, value: &str) -> PutBan {
    PutBan::new(BanSubject::parse(kind, value).unwrap())
}

fn connect_as<'a>(user: &'a str, connect: Connect<'a>) -> Connect<'a> {
    Connect { username: Some(user), ..connect }
}

async fn lift(broker: &Broker, kind: &str, value: &str) {
    let subject = BanSubject::parse(kind, value).unwrap();
    broker.remove_ban(RemoveBan::new(subject)).await.unwrap();
}

async fn is_refused(broker: &Broker, connect: Connect<'_>) {
    let mut client = Client::new(broker, connect.version);
    client.send(Packet::Connect(Box::new(connect))).await;
    client.expect_refused(ReasonCode::Banned).await;
}

/// Clients in process come from 192.0.2.7.
#[actix_rt::test]
async fn a_ban_ends_the_connections_of_clients_and_keeps_them_out_until_it_is_lifted() {
    let broker = world().await;
    for (kind, value) in [
        ("client_id", "car-1"),
        ("client_id", "car-*"),
        ("user", "ann"),
        ("user", "a*"),
        ("address", "192.0.2.7"),
        ("address", "192.0.2.0/24"),
    ] {
        for version in VERSIONS {
            let packet = || connect_as("ann", connect_in(version, "car-1"));
            let mut client = Client::connected(&broker, packet()).await;
            let changed = broker.put_ban(ban(kind, value)).await.unwrap();
            assert_eq!(changed.sessions_touched, 1, "{kind} {value}");
            // MQTT has Banned for CONNACK alone.
            match version {
                V5 => client.expect_disconnect(ReasonCode::AdministrativeAction).await,
                _ => client.expect_closed().await,
            }
            is_refused(&broker, packet()).await;
            lift(&broker, kind, value).await;
            Client::connected(&broker, packet()).await;
        }
    }
    assert_eq!(refused(&broker, ConnectRefusal::Banned), 6 * VERSIONS.len() as u64);
}

/// Returns a client at this address that has not yet sent CONNECT.
fn client_at(broker: &Broker, address: &str) -> Client {
    let (here, there) = tokio::io::duplex(1 << 20);
    let (broker, peer) = (broker.clone(), SocketAddr::new(address.parse().unwrap(), 40_000));
    actix_rt::spawn(async move { broker.serve(there, peer).await });
    Client::on(here, V5)
}

#[actix_rt::test]
async fn addresses_of_ipv6_are_banned_and_those_that_map_ipv4_are_the_same_as_ipv4() {
    let broker = world().await;
    for (value, banned, other) in [
        ("2001:db8::7", "2001:db8::7", "2001:db8::8"),
        ("2001:db8:0:1::/64", "2001:db8:0:1::9", "2001:db8:0:2::9"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("192.0.2.7", "::ffff:192.0.2.7", "::ffff:192.0.2.8"),
        ("::ffff:192.0.2.0/120", "192.0.2.9", "192.0.3.9"),
        ("192.0.2.0/24", "::ffff:192.0.2.9", "::ffff:192.0.3.9"),
        ("0.0.0.0/0", "::ffff:192.0.2.9", "2001:db8::7"),
        ("::/0", "2001:db8::7", "::ffff:192.0.2.9"),
    ] {
        let mut client = client_at(&broker, banned);
        client.connect(connect("banned")).await;
        let mut stays = client_at(&broker, other);
        stays.connect(connect("stays")).await;
        let changed = broker.put_ban(ban("address", value)).await.unwrap();
        assert_eq!(changed.sessions_touched, 1, "{value}");
        client.expect_disconnect(ReasonCode::AdministrativeAction).await;
        stays.ping().await;
        let mut again = client_at(&broker, banned);
        again.send(Packet::Connect(Box::new(connect("banned")))).await;
        again.expect_refused(ReasonCode::Banned).await;
        lift(&broker, "address", value).await;
    }
}

#[actix_rt::test]
async fn others_stay() {
    let broker = world().await;
    let mut other = Client::connected(&broker, connect_as("ben", connect("car-2"))).await;
    for (kind, value) in [("client_id", "car-1"), ("user", "a*"), ("address", "198.51.100.0/24")] {
        assert_eq!(broker.put_ban(ban(kind, value)).await.unwrap().sessions_touched, 0);
    }
    other.ping().await;
    Client::connected(&broker, connect_as("ben", connect("car-3"))).await;
}

/// Counts how often it is asked.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

#[async_trait]
impl Authenticator for Counting {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        AllowAll.authenticate(credentials).await
    }
}

#[actix_rt::test]
async fn a_banned_client_costs_no_check_of_its_password() {
    let counting = Counting::default();
    let authenticator = counting.clone();
    let broker = world_with(|builder| builder.authenticator(authenticator)).await;
    broker.put_ban(ban("user", "ann")).await.unwrap();
    is_refused(&broker, connect_as("ann", connect("c"))).await;
    assert_eq!(counting.0.load(Ordering::Relaxed), 0);
    Client::connected(&broker, connect_as("ben", connect("c"))).await;
    assert_eq!(counting.0.load(Ordering::Relaxed), 1);
}

/// Names every client `ann`, as a token may.
struct Renaming;

#[async_trait]
impl Authenticator for Renaming {
    async fn authenticate(&self, _: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        Ok(Identity { username: Some("ann".into()), ..Identity::default() })
    }
}

#[actix_rt::test]
async fn the_user_that_a_client_turns_out_to_be_counts_too() {
    let broker = world_with(|builder| builder.authenticator(Renaming)).await;
    broker.put_ban(ban("user", "ann")).await.unwrap();
    is_refused(&broker, connect_as("x", connect("c"))).await;
}

#[actix_rt::test]
async fn a_ban_ends_by_itself() {
    let broker = world().await;
    let mut wanted = ban("client_id", "c");
    wanted.ttl_secs = Some(60);
    broker.put_ban(wanted).await.unwrap();
    pass(secs(59)).await;
    is_refused(&broker, connect("c")).await;
    pass(secs(2)).await;
    Client::connected(&broker, connect("c")).await;
    assert_eq!(broker.list_bans(ListBans::new(10)).await.unwrap(), []);
}

#[actix_rt::test]
async fn bans_outlive_the_broker() {
    let disk = Disk::default();
    let first = disk.power().await;
    first.broker.put_ban(ban("client_id", "c")).await.unwrap();
    let mut wanted = ban("address", "192.0.2.0/24");
    (wanted.reason, wanted.by) = (Some("noise".into()), Some("ops".into()));
    first.broker.put_ban(wanted).await.unwrap();
    first.crash();
    let second = disk.power().await;
    is_refused(&second.broker, connect("x")).await;
    lift(&second.broker, "address", "192.0.2.0/24").await;
    is_refused(&second.broker, connect("c")).await;
    Client::connected(&second.broker, connect("x")).await;
}

#[actix_rt::test]
async fn bans_are_bounded() {
    let broker = world_within(|limits| limits.bans_max = 2).await;
    for id in ["a", "b"] {
        broker.put_ban(ban("client_id", id)).await.unwrap();
    }
    let third = broker.put_ban(ban("client_id", "c")).await;
    assert_eq!(third, Err(AccessError::TooMany("limits.bans_max")));
    broker.put_ban(ban("client_id", "a")).await.unwrap();
}

fn flapping(limits: &mut Limits) {
    limits.flapping_connects_max = 3;
    limits.flapping_window_secs = 60;
    limits.flapping_ban_secs = 300;
}

#[actix_rt::test]
async fn a_client_that_connects_too_often_is_banned_for_a_time() {
    let broker = world_within(flapping).await;
    let mut last = None;
    for _ in 0..3 {
        last = Some(Client::connected(&broker, connect("c")).await);
    }
    is_refused(&broker, connect("c")).await;
    // The connection that is there ends as well.
    let mut last = last.unwrap();
    last.expect_disconnect(ReasonCode::AdministrativeAction).await;
    let bans = broker.list_bans(ListBans::new(10)).await.unwrap();
    assert_eq!((bans.len(), bans[0].is_for_flapping, &bans[0].by), (1, true, &None));
    Client::connected(&broker, connect("other")).await;
    pass(secs(290)).await;
    is_refused(&broker, connect("c")).await;
    pass(secs(11)).await;
    Client::connected(&broker, connect("c")).await;
}

#[actix_rt::test]
async fn connections_far_apart_do_not_count_together() {
    let broker = world_within(flapping).await;
    for _ in 0..10 {
        Client::connected(&broker, connect("c")).await;
        pass(secs(21)).await;
    }
}

#[actix_rt::test]
async fn connections_do_not_count_by_default() {
    let broker = world().await;
    for _ in 0..100 {
        Client::connected(&broker, connect("c")).await;
    }
}
