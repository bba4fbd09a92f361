//! Short functions for packets.

use hearthmq::mqtt::{
    Ack, AckProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties, DecodeError,
    DecodeLimits, Decoded, Disconnect, DisconnectProperties, LastWill, Packet, PacketId,
    ProtocolVersion, Publish, PublishFlags, PublishProperties, QoS, ReasonCode, RetainHandling,
    SubAck, Subscribe, SubscribeFilter, SubscribeProperties, SubscriptionOptions, UnsubAck,
    Unsubscribe, UserProperties, WillProperties, decode, encode,
};

pub use hearthmq::mqtt::ProtocolVersion::{V3_1, V3_1_1, V5};

/// The two versions that most dialogues use.
pub const VERSIONS: [ProtocolVersion; 2] = [V3_1_1, V5];

pub const QOS_0: QoS = QoS::AtMostOnce;
pub const QOS_1: QoS = QoS::AtLeastOnce;
pub const QOS_2: QoS = QoS::ExactlyOnce;

/// Returns the bytes of a packet.
pub fn encoded(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes).unwrap();
    bytes
}

/// Inspects the first packet of what a client has received, with its length, and removes it.
/// Returns `None` if it is not complete.
pub fn next_packet<T>(
    received: &mut Vec<u8>,
    version: ProtocolVersion,
    look: impl FnOnce(Packet<'_>, usize) -> T,
) -> Result<Option<T>, DecodeError> {
    // A client of a test takes whatever the broker sends.
    let limits = DecodeLimits {
        packet_bytes_max: u32::MAX,
        topic_levels_max: u16::MAX,
        ..DecodeLimits::default()
    };
    match decode(received, version, &limits)? {
        Decoded::Packet { packet, length } => {
            let seen = look(packet, length);
            received.drain(..length);
            Ok(Some(seen))
        }
        Decoded::More { .. } => Ok(None),
    }
}

pub fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

/// Returns a CONNECT with Clean Start, MQTT 5.0 and Keep Alive off.
pub fn connect(client_id: &str) -> Connect<'_> {
    Connect {
        version: V5,
        is_bridge: false,
        clean_start: true,
        keep_alive: 0,
        client_id,
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

/// Does the same in this version.
pub fn connect_in(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    Connect { version, ..connect(client_id) }
}

/// Returns a CONNECT of a durable session.
pub fn connect_lasting(client_id: &str, version: ProtocolVersion) -> Connect<'_> {
    let mut connect = Connect { version, clean_start: false, ..connect(client_id) };
    if version == V5 {
        connect.properties.session_expiry_interval = Some(3600);
    }
    connect
}

/// Returns a CONNECT of a client that wants no Reason Strings.
pub fn connect_terse(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    let mut connect = connect_in(version, client_id);
    if version == V5 {
        connect.properties.request_problem_information = Some(false);
    }
    connect
}

pub fn will<'a>(topic: &'a str, payload: &'a str) -> LastWill<'a> {
    LastWill {
        topic,
        payload: payload.as_bytes(),
        qos: QOS_0,
        retain: false,
        properties: WillProperties::default(),
    }
}

pub fn connack(reason: ReasonCode) -> ConnAck<'static> {
    ConnAck { session_present: false, reason, properties: ConnAckProperties::default() }
}

pub fn publish<'a>(topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish {
        flags: PublishFlags::default(),
        topic,
        packet_id: None,
        properties: PublishProperties::default(),
        payload: payload.as_bytes(),
    }
}

pub fn publish_1<'a>(packet_id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    let mut packet = publish(topic, payload);
    packet.flags.qos = QOS_1;
    packet.packet_id = Some(id(packet_id));
    packet
}

pub fn publish_2<'a>(packet_id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    let mut packet = publish_1(packet_id, topic, payload);
    packet.flags.qos = QOS_2;
    packet
}

