//! One owner for each client identifier: takeover between nodes, fenced, dead and frozen nodes, and NATS that is away.

use std::{
    sync::{Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Packet, ProtocolVersion, ReasonCode};
use hearthmq_test::{
    mqtt::Client,
    nats::NatsServers,
    packets::{
        QOS_0, QOS_1, QOS_2, V3_1_1, V5, VERSIONS, connect_in, connect_lasting, dup, puback,
        pubcomp, publish_2, pubrec, pubrel, will,
    },
};

use crate::{
    running::{Node, lives, table},
    support::Cable,
};

/// The time until a client of a dead node is admitted elsewhere, with room for a slow machine.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(30);

/// Returns the version of presence of a client that is online here.
fn version(node: &Node, client_id: &str) -> u64 {
    let (status, client) = node.get(&format!("/api/v1/clients/{client_id}"));
    assert_eq!(status, 200, "{client}");
    client["version"].as_u64().unwrap()
}

/// Returns the name of the node on which a client is online, as this one knows it.
fn online_at(node: &Node, client_id: &str) -> Option<String> {
    let (status, client) = node.get(&format!("/api/v1/clients/{client_id}"));
    let is_online = status == 200 && client["online"] == true;
    client["node"].as_str().filter(|_| is_online).map(str::to_owned)
}

/// A CONNECT on another node ends the connection by 0x8E; an older version is only closed. The Will is published, and
/// the session moves with its subscriptions. The version goes on.
#[test]
fn a_connect_on_another_node_takes_the_client_over() {
    let Some(servers) = NatsServers::start(1) else { return };
    let nodes = [Node::serving("a", &servers), Node::serving("b", &servers)];
    for (round, protocol) in VERSIONS.into_iter().enumerate() {
        let id = format!("car-{round}");
        let (mut watcher, _) = nodes[0].connected(&format!("watcher-{round}"), V5);
        watcher.subscribe("gone", QOS_1);
        let mut connect = connect_lasting(&id, protocol);
        connect.will = Some(will("gone", "car"));
        let (mut first, reason, is_present) = nodes[0].connect(connect).unwrap();
        assert_eq!((reason, is_present), (ReasonCode::Success, false));
        first.subscribe("news", QOS_1);
        let mut last = version(&nodes[0], &id);
        assert!(last >> 20 > 1_700_000_000, "the upper part is the term: {last}");
        let mut client = first;
        for to in [1, 0, 1] {
            let (mut next, is_present) = nodes[to].connected(&id, protocol);
            assert!(is_present, "the session has moved");
            client.expect_disconnect(ReasonCode::SessionTakenOver);
            let (mut press, _) = nodes[to].connected(&format!("press-{round}-{to}"), V5);
            press.publish("news", b"here", None).unwrap();
            assert_eq!(next.message().payload, b"here");
            assert_eq!(online_at(&nodes[1 - to], &id).as_deref(), Some(["a", "b"][to]));
            let now = version(&nodes[to], &id);
            assert!(now >> 20 > last >> 20, "{now} is not of a later term than {last}");
            (client, last) = (next, now);
        }
        assert_eq!(watcher.message().payload, b"car");
        assert!(lives(&mut client));
    }
}

/// At home, a client connects again without NATS, and keeps its session.
#[test]
fn a_reconnect_at_home_needs_no_nats() {
    let Some(servers) = NatsServers::start(1) else { return };
    let a = Node::serving("a", &servers);
    let (mut first, _) = a.connected("car", V5);
    let before = version(&a, "car");
    servers.freeze(0);
    let (mut second, is_present) = a.connected("car", V5);
    servers.thaw(0);
    assert!(is_present);
    first.expect_disconnect(ReasonCode::SessionTakenOver);
    assert!(lives(&mut second));
    assert_eq!(version(&a, "car"), before + 1);
}

/// Clients with the same identifiers connect on both nodes at the same time, again and again. One connection of each
/// is left.
#[test]
fn two_connects_at_once_leave_exactly_one() {
    const CLIENTS: usize = 24;
    const ROUNDS: usize = 3;
    let Some(servers) = NatsServers::start(1) else { return };
    let nodes = [Node::serving("a", &servers), Node::serving("b", &servers)];
    let start = Barrier::new(2 * CLIENTS);
    let outcomes: Vec<Vec<usize>> = thread::scope(|scope| {
        let (nodes, start) = (&nodes, &start);
        let threads: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let both = [0, 1]
                    .map(|node| scope.spawn(move || insist(&nodes[node], start, client, ROUNDS)));
                scope.spawn(move || {
                    let [mut a, mut b] = both.map(|thread| thread.join().unwrap());
                    (0..ROUNDS)
                        .map(|round| {
                            usize::from(is_left(&mut a[round]))
                                + usize::from(is_left(&mut b[round]))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (client, left) in outcomes.iter().enumerate() {
        assert_eq!(left, &vec![1; ROUNDS], "client {client}");
    }
}

fn is_left(client: &mut Option<Client>) -> bool {
    client.as_mut().is_some_and(lives)
}

/// Connects in each round at the same time as the others; a CONNECT may be refused.
fn insist(node: &Node, start: &Barrier, client: usize, rounds: usize) -> Vec<Option<Client>> {
    let connect = |round: usize| {
        start.wait();
        let id = format!("car-{client}-{round}");
        let protocol = if client.is_multiple_of(2) { V5 } else { V3_1_1 };
        let (client, reason, _) = node.connect(connect_lasting(&id, protocol)).ok()?;
        (reason == ReasonCode::Success).then_some(client)
    };
    (0..rounds).map(connect).collect()
}

/// Lays a cable to a server, on a thread of its own.
fn cable_to(url: String) -> Cable {
    let (laid, cable) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            laid.send(Cable::to(&url).await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    cable.recv().unwrap()
}

/// A node that is cut off from NATS ends its connections, and refuses CONNECT, before another node admits its
/// clients.
#[test]
fn a_node_without_leases_serves_nobody_and_others_take_its_clients() {
    let Some(servers) = NatsServers::start(1) else { return };
    let cable = cable_to(servers.url(0));
    let a = Node::start("a", &table(&[cable.url()]));
    a.wait_for("serving");
    let b = Node::serving("b", &servers);
    let (mut newer, _) = a.connected("car-5", V5);
    newer.subscribe("old", QOS_1);
    let (mut older, _) = a.connected("car-3", V3_1_1);
    cable.cut();
    newer.expect_disconnect(ReasonCode::ServerShuttingDown);
    older.expect_closed();
    for protocol in VERSIONS {
        let (_, reason, _) = a.connect(connect_in(protocol, "another")).unwrap();
        assert_eq!(reason, ReasonCode::ServerUnavailable);
    }
    let (mut taken, is_present) = b.connected_at_last("car-5", V5);
    assert!(!is_present, "the session lies on the node that is cut off");
    taken.subscribe("new", QOS_1);
    cable.mend();
    a.wait_for("serving");
    assert!(lives(&mut taken));
    let (mut back, is_present) = a.connected("car-5", V5);
    assert!(is_present, "the session of the other node has moved");
    taken.expect_disconnect(ReasonCode::SessionTakenOver);
    assert_eq!(heard(&a, &mut back, ["old", "new"]), ["new"], "in the place of the older one");
    let (_, is_present) = a.connected("car-3", V3_1_1);
    assert!(is_present, "no other node had this client");
}

/// After the verdict, a client of a node that was killed is admitted elsewhere, and the node takes it back when it
/// has returned.
#[test]
fn a_client_of_a_dead_node_is_admitted_elsewhere() {
    let Some(servers) = NatsServers::start(1) else { return };
    let mut a = Node::serving("a", &servers);
    let b = Node::serving("b", &servers);
    for id in ["car", "bus"] {
        a.connected(id, V5).0.subscribe("old", QOS_1);
    }
    let before = version(&a, "car");
    a.kill();
    let killed = Instant::now();
    let (mut client, is_present) = b.connected_at_last("car", V5);
    assert!(killed.elapsed() < TAKEN_OVER_WITHIN, "{:?}", killed.elapsed());
    assert!(!is_present, "the session lies on the dead node");
    client.subscribe("new", QOS_1);
    assert!(version(&b, "car") > before);
    let a = a.start_again();
    a.wait_for("serving");
    let (mut back, is_present) = a.connected_at_last("car", V5);
    assert!(is_present, "the session of the other node has moved");
    client.expect_disconnect(ReasonCode::SessionTakenOver);
    assert_eq!(
        heard(&a, &mut back, ["old", "new"]),
        ["new"],
        "in the place of the one on the disk"
    );
    let (mut bus, is_present) = a.connected_at_last("bus", V5);
    assert!(is_present, "no other node had this client");
    assert_eq!(heard(&a, &mut bus, ["old", "new"]), ["old"]);
}

/// A session that lies on the disk of a node moves when its client connects to another node.
#[test]
fn a_session_on_a_disk_moves_to_its_client() {
    let Some(servers) = NatsServers::start(1) else { return };
    let a = Node::serving("a", &servers);
    let b = Node::serving("b", &servers);
    a.connected("car", V5).0.subscribe("old", QOS_1);
    let a = a.start_again();
    a.wait_for("serving");
    assert_eq!(a.get("/api/v1/clients/car").0, 200);
    let (mut client, is_present) = b.connected_at_last("car", V5);
    assert!(is_present);
    assert_eq!(heard(&b, &mut client, ["old", "new"]), ["old"]);
    let began = Instant::now();
    // A call about the sessions of the node that is asked alone.
    while a.get("/api/v1/clients/car/subscriptions").0 != 404 {
        assert!(began.elapsed() < Duration::from_secs(60), "the former node keeps the session");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Publishes to topics on a node, then to one more; returns those that a client has received.
fn heard<'a>(node: &Node, client: &mut Client, topics: [&'a str; 2]) -> Vec<&'a str> {
    let (mut press, reason, _) = node.connect(connect_in(V5, "press")).unwrap();
    assert_eq!(reason, ReasonCode::Success);
    client.subscribe("last", QOS_0);
    for topic in topics.into_iter().chain(["last"]) {
        press.publish(topic, b"", None).unwrap();
    }
    let next = || Some(client.message().topic).filter(|topic| topic != "last");
    let heard: Vec<String> = std::iter::from_fn(next).collect();
    topics.into_iter().filter(|topic| heard.iter().any(|it| it == topic)).collect()
}

/// The queue of a session moves in its order, also if it is larger than one message of NATS: first the messages that
/// were sent and not acknowledged, with DUP and their Packet Identifiers.
#[test]
fn a_queue_and_what_is_in_flight_move_in_order() {
    const MESSAGES: u16 = 60;
    let Some(servers) = NatsServers::start(1) else { return };
    let a = Node::serving("a", &servers);
    let b = Node::serving("b", &servers);
    for protocol in VERSIONS {
        let id = if protocol == V5 { "car-5" } else { "car-3" };
        let (mut client, _) = a.connected(id, protocol);
        client.subscribe("news", QOS_1);
        let (mut press, _) = a.connected("press", V5);
        let payload = |number: u16| [&number.to_be_bytes()[..], &[7; 50_000]].concat();
        for number in 1..=MESSAGES {
            press.publish("news", &payload(number), Some(number)).unwrap();
        }
        for _ in 1..=MESSAGES {
            press.receive(|packet| assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}"));
        }
        let sent: Vec<_> = (0..3).map(|_| client.message().packet_id).collect();
        let (mut client, is_present) = b.connected(id, protocol);
        assert!(is_present);
        for number in 1..=MESSAGES {
            let arrived = client.try_receive(|packet| {
                let Packet::Publish(publish) = packet else {
                    panic!("PUBLISH expected, not {packet:?}")
                };
                (publish.packet_id, publish.flags.dup, publish.payload.to_vec())
            });
            let (packet_id, dup, bytes) = arrived.unwrap_or_else(|error| {
                let (_, client) = b.get(&format!("/api/v1/clients/{id}"));
                panic!("message {number}: {error}; {client}")
            });
            assert_eq!(bytes[..2], number.to_be_bytes());
            if let Some(sent) = sent.get(usize::from(number) - 1) {
                assert_eq!((packet_id, dup), (*sent, true), "message {number}");
            }
            client.send(&puback(packet_id.unwrap().number(), ReasonCode::Success));
        }
        assert!(lives(&mut client));
    }
}

/// A message of QoS 2 that a client sends again on another node is published once.
#[test]
fn qos_2_of_a_client_is_published_once_over_a_takeover() {
    let Some(servers) = NatsServers::start(1) else { return };
    let nodes = [Node::serving("a", &servers), Node::serving("b", &servers)];
    for (round, protocol) in VERSIONS.into_iter().enumerate() {
        let readers = [0, 1].map(|node| {
            let (mut client, _) =
                nodes[node].connected(&format!("reader-{round}-{node}"), protocol);
            client.subscribe("orders", QOS_2);
            client
        });
        let [mut on_a, mut on_b] = readers;
        let shop_id = format!("shop-{round}");
        let (mut shop, _) = nodes[0].connected(&shop_id, protocol);
        let order = publish_2(7, "orders", "one");
        shop.send(&Packet::Publish(order.clone()));
        shop.receive(|packet| assert_eq!(packet, pubrec(7, ReasonCode::Success)));
        assert_eq!(on_a.message().payload, b"one");
        let (mut shop, is_present) = nodes[1].connected(&shop_id, protocol);
        assert!(is_present);
        shop.send(&Packet::Publish(dup(order)));
        shop.receive(|packet| assert_eq!(packet, pubrec(7, ReasonCode::Success)));
        shop.send(&pubrel(7));
        shop.receive(|packet| assert_eq!(packet, pubcomp(7)));
        // Each reader has received the first order once, and this one next.
        shop.publish("orders", b"two", None).unwrap();
        assert_eq!(on_b.message().payload, b"one");
        for reader in [&mut on_a, &mut on_b] {
            assert_eq!(reader.message().payload, b"two");
        }
    }
}

/// A process that was frozen lets nothing leave when it goes on: its clients are elsewhere.
#[test]
fn a_frozen_node_sends_nothing_when_it_goes_on() {
    let Some(servers) = NatsServers::start(1) else { return };
    let a = Node::serving("a", &servers);
    let b = Node::serving("b", &servers);
    let (mut client, _) = a.connected("car", V5);
    client.subscribe("news", QOS_1);
    let (mut publisher, _) = a.connected("press", V5);
    a.signal("STOP");
    let (mut taken, _) = b.connected_at_last("car", V5);
    publisher.publish("news", b"late", Some(1)).unwrap();
    a.signal("CONT");
    // Neither PUBACK nor PUBLISH: a DISCONNECT at most.
    for ended in [&mut publisher, &mut client] {
        ends_silently(ended);
    }
    assert!(lives(&mut taken));
}

/// Expects the end of a connection, with nothing before it but DISCONNECT.
fn ends_silently(client: &mut Client) {
    loop {
        match client.try_receive(|packet| matches!(packet, Packet::Disconnect(_))) {
            Ok(is_disconnect) => assert!(is_disconnect, "a packet has left the node"),
            Err(_) => return,
        }
    }
}

/// Without NATS, CONNECT is refused by a Reason Code of its version, and admitted when NATS is back.
#[test]
fn without_nats_connect_is_refused_until_it_is_back() {
    let Some(mut servers) = NatsServers::start(1) else { return };
    servers.kill(0);
    let a = Node::start("a", &table(&servers.urls()));
    let refused = |protocol: ProtocolVersion| {
        let (mut client, reason, _) = a.connect(connect_in(protocol, "car")).unwrap();
        assert_eq!(reason, ReasonCode::ServerUnavailable);
        client.expect_closed();
    };
    VERSIONS.into_iter().for_each(refused);
    servers.start_again(0);
    a.wait_for("serving");
    let (mut client, _) = a.connected("car", V5);
    servers.kill(0);
    client.expect_disconnect(ReasonCode::ServerShuttingDown);
    VERSIONS.into_iter().for_each(refused);
    servers.start_again(0);
    let (_, is_present) = a.connected_at_last("car", V5);
    assert!(is_present);
}

/// Returns the number of owner records.
fn records(servers: &NatsServers) -> u64 {
    (0..16).map(|one| servers.messages_of(&format!("KV_hearthmq_owners_{one}"))).sum()
}

/// A client that leaves without a session leaves no record.
#[test]
fn a_session_that_ends_releases_its_record() {
    let Some(servers) = NatsServers::start(1) else { return };
    let a = Node::serving("a", &servers);
    let clients: Vec<_> =
        (0..20).map(|one| a.connect(connect_in(V5, &format!("car-{one}"))).unwrap()).collect();
    assert_eq!(records(&servers), 20);
    drop(clients);
    let began = Instant::now();
    while records(&servers) > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} are left", records(&servers));
        thread::sleep(Duration::from_millis(50));
    }
    let (mut again, reason, _) = a.connect(connect_in(V5, "car-1")).unwrap();
    assert_eq!(reason, ReasonCode::Success);
    assert!(lives(&mut again));
}

/// The claim of a socket that is closed before NATS answers is given up, and writes nothing.
#[test]
fn a_closed_socket_claims_nothing() {
    let Some(servers) = NatsServers::start(1) else { return };
    let a = Node::serving("a", &servers);
    servers.freeze(0);
    drop(a.begin_to_connect(connect_in(V5, "car")));
    let began = Instant::now();
    while !a.get_text("/metrics").1.contains("connects_refused_total{reason=\"closed\"} 1") {
        assert!(began.elapsed() < Duration::from_secs(60), "the end of the socket is not noticed");
        thread::sleep(Duration::from_millis(20));
    }
    servers.thaw(0);
    a.wait_for("serving");
    let (mut other, reason, _) = a.connect(connect_in(V5, "bus")).unwrap();
    assert_eq!((reason, records(&servers)), (ReasonCode::Success, 1));
    assert!(lives(&mut other));
}
