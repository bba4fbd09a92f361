//! Generates any packet that a version can express, for property tests.
//!
//! Packets borrow; the data that they borrow from is leaked, which is acceptable in a test.

use hearthmq::mqtt::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

fn leak_str(string: String) -> &'static str {
    Box::leak(string.into_boxed_str())
}

pub(crate) fn text() -> impl Strategy<Value = &'static str> {
    "[a-z0-9 äß€😀\u{feff}+#/$]{0,12}".prop_map(leak_str)
}

pub(crate) fn bytes() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..200).prop_map(|bytes| &*Box::leak(bytes.into_boxed_slice()))
}

pub(crate) fn topic() -> impl Strategy<Value = &'static str> {
    "[a-z$ä€😀 /]{1,24}".prop_map(leak_str)
}

fn filter() -> impl Strategy<Value = &'static str> {
    "(\\$share/[a-z]{1,4}/)?[a-z+#/ä]{1,12}".prop_map(leak_str)
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|number| PacketId::new(number).unwrap())
}

pub(crate) fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

pub(crate) fn user_properties() -> impl Strategy<Value = UserProperties<'static>> {
    vec((text(), text()), 0..4).prop_map(|pairs| {
        let mut properties = UserPropertiesBuf::new();
        for (name, value) in pairs {
            properties.push(name, value).unwrap();
        }
        Box::leak(Box::new(properties)).as_user_properties()
    })
}

/// Returns `properties` in MQTT 5.0, none in earlier versions.
fn in_v5<T: Default + Clone + std::fmt::Debug + 'static>(
    version: ProtocolVersion,
    properties: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    if version.has_properties() { properties.boxed() } else { Just(T::default()).boxed() }
}

fn ack_properties() -> impl Strategy<Value = AckProperties<'static>> {
    (of(text()), user_properties()).prop_map(|(reason_string, user_properties)| AckProperties {
        reason_string,
        user_properties,
    })
}

pub(crate) fn publish_properties() -> impl Strategy<Value = PublishProperties<'static>> {
    let of_this_packet = (of(any::<u32>()), of(1..=u16::MAX), vec(1..=268_435_455_u32, 0..3));
    (of_this_packet, message_properties()).prop_map(
        |((message_expiry_interval, topic_alias, subscription_identifiers), message)| {
            PublishProperties {
                message_expiry_interval,
                topic_alias,
                subscription_identifiers,
                ..message
            }
        },
    )
}

pub(crate) fn message_properties() -> impl Strategy<Value = PublishProperties<'static>> {
    (of(any::<bool>()), of(text()), of(topic()), of(bytes()), user_properties()).prop_map(
        |(payload_format_indicator, content_type, response_topic, correlation_data, user)| {
            PublishProperties {
                payload_format_indicator,
                content_type,
                response_topic,
                correlation_data,
                user_properties: user,
                ..PublishProperties::default()
            }
        },
    )
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties<'static>> {
    let numbers = (of(any::<u32>()), of(1..=u16::MAX), of(1..=u32::MAX), of(any::<u16>()));
    let authentication = of((text(), of(bytes())));
    (numbers, of(any::<bool>()), of(any::<bool>()), user_properties(), authentication).prop_map(
        |(numbers, response, problem, user_properties, authentication)| ConnectProperties {
            session_expiry_interval: numbers.0,
            receive_maximum: numbers.1,
            maximum_packet_size: numbers.2,
            topic_alias_maximum: numbers.3,
            request_response_information: response,
            request_problem_information: problem,
            user_properties,
            authentication_method: authentication.map(|(method, _)| method),
            authentication_data: authentication.and_then(|(_, data)| data),
        },
    )
}

fn connack_properties() -> impl Strategy<Value = ConnAckProperties<'static>> {
    let numbers = (of(any::<u32>()), of(1..=u16::MAX), of(1..=u32::MAX), of(any::<u16>()));
    let available = [of(any::<bool>()), of(any::<bool>()), of(any::<bool>()), of(any::<bool>())];
    let strings = [of(text()), of(text()), of(text()), of(text()), of(text())];
    (numbers, available, strings, of(0..=1_u8), of(any::<u16>()), of(bytes()), user_properties())
        .prop_map(|(numbers, available, strings, maximum_qos, keep_alive, data, user)| {
            ConnAckProperties {
                session_expiry_interval: numbers.0,
                receive_maximum: numbers.1,
                maximum_qos,
                retain_available: available[0],
                maximum_packet_size: numbers.2,
                assigned_client_identifier: strings[0],
                topic_alias_maximum: numbers.3,
                reason_string: strings[1],
                user_properties: user,
                wildcard_subscription_available: available[1],
                subscription_identifiers_available: available[2],
                shared_subscription_available: available[3],
                server_keep_alive: keep_alive,
                response_information: strings[2],
                server_reference: strings[3],
                authentication_method: strings[4],
                authentication_data: data,
            }
        })
}

