//! The history of a client: its last connections, with how each ended, also over restarts.

use hearthmq::{
    Broker,
    auth::Identity,
    control::{
        Caller, Clients, Kick, KickOptions, LiveClients, PastConnection, Redirect, Redirection,
        Redirects,
    },
    hooks::DisconnectReason::{self, *},
    mqtt::ReasonCode,
};

use crate::support::{
    Client, disk::Disk, forgetful_world_within, packets::*, pass, secs, world, world_within,
};

async fn history(broker: &Broker, client_id: &str) -> Vec<PastConnection> {
    broker.list_history(client_id, 100).await.unwrap().unwrap()
}

/// Returns the reasons of the ends, the newest first; `None` for a connection without an end.
async fn reasons(broker: &Broker, client_id: &str) -> Vec<Option<DisconnectReason>> {
    let found = history(broker, client_id).await;
    found.iter().map(|it| it.end.as_ref().map(|end| end.reason)).collect()
}

async fn leave(mut client: Client) {
    client.send(disconnect(ReasonCode::Success)).await;
    client.expect_closed().await;
}

#[actix_rt::test]
async fn a_history_has_each_connection_with_its_end() {
    let broker = world().await;
    assert_eq!(broker.list_history("c", 100).await, Ok(None));
    let mut packet = connect_in(V3_1_1, "c");
    packet.username = Some("ann");
    let client = Client::connected(&broker, packet).await;
    let [live] = &history(&broker, "c").await[..] else { panic!("one connection") };
    assert_eq!((live.online, live.protocol, &live.end), (true, 4, &None));
    assert_eq!(live.username.as_deref(), Some("ann"));
    assert_eq!(live.peer, "192.0.2.7:40000".parse().unwrap());
    assert_eq!((&*live.listener, &*live.node), ("in-process", "hearthmq"));
    pass(secs(90)).await;
    leave(client).await;
    // The session has ended with it, and the client is gone.
    assert_eq!(broker.client("c").await, Ok(None));
    let [past] = &history(&broker, "c").await[..] else { panic!("one connection") };
    let end = past.end.clone().unwrap();
    assert_eq!((past.online, end.reason, end.by), (false, Normal, None));
    assert_eq!((end.at_millis - past.connected_at_millis + 500) / 1000, 90);

    let first = Client::connected(&broker, connect("c")).await;
    let second = Client::connected(&broker, connect("c")).await;
    drop(first);
    second.vanish().await;
    let mut silent = connect("c");
    silent.keep_alive = 10;
    let _silent = Client::connected(&broker, silent).await;
    pass(secs(16)).await;
    let expected = [KeepaliveTimeout, TcpClosed, Takeovered, Normal].map(Some);
    assert_eq!(reasons(&broker, "c").await, expected);
    let found = history(&broker, "c").await;
    assert!(found.is_sorted_by(|newer, older| newer.version > older.version));
    let newest = broker.list_history("c", 1).await.unwrap().unwrap();
    assert_eq!(newest[..], found[..1]);
}

#[actix_rt::test]
async fn a_history_says_who_has_ended_a_connection() {
    let broker = world().await;
    let packet = connect_lasting("c", V5);
    let _client = Client::connected(&broker, packet.clone()).await;
    let kick = Kick::new("c", KickOptions::new()).by("ops");
    LiveClients::kick(&broker, kick).await.unwrap();
    let last_end = async || broker.client("c").await.unwrap().unwrap().last_end.unwrap();
    let by = Some("ops".into());
    assert_eq!((last_end().await.reason, last_end().await.by), (Kicked, by.clone()));
    let mut packet = packet;
    packet.clean_start = false;
    let _client = Client::connected(&broker, packet).await;
    let to = Redirection::new("other:1883", false).unwrap();
    let identity = Identity { username: Some("root".into()), ..Identity::default() };
    let peer = "192.0.2.9:1".parse().unwrap();
    let caller = Caller { identity, peer, listener: "http".into() };
    let request = Redirect::new(Clients::One("c".into()), to).by(caller);
    assert_eq!(Redirects::redirect(&broker, request).await, Ok(1));
    let found = history(&broker, "c").await;
    let ends = found.iter().map(|it| it.end.clone().unwrap());
    let ends: Vec<_> = ends.map(|end| (end.reason, end.by)).collect();
    assert_eq!(ends, [(Redirected, Some("root".into())), (Kicked, by)]);
}

#[actix_rt::test]
async fn the_oldest_connections_leave_a_history_and_old_ends_too() {
    let broker = world_within(|limits| {
        limits.history_per_client_max = 3;
        limits.history_days_max = 1;
    })
    .await;
    let lasting = hearthmq::mqtt::Connect { keep_alive: 0, ..connect("car") };
    let stays = Client::connected(&broker, lasting).await;
    for _ in 0..5 {
        leave(Client::connected(&broker, connect("c")).await).await;
        pass(secs(1)).await;
    }
    assert_eq!(history(&broker, "c").await.len(), 3);
    tokio::time::advance(secs(23 * 3600)).await;
    leave(Client::connected(&broker, connect("c")).await).await;
    assert_eq!(history(&broker, "c").await.len(), 3);
    tokio::time::advance(secs(2 * 3600)).await;
    assert_eq!(history(&broker, "c").await.len(), 1);
    // A connection that lasts does not leave.
    assert_eq!(history(&broker, "car").await.len(), 1);
    drop(stays);
}

async fn visit_as(broker: &Broker, username: &str, client_id: &str) {
    let mut packet = connect(client_id);
    packet.username = Some(username);
    leave(Client::connected(broker, packet).await).await;
}

