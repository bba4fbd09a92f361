//! The share of one user in the common limits: beyond each limit the right answer, a count and a
//! log line, and no effect on other users.

use hearthmq::{
    Broker,
    auth::{AuthenticationError, Authenticator, Credentials, Identity},
    limits::{Limits, OwnLimits, QueueFull},
    metrics::{ConnectRefusal, DropReason, UserLimit},
    mqtt::{Connect, Packet, ProtocolVersion, QoS, ReasonCode},
};

use crate::support::{
    Client, disk::Disk, generous, packets::*, pass, refused, secs, world_with, world_within,
};

const OLD: [ProtocolVersion; 2] = [V3_1, V3_1_1];

/// Returns a CONNECT of a user.
pub(super) fn of<'a>(username: &'a str, packet: Connect<'a>) -> Connect<'a> {
    Connect { username: Some(username), ..packet }
}

/// Returns a CONNECT of a user for a durable session.
pub(super) fn lasting<'a>(username: &'a str, client_id: &'a str) -> Connect<'a> {
    of(username, connect_lasting(client_id, V5))
}

pub(super) fn reached(broker: &Broker, limit: UserLimit) -> u64 {
    broker.metrics().shard(0).user_limits_reached.of(limit).value()
}

async fn refuses(broker: &Broker, connect: Connect<'_>, reason: ReasonCode) {
    let mut client = Client::new(broker, connect.version);
    client.send(Packet::Connect(Box::new(connect))).await;
    client.expect_refused(reason).await;
}

/// Returns the retained message that a new client gets.
async fn found(broker: &Broker, topic: &str) -> Option<String> {
    let mut client = Client::connected(broker, of("reader", connect("reader"))).await;
    client.subscribe(topic, QOS_0).await;
    client.send(Packet::PingReq).await;
    client
        .receive(|packet| match packet {
            Packet::Publish(publish) => Some(String::from_utf8(publish.payload.to_vec()).unwrap()),
            _ => None,
        })
        .await
}

/// [MQTT-3.3.1-5]
#[actix_rt::test]
async fn a_retained_update_that_does_not_fit_changes_nothing_and_is_told() {
    let long = "x".repeat(10_000);
    for (in_all, of_one) in [(2_000, 1 << 20), (1 << 20, 2_000)] {
        let disk = Disk::default();
        let powered = disk.power_within(|limits| {
            limits.retained_bytes_max = in_all;
            limits.retained_bytes_per_user_max = of_one;
        });
        let broker = powered.await.broker;
        let mut other = Client::connected(&broker, of("other", connect("other"))).await;
        other.subscribe("a", QOS_2).await;
        let mut client = Client::connected(&broker, of("u", connect_terse(V5, "c"))).await;
        client.publish(retained(publish_1(1, "a", "on"))).await;
        client.expect(puback(1, ReasonCode::Success)).await;
        other.expect_publish(publish_1(1, "a", "on")).await;
        other.take(QOS_1, 1).await;
        client.publish(retained(publish_1(2, "a", &long))).await;
        client.expect(puback(2, ReasonCode::QuotaExceeded)).await;
        client.publish(retained(publish_2(3, "a", &long))).await;
        client.expect(pubrec(3, ReasonCode::QuotaExceeded)).await;
        other.expect_nothing().await;
        // The publisher of QoS 0 gets no answer, but subscribers get the message.
        client.publish(retained(publish("a", &long))).await;
        assert_eq!(other.receive_payload().await, long);
        for (number, version) in OLD.into_iter().enumerate() {
            for (qos, client_id) in [(QOS_1, "one"), (QOS_2, "two")] {
                let client_id = format!("{client_id} {number}");
                let connect = of("u", connect_in(version, &client_id));
                let mut client = Client::connected(&broker, connect).await;
                let message = match qos {
                    QoS::ExactlyOnce => publish_2(1, "a", &long),
                    _ => publish_1(1, "a", &long),
                };
                client.publish(retained(message)).await;
                client.expect_closed().await;
            }
        }
        other.expect_nothing().await;
        assert_eq!(found(&broker, "a").await.as_deref(), Some("on"));
        assert_eq!(
            broker.metrics().shard(0).messages_dropped.of(DropReason::RetainedFull).value(),
            7
        );
        assert_eq!(reached(&broker, UserLimit::RetainedBytes), if of_one == 2_000 { 7 } else { 0 });
        // A Will and the broker's own message change nothing either.
        let mut packet = of("u", connect("w"));
        let mut last_will = will("a", &long);
        last_will.retain = true;
        packet.will = Some(last_will);
        Client::connected(&broker, packet).await.vanish().await;
        if in_all == 2_000 {
            broker.publish("a", long.as_bytes(), QOS_1, true).await.unwrap();
        }
        assert_eq!(found(&broker, "a").await.as_deref(), Some("on"));
        client.publish(retained(publish_1(4, "a", ""))).await;
        client.receive(|_| ()).await;
        assert_eq!(broker.metrics().totals().retained_bytes.value(), 0);
    }
}

