//! The encoding of a message on its way to another node, beside its topic and QoS.
//!
//! Both sides have clocks of their own, so the time until a message expires travels, and not a time of a clock.
//! Knows no lane.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    between::{
        nodes::{MailHere, MailToNodes},
        retained::RetainedMark,
    },
    cluster::{mail::Mail, retaining::RetainedOwner, wire::WireError},
    mqtt::{Message, Publication, Timestamp},
    owners::Owner,
};

/// The version that this node writes. Version 1 had no retained messages.
const VERSION: u8 = 2;

/// The fields, in their order.
#[derive(Serialize, Deserialize)]
struct MailContent<'a> {
    #[serde(borrow)]
    fields: ContentFields<'a>,
    /// The place in the stream of retained messages, and the owner there.
    retained: Option<(u64, Option<RetainedOwner>)>,
}

/// The fields of version 1.
#[derive(Serialize, Deserialize)]
struct ContentFields<'a> {
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
pub(super) fn encode(mail: &MailToNodes, now: Timestamp) -> Bytes {
    let Publication { payload, properties, retain, expires_at, .. } = mail.message.publication();
    let expires_in_millis = expires_at.map(|at| at.since(now).as_millis() as u64);
    let publisher = mail.publisher.as_deref();
    let fields = ContentFields { retain, expires_in_millis, publisher, properties, payload };
    let retained = mail.retained.clone();
    let retained =
        retained.map(|RetainedMark { sequence, owner }| (sequence, owner.map(RetainedOwner::from)));
    let mut begun = Vec::with_capacity(48 + payload.len() + properties.len());
    begun.push(VERSION);
    // It cannot fail: each field has a length.
    let content = MailContent { fields, retained };
    postcard::to_extend(&content, begun).map(Bytes::from).unwrap_or_default()
}

/// Returns the message of a mail that arrives now.
///
/// # Errors
/// Any [`WireError`].
pub(super) fn decode(mail: &Mail, now: Timestamp) -> Result<MailHere, WireError> {
    let damaged = WireError::Damaged(<Mail as crate::cluster::wire::Wire>::KIND);
    let [version, bytes @ ..] = &mail.content[..] else { return Err(damaged) };
    let content = match *version {
        VERSION => postcard::take_from_bytes::<MailContent<'_>>(bytes),
        1 => postcard::take_from_bytes::<ContentFields<'_>>(bytes)
            .map(|(fields, rest)| (MailContent { fields, retained: None }, rest)),
        0 => return Err(damaged),
        later => return Err(WireError::Version(later)),
    };
    let Ok((MailContent { fields, retained }, [])) = content else { return Err(damaged) };
    let ContentFields { retain, expires_in_millis, publisher, properties, payload } = fields;
    let expires_at = expires_in_millis.map(|millis| Timestamp(now.millis().saturating_add(millis)));
    let (topic, qos) = (&*mail.topic, mail.qos);
    let publication = Publication { topic, payload, qos, retain, properties, expires_at };
    let message = Message::within(&mail.content, &publication);
    let retained =
        retained.map(|(sequence, owner)| RetainedMark { sequence, owner: owner.map(Owner::from) });
    Ok(MailHere { message, publisher: publisher.map(Arc::from), retained })
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

    fn to_nodes(
        publication: &Publication<'_>,
        publisher: Option<Arc<str>>,
        retained: Option<RetainedMark>,
    ) -> MailToNodes {
        let message = Arc::new(Message::new(publication));
        MailToNodes { message, plan: Arc::default(), publisher, retained }
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
        let mark = RetainedMark { sequence: 7, owner: Some(Owner::User("ann".into())) };
        for retained in [None, Some(mark)] {
            let publisher = Some("ann".into());
            let sent = to_nodes(&publication, publisher, retained.clone());
            let content = encode(&sent, Timestamp(2_000));
            let arrived = decode(&mail(content), Timestamp(90_000)).unwrap();
            assert_eq!(arrived.publisher.as_deref(), Some("ann"));
            assert_eq!(arrived.retained, retained);
            let expected = Publication { expires_at: Some(Timestamp(93_000)), ..publication };
            assert!(arrived.message.publication() == expected);
        }
    }

    #[test]
    fn version_1_is_read() {
        let written = b"\x01\x01\x01\x05\x01\x03ann\x01p\x02hi";
        let arrived = decode(&mail(Bytes::from_static(written)), Timestamp(10)).unwrap();
        let expected = Publication {
            topic: "a/b",
            payload: b"hi",
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: b"p",
            expires_at: Some(Timestamp(15)),
        };
        assert!(arrived.message.publication() == expected);
        assert_eq!((arrived.publisher.as_deref(), arrived.retained), (Some("ann"), None));
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
        let whole = encode(&to_nodes(&publication, None, None), Timestamp(0));
        for length in 0..whole.len() {
            assert!(decode(&mail(whole.slice(..length)), Timestamp(0)).is_err(), "{length}");
        }
        let later = [&[VERSION + 1], &whole[1..]].concat();
        let error = decode(&mail(later.into()), Timestamp(0)).err();
        assert_eq!(error, Some(WireError::Version(VERSION + 1)));
    }
}
