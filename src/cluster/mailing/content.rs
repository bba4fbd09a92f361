//! The encoding of a message on its way to another node, beside its topic and QoS.
//!
//! Before the fields is the place in the log of routes with which the message was planned (`cuts.rs`).
//!
//! Both sides have clocks of their own, so the time until a message expires travels, and not a time of a clock.
//! Knows no lane.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    between::{
        nodes::{GroupMail, MailHere, MailToNodes, RoutesPlace, VisitedNodes},
        retained::RetainedMark,
    },
    cluster::{mail::Mail, names::NodeId, retaining::RetainedOwner, wire::WireError},
    mqtt::{Message, Publication, Timestamp},
    owners::Owner,
};

/// The version that this node writes. Version 1 had neither retained messages nor groups, and version 2 no place.
const VERSION: u8 = 3;

/// The fields, in their order.
#[derive(Serialize, Deserialize)]
struct MailContent<'a> {
    #[serde(borrow)]
    fields: ContentFields<'a>,
    /// The place in the stream of retained messages, and the owner there.
    retained: Option<(u64, Option<RetainedOwner>)>,
    /// The shared subscription that it is for, and the nodes that have searched for a member.
    #[serde(borrow)]
    group: Option<(&'a str, Vec<&'a str>)>,
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

/// A message that has arrived.
pub(super) struct ArrivedContent {
    /// The message. The nodes of its group are not in it.
    pub(super) here: MailHere,
    /// The nodes that have searched for a member of its group.
    pub(super) visited: Vec<NodeId>,
    /// The place in the log of routes with which it was planned.
    pub(super) planned_with: RoutesPlace,
}

/// Returns the bytes of a message that leaves now. `name` gives the names of nodes that have searched.
pub(super) fn encode<'a>(
    mail: &'a MailToNodes,
    me: &'a NodeId,
    name: impl Fn(u32) -> Option<&'a NodeId>,
    planned_with: RoutesPlace,
    now: Timestamp,
) -> Bytes {
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
    let group = mail.group.as_ref().map(|(group, _)| {
        let me = group.has_searched.then_some(me);
        let visited = group.visited.numbers().filter_map(name).chain(me);
        (&*group.filter, visited.map(NodeId::as_str).collect())
    });
    let content = MailContent { fields, retained, group };
    let placed = postcard::to_extend(&planned_with.0, begun).unwrap_or_default();
    postcard::to_extend(&content, placed).map(Bytes::from).unwrap_or_default()
}

