//! Keep Alives that hold for later connections, or for a while; and clients that change their own.

use crate::support::{
    Client, disk::Disk, packets::*, pass, secs, world, world_where, world_within,
};
use hearthmq::{
    Broker,
    auth::{AccessRequest, Action, Authorizer, Decision},
    control::{
        ControlError, KeepAliveChanged, ListOverrides, LiveClients, RemoveOverride, SetKeepAlive,
    },
    limits::Limits,
    mqtt::{Connect, Packet, ProtocolVersion, Publish, ReasonCode},
};

fn with_keep_alive(version: ProtocolVersion, secs: u16) -> Connect<'static> {
    Connect { keep_alive: secs, ..connect_in(version, "car") }
}

async fn set(broker: &Broker, request: SetKeepAlive) -> KeepAliveChanged {
    LiveClients::set_keep_alive(broker, request).await.unwrap()
}

async fn in_force(broker: &Broker) -> u16 {
    broker.client("car").await.unwrap().unwrap().keep_alive_secs
}

/// Connects, and returns the Server Keep Alive of CONNACK.
async fn told(broker: &Broker, packet: Connect<'_>) -> (Client, Option<u16>) {
    let mut client = Client::new(broker, packet.version);
    client.send(Packet::Connect(Box::new(packet))).await;
    let mut told = None;
    client
        .receive(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
            assert_eq!(ack.reason, ReasonCode::Success);
            told = ack.properties.server_keep_alive;
        })
        .await;
    (client, told)
}

/// [MQTT-3.2.2-21] and [MQTT-3.2.2-22]
#[actix_rt::test]
async fn a_sticky_value_is_told_to_a_client_that_was_unknown_when_it_was_set() {
    let broker = world().await;
    let changed = set(&broker, SetKeepAlive::new("car", 300).by("ops").sticky()).await;
    assert_eq!((changed.old_secs, changed.new_secs, changed.is_not_told), (0, 300, false));
    for _ in 0..2 {
        let (_client, told) = told(&broker, with_keep_alive(V5, 60)).await;
        assert_eq!((told, in_force(&broker).await), (Some(300), 300));
    }
    // A client that turns Keep Alive off keeps it off.
    let (_client, told) = told(&broker, with_keep_alive(V5, 0)).await;
    assert_eq!((told, in_force(&broker).await), (None, 0));
    let found = broker.keep_alive_override("car").await.unwrap().unwrap();
    assert_eq!((found.interval_secs, found.by.as_deref()), (300, Some("ops")));
}

#[actix_rt::test]
async fn an_mqtt_3_client_is_not_told_and_its_deadline_follows_the_sticky_value() {
    let broker = world().await;
    let (mut client, _) = told(&broker, with_keep_alive(V3_1_1, 600)).await;
    let changed = set(&broker, SetKeepAlive::new("car", 60).sticky()).await;
    assert_eq!((changed.old_secs, changed.is_not_told, changed.is_below_own), (600, true, true));
    let changed = set(&broker, SetKeepAlive::new("car", 900).sticky()).await;
    assert_eq!((changed.old_secs, changed.is_not_told, changed.is_below_own), (60, true, false));
    let (mut next, _) = told(&broker, with_keep_alive(V3_1_1, 600)).await;
    client.expect_closed().await;
    assert_eq!(in_force(&broker).await, 900);
    next.expect_nothing_for(secs(1349)).await;
    next.expect_closed().await;
}

#[actix_rt::test]
async fn a_removed_value_ends_on_the_live_connection_and_for_later_ones() {
    let broker = world().await;
    set(&broker, SetKeepAlive::new("car", 900).sticky()).await;
    let (_client, _) = told(&broker, with_keep_alive(V3_1_1, 60)).await;
    assert_eq!(in_force(&broker).await, 900);
    assert_eq!(broker.remove_keep_alive_override("car").await, Ok(true));
    assert_eq!(in_force(&broker).await, 60);
    assert_eq!(broker.remove_keep_alive_override("car").await, Ok(false));
    // What a call has set since then stays.
    set(&broker, SetKeepAlive::new("car", 900).sticky()).await;
    set(&broker, SetKeepAlive::new("car", 120)).await;
    LiveClients::remove_override(&broker, RemoveOverride::new("car")).await.unwrap();
    assert_eq!(in_force(&broker).await, 120);
}

