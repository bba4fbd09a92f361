//! A stand-in for the shards of a node: sessions with their queues, on a disk that a death does not lose.
//!
//! One client has one session with at most one subscription, to the topic of its own name. The real shard
//! will stand here: the node needs no more of it than these functions.

use std::collections::BTreeMap;

use bytes::Bytes;
use hearthmq::{
    internals::cluster::{
        attempts::AttemptAnswers,
        forwards::{Forward, ForwardNumber},
        had::HadMessages,
        lanes::Mail,
        names::{ClientKey, Incarnation, MessageId, MessageSource, NodeId, Term},
        owners::{CustodyState, LeftWhole, OlderCopy, Tombstone},
        wire::{self, Wire},
    },
    mqtt::QoS,
};
use serde::{Deserialize, Serialize};

/// Number of messages that travel with a hand-over; the rest is forwarded.
const COPY_MESSAGES_MAX: usize = 4;

/// A message that waits for its client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Queued {
    pub(super) mail: Mail,
    /// Whether the client may have it, under its Packet Identifier.
    pub(super) is_sent: bool,
}

impl Queued {
    /// Returns whether only the client knows if it has the message for good.
    const fn is_doubtful(&self) -> bool {
        self.is_sent && matches!(self.mail.qos, QoS::ExactlyOnce)
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) is_subscribed: bool,
    pub(super) queue: Vec<Queued>,
    /// What has been put into the queue, as far as there may be another copy.
    pub(super) seen: HadMessages,
}

impl Wire for Session {
    const KIND: u8 = 200;
}

/// A session, and how it is held.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) term: Term,
    pub(super) state: CustodyState,
    /// Up to where the queue was offered.
    pub(super) position: Option<usize>,
    pub(super) session: Session,
}

/// What survives the death of its node.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) store: u64,
    pub(super) incarnation: Incarnation,
    pub(super) sessions: BTreeMap<ClientKey, Kept>,
    pub(super) pending: BTreeMap<ClientKey, (Term, Option<Session>)>,
    pub(super) tombstones: BTreeMap<ClientKey, Tombstone>,
    pub(super) forwards: BTreeMap<ForwardNumber, Forward>,
    pub(super) shadows: BTreeMap<(NodeId, ClientKey), Vec<Mail>>,
    /// Mail that waits for a previous holder.
    pub(super) beside: BTreeMap<ClientKey, Vec<Mail>>,
    /// What sessions had that have left: for questions about the past.
    pub(super) had: BTreeMap<ClientKey, HadMessages>,
    /// What other nodes were answered about messages for sessions.
    pub(super) answers: AttemptAnswers,
    pub(super) next_message: u64,
}

/// What a node does with a session that has left.
pub(super) struct Left {
    pub(super) forwards: Vec<Mail>,
    /// QoS 2 that was sent to the client and not completed: neither repeated nor dropped safely.
    pub(super) in_doubt: Vec<MessageId>,
    pub(super) was_subscribed: bool,
}

impl Disk {
    pub(super) fn next_id(&mut self) -> MessageId {
        self.next_message += 1;
        let source = MessageSource { store: self.store, incarnation: self.incarnation, shard: 0 };
        MessageId { source, number: self.next_message }
    }

    /// Notes an offer, and returns the copy.
    pub(super) fn offer(&mut self, key: ClientKey, term: Term) -> Option<(Bytes, bool)> {
        let kept = self.sessions.get_mut(&key)?;
        let is_repeated = kept.state == CustodyState::Offered(term);
        let position = kept.position.filter(|_| is_repeated);
        let position = position.unwrap_or_else(|| kept.session.queue.len().min(COPY_MESSAGES_MAX));
        (kept.state, kept.position) = (CustodyState::Offered(term), Some(position));
        for queued in &mut kept.session.queue[..position] {
            queued.mail.is_alone = false; // From now on, there is a copy.
            kept.session.seen.insert(queued.mail.id);
        }
        let mut copy = kept.session.clone();
        let rest = copy.queue.split_off(position);
        for queued in &rest {
            copy.seen.remove(&queued.mail.id);
        }
        Some((wire::encode(&copy), !rest.is_empty()))
    }

    /// Makes the pending copy the session, with what an own older copy adds.
    pub(super) fn settle(&mut self, key: ClientKey, term: Term, own: OlderCopy) {
        let pending = self.pending.remove(&key);
        let handed = pending.and_then(|(_, session)| session);
        let older = self.sessions.remove(&key);
        let had = self.had.remove(&key).unwrap_or_default();
        let mut session = handed.unwrap_or_default();
        let was_handed = session.seen.clone();
        session.seen.extend(had);
        if let Some(older) = older {
            let from = older.position.filter(|_| own == OlderCopy::BehindOffer).unwrap_or(0);
            session.is_subscribed |= older.session.is_subscribed;
            let mut seen = older.session.seen;
            for (at, queued) in older.session.queue.into_iter().enumerate() {
                let id = queued.mail.id;
                if at < from {
                    if !queued.is_doubtful() {
                        seen.remove(&id); // Handed over: its next holder may send it back.
                    }
                    continue;
                }
                let is_there = session.queue.iter().any(|other| other.mail.id == id);
                if !was_handed.contains(&id) && !is_there {
                    session.queue.push(queued);
                }
            }
            session.seen.extend(seen);
        }
        self.tombstones.remove(&key);
        self.sessions.insert(key, Kept { term, state: CustodyState::Own, position: None, session });
    }

    /// Ends a session that another node has now.
    pub(super) fn leave(&mut self, key: ClientKey, to: &Tombstone, whole: LeftWhole) -> Left {
        self.tombstones.insert(key, to.clone());
        let mut left = Left { forwards: Vec::new(), in_doubt: Vec::new(), was_subscribed: false };
        let Some(kept) = self.sessions.remove(&key) else { return left };
        left.was_subscribed = kept.session.is_subscribed;
        let from = kept.position.filter(|_| whole == LeftWhole::BehindOffer).unwrap_or(0);
        let mut seen = kept.session.seen;
        for (at, queued) in kept.session.queue.into_iter().enumerate() {
            let (is_doubtful, mail) = (queued.is_doubtful(), queued.mail);
            if !is_doubtful {
                seen.remove(&mail.id); // Handed over or forwarded: only what was delivered counts.
            }
            if at >= from && is_doubtful {
                left.in_doubt.push(mail.id);
            } else if at >= from {
                left.forwards.push(mail);
            }
        }
        self.had.entry(key).or_default().extend(seen);
        left
    }
}