/// Returns the message of a mail that arrives now.
///
/// # Errors
/// Any [`WireError`].
pub(super) fn decode(mail: &Mail, now: Timestamp) -> Result<ArrivedContent, WireError> {
    let damaged = WireError::Damaged(<Mail as crate::cluster::wire::Wire>::KIND);
    let [version, bytes @ ..] = &mail.content[..] else { return Err(damaged) };
    let (place, bytes) = match *version {
        VERSION => postcard::take_from_bytes::<u64>(bytes).map_err(|_| damaged)?,
        _ => (0, bytes),
    };
    let content = match *version {
        VERSION | 2 => postcard::take_from_bytes::<MailContent<'_>>(bytes),
        1 => postcard::take_from_bytes::<ContentFields<'_>>(bytes)
            .map(|(fields, rest)| (MailContent { fields, retained: None, group: None }, rest)),
        0 => return Err(damaged),
        later => return Err(WireError::Version(later)),
    };
    let Ok((MailContent { fields, retained, group }, [])) = content else { return Err(damaged) };
    let ContentFields { retain, expires_in_millis, publisher, properties, payload } = fields;
    let expires_at = expires_in_millis.map(|millis| Timestamp(now.millis().saturating_add(millis)));
    let (topic, qos) = (&*mail.topic, mail.qos);
    let publication = Publication { topic, payload, qos, retain, properties, expires_at };
    let message = Message::within(&mail.content, &publication);
    let retained =
        retained.map(|(sequence, owner)| RetainedMark { sequence, owner: owner.map(Owner::from) });
    let (filter, visited) = group.unzip();
    let visited = visited.unwrap_or_default().into_iter().filter_map(NodeId::new).collect();
    let group = filter.map(|filter| GroupMail {
        filter: filter.into(),
        visited: VisitedNodes::default(),
        has_searched: false,
    });
    let here = MailHere { message, publisher: publisher.map(Arc::from), retained, group };
    Ok(ArrivedContent { here, visited, planned_with: RoutesPlace(place) })
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
        MailToNodes { message, plan: Arc::default(), publisher, retained, group: None }
    }

    fn encoded(mail: &MailToNodes, now: Timestamp) -> Bytes {
        let (me, other) = (NodeId::new("a").unwrap(), NodeId::new("b").unwrap());
        let name = |number| (number == 7).then_some(&other);
        encode(mail, &me, name, RoutesPlace(300), now)
    }

    #[test]
    fn the_nodes_that_have_searched_travel_with_a_message_of_a_group() {
        let publication = Publication {
            topic: "a/b",
            payload: b"payload",
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: b"",
            expires_at: None,
        };
        let mut visited = VisitedNodes::default();
        visited.add(7);
        visited.add(500);
        assert!(!visited.may_visit(7) && !visited.may_visit(500) && visited.may_visit(8));
        let group = GroupMail { filter: "$share/g/a/+".into(), visited, has_searched: true };
        let sent = to_nodes(&publication, None, None);
        let sent = MailToNodes { group: Some((group, 7)), ..sent };
        assert_eq!(sent.nodes().collect::<Vec<_>>(), [7]);
        let arrived = decode(&mail(encoded(&sent, Timestamp(0))), Timestamp(0)).unwrap();
        let names: Vec<_> = arrived.visited.iter().map(NodeId::as_str).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(&*arrived.here.group.unwrap().filter, "$share/g/a/+");
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
            let content = encoded(&sent, Timestamp(2_000));
            let arrived = decode(&mail(content), Timestamp(90_000)).unwrap();
            assert_eq!(arrived.planned_with, RoutesPlace(300));
            let arrived = arrived.here;
            assert_eq!(arrived.publisher.as_deref(), Some("ann"));
            assert_eq!(arrived.retained, retained);
            let expected = Publication { expires_at: Some(Timestamp(93_000)), ..publication };
            assert!(arrived.message.publication() == expected);
        }
    }

    #[test]
    fn version_1_is_read() {
        let written = b"\x01\x01\x01\x05\x01\x03ann\x01p\x02hi";
        let arrived = decode(&mail(Bytes::from_static(written)), Timestamp(10)).unwrap().here;
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
    fn version_2_is_read() {
        let written = b"\x02\x01\x00\x01\x03ann\x01p\x02hi\x01\x07\x01\x00\x03ann\x01\x0c$share/g/a/+\x02\x01b\x01a";
        let arrived = decode(&mail(Bytes::from_static(written)), Timestamp(10)).unwrap();
        assert_eq!(arrived.here.message.payload(), b"hi");
        assert_eq!(arrived.planned_with, RoutesPlace(0));
        // Version 3 has a place before the fields.
        let placed = [b"\x03\x09", &written[1..]].concat();
        let placed = decode(&mail(placed.into()), Timestamp(10)).unwrap();
        assert_eq!(
            (placed.planned_with, placed.visited),
            (RoutesPlace(9), arrived.visited.clone())
        );
        let mark = RetainedMark { sequence: 7, owner: Some(Owner::User("ann".into())) };
        assert_eq!(arrived.here.retained, Some(mark));
        assert_eq!(&*arrived.here.group.unwrap().filter, "$share/g/a/+");
        let names: Vec<_> = arrived.visited.iter().map(NodeId::as_str).collect();
        assert_eq!(names, ["b", "a"]);
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
        let whole = encoded(&to_nodes(&publication, None, None), Timestamp(0));
        for length in 0..whole.len() {
            assert!(decode(&mail(whole.slice(..length)), Timestamp(0)).is_err(), "{length}");
        }
        let later = [&[VERSION + 1], &whole[1..]].concat();
        let error = decode(&mail(later.into()), Timestamp(0)).err();
        assert_eq!(error, Some(WireError::Version(VERSION + 1)));
    }
}
