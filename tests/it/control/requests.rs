//! Requests that a caller publishes, and the replies of clients.

use std::{sync::Arc, time::Duration};

use actix_rt::task::JoinHandle;
use hearthmq::{
    Broker,
    control::{ControlError, DeviceReply, RequestReply},
    mqtt::{Packet, PublicationBuilder, PublishProperties, ReasonCode, Timestamp},
};
use tokio::time::Instant;

use crate::{
    between_shards::Shards,
    support::{Client, disk::Disk, millis, packets::*, pass, secs, world},
};

type Answered = Result<DeviceReply, ControlError>;

fn request(broker: &Broker, response_topic: &str, data: &str) -> JoinHandle<Answered> {
    let message = PublicationBuilder::new("ask", "how much?").qos(QOS_1);
    let message = message.response_topic(response_topic).correlation_data(data);
    let message = Arc::new(message.build(Timestamp(0)).unwrap());
    let request = RequestReply::new(message, secs(5)).unwrap();
    let broker = broker.clone();
    actix_rt::spawn(async move { broker.request(request).await })
}

/// Returns the payload of a reply, and the client that has sent it.
async fn reply(request: JoinHandle<Answered>) -> (String, Option<String>) {
    let DeviceReply { message, client_id, node, .. } = request.await.unwrap().unwrap();
    assert_eq!(&*node, "hearthmq");
    let payload = String::from_utf8(message.payload().to_vec()).unwrap();
    (payload, client_id.map(|id| id.as_ref().to_owned()))
}

fn from(payload: &str, client_id: &str) -> (String, Option<String>) {
    (payload.to_owned(), Some(client_id.to_owned()))
}

async fn device(broker: &Broker, name: &str) -> Client {
    let mut device = Client::connected(broker, connect(name)).await;
    device.subscribe("ask", QOS_0).await;
    device
}

/// Takes a request; returns its Response Topic and Correlation Data.
async fn asked(device: &mut Client) -> (String, Vec<u8>) {
    let look = |packet: Packet<'_>| {
        let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
        assert_eq!((publish.topic, publish.payload), ("ask", &b"how much?"[..]));
        let PublishProperties { response_topic, correlation_data, .. } = publish.properties;
        (response_topic.unwrap().to_owned(), correlation_data.unwrap().to_vec())
    };
    device.receive(look).await
}

async fn answer(device: &mut Client, topic: &str, data: Option<&[u8]>, payload: &str) {
    let mut publish = publish(topic, payload);
    publish.properties.correlation_data = data;
    device.publish(publish).await;
}

#[actix_rt::test]
async fn a_device_replies_on_a_topic_of_the_broker() {
    let broker = world().await;
    let topics = [(); 2].map(|()| broker.new_response_topic());
    assert!(topics[0] != topics[1] && topics[0].starts_with("hearthmq/reply/"), "{topics:?}");
    let mut device = device(&broker, "device").await;
    let mut other = Client::connected(&broker, connect("other")).await;
    other.subscribe("hearthmq/#", QOS_0).await;
    let request = request(&broker, &topics[0], "cd");
    assert_eq!(asked(&mut device).await, (topics[0].clone(), b"cd".to_vec()));
    // What has other Correlation Data, or none, is no reply here.
    answer(&mut device, &topics[0], Some(b"ef"), "wrong").await;
    answer(&mut device, &topics[0], None, "without").await;
    answer(&mut device, &topics[1], Some(b"cd"), "elsewhere").await;
    answer(&mut device, &topics[0], Some(b"cd"), "7").await;
    answer(&mut device, &topics[0], Some(b"cd"), "8").await;
    assert_eq!(reply(request).await, from("7", "device"));
    // A reply is a message like every other.
    for payload in ["wrong", "without", "elsewhere", "7", "8"] {
        assert_eq!(other.receive_payload().await, payload);
    }
}

