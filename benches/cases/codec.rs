//! Cases that decode and encode each Control Packet, in MQTT 3.1.1 and 5.0 where both have it.
//!
//! Packets of MQTT 5.0 have the properties that clients and brokers commonly send. A PUBLISH is
//! encoded by `encode_publish`, as in a session.

use std::hint::black_box;

use hearthmq::mqtt::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect,
    ConnectProperties, DecodeLimits, Disconnect, DisconnectProperties, LastWill, Packet, PacketId,
    ProtocolVersion, Publication, PublishAs, PublishFlags, PublishProperties, QoS, ReasonCode,
    SubAck, Subscribe, SubscribeFilter, SubscribeProperties, SubscriptionOptions, UnsubAck,
    Unsubscribe, UserProperties, UserPropertiesBuf, WillProperties, decode, decode_connect, encode,
    encode_publish,
};

use crate::measure::Measure;

const TOPIC: &str = "fleet/4711/vehicle/0815/telemetry1";
const PAYLOAD_BYTES: [usize; 2] = [64, 1024];
const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V3_1_1, ProtocolVersion::V5];
const QOS: [QoS; 2] = [QoS::AtMostOnce, QoS::AtLeastOnce];
const FILTERS: [&str; 4] =
    ["fleet/4711/vehicle/0815/commands", "fleet/4711/+/0815/config", "fleet/4711/all/#", "news"];

/// Adds `decode/…` and `encode/…` of every packet.
pub(crate) fn cases(measure: &mut impl Measure) {
    let user_properties = user_properties();
    for version in VERSIONS {
        for (name, packet) in packets(version, user_properties) {
            decode_packet(measure, &format!("{name}/{version:?}"), version, &packet);
            encode_packet(measure, &format!("{name}/{version:?}"), version, packet);
        }
        for qos in QOS {
            for payload_bytes in PAYLOAD_BYTES {
                let name = format!("PUBLISH QoS {} of {payload_bytes} B", qos.number());
                publish(measure, &format!("{name}/{version:?}"), version, qos, payload_bytes);
            }
        }
    }
}

/// Returns properties that live until the end of the process, so that any packet may borrow them.
fn user_properties() -> UserProperties<'static> {
    let mut pairs = UserPropertiesBuf::new();
    let pushed = pairs.push("firmware", "4.17.2");
    debug_assert!(pushed.is_ok());
    Box::leak(Box::new(pairs)).as_user_properties()
}

fn decode_packet(
    measure: &mut impl Measure,
    name: &str,
    version: ProtocolVersion,
    packet: &Packet<'static>,
) {
    let is_connect = matches!(packet, Packet::Connect(_));
    measure.case(&format!("decode/{name}"), || {
        let bytes = encoded(packet, version);
        let limits = DecodeLimits::default();
        // Everything above is prepared once; only this closure is counted.
        move || {
            let bytes = black_box(&bytes);
            let decoded = if is_connect {
                decode_connect(bytes, &limits)
            } else {
                decode(bytes, black_box(version), &limits)
            };
            black_box(&decoded).is_ok()
        }
    });
}

fn encode_packet(
    measure: &mut impl Measure,
    name: &str,
    version: ProtocolVersion,
    packet: Packet<'static>,
) {
    measure.case(&format!("encode/{name}"), || {
        let mut out = Vec::with_capacity(2048);
        move || {
            out.clear();
            encode(black_box(&packet), black_box(version), black_box(&mut out)).is_ok()
        }
    });
}

fn encoded(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes).expect("the packets below are those of their version");
    bytes
}

fn publish(
    measure: &mut impl Measure,
    name: &str,
    version: ProtocolVersion,
    qos: QoS,
    payload_bytes: usize,
) {
    let payload = vec![b'x'; payload_bytes];
    measure.case(&format!("decode/{name}"), || {
        let mut bytes = Vec::new();
        encode_publish(&mut bytes, version, &publication(&payload), &publish_as(qos));
        let limits = DecodeLimits::default();
        move || {
            let decoded = decode(black_box(&bytes), black_box(version), &limits);
            black_box(&decoded).is_ok()
        }
    });
    measure.case(&format!("encode/{name}"), || {
        let (publication, how) = (publication(&payload), publish_as(qos));
        let mut out = Vec::with_capacity(2048);
        move || {
            // Keeps the capacity, as a connection that reuses its buffer does.
            out.clear();
            let (publication, how) = (black_box(&publication), black_box(&how));
            encode_publish(black_box(&mut out), black_box(version), publication, how);
        }
    });
}

const fn publication(payload: &[u8]) -> Publication<'_> {
    Publication {
        topic: TOPIC,
        payload,
        qos: QoS::AtMostOnce,
        retain: false,
        properties: &[],
        expires_at: None,
    }
}

fn publish_as(qos: QoS) -> PublishAs<'static> {
    PublishAs {
        flags: PublishFlags { qos, ..PublishFlags::default() },
        packet_id: if qos == QoS::AtMostOnce { None } else { Some(packet_id()) },
        ..PublishAs::default()
    }
}

fn packet_id() -> PacketId {
    PacketId::new(4711).expect("it is not zero")
}

