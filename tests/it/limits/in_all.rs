//! Limits for all clients together, and for all clients of one user.

use hearthmq::{
    metrics::ConnectRefusal,
    mqtt::{Connect, Packet, ProtocolVersion, ReasonCode, encode},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    riddle::{Riddle, answer, question, riddled},
    support::{Client, generous, packets::*, pass, refused, secs, world_with, world_within},
};

/// Expects SUBACK with these codes, and any Reason String.
async fn expect_granted(client: &mut Client, reasons: &[ReasonCode]) {
    client
        .receive(|packet| {
            let Packet::SubAck(ack) = packet else { panic!("SUBACK expected, not {packet:?}") };
            assert_eq!(ack.reasons, reasons);
        })
        .await;
}

#[actix_rt::test]
async fn subscriptions_of_all_clients_together_are_bounded() {
    // "a/b" counts 6 for its text and 3 × 256; two fit.
    let broker = world_within(|limits| limits.subscription_bytes_max = 2 * 774).await;
    let mut first = Client::connected(&broker, connect("1")).await;
    first.subscribe("a/b", QOS_1).await;
    first.subscribe("a/b", QOS_0).await; // is the same
    assert_eq!(broker.metrics().totals().subscription_bytes.value(), 774);
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "2")).await;
        client.send(subscribe(1, vec![filter("a/b", QOS_0), filter("a/b/c", QOS_0)])).await;
        let refused =
            if version == V5 { ReasonCode::QuotaExceeded } else { ReasonCode::UnspecifiedError };
        expect_granted(&mut client, &[ReasonCode::Success, refused]).await;
    }
    first.send(unsubscribe(2, vec!["a/b"])).await;
    first.expect(unsuback(2, &[ReasonCode::Success])).await;
    first.subscribe("$share/g/a", QOS_0).await;
    Client::connected(&broker, connect("2")).await.leave().await;
    first.leave().await;
    assert_eq!(broker.metrics().totals().subscription_bytes.value(), 0);
}

#[actix_rt::test]
async fn filters_of_one_subscribe_are_bounded() {
    let broker = world_within(|limits| limits.filters_per_subscribe_max = 3).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let filters = ["a", "b", "a", "c", "d"].map(|text| filter(text, QOS_1));
    client.send(subscribe(1, filters.to_vec())).await;
    let granted = ReasonCode::GrantedQoS1;
    let refused = ReasonCode::QuotaExceeded;
    expect_granted(&mut client, &[granted, granted, granted, refused, refused]).await;
    client.send(subscribe(2, vec![filter("c", QOS_1)])).await;
    expect_granted(&mut client, &[granted]).await;
}

/// Returns a CONNECT of this user for a durable session.
fn of_user<'a>(username: &'a str, client_id: &'a str) -> Connect<'a> {
    Connect { username: Some(username), ..connect_lasting(client_id, V5) }
}

#[actix_rt::test]
async fn sessions_of_one_user_are_bounded() {
    let broker = world_within(|limits| limits.sessions_per_user_max = 2).await;
    Client::connected(&broker, of_user("u", "1")).await.vanish().await;
    let second = Client::connected(&broker, of_user("u", "2")).await;
    let mut third = Client::new(&broker, V5);
    third.send(Packet::Connect(Box::new(of_user("u", "3")))).await;
    third.expect_refused(ReasonCode::QuotaExceeded).await;
    assert_eq!(refused(&broker, ConnectRefusal::SessionsPerUserMax), 1);
    // It may resume its existing sessions, and other users have their own limit.
    let (first, is_present) = Client::connected_with(&broker, of_user("u", "1")).await;
    assert!(is_present);
    let _other = Client::connected(&broker, of_user("v", "3")).await;
    // A session taken over from another user counts for the new one.
    let mut thief = Client::new(&broker, V5);
    thief.send(Packet::Connect(Box::new(of_user("u", "3")))).await;
    thief.expect_refused(ReasonCode::QuotaExceeded).await;
    // A session that ends makes room.
    first.leave().await;
    let mut packet = of_user("u", "1");
    packet.clean_start = true;
    packet.properties.session_expiry_interval = None;
    Client::connected(&broker, packet).await.leave().await;
    let _third = Client::connected(&broker, of_user("u", "4")).await;
    drop(second);
}

