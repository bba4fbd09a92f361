//! The broker is cut off between two writes, or its store fails at a critical moment: nothing
//! exists twice, and nothing is confirmed that is not stored.

use hearthmq::{
    control::Redirection,
    mqtt::{Connect, Packet, ProtocolVersion::V3_1, ReasonCode},
    records::{Put, RecordKey},
};

use crate::support::{Client, disk::Disk, millis, packets::*, pass, secs};

/// A message of a shared subscription moves from one member to another in one atomic change.
/// [MQTT-4.8.2-5]
#[actix_rt::test]
async fn what_passes_on_is_never_with_both_members() {
    let disk = Disk::default();
    let first = disk.power().await;
    let mut packet = connect_lasting("a", V5);
    packet.properties.receive_maximum = Some(1);
    let mut a = Client::connected(&first.broker, packet.clone()).await;
    a.subscribe("$share/g/t", QOS_2).await;
    for number in ["1", "2"] {
        first.broker.publish("t", number.as_bytes(), QOS_2, false).await.unwrap();
    }
    a.expect_publish(publish_2(1, "t", "1")).await;
    let mut b = Client::connected(&first.broker, connect_lasting("b", V5)).await;
    b.subscribe("$share/g/t", QOS_2).await;
    first.cut_off_after(1);
    a.vanish().await;
    pass(secs(1)).await;
    first.crash();
    let second = disk.power().await;
    let mut b = Client::connected(&second.broker, connect_lasting("b", V5)).await;
    b.expect_publish(dup(publish_2(1, "t", "2"))).await;
    let mut a = Client::connected(&second.broker, packet).await;
    a.expect_publish(dup(publish_2(1, "t", "1"))).await;
    a.take(QOS_2, 1).await;
    a.expect_nothing().await;
}

/// A session is discarded and its Will is published in one atomic change. [MQTT-3.1.2-8]
#[actix_rt::test]
async fn a_will_is_not_published_again_with_a_session_that_was_discarded() {
    let disk = Disk::default();
    let first = disk.power().await;
    let mut client = Client::connected(&first.broker, connect_lasting("c", V5)).await;
    client.subscribe("will", QOS_2).await;
    client.vanish().await;
    let mut packet = connect_lasting("p", V5);
    let mut last = will("will", "gone");
    last.qos = QOS_2;
    last.properties.will_delay_interval = Some(100);
    packet.will = Some(last);
    Client::connected(&first.broker, packet).await.vanish().await;
    pass(secs(1)).await;
    first.cut_off_after(1);
    let mut packet = connect_lasting("p", V5);
    packet.clean_start = true;
    Client::connected(&first.broker, packet).await;
    first.crash();
    let second = disk.power().await;
    pass(secs(1)).await;
    let mut client = Client::connected(&second.broker, connect_lasting("c", V5)).await;
    client.expect_publish(publish_2(1, "will", "gone")).await;
    client.take(QOS_2, 1).await;
    client.expect_nothing_for(secs(200)).await;
}

/// CONNACK to a clean start comes once the former session is durably removed. [MQTT-3.1.2-4]
#[actix_rt::test]
async fn a_session_that_was_discarded_does_not_come_back() {
    let disk = Disk::default();
    let powered = disk.power().await;
    Client::connected(&powered.broker, connect_lasting("c", V5)).await.vanish().await;
    pass(secs(1)).await;
    powered.fail(true);
    let mut client = Client::new(&powered.broker, V5);
    client.send(Packet::Connect(Box::new(connect("c")))).await;
    client.expect_nothing_for(secs(10)).await;
    powered.fail(false);
    client.receive(|packet| assert!(matches!(packet, Packet::ConnAck(_)))).await;
    powered.crash();
    let second = disk.power().await;
    let (_, present) = Client::connected_with(&second.broker, connect_lasting("c", V5)).await;
    assert!(!present);
}

/// A subscription that cannot be stored is refused, and MQTT 3.1 has no code for that.
#[actix_rt::test]
async fn a_subscription_that_cannot_be_kept_is_not_granted() {
    for version in [V3_1, V3_1_1, V5] {
        let disk = Disk::default();
        let powered = disk.power().await;
        let mut client = Client::connected(&powered.broker, connect_lasting("c", version)).await;
        let mut publisher = Client::connected(&powered.broker, connect("p")).await;
        powered.fail(true);
        publisher.publish(retained(publish_1(1, "t", "tried"))).await;
        pass(secs(1)).await;
        client.send(subscribe(7, vec![filter("t", QOS_1)])).await;
        if version == V3_1 {
            client.expect_closed().await;
        } else {
            client
                .receive(|packet| {
                    let Packet::SubAck(ack) = packet else { panic!("{packet:?}") };
                    assert!(ack.reasons[0].is_failure());
                })
                .await;
        }
        powered.fail(false);
        publisher.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
    }
}

