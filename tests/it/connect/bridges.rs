//! Bridges of other brokers that use MQTT 3.1 or 3.1.1 and add 0x80 to the protocol level: their
//! own messages do not come back to them, and RETAIN comes as published.

use hearthmq::mqtt::{Connect, ProtocolVersion};

use crate::support::{Client, packets::*, world};

const BRIDGE_VERSIONS: [ProtocolVersion; 2] = [V3_1, V3_1_1];

fn bridge(version: ProtocolVersion) -> Connect<'static> {
    let client_id = if version == V3_1 { "bridge of 3.1" } else { "bridge of 3.1.1" };
    Connect { is_bridge: true, ..connect_lasting(client_id, version) }
}

#[actix_rt::test]
async fn a_bridge_gets_retain_as_published_and_nothing_of_its_own() {
    let broker = world().await;
    for version in BRIDGE_VERSIONS {
        let mut other = Client::connected(&broker, connect_in(version, "other")).await;
        other.subscribe("t/#", QOS_1).await;
        let mut client = Client::connected(&broker, bridge(version)).await;
        client.subscribe("t/#", QOS_1).await;
        client.publish(retained(publish("t/kept", "mine"))).await;
        client.publish(publish("t/live", "mine")).await;
        // Other clients get it as usual, and the bridge nothing.
        other.expect_publish(publish("t/kept", "mine")).await;
        other.expect_publish(publish("t/live", "mine")).await;
        client.ping().await;
        other.publish(retained(publish("t/kept", "new"))).await;
        other.publish(publish("t/live", "new")).await;
        client.expect_publish(retained(publish("t/kept", "new"))).await;
        client.expect_publish(publish("t/live", "new")).await;
        other.publish(retained(publish("t/kept", ""))).await;
        client.expect_publish(retained(publish("t/kept", ""))).await;
        // The session remembers this for queued messages.
        client.vanish().await;
        other.publish(retained(publish_1(1, "t/kept", "later"))).await;
        let mut client = Client::connected(&broker, bridge(version)).await;
        client.expect_publish(retained(publish_1(1, "t/kept", "later"))).await;
        client.take(QOS_1, 1).await;
        // Without the bit a subscription is an ordinary one.
        let plain = Connect { is_bridge: false, ..bridge(version) };
        let mut client = Client::connected(&broker, plain).await;
        client.subscribe("t/live", QOS_0).await;
        client.publish(publish("t/live", "own")).await;
        client.expect_publish(publish("t/live", "own")).await;
        broker.publish("t/kept", b"", QOS_0, true).await.unwrap();
    }
}

/// No Local is invalid for shared subscriptions [MQTT-3.8.3-4]; Retain As Published is valid.
#[actix_rt::test]
async fn a_bridge_may_share_a_subscription() {
    let broker = world().await;
    for version in BRIDGE_VERSIONS {
        let mut client = Client::connected(&broker, bridge(version)).await;
        client.subscribe("$share/g/t", QOS_0).await;
        client.publish(retained(publish("t", "mine"))).await;
        client.expect_publish(retained(publish("t", "mine"))).await;
    }
}

/// Mosquitto's bridges publish their state, as a Will too, below the broker's own topics.
#[actix_rt::test]
async fn a_bridge_may_publish_its_state() {
    let broker = world().await;
    let topic = "$SYS/broker/connection/hub/state";
    let mut watcher = Client::connected(&broker, connect("watcher")).await;
    watcher.subscribe("$SYS/broker/connection/#", QOS_0).await;
    let with_will = Connect { will: Some(will(topic, "0")), ..bridge(V3_1_1) };
    let mut client = Client::connected(&broker, with_will).await;
    client.publish(publish(topic, "1")).await;
    watcher.expect_publish(publish(topic, "1")).await;
    client.vanish().await;
    watcher.expect_publish(publish(topic, "0")).await;
}
