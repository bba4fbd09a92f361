//! What an application does with a broker in its own process: it publishes, subscribes, ends
//! connections and listens to events.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use hearthmq::{
    Broker, Error,
    broker::PublishError,
    control::{ControlError, KickOptions, KickReasonError},
    hooks::{ClientConnected, ClientDisconnected, Hooks},
    mqtt::{
        Disconnect, DisconnectProperties, EncodeError, Packet, PublicationBuilder,
        PublicationError, Publish, PublishProperties, ReasonCode, TopicError, UserPropertiesBuf,
    },
};

use crate::support::{Client, packets::*, pass, secs, world, world_with};

#[actix_rt::test]
async fn a_publication_has_its_properties_for_every_subscriber() {
    let broker = world().await;
    let mut new = Client::connected(&broker, connect("new")).await;
    let mut old = Client::connected(&broker, connect_in(V3_1_1, "old")).await;
    new.subscribe("t", QOS_1).await;
    old.subscribe("t", QOS_1).await;
    let publication = PublicationBuilder::new("t", "x")
        .qos(QOS_1)
        .expiry_secs(30)
        .utf8_payload()
        .content_type("text/plain")
        .response_topic("answers/1")
        .correlation_data(&[0, 1, 255])
        .user_property("a", "1")
        .user_property("b", "2")
        .user_property("a", "1");
    broker.publish_with(publication).await.unwrap();

    let mut user_properties = UserPropertiesBuf::new();
    for (name, value) in [("a", "1"), ("b", "2"), ("a", "1")] {
        user_properties.push(name, value).unwrap();
    }
    let properties = PublishProperties {
        message_expiry_interval: Some(30),
        payload_format_indicator: Some(true),
        content_type: Some("text/plain"),
        response_topic: Some("answers/1"),
        correlation_data: Some(&[0, 1, 255]),
        user_properties: user_properties.as_user_properties(),
        ..PublishProperties::default()
    };
    new.expect_publish(Publish { properties, ..publish_1(1, "t", "x") }).await;
    old.expect_publish(publish_1(1, "t", "x")).await;
}

/// [MQTT-3.3.2-5]
#[actix_rt::test]
async fn a_publication_expires_in_the_queue() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    client.vanish().await;
    for (payload, secs) in [("gone", 10), ("here", 100)] {
        let publication = PublicationBuilder::new("t", payload).qos(QOS_1).expiry_secs(secs);
        broker.publish_with(publication).await.unwrap();
    }
    pass(secs(60)).await;
    let mut client = Client::connected(&broker, connect_lasting("c", V5)).await;
    client.expect_publish(expiring(publish_1(1, "t", "here"), 40)).await;
}

#[actix_rt::test]
async fn a_publication_is_retained_if_it_says_so() {
    let broker = world().await;
    broker.publish_with(PublicationBuilder::new("t", "x").retain(true)).await.unwrap();
    broker.publish_with(PublicationBuilder::new("u", "x")).await.unwrap();
    let mut client = Client::connected(&broker, connect("c")).await;
    client.subscribe("#", QOS_0).await;
    client.expect_publish(retained(publish("t", "x"))).await;
    client.ping().await;
}

