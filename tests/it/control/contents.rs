//! What a session contains: its subscriptions, and the messages in its queue, which may be cleared.

use hearthmq::{
    Broker,
    control::{
        ClearQueue, ClientViews, ListQueue, ListSubscriptions, MessageProperties, QueuePage,
    },
    limits::Limits,
    mqtt::{PublicationBuilder, QoS, ReasonCode::Success, RetainHandling},
};

use crate::support::{
    Client, disk::Disk, forgetful_world_within, packets::*, pass, secs, world, world_within,
};

#[actix_rt::test]
async fn subscriptions_come_in_pages_in_the_order_of_their_filters() {
    let broker = world().await;
    assert_eq!(broker.list_subscriptions(ListSubscriptions::new("c", 10)).await, Ok(None));
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    let mut filters: Vec<String> = (0..600).map(|number| format!("t/{number}")).collect();
    filters.extend(["$share/g/t/1".into(), "#".into(), "ü".into()]);
    for filter in &filters {
        client.subscribe(filter, QOS_1).await;
    }
    filters.sort_unstable();
    for limit in [1, 7, 602, 603, 604] {
        let (mut found, mut question) = (Vec::new(), ListSubscriptions::new("c", limit));
        loop {
            let page = broker.list_subscriptions(question.clone()).await.unwrap().unwrap();
            found.extend(page.subscriptions.iter().map(|it| it.filter.to_string()));
            let Some(next) = page.next else { break };
            assert_eq!(page.subscriptions.len(), limit);
            question = question.after(next);
        }
        assert_eq!(found, filters, "{limit}");
    }
    let mut asked = filter("t/5", QOS_2);
    asked.options.no_local = true;
    asked.options.retain_handling = RetainHandling::DoNotSend;
    client.send(subscribe_as(9, 77, vec![asked])).await;
    client.receive(|_| ()).await;
    client.vanish().await;
    pass(secs(1)).await;
    let question = ListSubscriptions::new("c", 1).after("t/499");
    let page = broker.list_subscriptions(question).await.unwrap().unwrap();
    let [found] = &*page.subscriptions else { panic!("{page:?}") };
    assert_eq!((&*found.filter, found.qos, found.identifier), ("t/5", QoS::ExactlyOnce, Some(77)));
    assert!(found.no_local && !found.retain_as_published);
    assert_eq!(found.retain_handling, RetainHandling::DoNotSend);
}

/// Returns the topics of all pages, and checks that only the last page has no successor.
async fn topics(broker: &Broker, limit: usize) -> Vec<String> {
    let (mut found, mut question) = (Vec::new(), ListQueue::new("c", limit));
    loop {
        let QueuePage { messages, next, .. } =
            broker.list_queue(question.clone()).await.unwrap().unwrap();
        found.extend(messages.iter().map(|message| message.topic.to_string()));
        let Some(next) = next else { return found };
        assert_eq!(messages.len(), limit);
        question = question.after(next);
    }
}

/// Leaves messages to a client that is away, or that has a full window.
async fn fill(broker: &Broker, count: u16) {
    let mut publisher = Client::connected(broker, connect("publisher")).await;
    for number in 1..=count {
        publisher.publish(publish_1(number, &format!("t/{number}"), "payload")).await;
        publisher.receive(|_| ()).await;
    }
    publisher.leave().await;
}

fn numbered(numbers: std::ops::RangeInclusive<u16>) -> Vec<String> {
    numbers.map(|number| format!("t/{number}")).collect()
}

fn many(limits: &mut Limits) {
    limits.queue_messages_per_client_max = 1_000;
}

/// A durable session has most of its queue in the store.
#[actix_rt::test]
async fn the_queue_of_a_client_that_is_away_is_listed_and_cleared() {
    let disk = Disk::default();
    let mut limits = crate::support::generous();
    many(&mut limits);
    let powered = disk.power_with(|builder| builder.limits(limits.clone())).await;
    let broker = &powered.broker;
    assert_eq!(broker.list_queue(ListQueue::new("c", 10)).await, Ok(None));
    assert_eq!(broker.clear_queue("c").await, Ok(None));
    let mut client = Client::connected(broker, connect_lasting("c", V5)).await;
    client.subscribe("t/#", QOS_1).await;
    client.vanish().await;
    fill(broker, 300).await;
    for limit in [7, 64, 299, 300, 301] {
        assert_eq!(topics(broker, limit).await, numbered(1..=300), "{limit}");
    }
    let page = broker.list_queue(ListQueue::new("c", 1).with_payloads()).await.unwrap().unwrap();
    let [first] = &*page.messages else { panic!("{page:?}") };
    assert_eq!((first.qos, first.payload_bytes, first.retain), (QoS::AtLeastOnce, 7, false));
    assert_eq!(first.payload.as_deref(), Some(&b"payload"[..]));
    let page = broker.list_queue(ListQueue::new("c", 1)).await.unwrap().unwrap();
    assert_eq!(page.messages[0].payload, None);

    assert_eq!(broker.clear_queue("c").await, Ok(Some(300)));
    assert!(topics(broker, 10).await.is_empty());
    assert_eq!(broker.clear_queue("c").await, Ok(Some(0)));
    fill(broker, 2).await;
    // The store agrees, also after a crash.
    powered.plug.pull();
    let powered = disk.power_with(|builder| builder.limits(limits)).await;
    assert_eq!(topics(&powered.broker, 10).await, numbered(1..=2));
    let mut packet = connect_lasting("c", V5);
    packet.clean_start = false;
    let (mut client, _) = Client::connected_with(&powered.broker, packet).await;
    for number in 1..=2 {
        client.expect_publish(publish_1(number, &format!("t/{number}"), "payload")).await;
        client.take(QOS_1, number).await;
    }
    client.expect_nothing().await;
}

