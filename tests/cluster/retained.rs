//! Retained messages of the whole cluster, over real NATS servers.

use std::{sync::Arc, time::Duration};

use hearthmq::{
    Broker,
    auth::AllowAll,
    bytes::Bytes,
    control::{ListRetained, MemberState, Readiness as _},
    internals::cluster::nats::NatsSettings,
    limits::Limits,
    mqtt::{Connect, LastWill, Packet, Publish, QoS, ReasonCode},
    store::MemoryStore,
};
use hearthmq_test::{generous, nats::NatsServers, packets::*};
use tempfile::tempdir;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    brokers::{Node, TcpClient, expect_message, expect_no_more, next_message, nodes, wait},
    support::{Cable, PATIENCE, settings},
};

/// Publishes a message of QoS 1 with RETAIN, and expects that it is taken.
async fn retain(client: &mut TcpClient, packet_id: u16, topic: &str, payload: &str) {
    client.publish(retained(publish_1(packet_id, topic, payload))).await;
    let taken = client
        .receive(|packet| {
            let Packet::PubAck(ack) = packet else { panic!("PUBACK, not {packet:?}") };
            ack.reason
        })
        .await;
    assert!(!taken.is_failure(), "{taken:?}");
}

/// Returns the retained messages of a broker, as topics and payloads.
async fn shown(broker: &Broker) -> Vec<(String, String)> {
    let mut request = ListRetained::new("#", 1_000);
    request.has_payloads = true;
    let page = broker.list_retained(request).await.unwrap();
    let text = |payload: Option<Bytes>| {
        payload.map_or_else(String::new, |bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    page.messages.into_iter().map(|it| (it.topic.to_string(), text(it.payload))).collect()
}

async fn wait_for(node: &Node, expected: &[(&str, &str)]) {
    let began = Instant::now();
    loop {
        let shown = shown(&node.broker).await;
        if shown.iter().map(|(topic, payload)| (&**topic, &**payload)).eq(expected.iter().copied())
        {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{shown:?} in place of {expected:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A client that subscribes on another node after PUBACK finds the message: each time, without a wait.
#[actix_rt::test]
async fn a_later_subscriber_of_another_node_finds_the_message() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = nodes(&servers, ["a", "b"]).await;
    let mut publisher = a.client(connect("p")).await;
    for round in 0..100_u16 {
        let payload = round.to_string();
        retain(&mut publisher, round + 1, "home/door", &payload).await;
        let mut subscriber = b.client(connect(&format!("s{round}"))).await;
        subscriber.subscribe("home/+", QOS_1).await;
        expect_message(&mut subscriber, retained(publish_1(1, "home/door", &payload))).await;
        subscriber.leave().await;
    }
    // An empty payload removes it, everywhere.
    retain(&mut publisher, 1, "home/door", "").await;
    let mut subscriber = b.client(connect("s")).await;
    subscriber.subscribe("home/+", QOS_1).await;
    expect_no_more(&mut subscriber).await;
}

/// QoS 0 and 2, properties, expiry, and the client that closes its connection directly behind its message.
#[actix_rt::test]
async fn a_retained_message_is_the_same_on_each_node() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = nodes(&servers, ["a", "b"]).await;
    let mut publisher = a.client(connect("p")).await;
    let mut expires = retained(expiring(publish_2(1, "t/2", "two"), 600));
    expires.properties.content_type = Some("text/plain");
    publisher.publish(expires.clone()).await;
    publisher.expect_taken(QOS_2, 1, ReasonCode::NoMatchingSubscribers).await;
    publisher.publish(retained(expiring(publish("t/gone", "x"), 1))).await;
    publisher.publish(retained(publish("t/0", "zero"))).await;
    publisher.leave().await;
    wait_for(&b, &[("t/0", "zero"), ("t/2", "two")]).await;
    wait_for(&a, &[("t/0", "zero"), ("t/2", "two")]).await;
    let mut subscriber = b.client(connect("s")).await;
    subscriber.subscribe("t/#", QOS_2).await;
    expect_message(&mut subscriber, retained(publish("t/0", "zero"))).await;
    let seen = next_message(&mut subscriber, |publish: Publish<'_>| {
        let properties = &publish.properties;
        (
            publish.topic.to_owned(),
            publish.flags.qos,
            properties.content_type.map(str::to_owned),
            properties.message_expiry_interval.is_some_and(|secs| (500..=600).contains(&secs)),
        )
    });
    let expected = ("t/2".to_owned(), QoS::ExactlyOnce, Some("text/plain".to_owned()), true);
    assert_eq!(seen.await, expected);
}

/// The application and callers on any node retain and remove; both are true on each node.
#[actix_rt::test]
async fn the_application_and_callers_retain_for_the_whole_cluster() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = nodes(&servers, ["a", "b"]).await;
    a.broker.publish("app/1", b"one", QoS::AtLeastOnce, true).await.unwrap();
    a.broker.publish("app/2", b"two", QoS::AtMostOnce, true).await.unwrap();
    wait_for(&a, &[("app/1", "one"), ("app/2", "two")]).await;
    wait_for(&b, &[("app/1", "one"), ("app/2", "two")]).await;
    assert!(b.broker.clear_retained("app/1").await.unwrap());
    assert!(!b.broker.clear_retained("app/3").await.unwrap());
    wait_for(&b, &[("app/2", "two")]).await;
    wait_for(&a, &[("app/2", "two")]).await;
    let view = a.broker.cluster().unwrap();
    assert_eq!((view.retained_lag, view.retained_refused), (0, 0));
    assert!(view.retained_applied >= 4);
}

/// The Will of a client is retained on all nodes.
#[actix_rt::test]
async fn a_will_with_retain_is_found_on_another_node() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = nodes(&servers, ["a", "b"]).await;
    let mut witness = a.client(connect("w")).await;
    witness.subscribe("state/#", QOS_1).await;
    let will = LastWill { retain: true, qos: QOS_1, ..will("state/c", "gone") };
    drop(a.client(Connect { will: Some(will), ..connect("c") }).await);
    expect_message(&mut witness, publish_1(1, "state/c", "gone")).await;
    let mut late = b.client(connect("late")).await;
    late.subscribe("state/#", QOS_1).await;
    expect_message(&mut late, retained(publish_1(1, "state/c", "gone"))).await;
}

/// Writers on two nodes race for the same topics: in the end both nodes have the same messages.
#[actix_rt::test]
async fn two_nodes_agree_after_a_race() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = nodes(&servers, ["a", "b"]).await;
    let mut here = a.client(connect("a")).await;
    let mut there = b.client(connect("b")).await;
    let race = async |client: &mut TcpClient, name: &str| {
        for round in 0..200_u16 {
            let payload = if round % 7 == 0 { String::new() } else { format!("{name}{round}") };
            retain(client, round + 1, &format!("race/{}", round % 3), &payload).await;
        }
    };
    tokio::join!(race(&mut here, "a"), race(&mut there, "b"));
    let began = Instant::now();
    loop {
        let both = (shown(&a.broker).await, shown(&b.broker).await);
        let (of_a, of_b) = (a.broker.cluster().unwrap(), b.broker.cluster().unwrap());
        if both.0 == both.1 && of_a.retained_applied == of_b.retained_applied {
            assert!(!both.0.is_empty());
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{both:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A node that was away gets what changed meanwhile before it serves, also removals, and does not bring back what
/// its store still has.
#[actix_rt::test]
async fn a_node_that_returns_serves_with_what_has_changed_meanwhile() {
    let Some(servers) = NatsServers::start(1) else { return };
    let a = Node::start(settings(&servers, "a")).await;
    let cable = Cable::to(&servers.url(0)).await;
    let far = NatsSettings { servers: vec![cable.url()], ..settings(&servers, "b") };
    let b = Node::start(far).await;
    for node in [&a, &b] {
        wait(|| node.sees(&["a", "b"], MemberState::Serving)).await;
    }
    let mut publisher = a.client(connect("p")).await;
    retain(&mut publisher, 1, "t/kept", "1").await;
    retain(&mut publisher, 2, "t/removed", "1").await;
    wait_for(&b, &[("t/kept", "1"), ("t/removed", "1")]).await;
    cable.cut();
    wait(|| a.sees(&["b"], MemberState::Dead)).await;
    retain(&mut publisher, 3, "t/removed", "").await;
    retain(&mut publisher, 4, "t/added", "1").await;
    retain(&mut publisher, 5, "t/kept", "2").await;
    cable.mend();
    wait(|| b.sees(&["a", "b"], MemberState::Serving)).await;
    // Immediately: it serves only with them.
    let found = shown(&b.broker).await;
    let expected = [("t/added", "1"), ("t/kept", "2")];
    assert_eq!(found, expected.map(|(topic, payload)| (topic.to_owned(), payload.to_owned())));
}

/// A broker brings its retained messages into the cluster, unless the cluster has the topic.
#[actix_rt::test]
async fn a_broker_that_joins_brings_its_retained_messages() {
    let Some(servers) = NatsServers::start(1) else { return };
    let store = Arc::new(MemoryStore::default());
    let alone = Broker::builder()
        .shared_store(store.clone())
        .authenticator(AllowAll)
        .authorizer(AllowAll)
        .limits(generous())
        .start()
        .await
        .unwrap();
    for (topic, payload) in [("t/both", "mine"), ("t/mine", "mine"), ("$own/t", "mine")] {
        alone.publish(topic, payload.as_bytes(), QoS::AtLeastOnce, true).await.unwrap();
    }
    alone.shutdown(PATIENCE).await;
    let a = Node::start(settings(&servers, "a")).await;
    wait(|| a.sees(&["a"], MemberState::Serving)).await;
    let mut publisher = a.client(connect("p")).await;
    retain(&mut publisher, 1, "t/both", "the cluster's").await;
    let b = Node::on(settings(&servers, "b"), generous(), store, tempdir().unwrap()).await;
    wait(|| b.sees(&["a", "b"], MemberState::Serving)).await;
    let expected = [("t/both", "the cluster's"), ("t/mine", "mine")];
    wait_for(&b, &expected).await;
    wait_for(&a, &expected).await;
    let own = a.broker.retained("$own/t").expect("it is there too");
    assert_eq!(own.payload.as_deref(), Some(&b"mine"[..]));
}

/// A broker goes on from its store after a restart: it has what was retained while it was down, and no more.
#[actix_rt::test]
async fn a_broker_that_was_restarted_goes_on_from_its_store() {
    let Some(servers) = NatsServers::start(1) else { return };
    let (store, directory) = (Arc::new(MemoryStore::default()), tempdir().unwrap());
    let a = Node::start(settings(&servers, "a")).await;
    let b = Node::on(settings(&servers, "b"), generous(), store.clone(), directory).await;
    wait(|| b.sees(&["a", "b"], MemberState::Serving)).await;
    wait(|| a.sees(&["a", "b"], MemberState::Serving)).await;
    let mut publisher = a.client(connect("p")).await;
    for number in 1..=50 {
        retain(&mut publisher, number, &format!("t/{number:02}"), "1").await;
    }
    wait(|| b.broker.cluster().unwrap().retained_applied >= 50).await;
    sleep(Duration::from_millis(1_500)).await; // It saves its place each second.
    let Node { broker, directory } = b;
    broker.shutdown(PATIENCE).await;
    wait(|| a.sees(&["b"], MemberState::Dead)).await;
    retain(&mut publisher, 51, "t/01", "").await;
    retain(&mut publisher, 52, "t/02", "2").await;
    let b = Node::on(settings(&servers, "b"), generous(), store, directory).await;
    wait(|| b.sees(&["a", "b"], MemberState::Serving)).await;
    let found = shown(&b.broker).await;
    assert_eq!(found.len(), 49);
    assert_eq!(found[0], ("t/02".to_owned(), "2".to_owned()));
}

/// Without NATS, a message of QoS 1 with RETAIN is not acknowledged as if it were retained. When NATS is back, the next
/// one is.
#[actix_rt::test]
async fn without_nats_a_retained_message_is_not_acknowledged() {
    let Some(mut servers) = NatsServers::start(1) else { return };
    let [a] = nodes(&servers, ["a"]).await;
    let mut client = a.client(connect("c")).await;
    client.subscribe("t/#", QOS_1).await;
    // The leases end after some seconds; the message is not acknowledged before.
    servers.kill(0);
    client.publish(retained(publish_1(1, "t/1", "x"))).await;
    let answer = timeout(
        PATIENCE,
        client.receive(|packet| {
            if let Packet::PubAck(ack) = packet {
                return Some(ack.reason);
            }
            assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?}");
            None
        }),
    );
    let answer = answer.await.unwrap();
    assert!(
        answer.is_none_or(|reason| reason == ReasonCode::ImplementationSpecificError),
        "{answer:?}"
    );
    assert_eq!(shown(&a.broker).await, []);
    servers.start_again(0);
    wait(|| a.sees(&["a"], MemberState::Serving)).await;
    let mut client = a.client(connect("c")).await;
    retain(&mut client, 1, "t/1", "y").await;
    wait_for(&a, &[("t/1", "y")]).await;
}

/// A retained message that NATS cannot carry is refused; the same message without RETAIN travels.
#[actix_rt::test]
async fn a_retained_message_has_the_size_of_a_message_of_nats() {
    let Some(servers) = NatsServers::start(1) else { return };
    let limits = Limits { packet_bytes_max: 8 << 20, ..generous() };
    let a = Node::within(settings(&servers, "a"), limits).await;
    wait(|| a.sees(&["a"], MemberState::Serving)).await;
    let large = "x".repeat(2_000_000);
    let mut client = a.client(connect("c")).await;
    client.publish(retained(publish_1(1, "t", &large))).await;
    let refused = client.receive(|packet| {
        let Packet::PubAck(ack) = packet else { panic!("PUBACK, not {packet:?}") };
        ack.reason
    });
    assert_eq!(refused.await, ReasonCode::QuotaExceeded);
    client.publish(publish_1(2, "t", &large)).await;
    client.expect_taken(QOS_1, 2, ReasonCode::NoMatchingSubscribers).await;
    let mut old = a.client(connect_in(V3_1_1, "old")).await;
    old.publish(retained(publish_1(1, "t", &large))).await;
    old.expect_closed().await;
    assert_eq!(shown(&a.broker).await, []);
}
