//! The Will: when it is published, when it waits, and when it is dropped.

use hearthmq::{
    Broker,
    control::{KickOptions, WillRequest},
    mqtt::{
        Connect, Disconnect, DisconnectProperties, LastWill, Packet, ProtocolVersion, ReasonCode,
    },
};

use crate::support::{Client, packets::*, pass, secs, world};

/// Starts a broker, with a client that watches for the Will.
async fn watched() -> (Broker, Client) {
    let broker = world().await;
    let mut watcher = Client::connected(&broker, connect("watcher")).await;
    watcher.subscribe("will/#", QOS_2).await;
    (broker, watcher)
}

fn connect_with_will<'a>(version: ProtocolVersion, will: LastWill<'a>) -> Connect<'a> {
    Connect { will: Some(will), ..connect_in(version, "c") }
}

/// Returns a CONNECT of a durable session with this Will Delay.
fn delayed(delay_secs: u32, expiry_secs: u32) -> Connect<'static> {
    let mut packet = connect_lasting("c", V5);
    packet.properties.session_expiry_interval = Some(expiry_secs);
    let mut last_will = will("will", "gone");
    last_will.properties.will_delay_interval = Some(delay_secs);
    packet.will = Some(last_will);
    packet
}

async fn expect_will(watcher: &mut Client) {
    watcher.expect_publish(publish("will", "gone")).await;
    watcher.ping().await;
}

#[actix_rt::test]
async fn disconnect_deletes_a_delayed_will_too() {
    let (broker, mut watcher) = watched().await;
    Client::connected(&broker, delayed(1, 10)).await.leave().await;
    watcher.expect_nothing_for(secs(20)).await;
}

/// The same as a network failure. [MQTT-3.1.2-22] [MQTT-3.1.2-8]
/// 3.1.1: [MQTT-3.1.2-24] [MQTT-3.1.2-8]
#[actix_rt::test]
async fn a_keep_alive_timeout_publishes_the_will() {
    let (broker, mut watcher) = watched().await;
    for version in VERSIONS {
        let mut packet = connect_with_will(version, will("will", "gone"));
        packet.keep_alive = 10;
        let mut client = Client::connected(&broker, packet).await;
        pass(secs(14)).await;
        watcher.ping().await;
        pass(secs(2)).await;
        client.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
        expect_will(&mut watcher).await;
    }
}

/// Section 3.1.3.2: the message has the Will's properties; its expiry counts from publication.
#[actix_rt::test]
async fn the_properties_of_the_will_go_with_it() {
    let (broker, mut watcher) = watched().await;
    let mut packet = delayed(10, 100);
    let properties = &mut packet.will.as_mut().unwrap().properties.publish;
    properties.message_expiry_interval = Some(60);
    properties.content_type = Some("text/plain");
    properties.response_topic = Some("answers");
    properties.correlation_data = Some(b"7");
    properties.payload_format_indicator = Some(true);
    let mut expected = publish("will", "gone");
    expected.properties = properties.clone();
    Client::connected(&broker, packet.clone()).await.vanish().await;
    pass(secs(11)).await;
    watcher.expect_publish(expected).await;
}

/// [MQTT-3.1.2-8]: published once the delay has passed.
#[actix_rt::test]
async fn a_delayed_will_waits() {
    let (broker, mut watcher) = watched().await;
    Client::connected(&broker, delayed(30, 100)).await.vanish().await;
    watcher.expect_nothing_for(secs(29)).await;
    expect_will(&mut watcher).await;
    assert!(broker.client("c").await.unwrap().is_some());
    watcher.expect_nothing_for(secs(100)).await;
}

/// [MQTT-3.1.3-9]
#[actix_rt::test]
async fn coming_back_within_the_delay_deletes_the_will() {
    let (broker, mut watcher) = watched().await;
    Client::connected(&broker, delayed(30, 100)).await.vanish().await;
    pass(secs(29)).await;
    let client = Client::connected(&broker, connect_lasting("c", V5)).await;
    watcher.expect_nothing_for(secs(60)).await;
    client.vanish().await;
    watcher.expect_nothing_for(secs(60)).await;
}

