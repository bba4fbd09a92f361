//! Messages from clients of one broker to clients of another one, over real NATS servers.

use std::{collections::BTreeSet, time::Duration};

use hearthmq::{
    control::MemberState,
    internals::cluster::nats::NatsSettings,
    limits::Limits,
    mqtt::{Packet, Publish, ReasonCode, UserPropertiesBuf},
};
use hearthmq_test::{generous, nats::NatsServers, packets::*};
use tokio::{
    io::AsyncReadExt as _,
    time::{Instant, sleep, timeout},
};

use crate::{
    brokers::{Node, TcpClient, expect_message, expect_no_more, next_message, nodes, wait},
    support::{Cable, PATIENCE, settings},
};

/// Each QoS, both versions, from the node of the publisher to the other ones, also by wildcards.
#[actix_rt::test]
async fn a_message_reaches_the_subscribers_of_every_node() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b, c] = nodes(&servers, ["a", "b", "c"]).await;
    for version in [V3_1_1, V5] {
        let mut publisher = a.client(connect_in(version, "p")).await;
        let mut here = a.client(connect_in(version, "here")).await;
        let mut there = b.client(connect_in(version, "there")).await;
        let mut beyond = c.client(connect_in(version, "beyond")).await;
        here.subscribe("home/+/state", QOS_2).await;
        there.subscribe("home/kitchen/#", QOS_2).await;
        beyond.subscribe("#", QOS_2).await;
        let topic = "home/kitchen/state";
        for message in [
            publish(topic, "0"),
            publish_1(1, topic, "1"),
            publish_2(2, topic, "2"),
            publish(topic, "3"),
        ] {
            let (qos, packet_id) = (message.flags.qos, message.packet_id);
            publisher.publish(message.clone()).await;
            if let Some(packet_id) = packet_id {
                publisher.expect_taken(qos, packet_id.0.get(), ReasonCode::Success).await;
            }
            for subscriber in [&mut here, &mut there, &mut beyond] {
                expect_message(subscriber, message.clone()).await;
            }
        }
        // A topic that only another node has a subscriber for, and one that nobody has.
        publisher.publish(publish_1(3, "elsewhere", "x")).await;
        publisher.expect_taken(QOS_1, 3, ReasonCode::Success).await;
        expect_message(&mut beyond, publish_1(3, "elsewhere", "x")).await;
        for client in [publisher, here, there, beyond] {
            client.leave().await;
        }
    }
}

/// The properties of a message travel, and its RETAIN flag for Retain As Published.
#[actix_rt::test]
async fn a_message_arrives_with_its_properties() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = nodes(&servers, ["a", "b"]).await;
    let mut publisher = a.client(connect("p")).await;
    let mut subscriber = b.client(connect("s")).await;
    let asked = vec![as_published(filter("t/#", QOS_1))];
    subscriber.send(subscribe_as(7, 42, asked)).await;
    subscriber.expect(suback(7, &[ReasonCode::GrantedQoS1])).await;
    let mut message = retained(expiring(publish_1(1, "t/1", "payload"), 600));
    let mut user_properties = UserPropertiesBuf::new();
    for value in ["first", "second"] {
        user_properties.push("name", value).unwrap();
    }
    message.properties.user_properties = user_properties.as_user_properties();
    message.properties.content_type = Some("text/plain");
    message.properties.response_topic = Some("answers/1");
    message.properties.correlation_data = Some(b"\x00\xff");
    message.properties.payload_format_indicator = Some(true);
    publisher.publish(message.clone()).await;
    publisher.expect_taken(QOS_1, 1, ReasonCode::Success).await;
    expect_message(&mut subscriber, identified(message, &[42])).await;
}

fn number_of(publish: Publish<'_>) -> u32 {
    str::from_utf8(publish.payload).unwrap().parse().unwrap()
}