#[actix_rt::test]
async fn what_cannot_be_published_is_refused_with_its_error() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    for filter in ["#", "$events", "$events/client_connected", "$SYS/x", "$control/#"] {
        client.subscribe(filter, QOS_0).await;
    }
    let long = "x".repeat(65_536);
    let plain = || PublicationBuilder::new("t", "x");
    let topic = |topic| PublicationBuilder::new(topic, "x");
    let wildcard = TopicError::WildcardInName;
    let too_long = EncodeError::StringTooLong;
    let null = EncodeError::NullCharacter;
    let refusals = [
        (topic(""), PublicationError::Topic(TopicError::Empty)),
        (topic("a/+"), PublicationError::Topic(wildcard)),
        (topic("a/#"), PublicationError::Topic(wildcard)),
        (topic("a\0"), PublicationError::Topic(TopicError::NullCharacter)),
        (topic(&long), PublicationError::Topic(TopicError::TooLong)),
        (topic("$events"), PublicationError::ReservedTopic),
        (topic("$events/client_connected"), PublicationError::ReservedTopic),
        (topic("$SYS/x"), PublicationError::ReservedTopic),
        (topic("$control/redirect"), PublicationError::ReservedTopic),
        (plain().response_topic("a/#"), PublicationError::ResponseTopic(wildcard)),
        (plain().response_topic(""), PublicationError::ResponseTopic(TopicError::Empty)),
        (plain().content_type(&long), PublicationError::ContentType(too_long)),
        (plain().content_type("\0"), PublicationError::ContentType(null)),
        (plain().correlation_data(&long), PublicationError::CorrelationData(too_long)),
        (plain().user_property("a", &long), PublicationError::UserProperty(too_long)),
        (
            plain().user_property("\0", "").user_property("a", &long),
            PublicationError::UserProperty(null),
        ),
        (PublicationBuilder::new("t", &[0xFF]).utf8_payload(), PublicationError::PayloadNotUtf8),
    ];
    for (publication, why) in refusals {
        let refused = broker.publish_with(publication).await;
        assert_eq!(refused, Err(PublishError::Publication(why)));
    }
    let refused = broker.publish("$SYS/x", b"x", QOS_0, true).await;
    assert_eq!(refused, Err(PublishError::Publication(PublicationError::ReservedTopic)));
    let deep = "/".repeat(2_000);
    let refused = broker.publish_with(topic(&deep)).await;
    assert_eq!(refused, Err(PublishError::TopicOverLimits));
    client.ping().await; // and nothing was published
}

/// A packet has a fixed header, and at most 268,435,455 bytes behind it (section 1.5.5).
#[actix_rt::test]
async fn a_publication_is_as_large_as_a_packet_can_be() {
    let broker = world().await;
    // Behind the fixed header: two bytes and the topic, Packet Identifier, Property Length.
    let payload = vec![0; 268_435_455 - 2 - 1 - 2 - 1 + 1];
    let too_large = PublicationBuilder::new("t", &payload);
    let refused = broker.publish_with(too_large).await;
    assert_eq!(refused, Err(PublishError::Publication(PublicationError::TooLarge)));
    let fits = PublicationBuilder::new("t", &payload[1..]);
    assert_eq!(broker.publish_with(fits.clone()).await, Ok(()));
    // An expiry takes five bytes.
    let refused = broker.publish_with(fits.expiry_secs(1)).await;
    assert_eq!(refused, Err(PublishError::Publication(PublicationError::TooLarge)));
}

/// More than wait for the application at most. The thread is shared with others meanwhile.
#[actix_rt::test]
async fn a_subscription_gets_all_retained_messages_and_then_the_live_ones() {
    let broker = world().await;
    for number in 0..15_000 {
        broker.publish(&format!("state/{number}"), b"kept", QOS_1, true).await.unwrap();
    }
    let mut all = broker.subscribe("state/+", QOS_1).unwrap();
    broker.publish("state/7", b"live", QOS_1, false).await.unwrap();
    broker.publish("state/8", b"replaced", QOS_1, true).await.unwrap();
    let mut kept = std::collections::BTreeSet::new();
    for _ in 0..14_999 {
        let received = all.next().await.unwrap();
        assert!(received.retain);
        assert_eq!(received.message.payload(), b"kept");
        kept.insert(received.message.topic().to_owned());
    }
    assert_eq!(kept.len(), 14_999);
    assert!(!kept.contains("state/8"), "its new message comes live");
    for (topic, payload) in [("state/7", &b"live"[..]), ("state/8", b"replaced")] {
        let received = all.next().await.unwrap();
        assert_eq!((received.message.topic(), received.message.payload()), (topic, payload));
        assert!(!received.retain);
    }

    // A filter that matches nothing visits many topics, in portions.
    let mut none = broker.subscribe("state/+/none", QOS_1).unwrap();
    let mut next = pin!(none.next());
    let mut task = Context::from_waker(Waker::noop());
    assert!(next.as_mut().poll(&mut task).is_pending());
    let mut polls = 0;
    let seen = poll_fn(|task| {
        polls += 1;
        if polls > 100 { Poll::Ready(None) } else { next.as_mut().poll(task).map(Some) }
    });
    assert!(tokio::time::timeout(secs(1), seen).await.is_err(), "it waits after the walk");
    assert!((20..100).contains(&polls), "{polls}");
}

