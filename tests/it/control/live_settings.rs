//! Settings of live clients: rates, limits of queue and window, session expiry.

use std::sync::Arc;

use hearthmq::{
    Broker,
    control::{
        ChangeSettings, ClientSettings, ControlError, ListSettings, QuerySettings, RemoveSettings,
        SettingsChange, SettingsOf, SettingsOfClients,
    },
    metrics::HoldReason,
    mqtt::{Packet, ReasonCode},
    store::MemoryStore,
};

use crate::{
    flow_control::numbers::{one_at_a_time, send_numbers, take_number, take_numbers},
    support::{Client, packets::*, pass, secs, stream_of, world, world_with, world_within},
};

fn nothing() -> SettingsChange {
    SettingsChange::default()
}

async fn change(broker: &Broker, change: SettingsChange) -> ClientSettings {
    broker.change_settings("c", change).await.unwrap().settings
}

/// Lets this time pass, and takes the acknowledgements of what was read; returns how many came.
async fn acknowledged_within(
    (broker, client): (&Broker, &mut Client),
    time: std::time::Duration,
) -> u32 {
    let read = || {
        let metrics = broker.metrics();
        metrics.shards().map(|shard| shard.messages_received[1].value()).sum::<u64>()
    };
    let before = read();
    pass(time).await;
    let count = (read() - before) as u32;
    for _ in 0..count {
        client.receive(|packet| assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}")).await;
    }
    count
}

#[actix_rt::test]
async fn a_client_is_read_at_its_rate_and_nothing_is_lost() {
    let broker = world().await;
    let mut subscriber = Client::connected(&broker, connect("subscriber")).await;
    subscriber.subscribe("t", QOS_1).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let settings =
        change(&broker, SettingsChange { message_rate: Some(Some(10)), ..nothing() }).await;
    assert_eq!(settings.message_rate, Some(10));
    send_numbers(&mut client, "t", 0..200).await;
    // A second's worth at once, and then ten each second.
    let first = acknowledged_within((&broker, &mut client), secs(5)).await;
    assert!((55..=61).contains(&first), "{first}");
    let metrics = broker.metrics().shard(0);
    assert_eq!(metrics.publishers_held.value(), 1);
    assert!(metrics.publisher_holds.of(HoldReason::RateLimit).value() > 0);
    assert!(broker.online("c").await.unwrap());
    let then = acknowledged_within((&broker, &mut client), secs(16)).await;
    assert_eq!(first + then, 200);
    take_numbers(&mut subscriber, 0..200).await;
    // Without the rate, all is read immediately.
    change(&broker, SettingsChange { message_rate: Some(None), ..nothing() }).await;
    send_numbers(&mut client, "t", 200..300).await;
    assert_eq!(acknowledged_within((&broker, &mut client), secs(1)).await, 100);
    take_numbers(&mut subscriber, 200..300).await;
}

#[actix_rt::test]
async fn a_client_that_is_not_read_because_of_its_rate_keeps_its_connection() {
    let broker = world().await;
    let mut packet = connect("c");
    packet.keep_alive = 10;
    // Large enough for all that is sent, so that the client need not wait for the broker.
    let mut client = Client::on(stream_of(&broker, 1_000_000), V5);
    client.connect(packet).await;
    change(&broker, SettingsChange { byte_rate: Some(Some(1_000)), ..nothing() }).await;
    let payload = "x".repeat(100_000);
    client.publish(publish_1(1, "t", &payload)).await;
    client.publish(publish_1(2, "t", "x")).await;
    client.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
    // For about 100 s the second message is not read. The client sends PINGREQ in time.
    for _ in 0..11 {
        client.send(Packet::PingReq).await;
        client.expect_nothing_for(secs(8)).await;
        assert!(broker.online("c").await.unwrap());
    }
    pass(secs(15)).await;
    client.expect(puback(2, ReasonCode::NoMatchingSubscribers)).await;
    for _ in 0..11 {
        client.expect(Packet::PingResp).await;
    }
}

#[actix_rt::test]
async fn a_client_that_leaves_while_its_rate_holds_it_is_offline_within_seconds() {
    let broker = world().await;
    for version in [V3_1_1, V5] {
        let mut client = Client::on(stream_of(&broker, 1_000_000), version);
        client.connect(connect_in(version, "c")).await;
        change(&broker, SettingsChange { byte_rate: Some(Some(1_000)), ..nothing() }).await;
        client.publish(publish("t", &"x".repeat(100_000))).await;
        client.publish(publish("t", "x")).await;
        pass(secs(10)).await;
        assert!(broker.online("c").await.unwrap());
        drop(client);
        pass(secs(2)).await;
        assert!(!broker.online("c").await.unwrap());
        assert_eq!(broker.metrics().shard(0).publishers_held.value(), 0);
    }
}

