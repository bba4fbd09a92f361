//! Acknowledged data outlives the broker: it is cut off in the middle, another broker continues
//! with its store, and the clients find what they were promised.

use hearthmq::{
    control::{KickOptions, WillRequest},
    mqtt::{Packet, ProtocolVersion, QoS, ReasonCode},
};

use crate::support::{Client, disk::Disk, packets::*, pass, secs};

/// Connects a client with a durable session and its subscription.
async fn subscriber(
    broker: &hearthmq::Broker,
    version: ProtocolVersion,
    filter: &str,
    qos: QoS,
) -> Client {
    let mut client = Client::connected(broker, connect_lasting("c", version)).await;
    client.subscribe(filter, qos).await;
    client
}

/// [MQTT-3.1.2-5] [MQTT-4.1.0-1] of 3.1.1
#[actix_rt::test]
async fn sessions_subscriptions_and_what_waits_outlive_the_broker() {
    for version in VERSIONS {
        let disk = Disk::default();
        let first = disk.power().await;
        subscriber(&first.broker, version, "t/#", QOS_2).await.vanish().await;
        for (number, qos) in [("1", QOS_1), ("2", QOS_2), ("3", QOS_1)] {
            first.broker.publish("t/x", number.as_bytes(), qos, false).await.unwrap();
        }
        first.crash();
        let second = disk.power().await;
        second.broker.publish("t/y", b"4", QOS_1, false).await.unwrap();
        let packet = connect_lasting("c", version);
        let (mut client, present) = Client::connected_with(&second.broker, packet).await;
        assert!(present);
        client.expect_publish(publish_1(1, "t/x", "1")).await;
        client.expect_publish(publish_2(2, "t/x", "2")).await;
        client.expect_publish(publish_1(3, "t/x", "3")).await;
        client.expect_publish(publish_1(4, "t/y", "4")).await;
        client.expect_nothing().await;
    }
}

/// [MQTT-4.4.0-1] [MQTT-4.3.3-7] [MQTT-4.6.0-1]
#[actix_rt::test]
async fn what_was_sent_is_sent_again_with_dup_and_its_identifier() {
    for version in VERSIONS {
        let disk = Disk::default();
        let first = disk.power().await;
        let mut client = subscriber(&first.broker, version, "t", QOS_2).await;
        for (number, qos) in [("1", QOS_1), ("2", QOS_2), ("3", QOS_2), ("4", QOS_1)] {
            first.broker.publish("t", number.as_bytes(), qos, false).await.unwrap();
        }
        client.expect_publish(publish_1(1, "t", "1")).await;
        client.expect_publish(publish_2(2, "t", "2")).await;
        client.expect_publish(publish_2(3, "t", "3")).await;
        client.expect_publish(publish_1(4, "t", "4")).await;
        client.send(puback(1, ReasonCode::Success)).await;
        client.send(pubrec(2, ReasonCode::Success)).await;
        client.expect(pubrel(2)).await;
        first.crash();
        let second = disk.power().await;
        let mut client = Client::connected(&second.broker, connect_lasting("c", version)).await;
        client.expect(pubrel(2)).await;
        client.expect_publish(dup(publish_2(3, "t", "3"))).await;
        client.expect_publish(dup(publish_1(4, "t", "4"))).await;
        client.send(pubcomp(2)).await;
        client.take(QOS_2, 3).await;
        client.take(QOS_1, 4).await;
        // A new message gets an identifier that was never in doubt.
        second.broker.publish("t", b"5", QOS_1, false).await.unwrap();
        client.expect_publish(publish_1(5, "t", "5")).await;
        client.take(QOS_1, 5).await;
        client.expect_nothing().await;
        second.crash();
        let third = disk.power().await;
        let mut client = Client::connected(&third.broker, connect_lasting("c", version)).await;
        client.expect_nothing().await;
    }
}

