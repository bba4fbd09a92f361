//! Changed settings of a running broker: each takes effect, and promises made before hold for the
//! clients that got them.

use hearthmq::{
    Broker,
    auth::{Accounts, AuthenticationConfig, FileAuthenticator, ListenerLogins},
    limits::{Limits, QueueFull},
    metrics::DropReason,
    mqtt::{Connect, Packet, ReasonCode},
    net::Listener,
};
use tokio::net::TcpStream;

use crate::support::{
    Client, builder, forgetful_world_within, generous, packets::*, pass, secs, world, world_with,
    world_within,
};

fn change(broker: &Broker, change: impl FnOnce(&mut Limits)) {
    let mut limits = generous();
    change(&mut limits);
    broker.set_limits(limits);
}

/// Sends a CONNECT; returns the Reason Code of CONNACK.
async fn try_connect(broker: &Broker, connect: Connect<'_>) -> (Client, ReasonCode) {
    let mut client = Client::new(broker, connect.version);
    client.send(Packet::Connect(Box::new(connect))).await;
    let look = |packet: Packet<'_>| match packet {
        Packet::ConnAck(ack) => ack.reason,
        other => panic!("{other:?}"),
    };
    let reason = client.receive(look).await;
    (client, reason)
}

async fn outcome(broker: &Broker, connect: Connect<'_>) -> ReasonCode {
    try_connect(broker, connect).await.1
}

#[actix_rt::test]
async fn connections_and_sessions_are_bounded_by_what_holds_now() {
    let broker = world().await;
    let _first = Client::connected(&broker, connect_lasting("1", V5)).await;
    change(&broker, |limits| limits.connections_max = 1);
    assert_eq!(outcome(&broker, connect("2")).await, ReasonCode::ServerBusy);
    change(&broker, |limits| limits.sessions_max = 1);
    assert_eq!(outcome(&broker, connect("2")).await, ReasonCode::QuotaExceeded);
    change(&broker, |limits| limits.sessions_per_user_max = 1);
    assert_eq!(outcome(&broker, connect_lasting("2", V5)).await, ReasonCode::QuotaExceeded);
    change(&broker, |limits| limits.client_id_bytes_max = 1);
    assert_eq!(outcome(&broker, connect("22")).await, ReasonCode::ClientIdentifierNotValid);
    change(&broker, |_| {});
    assert_eq!(outcome(&broker, connect_lasting("22", V5)).await, ReasonCode::Success);
}

#[actix_rt::test]
async fn places_before_connack_become_fewer() {
    let broker = world().await;
    let mut silent = [Client::new(&broker, V5), Client::new(&broker, V5)];
    pass(secs(1)).await;
    change(&broker, |limits| limits.connecting_max = 1);
    silent[0].expect_closed().await;
    silent[1].connect(connect("c")).await;
}

async fn over_tcp(broker: &Broker) -> Client<TcpStream> {
    Client::on(TcpStream::connect(broker.local_addrs()[0]).await.unwrap(), V5)
}

#[actix_rt::test]
async fn one_address_has_the_connections_and_the_rate_that_hold_now() {
    let broker = builder().limits(generous()).tcp("127.0.0.1:0").start().await.unwrap();
    let _first = over_tcp(&broker).await.connect(connect("1")).await;
    let mut there = over_tcp(&broker).await;
    there.connect(connect("2")).await;
    change(&broker, |limits| limits.connections_per_address_max = 1);
    let mut second = over_tcp(&broker).await;
    second.send(Packet::Connect(Box::new(connect("3")))).await;
    second.expect_closed().await;
    change(&broker, |limits| {
        (limits.connects_per_address_per_sec, limits.connects_per_address_burst) = (1, 1);
    });
    over_tcp(&broker).await.connect(connect("3")).await;
    let mut third = over_tcp(&broker).await;
    third.send(Packet::Connect(Box::new(connect("4")))).await;
    third.expect_refused(ReasonCode::ConnectionRateExceeded).await;
    change(&broker, |_| {});
    over_tcp(&broker).await.connect(connect("4")).await;
    there.ping().await;
}

/// The values in CONNACK hold for the connection.
#[actix_rt::test]
async fn the_largest_packet_is_the_one_that_the_client_was_told() {
    let broker = world().await;
    let mut before = Client::connected(&broker, connect("before")).await;
    let mut watcher = Client::connected(&broker, connect("watcher")).await;
    watcher.subscribe("t", QOS_0).await;
    change(&broker, |limits| limits.packet_bytes_max = 1_000);
    let large = "x".repeat(2_000);
    before.publish(publish("t", &large)).await;
    watcher.expect_publish(publish("t", &large)).await;
    let (mut after, _) = try_connect(&broker, connect("after")).await;
    after.publish(publish("t", &large)).await;
    after.expect_disconnect(ReasonCode::PacketTooLarge).await;
}

