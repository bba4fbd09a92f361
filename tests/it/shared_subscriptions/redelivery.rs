//! Shared subscriptions whose members leave: what happens to messages that were sent to them or
//! queued for them. Section 4.8.2.

use hearthmq::{
    Broker,
    auth::AllowAll,
    control::KickOptions,
    mqtt::{Connect, Packet, Publish, QoS, ReasonCode},
};

use crate::support::{Client, builder, generous, packets::*, pass, secs, world, world_within};

/// Returns a member whose session ends this many seconds after its connection.
fn lasting(client_id: &str, expiry_secs: u32) -> Connect<'_> {
    let mut packet = connect(client_id);
    packet.properties.session_expiry_interval = Some(expiry_secs);
    packet
}

async fn member(broker: &Broker, connect: Connect<'_>, qos: QoS) -> Client {
    let mut client = Client::connected(broker, connect).await;
    client.subscribe("$share/g/t/#", qos).await;
    client
}

async fn publish_all(broker: &Broker, qos: QoS, payloads: &[&str]) {
    for payload in payloads {
        broker.publish("t/x", payload.as_bytes(), qos, false).await.unwrap();
    }
}

fn first(qos: QoS, payload: &str) -> Publish<'_> {
    if qos == QOS_1 { publish_1(1, "t/x", payload) } else { publish_2(1, "t/x", payload) }
}

/// QoS 1 messages that the member has not acknowledged SHOULD go to another one when its session
/// ends, as a new delivery: DUP is not set.
#[actix_rt::test]
async fn qos_1_goes_to_another_member_when_the_session_ends_unacknowledged() {
    let broker = world().await;
    let mut gone = member(&broker, lasting("gone", 60), QOS_1).await;
    publish_all(&broker, QOS_1, &["1", "2"]).await;
    gone.expect_publish(first(QOS_1, "1")).await;
    let mut here = member(&broker, connect("here"), QOS_1).await;
    gone.vanish().await;
    // While the session lives, its unacknowledged messages wait for it.
    here.expect_nothing_for(secs(30)).await;
    pass(secs(31)).await;
    here.expect_publish(publish_1(1, "t/x", "1")).await;
    here.expect_publish(publish_1(2, "t/x", "2")).await;
    here.expect_nothing().await;
}

/// [MQTT-4.8.2-4]: QoS 2 is completed with the member that it was started with. QoS 1 MAY wait for
/// that member, and does.
#[actix_rt::test]
async fn what_was_sent_waits_for_the_member_as_long_as_its_session_lives() {
    tokio::time::pause();
    for qos in [QOS_1, QOS_2] {
        let broker = builder().start().await.unwrap();
        let mut away = member(&broker, lasting("away", 600), qos).await;
        publish_all(&broker, qos, &["1"]).await;
        away.expect_publish(first(qos, "1")).await;
        let mut here = member(&broker, connect("here"), qos).await;
        away.vanish().await;
        here.expect_nothing_for(secs(300)).await;
        let mut packet = lasting("away", 600);
        packet.clean_start = false;
        let mut back = Client::connected(&broker, packet).await;
        back.expect_publish(dup(first(qos, "1"))).await;
        back.take(qos, 1).await;
        here.expect_nothing().await;
    }
}

/// [MQTT-4.8.2-5]: neither before nor after PUBREC.
#[actix_rt::test]
async fn qos_2_that_was_begun_goes_to_nobody_else_when_the_session_ends() {
    let broker = world().await;
    let mut gone = member(&broker, connect("gone"), QOS_2).await;
    publish_all(&broker, QOS_2, &["1", "2"]).await;
    gone.expect_publish(publish_2(1, "t/x", "1")).await;
    gone.expect_publish(publish_2(2, "t/x", "2")).await;
    gone.send(pubrec(1, ReasonCode::Success)).await;
    gone.expect(pubrel(1)).await;
    let mut here = member(&broker, connect("here"), QOS_2).await;
    gone.vanish().await;
    here.expect_nothing().await;
    assert_eq!(broker.metrics().totals().queue_messages.value(), 0);
}