/// A message sent without a note of it in the store is sent again with DUP, even after two crashes.
/// [MQTT-3.3.1-1]
#[actix_rt::test]
async fn what_may_have_been_sent_says_so() {
    let disk = Disk::default();
    let first = disk.power().await;
    let mut client = subscriber(&first.broker, V5, "t", QOS_1).await;
    // It fills its window, so that one message waits, and is sent only after the disk is gone.
    let mut packet = connect_lasting("c", V5);
    packet.properties.receive_maximum = Some(1);
    client.leave().await;
    client = Client::connected(&first.broker, packet.clone()).await;
    for number in ["1", "2"] {
        first.broker.publish("t", number.as_bytes(), QOS_1, false).await.unwrap();
    }
    client.expect_publish(publish_1(1, "t", "1")).await;
    first.pull();
    client.send(puback(1, ReasonCode::Success)).await;
    client.expect_publish(publish_1(2, "t", "2")).await;
    first.crash();
    disk.power().await.crash();
    // A connection on which it is not sent changes nothing.
    let third = disk.power().await;
    let mut client = Client::connected(&third.broker, packet.clone()).await;
    client.expect_publish(dup(publish_1(1, "t", "1"))).await;
    client.leave().await;
    third.crash();
    let fourth = disk.power().await;
    let mut client = Client::connected(&fourth.broker, packet).await;
    client.expect_publish(dup(publish_1(1, "t", "1"))).await;
    client.send(puback(1, ReasonCode::Success)).await;
    client.expect_publish(dup(publish_1(2, "t", "2"))).await;
}

/// [MQTT-4.3.3-10] [MQTT-4.3.3-12]
#[actix_rt::test]
async fn what_was_accepted_as_qos_2_is_not_delivered_again_after_a_crash() {
    for version in VERSIONS {
        let disk = Disk::default();
        let first = disk.power().await;
        subscriber(&first.broker, version, "t", QOS_1).await.vanish().await;
        let mut publisher = Client::connected(&first.broker, connect_lasting("p", version)).await;
        publisher.publish(publish_2(5, "t", "once")).await;
        publisher.expect(pubrec(5, ReasonCode::Success)).await;
        publisher.publish(publish_2(6, "t", "done")).await;
        publisher.expect_taken(QOS_2, 6, ReasonCode::Success).await;
        first.crash();
        let second = disk.power().await;
        let mut publisher = Client::connected(&second.broker, connect_lasting("p", version)).await;
        publisher.publish(dup(publish_2(5, "t", "once"))).await;
        publisher.expect_taken(QOS_2, 5, ReasonCode::Success).await;
        // A released identifier may stand for another message.
        publisher.publish(publish_2(6, "t", "another")).await;
        publisher.expect_taken(QOS_2, 6, ReasonCode::Success).await;
        let mut client = Client::connected(&second.broker, connect_lasting("c", version)).await;
        for payload in ["once", "done", "another"] {
            assert_eq!(client.receive_payload().await, payload);
        }
        client.expect_nothing().await;
    }
}

#[actix_rt::test]
async fn retained_messages_outlive_the_broker_as_long_as_they_live() {
    let disk = Disk::default();
    let first = disk.power().await;
    let mut publisher = Client::connected(&first.broker, connect("p")).await;
    for (topic, payload, expiry) in
        [("r/1", "stays", None), ("r/2", "goes", Some(30)), ("r/3", "cleared", None)]
    {
        let mut packet = retained(publish_1(1, topic, payload));
        packet.properties.message_expiry_interval = expiry;
        publisher.publish(packet).await;
        publisher.receive(|packet| assert!(matches!(packet, Packet::PubAck(_)))).await;
    }
    first.broker.publish("r/3", b"", QOS_1, true).await.unwrap();
    pass(secs(20)).await;
    first.broker.publish("r/4", b"now", QOS_1, true).await.unwrap();
    first.broker.publish("r/4", b"", QOS_1, true).await.unwrap();
    first.crash();
    let second = disk.power().await;
    let mut client = Client::connected(&second.broker, connect("c")).await;
    client.subscribe("r/#", QOS_0).await;
    client.expect_publish(retained(publish("r/1", "stays"))).await;
    let goes = client
        .receive(|packet| {
            let Packet::Publish(publish) = packet else { panic!("PUBLISH expected") };
            publish.properties.message_expiry_interval
        })
        .await;
    assert!(goes.is_some_and(|secs| secs <= 10), "{goes:?}");
    client.expect_nothing().await;
    pass(secs(40)).await;
    second.broker.publish("r/1", b"stays", QOS_1, true).await.unwrap();
    second.crash();
    let third = disk.power().await;
    let mut client = Client::connected(&third.broker, connect("c")).await;
    client.subscribe("r/#", QOS_0).await;
    client.expect_publish(retained(publish("r/1", "stays"))).await;
    client.expect_nothing().await;
}