#[actix_rt::test]
async fn wills_of_all_clients_together_are_bounded() {
    // Topic and payload, and 256 for each Will.
    let broker = world_within(|limits| limits.will_bytes_max = 256 + 1 + 100).await;
    let payload = "x".repeat(100);
    let with_will = |client_id| {
        let mut packet = connect_lasting(client_id, V5);
        let mut last_will = will("w", &payload);
        last_will.properties.will_delay_interval = Some(60);
        packet.will = Some(last_will);
        packet
    };
    let first = Client::connected(&broker, with_will("1")).await;
    let mut second = Client::new(&broker, V5);
    second.send(Packet::Connect(Box::new(with_will("2")))).await;
    second.expect_refused(ReasonCode::QuotaExceeded).await;
    assert_eq!(refused(&broker, ConnectRefusal::WillBytesMax), 1);
    assert_eq!(broker.metrics().totals().will_bytes.value(), 357);
    // A delayed Will still counts, a published one does not.
    first.vanish().await;
    let mut second = Client::new(&broker, V5);
    second.send(Packet::Connect(Box::new(with_will("2")))).await;
    second.expect_refused(ReasonCode::QuotaExceeded).await;
    pass(secs(61)).await;
    let _second = Client::connected(&broker, with_will("2")).await;
}

/// There may be room again in a moment, but a connection that would wait for it is closed.
/// 3.1.1: [MQTT-4.8.0-2]
#[actix_rt::test]
async fn large_packets_that_are_not_whole_are_bounded_together() {
    let broker = world_within(|limits| limits.incomplete_packet_bytes_max = 500_000).await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("t", QOS_1).await;
    let payload = "x".repeat(400_000);
    let mut packet = Vec::new();
    encode(&Packet::Publish(publish_1(1, "t", &payload)), V5, &mut packet).unwrap();
    let mut first = Client::connected(&broker, connect("1")).await;
    first.send_bytes(&packet[..300_000]).await;
    pass(secs(1)).await;
    let taken = || broker.metrics().totals().incomplete_packet_bytes.value();
    assert_eq!(taken(), 300_000);
    for version in VERSIONS {
        let mut second = Client::connected(&broker, connect_in(version, "2")).await;
        second.send_bytes(&packet[..300_000]).await;
        second.expect_disconnect(ReasonCode::QuotaExceeded).await;
        assert_eq!(taken(), 300_000);
    }
    // A complete packet no longer counts; and the first client has lost nothing.
    first.send_bytes(&packet[300_000..]).await;
    first.expect(puback(1, ReasonCode::Success)).await;
    assert_eq!(taken(), 0);
    let mut third = Client::connected(&broker, connect("3")).await;
    third.send_bytes(&packet).await;
    third.expect(puback(1, ReasonCode::Success)).await;
    for packet_id in 1..=2 {
        subscriber.expect_publish(publish_1(packet_id, "t", &payload)).await;
    }
}

/// A quarter, and room for one packet of the largest size.
#[actix_rt::test]
async fn large_packets_of_one_user_leave_room_for_others() {
    let broker = world_within(|limits| {
        (limits.incomplete_packet_bytes_max, limits.packet_bytes_max) = (1_000_000, 200_000);
    })
    .await;
    let mut packet = Vec::new();
    let payload = "x".repeat(150_000);
    encode(&Packet::Publish(publish_1(1, "t", &payload)), V5, &mut packet).unwrap();
    let half = async |user: &'static str, client_id: &str| {
        let mut client =
            Client::connected(&broker, Connect { username: Some(user), ..connect(client_id) })
                .await;
        client.send_bytes(&packet[..100_000]).await;
        pass(secs(1)).await;
        client
    };
    let taken = || broker.metrics().totals().incomplete_packet_bytes.value();
    let (mut first, _second) = (half("ann", "1").await, half("ann", "2").await);
    assert_eq!(taken(), 200_000);
    half("ann", "3").await.expect_disconnect(ReasonCode::QuotaExceeded).await;
    let mut other = half("ben", "4").await;
    assert_eq!(taken(), 300_000);
    for client in [&mut first, &mut other] {
        client.send_bytes(&packet[100_000..]).await;
        client.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
    }
    let _third = half("ann", "3").await;
    assert_eq!(taken(), 200_000);
}

/// A connection that is cut off gives its room back.
#[actix_rt::test]
async fn half_a_packet_is_forgotten_with_its_connection() {
    let broker = world_within(|_| {}).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let mut packet = vec![0_u8; 200_000];
    packet[..4].copy_from_slice(&[0x30, 0xFF, 0xFF, 0x1F]);
    packet[5] = 1;
    packet[6] = b't';
    client.send_bytes(&packet).await;
    pass(secs(1)).await;
    assert_eq!(broker.metrics().totals().incomplete_packet_bytes.value(), 200_000);
    client.vanish().await;
    pass(secs(10)).await;
    assert_eq!(broker.metrics().totals().incomplete_packet_bytes.value(), 0);
}

/// Returns a CONNECT of nearly 120,000 bytes.
fn large_connect(version: ProtocolVersion) -> Vec<u8> {
    let name = "u".repeat(60_000);
    let mut packet = connect_in(version, "c");
    packet.username = Some(&name);
    packet.password = Some(&name.as_bytes()[..59_900]);
    let mut bytes = Vec::new();
    encode(&Packet::Connect(Box::new(packet)), version, &mut bytes).unwrap();
    bytes
}