/// Messages that wait for Receive Maximum were sent to no member: they need not wait for one that
/// is offline while others are online.
#[actix_rt::test]
async fn what_waits_for_a_member_goes_to_the_others_as_soon_as_it_is_away() {
    tokio::time::pause();
    for qos in [QOS_1, QOS_2] {
        let broker = builder().start().await.unwrap();
        let mut packet = lasting("slow", 600);
        packet.properties.receive_maximum = Some(1);
        let mut slow = member(&broker, packet.clone(), qos).await;
        slow.subscribe("own", qos).await;
        publish_all(&broker, qos, &["1", "2", "3"]).await;
        broker.publish("own", b"mine", qos, false).await.unwrap();
        slow.expect_publish(first(qos, "1")).await;
        let mut here = member(&broker, connect("here"), qos).await;
        slow.vanish().await;
        here.expect_publish(first(qos, "2")).await;
        here.receive(|p| assert!(matches!(p, Packet::Publish(p) if p.payload == b"3"))).await;
        here.expect_nothing().await;
        // Messages that it was sent, and its own messages, still exist.
        packet.clean_start = false;
        let mut back = Client::connected(&broker, packet).await;
        back.expect_publish(dup(first(qos, "1"))).await;
        back.take(qos, 1).await;
        back.receive(|p| assert!(matches!(p, Packet::Publish(p) if p.payload == b"mine"))).await;
        back.expect_nothing().await;
    }
}

/// No member is online to take them, so they stay where they are.
#[actix_rt::test]
async fn what_waits_for_the_only_member_waits_for_its_return() {
    let broker = world().await;
    let mut packet = lasting("only", 600);
    packet.properties.receive_maximum = Some(1);
    let only = member(&broker, packet.clone(), QOS_1).await;
    publish_all(&broker, QOS_1, &["1", "2", "3"]).await;
    only.vanish().await;
    assert_eq!(broker.client("only").await.unwrap().unwrap().queued, 2);
    packet.clean_start = false;
    let mut back = Client::connected(&broker, packet).await;
    back.expect_publish(dup(publish_1(1, "t/x", "1"))).await;
    for (number, payload) in [(2, "2"), (3, "3")] {
        back.take(QOS_1, number - 1).await;
        back.expect_publish(publish_1(number, "t/x", payload)).await;
    }
}

/// A clean start, a kick and an UNSUBSCRIBE before the end leave the same messages as an expiry.
#[actix_rt::test]
async fn however_a_session_ends_the_others_get_what_it_leaves() {
    tokio::time::pause();
    for end in ["clean start", "kick", "disconnect", "unsubscribe"] {
        let broker = builder().start().await.unwrap();
        let mut gone = member(&broker, lasting("gone", 600), QOS_1).await;
        publish_all(&broker, QOS_1, &["1"]).await;
        gone.expect_publish(first(QOS_1, "1")).await;
        let mut here = member(&broker, connect("here"), QOS_1).await;
        match end {
            "clean start" => drop(Client::connected(&broker, connect("gone")).await),
            "kick" => {
                broker.kick("gone", KickOptions::new().end_session()).await.unwrap();
            }
            "disconnect" => {
                let mut packet = disconnect(ReasonCode::Success);
                if let Packet::Disconnect(disconnect) = &mut packet {
                    disconnect.properties.session_expiry_interval = Some(0);
                }
                gone.send(packet).await;
            }
            _ => {
                gone.send(unsubscribe(5, vec!["$share/g/t/#"])).await;
                gone.expect(unsuback(5, &[ReasonCode::Success])).await;
                broker.kick("gone", KickOptions::new().end_session()).await.unwrap();
            }
        }
        here.expect_publish(first(QOS_1, "1")).await;
    }
}

/// The message belongs to this group: another group, and a plain subscription, have received their
/// own.
#[actix_rt::test]
async fn what_is_left_goes_to_the_same_group_only() {
    let broker = world().await;
    let mut gone = member(&broker, connect("gone"), QOS_1).await;
    let mut other = Client::connected(&broker, connect("other")).await;
    other.subscribe("$share/h/t/#", QOS_1).await;
    other.subscribe("$share/g/t/+", QOS_1).await;
    other.subscribe("t/x", QOS_1).await;
    publish_all(&broker, QOS_1, &["1"]).await;
    gone.expect_publish(first(QOS_1, "1")).await;
    for number in 1..=3 {
        other.expect_publish(publish_1(number, "t/x", "1")).await;
    }
    let mut here = member(&broker, connect("here"), QOS_1).await;
    gone.vanish().await;
    here.expect_publish(first(QOS_1, "1")).await;
    other.expect_nothing().await;
}

