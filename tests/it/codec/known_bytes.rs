//! Packets as printed in the specifications: these bytes decode to these packets, and the reverse.

use hearthmq::mqtt::*;

use super::{decode_whole, packet_id};
use ProtocolVersion::{V3_1, V3_1_1, V5};

/// Asserts both directions.
#[track_caller]
fn is(version: ProtocolVersion, bytes: &[u8], packet: Packet<'_>) {
    assert_eq!(decode_whole(bytes, version).unwrap(), packet);
    let mut encoded = Vec::new();
    encode(&packet, version, &mut encoded).unwrap();
    assert_eq!(encoded, bytes, "{packet:?}");
}

/// Asserts that the packet encodes to bytes that say less: the version cannot express all of it.
#[track_caller]
fn is_sent_as(version: ProtocolVersion, packet: Packet<'_>, bytes: &[u8]) {
    let mut encoded = Vec::new();
    encode(&packet, version, &mut encoded).unwrap();
    assert_eq!(encoded, bytes, "{packet:?}");
    assert!(decode_whole(bytes, version).is_ok());
}

fn connect(version: ProtocolVersion) -> Connect<'static> {
    Connect {
        version,
        is_bridge: false,
        clean_start: true,
        keep_alive: 10,
        client_id: "c",
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

#[test]
fn connect_of_each_version() {
    is(
        V3_1,
        b"\x10\x0F\0\x06MQIsdp\x03\x02\0\x0A\0\x01c",
        Packet::Connect(Box::new(connect(V3_1))),
    );
    is(
        V3_1_1,
        b"\x10\x0D\0\x04MQTT\x04\x02\0\x0A\0\x01c",
        Packet::Connect(Box::new(connect(V3_1_1))),
    );
    is(V5, b"\x10\x0E\0\x04MQTT\x05\x02\0\x0A\0\0\x01c", Packet::Connect(Box::new(connect(V5))));
}

/// Figures 3-6 and 3-8: everything a CONNECT may hold, the example of section 3.1.2.11 included.
#[test]
fn connect_with_everything() {
    let bytes = b"\x10\x28\0\x04MQTT\x05\xF6\0\x0A\x05\x11\0\0\0\x0A\0\x01c\
        \x05\x18\0\0\0\x3C\0\x01w\0\x03bye\0\x01u\0\x02\0\xFF";
    let properties =
        ConnectProperties { session_expiry_interval: Some(10), ..ConnectProperties::default() };
    let will = LastWill {
        topic: "w",
        payload: b"bye",
        qos: QoS::ExactlyOnce,
        retain: true,
        properties: WillProperties { will_delay_interval: Some(60), ..WillProperties::default() },
    };
    let connect = Connect {
        will: Some(will),
        username: Some("u"),
        password: Some(b"\0\xFF"),
        properties,
        ..connect(V5)
    };
    is(V5, bytes, Packet::Connect(Box::new(connect)));
}

/// MQTT 3.1, section 3.1: "the Remaining Length field takes precedence over the User Name flag".
#[test]
fn connect_of_3_1_may_announce_a_user_name_and_leave_it_out() {
    let bytes = b"\x10\x0F\0\x06MQIsdp\x03\xC2\0\x0A\0\x01c";
    let decoded = decode_whole(bytes, V3_1).unwrap();
    assert_eq!(decoded, Packet::Connect(Box::new(connect(V3_1))));
}

/// Mosquitto's bridges add 0x80 to the protocol level. MQTT 5.0 has no such bit.
#[test]
fn connect_of_a_bridge() {
    let bridge = |version| {
        let connect = Connect { is_bridge: true, ..connect(version) };
        Packet::Connect(Box::new(connect))
    };
    is(V3_1, b"\x10\x0F\0\x06MQIsdp\x83\x02\0\x0A\0\x01c", bridge(V3_1));
    is(V3_1_1, b"\x10\x0D\0\x04MQTT\x84\x02\0\x0A\0\x01c", bridge(V3_1_1));
    let unsayable = encode(&bridge(V5), V5, &mut Vec::new());
    assert_eq!(unsayable, Err(EncodeError::NotInThisVersion));
}

/// MQTT 3.1 does not use DUP, QoS and RETAIN of the first byte; later versions reserve them.
#[test]
fn the_flags_of_connect_are_judged_by_its_version() {
    let limits = DecodeLimits::default();
    for flags in 1..16 {
        for (bytes, level_at) in [
            (&b"\x10\x0F\0\x06MQIsdp\x03\x02\0\x0A\0\x01c"[..], 10),
            (b"\x10\x0D\0\x04MQTT\x04\x02\0\x0A\0\x01c", 8),
        ] {
            let mut bytes = bytes.to_vec();
            let plain = decode_connect(&bytes, &limits).map(|decoded| format!("{decoded:?}"));
            bytes[0] |= flags;
            let is_v3_1 = bytes[level_at] == 3;
            let kind = DecodeErrorKind::FixedHeaderFlags;
            let decoded = decode_connect(&bytes, &limits);
            let decoded = decoded.map(|d| format!("{d:?}")).map_err(|error| error.kind);
            assert_eq!(decoded.clone().ok(), plain.ok().filter(|_| is_v3_1));
            assert_eq!(decoded.err(), (!is_v3_1).then_some(kind));
            // An incomplete packet of MQTT 3.1 is judged as it is without the flags.
            for n in 1..bytes.len() {
                let begun = decode_connect(&bytes[..n], &limits);
                let may_be_v3_1 = is_v3_1 || n < 4;
                assert_eq!(begun.is_ok(), may_be_v3_1, "{:02x?}", &bytes[..n]);
            }
        }
    }
}

#[test]
fn connack_of_each_version() {
    let connack = |session_present, reason| {
        let properties = ConnAckProperties::default();
        Packet::ConnAck(Box::new(ConnAck { session_present, reason, properties }))
    };
    is(V3_1, b"\x20\x02\0\0", connack(false, ReasonCode::Success));
    is_sent_as(V3_1, connack(true, ReasonCode::Success), b"\x20\x02\0\0");
    is(V3_1_1, b"\x20\x02\x01\0", connack(true, ReasonCode::Success));
    is(V3_1_1, b"\x20\x02\0\x01", connack(false, ReasonCode::UnsupportedProtocolVersion));
    is(V3_1_1, b"\x20\x02\0\x02", connack(false, ReasonCode::ClientIdentifierNotValid));
    is(V3_1_1, b"\x20\x02\0\x03", connack(false, ReasonCode::ServerUnavailable));
    is(V3_1_1, b"\x20\x02\0\x04", connack(false, ReasonCode::BadUserNameOrPassword));
    is(V3_1_1, b"\x20\x02\0\x05", connack(false, ReasonCode::NotAuthorized));
    is_sent_as(V3_1_1, connack(false, ReasonCode::QuotaExceeded), b"\x20\x02\0\x03");
    is(V5, b"\x20\x03\x01\0\0", connack(true, ReasonCode::Success));
    is(V5, b"\x20\x03\0\x84\0", connack(false, ReasonCode::UnsupportedProtocolVersion));
}

#[test]
fn connack_properties() {
    let properties = ConnAckProperties {
        receive_maximum: Some(20),
        assigned_client_identifier: Some("id"),
        server_keep_alive: Some(30),
        shared_subscription_available: Some(false),
        ..ConnAckProperties::default()
    };
    let connack = ConnAck { session_present: false, reason: ReasonCode::Success, properties };
    let bytes = b"\x20\x10\0\0\x0D\x21\0\x14\x12\0\x02id\x2A\0\x13\0\x1E";
    is(V5, bytes, Packet::ConnAck(Box::new(connack)));
}

#[test]
fn publish_of_each_version() {
    let publish = |flags, packet_id| {
        let properties = PublishProperties::default();
        Packet::Publish(Publish { flags, topic: "a/b", packet_id, properties, payload: b"hi" })
    };
    let flags = PublishFlags { dup: false, qos: QoS::AtMostOnce, retain: true };
    is(V3_1_1, b"\x31\x07\0\x03a/bhi", publish(flags, None));
    is(V5, b"\x31\x08\0\x03a/b\0hi", publish(flags, None));
    let flags = PublishFlags { dup: true, qos: QoS::AtLeastOnce, retain: false };
    is(V3_1, b"\x3A\x09\0\x03a/b\0\x0Ahi", publish(flags, Some(packet_id(10))));
    let flags = PublishFlags { dup: false, qos: QoS::ExactlyOnce, retain: false };
    is(V5, b"\x34\x0A\0\x03a/b\xFF\xFF\0hi", publish(flags, Some(packet_id(0xFFFF))));
}

#[test]
fn publish_with_an_alias_in_place_of_its_topic() {
    let properties = PublishProperties { topic_alias: Some(7), ..PublishProperties::default() };
    let flags = PublishFlags::default();
    let publish = Publish { flags, topic: "", packet_id: None, properties, payload: b"" };
    is(V5, b"\x30\x06\0\0\x03\x23\0\x07", Packet::Publish(publish));
}

#[test]
fn a_payload_of_16_384_bytes_takes_three_bytes_of_remaining_length() {
    let payload = vec![0x5A; 16_384];
    let bytes = [&b"\x30\x83\x80\x01\0\x01t"[..], &payload].concat();
    let publish = Publish {
        flags: PublishFlags::default(),
        topic: "t",
        packet_id: None,
        properties: PublishProperties::default(),
        payload: &payload,
    };
    is(V3_1_1, &bytes, Packet::Publish(publish));
}

#[test]
fn acknowledgements_are_as_short_as_they_may_be() {
    let success = Ack::success(packet_id(258));
    for version in super::VERSIONS {
        is(version, b"\x40\x02\x01\x02", Packet::PubAck(success.clone()));
        is(version, b"\x50\x02\x01\x02", Packet::PubRec(success.clone()));
        is(version, b"\x62\x02\x01\x02", Packet::PubRel(success.clone()));
        is(version, b"\x70\x02\x01\x02", Packet::PubComp(success.clone()));
    }
    let refused = Ack::with_reason(packet_id(1), ReasonCode::NotAuthorized);
    is(V5, b"\x40\x03\0\x01\x87", Packet::PubAck(refused.clone()));
    is_sent_as(V3_1_1, Packet::PubAck(refused.clone()), b"\x40\x02\0\x01");
    let properties = AckProperties { reason_string: Some("no"), ..AckProperties::NONE };
    is(V5, b"\x50\x09\0\x01\x87\x05\x1F\0\x02no", Packet::PubRec(Ack { properties, ..refused }));
    // The long form of success is also valid.
    assert_eq!(decode_whole(b"\x40\x04\x01\x02\0\0", V5).unwrap(), Packet::PubAck(success.clone()));
    assert_eq!(decode_whole(b"\x40\x03\x01\x02\0", V5).unwrap(), Packet::PubAck(success));
}

#[test]
fn subscribe_of_each_version() {
    let subscribe = |options, properties| {
        let filters = vec![SubscribeFilter { filter: "a/+", options }];
        Packet::Subscribe(Subscribe { packet_id: packet_id(1), properties, filters })
    };
    let qos_1 = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
    let none = SubscribeProperties::default();
    is(V3_1_1, b"\x82\x08\0\x01\0\x03a/+\x01", subscribe(qos_1, none.clone()));
    is(V5, b"\x82\x09\0\x01\0\0\x03a/+\x01", subscribe(qos_1, none));
    let options = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let properties = SubscribeProperties {
        subscription_identifier: Some(268_435_455),
        ..SubscribeProperties::default()
    };
    let bytes = b"\x82\x0E\0\x01\x05\x0B\xFF\xFF\xFF\x7F\0\x03a/+\x2E";
    is(V5, bytes, subscribe(options, properties));
}

/// A repeated SUBSCRIBE has the DUP flag there, section 3.8 of MQTT 3.1.
#[test]
fn subscribe_of_3_1_may_be_a_repetition() {
    assert!(decode_whole(b"\x8A\x08\0\x01\0\x03a/+\x01", V3_1).is_ok());
    assert!(decode_whole(b"\x6A\x02\0\x01", V3_1).is_ok());
    assert!(decode_whole(b"\x38\x05\0\x03a/b", V3_1).is_ok());
    assert!(decode_whole(b"\x8A\x08\0\x01\0\x03a/+\x01", V3_1_1).is_err());
}

#[test]
fn suback_of_each_version() {
    let suback = |reasons: &[ReasonCode]| {
        let (packet_id, properties) = (packet_id(1), AckProperties::NONE);
        Packet::SubAck(SubAck { packet_id, properties, reasons: reasons.to_vec() })
    };
    let granted = [ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2];
    is(V3_1, b"\x90\x05\0\x01\0\x01\x02", suback(&granted));
    is(V3_1_1, b"\x90\x05\0\x01\0\x01\x02", suback(&granted));
    is(V5, b"\x90\x06\0\x01\0\0\x01\x02", suback(&granted));
    let refused = [ReasonCode::NotAuthorized];
    is_sent_as(V3_1, suback(&refused), b"\x90\x03\0\x01\0");
    is_sent_as(V3_1_1, suback(&refused), b"\x90\x03\0\x01\x80");
    is(V5, b"\x90\x04\0\x01\0\x87", suback(&refused));
}

#[test]
fn unsubscribe_and_unsuback_of_each_version() {
    let (packet_id, user_properties) = (packet_id(3), UserProperties::NONE);
    let filters = vec!["a", "b/#"];
    let unsubscribe = Packet::Unsubscribe(Unsubscribe { packet_id, user_properties, filters });
    is(V3_1_1, b"\xA2\x0A\0\x03\0\x01a\0\x03b/#", unsubscribe.clone());
    is(V5, b"\xA2\x0B\0\x03\0\0\x01a\0\x03b/#", unsubscribe);
    let unsuback = |reasons| {
        Packet::UnsubAck(UnsubAck { packet_id, properties: AckProperties::NONE, reasons })
    };
    is(V3_1_1, b"\xB0\x02\0\x03", unsuback(vec![]));
    let reasons = vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    is(V5, b"\xB0\x05\0\x03\0\0\x11", unsuback(reasons));
}

#[test]
fn pings_are_two_bytes() {
    for version in super::VERSIONS {
        is(version, b"\xC0\0", Packet::PingReq);
        is(version, b"\xD0\0", Packet::PingResp);
    }
}

#[test]
fn disconnect_of_each_version() {
    let disconnect = |reason, properties| Packet::Disconnect(Disconnect { reason, properties });
    let none = DisconnectProperties::default();
    for version in super::VERSIONS {
        is(version, b"\xE0\0", disconnect(ReasonCode::Success, none.clone()));
    }
    is(V5, b"\xE0\x01\x8E", disconnect(ReasonCode::SessionTakenOver, none.clone()));
    is_sent_as(V3_1_1, disconnect(ReasonCode::SessionTakenOver, none), b"\xE0\0");
    let properties = DisconnectProperties {
        session_expiry_interval: Some(0),
        ..DisconnectProperties::default()
    };
    is(V5, b"\xE0\x07\0\x05\x11\0\0\0\0", disconnect(ReasonCode::Success, properties));
}

#[test]
fn auth_with_a_method_and_without_anything() {
    let none = AuthProperties::default();
    is(V5, b"\xF0\0", Packet::Auth(Auth { reason: ReasonCode::Success, properties: none }));
    let properties = AuthProperties {
        authentication_method: Some("m"),
        authentication_data: Some(b"\x01"),
        ..AuthProperties::default()
    };
    let auth = Auth { reason: ReasonCode::ContinueAuthentication, properties };
    is(V5, b"\xF0\x0A\x18\x08\x15\0\x01m\x16\0\x01\x01", Packet::Auth(auth));
}

#[test]
fn what_is_shown_of_a_packet_holds_no_secret() {
    let connect = Connect {
        username: Some("alice"),
        password: Some(b"hunter2"),
        properties: ConnectProperties {
            authentication_method: Some("PLAIN"),
            authentication_data: Some(b"hunter2"),
            ..ConnectProperties::default()
        },
        ..connect(V5)
    };
    let shown = format!("{:?}", Packet::Connect(Box::new(connect)));
    assert!(shown.contains("alice") && shown.contains("password: Some(<7 bytes>)"), "{shown}");
    assert!(!shown.contains(&format!("{:?}", b"hunter2")), "{shown}");

    let publish = decode_whole(b"\x30\x05\0\x01tab", V3_1_1).unwrap();
    assert!(format!("{publish:?}").ends_with("payload: <2 bytes> })"), "{publish:?}");
}