#[actix_rt::test]
async fn connects_that_are_not_whole_are_bounded_together() {
    let broker = world_within(|limits| limits.incomplete_packet_bytes_max = 150_000).await;
    let taken = || broker.metrics().totals().incomplete_packet_bytes.value();
    for version in VERSIONS {
        let packet = large_connect(version);
        let mut first = Client::new(&broker, version);
        first.send_bytes(&packet[..100_000]).await;
        pass(secs(1)).await;
        assert_eq!(taken(), 100_000);
        let mut second = Client::new(&broker, version);
        second.send_bytes(&packet[..100_000]).await;
        // MQTT 3 has no code for it, and CONNECT is incomplete.
        match version {
            V5 => second.expect_refused(ReasonCode::QuotaExceeded).await,
            _ => second.expect_closed().await,
        }
        assert_eq!(taken(), 100_000);
        // A small client is not affected, and the first one has lost nothing.
        Client::connected(&broker, connect_in(version, "small")).await.leave().await;
        first.send_bytes(&packet[100_000..]).await;
        first.expect_connected().await;
        assert_eq!(taken(), 0);
    }
    let refused = refused(&broker, ConnectRefusal::IncompletePacketBytesMax);
    assert_eq!(refused, VERSIONS.len() as u64);
}

#[actix_rt::test]
async fn a_connect_that_never_becomes_whole_gives_its_room_back() {
    let broker = world_within(|_| {}).await;
    let taken = || broker.metrics().totals().incomplete_packet_bytes.value();
    let packet = large_connect(V5);
    let mut slow = Client::new(&broker, V5);
    slow.send_bytes(&packet[..100_000]).await;
    let hasty = Client::new(&broker, V5);
    let Client { mut stream, .. } = hasty;
    stream.write_all(&packet[..50_000]).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(taken(), 150_000);
    drop(stream);
    pass(secs(1)).await;
    assert_eq!(taken(), 100_000);
    slow.expect_nothing_for(secs(7)).await;
    slow.expect_closed().await;
    assert_eq!(taken(), 0);
}

#[actix_rt::test]
async fn answers_of_an_exchange_that_are_not_whole_count_with_their_connect() {
    let mut limits = generous();
    limits.incomplete_packet_bytes_max = 90_000;
    let broker = world_with(|builder| builder.limits(limits).enhanced_authenticator(Riddle)).await;
    let taken = || broker.metrics().totals().incomplete_packet_bytes.value();
    let name = "u".repeat(20_000);
    let asked = async |client_id| {
        let mut client = Client::new(&broker, V5);
        let packet = Connect { username: Some(&name), ..riddled(connect(client_id)) };
        client.send(Packet::Connect(Box::new(packet))).await;
        client.expect(question()).await;
        client
    };
    let (mut first, mut second) = (asked("1").await, asked("2").await);
    let both = taken();
    assert!((40_000..40_200).contains(&both), "{both}");
    let text = format!("I am {}", "x".repeat(40_000));
    let mut packet = Vec::new();
    encode(&answer(&text), V5, &mut packet).unwrap();
    first.send_bytes(&packet[..30_000]).await;
    pass(secs(1)).await;
    assert_eq!(taken(), both + 30_000);
    second.send_bytes(&packet[..30_000]).await;
    second.expect_refused(ReasonCode::QuotaExceeded).await;
    assert_eq!(taken(), both / 2 + 30_000);
    first.send_bytes(&packet[30_000..]).await;
    first.expect_connected().await;
    assert_eq!(taken(), 0);
}

/// Messages that a client reads and never acknowledges are limited in bytes like its queue.
#[actix_rt::test]
async fn what_is_in_flight_is_bounded_in_bytes() {
    let broker = world_within(|limits| {
        limits.queue_bytes_per_client_max = 1_000_000;
        limits.queue_bytes_max = 1_500_000;
    })
    .await;
    let payload = "x".repeat(100_000);
    let in_flight = || broker.metrics().totals().in_flight_bytes.value();
    let mut clients = Vec::new();
    for (version, expected) in [(V5, 10_usize), (V3_1_1, 1)] {
        let client_id = format!("{version:?}");
        let mut client = Client::connected(&broker, connect_in(version, &client_id)).await;
        client.subscribe(&client_id, QOS_2).await;
        for _ in 0..30 {
            broker.publish(&client_id, payload.as_bytes(), QOS_2, false).await.unwrap();
        }
        let mut read = Vec::new();
        let reading = client.stream.read_to_end(&mut read);
        assert!(timeout(secs(1), reading).await.is_err(), "the connection stays");
        let found = broker.client(&client_id).await.unwrap().unwrap();
        assert!(found.in_flight.abs_diff(expected) <= 1, "{}", found.in_flight);
        clients.push(client);
    }
    assert!(broker.metrics().totals().queue_bytes.value() + in_flight() <= 1_600_000);
}