/// A client that was told a value goes by it, whatever happens to the override.
#[actix_rt::test]
async fn a_value_that_the_client_was_told_stays_for_its_connection() {
    let broker = world().await;
    set(&broker, SetKeepAlive::new("car", 900).sticky().ttl_secs(100)).await;
    let (mut client, told_secs) = told(&broker, with_keep_alive(V5, 60)).await;
    assert_eq!(told_secs, Some(900));
    pass(secs(200)).await;
    assert_eq!(in_force(&broker).await, 900);
    client.ping().await;
    let (_client, told_secs) = told(&broker, with_keep_alive(V5, 60)).await;
    assert_eq!((told_secs, in_force(&broker).await), (None, 60));
}

#[actix_rt::test]
async fn a_value_with_a_time_to_live_reverts_by_itself() {
    let broker = world().await;
    let (_client, _) = told(&broker, with_keep_alive(V5, 600)).await;
    set(&broker, SetKeepAlive::new("car", 300).ttl_secs(50)).await;
    pass(secs(49)).await;
    assert_eq!(in_force(&broker).await, 300);
    pass(secs(2)).await;
    assert_eq!(in_force(&broker).await, 600);
    // It reverts to the sticky value, which is below it.
    set(&broker, SetKeepAlive::new("car", 500).sticky().ttl_secs(100)).await;
    set(&broker, SetKeepAlive::new("car", 400).ttl_secs(10)).await;
    pass(secs(11)).await;
    assert_eq!(in_force(&broker).await, 500);
    pass(secs(100)).await;
    assert_eq!(in_force(&broker).await, 600);
    assert_eq!(broker.keep_alive_override("car").await, Ok(None));
    // A later change without one stays.
    set(&broker, SetKeepAlive::new("car", 500).ttl_secs(10)).await;
    set(&broker, SetKeepAlive::new("car", 450)).await;
    pass(secs(20)).await;
    assert_eq!(in_force(&broker).await, 450);
}

#[actix_rt::test]
async fn sticky_values_outlive_a_crash_and_their_time_goes_on() {
    let disk = Disk::default();
    let powered = disk.power().await;
    set(&powered.broker, SetKeepAlive::new("car", 300).sticky()).await;
    set(&powered.broker, SetKeepAlive::new("bus", 300).sticky().ttl_secs(100)).await;
    set(&powered.broker, SetKeepAlive::new("van", 300).sticky()).await;
    assert_eq!(powered.broker.remove_keep_alive_override("van").await, Ok(true));
    powered.crash();
    let powered = disk.power().await;
    let broker = &powered.broker;
    let (_client, told) = told(broker, with_keep_alive(V5, 60)).await;
    assert_eq!(told, Some(300));
    let all = broker.keep_alive_overrides(ListOverrides::new(10)).await.unwrap();
    assert_eq!(all.iter().map(|found| &*found.client_id).collect::<Vec<_>>(), ["bus", "car"]);
    pass(secs(101)).await;
    assert_eq!(broker.keep_alive_override("bus").await, Ok(None));
}

