//! The broker's limits: beyond each of them the right answer and a count, and no effect on other
//! clients.

use crate::support::{Client, forgetful_world_within, packets::*, pass, secs, world, world_within};
use hearthmq::{
    Broker, broker::PublishError, limits::QueueFull, metrics::DropReason, mqtt::ReasonCode,
};

fn dropped(broker: &Broker, reason: DropReason) -> u64 {
    broker.metrics().shard(0).messages_dropped.of(reason).value()
}

/// Connects a client that must not be affected.
async fn bystander(broker: &Broker) -> Client {
    let mut client = Client::connected(broker, connect("bystander")).await;
    client.subscribe("fine", QOS_1).await;
    client
}

async fn assert_unharmed(broker: &Broker, bystander: &mut Client) {
    broker.publish("fine", b"x", QOS_0, false).await.unwrap();
    bystander.expect_publish(publish("fine", "x")).await;
    bystander.ping().await;
}

#[actix_rt::test]
async fn one_subscription_too_many_is_refused_and_the_others_stay() {
    let broker = world_within(|limits| limits.subscriptions_per_client_max = 2).await;
    let mut bystander = bystander(&broker).await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_terse(version, "c")).await;
        client.subscribe("a", QOS_0).await;
        let filters = vec![filter("b", QOS_1), filter("c", QOS_1), filter("a", QOS_2)];
        client.send(subscribe(1, filters)).await;
        let refused =
            if version == V5 { ReasonCode::QuotaExceeded } else { ReasonCode::UnspecifiedError };
        let answers = [ReasonCode::GrantedQoS1, refused, ReasonCode::GrantedQoS2];
        client.expect(suback(1, &answers)).await;
        broker.publish("c", b"x", QOS_0, false).await.unwrap();
        broker.publish("a", b"x", QOS_0, false).await.unwrap();
        client.expect_publish(publish("a", "x")).await;
        // A subscription that ends makes room.
        client.send(unsubscribe(2, vec!["a"])).await;
        client.receive(|_| ()).await;
        client.subscribe("c", QOS_0).await;
    }
    assert_unharmed(&broker, &mut bystander).await;
}

/// Publishes `1` to `5` for an offline client with room for three messages.
async fn after_five_messages(queue_full: QueueFull) -> (Broker, Vec<String>) {
    let broker = world_within(|limits| {
        limits.queue_messages_per_client_max = 3;
        limits.queue_full = queue_full;
    })
    .await;
    let mut bystander = bystander(&broker).await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    client.vanish().await;
    for payload in ["1", "2", "3", "4", "5"] {
        broker.publish("t", payload.as_bytes(), QOS_1, false).await.unwrap();
    }
    assert_unharmed(&broker, &mut bystander).await;
    assert_eq!(broker.client("c").await.unwrap().unwrap().queued, 3);
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    let mut payloads = Vec::new();
    for _ in 0..3 {
        payloads.push(client.receive_payload().await);
    }
    client.ping().await;
    (broker, payloads)
}

#[actix_rt::test]
async fn a_full_queue_loses_its_oldest_messages() {
    let (broker, payloads) = after_five_messages(QueueFull::DropOldest).await;
    assert_eq!(payloads, ["3", "4", "5"]);
    assert_eq!(dropped(&broker, DropReason::QueueFull), 2);
}

#[actix_rt::test]
async fn a_full_queue_refuses_new_messages_if_so_configured() {
    let (broker, payloads) = after_five_messages(QueueFull::DropNewest).await;
    assert_eq!(payloads, ["1", "2", "3"]);
    assert_eq!(dropped(&broker, DropReason::QueueFull), 2);
}

