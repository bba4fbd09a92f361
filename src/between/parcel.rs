//! Messages on their way to another shard, packed one behind the other.
//!
//! A message that no queue holds yet needs no allocation of its own. One core would make such an
//! allocation and another free it, and both would wait for each other's caches. Knows no shard: the
//! publisher's shard packs, and the subscribers' shard unpacks in the same order.

use crate::mqtt::{Publication, QoS, Timestamp};

/// Payloads above this size are shared instead of copied.
const PAYLOAD_BYTES_MAX: usize = 1024;

/// The packed bytes, without their lengths.
#[derive(Default)]
pub(crate) struct Parcel {
    topics: String,
    bytes: Vec<u8>,
}

/// The description of a packed message.
#[derive(Clone, Copy)]
pub(crate) struct Packed {
    topic_bytes: usize,
    property_bytes: usize,
    payload_bytes: usize,
    retain: bool,
    expires_at: Option<Timestamp>,
}

impl Parcel {
    /// Packs a message behind the others; returns `None` if the message needs an allocation of its
    /// own: it is large, or will be acknowledged.
    pub(crate) fn pack(&mut self, publication: &Publication<'_>) -> Option<Packed> {
        let Publication { topic, payload, qos, retain, properties, expires_at } = *publication;
        // QoS 1 and 2 messages stay in the window of their receivers, so they need an allocation anyway.
        if qos != QoS::AtMostOnce || properties.len() + payload.len() > PAYLOAD_BYTES_MAX {
            return None;
        }
        self.topics.push_str(topic);
        self.bytes.extend_from_slice(properties);
        self.bytes.extend_from_slice(payload);
        Some(Packed {
            topic_bytes: topic.len(),
            property_bytes: properties.len(),
            payload_bytes: payload.len(),
            retain,
            expires_at,
        })
    }

    /// Returns an iterator from the first message on.
    pub(crate) fn unpack(&self) -> Unpack<'_> {
        Unpack { topics: &self.topics, bytes: &self.bytes }
    }
}

/// The messages that are not unpacked yet.
pub(crate) struct Unpack<'p> {
    topics: &'p str,
    bytes: &'p [u8],
}

impl<'p> Unpack<'p> {
    /// Returns the next message, which must be the one that `packed` describes.
    pub(crate) fn next(&mut self, packed: Packed) -> Publication<'p> {
        let (topic, topics) = self.topics.split_at(packed.topic_bytes);
        let (properties, rest) = self.bytes.split_at(packed.property_bytes);
        let (payload, bytes) = rest.split_at(packed.payload_bytes);
        *self = Self { topics, bytes };
        let Packed { retain, expires_at, .. } = packed;
        Publication { topic, payload, qos: QoS::AtMostOnce, retain, properties, expires_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_as_it_was() {
        let mut parcel = Parcel::default();
        let of = |topic, payload, properties, expires_at| Publication {
            topic,
            payload,
            qos: QoS::AtMostOnce,
            retain: expires_at == Some(Timestamp(7)),
            properties,
            expires_at,
        };
        let publications = [
            of("ä/1", &b"one"[..], &[][..], None),
            of("b", b"", &[3, 0, 1, b'x'], Some(Timestamp(7))),
            of("c/d", b"three", &[], Some(Timestamp(8))),
        ];
        let packed = publications.each_ref().map(|publication| parcel.pack(publication));
        let mut unpack = parcel.unpack();
        for (publication, packed) in publications.iter().zip(packed) {
            assert!(unpack.next(packed.expect("it is small")) == *publication);
        }
    }

    #[test]
    fn what_is_large_or_acknowledged_is_not_packed() {
        let mut parcel = Parcel::default();
        let large = [0; PAYLOAD_BYTES_MAX + 1];
        for (qos, payload) in [(QoS::AtMostOnce, &large[..]), (QoS::AtLeastOnce, b"x")] {
            let publication = Publication {
                topic: "t",
                payload,
                qos,
                retain: false,
                properties: &[],
                expires_at: None,
            };
            assert!(parcel.pack(&publication).is_none());
        }
    }
}