#[actix_rt::test]
async fn a_user_with_many_connections_pushes_out_its_own_histories_alone() {
    let disk = Disk::default();
    for run in 0..2 {
        let change = |limits: &mut hearthmq::limits::Limits| limits.history_connections_max = 20;
        let powered = disk.power_within(change).await;
        let broker = &powered.broker;
        if run == 0 {
            visit_as(broker, "ann", "car").await;
            pass(secs(1)).await;
        }
        for number in 0..40 {
            visit_as(broker, "bob", &format!("bike-{run}-{number}")).await;
            pass(std::time::Duration::from_millis(5)).await;
        }
        pass(secs(1)).await;
        assert_eq!(reasons(broker, "car").await, [Some(Normal)]);
        // A quarter of all is the share of one user: its last ones.
        assert_eq!(disk.histories(), 6);
        for number in 35..40 {
            assert_eq!(reasons(broker, &format!("bike-{run}-{number}")).await, [Some(Normal)]);
        }
        powered.crash();
    }
}

#[actix_rt::test]
async fn the_share_of_a_user_can_be_set() {
    let broker = forgetful_world_within(|limits| limits.history_connections_per_user_max = 2).await;
    for number in 0..4 {
        visit_as(&broker, "bob", &format!("bike-{number}")).await;
        pass(secs(1)).await;
    }
    // Another client of no user, of this address.
    leave(Client::connected(&broker, connect("car")).await).await;
    pass(secs(1)).await;
    for (client_id, is_known) in [("bike-1", false), ("bike-2", true), ("car", true)] {
        assert_eq!(broker.list_history(client_id, 9).await.unwrap().is_some(), is_known);
    }
}

#[actix_rt::test]
async fn without_histories_only_the_present_connection_is_shown() {
    let broker = world_within(|limits| limits.history_per_client_max = 0).await;
    leave(Client::connected(&broker, connect("c")).await).await;
    pass(secs(3)).await;
    assert_eq!(broker.list_history("c", 9).await, Ok(None));
    let _client = Client::connected(&broker, connect("c")).await;
    assert_eq!(history(&broker, "c").await.len(), 1);
}

#[actix_rt::test]
async fn a_history_and_the_last_end_outlive_the_broker() {
    let disk = Disk::default();
    let first = disk.power().await;
    let client = Client::connected(&first.broker, connect_lasting("stays", V5)).await;
    LiveClients::kick(&first.broker, Kick::new("stays", KickOptions::new()).by("ops"))
        .await
        .unwrap();
    drop(client);
    leave(Client::connected(&first.broker, connect("gone")).await).await;
    let cut = Client::connected(&first.broker, connect("cut")).await;
    let cut_too = Client::connected(&first.broker, connect_lasting("cut-too", V5)).await;
    pass(secs(2)).await;
    first.crash();
    drop((cut, cut_too));

    let second = disk.power().await;
    let broker = &second.broker;
    assert_eq!(reasons(broker, "stays").await, [Some(Kicked)]);
    assert_eq!(reasons(broker, "gone").await, [Some(Normal)]);
    assert_eq!(reasons(broker, "cut").await, [Some(BrokerEnded)]);
    assert!(history(broker, "cut").await.iter().all(|it| !it.online));
    let last_end = async |id| broker.client(id).await.unwrap().unwrap().last_end.unwrap();
    let kicked = last_end("stays").await;
    assert_eq!((kicked.reason, kicked.by.as_deref()), (Kicked, Some("ops")));
    assert_eq!(last_end("cut-too").await.reason, BrokerEnded);
    let again = Client::connected(broker, connect("cut")).await;
    assert_eq!(reasons(broker, "cut").await, [None, Some(BrokerEnded)]);
    pass(secs(2)).await;
    second.broker.shutdown(secs(10)).await;
    drop(again);

    // After an end that was announced, and another one that was not.
    let third = disk.power().await;
    let expected = [Some(ServerShutdown), Some(BrokerEnded)];
    assert_eq!(reasons(&third.broker, "cut").await, expected);
    let again = Client::connected(&third.broker, connect("cut")).await;
    pass(secs(2)).await;
    third.crash();
    drop(again);
    let fourth = disk.power().await;
    let expected = [Some(BrokerEnded), Some(ServerShutdown), Some(BrokerEnded)];
    assert_eq!(reasons(&fourth.broker, "cut").await, expected);
    // All of them leave the store.
    assert_eq!(disk.histories(), 4);
    fourth.crash();
    disk.grow_older(secs(8 * 24 * 3600));
    let fifth = disk.power().await;
    assert_eq!(fifth.broker.list_history("cut", 9).await, Ok(None));
    pass(secs(1)).await;
    assert_eq!(disk.histories(), 0);
}

#[actix_rt::test]
async fn a_history_waits_while_the_store_cannot_be_written() {
    let disk = Disk::default();
    let powered = disk.power().await;
    let first = Client::connected(&powered.broker, connect("c")).await;
    powered.fail(true);
    leave(first).await;
    leave(Client::connected(&powered.broker, connect("c")).await).await;
    pass(secs(5)).await;
    assert_eq!(reasons(&powered.broker, "c").await, [Some(Normal), Some(Normal)]);
    assert_eq!(disk.histories(), 0);
    powered.fail(false);
    pass(secs(5)).await;
    assert_eq!(disk.histories(), 1);
    powered.crash();
    let again = disk.power().await;
    assert_eq!(reasons(&again.broker, "c").await, [Some(Normal), Some(Normal)]);
}