#[actix_rt::test]
async fn a_queue_is_bounded_in_bytes_as_well() {
    let broker = world_within(|limits| limits.queue_bytes_per_client_max = 1000).await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    client.vanish().await;
    for byte in [b'1', b'2', b'3'] {
        broker.publish("t", &[byte; 400], QOS_1, false).await.unwrap();
    }
    let totals = || {
        let metrics = broker.metrics();
        let totals = metrics.totals();
        (
            totals.queue_messages.value() + totals.queue_stored_messages.value(),
            totals.queue_bytes.value() + totals.queue_stored_bytes.value(),
        )
    };
    assert_eq!(totals(), (2, 802));
    // A message that can never fit displaces no other.
    broker.publish("t", &[b'4'; 1001], QOS_1, false).await.unwrap();
    assert_eq!(dropped(&broker, DropReason::QueueFull), 2);
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    assert_eq!(client.receive_payload().await, "2".repeat(400));
    assert_eq!(client.receive_payload().await, "3".repeat(400));
    client.ping().await;
    assert_eq!(totals(), (0, 0));
}

/// The limit for all queues; a full queue loses its own messages and no others.
#[actix_rt::test]
async fn all_queues_together_are_bounded() {
    let broker = forgetful_world_within(|limits| limits.queue_messages_max = 5).await;
    for client_id in ["a", "b"] {
        let mut client = Client::connected(&broker, connect_lasting(client_id, V5)).await;
        client.subscribe(client_id, QOS_1).await;
        client.vanish().await;
    }
    for (topic, count) in [("a", 4), ("b", 1), ("b", 2)] {
        for number in 0..count {
            let payload = format!("{number}");
            broker.publish(topic, payload.as_bytes(), QOS_1, false).await.unwrap();
        }
    }
    let queued = async |client_id| broker.client(client_id).await.unwrap().unwrap().queued;
    assert_eq!((queued("a").await, queued("b").await), (4, 1));
    assert_eq!(dropped(&broker, DropReason::QueueFull), 2);
}

/// A message that finds no room even then does not cost a client its other messages.
#[actix_rt::test]
async fn a_message_that_cannot_fit_beside_the_other_queues_displaces_nothing() {
    let broker = forgetful_world_within(|limits| limits.queue_bytes_max = 1000).await;
    for client_id in ["a", "b"] {
        let mut client = Client::connected(&broker, connect_lasting(client_id, V5)).await;
        client.subscribe(client_id, QOS_1).await;
        client.vanish().await;
    }
    broker.publish("a", &[b'x'; 700], QOS_1, false).await.unwrap();
    broker.publish("b", &[b'x'; 100], QOS_1, false).await.unwrap();
    broker.publish("b", &[b'x'; 500], QOS_1, false).await.unwrap();
    assert_eq!(broker.client("b").await.unwrap().unwrap().queued, 1);
    assert_eq!(dropped(&broker, DropReason::QueueFull), 1);
}

/// Before MQTT 5.0 a client cannot announce a Receive Maximum; the broker's limit applies.
#[actix_rt::test]
async fn messages_in_flight_are_bounded() {
    let broker = world_within(|limits| limits.in_flight_max = 3).await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe("t", QOS_1).await;
        for _ in 0..5 {
            broker.publish("t", b"x", QOS_1, false).await.unwrap();
        }
        for number in 1..=3 {
            client.expect_publish(publish_1(number, "t", "x")).await;
        }
        client.expect_nothing().await;
        let found = broker.client("c").await.unwrap().unwrap();
        assert_eq!((found.in_flight, found.queued), (3, 2));
        client.send(puback(1, ReasonCode::Success)).await;
        client.expect_publish(publish_1(4, "t", "x")).await;
        client.expect_nothing().await;
    }
}

#[actix_rt::test]
async fn retained_messages_are_bounded_in_number() {
    let broker = world_within(|limits| limits.retained_messages_max = 2).await;
    let mut client = Client::connected(&broker, connect_terse(V5, "c")).await;
    for (packet_id, topic, payload, reason) in [
        (1, "a", "x", ReasonCode::NoMatchingSubscribers),
        (2, "b", "x", ReasonCode::NoMatchingSubscribers),
        (3, "c", "x", ReasonCode::QuotaExceeded),
        (4, "b", "replaced", ReasonCode::NoMatchingSubscribers),
        (5, "a", "", ReasonCode::NoMatchingSubscribers),
        (6, "c", "x", ReasonCode::NoMatchingSubscribers),
    ] {
        client.publish(retained(publish_1(packet_id, topic, payload))).await;
        client.expect(puback(packet_id, reason)).await;
    }
    client.publish(retained(publish_2(7, "d", "x"))).await;
    client.expect(pubrec(7, ReasonCode::QuotaExceeded)).await;
    client.publish(retained(publish("d", "x"))).await;
    client.ping().await;
    assert_eq!(dropped(&broker, DropReason::RetainedFull), 3);
    assert_eq!(broker.metrics().totals().retained_messages.value(), 2);
}