/// Order of one publisher, by QoS 0 and 1 and over several topics.
#[actix_rt::test]
async fn ten_thousand_messages_arrive_in_their_order() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = nodes(&servers, ["a", "b"]).await;
    let mut publisher = a.client(connect("p")).await;
    let mut subscriber = b.client(connect("s")).await;
    subscriber.subscribe("t/#", QOS_1).await;
    let sending = async {
        for number in 0..10_000_u32 {
            let (topic, payload) = (format!("t/{}", number % 7), number.to_string());
            let packet_id = (number % 1_000 + 1) as u16;
            if number % 2 == 0 {
                publisher.publish(publish(&topic, &payload)).await;
            } else {
                publisher.publish(publish_1(packet_id, &topic, &payload)).await;
                publisher.expect(puback(packet_id, ReasonCode::Success)).await;
            }
        }
    };
    let receiving = async {
        for number in 0..10_000_u32 {
            assert_eq!(next_message(&mut subscriber, number_of).await, number);
        }
    };
    tokio::join!(sending, receiving);
}

/// What exceeds one message of NATS travels in pieces.
#[actix_rt::test]
async fn a_large_message_arrives_whole_and_in_its_order() {
    let Some(servers) = NatsServers::start(1) else { return };
    let limits = Limits { packet_bytes_max: 8 << 20, ..generous() };
    let a = Node::within(settings(&servers, "a"), limits.clone()).await;
    let b = Node::within(settings(&servers, "b"), limits).await;
    for node in [&a, &b] {
        wait(|| node.sees(&["a", "b"], MemberState::Serving)).await;
    }
    let mut publisher = a.client(connect("p")).await;
    let mut subscriber = b.client(connect("s")).await;
    subscriber.subscribe("t", QOS_2).await;
    let large = "x".repeat(5_000_000);
    for (packet_id, payload) in [(1, "before"), (2, &large[..]), (3, "behind")] {
        publisher.publish(publish_2(packet_id, "t", payload)).await;
        publisher.expect_taken(QOS_2, packet_id, ReasonCode::Success).await;
        expect_message(&mut subscriber, publish_2(packet_id, "t", payload)).await;
    }
}

/// After UNSUBSCRIBE, and after the end of a session, nothing travels any more.
#[actix_rt::test]
async fn a_withdrawn_filter_leads_nowhere() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = nodes(&servers, ["a", "b"]).await;
    let mut publisher = a.client(connect("p")).await;
    let mut first = b.client(connect("first")).await;
    let mut second = b.client(connect("second")).await;
    first.subscribe("t", QOS_1).await;
    second.subscribe("t", QOS_1).await;
    first.send(unsubscribe(8, vec!["t"])).await;
    first.expect(unsuback(8, &[ReasonCode::Success])).await;
    publisher.publish(publish_1(1, "t", "x")).await;
    publisher.expect_taken(QOS_1, 1, ReasonCode::Success).await;
    expect_message(&mut second, publish_1(1, "t", "x")).await;
    expect_no_more(&mut first).await;
    second.leave().await;
    // The withdrawal travels without anybody waiting for it.
    let began = Instant::now();
    loop {
        publisher.publish(publish_1(2, "t", "x")).await;
        let reason = publisher
            .receive(|packet| {
                let Packet::PubAck(ack) = packet else { panic!("PUBACK, not {packet:?}") };
                ack.reason
            })
            .await;
        if reason == ReasonCode::NoMatchingSubscribers {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the route stays");
        sleep(Duration::from_millis(20)).await;
    }
    expect_no_more(&mut first).await;
}

/// A message does not come back to its publisher, nor does it travel on.
#[actix_rt::test]
async fn each_subscriber_receives_a_message_once() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = nodes(&servers, ["a", "b"]).await;
    let mut clients = Vec::new();
    for (node, name) in [(&a, "a1"), (&a, "a2"), (&b, "b1"), (&b, "b2")] {
        let mut client = node.client(connect(name)).await;
        client.subscribe("t/#", QOS_1).await;
        client.subscribe("t/+", QOS_1).await;
        clients.push(client);
    }
    for at in 0..clients.len() {
        let payload = at.to_string();
        clients[at].publish(publish("t/x", &payload)).await;
        for client in &mut clients {
            expect_message(client, publish("t/x", &payload)).await;
        }
    }
    for client in &mut clients {
        expect_no_more(client).await; // Nothing came before.
    }
}

