//! Section 3.3.2.3: the properties of PUBLISH. Expiry is in
//! `aliases_and_properties`, on virtual time.

use hearthmq::mqtt::{Publish, ReasonCode, UserPropertiesBuf};

use crate::{
    sessions::at_connect::lose,
    support::{Client, generous, packets::*, world, world_with},
    wire::*,
};

/// Adds every property that is forwarded, with boundary values.
fn with_properties<'a>(
    mut packet: Publish<'a>,
    pairs: &'a UserPropertiesBuf,
    format: bool,
) -> Publish<'a> {
    let properties = &mut packet.properties;
    properties.payload_format_indicator = Some(format);
    properties.response_topic = Some("answers/ü/\u{FEFF}");
    properties.correlation_data = Some(b"\0\xFF\0");
    properties.content_type = Some("application/json; x=\u{1}");
    properties.user_properties = pairs.as_user_properties();
    packet
}

/// Delivered directly, retained, and queued. [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16]
/// [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
#[actix_rt::test]
async fn properties_of_a_message_reach_every_subscriber_unaltered() {
    let broker = world().await;
    let mut pairs = UserPropertiesBuf::new();
    for (name, value) in [("z", "1"), ("a", "2"), ("z", ""), ("z", "1"), ("", "ü")] {
        pairs.push(name, value).unwrap();
    }
    for format in [false, true] {
        let of = |packet| with_properties(packet, &pairs, format);
        let mut publisher = Client::connected(&broker, connect("p")).await;
        let mut present = Client::connected(&broker, connect("present")).await;
        present.subscribe("t", QOS_0).await;
        let mut away = Client::connected(&broker, connect_lasting("away", V5)).await;
        away.subscribe("t", QOS_1).await;
        lose(&broker, away, "away").await;
        publisher.publish(retained(of(publish_1(1, "t", "x")))).await;
        publisher.expect(puback(1, ReasonCode::Success)).await;
        present.expect_publish(of(publish("t", "x"))).await;
        let mut away = Client::connected(&broker, connect_lasting("away", V5)).await;
        away.expect_publish(of(publish_1(1, "t", "x"))).await;
        lose(&broker, away, "away").await;
        let mut away = Client::connected(&broker, connect_lasting("away", V5)).await;
        away.expect_publish(dup(of(publish_1(1, "t", "x")))).await;
        let mut late = Client::connected(&broker, connect("late")).await;
        late.subscribe("t", QOS_0).await;
        late.expect_publish(retained(of(publish("t", "x")))).await;
        // Clients of older versions get the message itself.
        let mut old = Client::connected(&broker, connect_in(V3_1_1, "old")).await;
        old.subscribe("t", QOS_0).await;
        old.expect_publish(retained(publish("t", "x"))).await;
        away.send(puback(1, ReasonCode::Success)).await;
        away.ping().await;
        away.leave().await;
        Client::connected(&broker, connect("away")).await.leave().await;
        broker.publish("t", b"", QOS_0, true).await.unwrap();
    }
}

/// The broker adds no properties. [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16]
/// [MQTT-3.3.2-20]
#[actix_rt::test]
async fn a_message_without_properties_comes_without() {
    let broker = world().await;
    let (mut wire, _) = Wire::connected(&broker, &plain_connect(V5, "c")).await;
    wire.send(b"\x82\x07\0\x01\0\0\x01t\0").await;
    wire.expect(b"\x90\x04\0\x01\0\0").await;
    // Empty properties differ from missing ones.
    for properties in [&b"\0"[..], b"\x0B\x03\0\0\x09\0\0\x26\0\0\0\0"] {
        let publish = packet(0x30, &[b"\0\x01t", properties, b"x"]);
        wire.send(&publish).await;
        let received = wire.packet().await;
        assert_eq!(received.len(), publish.len(), "{received:02x?}");
        if properties.len() == 1 {
            assert_eq!(received, publish);
        }
    }
    let mut old = Client::connected(&broker, connect_in(V3_1_1, "old")).await;
    old.publish(publish("t", "x")).await;
    wire.expect(b"\x30\x05\0\x01t\0x").await;
}

/// [MQTT-3.3.2-13] [MQTT-3.3.2-14] [MQTT-4.13.1-1]
#[actix_rt::test]
async fn a_response_topic_with_wildcards_closes_the_connection() {
    let broker = world().await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("t", QOS_0).await;
    for topic in ["#", "+", "a/#", "a/+/b", "a+"] {
        let mut packet = publish("t", "x");
        packet.properties.response_topic = Some(topic);
        let mut client = Client::connected(&broker, connect("c")).await;
        client.publish(packet).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
    }
    subscriber.ping().await;
}