fn disconnect_properties() -> impl Strategy<Value = DisconnectProperties<'static>> {
    (of(any::<u32>()), of(text()), user_properties(), of(text())).prop_map(
        |(session_expiry_interval, reason_string, user_properties, server_reference)| {
            DisconnectProperties {
                session_expiry_interval,
                reason_string,
                user_properties,
                server_reference,
            }
        },
    )
}

fn auth_properties() -> impl Strategy<Value = AuthProperties<'static>> {
    (text(), of(bytes()), of(text()), user_properties()).prop_map(
        |(method, authentication_data, reason_string, user_properties)| AuthProperties {
            authentication_method: Some(method),
            authentication_data,
            reason_string,
            user_properties,
        },
    )
}

fn will(version: ProtocolVersion) -> impl Strategy<Value = LastWill<'static>> {
    let properties = in_v5(
        version,
        (of(any::<u32>()), of(any::<u32>()), message_properties()).prop_map(
            |(will_delay_interval, message_expiry_interval, publish)| WillProperties {
                will_delay_interval,
                publish: PublishProperties { message_expiry_interval, ..publish },
            },
        ),
    );
    (topic(), bytes(), qos(), any::<bool>(), properties).prop_map(
        |(topic, payload, qos, retain, properties)| LastWill {
            topic,
            payload,
            qos,
            retain,
            properties,
        },
    )
}

fn connect(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let properties = in_v5(version, connect_properties());
    let credentials = (of(text()), of(bytes()));
    let flags = (any::<bool>(), any::<bool>());
    (flags, any::<u16>(), text(), of(will(version)), credentials, properties).prop_map(
        move |(
            (clean_start, bridge),
            keep_alive,
            client_id,
            will,
            (username, password),
            properties,
        )| {
            let may_have_password = version.has_properties() || username.is_some();
            Packet::Connect(Box::new(Connect {
                version,
                is_bridge: bridge && !version.has_properties(),
                clean_start,
                keep_alive,
                client_id,
                will,
                username,
                password: password.filter(|_| may_have_password),
                properties,
            }))
        },
    )
}

fn connack(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let reasons: &[u8] = if version.has_properties() {
        &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90,
            0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ]
    } else {
        &[0x00, 0x84, 0x85, 0x86, 0x87, 0x88]
    };
    let properties = in_v5(version, connack_properties());
    (any::<bool>(), reason(reasons), properties).prop_map(move |(present, reason, properties)| {
        let may_be_present = version != ProtocolVersion::V3_1 && reason == ReasonCode::Success;
        Packet::ConnAck(Box::new(ConnAck {
            session_present: present && may_be_present,
            reason,
            properties,
        }))
    })
}

fn reason(numbers: &[u8]) -> impl Strategy<Value = ReasonCode> + use<> {
    select(numbers.to_vec()).prop_map(|number| ReasonCode::from_number(number).unwrap())
}

fn publish(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let properties = in_v5(version, publish_properties());
    let flags = (any::<bool>(), qos(), any::<bool>());
    (flags, topic(), packet_id(), properties, bytes(), any::<bool>()).prop_map(
        |((dup, qos, retain), topic, packet_id, properties, payload, by_alias)| {
            let is_acknowledged = qos != QoS::AtMostOnce;
            Packet::Publish(Publish {
                flags: PublishFlags { dup: dup && is_acknowledged, qos, retain },
                topic: if by_alias && properties.topic_alias.is_some() { "" } else { topic },
                packet_id: is_acknowledged.then_some(packet_id),
                properties,
                payload,
            })
        },
    )
}