#[actix_rt::test]
async fn a_kick_names_its_reason() {
    let broker = world().await;
    let options = || {
        let options = KickOptions::new().reason_code(ReasonCode::ServerBusy)?;
        options.reason_string("maintenance until noon")
    };
    let told = |reason_string| {
        let properties = DisconnectProperties { reason_string, ..Default::default() };
        Packet::Disconnect(Disconnect { reason: ReasonCode::ServerBusy, properties })
    };
    let mut client = Client::connected(&broker, connect("c")).await;
    broker.kick("c", options().unwrap()).await.unwrap();
    client.expect(told(Some("maintenance until noon"))).await;
    client.expect_closed().await;

    // A client that wants no reasons, and one that takes no packet that long.
    let mut unwilling = connect("c");
    unwilling.properties.request_problem_information = Some(false);
    let mut small = connect("c");
    small.properties.maximum_packet_size = Some(20);
    for connect in [unwilling, small] {
        let mut client = Client::connected(&broker, connect).await;
        broker.kick("c", options().unwrap()).await.unwrap();
        client.expect(told(None)).await;
        client.expect_closed().await;
    }

    let mut old = Client::connected(&broker, connect_in(V3_1_1, "c")).await;
    broker.kick("c", options().unwrap()).await.unwrap();
    old.expect_closed().await;
    let again = broker.kick("c", options().unwrap()).await;
    assert_eq!(again, Err(ControlError::NotOnline));
}

/// [MQTT-3.14.2-1]
#[test]
fn a_reason_that_no_server_may_give_is_refused() {
    let allowed =
        ReasonCode::ALL.iter().filter(|code| KickOptions::new().reason_code(**code).is_ok());
    let allowed: Vec<u8> = allowed.map(|code| code.number()).collect();
    // Table 3-10; section 2.4 adds 0x8C.
    let table = [
        0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95,
        0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ];
    assert_eq!(allowed, table);
    let refused = KickOptions::new().reason_code(ReasonCode::Success);
    assert_eq!(refused, Err(KickReasonError::Code(ReasonCode::Success)));
    for text in ["\0".to_owned(), "x".repeat(65_536)] {
        assert_eq!(KickOptions::new().reason_string(&text), Err(KickReasonError::String));
    }
    assert!(KickOptions::new().reason_string(&"x".repeat(65_535)).is_ok());
    let error = Error::from(KickReasonError::Code(ReasonCode::Success));
    assert_eq!(error.to_string(), "reason code 0x00 is not allowed in a server's DISCONNECT");
}

/// Notes its name and the events that it receives.
struct Ear(&'static str, Heard);

type Heard = Arc<Mutex<Vec<(&'static str, String, u64)>>>;

impl Hooks for Ear {
    fn client_connected(&self, event: &ClientConnected) {
        assert_eq!((event.protocol_version, event.keep_alive_secs), (V5, 0));
        let text = format!("{} from {}", event.client_id, event.peer);
        self.1.lock().unwrap().push((self.0, text, event.number));
    }

    fn client_disconnected(&self, event: &ClientDisconnected) {
        assert!(event.at >= event.connected_at);
        let text = format!("{}: {}", event.client_id, event.reason.name());
        self.1.lock().unwrap().push((self.0, text, event.number));
    }
}

#[actix_rt::test]
async fn each_event_goes_to_all_hooks_in_their_order() {
    let heard = Heard::default();
    let (first, second) = (Ear("first", heard.clone()), Ear("second", heard.clone()));
    let broker = world_with(|builder| builder.hooks(first).hooks(second)).await;
    Client::connected(&broker, connect("c")).await.leave().await;
    // The first number is that of the start of the broker.
    let came = ("c from 192.0.2.7:40000".to_owned(), 2);
    let went = ("c: normal".to_owned(), 3);
    let expected: Vec<_> = [came, went]
        .into_iter()
        .flat_map(|(text, number)| ["first", "second"].map(|name| (name, text.clone(), number)))
        .collect();
    assert_eq!(*heard.lock().unwrap(), expected);
}

/// All that an application sends to a broker may come from any thread.
#[test]
fn a_handle_may_go_to_other_threads() {
    fn is_sync<T: Send + Sync>() {}
    fn is_send<T: Send>(_: T) {}
    is_sync::<Broker>();
    is_send(|broker: Broker| async move {
        broker.publish_with(PublicationBuilder::new("t", "x")).await
    });
}
