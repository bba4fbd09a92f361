//! Calls that publish a message and wait for what becomes of its deliveries.

use std::{sync::Arc, time::SystemTime};

use actix_rt::task::JoinHandle;
use hearthmq::{
    Broker,
    control::{
        ControlError, Deliveries,
        DeliveryStage::{self, Acknowledged, Delivered, Stored},
        PublishRequest, Published, WaitForDeliveries,
    },
    mqtt::{Connect, ConnectProperties, PublicationBuilder, QoS, ReasonCode, Timestamp},
};
use tokio::time::Instant;

use crate::{
    between_shards::Shards,
    support::{Client, disk::Disk, millis, packets::*, pass, secs, world},
};

/// A call under way.
struct Call(JoinHandle<Result<Published, ControlError>>);

/// The sessions that match, and how many have stored, received, acknowledged, not received yet and
/// lost the message; whether all came as far as the call wanted.
type Outcome = (usize, [usize; 5], bool);

fn call_with(broker: &Broker, message: PublicationBuilder<'_>, stage: DeliveryStage) -> Call {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = Timestamp(u64::try_from(since_1970.as_millis()).unwrap());
    let message = Arc::new(message.build(now).unwrap());
    let wait = WaitForDeliveries::new(stage, secs(5));
    let request = PublishRequest::new(message).waiting(wait);
    let broker = broker.clone();
    Call(actix_rt::spawn(async move { broker.publish_counted(request).await }))
}

fn call(broker: &Broker, topic: &str, qos: QoS, stage: DeliveryStage) -> Call {
    call_with(broker, PublicationBuilder::new(topic, "x").qos(qos), stage)
}

fn outcome(published: Published) -> Outcome {
    let Published { matched, deliveries, .. } = published;
    let Deliveries { stored, delivered, acknowledged, queued, dropped, is_complete, .. } =
        deliveries.unwrap();
    (matched, [stored, delivered, acknowledged, queued, dropped], is_complete)
}

impl Call {
    async fn outcome(self) -> Outcome {
        outcome(self.0.await.unwrap().unwrap())
    }

    async fn goes_on(&self) {
        pass(millis(200)).await;
        assert!(!self.0.is_finished());
    }
}

async fn subscriber(broker: &Broker, name: &str, qos: QoS) -> Client {
    let mut client = Client::connected(broker, connect(name)).await;
    client.subscribe("t", qos).await;
    client
}

/// Returns a client whose session lasts.
async fn lasting(broker: &Broker, name: &str) -> Client {
    let mut client = Client::connected(broker, connect_lasting(name, V5)).await;
    client.subscribe("t", QOS_1).await;
    client
}

async fn returned(broker: &Broker, name: &str) -> Client {
    let connect = Connect { clean_start: false, ..connect_lasting(name, V5) };
    Client::connected(broker, connect).await
}

#[actix_rt::test]
async fn a_call_ends_when_each_client_has_acknowledged() {
    let broker = world().await;
    let mut clients =
        [subscriber(&broker, "a", QOS_1).await, subscriber(&broker, "b", QOS_2).await];
    let call = call(&broker, "t", QOS_2, Acknowledged);
    clients[0].expect_publish(publish_1(1, "t", "x")).await;
    clients[1].expect_publish(publish_2(1, "t", "x")).await;
    clients[0].send(puback(1, ReasonCode::Success)).await;
    call.goes_on().await;
    // PUBREC acknowledges the message; PUBCOMP only frees the identifier.
    clients[1].send(pubrec(1, ReasonCode::Success)).await;
    assert_eq!(call.outcome().await, (2, [0, 2, 2, 0, 0], true));
}

#[actix_rt::test]
async fn with_qos_0_a_delivery_ends_when_it_is_sent() {
    let broker = world().await;
    let mut client = subscriber(&broker, "c", QOS_0).await;
    for qos in [QOS_0, QOS_1] {
        let outcome = call(&broker, "t", qos, Acknowledged).outcome().await;
        assert_eq!(outcome, (1, [0, 1, 0, 0, 0], true));
        client.expect_publish(publish("t", "x")).await;
    }
}

#[actix_rt::test]
async fn without_a_match_the_answer_comes_immediately() {
    let broker = world().await;
    let began = Instant::now();
    for stage in [Stored, Delivered, Acknowledged] {
        assert_eq!(call(&broker, "t", QOS_1, stage).outcome().await, (0, [0; 5], true));
    }
    assert!(began.elapsed() < secs(1));
}

#[actix_rt::test]
async fn a_call_that_wants_less_ends_earlier() {
    let broker = world().await;
    let mut client = lasting(&broker, "c").await;
    assert_eq!(call(&broker, "t", QOS_1, Delivered).outcome().await, (1, [1, 1, 0, 0, 0], true));
    assert_eq!(client.receive_payload().await, "x");
    client.leave().await;
    assert_eq!(call(&broker, "t", QOS_1, Stored).outcome().await, (1, [1, 0, 0, 1, 0], true));
}