/// Section 2.2.2.2, and the section of each property: given twice, out of range, or of another
/// packet.
/// [MQTT-4.13.1-1]
#[actix_rt::test]
async fn a_property_that_is_wrong_closes_the_connection() {
    let broker = world().await;
    for (property, reason) in [
        (&b"\x01\x02"[..], ReasonCode::ProtocolError), // Payload Format Indicator 2
        (b"\x01\0\x01\0", ReasonCode::ProtocolError),
        (b"\x02\0\0\0\x01\x02\0\0\0\x01", ReasonCode::ProtocolError),
        (b"\x03\0\x01a\x03\0\x01a", ReasonCode::ProtocolError),
        (b"\x08\0\x01a\x08\0\x01a", ReasonCode::ProtocolError),
        (b"\x09\0\0\x09\0\0", ReasonCode::ProtocolError),
        (b"\x23\0\x01\x23\0\x01", ReasonCode::ProtocolError),
        (b"\x11\0\0\0\x01", ReasonCode::MalformedPacket), // Session Expiry Interval
        (b"\x1F\0\x01a", ReasonCode::MalformedPacket),    // Reason String
        (b"\x7E", ReasonCode::MalformedPacket),
        (b"\x02\0\0", ReasonCode::MalformedPacket),
    ] {
        let mut client = Client::connected(&broker, connect("c")).await;
        let length = [property.len() as u8];
        client.send_bytes(&packet(0x30, &[b"\0\x01t", &length, property, b"x"])).await;
        client.expect_disconnect(reason).await;
    }
}

/// [MQTT-3.3.2-12] [MQTT-3.3.2-9] [MQTT-3.3.2-8] [MQTT-3.2.2-17]
#[actix_rt::test]
async fn aliases_up_to_the_announced_maximum_are_accepted_and_no_others() {
    let mut limits = generous();
    limits.topic_alias_maximum = 300;
    let broker = world_with(|builder| builder.limits(limits)).await;
    let mut subscriber = Client::connected(&broker, connect("s")).await;
    subscriber.subscribe("#", QOS_0).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let topics: Vec<_> = (1..=300).map(|alias: u16| (alias, format!("t/{alias}"))).collect();
    for (alias, topic) in &topics {
        client.publish(aliased(publish(topic, "sets"), *alias)).await;
        subscriber.expect_publish(publish(topic, "sets")).await;
    }
    for (alias, topic) in topics.iter().rev() {
        client.publish(aliased(publish("", "uses"), *alias)).await;
        subscriber.expect_publish(publish(topic, "uses")).await;
    }
    for alias in [0, 301, u16::MAX] {
        for topic in [&b"\0\x01t"[..], b"\0\0"] {
            let mut client = Client::connected(&broker, connect("c")).await;
            let [high, low] = u16::to_be_bytes(alias);
            client.send_bytes(&packet(0x30, &[topic, &[3, 0x23, high, low], b"x"])).await;
            client.expect_disconnect(ReasonCode::TopicAliasInvalid).await;
        }
    }
    subscriber.ping().await;
}

/// [MQTT-3.2.2-18]
#[actix_rt::test]
async fn without_a_topic_alias_maximum_no_alias_is_accepted() {
    let mut limits = generous();
    limits.topic_alias_maximum = 0;
    let broker = world_with(|builder| builder.limits(limits)).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.publish(aliased(publish("t", "x"), 1)).await;
    client.expect_disconnect(ReasonCode::TopicAliasInvalid).await;
}

/// Neither the client's aliases nor the broker's. [MQTT-3.3.2-7]
#[actix_rt::test]
async fn aliases_end_with_their_connection() {
    let broker = world().await;
    let mut connect = connect_lasting("c", V5);
    connect.properties.topic_alias_maximum = Some(1);
    let mut client = Client::connected(&broker, connect.clone()).await;
    client.subscribe("t", QOS_1).await;
    client.publish(aliased(publish("t", "x"), 1)).await;
    client.expect_publish(aliased(publish("t", "x"), 1)).await;
    client.publish(aliased(publish("", "x"), 1)).await;
    client.expect_publish(aliased(publish("", "x"), 1)).await;
    // This message is sent on the connection that is then lost, and again on the next one.
    client.publish(aliased(publish_1(1, "", "x"), 1)).await;
    client.expect_publish(aliased(publish_1(1, "", "x"), 1)).await;
    lose(&broker, client, "c").await;
    let mut client = Client::connected(&broker, connect).await;
    client.expect_publish(aliased(dup(publish_1(1, "t", "x")), 1)).await;
    broker.publish("t", b"x", QOS_0, false).await.unwrap();
    client.expect_publish(aliased(publish("", "x"), 1)).await;
    client.publish(aliased(publish("", "x"), 1)).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}
