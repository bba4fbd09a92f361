//! Everything about one client: its connection, its session, and how its last connection ended.

use hearthmq::{
    control::{Kick, KickOptions, LiveClients, SetKeepAlive},
    hooks::DisconnectReason,
    mqtt::ReasonCode,
};

use crate::support::{Client, packets::*, pass, secs, world, world_within};

#[actix_rt::test]
async fn a_connection_is_described_with_who_has_changed_its_keep_alive() {
    let broker = world().await;
    assert_eq!(broker.client("c").await, Ok(None));
    let mut packet = connect_in(V3_1_1, "c");
    packet.keep_alive = 60;
    packet.username = Some("ann");
    let mut client = Client::connected(&broker, packet).await;
    let began = broker.client("c").await.unwrap().unwrap();
    assert_eq!((&*began.client_id, began.online), ("c", true));
    assert_eq!(began.username.as_deref(), Some("ann"));
    assert_eq!(began.peer, "192.0.2.7:40000".parse().unwrap());
    assert_eq!(&*began.listener, "in-process");
    assert_eq!(began.protocol, Some(V3_1_1));
    assert_eq!((began.keep_alive_secs, began.asked_keep_alive_secs), (60, Some(60)));
    assert_eq!(began.deadline_millis, Some(began.connected_at_millis + 90_000));
    assert_eq!((began.keep_alive_changed_by, began.keep_alive_changed_at_millis), (None, None));
    assert_eq!((&began.tls, &began.last_end), (&None, &None));
    assert!(began.version > 0);

    pass(secs(10)).await;
    client.ping().await;
    pass(secs(10)).await;
    LiveClients::set_keep_alive(&broker, SetKeepAlive::new("c", 120).by("bob")).await.unwrap();
    let found = broker.client("c").await.unwrap().unwrap();
    assert_eq!((found.keep_alive_secs, found.asked_keep_alive_secs), (120, Some(60)));
    assert_eq!(found.keep_alive_changed_by.as_deref(), Some("bob"));
    let since = |millis: Option<u64>| (millis.unwrap() - began.connected_at_millis + 500) / 1000;
    assert_eq!(since(found.keep_alive_changed_at_millis), 20);
    assert_eq!(since(found.last_packet_at_millis), 10);
    assert_eq!(since(found.deadline_millis), 10 + 180);

    // The next connection begins with the value of CONNECT.
    let _client = Client::connected(&broker, connect_in(V3_1_1, "c")).await;
    let found = broker.client("c").await.unwrap().unwrap();
    assert_eq!(found.keep_alive_changed_at_millis, None);
}

#[actix_rt::test]
async fn a_session_is_described_with_what_waits_and_how_its_connection_ended() {
    let broker = world_within(|limits| limits.queue_messages_per_client_max = 3).await;
    let mut packet = connect_lasting("c", V5);
    packet.properties.receive_maximum = Some(2);
    packet.properties.session_expiry_interval = Some(600);
    let mut client = Client::connected(&broker, packet.clone()).await;
    client.subscribe("t", QOS_1).await;
    let mut publisher = Client::connected(&broker, connect("publisher")).await;
    for id in 1..=7 {
        publisher.publish(publish_1(id, "t", "payload")).await;
        publisher.receive(|_| ()).await;
    }
    let found = broker.client("c").await.unwrap().unwrap();
    assert_eq!((found.in_flight, found.queued, found.subscriptions), (2, 3, 1));
    assert_eq!((found.in_flight_max, found.session_expiry_secs), (Some(2), 600));
    assert!(found.queued_bytes >= 3 * 8 && found.in_flight_bytes >= 2 * 8);
    let losing = found.losing.unwrap();
    assert_eq!(losing.messages, 2);
    assert_eq!(found.expires_at_millis, None);

    broker.kick("c", KickOptions::new()).await.unwrap();
    let found = broker.client("c").await.unwrap().unwrap();
    assert_eq!((found.online, found.protocol, found.keep_alive_secs), (false, None, 0));
    assert_eq!((found.asked_keep_alive_secs, found.deadline_millis), (None, None));
    let end = found.last_end.unwrap();
    assert_eq!((end.reason, &end.by), (DisconnectReason::Kicked, &None));
    assert_eq!(found.expires_at_millis, Some(end.at_millis + 600_000));
    assert_eq!(found.queued + found.in_flight, 5);

    packet.clean_start = false;
    let (_client, session_present) = Client::connected_with(&broker, packet).await;
    assert!(session_present);
    let found = broker.client("c").await.unwrap().unwrap();
    assert_eq!((found.online, found.last_end), (true, Some(end)));
    pass(secs(11)).await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().losing, None);

    // A session that ends with its connection leaves nothing.
    LiveClients::kick(&broker, Kick::new("c", KickOptions::new().end_session())).await.unwrap();
    assert_eq!(broker.client("c").await, Ok(None));
    publisher.send(disconnect(ReasonCode::Success)).await;
    publisher.expect_closed().await;
    assert_eq!(broker.client("publisher").await, Ok(None));
}
