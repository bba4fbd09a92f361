//! Very many retained messages for one new subscription: they come as fast as the client takes
//! them, fill no queue, and stay in order with messages published meanwhile.

use std::collections::BTreeMap;

use hearthmq::{
    Broker,
    mqtt::{Packet, ReasonCode},
};

use crate::support::{Client, packets::*, pass, secs, stream_of, world, world_within};

/// More than one connection fetches in one step.
const TOPICS: u32 = 10_000;

/// Clients that do not acknowledge get far fewer messages than there are.
async fn with_retained() -> Broker {
    let broker = world_within(|limits| limits.in_flight_max = 256).await;
    for number in 0..TOPICS {
        let payload = format!("{number:0>50}");
        broker.publish(&topic(number), payload.as_bytes(), QOS_1, true).await.unwrap();
    }
    broker
}

fn topic(number: u32) -> String {
    format!("t/{}/{number:0>5}", number % 7)
}

/// A message: topic, payload, RETAIN, identifier.
type Seen = (String, String, bool, u16);

async fn see(client: &mut Client) -> Seen {
    client
        .receive(|packet| {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            let payload = str::from_utf8(publish.payload).unwrap().to_owned();
            let id = publish.packet_id.map_or(0, |id| id.number());
            (publish.topic.to_owned(), payload, publish.flags.retain, id)
        })
        .await
}

/// The client's stream holds little, so that the walk is no faster than the test.
async fn subscriber(broker: &Broker, lasts: bool) -> Client {
    let mut client = Client::on(stream_of(broker, 4096), V5);
    client.connect(if lasts { connect_lasting("c", V5) } else { connect("c") }).await;
    client.subscribe("t/#", QOS_1).await;
    client
}

/// [MQTT-3.3.1-9] [MQTT-4.6.0-6]
#[actix_rt::test]
async fn what_is_published_meanwhile_comes_after_what_was_retained() {
    let broker = with_retained().await;
    let mut client = subscriber(&broker, false).await;
    pass(secs(1)).await;
    // Some of these were sent already, some are replaced before their turn; one is cleared.
    for number in [0, 7, 9_990, 9_991] {
        broker.publish(&topic(number), b"replaced", QOS_1, true).await.unwrap();
    }
    broker.publish(&topic(9_992), b"", QOS_1, true).await.unwrap();
    broker.publish(&topic(9_993), b"live", QOS_1, false).await.unwrap();
    broker.publish("t/new", b"new", QOS_1, true).await.unwrap();
    let mut seen: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    let mut live = 0;
    while live < 7 {
        let (topic, payload, retain, id) = see(&mut client).await;
        client.send(puback(id, ReasonCode::Success)).await;
        assert!(live == 0 || !retain, "what was retained comes first");
        live += u32::from(!retain);
        seen.entry(topic).or_default().push((payload, retain));
    }
    client.ping().await;
    for number in 0..TOPICS {
        let old = (format!("{number:0>50}"), true);
        let expected = match number {
            0 | 7 => vec![old, ("replaced".to_owned(), false)],
            9_990 | 9_991 => vec![("replaced".to_owned(), false)],
            9_992 => vec![(String::new(), false)],
            9_993 => vec![old, ("live".to_owned(), false)],
            _ => vec![old],
        };
        assert_eq!(seen.remove(&topic(number)).unwrap(), expected, "{number}");
    }
    assert_eq!(seen.remove("t/new").unwrap(), [("new".to_owned(), false)]);
    assert!(seen.is_empty());
}

#[actix_rt::test]
async fn few_of_them_wait_for_a_client_that_does_not_read() {
    let broker = with_retained().await;
    let _client = subscriber(&broker, false).await;
    pass(secs(10)).await;
    // Except for the first few, which need no walk.
    assert!(broker.metrics().totals().queue_messages_highest.value() < u64::from(TOPICS) / 4);
}

#[actix_rt::test]
async fn a_session_that_resumes_gets_the_rest() {
    let broker = with_retained().await;
    let mut client = subscriber(&broker, true).await;
    let mut seen = BTreeMap::new();
    for _ in 0..1000 {
        let (topic, _, _, id) = see(&mut client).await;
        *seen.entry(topic).or_insert(0) += 1;
        client.send(puback(id, ReasonCode::Success)).await;
    }
    client.vanish().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    while seen.len() < TOPICS as usize {
        let (topic, _, retain, id) = see(&mut client).await;
        assert!(retain);
        *seen.entry(topic).or_insert(0) += 1;
        client.send(puback(id, ReasonCode::Success)).await;
    }
    client.ping().await;
    // QoS 1: messages in flight may come twice, others may not.
    assert!(seen.values().filter(|times| **times > 1).count() <= 256);
}

/// [MQTT-3.10.4-3]
#[actix_rt::test]
async fn unsubscribing_ends_them() {
    let broker = with_retained().await;
    let mut client = subscriber(&broker, false).await;
    client.send(unsubscribe(9, vec!["t/#"])).await;
    let mut messages = 0;
    let is_done = |packet: Packet<'_>| matches!(packet, Packet::UnsubAck(_));
    while !client.receive(is_done).await {
        messages += 1;
    }
    assert!(messages < TOPICS / 2, "{messages}");
    client.expect_nothing().await;
}

