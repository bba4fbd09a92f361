//! The share of one user in what waits for the store, and in what waits in memory. Beyond it, the
//! user waits or loses messages, and the others do not.

use hearthmq::{
    Broker,
    metrics::{DropReason, HoldReason, UserLimit},
    mqtt::{Connect, Packet, ReasonCode},
};

use super::shares::{lasting, of, reached};
use crate::support::{
    Client,
    disk::{Disk, until_written},
    packets::*,
    pass, secs, world_within,
};

const MIB: u64 = 1 << 20;
/// What one user may have on the way to the store; half of it while the store is behind.
const STORE_SHARE: u64 = 8 * MIB;
const MESSAGE: usize = 200_000;
/// Messages that take more than the share.
const MESSAGES: u16 = 60;

fn waiting(broker: &Broker) -> u64 {
    broker.metrics().totals().store_waiting_bytes.value()
}

fn held(broker: &Broker) -> u64 {
    broker.metrics().shard(0).publishers_held.value()
}

/// Publishes more than the share of a user for its durable session; returns the client when all is sent.
fn load(broker: &Broker, user: &'static str) -> actix_rt::task::JoinHandle<Client> {
    let broker = broker.clone();
    actix_rt::spawn(async move {
        let mut client = Client::connected(&broker, of(user, connect(user))).await;
        let payload = "x".repeat(MESSAGE);
        for id in 1..=MESSAGES {
            client.publish(publish_1(id, user, &payload)).await;
        }
        client
    })
}

