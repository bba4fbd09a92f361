//! A record of a trace as a line of JSON, from the bytes of a packet.
//!
//! Pure. No password, token or Authentication Data is ever part of a line; contents of messages are only
//! if the trace has them. Every text and list has a bound.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Map, Value};

use super::properties::{ITEMS_MAX, RecordedProperties, text};
use crate::{
    control::TraceKind,
    mqtt::{
        Ack, Auth, ConnAck, Connect, DecodeLimits, Decoded, Disconnect, LastWill, Packet,
        ProtocolVersion, Publish, ReasonCode, SubAck, Subscribe, UnsubAck, Unsubscribe, decode,
    },
    told::without_token,
};

/// Bytes of a payload that a line has.
const PAYLOAD_BYTES_MAX: usize = 4 * 1024;

/// The members of a line; a member that the packet does not have is left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct TraceLine {
    pub(super) at: u64,
    pub(super) micros: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) direction: Option<&'static str>,
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<usize>,
    #[serde(flatten)]
    pub(super) packet: PacketPart,
}

/// The part of a line that describes a packet or an event.
#[derive(Debug, Default, Serialize)]
pub(super) struct PacketPart {
    #[serde(skip_serializing_if = "Option::is_none")]
    packet_id: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retain: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dup: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    has_password: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clean_start: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_present: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    will: Option<Box<Self>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filters: Vec<FilterPart>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reason_codes: Vec<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<u8>,
    /// The name of the Reason Code, or the word of an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The caller that ended a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    properties: Map<String, Value>,
    /// Whether the line has less than the packet: it is too large, or no valid packet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    incomplete: bool,
}

impl PacketPart {
    /// Returns the part of a line about a connection that is followed from now on.
    pub(super) fn of_connection(version: ProtocolVersion, keep_alive_secs: u16) -> Self {
        Self {
            protocol: Some(version.level()),
            keep_alive: Some(keep_alive_secs),
            ..Self::default()
        }
    }

    /// Returns the part of a line about a connection that was refused or has ended.
    pub(super) fn of_end(reason: &str, by: Option<&str>) -> Self {
        Self { reason: Some(reason.to_owned()), by: by.map(text), ..Self::default() }
    }
}

/// A Topic Filter of SUBSCRIBE or UNSUBSCRIBE.
#[derive(Debug, Serialize)]
struct FilterPart {
    filter: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
}

/// Returns the kind of a packet, from its first byte (section 2.1.2); `None` for the reserved type.
pub(super) const fn kind_of(first: u8) -> Option<TraceKind> {
    Some(match first >> 4 {
        1 => TraceKind::Connect,
        2 => TraceKind::ConnAck,
        3 => TraceKind::Publish,
        4 => TraceKind::PubAck,
        5 => TraceKind::PubRec,
        6 => TraceKind::PubRel,
        7 => TraceKind::PubComp,
        8 => TraceKind::Subscribe,
        9 => TraceKind::SubAck,
        10 => TraceKind::Unsubscribe,
        11 => TraceKind::UnsubAck,
        12 => TraceKind::PingReq,
        13 => TraceKind::PingResp,
        14 => TraceKind::Disconnect,
        15 => TraceKind::Auth,
        _ => return None,
    })
}

/// All packets that the broker has accepted are decoded.
pub(super) const LIMITS: DecodeLimits = DecodeLimits {
    packet_bytes_max: u32::MAX,
    topic_bytes_max: u16::MAX,
    topic_levels_max: u16::MAX,
};

