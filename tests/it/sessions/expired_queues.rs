//! Messages that expire while their client is offline: they are removed from memory and disk soon,
//! without waiting for the client, a full queue or the end of the session.

use hearthmq::{
    Broker,
    metrics::DropReason,
    mqtt::{Publish, ReasonCode},
};

use crate::{
    authentication::rechecks::take_payload,
    support::{
        Client,
        disk::{Disk, Powered},
        forgetful_world_within,
        packets::*,
        pass, secs,
    },
};

/// How long after its expiry a message may still exist, if few messages are queued.
const SOON_SECS: u64 = 3;

async fn away(broker: &Broker, client_id: &str, filter: &str) {
    let mut client = Client::connected(broker, connect_lasting(client_id, V5)).await;
    client.subscribe(filter, QOS_1).await;
    client.vanish().await;
}

async fn say(speaker: &mut Client, packet: Publish<'_>) {
    let packet_id = packet.packet_id.unwrap().number();
    speaker.publish(packet).await;
    speaker.expect(puback(packet_id, ReasonCode::Success)).await;
}

async fn speaker(broker: &Broker) -> Client {
    Client::connected(broker, connect("speaker")).await
}

async fn queued(broker: &Broker, client_id: &str) -> usize {
    broker.client(client_id).await.unwrap().unwrap().queued
}

fn stored(disk: &Disk, client_id: &str) -> usize {
    disk.session(client_id).unwrap().waiting.messages
}

fn expired(broker: &Broker) -> u64 {
    broker.metrics().shard(0).messages_dropped.of(DropReason::Expired).value()
}

/// Publishes this many messages for each of two clients; every tenth does not expire.
async fn fill(powered: &Powered, messages: usize) {
    let mut speaker = speaker(&powered.broker).await;
    for number in 0..messages {
        let payload = number.to_string();
        let secs = if number % 10 == 0 { 3_600 } else { 3 };
        say(&mut speaker, expiring(publish_1(1, "t/x", &payload), secs)).await;
    }
}

#[actix_rt::test]
async fn what_expires_for_a_client_that_is_away_leaves_memory_and_disk() {
    // In one page, and in many.
    for messages in [10, 1_500] {
        let disk = Disk::default();
        let powered =
            disk.power_within(|limits| limits.queue_messages_per_client_max = 10_000).await;
        away(&powered.broker, "a", "t/#").await;
        away(&powered.broker, "b", "t/x").await;
        fill(&powered, messages).await;
        assert_eq!(stored(&disk, "a"), messages);
        pass(secs(3 + SOON_SECS)).await;
        for client_id in ["a", "b"] {
            let left = messages / 10;
            assert_eq!(
                (stored(&disk, client_id), queued(&powered.broker, client_id).await),
                (left, left)
            );
        }
        assert_eq!(expired(&powered.broker), 2 * (messages - messages / 10) as u64);
        let connect = connect_lasting("a", V5);
        let (mut client, present) = Client::connected_with(&powered.broker, connect).await;
        assert!(present);
        for number in 0..messages / 10 {
            take_payload(&mut client, number as u16 + 1, &(10 * number).to_string()).await;
        }
        client.expect_nothing().await;
    }
}

#[actix_rt::test]
async fn what_has_expired_while_there_was_no_broker_leaves_the_disk() {
    for messages in [10, 1_000] {
        let disk = Disk::default();
        let first = disk.power().await;
        away(&first.broker, "a", "t/#").await;
        fill(&first, messages).await;
        first.crash();
        disk.grow_older(secs(60));
        let second = disk.power().await;
        pass(secs(SOON_SECS)).await;
        let left = messages / 10;
        assert_eq!((stored(&disk, "a"), queued(&second.broker, "a").await), (left, left));
    }
}

/// Without a store, so that all messages are in memory.
#[actix_rt::test]
async fn what_expires_leaves_memory_where_there_is_no_store() {
    let broker = forgetful_world_within(|_| {}).await;
    away(&broker, "a", "t/#").await;
    let mut speaker = speaker(&broker).await;
    for number in 0..200 {
        let secs = if number % 10 == 0 { 3_600 } else { 3 };
        say(&mut speaker, expiring(publish_1(1, "t/x", "x"), secs)).await;
    }
    pass(secs(3 + SOON_SECS)).await;
    assert_eq!((queued(&broker, "a").await, expired(&broker)), (20, 180));
    assert_eq!(broker.metrics().totals().queue_messages.value(), 20);
}

#[actix_rt::test]
async fn nothing_is_looked_at_where_nothing_expires() {
    let disk = Disk::default();
    let powered = disk.power().await;
    away(&powered.broker, "a", "t/#").await;
    away(&powered.broker, "b", "u").await;
    let mut speaker = speaker(&powered.broker).await;
    for number in 0..500 {
        say(&mut speaker, publish_1(1, "t/x", &number.to_string())).await;
    }
    say(&mut speaker, expiring(publish_1(1, "u", "x"), 7_200)).await;
    pass(secs(3_000)).await;
    drop(speaker);
    powered.crash();
    let powered = disk.power().await;
    pass(secs(400)).await;
    // Each start has looked for messages on their way between shards.
    assert_eq!(disk.pages_read(), 2);
    assert_eq!((stored(&disk, "a"), queued(&powered.broker, "a").await), (500, 500));
}

/// Messages expire one after the other: the rest is not read each time.
#[actix_rt::test]
async fn a_queue_that_expires_bit_by_bit_is_not_read_all_the_time() {
    let disk = Disk::default();
    let powered = disk.power().await;
    away(&powered.broker, "a", "t/#").await;
    let mut speaker = speaker(&powered.broker).await;
    for number in 1..=640 {
        say(&mut speaker, expiring(publish_1(1, "t/x", "x"), number)).await;
    }
    pass(secs(640 + 2 * SOON_SECS)).await;
    assert_eq!((stored(&disk, "a"), queued(&powered.broker, "a").await), (0, 0));
    // Ten pages at first; a look every second would read 3,500.
    assert!(disk.pages_read() < 1_500, "{} pages", disk.pages_read());
}

/// The client returns before the removal, and disconnects again.
#[actix_rt::test]
async fn a_client_that_comes_in_between_takes_what_has_not_expired() {
    let disk = Disk::default();
    let powered = disk.power().await;
    away(&powered.broker, "a", "t/#").await;
    fill(&powered, 100).await;
    pass(secs(2)).await;
    let mut packet = connect_lasting("a", V5);
    packet.properties.receive_maximum = Some(1);
    let mut client = Client::connected(&powered.broker, packet).await;
    assert_eq!(client.receive_payload().await, "0");
    client.vanish().await;
    pass(secs(1 + 2 * SOON_SECS)).await;
    // One is in flight.
    assert_eq!((stored(&disk, "a"), queued(&powered.broker, "a").await), (9, 9));
}

/// A removal that fails is tried again.
#[actix_rt::test]
async fn what_expires_while_the_store_fails_leaves_it_afterwards() {
    let disk = Disk::default();
    let powered = disk.power().await;
    away(&powered.broker, "a", "t/#").await;
    fill(&powered, 100).await;
    powered.fail(true);
    pass(secs(60)).await;
    assert_eq!(stored(&disk, "a"), 100);
    powered.fail(false);
    pass(secs(SOON_SECS)).await;
    assert_eq!((stored(&disk, "a"), queued(&powered.broker, "a").await), (10, 10));
}