/// [MQTT-4.8.2-3] The next member has a QoS of its own, and gets the remaining Message Expiry
/// Interval.
#[actix_rt::test]
async fn what_is_left_comes_as_the_next_member_has_asked_for_it() {
    let broker = world().await;
    let mut publisher = Client::connected(&broker, connect("publisher")).await;
    let mut gone = member(&broker, connect("gone"), QOS_1).await;
    let message = retained(expiring(publish_1(1, "t/x", "1"), 100));
    publisher.publish(message).await;
    gone.receive(|_| ()).await;
    let mut here = Client::connected(&broker, connect("here")).await;
    let asked = as_published(filter("$share/g/t/#", QOS_2));
    here.send(subscribe_as(1, 7, vec![asked])).await;
    here.receive(|_| ()).await;
    pass(secs(40)).await;
    gone.vanish().await;
    let expected = retained(expiring(publish_1(1, "t/x", "1"), 60));
    here.expect_publish(identified(expected, &[7])).await;
}

/// [MQTT-3.3.2-5]
#[actix_rt::test]
async fn what_has_expired_meanwhile_is_passed_on_to_nobody() {
    let broker = world().await;
    let mut publisher = Client::connected(&broker, connect("publisher")).await;
    let mut gone = member(&broker, connect("gone"), QOS_1).await;
    publisher.publish(expiring(publish_1(1, "t/x", "1"), 10)).await;
    gone.receive(|_| ()).await;
    let mut here = member(&broker, connect("here"), QOS_1).await;
    pass(secs(11)).await;
    gone.vanish().await;
    here.expect_nothing().await;
}

/// A member whose window is full is passed over; if all are full, each keeps to its limit.
#[actix_rt::test]
async fn a_member_without_room_is_passed_over() {
    let broker = world_within(|limits| limits.queue_messages_per_client_max = 2).await;
    let mut full = connect("full");
    full.properties.receive_maximum = Some(1);
    let mut full = member(&broker, full, QOS_1).await;
    let mut ready = member(&broker, connect("ready"), QOS_1).await;
    for number in 0..20 {
        publish_all(&broker, QOS_1, &[&number.to_string()]).await;
    }
    // One is in flight to the member that does not acknowledge.
    for _ in 0..19 {
        ready.receive(|packet| assert!(matches!(packet, Packet::Publish(_)))).await;
    }
    ready.expect_nothing().await;
    assert_eq!(broker.client("full").await.unwrap().unwrap().queued, 0);
    full.receive(|packet| assert!(matches!(packet, Packet::Publish(_)))).await;
    // Now that no member has room, a queue must drop something.
    ready.vanish().await;
    publish_all(&broker, QOS_1, &["20"]).await;
    assert_eq!(broker.client("full").await.unwrap().unwrap().queued, 2);
}

/// Section 3.1.2.11.4: a message too large for one member goes to one that accepts its size.
#[actix_rt::test]
async fn a_message_too_large_for_one_member_goes_to_another() {
    let broker = world().await;
    let mut small = connect("small");
    small.properties.maximum_packet_size = Some(30);
    let mut small = member(&broker, small, QOS_1).await;
    let mut large = member(&broker, connect("large"), QOS_1).await;
    let payload = "x".repeat(100);
    publish_all(&broker, QOS_1, &[&payload, &payload]).await;
    large.expect_publish(publish_1(1, "t/x", &payload)).await;
    large.expect_publish(publish_1(2, "t/x", &payload)).await;
    small.ping().await;
}

/// On several threads: messages on their way to a member on another shard that has left go to
/// another member. No message that was acknowledged to its publisher is lost.
#[actix_rt::test]
async fn nothing_is_lost_while_members_of_several_shards_come_and_go() {
    let broker = Broker::builder()
        .shards(3)
        .limits(generous())
        .authenticator(AllowAll)
        .authorizer(AllowAll)
        .start()
        .await
        .unwrap();
    let mut last = member(&broker, connect("last"), QOS_1).await;
    let mut publisher = Client::connected(&broker, connect("publisher")).await;
    let mut expected = Vec::new();
    for round in 0..20_u16 {
        let mut members = Vec::new();
        for number in 0..6 {
            let client_id = format!("{round}-{number}");
            members.push(member(&broker, connect(&client_id), QOS_1).await);
        }
        for number in 1..=50 {
            let payload = format!("{round}.{number}");
            publisher.publish(publish_1(number, "t/x", &payload)).await;
            expected.push(payload);
        }
        drop(members);
        for number in 1..=50 {
            publisher.expect(puback(number, ReasonCode::Success)).await;
        }
    }
    let mut had = std::collections::BTreeSet::new();
    while had.len() < expected.len() {
        let (payload, id) = last
            .receive(|packet| {
                let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                let payload = str::from_utf8(publish.payload).unwrap().to_owned();
                (payload, publish.packet_id.unwrap().number())
            })
            .await;
        had.insert(payload);
        last.send(puback(id, ReasonCode::Success)).await;
    }
    assert_eq!(had, expected.into_iter().collect());
}
