//! CONNECT and CONNACK of every version (sections 3.1 and 3.2).
//!
//! Accepts any Client Identifier, because a server answers an invalid one with CONNACK. Called only
//! by `decode`.

use super::{DecodeLimits, reason_code, topic_name};
use crate::mqtt::{
    ConnAck, ConnAckProperties, Connect, ConnectProperties, DecodeError, DecodeErrorKind, LastWill,
    ProtocolVersion, QoS, ReasonCode, WillProperties,
    wire::{Reader, VariableByteInteger},
};

/// Decodes CONNECT (section 3.1).
pub(super) fn decode<'a>(
    body: &'a [u8],
    limits: &DecodeLimits,
) -> Result<Connect<'a>, DecodeError> {
    let mut body = Reader::new(body);
    // Name and level first, because all other fields depend on the version.
    let (version, is_bridge) = protocol_version(&mut body)?;
    let flags = ConnectFlags::read(&mut body, version)?;
    let keep_alive = body.u16()?;
    let properties = if version.has_properties() {
        ConnectProperties::decode(&mut body)?
    } else {
        ConnectProperties::default()
    };
    // The order of the payload's fields is fixed. [MQTT-3.1.3-1]
    let client_id = body.string()?;
    let will = match flags.will {
        Some((qos, retain)) => Some(will(&mut body, version, qos, retain, limits)?),
        None => None,
    };
    // MQTT 3.1 clients may set the flags and leave the fields out.
    let username = flags.username && !ends_early(&body, version);
    let username = if username { Some(body.string()?) } else { None };
    let password = flags.password && !ends_early(&body, version);
    let password = if password { Some(body.binary()?) } else { None };
    // A field without its flag is malformed. [MQTT-3.1.2-16] [MQTT-3.1.2-18]
    body.finish()?;
    let clean_start = flags.clean_start;
    Ok(Connect {
        version,
        is_bridge,
        clean_start,
        keep_alive,
        client_id,
        will,
        username,
        password,
        properties,
    })
}

/// Returns whether `bytes`, as far as received, may begin a CONNECT of MQTT 3.1. That version
/// ignores DUP, QoS and RETAIN in the fixed header; later versions reserve them.
pub(super) fn may_be_v3_1(bytes: &[u8]) -> bool {
    const BEGINNINGS: [&[u8; 9]; 2] = [b"\0\x06MQIsdp\x03", b"\0\x06MQIsdp\x83"];
    let body = match VariableByteInteger::read(bytes.get(1..).unwrap_or_default()) {
        VariableByteInteger::Whole { length, .. } => &bytes[1 + length..],
        VariableByteInteger::More | VariableByteInteger::TooLong => return true,
    };
    let arrived = body.len().min(BEGINNINGS[0].len());
    BEGINNINGS.iter().any(|beginning| beginning[..arrived] == body[..arrived])
}

/// Reads the version, and whether the client is a bridge: mosquitto's bridges set the highest bit
/// of the level. MQTT 5.0 has subscription options for that purpose; its bridges do not set the
/// bit.
fn protocol_version(body: &mut Reader<'_>) -> Result<(ProtocolVersion, bool), DecodeError> {
    let name = body.binary()?;
    let level = body.u8()?;
    match (name, level) {
        (b"MQIsdp", 3 | 0x83) => Ok((ProtocolVersion::V3_1, level == 0x83)),
        (b"MQTT", 4 | 0x84) => Ok((ProtocolVersion::V3_1_1, level == 0x84)),
        (b"MQTT", 5) => Ok((ProtocolVersion::V5, false)),
        _ => {
            let clause = if name == b"MQTT" { "MQTT-3.1.2-2" } else { "MQTT-3.1.2-1" };
            Err(DecodeError::new(DecodeErrorKind::UnsupportedProtocolVersion { level }, clause))
        }
    }
}

/// Returns whether a string announced by a flag is missing, which MQTT 3.1 allows (its section 3.1,
/// "User name and password"): "the Remaining Length field takes precedence".
fn ends_early(body: &Reader<'_>, version: ProtocolVersion) -> bool {
    version == ProtocolVersion::V3_1 && body.is_empty()
}

