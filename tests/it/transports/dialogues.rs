//! Dialogues that must be the same over every transport.
//!
//! Time is real here: to show that no packet comes, a client sends PINGREQ and expects PINGRESP
//! next.

use hearthmq::{
    control::SettingsChange,
    mqtt::{Packet, ReasonCode, encode},
};
use tokio::time::timeout;

use crate::{
    support::{Undecided, packets::*, secs},
    transports::ways::{Way, World, ip_seen},
};

pub(crate) async fn messages_of_every_quality_of_service_go_both_ways(way: Way) {
    let world = World::with(way).await;
    for version in [V3_1, V3_1_1, V5] {
        let (mut client, _) = world.connected(connect_in(version, "c")).await;
        let (mut other, _) = world.connected_over_tcp(connect_in(version, "other")).await;
        let seen = world.broker.client("c").await.unwrap().unwrap();
        assert_eq!(seen.peer.ip(), ip_seen(way));
        let is_secure =
            matches!(way, Way::Tls | Way::SecureWebSocket | Way::ProxiedSecureWebSocket);
        assert_eq!(seen.tls.map(|tls| tls.version), is_secure.then_some("1.3"));
        for (qos, out, back) in [
            (QOS_0, publish("there", "0"), publish("back", "0")),
            (QOS_1, publish_1(1, "there", "1"), publish_1(1, "back", "1")),
            (QOS_2, publish_2(2, "there", "2"), publish_2(2, "back", "2")),
        ] {
            let packet_id = qos.number().into();
            client.subscribe("back", qos).await;
            other.subscribe("there", qos).await;

            client.publish(out.clone()).await;
            client.expect_taken(qos, packet_id, ReasonCode::Success).await;
            other.expect_publish(out).await;
            other.take(qos, packet_id).await;
            other.publish(back.clone()).await;
            other.expect_taken(qos, packet_id, ReasonCode::Success).await;
            client.expect_publish(back).await;
            client.take(qos, packet_id).await;
            client.ping().await;
            other.ping().await;
        }
        client.send(disconnect(ReasonCode::Success)).await;
        client.expect_closed().await;
    }
}

pub(crate) async fn a_retained_message_waits_for_its_subscriber(way: Way) {
    let world = World::with(way).await;
    let (mut publisher, _) = world.connected(connect_in(V3_1_1, "publisher")).await;
    publisher.publish(retained(publish_1(1, "state", "on"))).await;
    publisher.expect_taken(QOS_1, 1, ReasonCode::Success).await;
    for version in VERSIONS {
        let (mut late, _) = world.connected(connect_in(version, "late")).await;
        late.subscribe("state", QOS_0).await;
        late.expect_publish(retained(publish("state", "on"))).await;
    }
}

pub(crate) async fn the_will_of_a_client_that_is_cut_off_is_published(way: Way) {
    let world = World::with(way).await;
    let (mut watcher, _) = world.connected_over_tcp(connect("watcher")).await;
    watcher.subscribe("will", QOS_0).await;
    for version in VERSIONS {
        let mut connect = connect_in(version, "mortal");
        connect.will = Some(will("will", "gone"));
        let (mortal, _) = world.connected(connect.clone()).await;
        drop(mortal);
        watcher.expect_publish(publish("will", "gone")).await;

        let (mut polite, _) = world.connected(connect).await;
        polite.send(disconnect(ReasonCode::Success)).await;
        polite.expect_closed().await;
        watcher.ping().await;
    }
}

/// Without looking, the broker would find out after 99 seconds.
pub(crate) async fn a_client_that_leaves_while_a_rate_holds_it_is_offline(way: Way) {
    let world = World::with(way).await;
    let (mut watcher, _) = world.connected_over_tcp(connect("watcher")).await;
    watcher.subscribe("will", QOS_0).await;
    let long = "x".repeat(100_000);
    for (version, is_polite) in [(V3_1_1, false), (V3_1_1, true), (V5, false), (V5, true)] {
        let mut connect = connect_in(version, "mortal");
        connect.will = Some(will("will", "gone"));
        let (mut mortal, _) = world.connected(connect).await;
        let slow = SettingsChange { byte_rate: Some(Some(1_000)), ..SettingsChange::default() };
        world.broker.change_settings("mortal", slow).await.unwrap();
        mortal.publish(publish_1(1, "t", &long)).await;
        mortal.receive(|packet| assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}")).await;
        // What comes now is not handled, and some of it is not even read.
        mortal.publish(publish("t", "short")).await;
        if way != Way::Hosted {
            mortal.publish(publish("t", &long[..40_000])).await; // It fits into the buffer of a socket.
        }
        if is_polite {
            mortal.send(disconnect(ReasonCode::Success)).await;
        }
        drop(mortal);
        if !is_polite {
            watcher.expect_publish(publish("will", "gone")).await;
            continue;
        }
        let is_offline = async {
            while world.broker.online("mortal").await.unwrap() {
                watcher.ping().await; // and no Will
            }
        };
        timeout(secs(60), is_offline).await.expect("its client has left");
        watcher.ping().await;
    }
}

