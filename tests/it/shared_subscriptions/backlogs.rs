//! Shared subscriptions whose members are all offline: messages queued for one of them go to the
//! member that returns, or to a new one. Section 4.8.2.

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use hearthmq::{
    Broker,
    auth::{AccessRequest, AllowAll, Authorizer, Decision},
    mqtt::{Connect, Packet, QoS, ReasonCode},
};

use crate::{
    authentication::rechecks::{Denied, connect_as},
    support::{Client, builder, disk::Disk, generous, packets::*, pass, secs, world, world_within},
};

const GROUP: &str = "$share/g/t/#";

async fn join(broker: &Broker, connect: Connect<'_>) -> Client {
    let mut client = Client::connected(broker, connect).await;
    client.subscribe(GROUP, QOS_2).await;
    client
}

/// Creates sessions of a group whose clients are all offline.
async fn absent(broker: &Broker, client_ids: &[&str]) {
    for client_id in client_ids {
        join(broker, connect_lasting(client_id, V5)).await.vanish().await;
    }
}

async fn back(broker: &Broker, client_id: &str) -> Client {
    Client::connected(broker, connect_lasting(client_id, V5)).await
}

async fn back_with_window(broker: &Broker, client_id: &str, window: u16) -> Client {
    let mut packet = connect_lasting(client_id, V5);
    packet.properties.receive_maximum = Some(window);
    Client::connected(broker, packet).await
}

async fn publish_numbers(broker: &Broker, numbers: std::ops::Range<u32>) {
    for number in numbers {
        // QoS 1 and 2 in turn.
        let qos = if number % 2 == 0 { QOS_1 } else { QOS_2 };
        broker.publish("t/x", number.to_string().as_bytes(), qos, false).await.unwrap();
    }
}

/// Takes the next message, and acknowledges it as its QoS requires.
async fn take_next(client: &mut Client) -> u32 {
    enum Came {
        Message(u32, QoS, u16),
        Released(u16),
    }
    loop {
        let came = client.receive(|packet| match packet {
            Packet::Publish(publish) => {
                let number = str::from_utf8(publish.payload).unwrap().parse().unwrap();
                let id = publish.packet_id.map_or(0, |id| id.number());
                Came::Message(number, publish.flags.qos, id)
            }
            Packet::PubRel(released) => Came::Released(released.packet_id.number()),
            other => panic!("{other:?}"),
        });
        match came.await {
            Came::Message(number, qos, id) => {
                match qos {
                    QOS_2 => client.send(pubrec(id, ReasonCode::Success)).await,
                    QOS_1 => client.send(puback(id, ReasonCode::Success)).await,
                    _ => {}
                }
                return number;
            }
            Came::Released(id) => client.send(pubcomp(id)).await,
        }
    }
}

async fn expect_in_order(client: &mut Client, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(take_next(client).await, number);
    }
}

/// Takes messages until no more come.
async fn take_all(client: &mut Client) -> Vec<u32> {
    let mut all = Vec::new();
    while let Ok(number) = tokio::time::timeout(secs(1), take_next(client)).await {
        all.push(number);
    }
    all
}

async fn expect_no_more(client: &mut Client) {
    assert_eq!(take_all(client).await, Vec::<u32>::new());
}

/// Starts two brokers, one with its sessions in a store and one in memory.
async fn on_both() -> [Broker; 2] {
    let kept = Disk::default().power().await.broker;
    let in_memory = Broker::builder().on_current_arbiter().limits(generous());
    let in_memory = in_memory.authenticator(AllowAll).authorizer(AllowAll);
    [kept, in_memory.start().await.unwrap()]
}

#[actix_rt::test]
async fn what_waited_while_all_were_away_goes_to_the_member_that_returns() {
    let broker = world().await;
    absent(&broker, &["a", "b", "c"]).await;
    publish_numbers(&broker, 0..30).await;
    let mut b = back(&broker, "b").await;
    expect_in_order(&mut b, 0..30).await;
    expect_no_more(&mut b).await;
    for client_id in ["a", "c"] {
        expect_no_more(&mut back(&broker, client_id).await).await;
    }
}