#[actix_rt::test]
async fn topics_are_judged_by_what_holds_now() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.subscribe("a/b/c", QOS_0).await;
    for tighten in [
        |limits: &mut Limits| limits.topic_levels_max = 2,
        |limits: &mut Limits| {
            limits.topic_bytes_max = 4;
        },
    ] {
        change(&broker, tighten);
        client.publish(publish_1(1, "a/b/c", "x")).await;
        client.expect(puback(1, ReasonCode::TopicNameInvalid)).await;
        client.send(subscribe(2, vec![filter("a/b/d", QOS_0)])).await;
        client.expect(suback(2, &[ReasonCode::TopicFilterInvalid])).await;
        assert!(broker.publish("a/b/c", b"x", QOS_0, false).await.is_err());
    }
    change(&broker, |_| {});
    broker.publish("a/b/c", b"x", QOS_0, false).await.unwrap();
    client.expect_publish(publish("a/b/c", "x")).await;
}

async fn queued(broker: &Broker, client_id: &str) -> usize {
    broker.client(client_id).await.unwrap().unwrap().queued
}

#[actix_rt::test]
async fn queues_in_the_store_are_bounded_by_what_holds_now() {
    assert_queues_are_bounded(&world().await).await;
}

#[actix_rt::test]
async fn queues_in_memory_are_bounded_by_what_holds_now() {
    assert_queues_are_bounded(&forgetful_world_within(|_| {}).await).await;
}

/// For existing sessions.
async fn assert_queues_are_bounded(broker: &Broker) {
    let mut client = Client::connected(broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    client.vanish().await;
    let send = async |payloads: &[&str]| {
        for payload in payloads {
            broker.publish("t", payload.as_bytes(), QOS_1, false).await.unwrap();
        }
    };
    send(&["1", "2", "3", "4"]).await;
    change(broker, |limits| limits.queue_messages_per_client_max = 2);
    assert_eq!(queued(broker, "c").await, 4, "what waits stays for now");
    send(&["5"]).await;
    assert_eq!(queued(broker, "c").await, 2);
    change(broker, |limits| {
        limits.queue_messages_per_client_max = 2;
        limits.queue_full = QueueFull::DropNewest;
    });
    send(&["6"]).await;
    change(broker, |limits| limits.queue_bytes_per_client_max = 10);
    send(&["a payload that fits no more"]).await;
    change(broker, |_| {});
    send(&["7"]).await;
    let mut client = Client::connected(broker, connect_lasting("c", V5)).await;
    for payload in ["4", "5", "7"] {
        assert_eq!(client.receive_payload().await, payload);
    }
    client.ping().await;
}

#[actix_rt::test]
async fn all_queues_together_are_bounded_by_what_holds_now() {
    let broker = forgetful_world_within(|_| {}).await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    client.vanish().await;
    for (at, tighten) in [
        |limits: &mut Limits| limits.queue_messages_max = 1,
        |limits: &mut Limits| {
            limits.queue_bytes_max = 3;
        },
    ]
    .into_iter()
    .enumerate()
    {
        change(&broker, |_| {});
        broker.publish("t", b"1", QOS_1, false).await.unwrap();
        change(&broker, tighten);
        broker.publish("t", b"2", QOS_1, false).await.unwrap();
        assert_eq!(queued(&broker, "c").await, 1, "{at}");
    }
    assert!(broker.metrics().shard(0).messages_dropped.of(DropReason::QueueFull).value() > 0);
}

/// Whether publishers are held is decided when their subscriber connects; for how long, when its
/// queue is full.
#[actix_rt::test]
async fn publishers_are_held_for_clients_that_connect_from_then_on() {
    let broker = world().await;
    let hold = |limits: &mut Limits| {
        limits.queue_full = QueueFull::HoldPublisher;
        limits.queue_messages_per_client_max = 2;
        limits.queue_hold_secs_max = 3;
    };
    change(&broker, hold);
    let slow = Connect { properties: one_at_a_time(), ..connect("slow") };
    let mut slow = Client::connected(&broker, slow).await;
    slow.subscribe("t", QOS_1).await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    for number in 1..=4 {
        publisher.publish(publish_1(number, "t", "x")).await;
    }
    for number in 1..=3 {
        publisher.expect(puback(number, ReasonCode::Success)).await;
    }
    publisher.expect_nothing().await;
    publisher.patience = secs(10);
    publisher.expect(puback(4, ReasonCode::Success)).await;
}

fn one_at_a_time() -> hearthmq::mqtt::ConnectProperties<'static> {
    let receive_maximum = Some(1);
    hearthmq::mqtt::ConnectProperties { receive_maximum, ..Default::default() }
}

