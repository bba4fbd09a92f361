//! Publishers that are held because of another shard: a subscriber there has a full queue, or the
//! shard is behind with its mail. The shards run on one thread.

use std::{sync::Arc, time::Duration};

use hearthmq::{
    limits::QueueFull,
    metrics::{DropReason, HoldReason, ShardMetrics},
    mqtt::Packet,
};
use tokio::time::{Instant, timeout};

use super::numbers::{
    expect_acknowledged, one_at_a_time, send_numbers, take_numbers, take_until_answered,
};
use crate::{
    between_shards::Shards,
    support::{Client, disk::Disk, millis, packets::*, pass, secs},
};

/// Number of messages that a publisher sends in one piece: as many may be on their way when a queue
/// fills.
const PIECE: u32 = 10;
/// Maximum number of messages in the queue of one client, besides those in flight.
const QUEUE: u32 = 32;
const HOLD_SECS: u16 = 10;
/// A shard with this number of bytes to handle is behind.
const BYTES_AHEAD_MAX: usize = 8 << 20;

/// Two shards of a broker that holds publishers.
async fn holding(disk: &Disk) -> Shards {
    Shards::within(2, disk, |limits| {
        limits.queue_full = QueueFull::HoldPublisher;
        limits.queue_messages_per_client_max = QUEUE;
        limits.queue_hold_secs_max = HOLD_SECS;
    })
    .await
}

/// Returns how many messages full queues have dropped on both shards.
fn dropped(shards: &Shards) -> u64 {
    let of = |shard| metrics(shards, shard).messages_dropped.of(DropReason::QueueFull).value();
    of(0) + of(1)
}

fn metrics(shards: &Shards, shard: usize) -> Arc<ShardMetrics> {
    shards.powered.broker.metrics().shard(shard)
}

/// Connects a client at home on this shard that takes one message at a time.
async fn slow(shards: &Shards, name: &str, shard: u16, filter: &str) -> Client {
    let name = shards.resident(name, shard);
    let mut client = Client::connected(&shards.powered.broker, one_at_a_time(&name)).await;
    client.subscribe(filter, QOS_1).await;
    client
}

/// Sends messages with these numbers piece by piece; the mail of each piece is delivered before the
/// next one.
async fn send_in_pieces(client: &mut Client, topic: &str, numbers: std::ops::Range<u32>) {
    for first in numbers.clone().step_by(PIECE as usize) {
        send_numbers(client, topic, first..numbers.end.min(first + PIECE)).await;
        pass(millis(1)).await;
    }
}

/// Returns the number of acknowledgements that come until none comes for a while.
async fn acknowledged(client: &mut Client) -> u32 {
    let is_ack = |packet: Packet<'_>| assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}");
    let mut acknowledged = 0;
    while timeout(millis(500), client.receive(is_ack)).await.is_ok() {
        acknowledged += 1;
    }
    acknowledged
}

#[actix_rt::test]
async fn a_publisher_waits_for_a_full_queue_on_another_shard_and_nothing_is_lost() {
    const MESSAGES: u32 = 500;
    let disk = Disk::default();
    let shards = holding(&disk).await;
    let mut slow = slow(&shards, "slow", 1, "t").await;
    let mut publisher = shards.brief_client("p", 0).await;
    send_in_pieces(&mut publisher, "t", 0..MESSAGES).await;
    let before = acknowledged(&mut publisher).await;
    assert!((QUEUE + 1..=QUEUE + PIECE).contains(&before), "{before}");
    assert_eq!(metrics(&shards, 0).publishers_held.value(), 1);
    assert_eq!(metrics(&shards, 0).publisher_holds.of(HoldReason::SubscriberFull).value(), 1);
    take_numbers(&mut slow, 0..MESSAGES).await;
    assert_eq!(acknowledged(&mut publisher).await, MESSAGES - before);
    slow.expect_nothing().await;
    assert_eq!(dropped(&shards), 0);
    assert_eq!(metrics(&shards, 0).publishers_held.value(), 0);
}