/// A failed call stores nothing.
#[actix_rt::test]
async fn a_sticky_value_that_cannot_be_set_is_not_stored() {
    let broker = world_within(|limits| limits.keep_alive_overrides_max = 1).await;
    let (_client, _) = told(&broker, with_keep_alive(V5, 0)).await;
    let try_to = async |request| LiveClients::set_keep_alive(&broker, request).await;
    let sticky = |id: &str| SetKeepAlive::new(id, 300).sticky();
    assert_eq!(try_to(sticky("car")).await, Err(ControlError::KeepAliveDisabled));
    // The broker's limit comes first, and then that of the store.
    let too_long = async |bytes| try_to(sticky(&"x".repeat(bytes))).await;
    let limit = |bytes_max| Err(ControlError::ClientIdTooLong { bytes_max });
    assert_eq!(too_long(4_097).await, limit(1_024));
    broker.set_limits(Limits { client_id_bytes_max: 60_000, ..broker.node().limits });
    assert_eq!(too_long(4_097).await, limit(4_096));
    let zero = SetKeepAlive::new("bus", 0).sticky();
    assert_eq!(try_to(zero).await, Err(ControlError::InvalidInterval));
    assert!(try_to(sticky("van").dry_run()).await.is_ok());
    assert_eq!(broker.keep_alive_overrides(ListOverrides::new(10)).await, Ok(vec![]));
    assert!(try_to(sticky("bus")).await.is_ok());
    assert_eq!(try_to(sticky("van")).await, Err(ControlError::TooManyOverrides));
    assert!(try_to(sticky("bus")).await.is_ok(), "it has its place");
}

/// One caller cannot fill the room of all: neither by number nor by bytes.
#[actix_rt::test]
async fn one_user_has_a_share_of_the_sticky_values() {
    let broker = world_within(|limits| {
        limits.client_id_bytes_max = 1_000;
        limits.keep_alive_overrides_max = 6;
        limits.keep_alive_overrides_per_user_max = 3;
        limits.keep_alive_override_bytes_max = 1_000_000;
        limits.keep_alive_override_bytes_per_user_max = 2_000;
    })
    .await;
    let shared = async |id: &str, by: &str| {
        let mut request = SetKeepAlive::new(id, 300).by(by).sticky();
        request.is_within_share = true;
        LiveClients::set_keep_alive(&broker, request).await.map(|_| ())
    };
    let too_long = Err(ControlError::ClientIdTooLong { bytes_max: 1_000 });
    assert_eq!(shared(&"x".repeat(1_001), "ann").await, too_long);
    for id in ["a", "b", "c"] {
        assert_eq!(shared(id, "ann").await, Ok(()));
    }
    let full = Err(ControlError::TooManyOverridesOfUser);
    assert_eq!(shared("d", "ann").await, full);
    assert_eq!(shared("a", "ann").await, Ok(()), "it has its place");
    // What another caller sets again is of that caller, and what is removed is of nobody.
    assert_eq!(shared("a", "bob").await, Ok(()));
    assert_eq!(shared("d", "ann").await, Ok(()));
    assert_eq!(shared("a", "ann").await, full);
    let removed = LiveClients::remove_override(&broker, RemoveOverride::new("d")).await;
    assert_eq!(removed.unwrap().unwrap().by.as_deref(), Some("ann"));
    assert_eq!(shared("a", "ann").await, Ok(()));
    // Long identifiers use up the bytes first.
    for id in ["y", "z"] {
        assert_eq!(shared(&id.repeat(500), "cid").await, Ok(()));
    }
    assert_eq!(shared(&"w".repeat(500), "cid").await, full);
    // A request without a share fills what is left, and then nobody has room.
    let free = SetKeepAlive::new("e", 300).by("ann").sticky();
    assert!(LiveClients::set_keep_alive(&broker, free).await.is_ok());
    assert_eq!(shared("f", "dan").await, Err(ControlError::TooManyOverrides));
}

