//! Full queues with `hold-publisher`: a publisher to an online client is held and nothing is lost.
//! It is not held for an offline client, for one that takes nothing, or in a cycle.

use std::time::Duration;

use hearthmq::{
    Broker,
    limits::{Limits, QueueFull},
    metrics::{DropReason, HoldReason},
    mqtt::{Packet, QoS, ReasonCode},
};

use super::numbers::{
    expect_acknowledged, one_at_a_time, send_numbers, take_number, take_numbers,
    take_until_answered,
};
use crate::support::{Client, millis, packets::*, pass, secs, stream_of, world_within};

/// Maximum number of messages in the queue of one client, besides those in flight.
const QUEUE: u32 = 32;
const HOLD_SECS: u16 = 10;

async fn holding() -> Broker {
    holding_within(|_| {}).await
}

async fn holding_within(change: impl FnOnce(&mut Limits)) -> Broker {
    world_within(|limits| {
        limits.queue_full = QueueFull::HoldPublisher;
        limits.queue_messages_per_client_max = QUEUE;
        limits.queue_hold_secs_max = HOLD_SECS;
        change(limits);
    })
    .await
}

fn dropped(broker: &Broker) -> u64 {
    broker.metrics().shard(0).messages_dropped.of(DropReason::QueueFull).value()
}

#[actix_rt::test]
async fn a_publisher_to_a_full_queue_waits_and_nothing_is_lost() {
    const MESSAGES: u32 = 1000;
    let broker = holding().await;
    let mut slow = Client::connected(&broker, one_at_a_time("slow")).await;
    slow.subscribe("t", QOS_1).await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    send_numbers(&mut publisher, "t", 0..MESSAGES).await;
    // One is in flight and the queue is full; the next one is not accepted.
    expect_acknowledged(&mut publisher, QUEUE + 1).await;
    let metrics = broker.metrics().shard(0);
    assert_eq!(metrics.publishers_held.value(), 1);
    assert_eq!(metrics.publisher_holds.of(HoldReason::SubscriberFull).value(), 1);
    assert_eq!(broker.metrics().totals().sessions_over_half_queue.value(), 1);
    for number in 0..MESSAGES {
        take_numbers(&mut slow, number..number + 1).await;
        assert!(broker.metrics().totals().queue_messages.value() <= u64::from(QUEUE));
    }
    expect_acknowledged(&mut publisher, MESSAGES - QUEUE - 1).await;
    slow.ping().await;
    assert_eq!(dropped(&broker), 0);
    assert_eq!(metrics.publishers_held.value(), 0);
    assert!(metrics.publishers_held_millis.value() >= 500);
    let metrics = broker.metrics();
    assert_eq!(metrics.totals().queue_messages_highest.value(), u64::from(QUEUE));
    assert_eq!(metrics.totals().sessions_over_half_queue.value(), 0);
}

/// The limit in bytes works like that in messages; one message may exceed it.
#[actix_rt::test]
async fn a_queue_that_is_full_of_bytes_holds_publishers_too() {
    let broker = holding_within(|limits| limits.queue_bytes_per_client_max = 10_000).await;
    let mut slow = Client::connected(&broker, one_at_a_time("slow")).await;
    slow.subscribe("t", QOS_2).await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    let payload = "x".repeat(4_000);
    for packet_id in 1..=10 {
        publisher.publish(publish_2(packet_id, "t", &payload)).await;
    }
    for packet_id in 1..=4 {
        publisher.expect(pubrec(packet_id, ReasonCode::Success)).await;
    }
    publisher.expect_nothing_for(secs(1)).await;
    for packet_id in 1..=10 {
        slow.expect_publish(publish_2(packet_id, "t", &payload)).await;
        slow.take(QOS_2, packet_id).await;
    }
    assert_eq!(dropped(&broker), 0);
}

