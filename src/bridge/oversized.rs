//! A message of the other broker that is larger than this broker takes: it is skipped, so that it does
//! not come again and again.
//!
//! If it speaks MQTT 5.0, it knows the Maximum Packet Size of this broker, and sends no such message.

use crate::mqtt::{PacketId, QoS};

/// A message that is too large.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Oversized {
    pub(super) qos: QoS,
    pub(super) packet_id: Option<PacketId>,
    pub(super) topic: Box<str>,
    /// Number of its bytes that have not come.
    left: usize,
}

impl Oversized {
    /// Returns the PUBLISH at the beginning of these bytes; `Some(None)` if its topic has not come in
    /// full, and `None` if it is another packet.
    pub(super) fn find(bytes: &[u8]) -> Option<Option<Self>> {
        let first = *bytes.first()?;
        // 3 is PUBLISH; no other packet may be skipped, because the protocol would lose its state.
        if first >> 4 != 3 {
            return None;
        }
        let qos = QoS::from_number(first >> 1 & 3)?;
        let (mut remaining, mut at) = (0_usize, 1);
        // The length was decoded before, so it has at most four bytes.
        loop {
            let byte = *bytes.get(at)?;
            remaining |= usize::from(byte & 0x7F) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let whole = at + remaining;
        // Topic and identifier are needed for the answer, so they must be there.
        let Some(&[high, low]) = bytes.get(at..at + 2) else { return Some(None) };
        let topic_end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        let (Some(topic), Some(&[high, low])) =
            (bytes.get(at + 2..topic_end), bytes.get(topic_end..topic_end + 2))
        else {
            return Some(None);
        };
        // A message of QoS 0 has payload where others have their identifier.
        let packet_id = PacketId::new(u16::from_be_bytes([high, low]));
        Some(Some(Self {
            qos,
            packet_id: packet_id.filter(|_| qos > QoS::AtMostOnce),
            topic: String::from_utf8_lossy(topic).into(),
            left: whole,
        }))
    }

    /// Skips these bytes, or those of them that are part of the packet; returns their number.
    pub(super) fn skip(&mut self, bytes: usize) -> usize {
        let skipped = bytes.min(self.left);
        self.left -= skipped;
        skipped
    }

    pub(super) const fn is_over(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{Packet, ProtocolVersion, Publish, PublishFlags, PublishProperties, encode};

    #[test]
    fn a_message_is_found_by_its_beginning_and_skipped_to_its_end() {
        let flags = PublishFlags { qos: QoS::ExactlyOnce, ..PublishFlags::default() };
        let payload = vec![b'x'; 70_000];
        let packet = Packet::Publish(Publish {
            flags,
            topic: "a/b",
            packet_id: PacketId::new(700),
            properties: PublishProperties::default(),
            payload: &payload,
        });
        let mut bytes = Vec::new();
        encode(&packet, ProtocolVersion::V3_1_1, &mut bytes).unwrap();
        assert_eq!(Oversized::find(&bytes[..8]), Some(None));
        let mut found = Oversized::find(&bytes[..100]).unwrap().unwrap();
        assert_eq!(
            (found.qos, found.packet_id, &*found.topic),
            (flags.qos, PacketId::new(700), "a/b")
        );
        assert_eq!(found.skip(100), 100);
        assert!(!found.is_over());
        assert_eq!(found.skip(80_000), bytes.len() - 100);
        assert!(found.is_over());
        assert_eq!(Oversized::find(&[0x40, 2, 0, 1]), None);
    }
}
