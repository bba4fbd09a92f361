//! Sticky settings of a user: they hold for all its clients, each where it has none of its own.

use std::sync::Arc;

use hearthmq::{
    Broker,
    control::{
        ChangeSettings, ClientSession, ClientSettings, ControlError, ListSettings, QuerySettings,
        RemoveSettings, SettingsChange, SettingsOf, SettingsOfClients,
    },
    mqtt::{Connect, Packet, ReasonCode},
    store::MemoryStore,
};

use crate::{
    flow_control::numbers::send_numbers,
    support::{Client, packets::*, pass, secs, world, world_with},
};

fn nothing() -> SettingsChange {
    SettingsChange::default()
}

fn rate(rate: Option<u32>) -> SettingsChange {
    SettingsChange { message_rate: Some(rate), ..nothing() }
}

fn window(max: Option<u16>) -> SettingsChange {
    SettingsChange { in_flight_max: Some(max), ..nothing() }
}

fn of_user<'a>(client_id: &'a str, username: &'a str) -> Connect<'a> {
    Connect { username: Some(username), ..connect(client_id) }
}

async fn found(broker: &Broker, client_id: &str) -> ClientSession {
    broker.client(client_id).await.unwrap().unwrap()
}

/// Returns the rate and the window that a client has.
async fn in_force(broker: &Broker, client_id: &str) -> (Option<u32>, Option<u16>) {
    let ClientSettings { message_rate, in_flight_max, .. } =
        found(broker, client_id).await.settings;
    (message_rate, in_flight_max)
}

async fn remove(broker: &Broker, username: &str) -> bool {
    let wanted = RemoveSettings::new(SettingsOf::User(username.into()));
    SettingsOfClients::remove_settings(broker, wanted).await.unwrap().is_some()
}

#[actix_rt::test]
async fn connected_clients_of_a_user_follow_its_settings_from_the_next_packet_on() {
    let broker = world().await;
    let mut ann = Client::connected(&broker, of_user("a", "ann")).await;
    let _other = Client::connected(&broker, of_user("b", "ann")).await;
    let _bob = Client::connected(&broker, of_user("c", "bob")).await;
    let _nobody = Client::connected(&broker, connect("d")).await;
    let changed = broker.change_user_settings("ann", rate(Some(10))).await.unwrap();
    assert_eq!(&*changed.node, "hearthmq");
    let settings = changed.settings;
    assert_eq!(settings.message_rate, Some(10));
    for (client_id, expected) in [("a", Some(10)), ("b", Some(10)), ("c", None), ("d", None)] {
        assert_eq!(in_force(&broker, client_id).await.0, expected, "{client_id}");
    }
    send_numbers(&mut ann, "t", 0..100).await;
    pass(secs(4)).await;
    let read: u64 = broker.metrics().shards().map(|it| it.messages_received[1].value()).sum();
    assert!((45..=51).contains(&read), "{read}");
    // Without the settings, all is read immediately.
    assert!(remove(&broker, "ann").await);
    assert_eq!(in_force(&broker, "a").await.0, None);
    for number in 1..=100 {
        ann.expect(puback(number, ReasonCode::NoMatchingSubscribers)).await;
    }
    assert!(!remove(&broker, "ann").await);
}

#[actix_rt::test]
async fn a_setting_of_the_client_comes_before_that_of_its_user() {
    let broker = world().await;
    let _client = Client::connected(&broker, of_user("a", "ann")).await;
    broker.change_settings("a", rate(Some(7))).await.unwrap();
    let both = SettingsChange { in_flight_max: Some(Some(3)), ..rate(Some(10)) };
    broker.change_user_settings("ann", both).await.unwrap();
    assert_eq!(in_force(&broker, "a").await, (Some(7), Some(3)));
    // Without its own, the client has that of its user.
    let settings = broker.change_settings("a", rate(None)).await.unwrap().settings;
    assert_eq!((settings.message_rate, settings.in_flight_max), (Some(10), Some(3)));
    broker.change_settings("a", window(Some(9))).await.unwrap();
    broker.change_user_settings("ann", rate(None)).await.unwrap();
    assert_eq!(in_force(&broker, "a").await, (None, Some(9)));
    assert!(remove(&broker, "ann").await);
    assert_eq!(in_force(&broker, "a").await, (None, Some(9)));
}

