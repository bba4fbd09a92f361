//! Shared subscriptions with members on several brokers, over real NATS servers.

use std::{collections::BTreeSet, time::Duration};

use hearthmq::{
    control::MemberState,
    internals::cluster::nats::NatsSettings,
    mqtt::{Packet, Publish, QoS},
};
use hearthmq_test::{nats::NatsServers, packets::*};
use tokio::time::timeout;

use crate::{
    brokers::{Node, TcpClient, expect_message, expect_no_more, next_message, nodes, wait},
    support::{Cable, PATIENCE, settings},
};

const GROUP: &str = "$share/workers/jobs/#";

/// Publishes numbered messages, and waits for their acknowledgements.
async fn publish_all(publisher: &mut TcpClient, qos: QoS, numbers: std::ops::Range<u16>) {
    for number in numbers {
        let payload = number.to_string();
        match qos {
            QoS::AtMostOnce => publisher.publish(publish("jobs/1", &payload)).await,
            QoS::AtLeastOnce => {
                publisher.publish(publish_1(number + 1, "jobs/1", &payload)).await;
                let is_ack = |packet: Packet<'_>| assert!(matches!(packet, Packet::PubAck(_)));
                publisher.receive(is_ack).await;
            }
            QoS::ExactlyOnce => {
                publisher.publish(publish_2(number + 1, "jobs/1", &payload)).await;
                let is_ack = |packet: Packet<'_>| assert!(matches!(packet, Packet::PubRec(_)));
                publisher.receive(is_ack).await;
                publisher.send(pubrel(number + 1)).await;
                publisher.expect(pubcomp(number + 1)).await;
            }
        }
    }
}

fn number_of(publish: Publish<'_>) -> u16 {
    str::from_utf8(publish.payload).unwrap().parse().unwrap()
}

/// Receives what comes within a time without a message.
async fn received(client: &mut TcpClient) -> Vec<u16> {
    let mut numbers = Vec::new();
    while let Ok(number) = timeout(Duration::from_secs(2), next_message(client, number_of)).await {
        numbers.push(number);
    }
    numbers
}

/// One member of all brokers receives each message, at each QoS, from a publisher without a member beside it.
#[actix_rt::test]
async fn one_member_of_all_nodes_receives_each_message() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b, c] = nodes(&servers, ["a", "b", "c"]).await;
    let mut publisher = a.client(connect("p")).await;
    let mut members = Vec::new();
    for (node, name) in [(&b, "b1"), (&b, "b2"), (&c, "c1"), (&c, "c2")] {
        let mut client = node.client(connect(name)).await;
        client.subscribe(GROUP, QOS_2).await;
        members.push(client);
    }
    // A subscription of its own beside the group is another one.
    let mut witness = c.client(connect("w")).await;
    witness.subscribe("jobs/+", QOS_2).await;
    publish_all(&mut publisher, QOS_0, 0..40).await;
    publish_all(&mut publisher, QOS_1, 40..80).await;
    publish_all(&mut publisher, QOS_2, 80..120).await;
    for number in 0..120 {
        assert_eq!(next_message(&mut witness, number_of).await, number);
    }
    let mut all = Vec::new();
    for member in &mut members {
        let numbers = received(member).await;
        assert!(numbers.len() > 10, "a member was passed over: {numbers:?}");
        assert!(numbers.is_sorted(), "the order of the publisher: {numbers:?}");
        all.extend(numbers);
    }
    all.sort_unstable();
    assert_eq!(all, (0..120).collect::<Vec<_>>());
}