/// Messages for a durable session without a connection wait on its node.
#[actix_rt::test]
async fn a_durable_session_receives_later_what_was_published_elsewhere() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = nodes(&servers, ["a", "b"]).await;
    let mut publisher = a.client(connect("p")).await;
    let mut subscriber = b.client(connect_lasting("s", V5)).await;
    subscriber.subscribe("t", QOS_2).await;
    subscriber.leave().await;
    for packet_id in 1..=100 {
        let payload = packet_id.to_string();
        publisher.publish(publish_2(packet_id, "t", &payload)).await;
        publisher.expect_taken(QOS_2, packet_id, ReasonCode::Success).await;
    }
    let mut subscriber = b.client(connect_lasting("s", V5)).await;
    for packet_id in 1..=100 {
        let payload = packet_id.to_string();
        expect_message(&mut subscriber, publish_2(packet_id, "t", &payload)).await;
    }
}

/// A message is acknowledged after the other node has it. While that node cannot be reached, the publisher
/// waits; then the message comes, once.
#[actix_rt::test]
async fn a_message_is_acknowledged_when_the_other_node_has_stored_it() {
    let Some(servers) = NatsServers::start(1) else { return };
    let a = Node::start(settings(&servers, "a")).await;
    let cable = Cable::to(&servers.url(0)).await;
    let far = NatsSettings { servers: vec![cable.url()], ..settings(&servers, "b") };
    let b = Node::start(far).await;
    for node in [&a, &b] {
        wait(|| node.sees(&["a", "b"], MemberState::Serving)).await;
    }
    let mut publisher = a.client(connect("p")).await;
    let mut subscriber = b.client(connect("s")).await;
    subscriber.subscribe("t", QOS_2).await;
    cable.cut();
    publisher.publish(publish_2(1, "t", "1")).await;
    publisher.publish(publish_1(2, "t", "2")).await;
    let early = timeout(Duration::from_millis(1_500), publisher.receive(|_| ())).await;
    assert!(early.is_err(), "acknowledged, although node b cannot have it");
    cable.mend();
    publisher.expect(pubrec(1, ReasonCode::Success)).await;
    publisher.expect(puback(2, ReasonCode::Success)).await;
    expect_message(&mut subscriber, publish_2(1, "t", "1")).await;
    expect_message(&mut subscriber, publish_1(2, "t", "2")).await;
    expect_no_more(&mut subscriber).await;
}

/// One of three NATS servers is killed in the middle of a stream of messages: no connection ends, each message of
/// QoS 1 arrives, and each of QoS 2 once.
#[actix_rt::test]
async fn no_message_is_lost_when_one_of_three_nats_servers_ends() {
    let Some(mut servers) = NatsServers::start(3) else { return };
    // Both nodes are connected to the server that ends; it has named the others.
    let first = |name| NatsSettings { servers: vec![servers.url(0)], ..settings(&servers, name) };
    let (a, b) = (Node::start(first("a")).await, Node::start(first("b")).await);
    for node in [&a, &b] {
        wait(|| node.sees(&["a", "b"], MemberState::Serving)).await;
    }
    let mut publisher = a.client(connect("p")).await;
    let mut subscriber = b.client(connect("s")).await;
    subscriber.subscribe("t", QOS_2).await;
    for number in 1..=400 {
        let payload = number.to_string();
        let message = match number % 2 {
            0 => publish_1(number, "t", &payload),
            _ => publish_2(number, "t", &payload),
        };
        publisher.publish(message).await;
        if number == 200 {
            servers.kill(0);
        }
    }
    for number in 1..=400 {
        match number % 2 {
            0 => publisher.expect(puback(number, ReasonCode::Success)).await,
            _ => publisher.expect(pubrec(number, ReasonCode::Success)).await,
        }
    }
    for number in 1..=400 {
        assert_eq!(next_message(&mut subscriber, number_of).await, number);
    }
    expect_no_more(&mut subscriber).await;
}

