//! Since when messages wait for a client, and how many were dropped for it, by reason.

use hearthmq::{
    Broker,
    control::{ClientSession, ListQueue},
    metrics::DropReason::{self, *},
    mqtt::PublishProperties,
};

use crate::support::{Client, disk::Disk, packets::*, pass, secs, world_within};

async fn described(broker: &Broker) -> ClientSession {
    broker.client("c").await.unwrap().unwrap()
}

async fn dropped(broker: &Broker) -> Vec<(DropReason, u64)> {
    let found = described(broker).await.dropped;
    found.iter().map(|it| (it.reason, it.messages)).collect()
}

#[actix_rt::test]
async fn messages_that_are_dropped_for_a_client_are_counted_by_reason() {
    let broker = world_within(|limits| limits.queue_messages_per_client_max = 2).await;
    let mut packet = connect_lasting("c", V5);
    packet.properties.maximum_packet_size = Some(100);
    let mut client = Client::connected(&broker, packet).await;
    client.subscribe("t", QOS_1).await;
    assert_eq!(dropped(&broker).await, []);
    broker.publish("t", &[0; 200], QOS_1, false).await.unwrap();
    assert_eq!(dropped(&broker).await, [(PacketTooLarge, 1)]);
    client.vanish().await;
    broker.publish("t", b"x", QOS_0, false).await.unwrap();
    let mut publisher = Client::connected(&broker, connect("publisher")).await;
    for id in 1..=5 {
        let mut publish = publish_1(id, "t", "x");
        publish.properties =
            PublishProperties { message_expiry_interval: Some(10), ..PublishProperties::default() };
        publisher.publish(publish).await;
        publisher.receive(|_| ()).await;
    }
    let expected = [(QueueFull, 3), (PacketTooLarge, 1), (Offline, 1)];
    assert_eq!(dropped(&broker).await, expected);
    pass(secs(12)).await;
    broker.publish("t", b"x", QOS_1, false).await.unwrap();
    broker.clear_queue("c").await.unwrap();
    let expected = [(QueueFull, 3), (Expired, 2), (PacketTooLarge, 1), (Cleared, 1), (Offline, 1)];
    assert_eq!(dropped(&broker).await, expected);
}

#[actix_rt::test]
async fn the_oldest_message_that_waits_is_known_over_a_restart() {
    let disk = Disk::default();
    let powered = disk.power().await;
    let mut client = Client::connected(&powered.broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    assert_eq!(described(&powered.broker).await.oldest_waiting_millis, None);
    client.vanish().await;
    let since = described(&powered.broker).await.last_end.unwrap().at_millis;
    for _ in 0..100 {
        pass(secs(10)).await;
        powered.broker.publish("t", b"x", QOS_1, false).await.unwrap();
    }
    let oldest = described(&powered.broker).await.oldest_waiting_millis.unwrap();
    assert_eq!((oldest - since + 500) / 1_000, 10);
    let page = powered.broker.list_queue(ListQueue::new("c", 200)).await.unwrap().unwrap();
    assert_eq!(page.messages.len(), 100);
    let first = &page.messages[0];
    assert_eq!(first.received_at_millis, Some(oldest));
    assert_eq!((first.age_millis.unwrap() + 500) / 1_000, 990);
    powered.crash();
    let again = disk.power().await;
    assert_eq!(described(&again.broker).await.oldest_waiting_millis, Some(oldest));
    again.broker.clear_queue("c").await.unwrap();
    assert_eq!(described(&again.broker).await.oldest_waiting_millis, None);
}