/// A client that reconnects at once to retry waits longer each time; other clients are not
/// affected.
#[actix_rt::test]
async fn clients_that_can_only_be_disconnected_are_slowed_down() {
    let broker = world_within(|limits| limits.retained_messages_per_user_max = 0).await;
    for version in OLD {
        let again = || of("u", connect_in(version, "again"));
        for wait in [1, 2, 4] {
            let mut client = Client::connected(&broker, again()).await;
            client.publish(retained(publish_1(1, "a", "x"))).await;
            client.expect_closed().await;
            refuses(&broker, again(), ReasonCode::ServerUnavailable).await;
            let other = of("other", connect_in(version, "again"));
            let _other = Client::connected(&broker, other).await;
            pass(secs(wait)).await;
        }
        Client::connected(&broker, again()).await.leave().await;
        pass(secs(300)).await;
    }
    assert_eq!(refused(&broker, ConnectRefusal::TooEarly), 6);
}

#[actix_rt::test]
async fn retained_messages_count_for_the_user_who_published_the_present_value() {
    let broker = world_within(|limits| limits.retained_messages_per_user_max = 2).await;
    let mut one = Client::connected(&broker, of("one", connect_terse(V5, "1"))).await;
    let mut two = Client::connected(&broker, of("two", connect_terse(V5, "2"))).await;
    let fits = ReasonCode::NoMatchingSubscribers;
    let full = ReasonCode::QuotaExceeded;
    for (client, topic, payload, reason) in [
        (1, "a", "x", fits),
        (1, "b", "x", fits),
        (1, "c", "x", full),
        (1, "a", "y", fits),
        (2, "a", "z", fits), // now owned by two
        (1, "c", "x", fits),
        (1, "a", "y", full),
        (2, "b", "", fits), // any user may clear it
        (1, "a", "y", fits),
        (2, "d", "x", fits),
        (2, "e", "x", fits),
        (2, "f", "x", full),
    ] {
        let client = if client == 1 { &mut one } else { &mut two };
        client.publish(retained(publish_1(1, topic, payload))).await;
        client.expect(puback(1, reason)).await;
    }
    assert_eq!(reached(&broker, UserLimit::RetainedMessages), 3);
    assert_eq!(broker.metrics().totals().owners.value(), 2);
}

/// A user's share is counted again after a restart, without messages that expired meanwhile.
#[actix_rt::test]
async fn what_a_user_has_is_counted_again_after_a_restart() {
    let disk = Disk::default();
    let tight = |limits: &mut Limits| {
        *limits = generous();
        limits.retained_messages_per_user_max = 2;
        limits.sessions_per_user_max = 1;
        limits.will_bytes_per_user_max = 300;
        limits.subscription_bytes_per_user_max = 600;
    };
    let first = disk.power_within(tight).await;
    let with_will = || {
        let mut packet = lasting("u", "c");
        let mut last_will = will("w", "gone");
        last_will.properties.will_delay_interval = Some(60);
        packet.will = Some(last_will);
        packet
    };
    let mut client = Client::connected(&first.broker, with_will()).await;
    client.subscribe("mine", QOS_1).await;
    client.publish(retained(publish_1(1, "a", "x"))).await;
    client.receive(|_| ()).await;
    client.publish(expiring(retained(publish_1(2, "b", "x")), 5)).await;
    client.receive(|_| ()).await;
    first.crash();
    let second = disk.power_within(tight).await;
    let broker = &second.broker;
    refuses(broker, lasting("u", "d"), ReasonCode::QuotaExceeded).await;
    let mut packet = of("u", connect("w"));
    packet.will = Some(will("w", "gone"));
    refuses(broker, packet, ReasonCode::QuotaExceeded).await;
    let mut client = Client::connected(broker, of("u", connect_terse(V5, "p"))).await;
    client.publish(retained(publish_1(1, "c", "x"))).await;
    client.expect(puback(1, ReasonCode::QuotaExceeded)).await;
    client.send(subscribe(1, vec![filter("more", QOS_0)])).await;
    client.expect(suback(1, &[ReasonCode::QuotaExceeded])).await;
    pass(secs(6)).await;
    client.publish(retained(publish_1(1, "c", "x"))).await;
    client.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
    for limit in [UserLimit::Sessions, UserLimit::Wills, UserLimit::SubscriptionBytes] {
        assert_eq!(reached(broker, limit), 1, "{limit:?}");
    }
    assert_eq!(refused(broker, ConnectRefusal::WillBytesPerUserMax), 1);
}

