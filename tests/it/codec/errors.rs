//! Each rule that a single packet can break, broken once.

use hearthmq::mqtt::{
    DecodeErrorKind as Kind, DecodeLimits, Decoded, EncodeError, Packet, ProtocolVersion, Publish,
    PublishFlags, PublishProperties, QoS, ReasonCode, UserPropertiesBuf, decode, decode_connect,
    encode, refusal_version,
};

use super::{VERSIONS, decode_whole, packet_id};
use ProtocolVersion::{V3_1, V3_1_1, V5};

/// The error, and the clause that defines it.
pub(crate) type Rule = (Kind, &'static str);

pub(crate) const TRUNCATED: Rule = (Kind::Truncated, "MQTT-4.13.1-1");
pub(crate) const TRAILING_BYTES: Rule = (Kind::TrailingBytes, "MQTT-4.13.1-1");
const NOT_MINIMAL: Rule = (Kind::VariableByteInteger, "MQTT-1.5.5-1");
const NOT_UTF8: Rule = (Kind::InvalidUtf8, "MQTT-1.5.4-1");
const NULL_CHARACTER: Rule = (Kind::NullCharacter, "MQTT-1.5.4-2");
const TOPIC_EMPTY: Rule = (Kind::TopicNameEmpty, "MQTT-4.7.3-1");
const TOPIC_WILDCARD: Rule = (Kind::TopicNameWildcard, "MQTT-3.3.2-2");
const RESPONSE_TOPIC: Rule = (Kind::ResponseTopic, "MQTT-3.3.2-14");
const PACKET_ID_ZERO: Rule = (Kind::PacketIdZero, "MQTT-2.2.1-3");

/// Returns a packet with this first byte and body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    [&[first, body.len() as u8], body].concat()
}

/// Asserts that decoding the packet reports this rule.
#[track_caller]
pub(crate) fn breaks(version: ProtocolVersion, bytes: &[u8], rule: Rule) {
    let error = decode(bytes, version, &DecodeLimits::default()).unwrap_err();
    assert_eq!((error.kind, error.clause), rule, "{bytes:02x?}");
}

pub(crate) const fn not_allowed(identifier: u8) -> Rule {
    (Kind::PropertyNotAllowed { identifier }, "section 2.2.2.2")
}

pub(crate) const fn twice(identifier: u8, section: &'static str) -> Rule {
    (Kind::DuplicateProperty { identifier }, section)
}

pub(crate) const fn out_of_range(identifier: u8, section: &'static str) -> Rule {
    (Kind::PropertyValue { identifier }, section)
}

pub(crate) const fn reason(number: u8, clause: &'static str) -> Rule {
    (Kind::ReasonCode { number }, clause)
}

#[test]
fn fixed_header() {
    for version in VERSIONS {
        breaks(version, b"\x00", (Kind::ReservedPacketType, "section 2.1.2"));
        let kind = Kind::VariableByteInteger;
        breaks(version, b"\x30\xFF\xFF\xFF\xFF", (kind, "section 2.1.4"));
        breaks(version, b"\x36", (Kind::InvalidQoS, "MQTT-3.3.1-4"));
    }
    breaks(V3_1_1, b"\xF0", (Kind::ReservedPacketType, "section 2.1.2"));
    for version in [V3_1_1, V5] {
        breaks(version, b"\x38", (Kind::DupWithoutQoS, "MQTT-3.3.1-2"));
        for first in *b"\x11\x28\x41\x52\x60\x73\x80\x8A\x91\xA0\xB1\xC1\xD8\xE2" {
            breaks(version, &[first], (Kind::FixedHeaderFlags, "MQTT-2.1.3-1"));
        }
    }
    // MQTT 3.1.1 does not require the shortest form.
    breaks(V5, b"\xC0\x80\0", NOT_MINIMAL);
    assert_eq!(decode_whole(b"\xC0\x80\0", V3_1_1).unwrap(), Packet::PingReq);
    breaks(V3_1_1, b"\xC0\x01\0", TRAILING_BYTES);
    breaks(V5, b"\xD0\x01\0", TRAILING_BYTES);
}