/// Sets RETAIN.
pub fn retained(mut packet: Publish<'_>) -> Publish<'_> {
    packet.flags.retain = true;
    packet
}

/// Sets DUP.
pub fn dup(mut packet: Publish<'_>) -> Publish<'_> {
    packet.flags.dup = true;
    packet
}

pub fn puback(packet_id: u16, reason: ReasonCode) -> Packet<'static> {
    Packet::PubAck(Ack::with_reason(id(packet_id), reason))
}

pub fn pubrec(packet_id: u16, reason: ReasonCode) -> Packet<'static> {
    Packet::PubRec(Ack::with_reason(id(packet_id), reason))
}

/// Returns PUBREL or its answer for an identifier that is not in use.
pub fn not_found(packet_id: u16) -> Ack<'static> {
    Ack::with_reason(id(packet_id), ReasonCode::PacketIdentifierNotFound)
}

pub fn pubrel(packet_id: u16) -> Packet<'static> {
    Packet::PubRel(Ack::success(id(packet_id)))
}

pub fn pubcomp(packet_id: u16) -> Packet<'static> {
    Packet::PubComp(Ack::success(id(packet_id)))
}

pub fn filter(filter: &str, qos: QoS) -> SubscribeFilter<'_> {
    SubscribeFilter { filter, options: SubscriptionOptions { qos, ..Default::default() } }
}

/// Sets No Local.
pub fn no_local(mut asked: SubscribeFilter<'_>) -> SubscribeFilter<'_> {
    asked.options.no_local = true;
    asked
}

/// Sets Retain As Published.
pub fn as_published(mut asked: SubscribeFilter<'_>) -> SubscribeFilter<'_> {
    asked.options.retain_as_published = true;
    asked
}

/// Sets this Retain Handling.
pub fn handling(
    mut asked: SubscribeFilter<'_>,
    retain_handling: RetainHandling,
) -> SubscribeFilter<'_> {
    asked.options.retain_handling = retain_handling;
    asked
}

/// Returns a SUBSCRIBE with a Subscription Identifier.
pub fn subscribe_as<'a>(
    packet_id: u16,
    identifier: u32,
    filters: Vec<SubscribeFilter<'a>>,
) -> Packet<'a> {
    Packet::Subscribe(Subscribe {
        packet_id: id(packet_id),
        properties: SubscribeProperties {
            subscription_identifier: Some(identifier),
            ..SubscribeProperties::default()
        },
        filters,
    })
}

/// Adds these Subscription Identifiers.
pub fn identified<'a>(mut packet: Publish<'a>, identifiers: &[u32]) -> Publish<'a> {
    packet.properties.subscription_identifiers = identifiers.to_vec();
    packet
}

/// Adds a Message Expiry Interval.
pub fn expiring(mut packet: Publish<'_>, secs: u32) -> Publish<'_> {
    packet.properties.message_expiry_interval = Some(secs);
    packet
}

/// Adds a Topic Alias.
pub fn aliased(mut packet: Publish<'_>, alias: u16) -> Publish<'_> {
    packet.properties.topic_alias = Some(alias);
    packet
}

pub fn subscribe(packet_id: u16, filters: Vec<SubscribeFilter<'_>>) -> Packet<'_> {
    Packet::Subscribe(Subscribe {
        packet_id: id(packet_id),
        properties: SubscribeProperties::default(),
        filters,
    })
}

pub fn suback(packet_id: u16, reasons: &[ReasonCode]) -> Packet<'static> {
    Packet::SubAck(SubAck {
        packet_id: id(packet_id),
        properties: AckProperties::NONE,
        reasons: reasons.to_vec(),
    })
}

pub fn unsubscribe(packet_id: u16, filters: Vec<&str>) -> Packet<'_> {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(packet_id),
        user_properties: UserProperties::NONE,
        filters,
    })
}

pub fn unsuback(packet_id: u16, reasons: &[ReasonCode]) -> Packet<'static> {
    Packet::UnsubAck(UnsubAck {
        packet_id: id(packet_id),
        properties: AckProperties::NONE,
        reasons: reasons.to_vec(),
    })
}

pub fn disconnect(reason: ReasonCode) -> Packet<'static> {
    Packet::Disconnect(Disconnect { reason, properties: DisconnectProperties::default() })
}