/// Messages of other subscriptions keep their place as well.
#[actix_rt::test]
async fn what_waited_before_the_subscription_comes_before_them() {
    let broker = with_retained().await;
    let mut packet = connect("c");
    packet.properties.receive_maximum = Some(1);
    let mut client = Client::connected(&broker, packet).await;
    client.subscribe("t/1/00001", QOS_1).await;
    let (_, _, _, first) = see(&mut client).await;
    client.subscribe("t/0/00000", QOS_1).await;
    broker.publish(&topic(0), b"before", QOS_1, false).await.unwrap();
    client.subscribe("t/#", QOS_1).await;
    client.send(puback(first, ReasonCode::Success)).await;
    let mut of_topic_0 = Vec::new();
    while of_topic_0.len() < 3 {
        let (topic, payload, retain, id) = see(&mut client).await;
        client.send(puback(id, ReasonCode::Success)).await;
        if topic == "t/0/00000" {
            of_topic_0.push((payload, retain));
        }
    }
    let old = (format!("{:0>50}", 0), true);
    assert_eq!(of_topic_0, [old.clone(), ("before".to_owned(), false), old]);
}

/// A small number comes at once, in the order of its QoS: QoS 0 does not wait for acknowledgements
/// of others, and each of two subscriptions in one packet gets its own copy.
#[actix_rt::test]
async fn a_few_come_at_once() {
    let broker = world().await;
    broker.publish("a", b"x", QOS_1, true).await.unwrap();
    let mut packet = connect("c");
    packet.properties.receive_maximum = Some(1);
    let mut client = Client::connected(&broker, packet).await;
    client.send(subscribe(1, vec![filter("a", QOS_1), filter("a", QOS_0)])).await;
    client.expect(suback(1, &[ReasonCode::GrantedQoS1, ReasonCode::Success])).await;
    client.expect_publish(retained(publish_1(1, "a", "x"))).await;
    client.expect_publish(retained(publish("a", "x"))).await;
    client.send(subscribe(2, vec![filter("a", QOS_1), filter("a", QOS_0)])).await;
    client.expect(suback(2, &[ReasonCode::GrantedQoS1, ReasonCode::Success])).await;
    client.expect_publish(retained(publish("a", "x"))).await;
    broker.publish("a", b"y", QOS_1, false).await.unwrap();
    client.expect_publish(publish("a", "y")).await;
    client.send(puback(1, ReasonCode::Success)).await;
    client.expect_publish(retained(publish_1(2, "a", "x"))).await;
}

/// Few messages are fetched ahead for a client; they count towards its queue and end with its
/// connection.
#[actix_rt::test]
async fn what_is_fetched_for_a_client_that_does_not_acknowledge_is_bounded() {
    const BYTES: usize = 60_000;
    let broker = world_within(|limits| limits.queue_bytes_per_client_max = 100_000).await;
    let payload = vec![b'x'; BYTES];
    for number in 0..16 {
        broker.publish(&format!("t/{number:0>2}"), &payload, QOS_1, true).await.unwrap();
    }
    let mut packet = connect_lasting("c", V5);
    packet.properties.receive_maximum = Some(1);
    let mut client = Client::connected(&broker, packet.clone()).await;
    client.subscribe("t/#", QOS_1).await;
    let (mut seen, mut highest) = (Vec::new(), 0);
    for _ in 0..8 {
        let (topic, _, _, id) = see(&mut client).await;
        seen.push(topic);
        client.send(puback(id, ReasonCode::Success)).await;
        pass(secs(1)).await;
        highest = highest.max(broker.metrics().totals().queue_bytes.value());
    }
    assert!(highest > 0 && highest < 6 * BYTES as u64, "{highest}");
    assert!(broker.metrics().totals().queue_bytes.value() > BYTES as u64, "fetched, so counted");
    client.vanish().await;
    pass(secs(1)).await;
    assert_eq!(broker.metrics().totals().queue_bytes.value(), 0);
    let mut client = Client::connected(&broker, packet).await;
    while seen.last().is_none_or(|topic| topic != "t/15") {
        let (topic, _, _, id) = see(&mut client).await;
        seen.push(topic);
        client.send(puback(id, ReasonCode::Success)).await;
    }
    seen.dedup(); // messages in flight come again
    assert_eq!(seen, (0..16).map(|number| format!("t/{number:0>2}")).collect::<Vec<_>>());
    client.ping().await;
    assert_eq!(broker.metrics().totals().queue_bytes.value(), 0);
}

/// All SUBSCRIBEs of one read together look at a limited part of the retained messages; the rest
/// comes when all of them are answered. [MQTT-3.8.4-1]
#[actix_rt::test]
async fn what_a_burst_of_subscriptions_finds_comes_once_all_are_answered() {
    let broker = world().await;
    for number in 0..3000 {
        broker.publish(&format!("a/{number}"), b"x", QOS_1, true).await.unwrap();
    }
    broker.publish("b", b"x", QOS_0, true).await.unwrap();
    let mut client = Client::connected(&broker, connect("c")).await;
    let mut bytes = Vec::new();
    for (id, asked) in [(1, "a/+/none"), (2, "b"), (3, "none")] {
        let packet = subscribe(id, vec![filter(asked, QOS_0)]);
        hearthmq::mqtt::encode(&packet, V5, &mut bytes).unwrap();
    }
    client.send_bytes(&bytes).await;
    for id in 1..=3 {
        client.expect(suback(id, &[ReasonCode::Success])).await;
    }
    client.expect_publish(retained(publish("b", "x"))).await;
}