#[test]
fn a_packet_that_is_too_large_is_refused_before_it_arrives() {
    let limits = DecodeLimits { packet_bytes_max: 130, ..DecodeLimits::default() };
    let decoded = decode(b"\x30\x7F", V5, &limits);
    assert_eq!(decoded, Ok(Decoded::More { at_least: 129 }));
    let error = decode(b"\x30\x80\x01", V5, &limits).unwrap_err();
    assert_eq!((error.kind, error.clause), (Kind::PacketTooLarge, "MQTT-3.2.2-15"));
    assert_eq!(error.reason(), ReasonCode::PacketTooLarge);
}

#[test]
fn strings() {
    for version in [V3_1, V3_1_1] {
        breaks(version, &packet(0x30, b"\0\x01\xFF"), NOT_UTF8);
        // U+D800, a surrogate.
        breaks(version, &packet(0x30, b"\0\x03\xED\xA0\x80"), NOT_UTF8);
        // "/" in two bytes.
        breaks(version, &packet(0x30, b"\0\x02\xC0\xAF"), NOT_UTF8);
        breaks(version, &packet(0x30, b"\0\x03a\0b"), NULL_CHARACTER);
        breaks(version, &packet(0x30, b"\0\x04abc"), TRUNCATED);
    }
    let body = b"\0\x01t\x07\x26\0\x01a\0\x01\0";
    breaks(V5, &packet(0x30, body), NULL_CHARACTER);
    let body = b"\0\x01t\x07\x26\0\x01\xFF\0\x01b";
    breaks(V5, &packet(0x30, body), NOT_UTF8);
}

#[test]
fn property_blocks() {
    let publish = |properties: &[u8]| packet(0x30, &[b"\0\x01t", properties].concat());
    breaks(V5, &publish(b"\x80\0"), NOT_MINIMAL);
    breaks(V5, &publish(b"\xFF\xFF\xFF\xFF\x01"), (Kind::VariableByteInteger, "section 1.5.5"));
    breaks(V5, &publish(b"\x05\x01\0"), TRUNCATED);
    breaks(V5, &publish(b"\x02\x23\0\0"), TRUNCATED);
    breaks(V5, &publish(b"\x02\x7F\0"), not_allowed(0x7F));
    breaks(V5, &publish(b"\x02\x80\0"), not_allowed(0x80));
    breaks(V5, &publish(b"\x03\x21\0\x01"), not_allowed(0x21));
    breaks(V5, &publish(b"\x06\x23\0\x01\x23\0\x01"), twice(0x23, "section 3.3.2.3"));
    breaks(V5, &publish(b"\x04\x01\0\x01\0"), twice(0x01, "section 3.3.2.3"));
    breaks(V5, &publish(b"\x02\x01\x02"), out_of_range(0x01, "section 3.3.2.3"));
    breaks(V5, &publish(b"\x02\x0B\0"), out_of_range(0x0B, "section 3.3.2.3"));
    breaks(V5, &publish(b"\x03\x0B\x81\0"), NOT_MINIMAL);
    breaks(V5, &publish(b"\x03\x23\0\0"), (Kind::TopicAliasZero, "MQTT-3.3.2-8"));
    breaks(V5, &publish(b"\x04\x08\0\x01#"), RESPONSE_TOPIC);
    breaks(V5, &publish(b"\x03\x08\0\0"), RESPONSE_TOPIC);
}

#[test]
fn topic_names() {
    for version in [V3_1, V3_1_1] {
        breaks(version, &packet(0x30, b"\0\0"), TOPIC_EMPTY);
        breaks(version, &packet(0x30, b"\0\x03a/+"), TOPIC_WILDCARD);
    }
    breaks(V5, &packet(0x30, b"\0\0\0"), TOPIC_EMPTY);
    breaks(V5, &packet(0x30, b"\0\x01#\0"), TOPIC_WILDCARD);
}

