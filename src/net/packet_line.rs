//! Extracts the fields of a packet's log line: type, Packet Identifier, topics and reason.
//!
//! Pure; it never reads a payload or a password.

use crate::mqtt::{
    Ack, DecodeLimits, Decoded, Packet, ProtocolVersion, Publish, ReasonCode, decode,
};

/// Maximum number of Topic Filters shown for one packet.
const FILTERS_MAX: usize = 8;

/// The fields of a log line; a field that the packet type does not have is `None`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PacketLine<'a> {
    pub(super) name: &'static str,
    pub(super) packet_id: Option<u16>,
    /// The Topic Name, or the first Topic Filters.
    pub(super) topic: Option<String>,
    pub(super) qos: Option<u8>,
    pub(super) dup: Option<bool>,
    pub(super) retain: Option<bool>,
    pub(super) reason: Option<ReasonCode>,
    /// Client Identifier and version, from CONNECT.
    pub(super) connect: Option<(&'a str, ProtocolVersion)>,
}

/// Returns the fields for a packet of `length` bytes that begins with `head`. Before CONNECT the
/// version is `None`.
pub(super) fn packet_line(
    head: &[u8],
    length: usize,
    version: Option<ProtocolVersion>,
) -> PacketLine<'_> {
    let name = name_of(head.first().copied().unwrap_or_default());
    // Only the beginning of a large packet is kept for the log; it cannot be decoded as a whole.
    if head.len() < length {
        return PacketLine { topic: topic_of(head), ..PacketLine::named(name) };
    }
    let version = version.unwrap_or(ProtocolVersion::V3_1_1);
    // The session enforces the limits; the log also shows packets that it refuses.
    let limits = DecodeLimits {
        packet_bytes_max: u32::MAX,
        topic_bytes_max: u16::MAX,
        topic_levels_max: u16::MAX,
    };
    match decode(head, version, &limits) {
        Ok(Decoded::Packet { packet, .. }) => of_packet(name, packet),
        // The session reports malformed packets; the log line has only the type.
        Ok(Decoded::More { .. }) | Err(_) => PacketLine::named(name),
    }
}

impl PacketLine<'_> {
    fn named(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    fn of_ack(name: &'static str, ack: &Ack<'_>) -> Self {
        let packet_id = Some(ack.packet_id.number());
        Self { packet_id, reason: Some(ack.reason), ..Self::named(name) }
    }

    fn of_publish(name: &'static str, publish: &Publish<'_>) -> Self {
        let alias = publish.properties.topic_alias;
        // A PUBLISH with an alias may have no topic, and the log does not track aliases.
        let topic = match (publish.topic, alias) {
            ("", Some(alias)) => format!("(alias {alias})"),
            (topic, _) => topic.to_owned(),
        };
        Self {
            packet_id: publish.packet_id.map(|packet_id| packet_id.number()),
            topic: Some(topic),
            qos: Some(publish.flags.qos.number()),
            dup: Some(publish.flags.dup),
            retain: Some(publish.flags.retain),
            ..Self::named(name)
        }
    }
}

fn of_packet<'a>(name: &'static str, packet: Packet<'a>) -> PacketLine<'a> {
    let reason = |reason| PacketLine { reason: Some(reason), ..PacketLine::named(name) };
    match packet {
        Packet::Connect(connect) => PacketLine {
            // The User Name stays out, because it may be a token.
            connect: Some((connect.client_id, connect.version)),
            ..PacketLine::named(name)
        },
        Packet::ConnAck(ack) => reason(ack.reason),
        Packet::Publish(publish) => PacketLine::of_publish(name, &publish),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            PacketLine::of_ack(name, &ack)
        }
        Packet::Subscribe(subscribe) => PacketLine {
            packet_id: Some(subscribe.packet_id.number()),
            topic: Some(joined(subscribe.filters.iter().map(|asked| asked.filter))),
            ..PacketLine::named(name)
        },
        Packet::Unsubscribe(unsubscribe) => PacketLine {
            packet_id: Some(unsubscribe.packet_id.number()),
            topic: Some(joined(unsubscribe.filters.iter().copied())),
            ..PacketLine::named(name)
        },
        Packet::SubAck(ack) => PacketLine {
            packet_id: Some(ack.packet_id.number()),
            // One code stands for all, because a line has one reason and SUBACK may have thousands.
            reason: ack.reasons.first().copied(),
            ..PacketLine::named(name)
        },
        Packet::UnsubAck(ack) => PacketLine {
            packet_id: Some(ack.packet_id.number()),
            reason: ack.reasons.first().copied(),
            ..PacketLine::named(name)
        },
        Packet::Disconnect(disconnect) => reason(disconnect.reason),
        Packet::Auth(auth) => reason(auth.reason),
        Packet::PingReq | Packet::PingResp => PacketLine::named(name),
    }
}

fn joined<'f>(filters: impl Iterator<Item = &'f str>) -> String {
    // A client may send thousands of filters in one packet.
    filters.take(FILTERS_MAX).collect::<Vec<_>>().join(" ")
}

/// Returns the Topic Name of a PUBLISH whose beginning alone is available (section 3.3.2.1).
fn topic_of(head: &[u8]) -> Option<String> {
    let first = *head.first()?;
    let body = head.iter().skip(1).position(|digit| digit & 0x80 == 0)? + 2;
    let length = u16::from_be_bytes([*head.get(body)?, *head.get(body + 1)?]);
    let topic = head.get(body + 2..body + 2 + usize::from(length))?;
    (first >> 4 == 3).then(|| String::from_utf8_lossy(topic).into_owned())
}

/// Returns the name of the packet type (section 2.1.2).
const fn name_of(first: u8) -> &'static str {
    const NAMES: [&str; 16] = [
        "RESERVED",
        "CONNECT",
        "CONNACK",
        "PUBLISH",
        "PUBACK",
        "PUBREC",
        "PUBREL",
        "PUBCOMP",
        "SUBSCRIBE",
        "SUBACK",
        "UNSUBSCRIBE",
        "UNSUBACK",
        "PINGREQ",
        "PINGRESP",
        "DISCONNECT",
        "AUTH",
    ];
    NAMES[(first >> 4) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_large_publish_its_topic_is_told() {
        let head = [&[0x32, 0xFF, 0x7F, 0, 3][..], b"a/bthe rest"].concat();
        let line = packet_line(&head, 16_386, Some(ProtocolVersion::V5));
        let expected =
            PacketLine { name: "PUBLISH", topic: Some("a/b".into()), ..PacketLine::default() };
        assert_eq!(line, expected);
        // Any other large packet has only its name.
        let head = [&[0x82, 0xFF, 0x7F, 0, 3][..], b"a/bthe rest"].concat();
        assert_eq!(packet_line(&head, 16_386, None), PacketLine::named("SUBSCRIBE"));
        assert_eq!(packet_line(&[0x30], 100, None), PacketLine::named("PUBLISH"));
    }

    #[test]
    fn of_a_packet_that_is_wrong_only_its_type_is_told() {
        assert_eq!(packet_line(&[0x40, 0], 2, None), PacketLine::named("PUBACK"));
        assert_eq!(packet_line(&[], 0, None), PacketLine::named("RESERVED"));
    }
}
