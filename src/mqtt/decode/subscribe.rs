//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK (sections 3.8 to 3.11).
//!
//! Does not check the syntax of a Topic Filter; `topic` does. Called only by `decode`.

use super::{DecodeLimits, reason_code, topic_filter};
use crate::mqtt::{
    AckProperties, DecodeError, DecodeErrorKind, ProtocolVersion, QoS, ReasonCode, RetainHandling,
    SubAck, Subscribe, SubscribeFilter, SubscribeProperties, SubscriptionOptions, UnsubAck,
    Unsubscribe, UserProperties, topic::is_shared, wire::Reader,
};

/// Decodes SUBSCRIBE (section 3.8).
pub(super) fn decode_subscribe<'a>(
    body: &'a [u8],
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Subscribe<'a>, DecodeError> {
    let mut body = Reader::new(body);
    let packet_id = body.packet_id()?;
    let properties = if version.has_properties() {
        SubscribeProperties::decode(&mut body)?
    } else {
        SubscribeProperties::default()
    };
    let mut filters = Vec::new();
    // The filters have no count; they end with the packet.
    while !body.is_empty() {
        let filter = topic_filter(&mut body, limits)?;
        let options = subscription_options(body.u8()?, version)?;
        if options.no_local && is_shared(filter) {
            let kind = DecodeErrorKind::NoLocalOnSharedSubscription;
            return Err(DecodeError::new(kind, "MQTT-3.8.3-4"));
        }
        filters.push(SubscribeFilter { filter, options });
    }
    check_not_empty(&filters, "MQTT-3.8.3-2")?;
    Ok(Subscribe { packet_id, properties, filters })
}

/// Decodes Subscription Options (section 3.8.3.1). MQTT 3.1.1 reserves all bits but the QoS, MQTT
/// 3.1 ignores them.
fn subscription_options(
    byte: u8,
    version: ProtocolVersion,
) -> Result<SubscriptionOptions, DecodeError> {
    // What is reserved differs by version, and MQTT 3.1 reserves nothing.
    let (byte, reserved) = match version {
        ProtocolVersion::V3_1 => (byte & 0b11, 0),
        ProtocolVersion::V3_1_1 => (byte, 0b1111_1100),
        ProtocolVersion::V5 => (byte, 0b1100_0000),
    };
    if byte & reserved != 0 {
        return Err(DecodeError::new(DecodeErrorKind::SubscriptionOptions, "MQTT-3.8.3-5"));
    }
    let qos = QoS::from_number(byte & 0b11)
        .ok_or(DecodeError::new(DecodeErrorKind::InvalidMaximumQoS, "section 3.8.3.1"))?;
    // In MQTT 3 the bits are 0 by now, which sends retained messages, as these versions demand.
    let retain_handling = match byte >> 4 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => {
            return Err(DecodeError::new(DecodeErrorKind::RetainHandling, "section 3.8.3.1"));
        }
    };
    Ok(SubscriptionOptions {
        qos,
        no_local: byte & 0b0100 != 0,
        retain_as_published: byte & 0b1000 != 0,
        retain_handling,
    })
}

/// Decodes SUBACK (section 3.9).
pub(super) fn decode_suback(
    body: &[u8],
    version: ProtocolVersion,
) -> Result<SubAck<'_>, DecodeError> {
    const ALLOWED: &[ReasonCode] = &[
        ReasonCode::Success,
        ReasonCode::GrantedQoS1,
        ReasonCode::GrantedQoS2,
        ReasonCode::UnspecifiedError,
        ReasonCode::ImplementationSpecificError,
        ReasonCode::NotAuthorized,
        ReasonCode::TopicFilterInvalid,
        ReasonCode::PacketIdentifierInUse,
        ReasonCode::QuotaExceeded,
        ReasonCode::SharedSubscriptionsNotSupported,
        ReasonCode::SubscriptionIdentifiersNotSupported,
        ReasonCode::WildcardSubscriptionsNotSupported,
    ];
    // MQTT 3 knows the granted QoS, and from 3.1.1 on one failure.
    let allowed = match version {
        ProtocolVersion::V3_1 => &ALLOWED[..3],
        ProtocolVersion::V3_1_1 => &ALLOWED[..4],
        ProtocolVersion::V5 => ALLOWED,
    };
    let mut body = Reader::new(body);
    let packet_id = body.packet_id()?;
    let properties = if version.has_properties() {
        AckProperties::decode(&mut body, "section 3.9.2.1")?
    } else {
        AckProperties::NONE
    };
    let reasons = reasons(body, allowed, "MQTT-3.9.3-2")?;
    Ok(SubAck { packet_id, properties, reasons })
}

/// Decodes UNSUBSCRIBE (section 3.10).
pub(super) fn decode_unsubscribe<'a>(
    body: &'a [u8],
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Unsubscribe<'a>, DecodeError> {
    let mut body = Reader::new(body);
    let packet_id = body.packet_id()?;
    let user_properties = if version.has_properties() {
        UserProperties::decode(&mut body, "section 3.10.2.1")?
    } else {
        UserProperties::NONE
    };
    let mut filters = Vec::new();
    while !body.is_empty() {
        filters.push(topic_filter(&mut body, limits)?);
    }
    check_not_empty(&filters, "MQTT-3.10.3-2")?;
    Ok(Unsubscribe { packet_id, user_properties, filters })
}

/// Decodes UNSUBACK (section 3.11).
pub(super) fn decode_unsuback(
    body: &[u8],
    version: ProtocolVersion,
) -> Result<UnsubAck<'_>, DecodeError> {
    const ALLOWED: &[ReasonCode] = &[
        ReasonCode::Success,
        ReasonCode::NoSubscriptionExisted,
        ReasonCode::UnspecifiedError,
        ReasonCode::ImplementationSpecificError,
        ReasonCode::NotAuthorized,
        ReasonCode::TopicFilterInvalid,
        ReasonCode::PacketIdentifierInUse,
    ];
    let mut body = Reader::new(body);
    let packet_id = body.packet_id()?;
    // UNSUBACK has Reason Codes only in MQTT 5.0.
    if !version.has_properties() {
        body.finish()?;
        return Ok(UnsubAck { packet_id, properties: AckProperties::NONE, reasons: Vec::new() });
    }
    let properties = AckProperties::decode(&mut body, "section 3.11.2.1")?;
    let reasons = reasons(body, ALLOWED, "MQTT-3.11.3-2")?;
    Ok(UnsubAck { packet_id, properties, reasons })
}

/// Reads a payload of Reason Codes, at least one.
fn reasons(
    body: Reader<'_>,
    allowed: &[ReasonCode],
    clause: &'static str,
) -> Result<Vec<ReasonCode>, DecodeError> {
    let numbers = body.into_rest();
    check_not_empty(numbers, clause)?;
    numbers.iter().map(|&number| reason_code(number, allowed, clause)).collect()
}

const fn check_not_empty<T>(items: &[T], clause: &'static str) -> Result<(), DecodeError> {
    if items.is_empty() {
        return Err(DecodeError::new(DecodeErrorKind::EmptyPayload, clause));
    }
    Ok(())
}