#[test]
fn topics_are_limited_in_length_and_depth() {
    let limits =
        DecodeLimits { topic_bytes_max: 8, topic_levels_max: 3, ..DecodeLimits::default() };
    for (topic, is_allowed) in
        [("12345678", true), ("123456789", false), ("a/b/c", true), ("a/b/c/", false)]
    {
        let length = [0, topic.len() as u8];
        let publish = packet(0x30, &[&length, topic.as_bytes()].concat());
        let subscribe = packet(0x82, &[b"\0\x01", &length[..], topic.as_bytes(), b"\0"].concat());
        let unsubscribe = packet(0xA2, &[b"\0\x01", &length[..], topic.as_bytes()].concat());
        let kinds = [publish, subscribe, unsubscribe]
            .map(|bytes| decode(&bytes, V3_1_1, &limits).map(|_| ()).map_err(|error| error.kind));
        if is_allowed {
            assert_eq!(kinds, [Ok(()); 3], "{topic}");
        } else {
            let filter = Err(Kind::TopicFilterLimit);
            assert_eq!(kinds, [Err(Kind::TopicNameLimit), filter, filter], "{topic}");
        }
    }
    assert_eq!(Kind::TopicNameLimit.reason(), ReasonCode::TopicNameInvalid);
    assert_eq!(Kind::TopicFilterLimit.reason(), ReasonCode::TopicFilterInvalid);
}

#[test]
fn packet_identifiers_are_not_zero() {
    for version in VERSIONS {
        breaks(version, &packet(0x32, b"\0\x01t\0\0\0"), PACKET_ID_ZERO);
        for first in *b"\x40\x50\x62\x70\x82\x90\xA2\xB0" {
            breaks(version, &packet(first, b"\0\0\0"), PACKET_ID_ZERO);
        }
    }
}

/// Returns a CONNECT of 3.1.1 or 5.0 with these flags and payload.
fn connect(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    packet(0x10, &[b"\0\x04MQTT", &[level, flags, 0, 10][..], rest].concat())
}

#[test]
fn connect_packets() {
    for (level, no_properties) in [(4, &b""[..]), (5, b"\0")] {
        let rest = &[no_properties, b"\0\x01c"].concat();
        let version = V5; // a CONNECT names its own version
        let wrong = |flags, rule| breaks(version, &connect(level, flags, rest), rule);
        wrong(0x03, (Kind::ConnectFlags, "MQTT-3.1.2-3"));
        wrong(0x0A, (Kind::ConnectFlags, "MQTT-3.1.2-11"));
        wrong(0x22, (Kind::ConnectFlags, "MQTT-3.1.2-13"));
        wrong(0x1E, (Kind::InvalidQoS, "MQTT-3.1.2-12"));
        wrong(0x82, TRUNCATED);
        let rest = &[rest, &b"x"[..]].concat();
        breaks(V5, &connect(level, 2, rest), TRAILING_BYTES);
        let will =
            |topic: &[u8]| [no_properties, b"\0\x01c", no_properties, topic, b"\0\0"].concat();
        let empty = connect(level, 0x06, &will(b"\0\0"));
        breaks(V5, &empty, TOPIC_EMPTY);
        let wildcard = connect(level, 0x06, &will(b"\0\x01+"));
        breaks(V5, &wildcard, TOPIC_WILDCARD);
    }
    let password = connect(4, 0x42, b"\0\x01c\0\x01p");
    breaks(V3_1_1, &password, (Kind::PasswordWithoutUserName, "3.1.1 MQTT-3.1.2-22"));
    assert!(decode_whole(&connect(5, 0x42, b"\0\0\x01c\0\x01p"), V5).is_ok());
}

#[test]
fn connect_properties() {
    let wrong = |properties: &[u8], rule| {
        let rest = [&[properties.len() as u8], properties, b"\0\x01c"].concat();
        breaks(V5, &connect(5, 2, &rest), rule);
    };
    wrong(b"\x21\0\0", out_of_range(0x21, "section 3.1.2.11"));
    wrong(b"\x27\0\0\0\0", out_of_range(0x27, "section 3.1.2.11"));
    wrong(b"\x19\x02", out_of_range(0x19, "section 3.1.2.11"));
    wrong(b"\x17\x02", out_of_range(0x17, "section 3.1.2.11"));
    wrong(b"\x11\0\0\0\0\x11\0\0\0\0", twice(0x11, "section 3.1.2.11"));
    wrong(b"\x15\0\0\x15\0\0", twice(0x15, "section 3.1.2.11"));
    wrong(b"\x16\0\0", (Kind::AuthenticationMethodMissing, "section 3.1.2.11.10"));
    wrong(b"\x23\0\x01", not_allowed(0x23));
    // Will Properties have neither a Topic Alias nor a Subscription Identifier.
    for property in [&b"\x23\0\x01"[..], b"\x0B\x01"] {
        let rest = [b"\0\0\x01c", &[property.len() as u8][..], property, b"\0\x01w\0\0"].concat();
        breaks(V5, &connect(5, 6, &rest), not_allowed(property[0]));
    }
}