/// The crash cuts off the client of a Will at the latest. [MQTT-3.1.2-8] [MQTT-3.1.3-9]
#[actix_rt::test]
async fn wills_outlive_the_broker() {
    let disk = Disk::default();
    let first = disk.power().await;
    subscriber(&first.broker, V5, "will/#", QOS_1).await.vanish().await;
    for (client_id, delay) in [("at-once", 0), ("later", 60), ("back", 60)] {
        let topic = format!("will/{client_id}");
        let mut packet = connect_lasting(client_id, V5);
        let mut last = will(&topic, "gone");
        last.qos = QOS_1;
        last.properties.will_delay_interval = Some(delay);
        packet.will = Some(last);
        std::mem::forget(Client::connected(&first.broker, packet).await);
    }
    first.crash();
    let second = disk.power().await;
    pass(secs(1)).await;
    Client::connected(&second.broker, connect_lasting("back", V5)).await.leave().await;
    let mut client = Client::connected(&second.broker, connect_lasting("c", V5)).await;
    client.expect_publish(publish_1(1, "will/at-once", "gone")).await;
    client.expect_nothing_for(secs(50)).await;
    pass(secs(10)).await;
    client.expect_publish(publish_1(2, "will/later", "gone")).await;
    client.expect_nothing_for(secs(100)).await;
}

/// [MQTT-3.1.2-23] [MQTT-4.1.0-2]
#[actix_rt::test]
async fn a_session_ends_when_it_is_to_end_whatever_happens_to_the_broker() {
    let disk = Disk::default();
    let first = disk.power().await;
    for (client_id, expiry) in [("short", 10), ("long", 1000)] {
        let mut packet = connect_in(V5, client_id);
        packet.properties.session_expiry_interval = Some(expiry);
        Client::connected(&first.broker, packet).await.vanish().await;
    }
    // A session that its client has ended, and one that a clean start has replaced.
    Client::connected(&first.broker, connect_lasting("ended", V5)).await.vanish().await;
    Client::connected(&first.broker, connect_in(V5, "ended")).await.leave().await;
    let _kicked = Client::connected(&first.broker, connect_lasting("kicked", V5)).await;
    first
        .broker
        .kick("kicked", KickOptions::new().end_session().will(WillRequest::Discard))
        .await
        .unwrap();
    pass(secs(5)).await;
    first.crash();
    let second = disk.power().await;
    pass(secs(20)).await;
    for (client_id, expected) in
        [("short", false), ("long", true), ("ended", false), ("kicked", false)]
    {
        let packet = connect_lasting(client_id, V5);
        let (_, present) = Client::connected_with(&second.broker, packet).await;
        assert_eq!(present, expected, "{client_id}");
    }
}

#[actix_rt::test]
async fn a_subscription_that_was_given_up_does_not_come_back() {
    let disk = Disk::default();
    let first = disk.power().await;
    let mut client = subscriber(&first.broker, V5, "a", QOS_1).await;
    client.subscribe("b", QOS_1).await;
    client.send(unsubscribe(7, vec!["a"])).await;
    client.expect(unsuback(7, &[ReasonCode::Success])).await;
    first.crash();
    let second = disk.power().await;
    second.broker.publish("a", b"no", QOS_1, false).await.unwrap();
    second.broker.publish("b", b"yes", QOS_1, false).await.unwrap();
    let mut client = Client::connected(&second.broker, connect_lasting("c", V5)).await;
    client.expect_publish(publish_1(1, "b", "yes")).await;
    client.expect_nothing().await;
}

/// A queue is read back page by page, in order, before and after a crash; new messages are
/// appended.
#[actix_rt::test]
async fn a_long_queue_is_in_memory_a_page_at_a_time() {
    let disk = Disk::default();
    let first = disk.power().await;
    subscriber(&first.broker, V5, "t", QOS_1).await.vanish().await;
    for number in 0..500 {
        first.broker.publish("t", number.to_string().as_bytes(), QOS_1, false).await.unwrap();
    }
    let waiting = |broker: &hearthmq::Broker| {
        let metrics = broker.metrics();
        let totals = metrics.totals();
        (totals.queue_messages.value(), totals.queue_stored_messages.value())
    };
    assert_eq!(waiting(&first.broker), (0, 500));
    first.crash();
    let second = disk.power().await;
    assert_eq!(waiting(&second.broker), (0, 500));
    assert_eq!(second.broker.client("c").await.unwrap().unwrap().queued, 500);
    let mut packet = connect_lasting("c", V5);
    packet.properties.receive_maximum = Some(10);
    let mut client = Client::connected(&second.broker, packet).await;
    let mut id = 0;
    for number in 0..600 {
        if number == 100 {
            for number in 500..600 {
                let payload = number.to_string();
                second.broker.publish("t", payload.as_bytes(), QOS_1, false).await.unwrap();
            }
        }
        id += 1;
        client.expect_publish(publish_1(id, "t", &number.to_string())).await;
        client.send(puback(id, ReasonCode::Success)).await;
        assert!(waiting(&second.broker).0 <= 64);
    }
    client.expect_nothing().await;
    assert_eq!(waiting(&second.broker), (0, 0));
}