/// The memory for incomplete packets belongs to all clients, and a rate may hold some for minutes.
#[actix_rt::test]
async fn what_a_rate_holds_back_takes_no_room_from_the_large_packets_of_others() {
    let broker = world_within(|limits| limits.incomplete_packet_bytes_max = 250_000).await;
    let large = "x".repeat(200_000);
    let mut held = Vec::new();
    for id in ["a", "b", "c"] {
        let mut client = Client::on(stream_of(&broker, 1_000_000), V5);
        client.connect(connect(id)).await;
        let slow = SettingsChange { byte_rate: Some(Some(1_000)), ..nothing() };
        broker.change_settings(id, slow).await.unwrap();
        for packet_id in 1..=2 {
            client.publish(publish_1(packet_id, "t", &large)).await;
        }
        client.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
        client.expect_nothing_for(secs(5)).await;
        held.push(client);
    }
    assert_eq!(broker.metrics().shard(0).publishers_held.value(), 3);
    let mut other = Client::connected(&broker, connect("other")).await;
    other.publish(publish_1(1, "t", &large)).await;
    other.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
    pass(secs(200)).await;
    for mut client in held {
        client.expect(puback(2, ReasonCode::NoMatchingSubscribers)).await;
    }
}

#[actix_rt::test]
async fn a_queue_limit_holds_for_one_client_until_its_connection_ends() {
    let broker = world().await;
    let mut packet = one_at_a_time("c");
    packet.properties.session_expiry_interval = Some(600);
    let mut client = Client::connected(&broker, packet.clone()).await;
    client.subscribe("t", QOS_1).await;
    let wanted = SettingsChange { queue_messages_max: Some(Some(3)), ..nothing() };
    change(&broker, wanted).await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    send_numbers(&mut publisher, "t", 0..10).await;
    assert_eq!(acknowledged_within((&broker, &mut publisher), secs(1)).await, 10);
    // One is in flight; of the others, the last three wait.
    for number in [0, 7, 8, 9] {
        assert_eq!(take_number(&mut client).await, number);
    }
    client.expect_nothing().await;
    client.leave().await;
    send_numbers(&mut publisher, "t", 10..20).await;
    assert_eq!(acknowledged_within((&broker, &mut publisher), secs(1)).await, 10);
    packet.clean_start = false;
    let (mut client, _) = Client::connected_with(&broker, packet).await;
    take_numbers(&mut client, 10..20).await;
    assert!(broker.client("c").await.unwrap().unwrap().settings.is_empty());
}

#[actix_rt::test]
async fn a_window_is_never_larger_than_the_client_allows() {
    let broker = world().await;
    let mut packet = connect("c");
    packet.properties.receive_maximum = Some(4);
    let mut client = Client::connected(&broker, packet).await;
    client.subscribe("t", QOS_1).await;
    let limited = |max| SettingsChange { in_flight_max: Some(max), ..nothing() };
    change(&broker, limited(Some(2))).await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    send_numbers(&mut publisher, "t", 0..10).await;
    let ids = |count: usize| vec![(); count];
    for _ in ids(2) {
        client.receive(|packet| assert!(matches!(packet, Packet::Publish(_)))).await;
    }
    client.expect_nothing().await;
    // A higher limit lets more go on, up to the Receive Maximum.
    change(&broker, limited(Some(100))).await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().in_flight_max, Some(4));
    for _ in ids(2) {
        client.receive(|packet| assert!(matches!(packet, Packet::Publish(_)))).await;
    }
    client.expect_nothing().await;
    change(&broker, limited(None)).await;
    client.expect_nothing().await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().in_flight, 4);
}

#[actix_rt::test]
async fn a_session_expiry_interval_holds_until_the_next_connect() {
    let broker = world().await;
    let mut packet = connect("c");
    packet.properties.session_expiry_interval = Some(600);
    let expiring = |secs| SettingsChange { session_expiry_secs: Some(secs), ..nothing() };
    let client = Client::connected(&broker, packet.clone()).await;
    change(&broker, expiring(Some(5))).await;
    let found = broker.client("c").await.unwrap().unwrap();
    assert_eq!((found.session_expiry_secs, found.settings.session_expiry_secs), (5, Some(5)));
    client.vanish().await;
    pass(secs(4)).await;
    assert!(broker.client("c").await.unwrap().is_some());
    pass(secs(2)).await;
    assert_eq!(broker.client("c").await, Ok(None));

    let _client = Client::connected(&broker, packet).await;
    change(&broker, expiring(Some(0))).await;
    change(&broker, expiring(None)).await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().session_expiry_secs, 600);
}