#[actix_rt::test]
async fn later_connections_begin_with_both_also_after_a_restart() {
    let store = Arc::new(MemoryStore::default());
    let broker = world_with(|builder| builder.shared_store(store.clone())).await;
    let change = ChangeSettings::of_user("ann", window(Some(3))).by("ops");
    SettingsOfClients::change_settings(&broker, change).await.unwrap();
    broker.change_user_settings("ann", rate(Some(10))).await.unwrap();
    let own = ChangeSettings::new("a", rate(Some(7))).sticky();
    SettingsOfClients::change_settings(&broker, own).await.unwrap();
    broker.shutdown(secs(10)).await;

    let broker = world_with(|builder| builder.shared_store(store)).await;
    let client = Client::connected(&broker, of_user("a", "ann")).await;
    let _other = Client::connected(&broker, of_user("b", "ann")).await;
    assert_eq!(in_force(&broker, "a").await, (Some(7), Some(3)));
    assert_eq!(in_force(&broker, "b").await, (Some(10), Some(3)));
    let shown = found(&broker, "a").await;
    assert_eq!(shown.in_flight_max, Some(3));
    assert_eq!(shown.sticky_settings.message_rate, Some(7));
    let of_user = shown.user_settings;
    assert_eq!((of_user.message_rate, of_user.in_flight_max), (Some(10), Some(3)));
    // Another user has the same identifier.
    client.leave().await;
    let _client = Client::connected(&broker, self::of_user("a", "bob")).await;
    assert_eq!(in_force(&broker, "a").await, (Some(7), None));
}

/// A session that ends with its connection cannot be given an interval. [MQTT 5.0, 3.14.2.2.2]
#[actix_rt::test]
async fn a_session_expiry_interval_of_a_user_is_for_sessions_that_last() {
    let broker = world().await;
    let mut lasting = of_user("a", "ann");
    lasting.properties.session_expiry_interval = Some(600);
    let client = Client::connected(&broker, lasting).await;
    let _clean = Client::connected(&broker, of_user("b", "ann")).await;
    let wanted = SettingsChange { session_expiry_secs: Some(Some(5)), ..rate(Some(10)) };
    broker.change_user_settings("ann", wanted).await.unwrap();
    let of = async |client_id| {
        let found = found(&broker, client_id).await;
        (found.session_expiry_secs, found.settings.session_expiry_secs, found.settings.message_rate)
    };
    assert_eq!(of("a").await, (5, Some(5), Some(10)));
    assert_eq!(of("b").await, (0, None, Some(10)));
    client.vanish().await;
    pass(secs(6)).await;
    assert_eq!(broker.client("a").await, Ok(None));
    // MQTT 5.0 tells a client that connects later.
    let mut client = Client::new(&broker, V5);
    client.send(Packet::Connect(Box::new(of_user("a", "ann")))).await;
    let told = client.receive(|packet| match packet {
        Packet::ConnAck(ack) => ack.properties.session_expiry_interval,
        packet => panic!("{packet:?}"),
    });
    assert_eq!(told.await, Some(5));
}

#[actix_rt::test]
async fn clients_on_all_shards_follow() {
    let broker = crate::support::builder().shards(3).start().await.unwrap();
    let names: Vec<_> = (0..30).map(|number| format!("client-{number}")).collect();
    let mut clients = Vec::new();
    for name in &names {
        clients.push(Client::connected(&broker, of_user(name, "ann")).await);
    }
    broker.change_user_settings("ann", window(Some(2))).await.unwrap();
    for name in &names {
        assert_eq!(in_force(&broker, name).await.1, Some(2), "{name}");
    }
    remove(&broker, "ann").await;
    for name in &names {
        assert_eq!(in_force(&broker, name).await.1, None, "{name}");
    }
}