/// Expired messages are removed from memory, count and store without a request.
#[actix_rt::test]
async fn expired_retained_messages_leave_the_store_by_themselves() {
    let disk = Disk::default();
    for round in 0..3 {
        let powered = disk.power().await;
        assert_eq!(disk.retained(), 0, "round {round}");
        let mut client = Client::connected(&powered.broker, connect_terse(V5, "c")).await;
        for number in 0..100 {
            let topic = format!("t/{number}");
            client.publish(expiring(retained(publish_1(1, &topic, "x")), 3)).await;
            client.receive(|_| ()).await;
        }
        let retained = || powered.broker.metrics().totals().retained_messages.value();
        assert_eq!((disk.retained(), retained()), (100, 100));
        if round > 0 {
            pass(secs(4)).await;
            assert_eq!((disk.retained(), retained()), (0, 0));
        }
        powered.crash();
        // Messages that expire while no broker runs are removed from the store at the next start.
        if round == 0 {
            assert_eq!(disk.retained(), 100);
        }
        disk.grow_older(secs(10));
    }
}

/// Never more than the limit, in memory and in the store.
#[actix_rt::test]
async fn what_takes_the_room_of_expired_messages_takes_it_in_the_store_as_well() {
    let disk = Disk::default();
    let powered = disk.power_within(|limits| limits.retained_messages_max = 10).await;
    let mut client = Client::connected(&powered.broker, connect_terse(V5, "c")).await;
    for round in 0..5 {
        for number in 0..10 {
            let topic = format!("{round}/{number}");
            client.publish(expiring(retained(publish_1(1, &topic, "x")), 1)).await;
            client.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
            assert!(disk.retained() <= 10);
        }
        client.publish(retained(publish_1(1, "more", "x"))).await;
        client.expect(puback(1, ReasonCode::QuotaExceeded)).await;
        pass(secs(1)).await;
    }
}

/// A session that ends with its connection does not count.
#[actix_rt::test]
async fn sessions_that_outlive_their_connection_are_bounded_for_each_user() {
    let broker = world_within(|limits| limits.sessions_per_user_max = 1).await;
    let lasting_one = Client::connected(&broker, lasting("u", "1")).await;
    let mut others = Vec::new();
    for client_id in ["2", "3", "4"] {
        others.push(Client::connected(&broker, of("u", connect(client_id))).await);
    }
    refuses(&broker, lasting("u", "5"), ReasonCode::QuotaExceeded).await;
    refuses(&broker, lasting("u", "2"), ReasonCode::QuotaExceeded).await;
    for version in OLD {
        let connect = of("u", connect_lasting("5", version));
        refuses(&broker, connect, ReasonCode::ServerUnavailable).await;
    }
    // A clean start replaces the existing session.
    let mut packet = lasting("u", "1");
    packet.clean_start = true;
    let again = Client::connected(&broker, packet).await;
    drop((lasting_one, others));
    again.leave().await;
    // A session that is no longer durable makes room.
    Client::connected(&broker, of("u", connect("1"))).await.leave().await;
    let _five = Client::connected(&broker, lasting("u", "5")).await;
    let _other = Client::connected(&broker, lasting("other", "6")).await;
}