/// Only publishers with a message for the full client are held.
#[actix_rt::test]
async fn nobody_else_waits() {
    let broker = holding().await;
    let mut slow = Client::connected(&broker, one_at_a_time("slow")).await;
    slow.subscribe("t/#", QOS_1).await;
    let mut fast = Client::connected(&broker, connect("fast")).await;
    fast.subscribe("+", QOS_1).await;
    let mut held = Client::connected(&broker, connect("held")).await;
    send_numbers(&mut held, "t", 0..100).await;
    let mut free = Client::connected(&broker, connect("free")).await;
    send_numbers(&mut free, "u", 0..1000).await;
    for _ in 0..QUEUE + 1 + 1000 {
        take_number(&mut fast).await;
    }
    expect_acknowledged(&mut free, 1000).await;
    // QoS 0 holds no publisher, and overtakes messages that wait for an acknowledgement.
    free.publish(publish("t/0", "x")).await;
    free.ping().await;
    slow.receive(|packet| assert!(matches!(packet, Packet::Publish(_)))).await;
    slow.expect_publish(publish("t/0", "x")).await;
    assert_eq!(dropped(&broker), 0);
    assert_eq!(broker.metrics().shard(0).publishers_held.value(), 1);
}

#[actix_rt::test]
async fn who_takes_nothing_is_waited_for_so_long_and_no_longer() {
    let broker = holding().await;
    let mut dead = Client::connected(&broker, one_at_a_time("dead")).await;
    dead.subscribe("t", QOS_1).await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    send_numbers(&mut publisher, "t", 0..100).await;
    expect_acknowledged(&mut publisher, QUEUE + 1).await;
    pass(secs(u64::from(HOLD_SECS))).await;
    expect_acknowledged(&mut publisher, 100 - QUEUE - 1).await;
    let metrics = broker.metrics().shard(0);
    assert_eq!(metrics.subscribers_given_up.value(), 1);
    assert_eq!(dropped(&broker), u64::from(100 - QUEUE - 1));
    // It has lost its oldest messages. When it takes the rest, publishers are held for it again.
    take_numbers(&mut dead, 0..1).await;
    take_numbers(&mut dead, 100 - QUEUE..100).await;
    send_numbers(&mut publisher, "t", 0..100).await;
    expect_acknowledged(&mut publisher, QUEUE + 1).await;
}

/// As long as it takes messages, publishers are held for it.
#[actix_rt::test]
async fn who_takes_one_message_a_second_is_waited_for() {
    let broker = holding().await;
    let mut slow = Client::connected(&broker, one_at_a_time("slow")).await;
    slow.subscribe("t", QOS_1).await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    send_numbers(&mut publisher, "t", 0..200).await;
    for number in 0..200 {
        take_numbers(&mut slow, number..number + 1).await;
        pass(secs(1)).await;
    }
    assert_eq!(dropped(&broker), 0);
    assert_eq!(broker.metrics().shard(0).subscribers_given_up.value(), 0);
}

#[actix_rt::test]
async fn nobody_waits_for_a_client_that_is_away() {
    let broker = holding().await;
    let mut packet = connect_lasting("c", V5);
    packet.properties.receive_maximum = Some(1);
    let mut client = Client::connected(&broker, packet.clone()).await;
    client.subscribe("t", QOS_1).await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    send_numbers(&mut publisher, "t", 0..100).await;
    expect_acknowledged(&mut publisher, QUEUE + 1).await;
    client.vanish().await;
    expect_acknowledged(&mut publisher, 100 - QUEUE - 1).await;
    assert_eq!(dropped(&broker), u64::from(100 - QUEUE - 1));
    // It returns with a full queue: publishers are held at once.
    let mut client = Client::connected(&broker, packet).await;
    send_numbers(&mut publisher, "t", 100..200).await;
    publisher.expect_nothing_for(secs(1)).await;
    take_numbers(&mut client, 0..1).await;
    take_numbers(&mut client, 100 - QUEUE..200).await;
}

