//! Bridges between brokers: prefixes, loops of two and three, changes of the configuration.

use hearthmq::{
    Broker,
    auth::DenyAll,
    bridge::{Bridge, BridgeError, Direction},
    control::{BridgeControl as _, BridgePhase},
    mqtt::Packet,
};

use super::network::{Network, bridge_to, bridge_with, connected, topic, until};
use crate::support::{Client, packets::*, pass, secs, world, world_with};

async fn joined(network: &Network, name: &str, bridges: Vec<Bridge>) -> Broker {
    let broker = world_with(|builder| network.join(builder, bridges).node(name)).await;
    network.host(name, &broker);
    broker
}

/// Returns the payloads that a client gets within a few seconds, sorted.
async fn heard(client: &mut Client) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok(payload) = tokio::time::timeout(secs(3), async {
        client
            .receive(|packet| match packet {
                Packet::Publish(publish) => String::from_utf8(publish.payload.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            })
            .await
    })
    .await
    {
        all.push(payload);
    }
    all.sort();
    all
}

async fn subscriber(broker: &Broker, filter: &str) -> Client {
    let mut client = Client::connected(broker, connect("subscriber")).await;
    client.patience = secs(60);
    client.subscribe(filter, QOS_0).await;
    client
}

#[actix_rt::test]
async fn a_message_gets_the_prefix_of_the_other_side_in_both_directions() {
    let network = Network::default();
    let hub = joined(&network, "hub", vec![]).await;
    let mut out = topic("sensors/#", Direction::Out, QOS_1);
    out.remote_prefix = "plant/".into();
    let mut cmd = topic("cmd/#", Direction::In, QOS_1);
    cmd.remote_prefix = "plant/".into();
    let edge = joined(&network, "edge", vec![bridge_to("hub", vec![out, cmd])]).await;
    connected(&edge, "hub").await;
    let (mut at_hub, mut at_edge) = (subscriber(&hub, "#").await, subscriber(&edge, "cmd/#").await);
    edge.publish("sensors/1", b"21", QOS_1, false).await.unwrap();
    hub.publish("plant/cmd/1", b"on", QOS_1, false).await.unwrap();
    assert_eq!(heard(&mut at_hub).await, ["21", "on"]);
    assert_eq!(heard(&mut at_edge).await, ["on"]);
}

/// The rules of the broker say nothing about its bridges.
#[actix_rt::test]
async fn a_bridge_needs_no_rule_and_may_do_only_what_is_configured() {
    let network = Network::default();
    let hub = joined(&network, "hub", vec![]).await;
    let topics = vec![topic("out/#", Direction::Out, QOS_1), topic("in/#", Direction::In, QOS_1)];
    let bridges = vec![bridge_to("hub", topics)];
    let edge = world_with(|builder| network.join(builder, bridges).authorizer(DenyAll)).await;
    connected(&edge, "hub").await;
    let mut at_hub = subscriber(&hub, "#").await;
    let mut inside = edge.subscribe("#", QOS_1).unwrap();
    edge.publish("out/a", b"goes", QOS_1, false).await.unwrap();
    hub.publish("in/a", b"comes", QOS_1, false).await.unwrap();
    assert_eq!(heard(&mut at_hub).await, ["comes", "goes"]);
    for expected in ["goes", "comes"] {
        assert_eq!(inside.next().await.unwrap().message.payload(), expected.as_bytes());
    }
    let found = edge.recheck().await;
    assert_eq!((found.sessions, found.touched), (1, 0));
}

#[actix_rt::test]
async fn two_brokers_with_bridges_towards_each_other_have_no_loop() {
    let network = Network::default();
    let both = || vec![topic("#", Direction::Both, QOS_1)];
    let a = joined(&network, "a", vec![bridge_to("b", both())]).await;
    let b = joined(&network, "b", vec![bridge_to("a", both())]).await;
    a.reconnect_bridge("b").await.unwrap(); // so that it knows that the other one has bridges too
    connected(&a, "b").await;
    connected(&b, "a").await;
    let (mut at_a, mut at_b) = (subscriber(&a, "t").await, subscriber(&b, "t").await);
    let mut client = Client::connected(&a, connect("publisher")).await;
    client.publish(publish("t", "once")).await;
    // Both bridges carry it, so it may come twice, but it does not go round.
    let (here, there) = (heard(&mut at_a).await, heard(&mut at_b).await);
    assert!((1..=2).contains(&here.len()) && (1..=2).contains(&there.len()), "{here:?} {there:?}");
}

