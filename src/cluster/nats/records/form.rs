//! How a record is written in a bucket: the key in a subject, and the message.
//!
//! A subject carries letters, digits and a few signs, and is short. A namespace and a key are each one
//! part of it: other bytes are `=` and two hexadecimal digits, and a part that would be longer than 200
//! bytes is a hash. Then the message has the names.
//!
//! ```text
//! 1 byte    version, 1
//! 8 bytes   when the record expires, in milliseconds since 1970; 0: never
//! 1 byte    length of the namespace, 0 if the subject has both names
//! 2 bytes   length of the key
//!           namespace, key, value
//! ```
//! Numbers are little-endian. Any bytes are a record or none.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use crate::{mqtt::Timestamp, records::RecordKey};

/// The version of the form of a message.
const VERSION: u8 = 1;

/// Bytes before the names.
const HEAD_BYTES: usize = 12;

/// Maximum bytes of a part of a subject.
const PART_BYTES_MAX: usize = 200;

/// The prefix of a part that is a hash.
const HASHED: &str = "==";

/// A message of the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordContent {
    /// If the subject does not have the names.
    pub(super) name: Option<RecordKey>,
    pub(super) value: Bytes,
    pub(super) expires_at: Option<Timestamp>,
}

impl RecordContent {
    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// Returns the key in the bucket of a record.
pub(super) fn subject_key(name: &RecordKey) -> String {
    format!("{}.{}", part(name.namespace()), part(name.key()))
}

fn part(text: &str) -> String {
    let mut part = String::with_capacity(text.len());
    for byte in text.bytes() {
        // `.` and `*` and `>` have a meaning in subjects, so only these bytes stay as they are.
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            part.push(byte.into());
        } else {
            part += &format!("={byte:02X}");
        }
    }
    match part.len() {
        0 => "=".to_owned(),
        1..=PART_BYTES_MAX => part,
        _ => Sha256::digest(text)
            .iter()
            .fold(HASHED.to_owned(), |hash, byte| hash + &format!("{byte:02x}")),
    }
}

/// Returns the record that a key in the bucket names; `None` if it does not say, or names none. A record
/// has one key: another spelling of its names is invalid.
pub(super) fn named(key: &str) -> Option<RecordKey> {
    let (namespace, part) = key.split_once('.')?;
    let name = RecordKey::new(&text(namespace)?, &text(part)?)?;
    (subject_key(&name) == key).then_some(name)
}

fn text(part: &str) -> Option<String> {
    if part == "=" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut pieces = part.split('=');
    bytes.extend_from_slice(pieces.next()?.as_bytes());
    for piece in pieces {
        let (digits, plain) = piece.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(plain.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Returns the message of a record.
pub(super) fn encoded(name: &RecordKey, value: &[u8], expires_at: Option<Timestamp>) -> Bytes {
    let key = subject_key(name);
    // A name that is readable from the key is not repeated.
    let (namespace, key) = match key.split('.').any(|part| part.starts_with(HASHED)) {
        true => (name.namespace(), name.key()),
        false => ("", ""),
    };
    let mut message =
        BytesMut::with_capacity(HEAD_BYTES + namespace.len() + key.len() + value.len());
    message.put_u8(VERSION);
    message.put_u64_le(expires_at.map_or(0, Timestamp::millis));
    message.put_u8(namespace.len() as u8); // A namespace has at most 255 bytes.
    message.put_u16_le(key.len() as u16); // A key has at most 4,096 bytes.
    message.put_slice(namespace.as_bytes());
    message.put_slice(key.as_bytes());
    message.put_slice(value);
    message.freeze()
}

/// Reads a message; `None` if it is not one of this version.
pub(super) fn decoded(mut message: Bytes) -> Option<RecordContent> {
    if message.len() < HEAD_BYTES || message.get_u8() != VERSION {
        return None;
    }
    let expires_at = Some(message.get_u64_le()).filter(|at| *at > 0).map(Timestamp);
    let (namespace_len, key_len) = (message.get_u8().into(), message.get_u16_le().into());
    // Lengths that do not fit mean another writer, or damage.
    if message.len() < namespace_len + key_len {
        return None;
    }
    let (namespace, key) = (message.split_to(namespace_len), message.split_to(key_len));
    let name = match namespace_len {
        0 => None,
        _ => Some(RecordKey::new(
            std::str::from_utf8(&namespace).ok()?,
            std::str::from_utf8(&key).ok()?,
        )?),
    };
    Some(RecordContent { name, value: message, expires_at })
}

#[cfg(test)]
mod tests {
    //! Names and messages there and back, an old message, and bytes that are no message.

    use super::*;

    fn name(namespace: &str, key: &str) -> RecordKey {
        RecordKey::new(namespace, key).expect("it is short")
    }

    #[test]
    fn a_subject_has_the_names_or_the_message_does() {
        let long = "k".repeat(4_096);
        let cases = [
            ("bans", "car-17", "bans.car-17"),
            ("app/x", "", "app=2Fx.="),
            ("a.b", "ü* >", "a=2Eb.=C3=BC=2A=20=3E"),
            ("n", "=", "n.=3D"),
        ];
        for (namespace, key, expected) in cases {
            let name = name(namespace, key);
            assert_eq!(subject_key(&name), expected);
            assert_eq!(named(expected), Some(name.clone()));
            assert_eq!(decoded(encoded(&name, b"v", None)).expect("it is one").name, None);
        }
        for name in [name("n", &long), name(&"ü".repeat(100), "k")] {
            let key = subject_key(&name);
            assert!(key.len() < 300, "{key}");
            assert_eq!(named(&key), None);
            assert_eq!(decoded(encoded(&name, b"v", None)).expect("it is one").name, Some(name));
        }
        assert_ne!(subject_key(&name("n", &long)), subject_key(&name("n", &long[1..])));
        for none in ["", "=swept", "a", "=.k", "n.=4", "n.=61", "n.=xx", "n.=FF", "n.é"] {
            assert_eq!(named(none), None, "{none}");
        }
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for expires_at in [None, Some(Timestamp(u64::MAX))] {
            let content = decoded(encoded(&name("n", "k"), b"value", expires_at));
            let expected =
                RecordContent { name: None, value: Bytes::from_static(b"value"), expires_at };
            assert_eq!(content, Some(expected));
        }
        // Version 1, as written on 2026-11-30: a new version must read it.
        let old = b"\x01\x10\x27\0\0\0\0\0\0\0\0\0old value";
        let old = decoded(Bytes::from_static(old)).expect("it is one");
        assert_eq!((&old.value[..], old.expires_at), (&b"old value"[..], Some(Timestamp(10_000))));
    }

    #[test]
    fn any_bytes_are_a_message_or_none() {
        let message = encoded(&name("n", &"k".repeat(4_096)), b"value", Some(Timestamp(1)));
        for end in 0..message.len() - 5 {
            assert_eq!(decoded(message.slice(..end)), None, "{end}");
        }
        for at in 0..40 {
            for byte in [0, 1, 0x7F, 0xFF] {
                let mut changed = message.to_vec();
                changed[at] = byte;
                drop(decoded(changed.into()));
            }
        }
    }
}
