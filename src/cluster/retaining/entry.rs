//! The encoding of a retained message in the stream, and its key there.
//!
//! The message has the topic, because a long one is a hash in the subject. The time of its expiry is that of the
//! clock of its node, because the stream is read at any later time. Knows no stream.

use std::{fmt::Write as _, net::IpAddr, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    cluster::wire::{self, Wire, octets, qos_number},
    mqtt::{Message, Publication, QoS, Timestamp},
    owners::Owner,
};

/// How long the stream keeps the mark of a removal. A node that was away longer compares all of its messages.
pub(super) const REMOVAL_KEPT_SECS: u64 = 7 * 24 * 3_600;
/// How much longer than until its expiry the stream keeps a message, because clocks differ.
const EXPIRED_KEPT_SECS: u64 = 60;
/// Maximum bytes of a topic in a subject; a longer one is a hash.
const KEY_BYTES_MAX: usize = 200;

/// A message of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedEntry {
    /// The Topic Name.
    pub topic: Box<str>,
    /// The message; `None` marks its removal.
    pub content: Option<RetainedContent>,
}

/// The content of a retained message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedContent {
    /// Its QoS.
    #[serde(with = "qos_number")]
    pub qos: QoS,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_millis: Option<u64>,
    /// The owner that it counts for; `None` for the broker's own.
    pub owner: Option<RetainedOwner>,
    /// Its encoded properties.
    #[serde(with = "octets")]
    pub properties: Bytes,
    /// Its payload.
    #[serde(with = "octets")]
    pub payload: Bytes,
}

/// The owner of a retained message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetainedOwner {
    /// A user name.
    User(Box<str>),
    /// The network of clients without a user name.
    Network(IpAddr),
}

impl Wire for RetainedEntry {
    const KIND: u8 = 30;
}

impl From<Owner> for RetainedOwner {
    fn from(owner: Owner) -> Self {
        match owner {
            Owner::User(name) => Self::User((*name).into()),
            Owner::Address(network) => Self::Network(network),
        }
    }
}

impl From<RetainedOwner> for Owner {
    fn from(owner: RetainedOwner) -> Self {
        match owner {
            RetainedOwner::User(name) => Self::User(name.into()),
            RetainedOwner::Network(network) => Self::Address(network),
        }
    }
}

/// A message as it is written.
#[derive(Clone, Debug)]
pub(super) struct EncodedEntry {
    pub(super) bytes: Bytes,
    /// The time after which the stream drops it; `None`: never.
    pub(super) kept_secs: Option<u64>,
}

/// Encodes a message; an empty payload removes the retained one of its topic.
pub(super) fn encode(message: &Message, owner: Option<Owner>, now: Timestamp) -> EncodedEntry {
    let Publication { topic, payload, qos, properties, expires_at, .. } = message.publication();
    let content = (!payload.is_empty()).then(|| RetainedContent {
        qos,
        expires_at_millis: expires_at.map(Timestamp::millis),
        owner: owner.map(RetainedOwner::from),
        properties: Bytes::copy_from_slice(properties),
        payload: message.payload_bytes(),
    });
    let kept_secs = match (&content, expires_at) {
        (None, _) => Some(REMOVAL_KEPT_SECS),
        (Some(_), Some(at)) => Some(at.since(now).as_secs() + EXPIRED_KEPT_SECS),
        (Some(_), None) => None,
    };
    let bytes = wire::encode(&RetainedEntry { topic: topic.into(), content });
    EncodedEntry { bytes, kept_secs }
}

impl RetainedContent {
    /// Returns the message, with its owner.
    pub(super) fn into_message(self, topic: &str, now: Timestamp) -> (Arc<Message>, Option<Owner>) {
        let publication = Publication {
            topic,
            payload: &self.payload,
            qos: self.qos,
            retain: true,
            properties: &self.properties,
            expires_at: self.expires_at_millis.map(Timestamp),
        };
        let message = Message::within(&self.payload, &publication).received(now);
        (Arc::new(message), self.owner.map(Owner::from))
    }
}

/// Returns the part of a subject for a topic: bytes other than letters, digits, `-` and `_` are `=` and two
/// hexadecimal digits; a long topic is `==` and its SHA-256.
pub(super) fn key(topic: &str) -> String {
    let mut key = String::with_capacity(topic.len() + 8);
    for byte in topic.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            key.push(byte.into());
        } else {
            let _ = write!(key, "={byte:02X}"); // A String takes everything.
        }
        if key.len() > KEY_BYTES_MAX {
            key.clear();
            key.push_str("==");
            for byte in Sha256::digest(topic) {
                let _ = write!(key, "{byte:02x}");
            }
            break;
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8], expires_at: Option<Timestamp>) -> Message {
        Message::new(&Publication {
            topic: "home/ä",
            payload,
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: b"properties",
            expires_at,
        })
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let owners =
            [None, Some(Owner::User("ann".into())), Some(Owner::Address([10, 0, 0, 1].into()))];
        for owner in owners {
            for expires_at in [None, Some(Timestamp(9_000))] {
                let written = message(b"payload", expires_at);
                let EncodedEntry { bytes, kept_secs } =
                    encode(&written, owner.clone(), Timestamp(4_000));
                assert_eq!(kept_secs, expires_at.map(|_| 65));
                let entry = wire::decode::<RetainedEntry>(&bytes).unwrap();
                let (read, by) = entry.content.unwrap().into_message(&entry.topic, Timestamp(1));
                assert!(read.publication() == written.publication());
                assert_eq!(by, owner);
            }
        }
        let EncodedEntry { bytes, kept_secs } = encode(&message(b"", None), None, Timestamp(0));
        assert_eq!(kept_secs, Some(REMOVAL_KEPT_SECS));
        let entry = wire::decode::<RetainedEntry>(&bytes).unwrap();
        assert_eq!(entry, RetainedEntry { topic: "home/ä".into(), content: None });
    }

    #[test]
    fn version_1_is_read() {
        let written = b"\x01\x1e\x03a/b\x01\x01\x01\xa8\x46\x01\x00\x03ann\x01p\x02hi";
        let content = RetainedContent {
            qos: QoS::AtLeastOnce,
            expires_at_millis: Some(9_000),
            owner: Some(RetainedOwner::User("ann".into())),
            properties: Bytes::from_static(b"p"),
            payload: Bytes::from_static(b"hi"),
        };
        let entry = RetainedEntry { topic: "a/b".into(), content: Some(content) };
        assert_eq!(wire::decode::<RetainedEntry>(written), Ok(entry.clone()));
        assert_eq!(wire::encode(&entry), &written[..]);
    }

    #[test]
    fn each_topic_has_a_key_of_its_own_that_a_subject_can_carry() {
        assert_eq!(key("home/kitchen-1/state_x"), "home=2Fkitchen-1=2Fstate_x");
        assert_eq!(key("a.b *>ä="), "a=2Eb=20=2A=3E=C3=A4=3D");
        let long = "k/".repeat(30_000);
        assert_eq!((key(&long).len(), &key(&long)[..2]), (66, "=="));
        assert_ne!(key(&long), key(&long[2..]));
        let edge = "k".repeat(KEY_BYTES_MAX);
        assert_eq!(key(&edge), edge);
        assert_eq!(key(&(edge + "k")).len(), 66);
    }
}
