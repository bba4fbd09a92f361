//! A second connection with the same client identifier: the first one ends, in order, and the
//! client is online throughout. [MQTT-3.1.4-3]

use hearthmq::mqtt::{Packet, ReasonCode, encode};
use tokio::io::AsyncWriteExt;

use crate::support::{Client, packets::*, pass, secs, stream_that_wakes_nobody, world};

#[actix_rt::test]
async fn the_old_connection_is_told_and_closed_and_the_session_goes_on() {
    let broker = world().await;
    for version in VERSIONS {
        let mut old = Client::connected(&broker, connect_lasting("c", version)).await;
        old.subscribe("t", QOS_1).await;
        let packet = connect_lasting("c", version);
        let (mut new, present) = Client::connected_with(&broker, packet).await;
        assert!(present);
        old.expect_disconnect(ReasonCode::SessionTakenOver).await;
        broker.publish("t", b"x", QOS_1, false).await.unwrap();
        new.expect_publish(publish_1(1, "t", "x")).await;
        assert_eq!(broker.metrics().shard(0).connections.value(), 1);
        Client::connected(&broker, connect_in(version, "c")).await.vanish().await;
    }
}

#[actix_rt::test]
async fn connections_of_different_versions_take_each_other_over() {
    let broker = world().await;
    let mut first = Client::connected(&broker, connect_lasting("c", V3_1_1)).await;
    let mut second = Client::connected(&broker, connect_lasting("c", V5)).await;
    first.expect_closed().await;
    let mut third = Client::connected(&broker, connect_lasting("c", V3_1)).await;
    second.expect_disconnect(ReasonCode::SessionTakenOver).await;
    third.ping().await;
}

/// A query at every step of the broker never finds the client offline.
#[actix_rt::test]
async fn the_client_is_online_throughout() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    let asking = {
        let broker = broker.clone();
        actix_rt::spawn(async move {
            for _ in 0..5000 {
                assert!(broker.online("c").await.unwrap());
                tokio::task::yield_now().await;
            }
        })
    };
    for clean_start in [false, true].into_iter().cycle().take(50) {
        let mut packet = connect_lasting("c", V5);
        packet.clean_start = clean_start;
        let new = Client::connected(&broker, packet).await;
        client.expect_disconnect(ReasonCode::SessionTakenOver).await;
        client = new;
    }
    asking.await.unwrap();
}

#[actix_rt::test]
async fn of_two_that_race_one_is_left() {
    let broker = world().await;
    for round in 0..20 {
        let mut clients = Vec::new();
        for _ in 0..10 {
            let mut client = Client::new(&broker, V5);
            let packet = connect_lasting("c", V5);
            client.send(Packet::Connect(Box::new(packet))).await;
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            }
            clients.push(client);
        }
        let mut last = clients.pop().unwrap();
        for mut client in clients {
            client.receive(|p| assert!(matches!(p, Packet::ConnAck(_)))).await;
            client.expect_disconnect(ReasonCode::SessionTakenOver).await;
        }
        last.receive(|p| assert!(matches!(p, Packet::ConnAck(_)))).await;
        last.ping().await;
        assert!(broker.online("c").await.unwrap());
        assert_eq!(broker.metrics().shard(0).connections.value(), 1);
        last.leave().await;
    }
}

/// [MQTT-4.4.0-1]
#[actix_rt::test]
async fn what_the_old_connection_did_not_acknowledge_goes_to_the_new_one() {
    let broker = world().await;
    for version in VERSIONS {
        let mut old = Client::connected(&broker, connect_lasting("c", version)).await;
        old.subscribe("t", QOS_2).await;
        broker.publish("t", b"1", QOS_1, false).await.unwrap();
        broker.publish("t", b"2", QOS_2, false).await.unwrap();
        old.expect_publish(publish_1(1, "t", "1")).await;
        old.expect_publish(publish_2(2, "t", "2")).await;
        let mut new = Client::connected(&broker, connect_lasting("c", version)).await;
        new.expect_publish(dup(publish_1(1, "t", "1"))).await;
        new.expect_publish(dup(publish_2(2, "t", "2"))).await;
        old.expect_disconnect(ReasonCode::SessionTakenOver).await;
        new.take(QOS_1, 1).await;
        new.take(QOS_2, 2).await;
        new.ping().await;
        Client::connected(&broker, connect_in(version, "c")).await.vanish().await;
    }
}

