//! Work on one session with very many subscriptions or messages is done in portions, and other
//! tasks of the thread have their turn in between.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
};

use hearthmq::{
    Broker,
    auth::{AccessRequest, Action, AllowAll, Authorizer, Decision, Standing},
    metrics::{DropReason, Gauge, Totals},
    mqtt::{Packet, ReasonCode},
};

use crate::{
    authentication::rechecks::{Desk, connect_as},
    support::{
        Client, disk::Disk, forgetful_world_within, generous, millis, packets::*, pass, secs,
        world, world_where, world_with, world_within,
    },
};

/// The maximum that one turn may do: a connection does sixteen small steps of 64.
pub(super) const PORTION: usize = 16 * 64;

/// Denies subscriptions under `secret/` once it is told to, and counts the questions about
/// subscriptions.
#[derive(Clone, Default)]
pub(super) struct Rules {
    pub(super) is_strict: Arc<AtomicBool>,
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
pub(super) async fn largest_step(look: impl Fn() -> usize + 'static, last: usize) -> usize {
    let looking = async move {
        let (mut before, mut largest, mut idle) = (look(), 0, 0);
        while before != last {
            turn_of_others().await;
            let now = look();
            idle = if now == before { idle + 1 } else { 0 };
            assert!(idle < 100_000, "it stays at {now}, not {last}");
            if idle > 100 {
                tokio::time::advance(millis(1)).await;
            }
            largest = largest.max(now.abs_diff(before));
            before = now;
        }
        largest
    };
    actix_rt::spawn(looking).await.unwrap()
}

/// Waits until each other task of this thread that can do something has done it once.
async fn turn_of_others() {
    let mut has_waited = false;
    poll_fn(|task| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
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
    let looked = broker.clone();
    let largest = largest_step(move || dropped(&looked), MESSAGES).await;
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

/// A client that returns is sent nothing before all its subscriptions are checked.
#[actix_rt::test]
async fn very_many_subscriptions_of_a_client_that_returns_are_checked_in_portions() {
    const FILTERS: usize = 5_000;
    let rules = Rules::default();
    let broker = world_where(rules.clone()).await;
    for version in VERSIONS {
        rules.is_strict.store(false, Ordering::Relaxed);
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        // The first ones are checked last.
        subscribe_to(&mut client, (0..100).map(|number| format!("secret/{number}"))).await;
        subscribe_to(&mut client, (0..FILTERS).map(|number| format!("open/{number}"))).await;
        client.vanish().await;
        for topic in ["secret/1", "open/1", "secret/2"] {
            broker.publish(topic, topic.as_bytes(), QOS_1, false).await.unwrap();
        }
        rules.is_strict.store(true, Ordering::Relaxed);
        let before = rules.asked.load(Ordering::Relaxed);
        let looked = rules.clone();
        let look = actix_rt::spawn(largest_step(
            move || looked.asked.load(Ordering::Relaxed) - before,
            FILTERS + 100,
        ));
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        for topic in ["secret/3", "open/3"] {
            broker.publish(topic, topic.as_bytes(), QOS_1, false).await.unwrap();
        }
        for (packet_id, topic) in [(1, "open/1"), (2, "open/3")] {
            assert_eq!(client.receive_payload().await, topic);
            client.take(QOS_1, packet_id).await;
        }
        let largest = look.await.unwrap();
        assert!(largest <= PORTION, "{largest} in one turn");
        client.expect_nothing().await;
        let known = broker.client("c").await.unwrap().unwrap();
        assert_eq!((known.subscriptions, known.queued), (FILTERS, 0));
        Client::connected(&broker, connect_in(version, "c")).await.leave().await;
    }
}

/// The client begins a new session, and may have the room of its former one immediately.
#[actix_rt::test]
async fn very_many_subscriptions_of_a_session_that_ends_are_removed_in_portions() {
    const FILTERS: usize = 5_000;
    let bytes = FILTERS as u64 * (2 * 6 + 3 * 256);
    let broker = world_within(|limits| limits.subscription_bytes_per_user_max = bytes).await;
    for version in VERSIONS {
        let filters = || (0..FILTERS).map(|number| format!("t/{number:04}"));
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        subscribe_to(&mut client, filters()).await;
        client.vanish().await;
        let subscribed = |broker: &Broker| broker.metrics().totals().subscriptions.value() as usize;
        assert_eq!(subscribed(&broker), FILTERS);
        let looked = broker.clone();
        let look = actix_rt::spawn(largest_step(move || subscribed(&looked), 0));
        let (mut client, present) = Client::connected_with(&broker, connect_in(version, "c")).await;
        assert!(!present);
        broker.publish("t/0001", b"", QOS_1, false).await.unwrap();
        client.expect_nothing_for(millis(1)).await;
        let largest = look.await.unwrap();
        assert!(largest <= PORTION, "{largest} in one turn");
        subscribe_to(&mut client, filters()).await;
        client.vanish().await;
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        for some in filters().collect::<Vec<_>>().chunks(1_000) {
            let asked = some.iter().map(|name| filter(name, QOS_1)).collect();
            client.send(subscribe(1, asked)).await;
            client
                .receive(|packet| {
                    let Packet::SubAck(ack) = packet else { panic!("{packet:?}") };
                    assert!(ack.reasons.iter().all(|reason| !reason.is_failure()));
                })
                .await;
        }
        assert_eq!(subscribed(&broker), FILTERS);
        client.leave().await;
        pass(secs(1)).await;
        assert_eq!(subscribed(&broker), 0);
    }
}

#[actix_rt::test]
async fn the_sessions_of_an_account_that_is_gone_are_removed_in_portions() {
    const SESSIONS: usize = 40;
    const FILTERS: usize = 250;
    let desk = Desk::default();
    let broker = world_with(|builder| builder.authenticator(desk.clone())).await;
    for number in 0..SESSIONS {
        let name = number.to_string();
        let packet = connect_as("ann", connect_lasting(&name, V5));
        let mut client = Client::connected(&broker, packet).await;
        subscribe_to(&mut client, (0..FILTERS).map(|at| format!("{number}/{at}"))).await;
        client.vanish().await;
    }
    desk.now("ann", Standing::Gone);
    let looked = broker.clone();
    let subscribed = move || looked.metrics().totals().subscriptions.value() as usize;
    assert_eq!(subscribed(), SESSIONS * FILTERS);
    let look = actix_rt::spawn(largest_step(subscribed, 0));
    broker.recheck().await;
    let largest = look.await.unwrap();
    assert!(largest <= PORTION, "{largest} in one turn");
}

/// A session that has ended and has no more subscriptions is not the one that can make room. There are
/// a number at which the chores alone would come too late to the session whose room is needed.
#[actix_rt::test]
async fn a_client_has_the_room_of_its_former_session_while_others_end_before_it() {
    const OTHERS: usize = 12;
    const MESSAGES: usize = 1_000;
    const FILTERS: usize = 2_000;
    let bytes = (FILTERS * (2 * 6 + 3 * 256) + 2 * OTHERS * 600) as u64;
    let broker = world_within(|limits| limits.subscription_bytes_per_user_max = bytes).await;
    let groups: Vec<String> = (0..OTHERS).map(|number| format!("$share/{number}/t")).collect();
    for group in &groups {
        let mut member = Client::connected(&broker, connect_lasting(group, V5)).await;
        member.subscribe(group, QOS_1).await;
        member.vanish().await;
    }
    for _ in 0..MESSAGES {
        broker.publish("t", b"", QOS_1, false).await.unwrap();
    }
    let mut packet = connect_lasting("other", V5);
    packet.properties.receive_maximum = Some(1);
    let mut other = Client::connected(&broker, packet).await;
    for group in &groups {
        other.send(subscribe(1, vec![filter(group, QOS_1)])).await;
    }
    other.vanish().await;
    let filters: Vec<String> = (0..FILTERS).map(|number| format!("t/{number:04}")).collect();
    let mut client = Client::connected(&broker, connect_lasting("d", V5)).await;
    subscribe_to(&mut client, filters.iter().cloned()).await;
    client.vanish().await;
    // Their messages go to the other member in portions.
    for group in &groups {
        let (_, present) = Client::connected_with(&broker, connect(group)).await;
        assert!(!present);
    }
    let (mut client, present) = Client::connected_with(&broker, connect("d")).await;
    assert!(!present);
    let asked = filters.iter().map(|name| filter(name, QOS_1)).collect();
    client.send(subscribe(1, asked)).await;
    client.expect(suback(1, &[ReasonCode::GrantedQoS1; FILTERS])).await;
    let moved = broker.client("other").await.unwrap().unwrap().queued;
    assert!(moved < OTHERS * MESSAGES / 2, "the other sessions have ended before: {moved}");
}

/// Connects a member of a group and lets messages wait for it.
async fn leave_waiting(broker: &Broker, messages: usize) {
    let mut client = Client::connected(broker, connect_lasting("c", V5)).await;
    client.subscribe("$share/g/t", QOS_1).await;
    client.vanish().await;
    for number in 0..messages {
        broker.publish("t", number.to_string().as_bytes(), QOS_1, false).await.unwrap();
    }
}

/// Connects another member, which is sent one message and has no room for more.
async fn join(broker: &Broker) -> Client {
    let mut packet = connect_lasting("other", V5);
    packet.properties.receive_maximum = Some(1);
    let mut other = Client::connected(broker, packet).await;
    other.subscribe("$share/g/t", QOS_1).await;
    assert_eq!(other.receive_payload().await, "0");
    other
}

/// Takes messages that may be sent again, until none comes; returns their numbers in order.
async fn take_all(client: &mut Client, messages: usize) -> Vec<usize> {
    let mut taken = Vec::new();
    while taken.len() < messages {
        let (id, number) = client
            .receive(|packet| {
                let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                let number = std::str::from_utf8(publish.payload).unwrap().parse().unwrap();
                (publish.packet_id.unwrap(), number)
            })
            .await;
        taken.push(number);
        client.send(puback(id.number(), ReasonCode::Success)).await;
    }
    client.expect_nothing().await;
    taken.sort_unstable();
    taken
}

#[actix_rt::test]
async fn a_long_queue_of_a_group_whose_last_member_ends_is_dropped_in_portions() {
    let broker = world().await;
    drops_in_portions(&broker, |totals| &totals.queue_stored_messages).await;
}

#[actix_rt::test]
async fn a_long_queue_in_memory_of_such_a_group_is_dropped_in_portions() {
    let broker = forgetful_world_within(|_| {}).await;
    drops_in_portions(&broker, |totals| &totals.queue_messages).await;
}

async fn drops_in_portions(broker: &Broker, waiting: fn(&Totals) -> &Gauge) {
    const MESSAGES: usize = 3_000;
    leave_waiting(broker, MESSAGES).await;
    let looked = broker.clone();
    let waiting = move || waiting(looked.metrics().totals()).value() as usize;
    assert_eq!(waiting(), MESSAGES);
    let look = actix_rt::spawn(largest_step(waiting, 0));
    let client = Client::connected(broker, connect("c")).await;
    let largest = look.await.unwrap();
    assert!(largest <= 128, "{largest} in one turn");
    assert_eq!(broker.metrics().shard(0).sessions.value(), 1);
    client.vanish().await;
}

#[actix_rt::test]
async fn a_long_queue_of_a_session_that_ends_goes_to_the_other_members() {
    goes_to_others(&world().await).await;
}

#[actix_rt::test]
async fn a_long_queue_in_memory_of_a_session_that_ends_goes_to_the_other_members() {
    goes_to_others(&forgetful_world_within(|_| {}).await).await;
}

async fn goes_to_others(broker: &Broker) {
    const MESSAGES: usize = 3_000;
    leave_waiting(broker, MESSAGES).await;
    let mut other = join(broker).await;
    let (_client, present) = Client::connected_with(broker, connect("c")).await;
    assert!(!present);
    pass(secs(1)).await;
    assert_eq!(broker.client("other").await.unwrap().unwrap().queued, MESSAGES - 1);
    other.send(puback(1, ReasonCode::Success)).await;
    let taken = take_all(&mut other, MESSAGES - 1).await;
    assert_eq!(taken, (1..MESSAGES).collect::<Vec<_>>());
}

/// The client has been told that it has a new session, so it does not find the former one after a
/// start. A part of the messages has gone to the other member before.
#[actix_rt::test]
async fn a_session_that_was_about_to_end_ends_after_a_crash_and_loses_nothing() {
    const MESSAGES: usize = 3_000;
    for expiry in [0, 3600] {
        let disk = Disk::default();
        let first = disk.power().await;
        leave_waiting(&first.broker, MESSAGES).await;
        join(&first.broker).await.vanish().await;
        let mut packet = connect("c");
        packet.properties.session_expiry_interval = Some(expiry);
        let (client, present) = Client::connected_with(&first.broker, packet).await;
        assert!(!present);
        let moved = disk.session("other").unwrap().waiting.messages;
        assert!((1..MESSAGES - 1).contains(&moved), "{moved} before the crash");
        first.crash();
        drop(client);
        let second = disk.power().await;
        pass(secs(1)).await;
        let (client, present) =
            Client::connected_with(&second.broker, connect_lasting("c", V5)).await;
        assert_eq!(present, expiry > 0);
        let known = second.broker.client("c").await.unwrap().unwrap();
        assert_eq!((known.subscriptions, known.queued), (0, 0));
        let mut other = Client::connected(&second.broker, connect_lasting("other", V5)).await;
        let taken = take_all(&mut other, MESSAGES).await;
        assert_eq!(taken, (0..MESSAGES).collect::<Vec<_>>());
        client.vanish().await;
    }
}