/// The time passes, and the answer says what has happened so far.
#[actix_rt::test]
async fn an_absent_client_is_waited_for_as_long_as_the_call_says() {
    let broker = world().await;
    lasting(&broker, "absent").await.leave().await;
    let mut online = subscriber(&broker, "online", QOS_1).await;
    let began = Instant::now();
    let call = call(&broker, "t", QOS_1, Acknowledged);
    online.expect_publish(publish_1(1, "t", "x")).await;
    online.send(puback(1, ReasonCode::Success)).await;
    assert_eq!(call.outcome().await, (2, [1, 1, 1, 1, 0], false));
    assert!(began.elapsed() >= secs(5));
}

#[actix_rt::test]
async fn a_client_that_returns_meanwhile_counts() {
    let broker = world().await;
    lasting(&broker, "c").await.leave().await;
    let calls = [Delivered, Acknowledged].map(|stage| call(&broker, "t", QOS_1, stage));
    calls[0].goes_on().await;
    let mut client = returned(&broker, "c").await;
    for id in [1, 2] {
        client.expect_publish(publish_1(id, "t", "x")).await;
    }
    let [delivered, acknowledged] = calls;
    assert_eq!(delivered.outcome().await, (1, [1, 1, 0, 0, 0], true));
    acknowledged.goes_on().await;
    client.send(puback(1, ReasonCode::Success)).await;
    client.send(puback(2, ReasonCode::Success)).await;
    assert_eq!(acknowledged.outcome().await, (1, [1, 1, 1, 0, 0], true));
}

/// [MQTT-4.4.0-1]
#[actix_rt::test]
async fn an_acknowledgement_after_a_redelivery_counts() {
    let broker = world().await;
    let mut client = lasting(&broker, "c").await;
    let call = call(&broker, "t", QOS_1, Acknowledged);
    client.expect_publish(publish_1(1, "t", "x")).await;
    client.leave().await;
    call.goes_on().await;
    let mut client = returned(&broker, "c").await;
    client.expect_publish(dup(publish_1(1, "t", "x"))).await;
    client.send(puback(1, ReasonCode::Success)).await;
    assert_eq!(call.outcome().await, (1, [1, 1, 1, 0, 0], true));
}

#[actix_rt::test]
async fn a_delivery_that_can_never_be_acknowledged_ends_the_call() {
    let broker = world().await;
    // The session ends with its connection.
    let mut client = subscriber(&broker, "c", QOS_1).await;
    let first = call(&broker, "t", QOS_1, Acknowledged);
    client.expect_publish(publish_1(1, "t", "x")).await;
    first.goes_on().await;
    client.vanish().await;
    assert_eq!(first.outcome().await, (1, [0, 1, 0, 0, 0], true));
    // The client refuses the message.
    for (qos, name) in [(QOS_1, "a"), (QOS_2, "b")] {
        let mut client = subscriber(&broker, name, qos).await;
        let call = call(&broker, "t", QOS_2, Acknowledged);
        assert_eq!(client.receive_payload().await, "x");
        client.send(if qos == QOS_1 { puback } else { pubrec }(1, ReasonCode::QuotaExceeded)).await;
        assert_eq!(call.outcome().await, (1, [0, 1, 0, 0, 0], true), "{name}");
        client.vanish().await;
    }
}

#[actix_rt::test]
async fn a_message_that_is_dropped_ends_the_call() {
    let broker = world().await;
    lasting(&broker, "c").await.leave().await;
    // QoS 0 for an absent client.
    let outcome = call(&broker, "t", QOS_0, Delivered).outcome().await;
    assert_eq!(outcome, (1, [0, 0, 0, 0, 1], true));
    // It expires.
    let message = PublicationBuilder::new("t", "x").qos(QOS_1).expiry_secs(3);
    let began = Instant::now();
    assert_eq!(call_with(&broker, message, Delivered).outcome().await, (1, [1, 0, 0, 0, 1], true));
    assert!(began.elapsed() >= secs(1) && began.elapsed() < secs(5));
    // It is too large for the client.
    let properties =
        ConnectProperties { maximum_packet_size: Some(30), ..ConnectProperties::default() };
    let mut small = Client::connected(&broker, Connect { properties, ..connect("small") }).await;
    small.subscribe("large", QOS_1).await;
    let payload = "x".repeat(30);
    let message = PublicationBuilder::new("large", &payload).qos(QOS_1);
    let outcome = call_with(&broker, message, Acknowledged).outcome().await;
    assert_eq!(outcome, (1, [0, 0, 0, 0, 1], true));
}

/// Messages wait in the queue of a client that does not acknowledge those before.
#[actix_rt::test]
async fn a_message_behind_a_full_window_is_queued() {
    let broker = world().await;
    let properties = ConnectProperties { receive_maximum: Some(1), ..ConnectProperties::default() };
    let mut client = Client::connected(&broker, Connect { properties, ..connect("c") }).await;
    client.subscribe("t", QOS_1).await;
    let calls = [(); 2].map(|()| call(&broker, "t", QOS_1, Acknowledged));
    client.expect_publish(publish_1(1, "t", "x")).await;
    client.send(puback(1, ReasonCode::Success)).await;
    let [first, second] = calls;
    assert_eq!(first.outcome().await, (1, [0, 1, 1, 0, 0], true));
    client.expect_publish(publish_1(2, "t", "x")).await;
    let third = call(&broker, "t", QOS_1, Delivered);
    assert_eq!(third.outcome().await, (1, [0, 0, 0, 1, 0], false));
    assert_eq!(second.outcome().await, (1, [0, 1, 0, 0, 0], false));
}