pub(crate) async fn a_session_moves_between_transports(way: Way) {
    let world = World::with(way).await;
    for version in VERSIONS {
        let connect = || connect_lasting("traveller", version);
        let (mut first, _) = world.connected(connect()).await;
        first.subscribe("t", QOS_1).await;
        let (mut second, is_present) = world.connected_over_tcp(connect()).await;
        assert!(is_present);
        first.expect_disconnect(ReasonCode::SessionTakenOver).await;
        second.publish(publish("t", "over TCP")).await;
        second.expect_publish(publish("t", "over TCP")).await;

        let (mut third, is_present) = world.connected(connect()).await;
        assert!(is_present);
        second.expect_disconnect(ReasonCode::SessionTakenOver).await;
        third.publish(publish("t", "back")).await;
        third.expect_publish(publish("t", "back")).await;
        third.send(disconnect(ReasonCode::Success)).await;
        third.expect_closed().await;
        let (cleaner, _) = world.connected(connect_in(version, "traveller")).await;
        drop(cleaner);
    }
}

pub(crate) async fn packets_arrive_in_pieces_and_in_heaps(way: Way) {
    let world = World::with(way).await;
    let mut client = world.client(V5).await;
    let mut bytes = Vec::new();
    encode(&Packet::Connect(Box::new(connect("c"))), V5, &mut bytes).unwrap();
    for byte in bytes {
        client.send_bytes(&[byte]).await;
    }
    client.expect_connected().await;
    client.subscribe("t", QOS_0).await;

    let mut heap = Vec::new();
    for number in 0..1000 {
        let text = number.to_string();
        encode(&Packet::Publish(publish("t", &text)), V5, &mut heap).unwrap();
    }
    for piece in heap.chunks(997) {
        client.send_bytes(piece).await;
    }
    for number in 0..1000 {
        client.expect_publish(publish("t", &number.to_string())).await;
    }
}

pub(crate) async fn a_packet_of_a_megabyte_goes_both_ways(way: Way) {
    let world = World::with(way).await;
    let (mut client, _) = world.connected(connect("c")).await;
    client.subscribe("t", QOS_1).await;
    let payload: String = (b'a'..=b'z').cycle().take((1 << 20) - 64).map(char::from).collect();
    for packet_id in 1..=3 {
        client.publish(publish_1(packet_id, "t", &payload)).await;
        // The message and its acknowledgement may come in either order.
        let (mut is_acknowledged, mut is_here) = (false, false);
        while !(is_acknowledged && is_here) {
            let packet = client
                .receive(|packet| match packet {
                    Packet::PubAck(ack) => {
                        assert_eq!(ack.packet_id, id(packet_id));
                        None
                    }
                    Packet::Publish(publish) => {
                        assert!(publish.payload == payload.as_bytes());
                        publish.packet_id
                    }
                    packet => panic!("{packet:?}"),
                })
                .await;
            match packet {
                None => is_acknowledged = true,
                Some(packet_id) => {
                    is_here = true;
                    client.send(puback(packet_id.number(), ReasonCode::Success)).await;
                }
            }
        }
    }
    client.ping().await;
}

pub(crate) async fn a_client_that_does_not_read_harms_nobody_and_misses_nothing(way: Way) {
    const MESSAGES: u16 = 40;
    let world = World::with(way).await;
    let (mut slow, _) = world.connected(connect("slow")).await;
    slow.subscribe("t", QOS_1).await;
    let (mut fast, _) = world.connected_over_tcp(connect("fast")).await;
    fast.subscribe("t", QOS_1).await;
    let (mut publisher, _) = world.connected_over_tcp(connect("publisher")).await;
    let filling = "x".repeat(256 * 1024);
    for number in 1..=MESSAGES {
        let payload = format!("{number} {filling}");
        publisher.publish(publish_1(number, "t", &payload)).await;
        publisher.expect_taken(QOS_1, number, ReasonCode::Success).await;
        fast.expect_publish(publish_1(number, "t", &payload)).await;
        fast.take(QOS_1, number).await;
    }
    for number in 1..=MESSAGES {
        let payload = format!("{number} {filling}");
        slow.expect_publish(publish_1(number, "t", &payload)).await;
        slow.take(QOS_1, number).await;
    }
    slow.ping().await;
}

pub(crate) async fn a_broker_that_shuts_down_says_so(way: Way) {
    let world = World::with(way).await;
    let (mut client, _) = world.connected(connect("c")).await;
    let (mut older, _) = world.connected(connect_in(V3_1_1, "older")).await;
    let broker = world.broker.clone();
    let ended = actix_rt::spawn(async move { broker.shutdown(secs(5)).await });
    client.expect_disconnect(ReasonCode::ServerShuttingDown).await;
    older.expect_disconnect(ReasonCode::ServerShuttingDown).await;
    drop((client, older));
    ended.await.unwrap();
    assert!(!world.socket_file().exists());
}

pub(crate) async fn a_broker_that_shuts_down_says_so_to_a_client_that_waits_for_it(way: Way) {
    for version in [V3_1, V3_1_1, V5] {
        let checking = Undecided::default();
        let world = World::configured(way, |it| it.authenticator(checking.clone())).await;
        let mut client = world.client(version).await;
        client.send(Packet::Connect(Box::new(connect_in(version, "c")))).await;
        checking.is_asked().await;
        let broker = world.broker.clone();
        let ended = actix_rt::spawn(async move { broker.shutdown(secs(60)).await });
        client.expect_refused(ReasonCode::ServerUnavailable).await;
        drop(client);
        ended.await.unwrap();
    }
}