/// Messages that are on their way when the queue becomes full exceed its bound, and are not lost.
#[actix_rt::test]
async fn what_is_on_its_way_to_a_queue_that_fills_exceeds_its_bound() {
    const MESSAGES: u32 = 100;
    let disk = Disk::default();
    let shards = holding(&disk).await;
    let mut slow = slow(&shards, "slow", 1, "t").await;
    let mut publisher = shards.brief_client("p", 0).await;
    shards.hold(0, 1);
    send_in_pieces(&mut publisher, "t", 0..MESSAGES).await;
    expect_acknowledged(&mut publisher, MESSAGES).await;
    shards.release().await;
    let queued = shards.powered.broker.metrics().totals().queue_messages.value();
    assert_eq!(queued, u64::from(MESSAGES - 1));
    send_numbers(&mut publisher, "t", MESSAGES..MESSAGES + 1).await;
    publisher.expect_nothing_for(secs(1)).await;
    take_numbers(&mut slow, 0..MESSAGES).await;
    expect_acknowledged(&mut publisher, 1).await;
    take_numbers(&mut slow, MESSAGES..MESSAGES + 1).await;
    assert_eq!(dropped(&shards), 0);
}

#[actix_rt::test]
async fn a_publisher_continues_when_the_full_client_on_another_shard_takes_nothing_or_leaves() {
    let disk = Disk::default();
    let shards = holding(&disk).await;
    let mut publisher = shards.brief_client("p", 0).await;
    for leaves in [false, true] {
        let slow = slow(&shards, "slow", 1, "t").await;
        send_in_pieces(&mut publisher, "t", 0..100).await;
        let before = acknowledged(&mut publisher).await;
        assert!(before < 100);
        if leaves {
            slow.vanish().await;
        } else {
            pass(secs(u64::from(HOLD_SECS))).await;
        }
        expect_acknowledged(&mut publisher, 100 - before).await;
        assert_eq!(metrics(&shards, 0).publishers_held.value(), 0);
    }
    assert_eq!(metrics(&shards, 1).subscribers_given_up.value(), 1);
}

/// Each publishes to the other, and receives only if it is read itself.
#[actix_rt::test]
async fn two_on_two_shards_that_publish_to_each_other_do_not_wait_forever() {
    let disk = Disk::default();
    let shards = holding(&disk).await;
    let mut a = slow(&shards, "a", 0, "for/a").await;
    let mut b = slow(&shards, "b", 1, "for/b").await;
    for first in (0..500).step_by(PIECE as usize) {
        send_numbers(&mut a, "for/b", first..first + PIECE).await;
        send_numbers(&mut b, "for/a", first..first + PIECE).await;
        pass(millis(1)).await;
    }
    let held: u64 = (0..2).map(|shard| metrics(&shards, shard).publishers_held.value()).sum();
    assert_eq!(held, 1);
    for client in [&mut a, &mut b] {
        client.send(Packet::PingReq).await;
    }
    let begun = Instant::now();
    take_until_answered(vec![a, b]).await;
    assert!(begun.elapsed() < secs(u64::from(HOLD_SECS)));
}

/// While very much mail waits for a shard, no client of another shard is read.
#[actix_rt::test]
async fn publishers_to_a_shard_that_is_behind_are_not_read_until_it_has_caught_up() {
    const BYTES: usize = 512 << 10;
    let disk = Disk::default();
    let shards = Shards::within(2, &disk, |limits| {
        limits.queue_bytes_per_client_max = 4 * BYTES_AHEAD_MAX as u64;
    })
    .await;
    let mut subscriber = shards.brief_client("s", 1).await;
    subscriber.subscribe("t", QOS_1).await;
    let mut publisher = shards.brief_client("p", 0).await;
    let mut other = shards.brief_client("other", 0).await;
    shards.hold(0, 1);
    let payload = "x".repeat(BYTES);
    let mut sent = 0;
    loop {
        sent += 1;
        publisher.publish(publish_1(sent, "t", &payload)).await;
        let answer = publisher.receive(|packet| assert!(matches!(packet, Packet::PubAck(_))));
        if timeout(Duration::from_millis(500), answer).await.is_err() {
            break;
        }
    }
    assert_eq!(usize::from(sent), BYTES_AHEAD_MAX / BYTES + 1);
    other.send(Packet::PingReq).await;
    other.expect_nothing_for(secs(1)).await;
    assert_eq!(metrics(&shards, 0).publisher_holds.of(HoldReason::ShardBehind).value(), 2);
    shards.release().await;
    other.expect(Packet::PingResp).await;
    expect_acknowledged(&mut publisher, 1).await;
    for id in 1..=sent {
        subscriber.expect_publish(publish_1(id, "t", &payload)).await;
        subscriber.take(QOS_1, id).await;
    }
    assert_eq!(dropped(&shards), 0);
}