/// Starts a broker whose store does not go on, with durable sessions of absent clients: each user has one that
/// is subscribed to its name.
async fn with_stuck_store(disk: &Disk, users: &[&'static str]) -> crate::support::disk::Powered {
    let first = disk.power().await;
    for user in users {
        let mut client =
            Client::connected(&first.broker, lasting(user, &format!("{user}-away"))).await;
        client.subscribe(user, QOS_1).await;
        client.vanish().await;
    }
    pass(secs(1)).await;
    first.crash();
    let powered = disk.power_slowly().await;
    until_written(&powered.broker).await;
    powered.hold_writes(true);
    powered
}

#[actix_rt::test]
async fn a_user_that_loads_the_store_waits_and_the_others_go_on() {
    let disk = Disk::default();
    let powered = with_stuck_store(&disk, &["ann", "ben", "cat"]).await;
    let broker = &powered.broker;
    let ann = load(broker, "ann");
    pass(secs(1)).await;
    let of_ann = waiting(broker);
    assert!(of_ann.abs_diff(STORE_SHARE) < 2 * MESSAGE as u64, "{of_ann}");
    assert_eq!(held(broker), 1);
    // The store is behind now, so others have less, but something.
    let cat = load(broker, "cat");
    pass(secs(1)).await;
    let of_cat = waiting(broker) - of_ann;
    assert!(of_cat.abs_diff(STORE_SHARE / 2) < 2 * MESSAGE as u64, "{of_cat}");
    assert_eq!(held(broker), 2);
    let mut ben = Client::connected(broker, of("ben", connect("ben"))).await;
    ben.subscribe("echo", QOS_0).await;
    ben.publish(publish("echo", "1")).await;
    ben.expect_publish(publish("echo", "1")).await;
    ben.publish(publish_1(1, "ben", "is acknowledged when it is stored")).await;
    ben.ping().await;
    ben.publish(retained(publish("ben/retained", "x"))).await;
    ben.ping().await;
    assert_eq!(held(broker), 2);
    // What needs no store goes on for everybody, up to the first packet that needs it.
    let mut other = Client::connected(broker, of("ann", connect("other"))).await;
    other.subscribe("echo", QOS_1).await;
    other.publish(publish("echo", "2")).await;
    other.expect_publish(publish("echo", "2")).await;
    ben.expect_publish(publish("echo", "2")).await;
    other.publish(publish_1(1, "ann", "waits")).await;
    other.send(Packet::PingReq).await;
    let mut third = Client::connected(broker, of("ann", connect("third"))).await;
    third.publish(retained(publish("ann/retained", "waits too"))).await;
    third.send(Packet::PingReq).await;
    for client in [&mut other, &mut third] {
        client.expect_nothing_for(secs(1)).await;
    }
    assert_eq!(held(broker), 4);
    let holds = &broker.metrics().shard(0).publisher_holds;
    assert_eq!(holds.of(HoldReason::StoreBehind).value(), 4);
    assert_eq!(holds.of(HoldReason::ShardBehind).value(), 0);
    powered.hold_writes(false);
    let (mut ann, mut cat) = (ann.await.unwrap(), cat.await.unwrap());
    until_written(broker).await;
    for id in 1..=MESSAGES {
        ann.expect(puback(id, ReasonCode::Success)).await;
        cat.expect(puback(id, ReasonCode::Success)).await;
    }
    ben.expect(puback(1, ReasonCode::Success)).await;
    other.expect(Packet::PingResp).await; // It waits for nothing once it is read.
    other.expect(puback(1, ReasonCode::Success)).await;
    third.expect(Packet::PingResp).await;
}

/// A message that several sessions store counts once, and each session's note of it a little.
#[actix_rt::test]
async fn a_message_for_many_sessions_counts_once() {
    let disk = Disk::default();
    let first = disk.power().await;
    for number in 0..20 {
        let mut client =
            Client::connected(&first.broker, lasting("ann", &format!("away-{number}"))).await;
        client.subscribe("t", QOS_1).await;
        client.vanish().await;
    }
    pass(secs(1)).await;
    first.crash();
    let powered = disk.power_slowly().await;
    until_written(&powered.broker).await;
    powered.hold_writes(true);
    let mut client = Client::connected(&powered.broker, of("ann", connect("c"))).await;
    client.publish(publish_1(1, "t", &"x".repeat(MESSAGE))).await;
    pass(secs(1)).await;
    let counted = waiting(&powered.broker);
    assert!((MESSAGE as u64..MESSAGE as u64 + 20_000).contains(&counted), "{counted}");
    powered.hold_writes(false);
    until_written(&powered.broker).await;
    client.expect(puback(1, ReasonCode::Success)).await;
}

/// Acknowledgements and subscriptions of a durable session need the store as well.
#[actix_rt::test]
async fn what_changes_a_durable_session_waits_with_its_user() {
    let disk = Disk::default();
    let first = disk.power().await;
    let mut subscriber = Client::connected(&first.broker, lasting("ann", "s")).await;
    subscriber.subscribe("t", QOS_1).await;
    subscriber.vanish().await;
    let mut away = Client::connected(&first.broker, lasting("ann", "away")).await;
    away.subscribe("ann", QOS_1).await;
    away.vanish().await;
    first.broker.publish("t", b"x", QOS_1, false).await.unwrap();
    pass(secs(1)).await;
    first.crash();
    let powered = disk.power_slowly().await;
    let broker = &powered.broker;
    until_written(broker).await;
    let mut subscriber = Client::new(broker, V5);
    subscriber.send(Packet::Connect(Box::new(lasting("ann", "s")))).await;
    until_written(broker).await;
    assert!(subscriber.expect_connected().await);
    subscriber.expect_publish(publish_1(1, "t", "x")).await;
    until_written(broker).await;
    powered.hold_writes(true);
    let ann = load(broker, "ann");
    pass(secs(1)).await;
    assert_eq!(held(broker), 1);
    subscriber.ping().await;
    subscriber.send(puback(1, ReasonCode::Success)).await;
    pass(secs(1)).await;
    assert_eq!(held(broker), 2);
    powered.hold_writes(false);
    ann.await.unwrap();
    until_written(broker).await;
    let found = broker.client("s").await.unwrap().unwrap();
    assert_eq!((found.in_flight, found.queued), (0, 0), "{found:?}");
}

/// Returns a CONNECT of a client that takes one message at a time.
fn deaf<'a>(user: &'a str, client_id: &'a str) -> Connect<'a> {
    let mut packet = of(user, connect(client_id));
    packet.properties.receive_maximum = Some(1);
    packet
}

/// Messages that wait for clients that do not read.
#[actix_rt::test]
async fn deaf_clients_of_one_user_cost_no_other_user_a_message() {
    for (share, bytes) in [(0, 4 * MIB), (6 * MIB, 6 * MIB)] {
        let broker = world_within(|limits| {
            limits.queue_bytes_max = 16 * MIB;
            limits.queue_bytes_per_client_max = MIB;
            limits.queue_bytes_per_user_max = share;
        })
        .await;
        let queue_bytes = || broker.metrics().totals().queue_bytes.value();
        let mut clients = Vec::new();
        for number in 0..20 {
            let mut client =
                Client::connected(&broker, deaf("ann", &format!("ann-{number}"))).await;
            client.subscribe("ann", QOS_1).await;
            clients.push(client);
        }
        for _ in 0..20 {
            broker.publish("ann", &[b'x'; 100_000], QOS_1, false).await.unwrap();
        }
        assert!((bytes / 2..=bytes).contains(&queue_bytes()), "{}", queue_bytes());
        assert!(reached(&broker, UserLimit::Queued) > 0);
        let dropped =
            || broker.metrics().shard(0).messages_dropped.of(DropReason::QueueFull).value();
        let before = dropped();
        assert!(before > 0);
        let mut victim = Client::connected(&broker, deaf("ben", "victim")).await;
        victim.subscribe("ben", QOS_1).await;
        for number in 0..300 {
            let payload = format!("{number:02000}");
            broker.publish("ben", payload.as_bytes(), QOS_1, false).await.unwrap();
        }
        for number in 0..300_u16 {
            assert_eq!(victim.receive_payload().await, format!("{number:02000}"));
            victim.send(puback(number + 1, ReasonCode::Success)).await;
        }
        assert_eq!(dropped(), before);
        // What is gone makes room.
        for client in clients {
            client.vanish().await;
        }
        pass(secs(1)).await;
        assert_eq!(queue_bytes(), 0);
        let mut client = Client::connected(&broker, deaf("ann", "again")).await;
        client.subscribe("ann", QOS_1).await;
        for _ in 0..10 {
            broker.publish("ann", &[b'x'; 100_000], QOS_1, false).await.unwrap();
        }
        assert_eq!((queue_bytes(), dropped()), (900_000 + 9 * 3, before));
    }
}
