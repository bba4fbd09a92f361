//! A message on its way to a subscriber: compares `encode_publish` with `encode`, and checks
//! forwarding.

use hearthmq::mqtt::{
    Packet, ProtocolVersion, Publication, Publish, PublishAs, PublishFlags, PublishProperties, QoS,
    TopicAlias, UserProperties, encode, encode_publish, publish_size,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use std::num::NonZeroU16;

use super::packets::{bytes, message_properties, qos, topic};
use super::{VERSIONS, decode_whole, packet_id};

fn topic_alias() -> impl Strategy<Value = TopicAlias> {
    let alias = (1..=u16::MAX).prop_map(|alias| NonZeroU16::new(alias).unwrap());
    prop_oneof![
        Just(TopicAlias::None),
        alias.clone().prop_map(TopicAlias::Define),
        alias.prop_map(TopicAlias::Use),
    ]
}

/// Returns the packet that `encode_publish` must write.
fn expected<'a>(
    version: ProtocolVersion,
    publication: &Publication<'a>,
    how: &PublishAs<'_>,
    message: &PublishProperties<'a>,
) -> Publish<'a> {
    let has_properties = version.has_properties();
    let (topic, topic_alias) = match how.topic_alias {
        TopicAlias::Use(alias) if has_properties => ("", Some(alias.get())),
        TopicAlias::Define(alias) => (publication.topic, Some(alias.get())),
        TopicAlias::None | TopicAlias::Use(_) => (publication.topic, None),
    };
    let properties = PublishProperties {
        message_expiry_interval: how.message_expiry_interval,
        topic_alias,
        subscription_identifiers: how.subscription_identifiers.to_vec(),
        ..message.clone()
    };
    Publish {
        flags: how.flags,
        topic,
        packet_id: how.packet_id,
        properties: if has_properties { properties } else { PublishProperties::default() },
        payload: publication.payload,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_delivery_is_the_packet_that_encode_writes(
        version in select(VERSIONS.to_vec()),
        topic in topic(),
        payload in bytes(),
        message in message_properties(),
        (dup, qos, retain, id) in (any::<bool>(), qos(), any::<bool>(), 1..=u16::MAX),
        topic_alias in topic_alias(),
        subscription_identifiers in vec(1..=268_435_455_u32, 0..3),
        message_expiry_interval in of(any::<u32>()),
    ) {
        let mut properties = Vec::new();
        message.encode_forwarded(&mut properties);
        let publication = Publication {
            topic, payload, qos, retain, properties: &properties, expires_at: None,
        };
        let is_acknowledged = qos != QoS::AtMostOnce;
        let how = PublishAs {
            flags: PublishFlags { dup: dup && is_acknowledged, qos, retain },
            packet_id: is_acknowledged.then(|| packet_id(id)),
            topic_alias,
            subscription_identifiers: &subscription_identifiers,
            message_expiry_interval,
        };
        let mut bytes = b"before".to_vec();
        encode_publish(&mut bytes, version, &publication, &how);
        let bytes = bytes.strip_prefix(b"before").unwrap();
        prop_assert_eq!(bytes.len(), publish_size(version, &publication, &how));

        let packet = Packet::Publish(expected(version, &publication, &how, &message));
        prop_assert_eq!(decode_whole(bytes, version).unwrap(), packet.clone());
        let mut by_encode = Vec::new();
        encode(&packet, version, &mut by_encode).unwrap();
        prop_assert_eq!(bytes, by_encode);
    }

    /// [MQTT-3.3.2-4] [MQTT-3.3.2-17] [MQTT-3.3.2-18] and their siblings.
    #[test]
    fn what_is_forwarded_comes_out_unaltered(message in message_properties()) {
        let mut encoded = Vec::new();
        message.encode_forwarded(&mut encoded);
        prop_assert_eq!(encoded.is_empty(), message.is_plain());
        prop_assert_eq!(PublishProperties::decode_forwarded(&encoded), message);
    }
}

/// User Properties that a sender mixed with other properties keep their order, and none is lost.
#[test]
fn user_properties_between_others_are_found_and_forwarded() {
    let bytes = [
        &[0x30, 43, 0, 1, b't', 38][..],
        &[0x26, 0, 1, b'a', 0, 1, b'1'], // a: 1
        &[0x02, 0, 0, 0, 9],             // Message Expiry Interval
        &[0x26, 0, 1, b'b', 0, 1, b'2'], // b: 2
        &[0x0B, 0x80, 0x01],             // Subscription Identifier
        &[0x01, 1],                      // Payload Format Indicator
        &[0x03, 0, 1, 0x26],             // Content Type
        &[0x23, 0, 7],                   // Topic Alias
        &[0x26, 0, 1, b'a', 0, 1, b'3'], // a: 3
        b"p",
    ]
    .concat();
    let packet = decode_whole(&bytes, ProtocolVersion::V5).unwrap();
    let Packet::Publish(publish) = &packet else { panic!("{packet:?}") };
    let pairs = [("a", "1"), ("b", "2"), ("a", "3")];
    assert!(publish.properties.user_properties.iter().eq(pairs));
    assert_eq!(format!("{:?}", publish.properties.user_properties), r#"["a", "b", "a"]"#);

    let mut forwarded = Vec::new();
    publish.properties.encode_forwarded(&mut forwarded);
    let forwarded = PublishProperties::decode_forwarded(&forwarded);
    assert!(forwarded.user_properties.iter().eq(pairs));
    assert_eq!(forwarded.user_properties, publish.properties.user_properties);
    assert_eq!(forwarded.content_type, Some("&"));
    assert_eq!(forwarded.message_expiry_interval, None);
    assert_eq!(forwarded.topic_alias, None);
    assert!(forwarded.subscription_identifiers.is_empty());

    let mut again = Vec::new();
    encode(&packet, ProtocolVersion::V5, &mut again).unwrap();
    assert_eq!(again.len(), bytes.len());
    assert_eq!(decode_whole(&again, ProtocolVersion::V5).unwrap(), packet);
}

#[test]
fn properties_that_are_not_well_formed_are_shown_as_none() {
    assert_eq!(PublishProperties::decode_forwarded(b"\xFF?"), PublishProperties::default());
    assert_eq!(UserProperties::NONE.iter().count(), 0);
}

/// Such properties never come from a packet, but a program may create them.
#[test]
fn properties_that_cannot_be_encoded_are_not_forwarded() {
    let long = "x".repeat(65_536);
    let properties = PublishProperties {
        payload_format_indicator: Some(true),
        content_type: Some(&long),
        ..PublishProperties::default()
    };
    let mut out = Vec::new();
    properties.encode_forwarded(&mut out);
    assert!(out.is_empty());
}