#[actix_rt::test]
async fn settings_of_users_are_listed_apart_from_those_of_clients() {
    let broker = world().await;
    for username in ["bob", "ann"] {
        let change = ChangeSettings::of_user(username, rate(Some(10))).by("ops");
        SettingsOfClients::change_settings(&broker, change).await.unwrap();
    }
    let own = ChangeSettings::new("ann", window(Some(1))).sticky();
    SettingsOfClients::change_settings(&broker, own).await.unwrap();
    let list = async |question| {
        let found = SettingsOfClients::list_settings(&broker, question).await.unwrap();
        found.into_iter().map(|found| found.of).collect::<Vec<_>>()
    };
    let user = |name: &str| SettingsOf::User(name.into());
    assert_eq!(list(ListSettings::of_users(10)).await, [user("ann"), user("bob")]);
    assert_eq!(list(ListSettings::of_users(1)).await, [user("ann")]);
    assert_eq!(list(ListSettings::of_users(10).after("ann")).await, [user("bob")]);
    assert_eq!(list(ListSettings::new(10)).await, [SettingsOf::Client("ann".into())]);
    let shown = SettingsOfClients::query_settings(&broker, QuerySettings::new(user("ann")));
    let shown = shown.await.unwrap().unwrap();
    assert_eq!((shown.settings.message_rate, shown.settings.in_flight_max), (Some(10), None));
    assert_eq!(shown.by.as_deref(), Some("ops"));
    let nobody = SettingsOfClients::query_settings(&broker, QuerySettings::new(user("eve")));
    assert_eq!(nobody.await, Ok(None));
}

#[actix_rt::test]
async fn what_cannot_be_set_for_a_user_changes_nothing() {
    let broker = world().await;
    let _client = Client::connected(&broker, of_user("a", "ann")).await;
    let refused = broker.change_user_settings("ann", rate(Some(0))).await;
    assert_eq!(refused, Err(ControlError::InvalidSetting("message_rate")));
    let refused = broker.change_user_settings(&"u".repeat(4_095), rate(Some(1))).await;
    assert_eq!(refused, Err(ControlError::UsernameTooLong));
    assert!(found(&broker, "a").await.settings.is_empty());
    let longest = "u".repeat(4_094);
    assert!(broker.change_user_settings(&longest, rate(Some(1))).await.is_ok());
    // The bound is that of all sticky values.
    let mut limits = crate::support::generous();
    limits.keep_alive_overrides_max = 1;
    broker.set_limits(limits);
    let refused = broker.change_user_settings("ann", rate(Some(1))).await;
    assert_eq!(refused, Err(ControlError::TooManyOverrides));
}

/// A caller that controls some clients cannot use up the room for the settings of all.
#[actix_rt::test]
async fn one_user_has_a_share_of_the_sticky_settings() {
    let broker = world().await;
    let mut limits = crate::support::generous();
    limits.client_id_bytes_max = 100;
    limits.keep_alive_overrides_per_user_max = 1;
    broker.set_limits(limits);
    let set = async |id: &str, rate: Option<u32>| {
        let change = SettingsChange { message_rate: Some(rate), ..nothing() };
        let mut request = ChangeSettings::new(id, change).by("ops").sticky();
        request.is_within_share = true;
        SettingsOfClients::change_settings(&broker, request).await.map(|_| ())
    };
    assert_eq!(
        set(&"x".repeat(101), Some(1)).await,
        Err(ControlError::ClientIdTooLong { bytes_max: 100 })
    );
    assert_eq!(set("a", Some(1)).await, Ok(()));
    assert_eq!(set("b", Some(1)).await, Err(ControlError::TooManyOverridesOfUser));
    assert_eq!(set("a", Some(2)).await, Ok(()));
    assert_eq!(set("a", None).await, Ok(()), "its last setting is removed");
    assert_eq!(set("b", Some(1)).await, Ok(()));
}