/// Only the sessions of offline members have the messages, in memory or in the store.
#[actix_rt::test]
async fn a_long_backlog_goes_to_the_member_that_returns_as_it_takes_it() {
    for window in [1, 20, u16::MAX] {
        for broker in &on_both().await {
            absent(broker, &["a", "b", "c"]).await;
            publish_numbers(broker, 0..300).await;
            let mut b = back_with_window(broker, "b", window).await;
            expect_in_order(&mut b, 0..300).await;
            expect_no_more(&mut b).await;
            assert_eq!(broker.metrics().totals().queue_messages.value(), 0);
        }
    }
}

#[actix_rt::test]
async fn a_backlog_goes_to_who_joins() {
    let broker = world().await;
    absent(&broker, &["a", "b"]).await;
    publish_numbers(&broker, 0..10).await;
    let mut new = join(&broker, connect("new")).await;
    expect_in_order(&mut new, 0..10).await;
    expect_no_more(&mut new).await;
}

#[actix_rt::test]
async fn a_backlog_goes_to_a_subscriber_in_this_process() {
    let broker = world().await;
    absent(&broker, &["a", "b"]).await;
    publish_numbers(&broker, 0..100).await;
    let mut here = broker.subscribe(GROUP, QOS_1).unwrap();
    for number in 0..100 {
        let received = here.next().await.unwrap();
        assert_eq!(received.message.publication().payload, number.to_string().as_bytes());
    }
    expect_no_more(&mut back(&broker, "a").await).await;
}

#[actix_rt::test]
async fn a_backlog_outlives_the_broker_and_goes_to_the_member_that_returns() {
    let disk = Disk::default();
    let first = disk.power().await;
    absent(&first.broker, &["a", "b", "c"]).await;
    publish_numbers(&first.broker, 0..200).await;
    first.crash();
    let second = disk.power().await;
    let mut c = back(&second.broker, "c").await;
    let mut had = BTreeSet::new();
    while had.len() < 200 {
        assert!(had.insert(take_next(&mut c).await));
    }
    expect_no_more(&mut c).await;
}

/// Two returned members share the remaining messages; a slow member delays only what it was sent.
#[actix_rt::test]
async fn what_a_slow_member_has_no_room_for_goes_to_the_next_that_returns() {
    let broker = world().await;
    absent(&broker, &["a", "b", "c"]).await;
    publish_numbers(&broker, 0..20).await;
    let mut slow = back_with_window(&broker, "b", 1).await;
    assert_eq!(slow.receive_payload().await, "0");
    expect_no_more(&mut slow).await;
    let mut quick = back(&broker, "c").await;
    expect_in_order(&mut quick, 1..20).await;
    expect_no_more(&mut quick).await;
    slow.send(puback(1, ReasonCode::Success)).await;
    expect_no_more(&mut slow).await;
}

/// A message published while a member still takes the backlog comes after it.
#[actix_rt::test]
async fn a_backlog_keeps_its_order_while_more_is_published() {
    let broker = world().await;
    absent(&broker, &["a", "b"]).await;
    publish_numbers(&broker, 0..10).await;
    let mut b = back_with_window(&broker, "b", 1).await;
    for number in 0..10 {
        assert_eq!(take_next(&mut b).await, number);
        publish_numbers(&broker, 10 + number..11 + number).await;
    }
    expect_in_order(&mut b, 10..20).await;
    // The backlog is empty, and no message needs to go through offline members.
    expect_no_more(&mut b).await;
    publish_numbers(&broker, 20..30).await;
    assert_eq!(broker.client("a").await.unwrap().unwrap().queued, 0);
    expect_in_order(&mut b, 20..30).await;
}

/// A new member takes messages that wait for a member that is stuck.
#[actix_rt::test]
async fn who_joins_takes_what_waits_at_a_member_that_is_stuck() {
    let broker = world().await;
    let mut packet = connect_lasting("stuck", V5);
    packet.properties.receive_maximum = Some(1);
    let mut stuck = join(&broker, packet).await;
    publish_numbers(&broker, 0..10).await;
    assert_eq!(stuck.receive_payload().await, "0");
    let mut new = join(&broker, connect("new")).await;
    expect_in_order(&mut new, 1..10).await;
    stuck.take(QOS_1, 1).await;
    expect_no_more(&mut stuck).await;
}

