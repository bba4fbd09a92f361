//! Topic Aliases in both directions, and the properties of messages.

use hearthmq::mqtt::{Packet, ReasonCode, UserPropertiesBuf};

use crate::support::{Client, packets::*, world};

/// Section 3.3.2.3.4.
#[actix_rt::test]
async fn a_client_may_let_an_alias_stand_for_a_topic() {
    let broker = world().await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("#", QOS_0).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    for (packet, topic) in [
        (aliased(publish("a", "x"), 1), "a"),
        (aliased(publish("b", "x"), 32), "b"),
        (aliased(publish("", "x"), 1), "a"),
        (aliased(publish("", "x"), 32), "b"),
        (aliased(publish("c", "x"), 1), "c"), // set again
        (aliased(publish("", "x"), 1), "c"),
        (publish("a", "x"), "a"),
    ] {
        client.publish(packet).await;
        subscriber.expect_publish(publish(topic, "x")).await;
    }
}

/// Also if the message itself is not delivered.
#[actix_rt::test]
async fn an_alias_is_set_by_a_repeated_publish_too() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.publish(publish_2(1, "a", "x")).await;
    client.receive(|_| ()).await;
    client.publish(aliased(dup(publish_2(1, "a", "x")), 3)).await;
    client.receive(|_| ()).await;
    client.subscribe("a", QOS_0).await;
    client.publish(aliased(publish("", "y"), 3)).await;
    client.expect_publish(publish("a", "y")).await;
}

/// [MQTT-3.1.2-26] [MQTT-3.1.2-27]: defined with the first message, used from the second on.
#[actix_rt::test]
async fn the_broker_uses_as_many_aliases_as_the_client_takes() {
    let broker = world().await;
    let mut packet = connect_lasting("c", V5);
    packet.properties.topic_alias_maximum = Some(2);
    let mut client = Client::connected(&broker, packet.clone()).await;
    client.subscribe("#", QOS_1).await;
    for (topic, qos, expected) in [
        ("a", QOS_0, aliased(publish("a", "x"), 1)),
        ("b", QOS_1, aliased(publish_1(1, "b", "x"), 2)),
        ("c", QOS_0, publish("c", "x")),
        ("a", QOS_0, aliased(publish("", "x"), 1)),
        ("b", QOS_0, aliased(publish("", "x"), 2)),
        ("c", QOS_0, publish("c", "x")),
    ] {
        broker.publish(topic, b"x", qos, false).await.unwrap();
        client.expect_publish(expected).await;
    }
    // A new connection knows no alias, not even for messages that are sent again.
    client.vanish().await;
    let mut client = Client::connected(&broker, packet).await;
    client.expect_publish(aliased(dup(publish_1(1, "b", "x")), 1)).await;
    broker.publish("b", b"y", QOS_0, false).await.unwrap();
    client.expect_publish(aliased(publish("", "y"), 1)).await;
}

/// A message that was too large to send has not defined its alias.
#[actix_rt::test]
async fn a_message_that_was_not_sent_defines_no_alias() {
    let broker = world().await;
    let mut packet = connect("c");
    packet.properties.topic_alias_maximum = Some(1);
    packet.properties.maximum_packet_size = Some(30);
    let mut client = Client::connected(&broker, packet).await;
    client.subscribe("t", QOS_0).await;
    broker.publish("t", &[b'x'; 100], QOS_0, false).await.unwrap();
    broker.publish("t", b"x", QOS_0, false).await.unwrap();
    client.expect_publish(aliased(publish("t", "x"), 1)).await;
}

/// The three bytes of an alias must not cause a message to be dropped. [MQTT-3.1.2-25]
#[actix_rt::test]
async fn a_message_that_fits_without_an_alias_is_sent_without() {
    let broker = world().await;
    let mut packet = connect("c");
    packet.properties.topic_alias_maximum = Some(1);
    packet.properties.maximum_packet_size = Some(30);
    let mut client = Client::connected(&broker, packet).await;
    client.subscribe("t", QOS_0).await;
    let fits = "x".repeat(30 - 2 - 3 - 1);
    for _ in 0..2 {
        broker.publish("t", fits.as_bytes(), QOS_0, false).await.unwrap();
        client.expect_publish(publish("t", &fits)).await;
    }
    broker.publish("t", b"x", QOS_0, false).await.unwrap();
    client.expect_publish(aliased(publish("t", "x"), 1)).await;
}

/// User Properties of packets that are only for the broker are read and not forwarded.
#[actix_rt::test]
async fn user_properties_are_welcome_everywhere() {
    let broker = world().await;
    let mut pairs = UserPropertiesBuf::new();
    pairs.push("name", "value").unwrap();
    let mut packet = connect("c");
    packet.properties.user_properties = pairs.as_user_properties();
    let mut client = Client::connected(&broker, packet).await;
    let Packet::Subscribe(mut packet) = subscribe(1, vec![filter("t", QOS_1)]) else {
        unreachable!("it is one")
    };
    packet.properties.user_properties = pairs.as_user_properties();
    client.send(Packet::Subscribe(packet)).await;
    client.expect(suback(1, &[ReasonCode::GrantedQoS1])).await;
    client.publish(publish("t", "x")).await;
    client.expect_publish(publish("t", "x")).await;
}