#[actix_rt::test]
async fn subscriptions_are_bounded_in_bytes_for_each_user() {
    // Two filters of one level: 256 for each level and each subscription, and twice the text.
    let broker = world_within(|limits| limits.subscription_bytes_per_user_max = 2 * 514).await;
    for version in [V5, V3_1_1] {
        let mut one = Client::connected(&broker, of("u", connect_terse(version, "1"))).await;
        let mut two = Client::connected(&broker, of("u", connect_terse(version, "2"))).await;
        one.subscribe("a", QOS_0).await;
        two.subscribe("b", QOS_0).await;
        let refused = match version {
            V5 => ReasonCode::QuotaExceeded,
            _ => ReasonCode::UnspecifiedError,
        };
        let asked = vec![filter("c", QOS_0), filter("b", QOS_1)];
        two.send(subscribe(1, asked)).await;
        two.expect(suback(1, &[refused, ReasonCode::GrantedQoS1])).await;
        let mut other = Client::connected(&broker, of("other", connect_in(version, "3"))).await;
        other.subscribe("c", QOS_0).await;
        other.leave().await;
        one.leave().await; // and its subscription with it
        two.subscribe("c", QOS_0).await;
        two.leave().await;
    }
    // MQTT 3.1 has no code for it.
    let mut old = Client::connected(&broker, of("u", connect_in(OLD[0], "old"))).await;
    let asked = ["a", "b", "c"].map(|text| filter(text, QOS_0));
    old.send(subscribe(1, asked.to_vec())).await;
    old.expect_closed().await;
    assert_eq!(reached(&broker, UserLimit::SubscriptionBytes), 3);
}

/// A message of 1,000 bytes.
const BYTES: [u8; 1_000] = [b'x'; 1_000];

/// Returns the number of messages queued for a client.
async fn queued(broker: &Broker, client_id: &str) -> usize {
    broker.client(client_id).await.unwrap().unwrap().queued
}

async fn away(broker: &Broker, username: &str, client_id: &str) {
    let mut client = Client::connected(broker, lasting(username, client_id)).await;
    client.subscribe("t", QOS_1).await;
    client.vanish().await;
}

/// At the limit of a user its sessions lose their own oldest messages, and other users lose none.
#[actix_rt::test]
async fn what_is_stored_for_the_sessions_of_a_user_is_bounded() {
    for (queue_full, bytes, messages) in [
        (QueueFull::DropOldest, 20_000, 1 << 20),
        (QueueFull::DropNewest, 20_000, 1 << 20),
        (QueueFull::HoldPublisher, 20_000, 1 << 20),
        (QueueFull::DropOldest, 1 << 20, 20),
    ] {
        let disk = Disk::default();
        let powered = disk.power_within(|limits| {
            limits.stored_bytes_per_user_max = bytes;
            limits.stored_messages_per_user_max = messages;
            limits.queue_full = queue_full;
        });
        let broker = powered.await.broker;
        for client_id in ["1", "2"] {
            away(&broker, "u", client_id).await;
        }
        for _ in 0..5 {
            broker.publish("t", &BYTES, QOS_1, false).await.unwrap();
        }
        away(&broker, "other", "3").await;
        for _ in 0..12 {
            broker.publish("t", &BYTES, QOS_1, false).await.unwrap();
        }
        let (one, two) = (queued(&broker, "1").await, queued(&broker, "2").await);
        let in_all = one + two;
        assert!((14..=20).contains(&in_all), "{queue_full:?}: {one} and {two}");
        assert!(one >= 4 && two >= 4, "a session keeps what it has: {one} and {two}");
        assert_eq!(queued(&broker, "3").await, 12, "another user has a share of its own");
        assert!(reached(&broker, UserLimit::Stored) > 0);
        // Messages that are taken make room.
        let (mut client, _) = Client::connected_with(&broker, lasting("u", "1")).await;
        for number in 1..=one {
            client.receive(|_| ()).await;
            client.send(puback(number as u16, ReasonCode::Success)).await;
        }
        client.leave().await;
        for _ in 0..4 {
            broker.publish("t", &BYTES, QOS_1, false).await.unwrap();
        }
        assert_eq!(queued(&broker, "1").await, 4);
    }
}

/// Messages in flight count, and one message at a time is let through however full the share is.
#[actix_rt::test]
async fn what_is_in_flight_counts_for_the_user_and_a_client_that_reads_goes_on() {
    let broker = world_within(|limits| limits.stored_bytes_per_user_max = 10_000).await;
    let mut client = Client::connected(&broker, lasting("u", "c")).await;
    client.subscribe("t", QOS_1).await;
    for _ in 0..200 {
        broker.publish("t", &BYTES, QOS_1, false).await.unwrap();
    }
    let found = broker.client("c").await.unwrap().unwrap();
    assert!(found.in_flight <= 66 && found.queued == 0, "{found:?}");
    away(&broker, "u", "d").await;
    broker.publish("t", &BYTES, QOS_1, false).await.unwrap();
    assert_eq!(queued(&broker, "d").await, 0, "the share is used up");
    for number in 1..=found.in_flight {
        client.receive(|_| ()).await;
        client.send(puback(number as u16, ReasonCode::Success)).await;
    }
    client.ping().await;
    broker.publish("t", b"on", QOS_1, false).await.unwrap();
    assert_eq!(client.receive_payload().await, "on");
    assert_eq!(queued(&broker, "d").await, 1);
}