#[actix_rt::test]
async fn what_is_retained_subscribed_and_willed_is_bounded_by_what_holds_now() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_terse(V5, "c")).await;
    client.publish(retained(publish_1(1, "a", "x"))).await;
    client.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
    type Tighten = fn(&mut Limits);
    let retained_limits: [Tighten; 4] = [
        |limits| limits.retained_messages_max = 1,
        |limits| limits.retained_bytes_max = 10,
        |limits| limits.retained_messages_per_user_max = 1,
        |limits| limits.retained_bytes_per_user_max = 10,
    ];
    for tighten in retained_limits {
        change(&broker, tighten);
        client.publish(retained(publish_1(2, "b", "x"))).await;
        client.expect(puback(2, ReasonCode::QuotaExceeded)).await;
    }
    let subscription_limits: [Tighten; 4] = [
        |limits| limits.subscription_bytes_max = 10,
        |limits| limits.subscription_bytes_per_user_max = 10,
        |limits| limits.subscriptions_per_client_max = 1,
        |limits| limits.filters_per_subscribe_max = 1,
    ];
    client.subscribe("x", QOS_0).await;
    for tighten in subscription_limits {
        change(&broker, tighten);
        client.send(subscribe(3, vec![filter("x", QOS_0), filter("y", QOS_0)])).await;
        client
            .receive(|packet| match packet {
                Packet::SubAck(ack) => assert_eq!(ack.reasons[1], ReasonCode::QuotaExceeded),
                other => panic!("{other:?}"),
            })
            .await;
    }
    let will_limits: [Tighten; 2] =
        [|limits| limits.will_bytes_max = 10, |limits| limits.will_bytes_per_user_max = 10];
    let willing = Connect { will: Some(will("t", "a last word")), ..connect("w") };
    for tighten in will_limits {
        change(&broker, tighten);
        assert_eq!(outcome(&broker, willing.clone()).await, ReasonCode::QuotaExceeded);
    }
    change(&broker, |_| {});
    assert_eq!(outcome(&broker, willing).await, ReasonCode::Success);
    client.publish(retained(publish_1(4, "b", "x"))).await;
    client.expect(puback(4, ReasonCode::NoMatchingSubscribers)).await;
    client.subscribe("y", QOS_0).await;
}

#[actix_rt::test]
async fn what_is_stored_for_one_user_is_bounded_by_what_holds_now() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    client.vanish().await;
    let send = async |payload: &str| {
        broker.publish("t", payload.as_bytes(), QOS_1, false).await.unwrap();
    };
    let send = async |messages| {
        for _ in 0..messages {
            send("x").await;
        }
    };
    send(10).await;
    change(&broker, |limits| limits.stored_messages_per_user_max = 20); // counted in steps of 16
    send(90).await;
    assert!((16..=32).contains(&queued(&broker, "c").await));
    change(&broker, |_| {});
    send(100).await;
    let before = queued(&broker, "c").await;
    assert!(before > 100);
    change(&broker, |limits| limits.stored_bytes_per_user_max = 10);
    send(4_096).await; // counted in steps of this number of bytes
    assert!(queued(&broker, "c").await < 4_096, "{before}");
}

#[actix_rt::test]
async fn packets_that_are_not_whole_are_bounded_by_what_holds_now() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    change(&broker, |limits| limits.incomplete_packet_bytes_max = 10_000);
    let mut packet = vec![b'x'; 60_000];
    packet[..4].copy_from_slice(&[0x30, 0x80, 0x80, 0x06]);
    client.send_bytes(&packet).await;
    client.expect_disconnect(ReasonCode::QuotaExceeded).await;
}

