//! Who receives a message on a topic, what is retained, and what the node says of itself.

use hearthmq::{
    Broker,
    auth::{AccessRequest, Action, Authorizer, Decision, Identity},
    control::{Caller, FindReceivers, ListRetained, SubscribedTo, TopicReceiver},
    limits::Limits,
    mqtt::QoS,
};

use crate::{
    between_shards::Shards,
    support::{Client, disk::Disk, packets::*, pass, secs, world_where, world_within},
};

fn on(topic: &str) -> SubscribedTo {
    SubscribedTo::Topic(topic.into())
}

fn to(filter: &str) -> SubscribedTo {
    SubscribedTo::Filter(filter.into())
}

/// Returns the clients of all pages, and checks that only the last page has no successor.
async fn receivers(broker: &Broker, which: SubscribedTo, limit: usize) -> Vec<TopicReceiver> {
    let (mut found, mut question) = (Vec::new(), FindReceivers::new(which, limit));
    loop {
        let page = broker.find_receivers(question.clone()).await.unwrap();
        let count = page.receivers.len();
        found.extend(page.receivers);
        let Some(next) = page.next else { return found };
        assert_eq!(count, limit);
        question = question.after(next);
    }
}

fn ids(receivers: &[TopicReceiver]) -> Vec<&str> {
    receivers.iter().map(|receiver| &*receiver.client_id).collect()
}

#[actix_rt::test]
async fn the_receivers_of_a_topic_are_found_on_all_shards() {
    let disk = Disk::default();
    let shards = Shards::within(2, &disk, |_| {}).await;
    let broker = &shards.powered.broker;
    let mut clients = Vec::new();
    for number in 0..20 {
        let name = format!("c-{number:02}");
        let mut client = Client::connected(broker, connect_lasting(&name, V5)).await;
        client.subscribe("a/+", if number % 2 == 0 { QOS_0 } else { QOS_1 }).await;
        client.subscribe("a/b", QOS_0).await;
        client.subscribe("x", QOS_0).await;
        if number < 3 {
            client.subscribe("$share/g/a/#", QOS_2).await;
        }
        if number == 19 { client.vanish().await } else { clients.push(client) }
    }
    let mut member = Client::connected(broker, connect_lasting("member", V5)).await;
    member.subscribe("$share/g/a/#", QOS_2).await;
    pass(secs(1)).await;
    let mut expected: Vec<String> = (0..20).map(|number| format!("c-{number:02}")).collect();
    expected.push("member".into());
    for limit in [1, 3, 20, 21, 22] {
        let found = receivers(broker, on("a/b"), limit).await;
        assert_eq!(ids(&found), expected, "{limit}");
        assert_eq!((found[0].qos, found[0].online), (Some(QoS::AtMostOnce), true));
        assert_eq!((found[19].qos, found[19].online), (Some(QoS::AtLeastOnce), false));
        assert_eq!(found[2].shares, ["$share/g/a/#".into()]);
        assert!(found[3].shares.is_empty());
        assert_eq!((found[20].qos, found[20].shares.len()), (None, 1));
    }
    assert!(receivers(broker, on("nowhere"), 10).await.is_empty());
    assert_eq!(receivers(broker, to("a/b"), 7).await.len(), 20);
    let found = receivers(broker, to("$share/g/a/#"), 3).await;
    assert_eq!(ids(&found), ["c-00", "c-01", "c-02", "member"]);
    assert_eq!((found[0].qos, found[0].shares.len()), (None, 1));
    assert!(receivers(broker, to("a/#"), 10).await.is_empty());
}

/// Lets the caller observe `seen-…` and subscribe to `open/…`.
struct InPart;

impl Authorizer for InPart {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let is_caller = request.listener == "rest";
        let is_allowed = match request.action {
            _ if !is_caller => true,
            Action::Observe => request.client_id.starts_with("seen-"),
            Action::Subscribe { filter, .. } => filter.starts_with("open/"),
            _ => false,
        };
        if is_allowed { Decision::Allow } else { Decision::Deny }
    }
}