/// [MQTT-3.3.2-5]
#[actix_rt::test]
async fn what_has_expired_in_a_backlog_goes_to_nobody() {
    let broker = world().await;
    absent(&broker, &["a", "b"]).await;
    let mut publisher = Client::connected(&broker, connect("publisher")).await;
    for (id, payload, expiry) in [(1, "0", 10), (2, "1", 100), (3, "2", 10)] {
        publisher.publish(expiring(publish_1(id, "t/x", payload), expiry)).await;
        publisher.expect(puback(id, ReasonCode::Success)).await;
    }
    pass(secs(20)).await;
    for client_id in ["b", "a"] {
        let mut client = back(&broker, client_id).await;
        if client_id == "b" {
            client.expect_publish(expiring(publish_1(1, "t/x", "1"), 80)).await;
            client.take(QOS_1, 1).await;
        }
        expect_no_more(&mut client).await;
    }
}

/// A member without permission gets nothing, and its queued messages go to the others.
#[actix_rt::test]
async fn what_waits_with_a_member_that_may_have_it_no_more_goes_to_the_others() {
    struct NotAnn(Denied);

    impl Authorizer for NotAnn {
        fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
            match request.identity.username.as_deref() {
                Some("ann") => self.0.authorize(request),
                _ => Decision::Allow,
            }
        }
    }

    tokio::time::pause();
    for what in ["subscribe t/#", "connect a"] {
        for is_rechecked in [true, false] {
            let denied = Denied::default();
            let rules = NotAnn(denied.clone());
            let broker = builder().limits(generous()).authorizer(rules).start().await.unwrap();
            let ann = || connect_as("ann", connect_lasting("a", V5));
            join(&broker, ann()).await.vanish().await;
            publish_numbers(&broker, 0..200).await;
            absent(&broker, &["b"]).await;
            denied.deny(what);
            if is_rechecked {
                broker.recheck().await;
            }
            if what == "subscribe t/#" {
                expect_no_more(&mut Client::connected(&broker, ann()).await).await;
            }
            let mut b = back(&broker, "b").await;
            expect_in_order(&mut b, 0..200).await;
            expect_no_more(&mut b).await;
        }
    }
}

/// A message too large for the member that returns first waits for another, and delays nothing.
#[actix_rt::test]
async fn what_is_too_large_for_one_member_waits_for_another() {
    let broker = world().await;
    absent(&broker, &["a", "b", "c"]).await;
    let large = "1".repeat(100);
    for payload in ["0", &large, "2"] {
        broker.publish("t/x", payload.as_bytes(), QOS_1, false).await.unwrap();
    }
    let mut packet = connect_lasting("b", V5);
    packet.properties.maximum_packet_size = Some(60);
    let mut small = Client::connected(&broker, packet).await;
    for number in [0, 2] {
        assert_eq!(take_next(&mut small).await, number);
    }
    publish_numbers(&broker, 4..5).await;
    assert_eq!(take_next(&mut small).await, 4);
    expect_no_more(&mut small).await;
    let mut c = back(&broker, "c").await;
    c.expect_publish(publish_1(1, "t/x", &large)).await;
    c.take(QOS_1, 1).await;
    expect_no_more(&mut c).await;
}

/// A session with many messages of its own between those of the group.
#[actix_rt::test]
async fn what_is_a_members_own_stays_with_it() {
    for broker in &on_both().await {
        let mut a = join(broker, connect_lasting("a", V5)).await;
        a.subscribe("own", QOS_1).await;
        a.vanish().await;
        absent(broker, &["b"]).await;
        for number in 0..1500 {
            broker.publish("own", number.to_string().as_bytes(), QOS_1, false).await.unwrap();
            if number % 30 == 7 {
                publish_numbers(broker, number / 30..number / 30 + 1).await;
            }
        }
        let mut b = back_with_window(broker, "b", 3).await;
        expect_in_order(&mut b, 0..50).await;
        expect_no_more(&mut b).await;
        let mut a = back(broker, "a").await;
        expect_in_order(&mut a, 0..1500).await;
        expect_no_more(&mut a).await;
    }
}

/// No message is dropped, although the returning member has hardly any room; nor are messages that
/// overflow the queue of an offline member.
#[actix_rt::test]
async fn queues_that_are_full_lose_nothing() {
    let broker = world_within(|limits| limits.queue_messages_per_client_max = 10).await;
    absent(&broker, &["a", "b", "c"]).await;
    publish_numbers(&broker, 0..30).await;
    let mut b = back_with_window(&broker, "b", 2).await;
    let mut had = BTreeSet::new();
    while had.len() < 30 {
        assert!(had.insert(take_next(&mut b).await));
    }
    expect_no_more(&mut b).await;
}