#[actix_rt::test]
async fn three_brokers_in_a_circle_pass_a_message_on_once() {
    let network = Network::default();
    let out = || vec![topic("#", Direction::Out, QOS_1)];
    let a = joined(&network, "a", vec![bridge_to("b", out())]).await;
    let b = joined(&network, "b", vec![bridge_to("c", out())]).await;
    let c = joined(&network, "c", vec![bridge_to("a", out())]).await;
    for (broker, next) in [(&a, "b"), (&b, "c"), (&c, "a")] {
        connected(broker, next).await;
        broker.reconnect_bridge(next).await.unwrap();
        connected(broker, next).await;
    }
    let mut all = Vec::new();
    for broker in [&a, &b, &c] {
        all.push(subscriber(broker, "t").await);
    }
    let mut client = Client::connected(&a, connect("publisher")).await;
    client.publish(publish_2(1, "t", "once")).await;
    for one in &mut all {
        assert_eq!(heard(one).await, ["once"]);
    }
}

/// Without marks, No Local alone ends the loop of one bridge.
#[actix_rt::test]
async fn a_bridge_of_each_version_gets_nothing_back() {
    for version in [V5, V3_1_1] {
        let network = Network::default();
        let hub = joined(&network, "hub", vec![]).await;
        let both = vec![topic("#", Direction::Both, QOS_1)];
        let bridge = bridge_with("hub", both, |it| (it.version, it.marks_loops) = (version, false));
        let edge = joined(&network, "edge", vec![bridge]).await;
        connected(&edge, "hub").await;
        let (mut at_hub, mut at_edge) = (subscriber(&hub, "t").await, subscriber(&edge, "t").await);
        let mut client = Client::connected(&edge, connect("publisher")).await;
        client.publish(retained(publish_1(1, "t", "up"))).await;
        hub.publish("t", b"down", QOS_1, false).await.unwrap();
        assert_eq!(heard(&mut at_hub).await, ["down", "up"], "{version:?}");
        assert_eq!(heard(&mut at_edge).await, ["down", "up"], "{version:?}");
        // RETAIN has come along.
        let mut later = Client::connected(&hub, connect("later")).await;
        later.subscribe("t", QOS_0).await;
        later.expect_publish(retained(publish("t", "up"))).await;
    }
}

#[actix_rt::test]
async fn bridges_are_added_changed_and_removed_while_the_broker_runs() {
    let network = Network::default();
    let hub = joined(&network, "hub", vec![]).await;
    let edge = joined(&network, "edge", vec![]).await;
    let mut bystander = Client::connected(&edge, connect("bystander")).await;
    assert!(edge.list_bridges().await.is_empty());
    edge.set_bridges(vec![bridge_to("hub", vec![topic("a/#", Direction::Out, QOS_1)])])
        .await
        .unwrap();
    connected(&edge, "hub").await;
    let mut at_hub = subscriber(&hub, "#").await;
    edge.publish("a/1", b"a", QOS_1, false).await.unwrap();
    edge.publish("b/1", b"no", QOS_1, false).await.unwrap();
    assert_eq!(heard(&mut at_hub).await, ["a"]);
    // What waits stays when the topics change.
    network.lose("hub");
    network.cut().await;
    until(&edge, "hub", BridgePhase::Waiting).await;
    edge.publish("a/1", b"waits", QOS_1, false).await.unwrap();
    let topics = vec![topic("a/#", Direction::Out, QOS_1), topic("b/#", Direction::Out, QOS_1)];
    edge.set_bridges(vec![bridge_to("hub", topics.clone())]).await.unwrap();
    edge.publish("b/1", b"b", QOS_1, false).await.unwrap();
    network.host("hub", &hub);
    connected(&edge, "hub").await;
    assert_eq!(heard(&mut at_hub).await, ["b", "waits"]);
    // The same bridges again change nothing.
    let before = edge.find_bridge("hub").await.unwrap();
    edge.set_bridges(vec![bridge_to("hub", topics)]).await.unwrap();
    assert_eq!(edge.find_bridge("hub").await.unwrap().since, before.since);
    let twice = vec![
        bridge_to("hub", vec![topic("a", Direction::Out, QOS_1)]),
        bridge_to("hub", vec![topic("b", Direction::Out, QOS_1)]),
    ];
    assert!(matches!(edge.set_bridges(twice).await, Err(BridgeError::Repeated(_))));
    edge.set_bridges(vec![]).await.unwrap();
    pass(secs(1)).await;
    assert!(edge.client("$bridge/hub").await.unwrap().is_none());
    assert!(edge.list_bridges().await.is_empty());
    bystander.ping().await;
}

/// A broker that has no bridges pays for none, and knows none.
#[actix_rt::test]
async fn without_bridges_there_are_none() {
    let broker = world().await;
    assert!(broker.list_bridges().await.is_empty());
    assert!(broker.find_bridge("a").await.is_err());
    assert!(!hearthmq::metrics::Metrics::bridges(&broker.metrics()).iter().any(|_| true));
}