/// The Will of the new connection counts, from its own end.
#[actix_rt::test]
async fn coming_back_replaces_the_will_and_its_delay() {
    let (broker, mut watcher) = watched().await;
    Client::connected(&broker, delayed(30, 100)).await.vanish().await;
    pass(secs(20)).await;
    Client::connected(&broker, delayed(30, 100)).await.vanish().await;
    watcher.expect_nothing_for(secs(29)).await;
    expect_will(&mut watcher).await;
    watcher.expect_nothing_for(secs(100)).await;
}

/// [MQTT-3.1.2-8]: at the session's end at the latest.
#[actix_rt::test]
async fn the_end_of_the_session_does_not_wait_for_the_delay() {
    let (broker, mut watcher) = watched().await;
    Client::connected(&broker, delayed(100, 30)).await.vanish().await;
    watcher.expect_nothing_for(secs(29)).await;
    expect_will(&mut watcher).await;
    pass(secs(1)).await;
    assert_eq!(broker.client("c").await.unwrap(), None);
    watcher.expect_nothing_for(secs(100)).await;
    // A session that ends with its connection.
    Client::connected(&broker, delayed(100, 0)).await.vanish().await;
    expect_will(&mut watcher).await;
}

#[actix_rt::test]
async fn a_clean_start_within_the_delay_ends_the_session_and_sends_the_will() {
    let (broker, mut watcher) = watched().await;
    Client::connected(&broker, delayed(30, 100)).await.vanish().await;
    watcher.expect_nothing().await;
    let _client = Client::connected(&broker, connect("c")).await;
    expect_will(&mut watcher).await;
    watcher.expect_nothing_for(secs(60)).await;
}

/// A DISCONNECT with Will that sets the Session Expiry Interval to 0 ends the session and the
/// delay.
#[actix_rt::test]
async fn disconnect_with_will_that_ends_the_session_sends_it_at_once() {
    let (broker, mut watcher) = watched().await;
    let mut client = Client::connected(&broker, delayed(30, 100)).await;
    client
        .send(Packet::Disconnect(Disconnect {
            reason: ReasonCode::DisconnectWithWill,
            properties: DisconnectProperties {
                session_expiry_interval: Some(0),
                ..DisconnectProperties::default()
            },
        }))
        .await;
    client.expect_closed().await;
    expect_will(&mut watcher).await;
}

#[actix_rt::test]
async fn a_kick_decides_about_the_will_of_its_client() {
    let (broker, mut watcher) = watched().await;
    for (request, comes) in [(WillRequest::Publish, true), (WillRequest::Discard, false)] {
        for end_session in [false, true] {
            let mut client = Client::connected(&broker, delayed(0, 100)).await;
            let options = KickOptions::new().will(request);
            let options = if end_session { options.end_session() } else { options };
            broker.kick("c", options).await.unwrap();
            assert!(!broker.online("c").await.unwrap());
            client.expect_disconnect(ReasonCode::AdministrativeAction).await;
            if comes {
                expect_will(&mut watcher).await;
            }
            watcher.ping().await;
            assert_eq!(broker.client("c").await.unwrap().is_none(), end_session);
        }
    }
    watcher.expect_nothing_for(secs(200)).await;
}

/// A client may subscribe to its own Will: it gets it when it returns.
#[actix_rt::test]
async fn a_will_waits_for_its_own_client_too() {
    let broker = world().await;
    let mut packet = delayed(0, 100);
    packet.will.as_mut().unwrap().qos = QOS_1;
    let mut client = Client::connected(&broker, packet.clone()).await;
    client.subscribe("will", QOS_1).await;
    client.vanish().await;
    let mut client = Client::connected(&broker, packet).await;
    client.expect_publish(publish_1(1, "will", "gone")).await;
}