/// [MQTT-3.1.2-1] [MQTT-3.1.2-2]: the error has the requested version, and the form of the refusal.
#[test]
fn unknown_protocol_versions_can_be_answered() {
    for (name, level, clause, answer) in [
        (&b"MQTT"[..], 3, "MQTT-3.1.2-2", Some(V3_1_1)),
        (b"MQTT", 6, "MQTT-3.1.2-2", Some(V5)),
        (b"MQTT", 0x85, "MQTT-3.1.2-2", Some(V3_1_1)),
        (b"MQIsdp", 4, "MQTT-3.1.2-1", Some(V3_1_1)),
        (b"AMQP", 4, "MQTT-3.1.2-1", None),
    ] {
        let name_length = [0, name.len() as u8];
        let bytes = packet(0x10, &[&name_length, name, &[level, 2, 0, 0, 0, 0]].concat());
        let error = decode_connect(&bytes, &DecodeLimits::default()).unwrap_err();
        assert_eq!(error.kind, Kind::UnsupportedProtocolVersion { level });
        assert_eq!(error.clause, clause);
        assert_eq!(error.reason(), ReasonCode::UnsupportedProtocolVersion);
        assert_eq!(refusal_version(&bytes), answer);
    }
    assert_eq!(refusal_version(&connect(5, 3, b"")), Some(V5));
}

#[test]
fn the_first_packet_is_connect() {
    let limits = DecodeLimits::default();
    assert_eq!(decode_connect(b"", &limits), Ok(Decoded::More { at_least: 2 }));
    let error = decode_connect(b"G", &limits).unwrap_err();
    assert_eq!((error.kind, error.clause), (Kind::NotConnect, "MQTT-3.1.0-1"));
}

#[test]
fn an_error_reads_well_in_a_log() {
    let error = decode_whole(b"\x40\x04\0\x01\x93\0", V5).unwrap_err();
    let text = "reason code 0x93 is not allowed in this packet (MQTT-3.4.2-1)";
    assert_eq!(error.to_string(), text);
}

#[test]
fn what_cannot_be_said_is_not_encoded() {
    let publish = Publish {
        flags: PublishFlags::default(),
        topic: "t",
        packet_id: None,
        properties: PublishProperties::default(),
        payload: b"",
    };
    let at_least_once = PublishFlags { qos: QoS::AtLeastOnce, ..PublishFlags::default() };
    let identifiers =
        PublishProperties { subscription_identifiers: vec![1 << 28], ..Default::default() };
    let long = "x".repeat(65_536);
    let large = vec![0; 268_435_455];
    for (publish, error) in [
        (
            Publish { packet_id: Some(packet_id(1)), ..publish.clone() },
            EncodeError::PacketIdMismatch,
        ),
        (Publish { flags: at_least_once, ..publish.clone() }, EncodeError::PacketIdMismatch),
        (Publish { topic: "a\0", ..publish.clone() }, EncodeError::NullCharacter),
        (Publish { topic: &long, ..publish.clone() }, EncodeError::StringTooLong),
        (Publish { payload: &large, ..publish.clone() }, EncodeError::PacketTooLarge),
        (Publish { properties: identifiers, ..publish }, EncodeError::IntegerTooLarge),
    ] {
        let mut out = Vec::new();
        assert_eq!(encode(&Packet::Publish(publish), V5, &mut out), Err(error));
        assert!(out.is_empty());
    }
}

#[test]
fn user_properties_that_cannot_be_said_are_not_added() {
    let long = "x".repeat(65_536);
    let mut pairs = UserPropertiesBuf::new();
    assert_eq!(pairs.push("a", "\0"), Err(EncodeError::NullCharacter));
    assert_eq!(pairs.push(&long, ""), Err(EncodeError::StringTooLong));
    assert!(pairs.as_user_properties().is_empty());
}

#[test]
fn auth_is_unknown_before_5_0() {
    let auth = decode_whole(b"\xF0\0", V5).unwrap();
    assert_eq!(encode(&auth, V3_1_1, &mut Vec::new()), Err(EncodeError::NotInThisVersion));
}
