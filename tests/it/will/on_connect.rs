//! Sections 3.1.2.5 to 3.1.2.7 and 3.1.3.2 to 3.1.3.4: the Will. `wills` has everything
//! that takes time, above all the delay.

use hearthmq::{
    Broker,
    mqtt::{Connect, LastWill, ProtocolVersion, QoS, ReasonCode, UserPropertiesBuf},
};

use crate::{
    sessions::at_connect::lose,
    support::{Client, packets::*, world},
    wire::ALL_VERSIONS,
};

fn with_will<'a>(version: ProtocolVersion, will: LastWill<'a>) -> Connect<'a> {
    Connect { will: Some(will), ..connect_in(version, "c") }
}

/// Starts a broker, with a client that watches for Wills.
async fn watched() -> (Broker, Client) {
    let broker = world().await;
    let mut watcher = Client::connected(&broker, connect("watcher")).await;
    watcher.subscribe("will/#", QOS_2).await;
    (broker, watcher)
}

/// [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10]; 3.1.1: [MQTT-3.1.2-8] [MQTT-3.1.2-10]
#[actix_rt::test]
async fn the_will_is_published_once_when_the_connection_is_lost() {
    let (broker, mut watcher) = watched().await;
    for version in ALL_VERSIONS {
        let client = Client::connected(&broker, with_will(version, will("will/c", "gone"))).await;
        watcher.ping().await;
        lose(&broker, client, "c").await;
        watcher.expect_publish(publish("will/c", "gone")).await;
        watcher.ping().await;
        // The Will has ended with that connection and does not belong to the next one.
        let client = Client::connected(&broker, connect_in(version, "c")).await;
        lose(&broker, client, "c").await;
        watcher.ping().await;
    }
}

/// [MQTT-3.1.2-8] [MQTT-4.13.1-1]; 3.1.1: [MQTT-3.1.2-8]
#[actix_rt::test]
async fn the_will_is_published_when_the_broker_ends_the_connection() {
    let (broker, mut watcher) = watched().await;
    for version in ALL_VERSIONS {
        let mut client =
            Client::connected(&broker, with_will(version, will("will/c", "gone"))).await;
        client.send_bytes(b"\xF1\0").await; // not a packet
        client.expect_disconnect(ReasonCode::MalformedPacket).await;
        watcher.expect_publish(publish("will/c", "gone")).await;
        // Another connection takes over under the same identifier.
        let mut client =
            Client::connected(&broker, with_will(version, will("will/c", "gone"))).await;
        let successor = Client::connected(&broker, connect_in(version, "c")).await;
        client.expect_disconnect(ReasonCode::SessionTakenOver).await;
        watcher.expect_publish(publish("will/c", "gone")).await;
        successor.leave().await;
        watcher.ping().await;
    }
}

/// [MQTT-3.1.2-12] of 3.1.1
#[actix_rt::test]
async fn without_a_will_nothing_is_published() {
    let broker = world().await;
    let mut watcher = Client::connected(&broker, connect("watcher")).await;
    watcher.subscribe("#", QOS_2).await;
    for version in ALL_VERSIONS {
        let client = Client::connected(&broker, connect_in(version, "c")).await;
        lose(&broker, client, "c").await;
        watcher.ping().await;
    }
}

/// The Will as stored: its QoS, and whether it is retained. [MQTT-3.1.2-9] [MQTT-3.1.2-12]
/// [MQTT-3.1.2-14] [MQTT-3.1.2-15]
/// 3.1.1: [MQTT-3.1.2-9] [MQTT-3.1.2-14] [MQTT-3.1.2-16] [MQTT-3.1.2-17]
#[actix_rt::test]
async fn the_will_has_the_qos_and_retain_of_the_connect_flags() {
    let (broker, mut watcher) = watched().await;
    let mut packet_id = 0;
    for version in ALL_VERSIONS {
        for qos in [QOS_0, QOS_1, QOS_2] {
            for retain in [false, true] {
                let last_will = LastWill { qos, retain, ..will("will/c", "gone") };
                let client = Client::connected(&broker, with_will(version, last_will)).await;
                lose(&broker, client, "c").await;
                let mut expected = publish("will/c", "gone");
                expected.flags.qos = qos;
                if qos != QoS::AtMostOnce {
                    packet_id += 1;
                    expected.packet_id = Some(id(packet_id));
                }
                watcher.expect_publish(expected).await;
                watcher.take(qos, packet_id).await;
                let mut late = Client::connected(&broker, connect_in(version, "late")).await;
                late.subscribe("will/c", QOS_0).await;
                if retain {
                    late.expect_publish(retained(publish("will/c", "gone"))).await;
                    broker.publish("will/c", b"", QOS_0, true).await.unwrap();
                    watcher.expect_publish(publish("will/c", "")).await;
                    late.expect_publish(publish("will/c", "")).await;
                }
                late.ping().await;
            }
        }
    }
}

/// [MQTT-3.1.2-14]; 3.1.1: [MQTT-3.1.2-16]
#[actix_rt::test]
async fn a_will_that_is_not_retained_leaves_what_is_retained() {
    let (broker, mut watcher) = watched().await;
    broker.publish("will/c", b"kept", QOS_0, true).await.unwrap();
    watcher.expect_publish(publish("will/c", "kept")).await;
    for version in ALL_VERSIONS {
        for payload in ["gone", ""] {
            let client =
                Client::connected(&broker, with_will(version, will("will/c", payload))).await;
            lose(&broker, client, "c").await;
            watcher.expect_publish(publish("will/c", payload)).await;
            let mut late = Client::connected(&broker, connect_in(version, "late")).await;
            late.subscribe("will/c", QOS_0).await;
            late.expect_publish(retained(publish("will/c", "kept"))).await;
        }
    }
}

/// [MQTT-3.1.3-10], and of its other properties [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16]
/// [MQTT-3.3.2-17] [MQTT-3.3.2-20]
#[actix_rt::test]
async fn the_properties_of_the_will_keep_their_order_and_values() {
    let (broker, mut watcher) = watched().await;
    let mut pairs = UserPropertiesBuf::new();
    for (name, value) in [("b", "2"), ("a", "1"), ("b", "2"), ("", ""), ("a", "0")] {
        pairs.push(name, value).unwrap();
    }
    let mut last_will = will("will/c", "gone");
    let properties = &mut last_will.properties.publish;
    properties.user_properties = pairs.as_user_properties();
    properties.payload_format_indicator = Some(true);
    properties.content_type = Some("text/plain");
    properties.response_topic = Some("answers");
    properties.correlation_data = Some(b"\0\xFF");
    let mut expected = publish("will/c", "gone");
    expected.properties = properties.clone();
    let client = Client::connected(&broker, with_will(V5, last_will)).await;
    lose(&broker, client, "c").await;
    watcher.expect_publish(expected).await;
}