fn caller() -> Caller {
    Caller {
        identity: Identity::default(),
        peer: "127.0.0.1:4711".parse().unwrap(),
        listener: "rest".into(),
    }
}

#[actix_rt::test]
async fn a_caller_sees_receivers_and_topics_that_it_may_see() {
    let broker = world_where(InPart).await;
    let mut clients = Vec::new();
    for name in ["hidden-1", "seen-1", "seen-2", "zone"] {
        let mut client = Client::connected(&broker, connect(name)).await;
        client.subscribe("t", QOS_0).await;
        clients.push(client);
    }
    for which in [on("t"), to("t")] {
        let page = broker.find_receivers(FindReceivers::new(which, 2).by(caller())).await.unwrap();
        assert_eq!(ids(&page.receivers), ["seen-1", "seen-2"]);
        assert_eq!(page.next, None, "what is hidden does not follow");
    }
    for topic in ["open/1", "open/2", "shut/1"] {
        broker.publish(topic, b"x", QoS::AtMostOnce, true).await.unwrap();
    }
    let page = broker.list_retained(ListRetained::new("#", 10).by(caller())).await.unwrap();
    let topics: Vec<&str> = page.messages.iter().map(|message| &*message.topic).collect();
    assert_eq!(topics, ["open/1", "open/2"]);
}

#[actix_rt::test]
async fn retained_messages_are_listed_shown_and_removed() {
    let disk = Disk::default();
    let powered = disk.power().await;
    let broker = &powered.broker;
    for number in 0..500 {
        let topic = format!("t/{number:03}");
        broker.publish(&topic, b"payload", QoS::AtLeastOnce, true).await.unwrap();
    }
    broker.publish("other", b"x", QoS::AtMostOnce, true).await.unwrap();
    for limit in [7, 250, 500, 501] {
        let (mut found, mut question) = (Vec::new(), ListRetained::new("t/#", limit));
        loop {
            let page = broker.list_retained(question.clone()).await.unwrap();
            found.extend(page.messages.iter().map(|message| message.topic.to_string()));
            let Some(next) = page.next else { break };
            question = question.after(next);
        }
        let expected: Vec<String> = (0..500).map(|number| format!("t/{number:03}")).collect();
        assert_eq!(found, expected, "{limit}");
    }
    let found = broker.retained("t/007").unwrap();
    assert_eq!((found.qos, found.payload_bytes), (QoS::AtLeastOnce, 7));
    assert_eq!(found.payload.as_deref(), Some(&b"payload"[..]));
    assert_eq!(broker.retained("t"), None);

    let mut subscriber = Client::connected(broker, connect("subscriber")).await;
    subscriber.subscribe("other", QOS_0).await;
    subscriber.receive(|_| ()).await;
    assert_eq!(broker.clear_retained("other").await, Ok(true));
    assert_eq!(broker.clear_retained("other").await, Ok(false));
    subscriber.expect_nothing().await;
    assert_eq!(broker.retained("other"), None);
    powered.plug.pull();
    let powered = disk.power().await;
    assert_eq!(powered.broker.retained("other"), None);
    assert_eq!(disk.retained(), 500);
}

#[actix_rt::test]
async fn a_node_tells_its_limits_and_how_long_it_runs() {
    let broker = world_within(|limits| limits.in_flight_max = 7).await;
    let _client = Client::connected(&broker, connect("c")).await;
    pass(secs(10)).await;
    let node = broker.node();
    assert_eq!(node.limits, Limits { in_flight_max: 7, ..node.limits.clone() });
    assert_eq!((node.sessions, node.connections, node.shards), (1, 1, 1));
    assert_eq!(node.now_millis.saturating_sub(node.started_at_millis) / 1000, 10);
}