#[actix_rt::test]
async fn who_publishes_to_itself_does_not_wait_for_itself() {
    let broker = holding().await;
    let mut client = Client::connected(&broker, one_at_a_time("c")).await;
    client.subscribe("t", QOS_1).await;
    send_numbers(&mut client, "t", 0..100).await;
    client.send(Packet::PingReq).await;
    let (mut acknowledged, mut is_answered) = (0, false);
    while !is_answered {
        client
            .receive(|packet| match packet {
                Packet::PubAck(_) => acknowledged += 1,
                Packet::PingResp => is_answered = true,
                packet => assert!(matches!(packet, Packet::Publish(_)), "{packet:?}"),
            })
            .await;
    }
    assert_eq!(acknowledged, 100);
    assert_eq!(broker.client("c").await.unwrap().unwrap().queued, QUEUE as usize);
}

/// Each publishes to the other, and receives only if it is read itself.
#[actix_rt::test]
async fn two_that_publish_to_each_other_do_not_wait_forever() {
    let broker = holding().await;
    let mut clients = Vec::new();
    for (client_id, filter) in [("a", "for/a"), ("b", "for/b")] {
        let mut client = Client::connected(&broker, one_at_a_time(client_id)).await;
        client.subscribe(filter, QOS_1).await;
        clients.push(client);
    }
    for (at, topic) in [(0, "for/b"), (1, "for/a")] {
        send_numbers(&mut clients[at], topic, 0..500).await;
    }
    for client in &mut clients {
        client.send(Packet::PingReq).await;
    }
    let begun = tokio::time::Instant::now();
    take_until_answered(clients).await;
    assert!(begun.elapsed() < secs(u64::from(HOLD_SECS)));
}

/// a → b → c: c is slow, b is held for it, and a is held for b, which is not read. Nothing is lost.
#[actix_rt::test]
async fn back_pressure_reaches_along_a_chain() {
    const MESSAGES: u32 = 400;
    let broker = holding().await;
    let mut c = Client::connected(&broker, one_at_a_time("c")).await;
    c.subscribe("for/c", QOS_1).await;
    let mut b = Client::connected(&broker, one_at_a_time("b")).await;
    b.subscribe("for/b", QOS_1).await;
    let mut a = Client::connected(&broker, connect("a")).await;
    send_numbers(&mut b, "for/c", 0..MESSAGES).await;
    send_numbers(&mut a, "for/b", 0..MESSAGES).await;
    pass(secs(1)).await;
    assert_eq!(broker.metrics().shard(0).publishers_held.value(), 2);
    for number in 0..MESSAGES {
        take_numbers(&mut c, number..number + 1).await;
        pass(millis(100)).await;
    }
    let mut expected = 0;
    while expected < MESSAGES {
        let arrived = b
            .receive(|packet| match packet {
                Packet::Publish(publish) => {
                    let number: u32 = str::from_utf8(publish.payload).unwrap().parse().unwrap();
                    Some((number, publish.packet_id.unwrap().number()))
                }
                packet => {
                    assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}");
                    None
                }
            })
            .await;
        if let Some((number, id)) = arrived {
            assert_eq!(number, expected);
            expected += 1;
            b.send(puback(id, ReasonCode::Success)).await;
        }
    }
    assert_eq!(dropped(&broker), 0);
}

/// a → b → c, where b takes nothing, and c takes just enough that b is always held. This must not
/// excuse b without end, or two clients could stop all others.
#[actix_rt::test]
async fn who_takes_nothing_and_is_held_is_waited_for_so_long_and_no_longer() {
    let broker = holding().await;
    let mut c = Client::connected(&broker, one_at_a_time("c")).await;
    c.subscribe("for/c", QOS_1).await;
    let mut b = Client::connected(&broker, one_at_a_time("b")).await;
    b.subscribe("for/b", QOS_1).await;
    send_numbers(&mut b, "for/c", 0..1000).await;
    let mut a = Client::connected(&broker, connect("a")).await;
    send_numbers(&mut a, "for/b", 0..100).await;
    expect_acknowledged(&mut a, QUEUE + 1).await;
    let metrics = broker.metrics().shard(0);
    for round in 0..10 {
        pass(secs(5)).await;
        take_numbers(&mut c, round * 4..round * 4 + 4).await;
        assert!(round > 6 || metrics.subscribers_given_up.value() == 0, "{round}");
    }
    expect_acknowledged(&mut a, 100 - QUEUE - 1).await;
    assert_eq!(metrics.subscribers_given_up.value(), 1);
}