/// A packet that is completed after the takeover is not handled, whichever end sends it.
#[actix_rt::test]
async fn the_old_connection_has_no_say_any_more() {
    let broker = world().await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("t", QOS_0).await;
    let mut old = Client::connected(&broker, connect_lasting("c", V5)).await;
    let mut packet = Vec::new();
    encode(&Packet::Publish(publish("t", "late")), V5, &mut packet).unwrap();
    old.send_bytes(&packet[..3]).await;
    let mut new = Client::connected(&broker, connect_lasting("c", V5)).await;
    // The stream may be closed already.
    let _ = old.stream.write_all(&packet[3..]).await;
    subscriber.expect_nothing().await;
    drop(old);
    new.ping().await;
    assert!(broker.online("c").await.unwrap());
}

/// Packets sent before the new connection have arrived, although the broker has not read them yet.
/// [MQTT-3.1.2-10]
#[actix_rt::test]
async fn what_came_before_the_new_connection_is_handled_before_it() {
    let broker = world().await;
    let mut watcher = Client::connected(&broker, connect("w")).await;
    watcher.subscribe("#", QOS_0).await;
    for version in VERSIONS {
        let mut old = Client::on(stream_that_wakes_nobody(&broker), version);
        let mut packet = connect_lasting("c", version);
        packet.will = Some(will("will", "gone"));
        old.connect(packet).await;
        old.publish(publish("t", "last")).await;
        old.send(disconnect(ReasonCode::Success)).await;
        let mut new = Client::connected(&broker, connect_lasting("c", version)).await;
        watcher.expect_publish(publish("t", "last")).await;
        watcher.expect_nothing().await;
        old.expect_closed().await;
        new.ping().await;
        Client::connected(&broker, connect_in(version, "c")).await.vanish().await;
    }
}

/// A dead old connection that reads no bytes does not delay the new one.
#[actix_rt::test]
async fn an_old_connection_that_is_stuck_does_not_hold_up_the_new_one() {
    let broker = world().await;
    let mut old = Client::on(crate::support::stream_of(&broker, 64), V5);
    let packet = connect_lasting("c", V5);
    old.send(Packet::Connect(Box::new(packet))).await;
    old.receive(|_| ()).await;
    old.subscribe("t", QOS_0).await;
    let payload = vec![b'x'; 10_000];
    broker.publish("t", &payload, QOS_0, false).await.unwrap();
    let mut new = Client::connected(&broker, connect_lasting("c", V5)).await;
    new.ping().await;
    pass(secs(6)).await;
    drop(old);
    new.ping().await;
}

async fn with_will(broker: &hearthmq::Broker, delay_secs: u32, expiry_secs: u32) -> Client {
    let mut packet = connect_lasting("c", V5);
    packet.properties.session_expiry_interval = Some(expiry_secs);
    let mut last_will = will("will", "gone");
    last_will.properties.will_delay_interval = Some(delay_secs);
    packet.will = Some(last_will);
    Client::connected(broker, packet).await
}

/// Section 3.1.3.2.2: the session continues, so a delayed Will is not sent; one without delay is.
#[actix_rt::test]
async fn the_will_of_the_old_connection_is_sent_unless_it_was_delayed() {
    let broker = world().await;
    let mut watcher = Client::connected(&broker, connect("w")).await;
    watcher.subscribe("will", QOS_0).await;
    let mut old = with_will(&broker, 0, 3600).await;
    let mut new = with_will(&broker, 5, 3600).await;
    old.expect_disconnect(ReasonCode::SessionTakenOver).await;
    watcher.expect_publish(publish("will", "gone")).await;
    let newest = Client::connected(&broker, connect_lasting("c", V5)).await;
    new.expect_disconnect(ReasonCode::SessionTakenOver).await;
    watcher.expect_nothing_for(secs(60)).await;
    newest.vanish().await;
    watcher.expect_nothing_for(secs(60)).await;
}

/// Section 3.1.4: Clean Start, and an expiry interval of 0, end the session at the takeover.
#[actix_rt::test]
async fn a_takeover_that_ends_the_session_sends_the_will_whatever_its_delay() {
    let broker = world().await;
    let mut watcher = Client::connected(&broker, connect("w")).await;
    watcher.subscribe("will", QOS_0).await;
    let mut old = with_will(&broker, 500, 3600).await;
    old.subscribe("t", QOS_1).await;
    let (mut new, present) = Client::connected_with(&broker, connect("c")).await;
    assert!(!present);
    watcher.expect_publish(publish("will", "gone")).await;
    old.expect_disconnect(ReasonCode::SessionTakenOver).await;
    broker.publish("t", b"x", QOS_1, false).await.unwrap();
    new.expect_nothing().await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().subscriptions, 0);

    let _old = with_will(&broker, 500, 0).await;
    let (_new, present) = Client::connected_with(&broker, connect_lasting("c", V5)).await;
    assert!(!present);
    watcher.expect_publish(publish("will", "gone")).await;
}