/// What waits after a second start was never sent, although another had its place before the first. [MQTT-3.3.1-1]
#[actix_rt::test]
async fn what_comes_after_a_doubtful_message_has_no_dup() {
    let disk = Disk::default();
    let first = disk.power().await;
    let mut client = Client::connected(&first.broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    first.broker.publish("t", b"1", QOS_1, false).await.unwrap();
    client.expect_publish(publish_1(1, "t", "1")).await;
    first.crash();
    let second = disk.power().await;
    let mut client = Client::connected(&second.broker, connect_lasting("c", V5)).await;
    client.expect_publish(dup(publish_1(1, "t", "1"))).await;
    client.take(QOS_1, 1).await;
    client.vanish().await;
    second.crash();
    let third = disk.power().await;
    third.broker.publish("t", b"2", QOS_1, false).await.unwrap();
    let mut client = Client::connected(&third.broker, connect_lasting("c", V5)).await;
    client.expect_publish(publish_1(1, "t", "2")).await;
}

/// A store that works again takes what it has refused before, whatever makes it write first.
#[actix_rt::test]
async fn a_publish_is_confirmed_when_an_acknowledgement_finds_that_the_store_works_again() {
    let disk = Disk::default();
    let powered = disk.power().await;
    let mut subscriber = Client::connected(&powered.broker, connect_lasting("s", V5)).await;
    subscriber.subscribe("t", QOS_1).await;
    let mut publisher = Client::connected(&powered.broker, connect_lasting("p", V5)).await;
    publisher.publish(publish_1(1, "t", "1")).await;
    publisher.expect(puback(1, ReasonCode::Success)).await;
    subscriber.expect_publish(publish_1(1, "t", "1")).await;
    powered.fail(true);
    publisher.publish(publish_1(2, "t", "2")).await;
    pass(millis(1)).await;
    powered.fail(false);
    subscriber.take(QOS_1, 1).await;
    subscriber.expect_publish(publish_1(2, "t", "2")).await;
    publisher.expect(puback(2, ReasonCode::Success)).await;
}

/// While the broker refuses durable messages, no message shows that the store works again.
#[actix_rt::test]
async fn a_store_that_works_again_is_noticed_although_nothing_is_written() {
    let disk = Disk::default();
    let powered = disk.power().await;
    powered.fail(true);
    let put = Put::new(RecordKey::new("test", "key").unwrap(), &b"value"[..]);
    assert!(powered.broker.records().put(put).await.is_err());
    assert!(!powered.broker.is_storing());
    powered.fail(false);
    pass(secs(1)).await;
    assert!(powered.broker.is_storing());
}

/// A session that was stored, and whose client has come back without a wish that it stays.
#[actix_rt::test]
async fn a_session_that_a_shutdown_ends_leaves_its_messages_to_the_next_start() {
    let disk = Disk::default();
    let first = disk.power().await;
    let member = async |packet: Connect<'_>| {
        let mut client = Client::connected(&first.broker, packet).await;
        client.subscribe("$share/g/t", QOS_1).await;
        client
    };
    member(connect_lasting("other", V5)).await.vanish().await;
    member(connect_lasting("c", V5)).await.vanish().await;
    let mut packet = connect_lasting("c", V5);
    packet.properties.session_expiry_interval = None;
    packet.properties.receive_maximum = Some(1);
    let (mut client, present) = Client::connected_with(&first.broker, packet).await;
    assert!(present);
    for payload in ["1", "2", "3"] {
        first.broker.publish("t", payload.as_bytes(), QOS_1, false).await.unwrap();
    }
    assert_eq!(client.receive_payload().await, "1");
    assert_eq!(disk.session("other").unwrap().waiting.messages, 0);
    first.broker.shutdown(secs(5)).await;
    drop(first);
    let second = disk.power().await;
    pass(secs(1)).await;
    assert!(second.broker.client("c").await.unwrap().is_none());
    let mut other = Client::connected(&second.broker, connect_lasting("other", V5)).await;
    let mut payloads = Vec::new();
    for packet_id in 1..=3 {
        payloads.push(other.receive_payload().await);
        other.take(QOS_1, packet_id).await;
    }
    payloads.sort();
    assert_eq!(payloads, ["1", "2", "3"]);
}

/// A store takes one group at a time, and the changes in their order.
#[actix_rt::test]
async fn a_record_is_stored_behind_the_changes_that_the_store_has_not_taken() {
    let disk = Disk::default();
    let powered = disk.power().await;
    let mut client = Client::connected(&powered.broker, connect_lasting("c", V5)).await;
    powered.fail(true);
    client.send(subscribe(1, vec![filter("t", QOS_1)])).await;
    client.expect_nothing_for(millis(10)).await;
    assert_eq!(disk.session("c").unwrap().subscriptions.len(), 0);
    powered.fail(false);
    // No shard tries again before this is stored.
    powered.broker.drain(Some(Redirection::new("b.example", true).unwrap())).await;
    assert!(disk.record("redirect").is_some());
    assert_eq!(disk.session("c").unwrap().subscriptions.len(), 1);
}
