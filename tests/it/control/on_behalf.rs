//! What callers do to sessions: end them while their clients are absent, and change subscriptions.

use hearthmq::{
    Broker,
    control::{
        ChangeSubscriptions, ControlError, KickOptions, SubscriptionChange, SubscriptionsChanged,
        WillRequest,
    },
    mqtt::{Connect, QoS, ReasonCode, SubscriptionOptions},
};

use crate::support::{Client, disk::Disk, packets::*, secs, world, world_within};

/// Returns the CONNECT of a client with a Will that waits for an hour.
fn with_will() -> Connect<'static> {
    let mut will = will("will", "gone");
    will.properties.will_delay_interval = Some(3_600);
    Connect { will: Some(will), ..connect_lasting("car", V5) }
}

async fn present(broker: &Broker) -> bool {
    let mut client = Client::new(broker, V5);
    let packet = Connect { clean_start: false, ..connect_lasting("car", V5) };
    let present = client.connect(packet).await;
    client.leave().await;
    present
}

#[actix_rt::test]
async fn the_session_of_an_absent_client_is_ended() {
    let broker = world().await;
    let mut observer = Client::connected(&broker, connect("observer")).await;
    observer.subscribe("will", QOS_0).await;
    for discards in [false, true] {
        Client::connected(&broker, with_will()).await.vanish().await;
        assert_eq!(broker.kick("car", KickOptions::new()).await, Err(ControlError::NotOnline));
        assert!(broker.client("car").await.unwrap().is_some());
        let mut options = KickOptions::new().end_session();
        if discards {
            options = options.will(WillRequest::Discard);
        }
        assert!(broker.kick("car", options.clone()).await.is_ok());
        assert_eq!(broker.client("car").await, Ok(None));
        assert_eq!(broker.kick("car", options).await, Err(ControlError::NotOnline));
        if !discards {
            assert_eq!(observer.receive_payload().await, "gone"); // [MQTT-3.1.2-8]
        }
    }
    observer.expect_nothing_for(secs(7_200)).await;
}

#[actix_rt::test]
async fn a_session_that_was_ended_does_not_come_back_after_a_crash() {
    let disk = Disk::default();
    let powered = disk.power().await;
    Client::connected(&powered.broker, connect_lasting("car", V5)).await.leave().await;
    assert!(powered.broker.kick("car", KickOptions::new().end_session()).await.is_ok());
    powered.crash();
    let powered = disk.power().await;
    assert!(!present(&powered.broker).await);
}

fn subscribe_to(filter: &str, qos: QoS) -> SubscriptionChange {
    SubscriptionChange::Subscribe(filter.into(), SubscriptionOptions { qos, ..Default::default() })
}

#[actix_rt::test]
async fn a_caller_subscribes_and_unsubscribes_a_client() {
    let broker = world_within(|limits| limits.subscriptions_per_client_max = 40).await;
    broker.publish("t", b"retained", QOS_0, true).await.unwrap();
    let mut client = Client::connected(&broker, connect("car")).await;
    let change =
        async |changes| broker.change_subscriptions(ChangeSubscriptions::new("car", changes)).await;
    // More than one message to the connection takes.
    let mut changes = vec![subscribe_to("t", QOS_1)];
    changes.extend((0..39).map(|number| subscribe_to(&format!("x/{number}"), QOS_2)));
    changes.extend([subscribe_to("y", QOS_0), subscribe_to("a/#/b", QOS_0)]);
    changes.push(SubscriptionChange::Unsubscribe("none".into()));
    let SubscriptionsChanged { reasons, .. } = change(changes).await.unwrap();
    assert_eq!(reasons[0], ReasonCode::GrantedQoS1);
    assert!(reasons[1..40].iter().all(|reason| *reason == ReasonCode::GrantedQoS2));
    let refused = [
        ReasonCode::QuotaExceeded,
        ReasonCode::TopicFilterInvalid,
        ReasonCode::NoSubscriptionExisted,
    ];
    assert_eq!(reasons[40..], refused);
    assert_eq!(client.receive_payload().await, "retained");
    broker.publish("x/38", b"live", QOS_0, false).await.unwrap();
    assert_eq!(client.receive_payload().await, "live");
    let gone = change(vec![SubscriptionChange::Unsubscribe("t".into())]).await;
    assert_eq!(gone, Ok(SubscriptionsChanged::new("hearthmq", vec![ReasonCode::Success])));
    broker.publish("t", b"missed", QOS_0, false).await.unwrap();
    client.expect_nothing().await;
    let nobody = ChangeSubscriptions::new("nobody", vec![subscribe_to("t", QOS_0)]);
    assert_eq!(broker.change_subscriptions(nobody).await, Err(ControlError::NotOnline));
}

#[actix_rt::test]
async fn a_subscription_that_was_answered_outlives_a_crash() {
    let disk = Disk::default();
    let powered = disk.power().await;
    let _client = Client::connected(&powered.broker, connect_lasting("car", V5)).await;
    let wanted = ChangeSubscriptions::new("car", vec![subscribe_to("t", QOS_1)]);
    assert!(powered.broker.change_subscriptions(wanted).await.is_ok());
    powered.crash();
    let powered = disk.power().await;
    powered.broker.publish("t", b"x", QOS_1, false).await.unwrap();
    let mut client = Client::new(&powered.broker, V5);
    assert!(client.connect(connect_lasting("car", V5)).await);
    assert_eq!(client.receive_payload().await, "x");
}