#[actix_rt::test]
async fn retained_messages_are_bounded_in_bytes_of_messages_and_of_topic_levels() {
    // A message counts 288 bytes beside its text, its only level 576 and its text.
    const ONE: u64 = 288 + 576 + 1;
    let broker = world_within(|limits| limits.retained_bytes_max = ONE + 100).await;
    let mut client = Client::connected(&broker, connect_terse(V5, "c")).await;
    let large = "x".repeat(60);
    client.publish(retained(publish_1(1, "a", &large))).await;
    client.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
    client.publish(retained(publish_1(2, "b", &large))).await;
    client.expect(puback(2, ReasonCode::QuotaExceeded)).await;
    client.publish(retained(publish_1(3, "a", &"x".repeat(99)))).await;
    client.expect(puback(3, ReasonCode::NoMatchingSubscribers)).await;
    assert_eq!(broker.metrics().totals().retained_bytes.value(), ONE + 100);
    client.publish(retained(publish_1(4, "a", ""))).await;
    client.expect(puback(4, ReasonCode::NoMatchingSubscribers)).await;
    assert_eq!(broker.metrics().totals().retained_bytes.value(), 0);
    client.publish(retained(publish_1(5, "a/b", "x"))).await;
    client.expect(puback(5, ReasonCode::QuotaExceeded)).await;
}

/// QoS 0, whose publisher gets no answer, is delivered to subscribers.
#[actix_rt::test]
async fn a_full_store_keeps_qos_0_from_no_subscriber() {
    let broker = world_within(|limits| limits.retained_messages_max = 0).await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        client.subscribe("a", QOS_0).await;
        client.publish(retained(publish("a", "x"))).await;
        client.expect_publish(publish("a", "x")).await;
    }
}

/// Expired messages must not exclude others permanently.
#[actix_rt::test]
async fn expired_retained_messages_make_room() {
    let broker = world_within(|limits| limits.retained_messages_max = 1).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.publish(expiring(retained(publish("a", "x")), 10)).await;
    client.ping().await;
    pass(secs(11)).await;
    client.publish(retained(publish_1(1, "b", "x"))).await;
    client.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
}

#[actix_rt::test]
async fn topics_are_bounded_in_length_and_levels() {
    let broker = world_within(|limits| {
        limits.topic_bytes_max = 10;
        limits.topic_levels_max = 3;
    })
    .await;
    let mut bystander = bystander(&broker).await;
    for version in VERSIONS {
        for (fits, too_much) in [("a/b/c", "a/b/c/d"), ("0123456789", "0123456789X")] {
            let mut client = Client::connected(&broker, connect_in(version, "c")).await;
            client.subscribe(fits, QOS_0).await;
            client.publish(publish(fits, "x")).await;
            client.expect_publish(publish(fits, "x")).await;
            client.send(subscribe(1, vec![filter(too_much, QOS_0), filter("a", QOS_1)])).await;
            let refused = if version == V5 {
                ReasonCode::TopicFilterInvalid
            } else {
                ReasonCode::UnspecifiedError
            };
            client.expect(suback(1, &[refused, ReasonCode::GrantedQoS1])).await;
            if version == V5 {
                client.publish(publish_1(1, too_much, "x")).await;
                client.expect(puback(1, ReasonCode::TopicNameInvalid)).await;
                client.publish(publish_2(2, too_much, "x")).await;
                client.expect(pubrec(2, ReasonCode::TopicNameInvalid)).await;
                client.ping().await;
            }
            client.publish(publish(too_much, "x")).await;
            client.expect_disconnect(ReasonCode::TopicNameInvalid).await;
        }
    }
    assert_unharmed(&broker, &mut bystander).await;
}