struct ConnectFlags {
    clean_start: bool,
    /// Will QoS and Will Retain.
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl ConnectFlags {
    /// Reads the Connect Flags (section 3.1.2.3). MQTT 3.1 ignores bits that later versions
    /// reserve.
    fn read(body: &mut Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let flags = body.u8()?;
        let is_set = |bit: u8| flags & (1 << bit) != 0;
        let is_strict = version != ProtocolVersion::V3_1;
        let wrong = |clause| Err(DecodeError::new(DecodeErrorKind::ConnectFlags, clause));
        if is_strict && is_set(0) {
            return wrong("MQTT-3.1.2-3");
        }
        // QoS and RETAIN of the Will mean something only with a Will.
        let qos = flags >> 3 & 0b11;
        let will = if is_set(2) {
            let qos = QoS::from_number(qos)
                .ok_or(DecodeError::new(DecodeErrorKind::InvalidQoS, "MQTT-3.1.2-12"))?;
            Some((qos, is_set(5)))
        } else if is_strict && qos != 0 {
            return wrong("MQTT-3.1.2-11");
        } else if is_strict && is_set(5) {
            return wrong("MQTT-3.1.2-13");
        } else {
            None
        };
        // MQTT 5.0 allows a password without a user name. [MQTT 5.0, 3.1.2.9]
        let (username, password) = (is_set(7), is_set(6));
        if password && !username && !version.has_properties() {
            let kind = DecodeErrorKind::PasswordWithoutUserName;
            return Err(DecodeError::new(kind, "3.1.1 MQTT-3.1.2-22"));
        }
        Ok(Self { clean_start: is_set(1), will, username, password })
    }
}

/// Reads the Will (sections 3.1.3.2 to 3.1.3.4).
fn will<'a>(
    body: &mut Reader<'a>,
    version: ProtocolVersion,
    qos: QoS,
    retain: bool,
    limits: &DecodeLimits,
) -> Result<LastWill<'a>, DecodeError> {
    let properties = if version.has_properties() {
        WillProperties::decode(body)?
    } else {
        WillProperties::default()
    };
    let topic = topic_name(body, limits)?;
    // A Will has no Topic Alias that could stand for an empty topic.
    if topic.is_empty() {
        return Err(DecodeError::new(DecodeErrorKind::TopicNameEmpty, "MQTT-4.7.3-1"));
    }
    Ok(LastWill { topic, payload: body.binary()?, qos, retain, properties })
}

/// Decodes CONNACK (section 3.2).
pub(super) fn decode_ack(
    body: &[u8],
    version: ProtocolVersion,
) -> Result<ConnAck<'_>, DecodeError> {
    let mut body = Reader::new(body);
    let wrong = |clause| DecodeError::new(DecodeErrorKind::ConnAckFlags, clause);
    let session_present = match (body.u8()?, version) {
        (_, ProtocolVersion::V3_1) => false, // MQTT 3.1 does not use this byte
        (flags @ (0 | 1), _) => flags == 1,
        _ => return Err(wrong("MQTT-3.2.2-1")),
    };
    let reason = connect_reason(body.u8()?, version)?;
    // A refused connection has no session.
    if session_present && reason != ReasonCode::Success {
        return Err(wrong("MQTT-3.2.2-6"));
    }
    let properties = if version.has_properties() {
        ConnAckProperties::decode(&mut body)?
    } else {
        ConnAckProperties::default()
    };
    body.finish()?;
    Ok(ConnAck { session_present, reason, properties })
}

fn connect_reason(number: u8, version: ProtocolVersion) -> Result<ReasonCode, DecodeError> {
    const ALLOWED: &[ReasonCode] = &[
        ReasonCode::Success,
        ReasonCode::UnspecifiedError,
        ReasonCode::MalformedPacket,
        ReasonCode::ProtocolError,
        ReasonCode::ImplementationSpecificError,
        ReasonCode::UnsupportedProtocolVersion,
        ReasonCode::ClientIdentifierNotValid,
        ReasonCode::BadUserNameOrPassword,
        ReasonCode::NotAuthorized,
        ReasonCode::ServerUnavailable,
        ReasonCode::ServerBusy,
        ReasonCode::Banned,
        ReasonCode::BadAuthenticationMethod,
        ReasonCode::TopicNameInvalid,
        ReasonCode::PacketTooLarge,
        ReasonCode::QuotaExceeded,
        ReasonCode::PayloadFormatInvalid,
        ReasonCode::RetainNotSupported,
        ReasonCode::QoSNotSupported,
        ReasonCode::UseAnotherServer,
        ReasonCode::ServerMoved,
        ReasonCode::ConnectionRateExceeded,
    ];
    if version.has_properties() {
        return reason_code(number, ALLOWED, "MQTT-3.2.2-8");
    }
    // Table 3.1 of MQTT 3.1.1: the inverse of `ReasonCode::connect_return_code`.
    match number {
        0 => Ok(ReasonCode::Success),
        1 => Ok(ReasonCode::UnsupportedProtocolVersion),
        2 => Ok(ReasonCode::ClientIdentifierNotValid),
        3 => Ok(ReasonCode::ServerUnavailable),
        4 => Ok(ReasonCode::BadUserNameOrPassword),
        5 => Ok(ReasonCode::NotAuthorized),
        _ => {
            let kind = DecodeErrorKind::ReasonCode { number };
            Err(DecodeError::new(kind, "3.1.1 section 3.2.2.3"))
        }
    }
}
