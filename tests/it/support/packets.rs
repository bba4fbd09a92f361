//! Short functions for packets.

use hearthmq::mqtt::{
    Ack, AckProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect,
    DisconnectProperties, LastWill, Packet, PacketId, ProtocolVersion, Publish, PublishFlags,
    PublishProperties, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeFilter,
    SubscribeProperties, SubscriptionOptions, UnsubAck, Unsubscribe, UserProperties,
    WillProperties,
};

pub(crate) use hearthmq::mqtt::ProtocolVersion::{V3_1, V3_1_1, V5};

/// The two versions that most dialogues use.
pub(crate) const VERSIONS: [ProtocolVersion; 2] = [V3_1_1, V5];

pub(crate) const QOS_0: QoS = QoS::AtMostOnce;
pub(crate) const QOS_1: QoS = QoS::AtLeastOnce;
pub(crate) const QOS_2: QoS = QoS::ExactlyOnce;

pub(crate) fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

/// Returns a CONNECT with Clean Start, MQTT 5.0 and Keep Alive off.
pub(crate) fn connect(client_id: &str) -> Connect<'_> {
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
pub(crate) fn connect_in(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    Connect { version, ..connect(client_id) }
}

/// Returns a CONNECT of a durable session.
pub(crate) fn connect_lasting(client_id: &str, version: ProtocolVersion) -> Connect<'_> {
    let mut connect = Connect { version, clean_start: false, ..connect(client_id) };
    if version == V5 {
        connect.properties.session_expiry_interval = Some(3600);
    }
    connect
}

/// Returns a CONNECT of a client that wants no Reason Strings.
pub(crate) fn connect_terse(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    let mut connect = connect_in(version, client_id);
    if version == V5 {
        connect.properties.request_problem_information = Some(false);
    }
    connect
}

pub(crate) fn will<'a>(topic: &'a str, payload: &'a str) -> LastWill<'a> {
    LastWill {
        topic,
        payload: payload.as_bytes(),
        qos: QOS_0,
        retain: false,
        properties: WillProperties::default(),
    }
}

pub(crate) fn connack(reason: ReasonCode) -> ConnAck<'static> {
    ConnAck { session_present: false, reason, properties: ConnAckProperties::default() }
}

pub(crate) fn publish<'a>(topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish {
        flags: PublishFlags::default(),
        topic,
        packet_id: None,
        properties: PublishProperties::default(),
        payload: payload.as_bytes(),
    }
}

pub(crate) fn publish_1<'a>(packet_id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    let mut packet = publish(topic, payload);
    packet.flags.qos = QOS_1;
    packet.packet_id = Some(id(packet_id));
    packet
}

pub(crate) fn publish_2<'a>(packet_id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    let mut packet = publish_1(packet_id, topic, payload);
    packet.flags.qos = QOS_2;
    packet
}

/// Sets RETAIN.
pub(crate) fn retained(mut packet: Publish<'_>) -> Publish<'_> {
    packet.flags.retain = true;
    packet
}

/// Sets DUP.
pub(crate) fn dup(mut packet: Publish<'_>) -> Publish<'_> {
    packet.flags.dup = true;
    packet
}

pub(crate) fn puback(packet_id: u16, reason: ReasonCode) -> Packet<'static> {
    Packet::PubAck(Ack::with_reason(id(packet_id), reason))
}

pub(crate) fn pubrec(packet_id: u16, reason: ReasonCode) -> Packet<'static> {
    Packet::PubRec(Ack::with_reason(id(packet_id), reason))
}

/// Returns PUBREL or its answer for an identifier that is not in use.
pub(crate) fn not_found(packet_id: u16) -> Ack<'static> {
    Ack::with_reason(id(packet_id), ReasonCode::PacketIdentifierNotFound)
}

pub(crate) fn pubrel(packet_id: u16) -> Packet<'static> {
    Packet::PubRel(Ack::success(id(packet_id)))
}

pub(crate) fn pubcomp(packet_id: u16) -> Packet<'static> {
    Packet::PubComp(Ack::success(id(packet_id)))
}

pub(crate) fn filter(filter: &str, qos: QoS) -> SubscribeFilter<'_> {
    SubscribeFilter { filter, options: SubscriptionOptions { qos, ..Default::default() } }
}

/// Sets No Local.
pub(crate) fn no_local(mut asked: SubscribeFilter<'_>) -> SubscribeFilter<'_> {
    asked.options.no_local = true;
    asked
}

/// Sets Retain As Published.
pub(crate) fn as_published(mut asked: SubscribeFilter<'_>) -> SubscribeFilter<'_> {
    asked.options.retain_as_published = true;
    asked
}

/// Sets this Retain Handling.
pub(crate) fn handling(
    mut asked: SubscribeFilter<'_>,
    retain_handling: RetainHandling,
) -> SubscribeFilter<'_> {
    asked.options.retain_handling = retain_handling;
    asked
}

/// Returns a SUBSCRIBE with a Subscription Identifier.
pub(crate) fn subscribe_as<'a>(
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
pub(crate) fn identified<'a>(mut packet: Publish<'a>, identifiers: &[u32]) -> Publish<'a> {
    packet.properties.subscription_identifiers = identifiers.to_vec();
    packet
}

/// Adds a Message Expiry Interval.
pub(crate) fn expiring(mut packet: Publish<'_>, secs: u32) -> Publish<'_> {
    packet.properties.message_expiry_interval = Some(secs);
    packet
}

/// Adds a Topic Alias.
pub(crate) fn aliased(mut packet: Publish<'_>, alias: u16) -> Publish<'_> {
    packet.properties.topic_alias = Some(alias);
    packet
}

pub(crate) fn subscribe(packet_id: u16, filters: Vec<SubscribeFilter<'_>>) -> Packet<'_> {
    Packet::Subscribe(Subscribe {
        packet_id: id(packet_id),
        properties: SubscribeProperties::default(),
        filters,
    })
}

pub(crate) fn suback(packet_id: u16, reasons: &[ReasonCode]) -> Packet<'static> {
    Packet::SubAck(SubAck {
        packet_id: id(packet_id),
        properties: AckProperties::NONE,
        reasons: reasons.to_vec(),
    })
}

pub(crate) fn unsubscribe(packet_id: u16, filters: Vec<&str>) -> Packet<'_> {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(packet_id),
        user_properties: UserProperties::NONE,
        filters,
    })
}

pub(crate) fn unsuback(packet_id: u16, reasons: &[ReasonCode]) -> Packet<'static> {
    Packet::UnsubAck(UnsubAck {
        packet_id: id(packet_id),
        properties: AckProperties::NONE,
        reasons: reasons.to_vec(),
    })
}

pub(crate) fn disconnect(reason: ReasonCode) -> Packet<'static> {
    Packet::Disconnect(Disconnect { reason, properties: DisconnectProperties::default() })
}