#[actix_rt::test]
async fn one_member_of_a_shared_subscription_counts() {
    let broker = world().await;
    let mut members = Vec::new();
    for name in ["m-1", "m-2"] {
        let mut member = Client::connected(&broker, connect(name)).await;
        member.subscribe("$share/group/t", QOS_1).await;
        members.push(member);
    }
    let call = call(&broker, "t", QOS_1, Acknowledged);
    pass(millis(10)).await;
    // The first member leaves; if it has the message, the other one gets it.
    let mut second = members.pop().unwrap();
    members.pop().unwrap().vanish().await;
    assert_eq!(second.receive_payload().await, "x");
    call.goes_on().await;
    second.send(puback(1, ReasonCode::Success)).await;
    assert_eq!(call.outcome().await, (1, [0, 1, 1, 0, 0], true));
}

#[actix_rt::test]
async fn a_subscriber_in_process_has_a_message_when_it_is_delivered() {
    let broker = world().await;
    let mut subscription = broker.subscribe("t", QOS_1).unwrap();
    let outcome = call(&broker, "t", QOS_1, Acknowledged).outcome().await;
    assert_eq!(outcome, (1, [0, 1, 0, 0, 0], true));
    assert_eq!(subscription.next().await.unwrap().message.payload(), b"x");
}

#[actix_rt::test]
async fn sessions_on_all_shards_count() {
    let disk = Disk::default();
    let shards = Shards::within(3, &disk, |_| {}).await;
    let broker = &shards.powered.broker;
    let mut clients = Vec::new();
    for shard in [0, 1, 2] {
        let mut client = shards.brief_client("c", shard).await;
        client.subscribe("t", QOS_1).await;
        clients.push(client);
        lasting(broker, &shards.resident("absent", shard)).await.leave().await;
    }
    let call = call(broker, "t", QOS_1, Acknowledged);
    for client in &mut clients {
        client.expect_publish(publish_1(1, "t", "x")).await;
        client.send(puback(1, ReasonCode::Success)).await;
    }
    for shard in [0, 1, 2] {
        call.goes_on().await;
        let mut client = returned(broker, &shards.resident("absent", shard)).await;
        client.expect_publish(publish_1(1, "t", "x")).await;
        client.send(puback(1, ReasonCode::Success)).await;
    }
    assert_eq!(call.outcome().await, (6, [3, 6, 6, 0, 0], true));
}

/// One caller leaves room for those of others, and what it does not wait for any more takes none.
#[actix_rt::test]
async fn the_calls_of_one_user_wait_for_a_quarter_of_all_deliveries() {
    let broker = world().await;
    for number in 0..250 {
        lasting(&broker, &number.to_string()).await.leave().await;
    }
    let by = |user: &str| {
        let message = PublicationBuilder::new("t", "x").qos(QOS_1);
        let message = Arc::new(message.build(Timestamp(1_000_000)).unwrap());
        let wait = WaitForDeliveries::new(Delivered, secs(5));
        let request = PublishRequest::new(message).waiting(wait).by(user);
        let broker = broker.clone();
        Call(actix_rt::spawn(async move { broker.publish_counted(request).await }))
    };
    let calls: Vec<_> = (0..100).map(|_| by("ann")).collect();
    pass(millis(100)).await;
    assert_eq!(by("ann").0.await.unwrap(), Err(ControlError::Unavailable));
    by("bob").goes_on().await;
    for call in calls {
        call.0.abort();
    }
    pass(millis(100)).await;
    let calls: Vec<_> = (0..100).map(|_| by("ann")).collect();
    for call in calls {
        assert_eq!(call.outcome().await, (250, [250, 0, 0, 250, 0], false));
    }
}

#[actix_rt::test]
async fn at_most_a_thousand_calls_wait() {
    let broker = world().await;
    lasting(&broker, "absent").await.leave().await;
    let calls: Vec<_> = (0..1_000).map(|_| call(&broker, "t", QOS_1, Delivered)).collect();
    pass(millis(100)).await;
    let refused = call(&broker, "t", QOS_1, Delivered).0.await.unwrap();
    assert_eq!(refused, Err(ControlError::Unavailable));
    for call in calls {
        assert_eq!(call.outcome().await, (1, [1, 0, 0, 1, 0], false));
    }
    let mut client = Client::connected(&broker, connect("c")).await;
    client.subscribe("u", QOS_1).await;
    let again = call(&broker, "u", QOS_1, Delivered).outcome().await;
    assert_eq!(again, (1, [0, 1, 0, 0, 0], true));
}