/// The limit of a queue also applies to its stored part, and after a crash.
#[actix_rt::test]
async fn a_full_queue_loses_its_oldest_wherever_they_are() {
    let disk = Disk::default();
    let limit = |limits: &mut hearthmq::limits::Limits| limits.queue_messages_per_client_max = 100;
    let first = disk.power_within(limit).await;
    subscriber(&first.broker, V5, "t", QOS_1).await.vanish().await;
    let publish = async |broker: &hearthmq::Broker, numbers: std::ops::Range<u32>| {
        for number in numbers {
            broker.publish("t", number.to_string().as_bytes(), QOS_1, false).await.unwrap();
        }
    };
    publish(&first.broker, 0..150).await;
    first.crash();
    let second = disk.power_within(limit).await;
    publish(&second.broker, 150..180).await;
    let mut client = Client::connected(&second.broker, connect_lasting("c", V5)).await;
    for number in 80..180 {
        assert_eq!(client.receive_payload().await, number.to_string());
    }
    client.expect_nothing().await;
}

#[actix_rt::test]
async fn presence_versions_never_go_back() {
    let disk = Disk::default();
    let mut last = 0;
    for client_id in ["lasting", "lasting", "another", "lasting"] {
        let powered = disk.power().await;
        let _client = Client::connected(&powered.broker, connect_lasting(client_id, V5)).await;
        let version = powered.broker.client(client_id).await.unwrap().unwrap().version;
        assert!(version > last, "{version} after {last}");
        last = version;
        powered.crash();
    }
}

/// A queued message that is passed on to another member of a shared subscription stays there.
#[actix_rt::test]
async fn what_passed_on_to_another_member_is_not_delivered_twice() {
    let disk = Disk::default();
    let first = disk.power().await;
    let mut packet = connect_lasting("a", V5);
    packet.properties.receive_maximum = Some(1);
    let mut a = Client::connected(&first.broker, packet.clone()).await;
    a.subscribe("$share/g/t", QOS_1).await;
    for number in ["1", "2", "3"] {
        first.broker.publish("t", number.as_bytes(), QOS_1, false).await.unwrap();
    }
    a.expect_publish(publish_1(1, "t", "1")).await;
    let mut b = Client::connected(&first.broker, connect_lasting("b", V5)).await;
    b.subscribe("$share/g/t", QOS_1).await;
    a.vanish().await;
    b.expect_publish(publish_1(1, "t", "2")).await;
    b.expect_publish(publish_1(2, "t", "3")).await;
    first.crash();
    let second = disk.power().await;
    let mut b = Client::connected(&second.broker, connect_lasting("b", V5)).await;
    b.expect_publish(dup(publish_1(1, "t", "2"))).await;
    b.expect_publish(dup(publish_1(2, "t", "3"))).await;
    let mut a = Client::connected(&second.broker, packet).await;
    a.expect_publish(dup(publish_1(1, "t", "1"))).await;
    a.send(puback(1, ReasonCode::Success)).await;
    a.expect_nothing().await;
}

/// Messages that a member leaves in the store when its session ends go to the other members, even
/// if they were stored before a crash. [MQTT-4.8.2-5]
#[actix_rt::test]
async fn what_a_session_leaves_in_the_store_goes_to_the_other_members() {
    let disk = Disk::default();
    let first = disk.power().await;
    let mut packet = connect_in(V5, "a");
    packet.properties.session_expiry_interval = Some(100);
    let mut a = Client::connected(&first.broker, packet).await;
    a.subscribe("$share/g/t", QOS_1).await;
    a.vanish().await;
    for number in 0..150 {
        first.broker.publish("t", number.to_string().as_bytes(), QOS_1, false).await.unwrap();
    }
    first.crash();
    let second = disk.power().await;
    let mut packet = connect_lasting("b", V5);
    packet.properties.receive_maximum = Some(1);
    let mut b = Client::connected(&second.broker, packet).await;
    b.subscribe("$share/g/t", QOS_1).await;
    assert_eq!(b.receive_payload().await, "0");
    // It gets the next message when it acknowledges this one; until then the rest waits with `a`.
    b.expect_nothing().await;
    pass(secs(200)).await;
    for number in 1..150 {
        b.take(QOS_1, number).await;
        assert_eq!(b.receive_payload().await, number.to_string());
    }
}