/// The properties of a message belong to its publisher, as the payload does.
#[actix_rt::test]
async fn messages_are_shown_with_the_properties_of_their_publishers() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    client.vanish().await;
    let message = PublicationBuilder::new("t", b"x")
        .qos(QoS::AtLeastOnce)
        .retain(true)
        .response_topic("r")
        .correlation_data(b"\xFFcd")
        .content_type("text/plain")
        .user_property("k", "v");
    broker.publish_with(message).await.unwrap();
    broker.publish("t", b"plain", QoS::AtLeastOnce, false).await.unwrap();
    let page = broker.list_queue(ListQueue::new("c", 2).with_payloads()).await.unwrap().unwrap();
    let retained = broker.retained("t").unwrap();
    for properties in [&page.messages[0].properties, &retained.properties] {
        let properties = properties.as_ref().unwrap();
        assert_eq!(properties.response_topic.as_deref(), Some("r"));
        assert_eq!(properties.correlation_data.as_deref(), Some(&b"\xFFcd"[..]));
        assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
        assert_eq!(properties.user_properties, [("k".into(), "v".into())]);
        assert!(!format!("{properties:?}").contains("text"), "{properties:?}");
    }
    assert_eq!(page.messages[1].properties, Some(MessageProperties::default()));
    let page = broker.list_queue(ListQueue::new("c", 2)).await.unwrap().unwrap();
    assert_eq!(page.messages[0].properties, None);
}

/// What was sent stays with its session, and is acknowledged as before.
#[actix_rt::test]
async fn messages_in_flight_stay_when_a_queue_is_cleared() {
    for is_durable in [true, false] {
        let broker = match is_durable {
            true => world_within(many).await,
            false => forgetful_world_within(many).await,
        };
        let mut packet = connect_lasting("c", V5);
        packet.properties.receive_maximum = Some(2);
        let mut client = Client::connected(&broker, packet).await;
        client.subscribe("t/#", QOS_1).await;
        fill(&broker, 200).await;
        for id in 1..=2 {
            client.expect_publish(publish_1(id, &format!("t/{id}"), "payload")).await;
        }
        assert_eq!(topics(&broker, 50).await, numbered(3..=200), "{is_durable}");
        let cleared = ClientViews::clear_queue(&broker, ClearQueue::new("c")).await;
        assert_eq!(cleared, Ok(Some(198)), "{is_durable}");
        let found = broker.client("c").await.unwrap().unwrap();
        assert_eq!((found.queued, found.in_flight), (0, 2));
        client.send(puback(1, Success)).await;
        client.send(puback(2, Success)).await;
        client.expect_nothing().await;
        fill(&broker, 1).await;
        client.expect_publish(publish_1(3, "t/1", "payload")).await;
    }
}

/// Messages that are not stored come behind the stored ones, and each appears once.
#[actix_rt::test]
async fn a_queue_has_messages_of_both_kinds() {
    let broker = world_within(many).await;
    let mut packet = connect_lasting("c", V5);
    packet.properties.receive_maximum = Some(1);
    let mut client = Client::connected(&broker, packet).await;
    client.subscribe("t/#", QOS_1).await;
    let mut publisher = Client::connected(&broker, connect("publisher")).await;
    let stays = "x".repeat(100_000);
    for number in 1..=9 {
        // The client does not read, so that messages with QoS 0 wait, too.
        publisher.publish(publish_1(number, &format!("t/{number}"), &stays)).await;
        publisher.receive(|_| ()).await;
        publisher.publish(publish(&format!("t/zero/{number}"), &stays)).await;
    }
    publisher.ping().await;
    let found = broker.client("c").await.unwrap().unwrap();
    let all = topics(&broker, 1_000).await;
    assert_eq!(all.len(), found.queued);
    for limit in [1, 2, 5] {
        assert_eq!(topics(&broker, limit).await, all, "{limit}");
    }
    assert!(all.starts_with(&numbered(2..=9)), "{all:?}");
    assert_eq!(broker.clear_queue("c").await, Ok(Some(all.len() as u64)));
}
