//! The content of CONNACK, and the Session Expiry Interval of the session.

use std::sync::Arc;

use crate::{
    auth::BROKER_PROPERTY,
    limits::Limits,
    mqtt::{ConnAck, ConnAckProperties, ProtocolVersion, ReasonCode, UserPropertiesBuf},
    session::{LinkSettings, NEVER_EXPIRES},
    shard::connect::AcceptedConnect,
};

/// Returns the Session Expiry Interval of the session, in seconds: that of the sticky settings, or of
/// CONNECT. Before MQTT 5.0, a session that ends with its connection stays so.
/// [MQTT-3.1.2-6 of 3.1.1]
pub(super) fn session_expiry(connect: &AcceptedConnect, limits: &Limits) -> u32 {
    let expiry = wanted_expiry(connect);
    // What waits for a bridge is bounded otherwise.
    if connect.of_bridge.is_some() { expiry } else { expiry.min(limits.session_expiry_secs_max) }
}

/// Returns whether the session outlives its connection.
pub(super) fn lasts(connect: &AcceptedConnect) -> bool {
    wanted_expiry(connect) > 0
}

/// Returns the User Property by which this broker names itself to a bridge of another one.
pub(super) fn broker_property(id: &str) -> UserPropertiesBuf {
    let mut properties = UserPropertiesBuf::new();
    let pushed = properties.push(BROKER_PROPERTY, id);
    debug_assert!(pushed.is_ok(), "the identifier is short");
    properties
}

fn wanted_expiry(connect: &AcceptedConnect) -> u32 {
    let asked = asked_expiry(connect);
    let may_change = connect.version.has_properties() || asked > 0;
    let sticky = connect.settings.as_ref().and_then(|it| it.in_force().session_expiry_secs);
    sticky.filter(|_| may_change).unwrap_or(asked)
}

/// Returns the Session Expiry Interval that the client asks for, in seconds. Before MQTT 5.0 a
/// session ends with its connection or never.
fn asked_expiry(connect: &AcceptedConnect) -> u32 {
    match connect.version {
        ProtocolVersion::V5 => connect.session_expiry_secs.unwrap_or(0),
        ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 if connect.clean_start => 0,
        ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => NEVER_EXPIRES,
    }
}

/// Returns the CONNACK of a client that is let in.
pub(super) fn conn_ack<'a>(
    connect: &'a AcceptedConnect,
    settings: &LinkSettings,
    limits: &Limits,
    expiry_secs: u32,
    session_present: bool,
) -> ConnAck<'a> {
    let assigned: &Arc<str> = &connect.client_id;
    let properties = ConnAckProperties {
        // The client knows its own values, so only those that differ are sent.
        session_expiry_interval: (asked_expiry(connect) != expiry_secs).then_some(expiry_secs),
        receive_maximum: Some(settings.receive_maximum),
        maximum_packet_size: Some(limits.packet_bytes_max),
        topic_alias_maximum: Some(settings.topic_aliases_in_max),
        assigned_client_identifier: connect.is_assigned.then_some(assigned),
        server_keep_alive: (settings.keep_alive_secs != connect.keep_alive_secs)
            .then_some(settings.keep_alive_secs),
        // [MQTT-4.12.0-5] [MQTT-4.12.0-6]
        authentication_method: connect.enhanced.as_ref().map(|login| &*login.method),
        authentication_data: connect.enhanced.as_ref().and_then(|login| login.data.as_deref()),
        ..ConnAckProperties::default()
    };
    // Session Present says whether the session existed before. [MQTT-3.2.2-2] [MQTT-3.2.2-3]
    ConnAck { session_present, reason: ReasonCode::Success, properties }
}