/// The same for a member that has unsubscribed since. [MQTT-4.8.2-5]
#[actix_rt::test]
async fn what_came_by_a_subscription_that_was_given_up_goes_to_the_other_members() {
    let disk = Disk::default();
    let first = disk.power().await;
    let mut packet = connect_in(V5, "a");
    packet.properties.session_expiry_interval = Some(100);
    let mut a = Client::connected(&first.broker, packet).await;
    a.subscribe("$share/g/t", QOS_1).await;
    let mut b = Client::connected(&first.broker, connect_lasting("b", V5)).await;
    first.broker.publish("t", b"1", QOS_1, false).await.unwrap();
    a.expect_publish(publish_1(1, "t", "1")).await;
    b.subscribe("$share/g/t", QOS_1).await;
    a.send(unsubscribe(7, vec!["$share/g/t"])).await;
    a.expect(unsuback(7, &[ReasonCode::Success])).await;
    first.crash();
    let second = disk.power().await;
    let mut b = Client::connected(&second.broker, connect_lasting("b", V5)).await;
    b.expect_nothing().await;
    pass(secs(200)).await;
    b.expect_publish(publish_1(1, "t", "1")).await;
}

/// A message that is not stored is not acknowledged.
#[actix_rt::test]
async fn what_cannot_be_kept_is_not_acknowledged() {
    for version in VERSIONS {
        let disk = Disk::default();
        let powered = disk.power().await;
        subscriber(&powered.broker, version, "t", QOS_2).await.vanish().await;
        let mut publisher = Client::connected(&powered.broker, connect_in(version, "p")).await;
        powered.fail(true);
        // The result is not known yet.
        publisher.publish(publish_1(1, "t", "1")).await;
        publisher.expect_nothing_for(secs(30)).await;
        assert!(!powered.broker.is_storing());
        powered.fail(false);
        publisher.expect(puback(1, ReasonCode::Success)).await;
        assert!(powered.broker.is_storing());
        powered.crash();
        let second = disk.power().await;
        let mut client = Client::connected(&second.broker, connect_lasting("c", version)).await;
        client.expect_publish(publish_1(1, "t", "1")).await;
    }
}

/// While the store cannot be written, durable messages are refused and all other traffic continues.
#[actix_rt::test]
async fn live_traffic_goes_on_while_the_store_fails() {
    let disk = Disk::default();
    let powered = disk.power().await;
    let broker = &powered.broker;
    subscriber(broker, V5, "durable", QOS_1).await.vanish().await;
    let mut live = Client::connected(broker, connect("live")).await;
    live.subscribe("#", QOS_1).await;
    let mut publisher = Client::connected(broker, connect("p")).await;
    let mut old = Client::connected(broker, connect_in(V3_1_1, "old")).await;
    powered.fail(true);
    publisher.publish(publish_1(1, "durable", "tried")).await;
    live.expect_publish(publish_1(1, "durable", "tried")).await;
    pass(secs(1)).await;
    let mut other = Client::connected(broker, connect("q")).await;
    other.publish(publish_1(2, "durable", "refused")).await;
    other.expect(puback(2, ReasonCode::ImplementationSpecificError)).await;
    other.publish(retained(publish_1(3, "live", "refused"))).await;
    other.expect(puback(3, ReasonCode::ImplementationSpecificError)).await;
    // MQTT 3 has no code: no acknowledgement.
    old.publish(publish_1(1, "durable", "refused")).await;
    old.expect_closed().await;
    // A session that could not be stored, and a subscription.
    let mut lasting = Client::new(broker, V5);
    lasting.send(Packet::Connect(Box::new(connect_lasting("new", V5)))).await;
    lasting.expect_refused(ReasonCode::ServerUnavailable).await;
    // All other traffic.
    other.publish(publish("durable", "qos 0")).await;
    live.expect_publish(publish("durable", "qos 0")).await;
    other.publish(publish_1(4, "live", "goes on")).await;
    other.expect(puback(4, ReasonCode::Success)).await;
    live.expect_publish(publish_1(2, "live", "goes on")).await;
    powered.fail(false);
    publisher.expect(puback(1, ReasonCode::Success)).await;
    other.publish(publish_1(5, "durable", "taken")).await;
    other.expect(puback(5, ReasonCode::Success)).await;
    Client::connected(broker, connect_lasting("new", V5)).await;
    let mut client = Client::connected(broker, connect_lasting("c", V5)).await;
    client.expect_publish(publish_1(1, "durable", "tried")).await;
    client.expect_publish(publish_1(2, "durable", "taken")).await;
    client.expect_nothing().await;
}