/// Clients before MQTT 5.0 have no Correlation Data.
#[actix_rt::test]
async fn the_first_message_on_a_named_topic_is_the_reply() {
    let broker = world().await;
    let mut device = Client::connected(&broker, connect_in(V3_1_1, "old")).await;
    device.subscribe("ask", QOS_0).await;
    // What is retained there is older than the request.
    device.publish(retained(publish("old/reply", "retained"))).await;
    device.ping().await;
    let requests = ["1", "2"].map(|data| request(&broker, "old/reply", data));
    for _ in &requests {
        assert_eq!(device.receive_payload().await, "how much?");
    }
    for payload in ["first", "second", "third"] {
        device.publish(publish("old/reply", payload)).await;
    }
    let [first, second] = requests;
    assert_eq!(reply(first).await, from("first", "old"));
    assert_eq!(reply(second).await, from("second", "old"));
}

/// A client that sends Correlation Data must send that of the request.
#[actix_rt::test]
async fn correlation_data_tells_requests_on_one_topic_apart() {
    let broker = world().await;
    let mut device = device(&broker, "device").await;
    let requests = ["1", "2"].map(|data| request(&broker, "r", data));
    for _ in &requests {
        asked(&mut device).await;
    }
    answer(&mut device, "r", Some(b"2"), "two").await;
    answer(&mut device, "r", Some(b"1"), "one").await;
    let [first, second] = requests;
    assert_eq!(reply(second).await, from("two", "device"));
    assert_eq!(reply(first).await, from("one", "device"));
}

#[actix_rt::test]
async fn a_request_that_nobody_receives_or_answers_ends() {
    let broker = world().await;
    let topic = broker.new_response_topic();
    let began = Instant::now();
    let nobody = request(&broker, &topic, "cd").await.unwrap();
    assert_eq!(nobody.err(), Some(ControlError::NoSubscriber));
    assert!(began.elapsed() < secs(1));
    let _device = device(&broker, "device").await;
    let silence = request(&broker, &topic, "cd").await.unwrap();
    assert_eq!(silence.err(), Some(ControlError::Timeout));
    assert!(began.elapsed() >= secs(5));
}

/// Otherwise each name that callers use would stay among the subscriptions.
#[actix_rt::test]
async fn nothing_is_left_of_a_named_topic() {
    let broker = world().await;
    let mut device = device(&broker, "device").await;
    for is_answered in [true, false] {
        let request = request(&broker, "r", "cd");
        asked(&mut device).await;
        device.publish(publish_1(1, "r", "x")).await;
        device.expect(puback(1, ReasonCode::Success)).await;
        assert_eq!(reply(request).await, from("x", "device"), "{is_answered}");
        pass(millis(10)).await;
        device.publish(publish_1(2, "r", "x")).await;
        device.expect(puback(2, ReasonCode::NoMatchingSubscribers)).await;
    }
}

#[actix_rt::test]
async fn a_device_on_another_shard_replies() {
    let disk = Disk::default();
    let shards = Shards::within(3, &disk, |_| {}).await;
    let broker = &shards.powered.broker;
    for shard in [0, 1, 2] {
        let topic = broker.new_response_topic();
        let mut device = shards.brief_client("device", shard).await;
        device.subscribe("ask", QOS_1).await;
        let request = request(broker, &topic, "cd");
        pass(Duration::from_millis(1)).await;
        asked(&mut device).await;
        answer(&mut device, &topic, Some(b"cd"), "7").await;
        assert_eq!(reply(request).await, from("7", &shards.resident("device", shard)));
        device.vanish().await;
    }
}

#[actix_rt::test]
async fn at_most_a_thousand_requests_wait() {
    let broker = world().await;
    let _device = device(&broker, "device").await;
    let topic = broker.new_response_topic();
    let requests: Vec<_> = (0..1_000).map(|_| request(&broker, &topic, "cd")).collect();
    pass(millis(100)).await;
    let refused = request(&broker, "r", "cd").await.unwrap();
    assert_eq!(refused.err(), Some(ControlError::Unavailable));
    for request in requests {
        assert_eq!(request.await.unwrap().err(), Some(ControlError::Timeout));
    }
    let again = request(&broker, "r", "cd").await.unwrap();
    assert_eq!(again.err(), Some(ControlError::Timeout));
}
