//! The encoding of a message on its way to another node, beside its topic and QoS.
//!
//! Both sides have clocks of their own, so the time until a message expires travels, and not a time of a clock.
//! Knows no lane.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    between::nodes::MailHere,
    cluster::{
        mail::Mail,
        wire::{VERSION, WireError},
    },
    mqtt::{Message, Publication, Timestamp},
};

/// The fields, in their order.
#[derive(Serialize, Deserialize)]
struct MailContent<'a> {
    retain: bool,
    expires_in_millis: Option<u64>,
    publisher: Option<&'a str>,
    #[serde(serialize_with = "run_of_bytes")]
    properties: &'a [u8],
    #[serde(serialize_with = "run_of_bytes")]
    payload: &'a [u8],
}

fn run_of_bytes<S: Serializer>(bytes: &&[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

/// Returns the bytes of a message that leaves now.
pub(super) fn encode(message: &Message, publisher: Option<&str>, now: Timestamp) -> Bytes {
    let Publication { payload, properties, retain, expires_at, .. } = message.publication();
    let expires_in_millis = expires_at.map(|at| at.since(now).as_millis() as u64);
    let content = MailContent { retain, expires_in_millis, publisher, properties, payload };
    let mut begun = Vec::with_capacity(32 + payload.len() + properties.len());
    begun.push(VERSION);
    // It cannot fail: each field has a length.
    postcard::to_extend(&content, begun).map(Bytes::from).unwrap_or_default()
}

/// Returns the message of a mail that arrives now.
///
/// # Errors
/// Any [`WireError`].
pub(super) fn decode(mail: &Mail, now: Timestamp) -> Result<MailHere, WireError> {
    let damaged = WireError::Damaged(<Mail as crate::cluster::wire::Wire>::KIND);
    let [version, fields @ ..] = &mail.content[..] else { return Err(damaged) };
    match *version {
        VERSION => {}
        0 => return Err(damaged),
        later => return Err(WireError::Version(later)),
    }
    let Ok((content, [])) = postcard::take_from_bytes::<MailContent<'_>>(fields) else {
        return Err(damaged);
    };
    let MailContent { retain, expires_in_millis, publisher, properties, payload } = content;
    let expires_at = expires_in_millis.map(|millis| Timestamp(now.millis().saturating_add(millis)));
    let (topic, qos) = (&*mail.topic, mail.qos);
    let publication = Publication { topic, payload, qos, retain, properties, expires_at };
    let message = Message::within(&mail.content, &publication);
    Ok(MailHere { message, publisher: publisher.map(Arc::from) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::names::{Incarnation, MessageId, MessageSource},
        mqtt::QoS,
    };

    fn mail(content: Bytes) -> Mail {
        let source = MessageSource { store: 1, incarnation: Incarnation(1), shard: 0 };
        let id = MessageId { source, number: 1 };
        Mail { id, qos: QoS::ExactlyOnce, is_alone: true, topic: "a/b".into(), content }
    }

    #[test]
    fn a_message_arrives_as_it_left_and_expires_after_the_same_time() {
        let publication = Publication {
            topic: "a/b",
            payload: &[7; 20_000],
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: b"properties",
            expires_at: Some(Timestamp(5_000)),
        };
        let content = encode(&Message::new(&publication), Some("ann"), Timestamp(2_000));
        let arrived = decode(&mail(content), Timestamp(90_000)).unwrap();
        assert_eq!(arrived.publisher.as_deref(), Some("ann"));
        let expected = Publication { expires_at: Some(Timestamp(93_000)), ..publication };
        assert!(arrived.message.publication() == expected);
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let publication = Publication {
            topic: "a/b",
            payload: b"payload",
            qos: QoS::AtMostOnce,
            retain: false,
            properties: b"",
            expires_at: None,
        };
        let whole = encode(&Message::new(&publication), None, Timestamp(0));
        for length in 0..whole.len() {
            assert!(decode(&mail(whole.slice(..length)), Timestamp(0)).is_err(), "{length}");
        }
        let later = [&[VERSION + 1], &whole[1..]].concat();
        let error = decode(&mail(later.into()), Timestamp(0)).err();
        assert_eq!(error, Some(WireError::Version(VERSION + 1)));
    }
}