/// Calls at the same time cannot exceed the bound, and what was stored before a crash counts.
#[actix_rt::test]
async fn values_that_are_found_in_the_store_count() {
    let disk = Disk::default();
    let bounds = Limits {
        keep_alive_overrides_max: 3,
        keep_alive_overrides_per_user_max: 2,
        ..crate::support::generous()
    };
    let shared = |id: &str, by: &str| {
        let mut request = SetKeepAlive::new(id, 300).by(by).sticky();
        request.is_within_share = true;
        request
    };
    let powered = disk.power_within(|limits| *limits = bounds.clone()).await;
    let ids = ["a", "b", "c", "d"];
    let set = ids.map(|id| LiveClients::set_keep_alive(&powered.broker, shared(id, "ann")));
    let set = futures_util::future::join_all(set).await;
    assert_eq!(set.iter().filter(|result| result.is_ok()).count(), 2);
    powered.crash();
    let powered = disk.power_within(|limits| *limits = bounds).await;
    let broker = &powered.broker;
    let refused = LiveClients::set_keep_alive(broker, shared("e", "ann")).await;
    assert_eq!(refused, Err(ControlError::TooManyOverridesOfUser));
    assert!(LiveClients::set_keep_alive(broker, shared("e", "bob")).await.is_ok());
}

/// Allows everything but to publish to this topic with QoS 2.
struct OwnKeepAlive;

impl Authorizer for OwnKeepAlive {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        match request.action {
            Action::Publish { qos: QOS_2, .. } => Decision::Deny,
            _ => Decision::Allow,
        }
    }
}

/// Publishes, and returns the Reason Code of the answer.
async fn answered(client: &mut Client, packet: Publish<'_>) -> ReasonCode {
    client.publish(packet).await;
    client
        .receive(|packet| match packet {
            Packet::PubAck(ack) | Packet::PubRec(ack) => ack.reason,
            packet => panic!("{packet:?}"),
        })
        .await
}

const OPTION: &str = "$SETOPTS/mqtt/keepalive";

#[actix_rt::test]
async fn a_client_changes_its_own_keep_alive() {
    let broker = world_where(OwnKeepAlive).await;
    let mut observer = Client::connected(&broker, connect("observer")).await;
    observer.subscribe("$SETOPTS/#", QOS_1).await;
    observer.subscribe("$events/client_keepalive_changed", QOS_0).await;
    let packet = Connect { username: Some("fleet"), ..with_keep_alive(V5, 60) };
    let (mut client, _) = told(&broker, packet).await;
    let taken = answered(&mut client, retained(publish_1(1, OPTION, "300"))).await;
    assert_eq!((taken, in_force(&broker).await), (ReasonCode::Success, 300));
    for payload in ["", "0", "29", "1201", "60 ", "+60", "sixty", "99999999999"] {
        let reason = answered(&mut client, publish_1(1, OPTION, payload)).await;
        assert_eq!(reason, ReasonCode::PayloadFormatInvalid, "{payload}");
    }
    let reason = answered(&mut client, publish_2(1, OPTION, "60")).await;
    assert_eq!((reason, in_force(&broker).await), (ReasonCode::NotAuthorized, 300));
    let reason = answered(&mut client, publish_1(1, OPTION, "120")).await;
    assert_eq!((reason, in_force(&broker).await), (ReasonCode::QuotaExceeded, 300));
    // What is in force already is no change.
    assert_eq!(answered(&mut client, publish_1(1, OPTION, "300")).await, ReasonCode::Success);
    client.expect_nothing_for(secs(1)).await;
    client.publish(publish(OPTION, "120")).await;
    client.publish(publish(OPTION, "180")).await;
    client.ping().await;
    assert_eq!(in_force(&broker).await, 120);
    // Only the events of the two changes, and no message.
    for (old, new) in [(60, 300), (300, 120)] {
        let fields = format!(r#""old":{old},"new":{new},"by":"fleet""#);
        observer
            .receive(|packet| {
                let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                let text = std::str::from_utf8(publish.payload).unwrap();
                assert!(text.contains(&fields), "{text}");
            })
            .await;
    }
    observer.expect_nothing_for(secs(1)).await;
    let (mut client, _) = told(&broker, with_keep_alive(V5, 0)).await;
    let reason = answered(&mut client, publish_1(1, OPTION, "300")).await;
    assert_eq!(reason, ReasonCode::ImplementationSpecificError);
}