/// Returns every packet but PUBLISH, with its name.
fn packets(
    version: ProtocolVersion,
    user_properties: UserProperties<'static>,
) -> Vec<(&'static str, Packet<'static>)> {
    let ack = || Ack::success(packet_id());
    let mut packets = vec![
        ("CONNECT", connect(version, UserProperties::NONE, false)),
        ("CONNECT with Will", connect(version, user_properties, true)),
        ("CONNACK", conn_ack(version)),
        ("PUBACK", Packet::PubAck(ack())),
        ("PUBREC", Packet::PubRec(ack())),
        ("PUBREL", Packet::PubRel(ack())),
        ("PUBCOMP", Packet::PubComp(ack())),
        ("SUBSCRIBE of 4 filters", subscribe(version)),
        ("SUBACK of 4 filters", sub_ack()),
        ("UNSUBSCRIBE of 4 filters", unsubscribe()),
        ("UNSUBACK of 4 filters", unsub_ack(version)),
        ("PINGREQ", Packet::PingReq),
        ("PINGRESP", Packet::PingResp),
        ("DISCONNECT", disconnect(ReasonCode::Success, None)),
    ];
    if version.has_properties() {
        let reason = ReasonCode::QuotaExceeded;
        let properties = AckProperties {
            reason_string: Some("the limit on messages is reached"),
            user_properties,
        };
        let refused = Ack { packet_id: packet_id(), reason, properties };
        packets.push(("PUBACK with Reason String", Packet::PubAck(refused)));
        let over = disconnect(ReasonCode::ServerShuttingDown, Some("the server is shutting down"));
        packets.push(("DISCONNECT with Reason String", over));
        packets.push(("AUTH", auth()));
    }
    packets
}

fn connect(
    version: ProtocolVersion,
    user_properties: UserProperties<'static>,
    has_will: bool,
) -> Packet<'static> {
    let has_properties = version.has_properties();
    let properties = ConnectProperties {
        session_expiry_interval: Some(3600),
        receive_maximum: Some(100),
        topic_alias_maximum: Some(16),
        user_properties,
        ..ConnectProperties::default()
    };
    let will_properties = WillProperties {
        will_delay_interval: Some(30),
        publish: PublishProperties {
            message_expiry_interval: Some(600),
            content_type: Some("application/json"),
            ..PublishProperties::default()
        },
    };
    let will = LastWill {
        topic: "fleet/4711/vehicle/0815/status",
        payload: br#"{"online":false}"#,
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: if has_properties { will_properties } else { WillProperties::default() },
    };
    Packet::Connect(Box::new(Connect {
        version,
        is_bridge: false,
        clean_start: false,
        keep_alive: 60,
        client_id: "fleet-4711-vehicle-0815",
        will: has_will.then_some(will),
        username: Some("fleet-4711"),
        password: Some(b"correct horse battery staple"),
        properties: if has_properties { properties } else { ConnectProperties::default() },
    }))
}

fn conn_ack(version: ProtocolVersion) -> Packet<'static> {
    let properties = ConnAckProperties {
        receive_maximum: Some(1000),
        maximum_packet_size: Some(1_048_576),
        topic_alias_maximum: Some(32),
        server_keep_alive: Some(60),
        ..ConnAckProperties::default()
    };
    Packet::ConnAck(Box::new(ConnAck {
        session_present: true,
        reason: ReasonCode::Success,
        properties: if version.has_properties() { properties } else { Default::default() },
    }))
}

fn subscribe(version: ProtocolVersion) -> Packet<'static> {
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
    let subscription_identifier = version.has_properties().then_some(17);
    Packet::Subscribe(Subscribe {
        packet_id: packet_id(),
        properties: SubscribeProperties { subscription_identifier, ..Default::default() },
        filters: FILTERS.map(|filter| SubscribeFilter { filter, options }).into(),
    })
}

fn sub_ack() -> Packet<'static> {
    Packet::SubAck(SubAck {
        packet_id: packet_id(),
        properties: AckProperties::NONE,
        reasons: vec![ReasonCode::GrantedQoS1; FILTERS.len()],
    })
}

fn unsubscribe() -> Packet<'static> {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: packet_id(),
        user_properties: UserProperties::NONE,
        filters: FILTERS.into(),
    })
}

fn unsub_ack(version: ProtocolVersion) -> Packet<'static> {
    let reasons = if version.has_properties() { FILTERS.len() } else { 0 };
    Packet::UnsubAck(UnsubAck {
        packet_id: packet_id(),
        properties: AckProperties::NONE,
        reasons: vec![ReasonCode::Success; reasons],
    })
}

fn disconnect(reason: ReasonCode, reason_string: Option<&'static str>) -> Packet<'static> {
    let properties = DisconnectProperties { reason_string, ..DisconnectProperties::default() };
    Packet::Disconnect(Disconnect { reason, properties })
}

fn auth() -> Packet<'static> {
    let properties = AuthProperties {
        authentication_method: Some("SCRAM-SHA-256"),
        authentication_data: Some(
            b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        ),
        ..AuthProperties::default()
    };
    Packet::Auth(Auth { reason: ReasonCode::ContinueAuthentication, properties })
}