/// Data that was read from a held client and not handled counts as incomplete packets. If there is
/// no room for it, the client still stays connected, as it cannot do anything about it.
#[actix_rt::test]
async fn what_waits_to_be_handled_is_counted_and_ends_nobody() {
    let broker = holding_within(|limits| limits.incomplete_packet_bytes_max = 70_000).await;
    let mut slow = Client::connected(&broker, one_at_a_time("slow")).await;
    slow.subscribe("t", QOS_1).await;
    let mut publishers = Vec::new();
    for client_id in ["p", "q"] {
        let mut publisher = Client::connected(&broker, connect(client_id)).await;
        send_numbers(&mut publisher, "t", 0..5_000).await;
        publishers.push(publisher);
    }
    pass(secs(1)).await;
    let taken = || broker.metrics().totals().incomplete_packet_bytes.value();
    assert!((32 * 1024..=70_000).contains(&taken()), "{}", taken());
    for _ in 0..10_000 {
        take_number(&mut slow).await;
    }
    for publisher in &mut publishers {
        expect_acknowledgements(publisher, 5_000).await;
    }
    assert_eq!((taken(), dropped(&broker)), (0, 0));
}

/// A held client is not read, so its Keep Alive must not expire meanwhile.
#[actix_rt::test]
async fn the_keep_alive_of_who_is_held_does_not_end() {
    let broker = holding_within(|limits| limits.queue_hold_secs_max = 100).await;
    let mut slow = Client::connected(&broker, one_at_a_time("slow")).await;
    slow.subscribe("t", QOS_1).await;
    let mut packet = connect("p");
    packet.keep_alive = 10;
    let mut publisher = Client::connected(&broker, packet).await;
    send_numbers(&mut publisher, "t", 0..100).await;
    expect_acknowledged(&mut publisher, QUEUE + 1).await;
    for _ in 0..12 {
        pass(secs(5)).await;
        publisher.send(Packet::PingReq).await;
    }
    assert!(broker.online("p").await.unwrap());
    take_numbers(&mut slow, 0..100).await;
    expect_acknowledged_and_answered(&mut publisher, 100 - QUEUE - 1, 12).await;
    // From now on it counts again.
    pass(secs(16)).await;
    assert!(!broker.online("p").await.unwrap());
}

pub(super) async fn expect_acknowledged_and_answered(
    client: &mut Client,
    messages: u32,
    pings: u32,
) {
    expect_acknowledgements(client, messages).await;
    for _ in 0..pings {
        client.expect(Packet::PingResp).await;
    }
}

async fn expect_acknowledgements(client: &mut Client, messages: u32) {
    for _ in 0..messages {
        client.receive(|packet| assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}")).await;
    }
}

/// Long before the queue is given up. Messages that were not acknowledged are dropped with the client.
#[actix_rt::test]
async fn who_leaves_while_a_queue_holds_it_is_offline_within_seconds() {
    let broker = holding_within(|limits| limits.queue_hold_secs_max = 100).await;
    let mut watcher = Client::connected(&broker, connect("watcher")).await;
    watcher.subscribe("will", QOS_1).await;
    let mut slow = Client::connected(&broker, one_at_a_time("slow")).await;
    slow.subscribe("t", QOS_1).await;
    for is_polite in [false, true] {
        let mut packet = connect("p");
        packet.will = Some(will("will", "gone"));
        let mut publisher = Client::connected(&broker, packet).await;
        send_numbers(&mut publisher, "t", 0..100).await;
        pass(secs(1)).await;
        if is_polite {
            publisher.send(disconnect(ReasonCode::Success)).await;
        }
        drop(publisher);
        pass(secs(2)).await;
        assert!(!broker.online("p").await.unwrap());
        match is_polite {
            true => watcher.expect_nothing().await,
            false => watcher.expect_publish(publish("will", "gone")).await,
        }
    }
    take_numbers(&mut slow, 0..QUEUE + 1).await;
    slow.ping().await;
    assert_eq!(dropped(&broker), 0);
}

