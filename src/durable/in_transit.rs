//! Messages on their way from one shard to another, which must arrive exactly once.
//!
//! The publisher's shard acknowledges a QoS 2 message to its publisher; other shards store it for
//! their sessions. If the broker ended between these two steps, the message would be lost, or
//! doubled when the publisher sends it again. So the publisher's shard stores, in one group with
//! the acknowledgement, that the message is on its way. The other shard removes that entry in one
//! group with the message that it stores. An entry that a start finds has not arrived, and is
//! delivered then.
//!
//! The entries are in the queue of a session of the broker's own, so that stores need no new kind
//! of data; the Subscription Identifiers of that session give each entry's target. Knows no shard
//! and no store.

use std::sync::Arc;

use crate::{
    journal::{QueuePlace, QueuedMessage, SessionNumber, SessionRecord},
    mqtt::{Message, QoS, Timestamp},
    router::{Homes, ShardNumber},
};

/// The session whose queue holds the messages in transit.
pub(crate) const IN_TRANSIT: SessionNumber = SessionNumber(0);

/// The destination of a message in transit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The sessions of one shard that have subscribed to its topic; the shard as it was then.
    Shard(Homes, ShardNumber),
    /// A member of a shared subscription.
    Group(Arc<str>),
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnItsWay {
    pub(crate) message: Arc<Message>,
    /// The session that published it.
    pub(crate) publisher: SessionNumber,
    pub(crate) to: Destination,
}

impl OnItsWay {
    /// Returns the message as an entry of the queue of [`IN_TRANSIT`].
    pub(crate) fn into_queued(self) -> QueuedMessage {
        let Self { message, publisher, to } = self;
        let halves = |number: u64| [(number >> 32) as u32, number as u32];
        // Subscription Identifiers have 32 bits, the numbers have 64.
        let mut identifiers = halves(publisher.0).to_vec();
        let share = match to {
            Destination::Group(filter) => Some(filter),
            Destination::Shard(Homes { seed, shards }, shard) => {
                identifiers.extend(halves(seed));
                identifiers.extend([u32::from(shards), u32::from(shard.0)]);
                None
            }
        };
        let retain = message.publication().retain;
        let qos = QoS::ExactlyOnce;
        QueuedMessage { message, qos, retain, identifiers: Some(identifiers.into()), share }
    }

    /// Returns the message of such an entry; `None` if the entry is of another kind.
    pub(crate) fn from_queued(queued: QueuedMessage) -> Option<Self> {
        let whole = |halves: &[u32]| u64::from(halves[0]) << 32 | u64::from(halves[1]);
        let identifiers = queued.identifiers?;
        // The number of identifiers tells both kinds of destination apart.
        let (publisher, to) = match (&identifiers[..], queued.share) {
            (publisher @ [_, _], Some(filter)) => (publisher, Destination::Group(filter)),
            ([publisher @ .., seed_high, seed_low, shards, shard], None)
                if publisher.len() == 2 =>
            {
                let seed = whole(&[*seed_high, *seed_low]);
                let shards = u16::try_from(*shards).ok()?;
                // A damaged entry must not cause a division by zero when homes are computed.
                let shard = ShardNumber(u16::try_from(*shard).ok()?);
                (publisher, Destination::Shard(Homes { seed, shards: shards.max(1) }, shard))
            }
            _ => return None,
        };
        let publisher = SessionNumber(whole(publisher));
        Some(Self { message: queued.message, publisher, to })
    }
}

/// Returns the record of that session for the store.
pub(crate) fn record() -> SessionRecord {
    SessionRecord {
        // The broker assigns an identifier to a client that sends none, so no client has an empty one.
        client_id: "".into(),
        username: None,
        expiry_interval_secs: u32::MAX,
        ends_at: None,
        is_connected: false,
        doubtful_up_to: QueuePlace(0),
        peer: "".into(),
        connected_at: Timestamp(0),
        login: None,
    }
}

/// The first place of its queue.
pub(crate) const FIRST: QueuePlace = QueuePlace(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::Publication;

    #[test]
    fn what_is_on_its_way_is_found_as_it_was_sent() {
        let publication = Publication {
            topic: "t",
            payload: b"x",
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: &[],
            expires_at: None,
        };
        let message = Arc::new(Message::new(&publication));
        let homes = Homes::new(3);
        for to in
            [Destination::Shard(homes, ShardNumber(2)), Destination::Group("$share/g/t".into())]
        {
            let publisher = SessionNumber(u64::MAX - 17);
            let sent = OnItsWay { message: message.clone(), publisher, to };
            assert_eq!(OnItsWay::from_queued(sent.clone().into_queued()), Some(sent));
        }
        let queued = QueuedMessage {
            message,
            qos: QoS::ExactlyOnce,
            retain: false,
            identifiers: Some([1, 2, 3].into()),
            share: None,
        };
        assert_eq!(OnItsWay::from_queued(queued), None);
    }
}