/// The share is counted again from the contents of the store.
#[actix_rt::test]
async fn what_is_stored_for_a_user_is_counted_again_after_a_restart() {
    let disk = Disk::default();
    let tight = |limits: &mut Limits| limits.stored_bytes_per_user_max = 10_000;
    let first = disk.power_within(tight).await;
    let mut client = Client::connected(&first.broker, lasting("u", "c")).await;
    client.subscribe("t", QOS_1).await;
    for _ in 0..10 {
        first.broker.publish("t", &BYTES, QOS_1, false).await.unwrap();
    }
    client.vanish().await; // with nine or ten in flight
    away(&first.broker, "u", "d").await;
    first.crash();
    let second = disk.power_within(tight).await;
    second.broker.publish("t", &BYTES, QOS_1, false).await.unwrap();
    assert_eq!(queued(&second.broker, "d").await, 0);
    Client::connected(&second.broker, of("u", connect("c"))).await.leave().await; // ends it
    second.broker.publish("t", &BYTES, QOS_1, false).await.unwrap();
    assert_eq!(queued(&second.broker, "d").await, 1);
}

/// Admits every client under its name; some names have limits of their own.
struct OwnNames;

#[async_trait::async_trait]
impl Authenticator for OwnNames {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        let username = credentials.username.map(Into::into);
        Ok(Identity { username, ..Identity::default() })
    }

    fn limits_of(&self, username: &str) -> Option<OwnLimits> {
        let own =
            OwnLimits { sessions_max: Some(2), filter_shapes_max: Some(2), ..OwnLimits::default() };
        (username == "large").then_some(own)
    }
}

#[actix_rt::test]
async fn an_account_may_have_limits_of_its_own_and_others_those_of_each_user() {
    let broker = world_with(|builder| {
        let limits =
            Limits { sessions_per_user_max: 1, filter_shapes_per_user_max: 1, ..generous() };
        builder.limits(limits).authenticator(OwnNames)
    })
    .await;
    for (username, sessions, shapes) in [("large", 2, 2), ("small", 1, 1)] {
        let mut clients = Vec::new();
        for number in 0..sessions {
            let client_id = format!("{username} {number}");
            clients.push(Client::connected(&broker, lasting(username, &client_id)).await);
        }
        refuses(&broker, lasting(username, "one more"), ReasonCode::QuotaExceeded).await;
        let filters = ["+", "+/a", "+/+/a"];
        clients[0].send(subscribe(1, filters.map(|name| filter(name, QOS_0)).into())).await;
        let taken = (1..=filters.len()).map(|number| match number <= shapes {
            true => ReasonCode::Success,
            false => ReasonCode::QuotaExceeded,
        });
        let expected: Vec<_> = taken.collect();
        let answer = |packet: Packet<'_>| {
            let Packet::SubAck(ack) = packet else { panic!("{packet:?}") };
            assert_eq!(ack.reasons, expected);
        };
        clients[0].receive(answer).await;
    }
    // These clients have no user, and their address has the limits of a user.
    let mut packet = connect_lasting("nobody 1", V5);
    let _one = Client::connected(&broker, packet.clone()).await;
    packet.client_id = "nobody 2";
    refuses(&broker, packet, ReasonCode::QuotaExceeded).await;
}

#[actix_rt::test]
async fn client_identifiers_are_bounded_in_bytes() {
    let broker = world_within(|limits| limits.client_id_bytes_max = 10).await;
    for version in [V3_1, V3_1_1, V5] {
        Client::connected(&broker, connect_in(version, "0123456789")).await.leave().await;
        let too_long = connect_in(version, "0123456789X");
        refuses(&broker, too_long, ReasonCode::ClientIdentifierNotValid).await;
        let umlauts = connect_in(version, "ääääää");
        refuses(&broker, umlauts, ReasonCode::ClientIdentifierNotValid).await;
    }
    assert_eq!(refused(&broker, ConnectRefusal::ClientIdentifier), 6);
    // A query for one of them is still answered.
    assert!(!broker.online(&"x".repeat(65_535)).await.unwrap());
}
