//! Work on one session with very many subscriptions or messages is done in portions, and other
//! tasks of the thread have their turn in between.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use hearthmq::{
    Broker,
    auth::{AccessRequest, Action, AllowAll, Authorizer, Decision},
    metrics::DropReason,
    mqtt::Packet,
};

use super::support::{Client, generous, millis, packets::*};

/// The maximum that one turn may do.
const PORTION: usize = 512;

/// Denies subscriptions under `secret/` once it is told to, and counts the questions about
/// subscriptions.
#[derive(Clone, Default)]
struct Rules {
    is_strict: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Authorizer for Rules {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let Action::Subscribe { filter, .. } = request.action else { return Decision::Allow };
        self.asked.fetch_add(1, Ordering::Relaxed);
        let is_denied = self.is_strict.load(Ordering::Relaxed) && filter.starts_with("secret/");
        if is_denied { Decision::Deny } else { Decision::Allow }
    }
}

/// Looks at a number after each turn of the other tasks until it is `last`; returns the largest
/// change between two looks. Time passes when nothing changes.
async fn largest_step(look: impl Fn() -> usize, last: usize) -> usize {
    let (mut before, mut largest, mut idle) = (look(), 0, 0);
    while before != last {
        tokio::task::yield_now().await;
        let now = look();
        idle = if now == before { idle + 1 } else { 0 };
        assert!(idle < 100_000, "it stays at {now}, and is to be {last}");
        if idle > 20 {
            tokio::time::advance(millis(1)).await;
        }
        largest = largest.max(now.abs_diff(before));
        before = now;
    }
    largest
}

fn dropped(broker: &Broker) -> usize {
    let of = |reason| broker.metrics().shard(0).messages_dropped.of(reason).value();
    of(DropReason::SubscriptionWithdrawn) as usize
}

async fn subscribe_to(client: &mut Client, filters: impl Iterator<Item = String>) {
    let filters: Vec<String> = filters.collect();
    for some in filters.chunks(1_000) {
        let some = some.iter().map(|name| filter(name, QOS_1)).collect();
        client.send(subscribe(1, some)).await;
        client.receive(|packet| assert!(matches!(packet, Packet::SubAck(_)))).await;
    }
}

/// Queues messages for a client that acknowledges nothing.
async fn queue(broker: &Broker, topic: &str, messages: usize) {
    for _ in 0..messages {
        broker.publish(topic, b"secret", QOS_1, false).await.unwrap();
    }
}

/// The client is connected and does not acknowledge, so its queue is in memory.
#[actix_rt::test]
async fn a_long_queue_under_a_subscription_that_ends_is_dropped_in_portions() {
    const MESSAGES: usize = 5_000;
    tokio::time::pause();
    let rules = Rules::default();
    let broker = Broker::builder().on_current_arbiter().limits(generous());
    let broker = broker.authenticator(AllowAll).authorizer(rules.clone()).start().await.unwrap();
    let mut packet = connect("c");
    packet.properties.receive_maximum = Some(1);
    let mut client = Client::connected(&broker, packet).await;
    subscribe_to(&mut client, (0..3_000).map(|number| format!("other/{number}"))).await;
    client.subscribe("secret/#", QOS_1).await;
    queue(&broker, "open/first", 1).await;
    queue(&broker, "secret/x", MESSAGES + 1).await;
    queue(&broker, "other/7", 1).await;
    assert_eq!(client.receive_payload().await, "secret");
    rules.is_strict.store(true, Ordering::Relaxed);
    let checked = broker.clone();
    let check = actix_rt::spawn(async move { checked.recheck().await });
    let largest = largest_step(|| dropped(&broker), MESSAGES).await;
    assert!(largest <= PORTION, "{largest} in one turn");
    check.await.unwrap();
    assert_eq!(broker.client("c").await.unwrap().unwrap().queued, 1);
    client.take(QOS_1, 1).await;
    client
        .receive(|packet| {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            assert_eq!(publish.topic, "other/7");
        })
        .await;
    client.take(QOS_1, 2).await;
    client.expect_nothing().await;
}
