//! PUBLISH and its acknowledgements (sections 3.3 to 3.7): the hot path of the decoder.
//!
//! Does not know which Topic Aliases and Packet Identifiers are in use; the session does. Called
//! only by `decode`.

use super::{DecodeLimits, reason_code, topic_name};
use crate::mqtt::{
    Ack, AckProperties, DecodeError, DecodeErrorKind, ProtocolVersion, Publish, PublishFlags,
    PublishProperties, QoS, ReasonCode, wire::Reader,
};

const DUP: u8 = 0b1000;
const QOS: u8 = 0b0110;
const RETAIN: u8 = 0b0001;

/// Checks the flags in the first byte of a PUBLISH.
#[inline]
pub(super) const fn check_flags(first: u8, version: ProtocolVersion) -> Result<(), DecodeError> {
    if first & QOS == QOS {
        return Err(DecodeError::new(DecodeErrorKind::InvalidQoS, "MQTT-3.3.1-4"));
    }
    // MQTT 3.1 has no rule about DUP with QoS 0.
    if first & (DUP | QOS) == DUP && !matches!(version, ProtocolVersion::V3_1) {
        return Err(DecodeError::new(DecodeErrorKind::DupWithoutQoS, "MQTT-3.3.1-2"));
    }
    Ok(())
}

/// Decodes PUBLISH (section 3.3). The flags in `first` must have been checked.
#[inline]
pub(super) fn decode<'a>(
    first: u8,
    body: &'a [u8],
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Publish<'a>, DecodeError> {
    // The value 3 was refused with the flags.
    let qos = match first & QOS {
        0 => QoS::AtMostOnce,
        0b0010 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    };
    let flags = PublishFlags { dup: first & DUP != 0, qos, retain: first & RETAIN != 0 };
    let mut body = Reader::new(body);
    let topic = topic_name(&mut body, limits)?;
    // [MQTT-2.2.1-2]
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(body.packet_id()?) };
    let properties = if version.has_properties() {
        PublishProperties::decode(&mut body)?
    } else {
        PublishProperties::default()
    };
    // Only an alias may stand for the topic.
    if topic.is_empty() && properties.topic_alias.is_none() {
        return Err(DecodeError::new(DecodeErrorKind::TopicNameEmpty, "MQTT-4.7.3-1"));
    }
    Ok(Publish { flags, topic, packet_id, properties, payload: body.into_rest() })
}

/// Decodes PUBACK or PUBREC (sections 3.4 and 3.5). `clause` is the rule about its Reason Codes.
#[inline]
pub(super) fn decode_ack<'a>(
    body: &'a [u8],
    version: ProtocolVersion,
    clause: &'static str,
) -> Result<Ack<'a>, DecodeError> {
    const ALLOWED: &[ReasonCode] = &[
        ReasonCode::Success,
        ReasonCode::NoMatchingSubscribers,
        ReasonCode::UnspecifiedError,
        ReasonCode::ImplementationSpecificError,
        ReasonCode::NotAuthorized,
        ReasonCode::TopicNameInvalid,
        ReasonCode::PacketIdentifierInUse,
        ReasonCode::QuotaExceeded,
        ReasonCode::PayloadFormatInvalid,
    ];
    decode_any_ack(body, version, ALLOWED, clause)
}

/// Decodes PUBREL or PUBCOMP (sections 3.6 and 3.7). `clause` is the rule about its Reason Codes.
pub(super) fn decode_release<'a>(
    body: &'a [u8],
    version: ProtocolVersion,
    clause: &'static str,
) -> Result<Ack<'a>, DecodeError> {
    const ALLOWED: &[ReasonCode] = &[ReasonCode::Success, ReasonCode::PacketIdentifierNotFound];
    decode_any_ack(body, version, ALLOWED, clause)
}

#[inline]
fn decode_any_ack<'a>(
    body: &'a [u8],
    version: ProtocolVersion,
    allowed: &[ReasonCode],
    clause: &'static str,
) -> Result<Ack<'a>, DecodeError> {
    let mut body = Reader::new(body);
    let mut ack = Ack::success(body.packet_id()?);
    // Reason Code and properties may be left out on success.
    if body.is_empty() {
        return Ok(ack);
    }
    if version.has_properties() {
        ack.reason = reason_code(body.u8()?, allowed, clause)?;
        // A Remaining Length below 4 means no properties (section 3.4.2.2.1).
        if !body.is_empty() {
            ack.properties = AckProperties::decode(&mut body, "section 3.4.2.2")?;
        }
    }
    body.finish()?;
    Ok(ack)
}