/// Members on the node of the publisher come first, those without a connection behind connected ones elsewhere.
#[actix_rt::test]
async fn members_of_the_publishers_node_come_first_if_they_are_connected() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = nodes(&servers, ["a", "b"]).await;
    let mut publisher = a.client(connect("p")).await;
    let mut here = a.client(connect_lasting("here", V5)).await;
    let mut there = b.client(connect("there")).await;
    there.subscribe(GROUP, QOS_1).await;
    here.subscribe(GROUP, QOS_1).await;
    publish_all(&mut publisher, QOS_1, 0..10).await;
    for number in 0..10 {
        assert_eq!(next_message(&mut here, number_of).await, number);
    }
    expect_no_more(&mut there).await;
    here.leave().await;
    publish_all(&mut publisher, QOS_1, 10..20).await;
    for number in 10..20 {
        assert_eq!(next_message(&mut there, number_of).await, number);
    }
    // Nobody is connected: the messages wait on the node of the publisher.
    there.send(unsubscribe(9, vec![GROUP])).await;
    there.receive(|packet| assert!(matches!(packet, Packet::UnsubAck(_)))).await;
    publish_all(&mut publisher, QOS_1, 20..25).await;
    let mut here = a.client(connect_lasting("here", V5)).await;
    for number in 20..25 {
        assert_eq!(next_message(&mut here, number_of).await, number);
    }
}

/// The only member is absent, on another node: its session there keeps the messages.
#[actix_rt::test]
async fn an_absent_member_of_another_node_gets_its_messages_later() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = nodes(&servers, ["a", "b"]).await;
    let mut publisher = a.client(connect("p")).await;
    let mut member = b.client(connect_lasting("m", V5)).await;
    member.subscribe(GROUP, QOS_2).await;
    member.leave().await;
    publish_all(&mut publisher, QOS_1, 0..5).await;
    publish_all(&mut publisher, QOS_2, 5..10).await;
    let mut member = b.client(connect_lasting("m", V5)).await;
    for number in 0..10 {
        assert_eq!(next_message(&mut member, number_of).await, number);
    }
    expect_no_more(&mut member).await;
}

/// The chosen node has lost its member meanwhile: the message goes on to the next node.
#[actix_rt::test]
async fn a_message_goes_on_to_the_next_node_if_the_members_of_one_have_left() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b, c] = nodes(&servers, ["a", "b", "c"]).await;
    let mut publisher = a.client(connect("p")).await;
    let mut stays = c.client(connect("stays")).await;
    stays.subscribe(GROUP, QOS_2).await;
    let mut expected = BTreeSet::new();
    for round in 0..20_u16 {
        let mut leaves = b.client(connect(&format!("leaves{round}"))).await;
        leaves.subscribe(GROUP, QOS_2).await;
        leaves.leave().await;
        // The publisher's node may not know that yet.
        let qos = if round % 2 == 0 { QOS_1 } else { QOS_2 };
        publish_all(&mut publisher, qos, 4 * round..4 * round + 4).await;
        expected.extend(4 * round..4 * round + 4);
    }
    let mut numbers = received(&mut stays).await;
    numbers.sort_unstable();
    assert_eq!(numbers, expected.into_iter().collect::<Vec<_>>());
}

/// A node dies with messages of QoS 1 that it has not acknowledged: another node gets them after the verdict.
#[actix_rt::test]
async fn messages_for_a_member_on_a_dead_node_go_to_another_one() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, c] = nodes(&servers, ["a", "c"]).await;
    let cable = Cable::to(&servers.url(0)).await;
    let far = NatsSettings { servers: vec![cable.url()], ..settings(&servers, "b") };
    let b = Node::start(far).await;
    for node in [&a, &b, &c] {
        wait(|| node.sees(&["a", "b", "c"], MemberState::Serving)).await;
    }
    let mut publisher = a.client(connect("p")).await;
    let mut dies = b.client(connect_lasting("dies", V5)).await;
    dies.subscribe(GROUP, QOS_1).await;
    let mut lives = c.client(connect("lives")).await;
    lives.subscribe(GROUP, QOS_1).await;
    cable.cut();
    for number in 0..10_u16 {
        publisher.publish(publish_1(number + 1, "jobs/1", &number.to_string())).await;
    }
    let mut missing: BTreeSet<u16> = (0..10).collect();
    while !missing.is_empty() {
        let next = timeout(PATIENCE, next_message(&mut lives, number_of)).await;
        missing.remove(&next.expect("all come"));
    }
    for _ in 0..10 {
        publisher.receive(|packet| assert!(matches!(packet, Packet::PubAck(_)))).await;
    }
    assert!(a.sees(&["b"], MemberState::Dead), "acknowledged before the verdict");
    publisher.publish(publish_1(11, "jobs/1", "11")).await;
    expect_message(&mut lives, publish_1(11, "jobs/1", "11")).await;
}