/// A held publisher that is taken over, or kicked, or whose broker shuts down.
#[actix_rt::test]
async fn who_is_held_can_be_taken_over_and_told_goodbye() {
    let broker = holding().await;
    let mut slow = Client::connected(&broker, one_at_a_time("slow")).await;
    slow.subscribe("t", QOS_1).await;
    let mut first = Client::connected(&broker, connect("p")).await;
    send_numbers(&mut first, "t", 0..100).await;
    expect_acknowledged(&mut first, QUEUE + 1).await;
    let mut second = Client::connected(&broker, connect("p")).await;
    first.expect_disconnect(ReasonCode::SessionTakenOver).await;
    second.ping().await;
    send_numbers(&mut second, "t", 100..101).await;
    second.expect_nothing_for(secs(1)).await;
    broker.shutdown(secs(5)).await;
    second.expect_disconnect(ReasonCode::ServerShuttingDown).await;
}

/// In a shared subscription a member that can be sent the message gets it; only without such a
/// member does it wait.
#[actix_rt::test]
async fn a_full_member_of_a_shared_subscription_is_passed_over() {
    let broker = holding().await;
    let mut slow = Client::connected(&broker, one_at_a_time("slow")).await;
    slow.subscribe("$share/g/t", QOS_1).await;
    let mut fast = Client::connected(&broker, connect("fast")).await;
    fast.subscribe("$share/g/t", QOS_1).await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    send_numbers(&mut publisher, "t", 0..500).await;
    for _ in 0..500 - 1 {
        take_number(&mut fast).await;
    }
    expect_acknowledged(&mut publisher, 500).await;
    assert_eq!(broker.client("slow").await.unwrap().unwrap().queued, 0);
    assert_eq!(dropped(&broker), 0);
}

/// A client that takes its input one byte at a time.
#[actix_rt::test]
async fn who_reads_byte_by_byte_gets_everything() {
    use tokio::io::AsyncReadExt;
    let broker = holding().await;
    let mut slow = Client::on(stream_of(&broker, 64), V5);
    slow.connect(connect("slow")).await;
    slow.subscribe("t", QOS_1).await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    let payload = "x".repeat(2_000);
    for number in 1..=200 {
        publisher.publish(publish_1(number, "t", &payload)).await;
    }
    pass(secs(1)).await;
    assert_eq!(broker.metrics().shard(0).publishers_held.value(), 1);
    let (mut messages, mut bytes) = (0, Vec::new());
    while messages < 200 {
        bytes.push(slow.stream.read_u8().await.unwrap());
        if let Ok(hearthmq::mqtt::Decoded::Packet { packet, .. }) =
            hearthmq::mqtt::decode(&bytes, V5, &hearthmq::mqtt::DecodeLimits::default())
        {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            assert_eq!(publish.payload, payload.as_bytes());
            let id = publish.packet_id.unwrap().number();
            bytes.clear();
            messages += 1;
            slow.send(puback(id, ReasonCode::Success)).await;
        }
    }
    assert_eq!(dropped(&broker), 0);
    assert_eq!(broker.metrics().shard(0).subscribers_given_up.value(), 0);
}

/// The application's own messages are held as well: the answer to a publish comes late.
#[actix_rt::test]
async fn the_application_waits_too() {
    let broker = holding().await;
    let mut slow = Client::connected(&broker, one_at_a_time("slow")).await;
    slow.subscribe("t", QOS_1).await;
    let publishing = {
        let broker = broker.clone();
        actix_rt::spawn(async move {
            for number in 0..200 {
                let payload = number.to_string();
                broker.publish("t", payload.as_bytes(), QoS::AtLeastOnce, false).await.unwrap();
            }
        })
    };
    pass(Duration::from_secs(1)).await;
    assert!(!publishing.is_finished());
    take_numbers(&mut slow, 0..200).await;
    publishing.await.unwrap();
    assert_eq!(dropped(&broker), 0);
    assert!(broker.metrics().totals().queue_messages_highest.value() <= u64::from(QUEUE) + 1);
}
