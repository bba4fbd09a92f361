//! Sessions that outlive their connection: what is queued, what is sent again, and when they end.

use hearthmq::mqtt::{Disconnect, DisconnectProperties, Packet, ReasonCode};

use crate::support::{Client, packets::*, pass, secs, world, world_within};

/// Returns a DISCONNECT that changes the Session Expiry Interval.
fn disconnect_expiring(secs: u32) -> Packet<'static> {
    Packet::Disconnect(Disconnect {
        reason: ReasonCode::Success,
        properties: DisconnectProperties {
            session_expiry_interval: Some(secs),
            ..DisconnectProperties::default()
        },
    })
}

/// MQTT 3.1 stores sessions as well, and has no flag for it.
#[actix_rt::test]
async fn a_session_of_mqtt_3_1_is_kept() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V3_1)).await;
    client.subscribe("t", QOS_1).await;
    client.vanish().await;
    broker.publish("t", b"x", QOS_1, false).await.unwrap();
    let mut client = Client::connected(&broker, connect_lasting("c", V3_1)).await;
    client.expect_publish(publish_1(1, "t", "x")).await;
}

/// [MQTT-4.5.0-1] [MQTT-4.6.0-5]
/// 3.1.1: [MQTT-4.1.0-1]
#[actix_rt::test]
async fn what_was_published_meanwhile_comes_in_order_and_without_qos_0() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        client.subscribe("t", QOS_2).await;
        client.leave().await;
        let offline = broker.client("c").await.unwrap().unwrap();
        assert!(!offline.online);
        for (payload, qos) in [("1", QOS_1), ("2", QOS_2), ("0", QOS_0), ("3", QOS_1)] {
            broker.publish("t", payload.as_bytes(), qos, false).await.unwrap();
        }
        assert_eq!(broker.client("c").await.unwrap().unwrap().queued, 3);
        let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
        client.expect_publish(publish_1(1, "t", "1")).await;
        client.expect_publish(publish_2(2, "t", "2")).await;
        client.expect_publish(publish_1(3, "t", "3")).await;
        client.ping().await;
        Client::connected(&broker, connect_in(version, "c")).await.vanish().await;
    }
}

/// [MQTT-3.1.2-23] [MQTT-4.1.0-1] [MQTT-4.1.0-2]
#[actix_rt::test]
async fn a_session_ends_when_its_expiry_interval_has_passed() {
    let broker = world().await;
    let packet = || {
        let mut packet = connect_lasting("c", V5);
        packet.properties.session_expiry_interval = Some(100);
        packet
    };
    let mut client = Client::connected(&broker, packet()).await;
    client.subscribe("t", QOS_1).await;
    pass(secs(200)).await; // it counts from the end of the connection
    client.vanish().await;
    pass(secs(98)).await;
    let (client, present) = Client::connected_with(&broker, packet()).await;
    assert!(present);
    client.vanish().await;
    pass(secs(101)).await;
    assert_eq!(broker.client("c").await.unwrap(), None);
    assert_eq!(broker.metrics().totals().subscriptions.value(), 0);
    let (_client, present) = Client::connected_with(&broker, packet()).await;
    assert!(!present);
}

/// [MQTT-4.1.0-1]
/// 3.1.1: [MQTT-4.1.0-2]
/// Even if its expiry interval has passed since it began.
#[actix_rt::test]
async fn a_session_lasts_as_long_as_its_connection() {
    let broker = world_within(|limits| limits.session_expiry_secs_max = 100).await;
    for version in VERSIONS {
        for clean_start in [false, true] {
            let mut packet = connect_lasting("c", version);
            packet.clean_start = clean_start;
            let mut client = Client::connected(&broker, packet).await;
            client.subscribe("t", QOS_1).await;
            broker.publish("t", b"1", QOS_1, false).await.unwrap();
            client.expect_publish(publish_1(1, "t", "1")).await;
            pass(secs(1000)).await;
            assert_eq!(broker.client("c").await.unwrap().unwrap().in_flight, 1);
            broker.publish("t", b"2", QOS_1, false).await.unwrap();
            client.expect_publish(publish_1(2, "t", "2")).await;
            Client::connected(&broker, connect_in(version, "c")).await.vanish().await;
        }
    }
}

#[actix_rt::test]
async fn coming_back_stops_the_clock_of_the_former_absence() {
    let broker = world().await;
    let mut packet = connect_lasting("c", V5);
    packet.properties.session_expiry_interval = Some(100);
    Client::connected(&broker, packet.clone()).await.vanish().await;
    pass(secs(90)).await;
    let client = Client::connected(&broker, packet.clone()).await;
    pass(secs(90)).await;
    client.vanish().await;
    pass(secs(90)).await;
    let (_client, present) = Client::connected_with(&broker, packet).await;
    assert!(present);
}

/// Section 3.1.2.11.2.
#[actix_rt::test]
async fn without_an_expiry_interval_the_session_ends_with_its_connection() {
    let broker = world().await;
    for expiry in [None, Some(0)] {
        let mut packet = connect_lasting("c", V5);
        packet.properties.session_expiry_interval = expiry;
        let mut client = Client::connected(&broker, packet).await;
        client.subscribe("t", QOS_1).await;
        client.vanish().await;
        assert_eq!(broker.client("c").await.unwrap(), None);
        assert_eq!(broker.metrics().totals().subscriptions.value(), 0);
    }
}