fn ack(version: ProtocolVersion, reasons: &[u8]) -> impl Strategy<Value = Ack<'static>> + use<> {
    let reasons = if version.has_properties() { reasons } else { &[0] };
    (packet_id(), reason(reasons), in_v5(version, ack_properties()))
        .prop_map(|(packet_id, reason, properties)| Ack { packet_id, reason, properties })
}

fn any_ack(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    const OF_PUBLISH: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    prop_oneof![
        ack(version, OF_PUBLISH).prop_map(Packet::PubAck),
        ack(version, OF_PUBLISH).prop_map(Packet::PubRec),
        ack(version, &[0x00, 0x92]).prop_map(Packet::PubRel),
        ack(version, &[0x00, 0x92]).prop_map(Packet::PubComp),
    ]
}

fn subscribe_filter(version: ProtocolVersion) -> impl Strategy<Value = SubscribeFilter<'static>> {
    let handling = vec![RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
    let options = (any::<bool>(), any::<bool>(), select(handling));
    (filter(), qos(), options).prop_map(
        move |(filter, qos, (no_local, retain_as_published, retain_handling))| {
            let options = if version.has_properties() {
                let no_local = no_local && !filter.starts_with("$share/");
                SubscriptionOptions { qos, no_local, retain_as_published, retain_handling }
            } else {
                SubscriptionOptions { qos, ..SubscriptionOptions::default() }
            };
            SubscribeFilter { filter, options }
        },
    )
}

fn subscribe(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let properties = (of(1..=268_435_455_u32), user_properties()).prop_map(
        |(subscription_identifier, user_properties)| SubscribeProperties {
            subscription_identifier,
            user_properties,
        },
    );
    (packet_id(), in_v5(version, properties), vec(subscribe_filter(version), 1..5)).prop_map(
        |(packet_id, properties, filters)| {
            Packet::Subscribe(Subscribe { packet_id, properties, filters })
        },
    )
}

fn suback(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let reasons: &[u8] = match version {
        ProtocolVersion::V3_1 => &[0, 1, 2],
        ProtocolVersion::V3_1_1 => &[0, 1, 2, 0x80],
        ProtocolVersion::V5 => &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
    };
    (packet_id(), in_v5(version, ack_properties()), vec(reason(reasons), 1..5)).prop_map(
        |(packet_id, properties, reasons)| {
            Packet::SubAck(SubAck { packet_id, properties, reasons })
        },
    )
}

fn unsubscribe(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    (packet_id(), in_v5(version, user_properties()), vec(filter(), 1..5)).prop_map(
        |(packet_id, user_properties, filters)| {
            Packet::Unsubscribe(Unsubscribe { packet_id, user_properties, filters })
        },
    )
}

fn unsuback(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let reasons = vec(reason(&[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]), 1..5);
    (packet_id(), in_v5(version, ack_properties()), in_v5(version, reasons)).prop_map(
        |(packet_id, properties, reasons)| {
            Packet::UnsubAck(UnsubAck { packet_id, properties, reasons })
        },
    )
}

fn disconnect(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let reasons: &[u8] = if version.has_properties() {
        &[
            0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90,
            0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0,
            0xA1, 0xA2,
        ]
    } else {
        &[0]
    };
    (reason(reasons), in_v5(version, disconnect_properties()))
        .prop_map(|(reason, properties)| Packet::Disconnect(Disconnect { reason, properties }))
}

fn auth() -> impl Strategy<Value = Packet<'static>> {
    let empty = Auth { reason: ReasonCode::Success, properties: AuthProperties::default() };
    prop_oneof![
        1 => Just(Packet::Auth(empty)),
        4 => (reason(&[0x00, 0x18, 0x19]), auth_properties())
            .prop_map(|(reason, properties)| Packet::Auth(Auth { reason, properties })),
    ]
}

/// Generates any packet of `version`, from a client or from a server.
pub(crate) fn packet(version: ProtocolVersion) -> BoxedStrategy<Packet<'static>> {
    let others = prop_oneof![
        3 => connect(version),
        2 => connack(version),
        4 => publish(version),
        2 => any_ack(version),
        2 => subscribe(version),
        1 => suback(version),
        1 => unsubscribe(version),
        1 => unsuback(version),
        1 => prop_oneof![Just(Packet::PingReq), Just(Packet::PingResp)],
        1 => disconnect(version),
    ];
    if version.has_properties() {
        prop_oneof![14 => others, 1 => auth()].boxed()
    } else {
        others.boxed()
    }
}