#[actix_rt::test]
async fn what_cannot_be_set_changes_nothing() {
    let broker = world().await;
    let some_rate = SettingsChange { message_rate: Some(Some(5)), ..nothing() };
    let absent = broker.change_settings("c", some_rate.clone()).await;
    assert_eq!(absent, Err(ControlError::NotOnline));
    // This session ends with its connection.
    let _client = Client::connected(&broker, connect("c")).await;
    change(&broker, some_rate).await;
    let wanted = SettingsChange {
        session_expiry_secs: Some(Some(5)),
        message_rate: Some(None),
        ..nothing()
    };
    let refused = broker.change_settings("c", wanted).await;
    assert_eq!(refused, Err(ControlError::SessionNotLasting));
    let wanted = SettingsChange { byte_rate: Some(Some(1)), message_rate: Some(None), ..nothing() };
    let refused = broker.change_settings("c", wanted).await;
    assert_eq!(refused, Err(ControlError::InvalidSetting("byte_rate")));
    let found = broker.client("c").await.unwrap().unwrap().settings;
    assert_eq!((found.message_rate, found.byte_rate), (Some(5), None));
}

fn of_client() -> SettingsOf {
    SettingsOf::Client("c".into())
}

/// The request to change settings for later connections too.
fn sticky(change: SettingsChange) -> ChangeSettings {
    ChangeSettings::new("c", change).sticky().by("ops")
}

#[actix_rt::test]
async fn sticky_settings_hold_for_later_connections_and_over_a_restart() {
    let store = Arc::new(MemoryStore::default());
    let broker = world_with(|builder| builder.shared_store(store.clone())).await;
    let wanted = SettingsChange {
        session_expiry_secs: Some(Some(30)),
        message_rate: Some(Some(5)),
        in_flight_max: Some(Some(1)),
        ..nothing()
    };
    // Also for a client that is not known.
    let changed = SettingsOfClients::change_settings(&broker, sticky(wanted)).await.unwrap();
    assert_eq!(&*changed.node, "hearthmq");
    let stored = changed.settings;
    assert_eq!((stored.message_rate, stored.in_flight_max), (Some(5), Some(1)));
    broker.shutdown(secs(10)).await;

    let broker = world_with(|builder| builder.shared_store(store)).await;
    let mut client = Client::new(&broker, V5);
    client.send(Packet::Connect(Box::new(connect("c")))).await;
    let told = client.receive(|packet| match packet {
        Packet::ConnAck(ack) => ack.properties.session_expiry_interval,
        packet => panic!("{packet:?}"),
    });
    assert_eq!(told.await, Some(30), "a client of MQTT 5.0 is told");
    let found = broker.client("c").await.unwrap().unwrap();
    assert_eq!((found.in_flight_max, found.session_expiry_secs), (Some(1), 30));
    assert_eq!(found.settings, stored);
    send_numbers(&mut client, "t", 0..20).await;
    assert_eq!(acknowledged_within((&broker, &mut client), secs(1)).await, 10);
    drop(client);

    // A session of MQTT 3 with Clean Session ends with its connection.
    let client = Client::connected(&broker, connect_in(V3_1_1, "c")).await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().session_expiry_secs, 0);
    // Changes go on from what is stored, and are put into force.
    let more = SettingsChange { byte_rate: Some(Some(2_000)), ..nothing() };
    SettingsOfClients::change_settings(&broker, sticky(more)).await.unwrap();
    let found =
        SettingsOfClients::query_settings(&broker, QuerySettings::new(of_client())).await.unwrap();
    let found = found.unwrap();
    assert_eq!((found.settings.message_rate, found.settings.byte_rate), (Some(5), Some(2_000)));
    assert_eq!(found.by.as_deref(), Some("ops"));
    assert_eq!(broker.client("c").await.unwrap().unwrap().settings.byte_rate, Some(2_000));
    let list = SettingsOfClients::list_settings(&broker, ListSettings::new(10)).await.unwrap();
    assert_eq!(list, [found]);
    client.leave().await;
    let removed = SettingsOfClients::remove_settings(&broker, RemoveSettings::new(of_client()));
    assert_eq!(removed.await.unwrap().unwrap().settings.message_rate, Some(5));
    let _client = Client::connected(&broker, connect("c")).await;
    assert!(broker.client("c").await.unwrap().unwrap().settings.is_empty());
}