/// Clean Session of MQTT 3 concerns start and end of a session, Clean Start of MQTT 5.0 only the
/// start.
#[actix_rt::test]
async fn clean_start_with_an_expiry_interval_starts_a_session_that_is_kept() {
    let broker = world().await;
    let mut packet = connect_lasting("c", V5);
    packet.clean_start = true;
    Client::connected(&broker, packet).await.vanish().await;
    let (_client, present) = Client::connected_with(&broker, connect_lasting("c", V5)).await;
    assert!(present);
    Client::connected(&broker, connect_in(V3_1_1, "old")).await.vanish().await;
    assert_eq!(broker.client("old").await.unwrap(), None);
}

/// Section 3.14.2.2.2.
#[actix_rt::test]
async fn disconnect_may_change_the_expiry_interval() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.send(disconnect_expiring(10)).await;
    client.expect_closed().await;
    pass(secs(9)).await;
    assert!(broker.client("c").await.unwrap().is_some());
    pass(secs(2)).await;
    assert_eq!(broker.client("c").await.unwrap(), None);

    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.send(disconnect_expiring(0)).await;
    client.expect_closed().await;
    assert_eq!(broker.client("c").await.unwrap(), None);
}

/// Section 3.14.2.2.2: an interval of 0 stays 0.
#[actix_rt::test]
async fn disconnect_cannot_make_a_session_last_that_was_not_to() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.send(disconnect_expiring(10)).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
    assert_eq!(broker.client("c").await.unwrap(), None);
}

/// Section 3.2.2.3.2: the client must use the value of CONNACK.
#[actix_rt::test]
async fn an_expiry_interval_over_the_limit_is_lowered_and_told() {
    let broker = world_within(|limits| limits.session_expiry_secs_max = 100).await;
    let mut client = Client::new(&broker, V5);
    let packet = connect_lasting("c", V5);
    client.send(Packet::Connect(Box::new(packet))).await;
    client
        .receive(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
            assert_eq!(ack.properties.session_expiry_interval, Some(100));
        })
        .await;
    client.vanish().await;
    Client::connected(&broker, connect_lasting("old", V3_1_1)).await.leave().await;
    pass(secs(98)).await;
    assert!(broker.client("c").await.unwrap().is_some());
    assert!(broker.client("old").await.unwrap().is_some());
    pass(secs(4)).await;
    assert_eq!(broker.client("c").await.unwrap(), None);
    assert_eq!(broker.client("old").await.unwrap(), None);
}

#[actix_rt::test]
async fn an_expiry_interval_of_all_ones_lasts_as_long_as_the_limit() {
    let broker = world_within(|limits| limits.session_expiry_secs_max = 10_000).await;
    let mut packet = connect_lasting("c", V5);
    packet.properties.session_expiry_interval = Some(u32::MAX);
    Client::connected(&broker, packet).await.vanish().await;
    pass(secs(9_990)).await;
    assert!(broker.client("c").await.unwrap().is_some());
    pass(secs(20)).await;
    assert_eq!(broker.client("c").await.unwrap(), None);
}

/// [MQTT-3.3.2-5] [MQTT-3.3.2-6]
#[actix_rt::test]
async fn what_expires_while_waiting_is_not_sent_and_what_has_not_tells_what_is_left() {
    let broker = world().await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    client.vanish().await;
    for (number, payload, expiry) in [(1, "long", 100), (2, "short", 10)] {
        publisher.publish(expiring(publish_1(number, "t", payload), expiry)).await;
        publisher.expect(puback(number, ReasonCode::Success)).await;
    }
    publisher.publish(publish_1(3, "t", "never")).await;
    pass(secs(30)).await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.expect_publish(expiring(publish_1(1, "t", "long"), 70)).await;
    client.expect_publish(publish_1(2, "t", "never")).await;
    client.ping().await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().queued, 0);
}

#[actix_rt::test]
async fn an_expiry_interval_is_passed_on_at_once_unchanged() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.subscribe("t", QOS_0).await;
    client.publish(expiring(publish("t", "x"), 100)).await;
    client.expect_publish(expiring(publish("t", "x"), 100)).await;
    let mut old = Client::connected(&broker, connect_in(V3_1_1, "old")).await;
    old.subscribe("t", QOS_0).await;
    client.publish(expiring(publish("t", "x"), 100)).await;
    old.expect_publish(publish("t", "x")).await;
}

/// A session may be resumed with another version of the protocol.
#[actix_rt::test]
async fn a_session_goes_on_in_another_version() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V3_1_1)).await;
    client.subscribe("t", QOS_1).await;
    broker.publish("t", b"1", QOS_1, false).await.unwrap();
    client.expect_publish(publish_1(1, "t", "1")).await;
    client.leave().await;
    let (mut client, present) = Client::connected_with(&broker, connect_lasting("c", V5)).await;
    assert!(present);
    client.expect_publish(dup(publish_1(1, "t", "1"))).await;
}