/// The broker is cut off after any number of writes while a backlog moves from one member to
/// another: each message is with one of them.
#[actix_rt::test]
async fn a_backlog_that_goes_over_is_never_with_nobody_or_with_both() {
    for groups in 0..16 {
        let disk = Disk::default();
        let first = disk.power().await;
        absent(&first.broker, &["a", "b"]).await;
        publish_numbers(&first.broker, 0..20).await;
        first.cut_off_after(groups);
        let mut b = back_with_window(&first.broker, "b", 4).await;
        let mut had = BTreeSet::new();
        for _ in 0..8 {
            had.insert(take_next(&mut b).await);
        }
        first.crash();
        let second = disk.power().await;
        let mut left = Vec::new();
        for client_id in ["b", "a"] {
            let mut client = back(&second.broker, client_id).await;
            left.extend(take_all(&mut client).await);
            client.vanish().await;
        }
        let once: BTreeSet<u32> = left.iter().copied().collect();
        assert_eq!(once.len(), left.len(), "{left:?} after {groups} groups");
        had.extend(once);
        assert_eq!(had, (0..20).collect(), "after {groups} groups");
    }
}

/// The store fails for a while in between.
#[actix_rt::test]
async fn a_backlog_goes_on_when_the_store_can_be_written_again() {
    let disk = Disk::default();
    let first = disk.power().await;
    absent(&first.broker, &["a", "b"]).await;
    publish_numbers(&first.broker, 0..20).await;
    let mut b = back_with_window(&first.broker, "b", 1).await;
    expect_in_order(&mut b, 0..5).await;
    first.fail(true);
    pass(secs(5)).await;
    first.fail(false);
    expect_in_order(&mut b, 5..20).await;
    expect_no_more(&mut b).await;
}

/// On several shards, before and after a restart: the backlog is spread over members whose sessions
/// are on all shards.
#[actix_rt::test]
async fn a_backlog_on_several_shards_goes_to_one_member() {
    const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    for is_restarted in [false, true] {
        let disk = Disk::default();
        let within = |limits: &mut hearthmq::limits::Limits| {
            limits.queue_messages_per_client_max = 100;
        };
        let mut powered = disk.power_on_shards(3, within).await;
        absent(&powered.broker, &NAMES).await;
        publish_numbers(&powered.broker, 0..1000).await;
        if is_restarted {
            powered.crash();
            powered = disk.power_on_shards(3, within).await;
        }
        let session = async |name| powered.broker.client(name).await.unwrap().unwrap();
        let mut had = BTreeSet::new();
        let mut b = back_with_window(&powered.broker, "b", 50).await;
        while had.len() < 600 {
            assert!(had.insert(take_next(&mut b).await));
        }
        // The next member gets its part, except for what `b` was sent and has not acknowledged.
        let mut c = back(&powered.broker, "c").await;
        b.vanish().await;
        while session("b").await.online {
            tokio::task::yield_now().await;
        }
        let mut b = back(&powered.broker, "b").await;
        // Either of them may come to have nothing more long before the other has.
        (b.patience, c.patience) = (Duration::from_secs(60), Duration::from_secs(60));
        let had = RefCell::new(had);
        // A message that `b` received without acknowledging it comes to `b` again.
        let drain = async |client: &mut Client| {
            while had.borrow().len() < 1000 {
                let number = take_next(client).await;
                had.borrow_mut().insert(number);
            }
        };
        tokio::select! {
            () = drain(&mut c) => {}
            () = drain(&mut b) => {}
        }
        for name in NAMES {
            assert_eq!(session(name).await.queued, 0, "{name}");
        }
    }
}

/// A member that does not read may be sent what waits, and has it when it reads.
#[actix_rt::test]
async fn what_waits_is_sent_to_a_member_that_does_not_read_yet() {
    for broker in &on_both().await {
        absent(broker, &["a"]).await;
        publish_numbers(broker, 0..1).await;
        let mut slow = Client::connected(broker, connect("slow")).await;
        slow.send(subscribe(1, vec![filter(GROUP, QOS_0)])).await;
        pass(secs(1)).await;
        let mut a = back(broker, "a").await;
        expect_no_more(&mut a).await;
        slow.receive(|packet| assert!(matches!(packet, Packet::SubAck(_)))).await;
        assert_eq!(take_next(&mut slow).await, 0);
    }
}