/// As sent in CONNACK to clients that connect from then on.
#[actix_rt::test]
async fn what_clients_are_told_is_what_holds_now() {
    let broker = world().await;
    change(&broker, |limits| {
        limits.receive_maximum = 7;
        limits.topic_alias_maximum = 3;
        limits.packet_bytes_max = 9_000;
        limits.session_expiry_secs_max = 5;
        limits.keep_alive_secs_max = 20;
    });
    let mut client = Client::new(&broker, V5);
    let packet = Connect { keep_alive: 100, ..connect_lasting("c", V5) };
    client.send(Packet::Connect(Box::new(packet))).await;
    client
        .receive(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
            let told = &ack.properties;
            assert_eq!(told.receive_maximum, Some(7));
            assert_eq!(told.topic_alias_maximum, Some(3));
            assert_eq!(told.maximum_packet_size, Some(9_000));
            assert_eq!(told.session_expiry_interval, Some(5));
            assert_eq!(told.server_keep_alive, Some(20));
        })
        .await;
}

#[actix_rt::test]
async fn the_time_for_connect_is_what_holds_now() {
    let broker = world().await;
    change(&broker, |limits| limits.connect_timeout_secs = 2);
    let mut client = Client::new(&broker, V5);
    client.expect_nothing_for(crate::support::millis(1_900)).await;
    client.expect_closed().await;
}

#[actix_rt::test]
async fn the_prefix_of_response_topics_is_told_as_it_is_now() {
    let broker = world().await;
    assert!(broker.set_response_topic_prefix("a/#").is_err());
    broker.set_response_topic_prefix("answers/").unwrap();
    let mut packet = connect("c");
    packet.properties.request_response_information = Some(true);
    let mut client = Client::new(&broker, V5);
    client.send(Packet::Connect(Box::new(packet))).await;
    client
        .receive(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
            assert_eq!(ack.properties.response_information, Some("answers/c/"));
        })
        .await;
}

#[actix_rt::test]
async fn system_topics_are_renewed_as_often_as_is_said_now() {
    let broker = world_with(|builder| builder.sys_interval(secs(0))).await;
    let mut watcher = Client::connected(&broker, connect("watcher")).await;
    watcher.subscribe("$SYS/broker/uptime", QOS_0).await;
    watcher.expect_nothing_for(secs(30)).await;
    broker.set_sys_interval(secs(5));
    for expected in ["0 seconds", "5 seconds", "10 seconds"] {
        watcher.patience = secs(6);
        assert_eq!(watcher.receive_payload().await, expected);
    }
    broker.set_sys_interval(secs(0));
    watcher.expect_nothing_for(secs(30)).await;
}

/// Logins, origins and PROXY headers of a listener.
#[actix_rt::test]
async fn a_listener_asks_of_its_next_connection_what_holds_now() {
    let authenticator =
        FileAuthenticator::new(Accounts::default(), AuthenticationConfig::default());
    let broker = builder().authenticator(authenticator).tcp("127.0.0.1:0").start().await.unwrap();
    let listener = || Listener::tcp("127.0.0.1:0");
    let refused = async |broker: &Broker| {
        let mut client = over_tcp(broker).await;
        client.send(Packet::Connect(Box::new(connect("c")))).await;
        client.expect_refused(ReasonCode::NotAuthorized).await;
    };
    refused(&broker).await;
    let logins = ListenerLogins { anonymous: Some(true), ..ListenerLogins::default() };
    broker.set_listeners(&[listener().logins(logins)]);
    let mut client = over_tcp(&broker).await;
    client.connect(connect("c")).await;
    // Connected clients stay until all are checked again.
    broker.set_listeners(&[listener()]);
    refused(&broker).await;
    client.ping().await;
    broker.recheck().await;
    client.expect_disconnect(ReasonCode::NotAuthorized).await;

    let proxy = hearthmq::net::ProxyProtocol::default();
    broker.set_listeners(&[listener().logins(logins).proxy_protocol(proxy)]);
    let mut without = over_tcp(&broker).await;
    without.send(Packet::Connect(Box::new(connect("c")))).await;
    without.expect_closed().await;
    let mut client = over_tcp(&broker).await;
    client.send_bytes(b"PROXY TCP4 203.0.113.7 192.0.2.1 5000 1883\r\n").await;
    client.connect(connect("c")).await;
    let found = broker.client("c").await.unwrap().unwrap();
    assert_eq!(found.peer, "203.0.113.7:5000".parse().unwrap());
}

/// A broker whose limits change while clients of every kind are connected continues as before.
#[actix_rt::test]
async fn to_say_the_same_again_changes_nothing() {
    let broker = world_within(|_| {}).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.subscribe("t", QOS_1).await;
    for _ in 0..3 {
        change(&broker, |_| {});
        broker.set_sys_interval(secs(10));
        broker.recheck().await;
        broker.publish("t", b"x", QOS_0, false).await.unwrap();
        client.expect_publish(publish("t", "x")).await;
    }
}