/// Decodes a packet of `length` bytes of which `head` is the beginning, and passes it to `with`; `None`
/// if it cannot be decoded. Of a PUBLISH, the beginning is enough.
pub(super) fn with_packet<T>(
    (head, length): (&[u8], usize),
    version: ProtocolVersion,
    with: impl FnOnce(&Packet<'_>) -> T,
) -> Option<T> {
    let shortened;
    let bytes = if head.len() == length {
        head
    } else if kind_of(*head.first()?)? == TraceKind::Publish {
        // The payload is last, so a shortened PUBLISH can still be decoded; no other packet can.
        shortened = shortened_publish(head)?;
        &shortened
    } else {
        return None;
    };
    match decode(bytes, version, &LIMITS) {
        Ok(Decoded::Packet { packet, .. }) => Some(with(&packet)),
        Ok(Decoded::More { .. }) | Err(_) => None,
    }
}

/// Returns the beginning of a PUBLISH as a PUBLISH with the beginning of the payload.
fn shortened_publish(head: &[u8]) -> Option<Vec<u8>> {
    // The length field of the original has its own number of bytes.
    let digits = head.iter().skip(1).position(|digit| digit & 0x80 == 0)? + 1;
    let body = head.get(1 + digits..)?;
    let mut packet = vec![head[0]];
    // The new length is that of the beginning, so that the decoder sees a whole packet.
    let mut left = body.len();
    loop {
        let digit = (left & 0x7F) as u8;
        left >>= 7;
        packet.push(if left > 0 { digit | 0x80 } else { digit });
        if left == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    Some(packet)
}

/// Returns the part of a line about a packet of `length` bytes that begins with `head`.
pub(super) fn packet_part(
    (head, length): (&[u8], usize),
    version: ProtocolVersion,
    with_contents: bool,
) -> PacketPart {
    let missing = length.saturating_sub(head.len());
    let part = with_packet((head, length), version, |packet| of_packet(packet, with_contents));
    let Some(mut part) = part else { return PacketPart { incomplete: true, ..Default::default() } };
    if let Some(bytes) = &mut part.payload_bytes {
        *bytes += missing;
    }
    part
}

fn of_packet(packet: &Packet<'_>, with_contents: bool) -> PacketPart {
    match packet {
        Packet::Connect(connect) => of_connect(connect, with_contents),
        Packet::ConnAck(ack) => of_conn_ack(ack),
        Packet::Publish(publish) => of_publish(publish, with_contents),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            of_ack(ack)
        }
        Packet::Subscribe(subscribe) => of_subscribe(subscribe, with_contents),
        Packet::SubAck(SubAck { packet_id, properties, reasons })
        | Packet::UnsubAck(UnsubAck { packet_id, properties, reasons }) => PacketPart {
            packet_id: Some(packet_id.number()),
            // A bound for each list, because a packet may have thousands of items.
            reason_codes: reasons.iter().take(ITEMS_MAX).map(|reason| *reason as u8).collect(),
            incomplete: reasons.len() > ITEMS_MAX,
            properties: RecordedProperties::default().ack(properties).done(),
            ..PacketPart::default()
        },
        Packet::Unsubscribe(unsubscribe) => of_unsubscribe(unsubscribe, with_contents),
        Packet::PingReq | Packet::PingResp => PacketPart::default(),
        Packet::Disconnect(Disconnect { reason, properties }) => {
            let shown = RecordedProperties::default()
                .number("session_expiry_interval", properties.session_expiry_interval)
                .text("reason_string", properties.reason_string)
                .text("server_reference", properties.server_reference)
                .user_properties(properties.user_properties, false);
            PacketPart { properties: shown.done(), ..of_reason(*reason) }
        }
        Packet::Auth(Auth { reason, properties }) => {
            let shown = RecordedProperties::default()
                // Authentication Data is a secret, so only its length is shown.
                .text("authentication_method", properties.authentication_method)
                .bytes("authentication_data_bytes", properties.authentication_data)
                .text("reason_string", properties.reason_string)
                .user_properties(properties.user_properties, false);
            PacketPart { properties: shown.done(), ..of_reason(*reason) }
        }
    }
}

fn of_reason(reason: ReasonCode) -> PacketPart {
    let name = (reason as u8 > 0).then(|| format!("{reason:?}"));
    PacketPart { reason_code: Some(reason as u8), reason: name, ..PacketPart::default() }
}

fn of_connect(connect: &Connect<'_>, with_contents: bool) -> PacketPart {
    PacketPart {
        protocol: Some(connect.version.level()),
        username: connect.username.map(|name| text(without_token(name))),
        has_password: Some(connect.password.is_some()),
        clean_start: Some(connect.clean_start),
        keep_alive: Some(connect.keep_alive),
        will: connect.will.as_ref().map(|will| Box::new(of_will(will, with_contents))),
        properties: RecordedProperties::default().connect(&connect.properties).done(),
        ..PacketPart::default()
    }
}

fn of_will(will: &LastWill<'_>, with_contents: bool) -> PacketPart {
    let shown = RecordedProperties::default()
        .number("will_delay_interval", will.properties.will_delay_interval)
        .publish(&will.properties.publish, with_contents);
    PacketPart {
        topic: Some(text(will.topic)),
        qos: Some(will.qos.number()),
        retain: Some(will.retain),
        payload_bytes: Some(will.payload.len()),
        // Contents are shown only if the trace was started with them.
        payload_base64: with_contents.then(|| beginning(will.payload)),
        properties: shown.done(),
        ..PacketPart::default()
    }
}

fn of_conn_ack(ack: &ConnAck<'_>) -> PacketPart {
    PacketPart {
        session_present: Some(ack.session_present),
        properties: RecordedProperties::default().conn_ack(&ack.properties).done(),
        ..of_reason(ack.reason)
    }
}

fn of_publish(publish: &Publish<'_>, with_contents: bool) -> PacketPart {
    PacketPart {
        packet_id: publish.packet_id.map(|packet_id| packet_id.number()),
        topic: Some(text(publish.topic)),
        qos: Some(publish.flags.qos.number()),
        retain: Some(publish.flags.retain),
        dup: Some(publish.flags.dup),
        payload_bytes: Some(publish.payload.len()),
        payload_base64: with_contents.then(|| beginning(publish.payload)),
        properties: RecordedProperties::default()
            .publish(&publish.properties, with_contents)
            .done(),
        ..PacketPart::default()
    }
}

fn of_ack(ack: &Ack<'_>) -> PacketPart {
    PacketPart {
        packet_id: Some(ack.packet_id.number()),
        properties: RecordedProperties::default().ack(&ack.properties).done(),
        ..of_reason(ack.reason)
    }
}

fn of_subscribe(subscribe: &Subscribe<'_>, with_contents: bool) -> PacketPart {
    let filters = subscribe.filters.iter().take(ITEMS_MAX).map(|asked| FilterPart {
        filter: text(asked.filter),
        qos: Some(asked.options.qos.number()),
    });
    let shown = RecordedProperties::default()
        .number("subscription_identifier", subscribe.properties.subscription_identifier)
        .user_properties(subscribe.properties.user_properties, with_contents);
    PacketPart {
        packet_id: Some(subscribe.packet_id.number()),
        filters: filters.collect(),
        incomplete: subscribe.filters.len() > ITEMS_MAX,
        properties: shown.done(),
        ..PacketPart::default()
    }
}

fn of_unsubscribe(unsubscribe: &Unsubscribe<'_>, with_contents: bool) -> PacketPart {
    let filters = unsubscribe.filters.iter().take(ITEMS_MAX);
    let filters = filters.map(|filter| FilterPart { filter: text(filter), qos: None });
    let shown =
        RecordedProperties::default().user_properties(unsubscribe.user_properties, with_contents);
    PacketPart {
        packet_id: Some(unsubscribe.packet_id.number()),
        filters: filters.collect(),
        incomplete: unsubscribe.filters.len() > ITEMS_MAX,
        properties: shown.done(),
        ..PacketPart::default()
    }
}

fn beginning(payload: &[u8]) -> String {
    STANDARD.encode(&payload[..payload.len().min(PAYLOAD_BYTES_MAX)])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(packet: &[u8], length: usize, with_contents: bool) -> Value {
        json!(packet_part((packet, length), ProtocolVersion::V5, with_contents))
    }

    #[test]
    fn a_payload_is_shown_only_where_the_trace_has_it() {
        let packet = b"\x33\x0b\0\x03a/b\0\x07\0abc";
        let size_only = json!({ "packet_id": 7, "topic": "a/b", "qos": 1, "retain": true,
            "dup": false, "payload_bytes": 3 });
        assert_eq!(shown(packet, packet.len(), false), size_only);
        assert_eq!(shown(packet, packet.len(), true)["payload_base64"], "YWJj");
    }

    #[test]
    fn of_a_large_publish_the_beginning_is_enough() {
        let mut packet = b"\x30\xa0\x9c\x01\0\x03a/b\0".to_vec();
        packet.extend(vec![b'x'; 8_000]);
        let line = shown(&packet, 20_004, true);
        assert_eq!((&line["topic"], &line["payload_bytes"]), (&"a/b".into(), &19_994.into()));
        assert_eq!(line["payload_base64"].as_str().map(str::len), Some(5_464));
        assert_eq!(shown(&packet[..3], 20_004, true), json!({ "incomplete": true }));
    }

    #[test]
    fn no_password_token_or_authentication_data_is_shown() {
        let token = format!("ey{}.{}.{}", "x".repeat(30), "y".repeat(30), "z".repeat(30));
        let mut body = b"\0\x04MQTT\x05\xc2\0\x3c\x10\x15\0\x01m\x16\0\x09challenge".to_vec();
        body.extend(b"\0\x01c");
        body.extend((token.len() as u16).to_be_bytes());
        body.extend(token.as_bytes());
        body.extend(b"\0\x06secret");
        let mut packet = vec![0x10];
        let length = body.len() as u8;
        packet.extend([length | 0x80, 1]);
        assert_eq!(usize::from(length & 0x7F) + 128, body.len());
        packet.extend(body);
        let line = shown(&packet, packet.len(), true);
        assert_eq!((&line["username"], &line["has_password"]), (&"(a token)".into(), &true.into()));
        assert_eq!(line["properties"]["authentication_data_bytes"], 9);
        let text = line.to_string();
        for secret in [&*token, "secret", "challenge"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