/// From that moment the client uses the alias, and the broker does not store such a topic: a later
/// message with the alias would go to its previous topic. [MQTT 5.0, 3.3.2.3.4]
#[actix_rt::test]
async fn an_alias_for_a_topic_over_the_limits_ends_the_connection() {
    let broker = world_within(|limits| limits.topic_levels_max = 3).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.publish(aliased(publish("good", "x"), 5)).await;
    client.publish(aliased(publish_1(1, "a/b/c/d", "x"), 5)).await;
    client.expect_disconnect(ReasonCode::TopicNameInvalid).await;
}

/// A topic over the limits does not hide other mistakes of a PUBLISH. [MQTT-3.3.2-9]
#[actix_rt::test]
async fn a_wrong_alias_for_a_topic_over_the_limits_is_a_wrong_alias() {
    let broker = world_within(|limits| limits.topic_levels_max = 3).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.publish(aliased(publish_1(1, "a/b/c/d", "x"), 60_000)).await;
    client.expect_disconnect(ReasonCode::TopicAliasInvalid).await;
}

/// However many levels are configured, because the stack is limited.
#[actix_rt::test]
async fn no_limits_allow_more_than_1024_levels() {
    let broker = world_within(|limits| {
        limits.topic_bytes_max = u16::MAX;
        limits.topic_levels_max = u16::MAX;
    })
    .await;
    let (deep, too_deep) = ("/".repeat(1023), "/".repeat(1024));
    let refused = broker.publish(&too_deep, b"x", QOS_0, true).await;
    assert_eq!(refused, Err(PublishError::TopicOverLimits));
    broker.publish(&deep, b"x", QOS_0, true).await.unwrap();
    let mut client = Client::connected(&broker, connect("c")).await;
    client.subscribe("#", QOS_0).await;
    client.expect_publish(retained(publish(&deep, "x"))).await;
    broker.publish(&deep, b"", QOS_0, true).await.unwrap();
    client.publish(publish_1(1, &too_deep, "x")).await;
    client.expect_publish(publish(&deep, "")).await;
    client.expect(puback(1, ReasonCode::TopicNameInvalid)).await;
}

/// A SUBACK that is too large for the client would leave it without an answer.
/// [MQTT-3.1.2-24]
#[actix_rt::test]
async fn who_asks_for_more_than_fits_into_its_largest_answer_is_told_so() {
    let broker = world().await;
    let names: Vec<String> = (0..120).map(|number| number.to_string()).collect();
    let mut connect = connect("c");
    connect.properties.maximum_packet_size = Some(100);
    for is_subscribe in [true, false] {
        let mut client = Client::connected(&broker, connect.clone()).await;
        if is_subscribe {
            let filters = names.iter().map(|name| filter(name, QOS_0)).collect();
            client.send(subscribe(1, filters)).await;
        } else {
            client.send(unsubscribe(1, names.iter().map(String::as_str).collect())).await;
        }
        client.expect_disconnect(ReasonCode::PacketTooLarge).await;
    }
}

/// A hub (Home Assistant, Node-RED, a gateway) subscribes to each topic of each of its devices.
#[actix_rt::test]
async fn a_hub_may_subscribe_to_every_topic_of_its_devices() {
    let broker = world().await;
    for version in VERSIONS {
        let mut hub = Client::connected(&broker, connect_in(version, "hub")).await;
        for (packet_id, first) in (1..).zip((0..8_000).step_by(4_000)) {
            let topics: Vec<_> =
                (first..first + 4_000).map(|n| format!("plant/device-{n}/sensor/state")).collect();
            let filters = topics.iter().map(|topic| filter(topic, QOS_0)).collect();
            hub.send(subscribe(packet_id, filters)).await;
            hub.expect(suback(packet_id, &[ReasonCode::Success; 4_000])).await;
        }
        broker.publish("plant/device-7999/sensor/state", b"x", QOS_0, false).await.unwrap();
        hub.expect_publish(publish("plant/device-7999/sensor/state", "x")).await;
        hub.leave().await;
    }
}