/// Returns the Packet Identifiers of the PUBACKs that come before the connection ends.
async fn acknowledged_before_the_end(client: &mut TcpClient) -> BTreeSet<u16> {
    let mut bytes = std::mem::take(&mut client.received);
    let read = timeout(PATIENCE, client.stream.read_to_end(&mut bytes)).await;
    drop(read.expect("the connection ends")); // a reset ends it too
    let mut acknowledged = BTreeSet::new();
    let look = |packet: Packet<'_>, _: usize| {
        let Packet::PubAck(ack) = packet else {
            assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?}");
            return None;
        };
        Some(ack.packet_id.0.get())
    };
    while let Some(packet_id) = next_packet(&mut bytes, V5, look).unwrap() {
        acknowledged.extend(packet_id);
    }
    acknowledged
}

/// NATS is away longer than the leases last: both nodes fence themselves and end their connections. The clients
/// come back, and no message is lost that was acknowledged.
#[actix_rt::test]
async fn no_acknowledged_message_is_lost_when_all_nodes_fence_themselves() {
    let Some(mut servers) = NatsServers::start(1) else { return };
    let [a, b] = nodes(&servers, ["a", "b"]).await;
    let mut publisher = a.client(connect_lasting("p", V5)).await;
    let mut subscriber = b.client(connect_lasting("s", V5)).await;
    subscriber.subscribe("t", QOS_1).await;
    for number in 1..=200 {
        if number == 100 {
            servers.kill(0);
        }
        publisher.publish(publish_1(number, "t", &number.to_string())).await;
    }
    let acknowledged = acknowledged_before_the_end(&mut publisher).await;
    servers.start_again(0);
    for node in [&a, &b] {
        wait(|| node.sees(&["a", "b"], MemberState::Serving)).await;
    }
    let mut publisher = a.client(connect_lasting("p", V5)).await;
    for number in (1..=200).filter(|number| !acknowledged.contains(number)) {
        publisher.publish(dup(publish_1(number, "t", &number.to_string()))).await;
        publisher.expect(puback(number, ReasonCode::Success)).await;
    }
    let mut subscriber = b.client(connect_lasting("s", V5)).await;
    let mut missing: BTreeSet<u32> = (1..=200).collect();
    while !missing.is_empty() {
        missing.remove(&next_message(&mut subscriber, number_of).await);
    }
}

/// A node dies: a message that it cannot acknowledge is acknowledged to its publisher after the verdict, and
/// its filters are gone.
#[actix_rt::test]
async fn a_dead_node_holds_a_publisher_no_longer_than_the_verdict() {
    let Some(servers) = NatsServers::start(1) else { return };
    let a = Node::start(settings(&servers, "a")).await;
    let cable = Cable::to(&servers.url(0)).await;
    let far = NatsSettings { servers: vec![cable.url()], ..settings(&servers, "b") };
    let b = Node::start(far).await;
    for node in [&a, &b] {
        wait(|| node.sees(&["a", "b"], MemberState::Serving)).await;
    }
    let mut publisher = a.client(connect("p")).await;
    let mut subscriber = b.client(connect_lasting("s", V5)).await;
    subscriber.subscribe("t", QOS_1).await;
    cable.cut();
    publisher.publish(publish_1(1, "t", "1")).await;
    publisher.expect(puback(1, ReasonCode::Success)).await;
    assert!(a.sees(&["b"], MemberState::Dead), "acknowledged before the verdict");
    publisher.publish(publish_1(2, "t", "2")).await;
    publisher.expect(puback(2, ReasonCode::NoMatchingSubscribers)).await;
    // The node comes back with its sessions, and their filters with it.
    subscriber.expect_disconnect(ReasonCode::ServerShuttingDown).await;
    cable.mend();
    wait(|| a.sees(&["b"], MemberState::Serving)).await;
    wait(|| b.sees(&["b"], MemberState::Serving)).await;
    let mut subscriber = b.client(connect_lasting("s", V5)).await;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        publisher.publish(publish_1(3, "t", "3")).await;
        let reason = publisher
            .receive(|packet| {
                let Packet::PubAck(ack) = packet else { panic!("PUBACK, not {packet:?}") };
                ack.reason
            })
            .await;
        if reason == ReasonCode::Success {
            return expect_message(&mut subscriber, publish_1(3, "t", "3")).await;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("the filters do not come back");
}
