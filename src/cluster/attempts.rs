//! The answers of this node to other nodes that tried to give it a message: the messages that it took, and those
//! that it will not take any more.
//!
//! A copy of a message is at one node at a time. A node that gives a copy to another node and gets no answer
//! does not know which of the two has it, so it asks. The answer must be the same at any later time, also
//! when the message has been delivered or passed on meanwhile. So it is stored with the message.
//!
//! Bounded for each node that asks. Knows neither sessions nor messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::names::{ClientKey, MessageId, NodeId};

/// Maximum number of answers of each kind that are kept for one node.
pub const ANSWERS_MAX: usize = 4_096;

/// One attempt of a node to give away a copy of a message, or its question about the attempts so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyAttempt {
    /// The number of the copy at this node, which may have several copies of one message by different ways.
    pub copy: u64,
    /// The number of the attempt. A node numbers all its copies and attempts, over all its lives.
    pub attempt: u64,
    /// Whether the copy was first given to the same node on its lane, and came back when that ended.
    pub was_on_lane: bool,
}

/// The number of a copy on a lane: each node gets one of a message.
pub const LANE_COPY: u64 = 0;

/// A message for the session of a client.
type Name = (ClientKey, MessageId);

/// The answers to one node.
#[derive(Clone, Debug, Default)]
struct SenderAnswers {
    /// The copies that were taken, with their order.
    taken: BTreeMap<(Name, u64), u64>,
    taken_next: u64,
    /// Attempts up to this one are refused.
    refused: BTreeMap<Name, u64>,
    /// Attempts of all messages up to this one are refused: in place of answers that are not kept.
    refused_floor: u64,
}

/// The answers to all nodes.
#[derive(Clone, Debug, Default)]
pub struct AttemptAnswers {
    senders: BTreeMap<NodeId, SenderAnswers>,
}

impl AttemptAnswers {
    /// Returns whether this copy was taken, so that it is or was at this node.
    pub fn is_taken(
        &self,
        from: &NodeId,
        key: ClientKey,
        id: MessageId,
        attempt: CopyAttempt,
    ) -> bool {
        let Some(sender) = self.senders.get(from) else { return false };
        let has = |copy| sender.taken.contains_key(&((key, id), copy));
        has(attempt.copy) || (attempt.was_on_lane && has(LANE_COPY))
    }

    /// Returns whether this attempt or a later one was refused.
    pub fn is_refused(
        &self,
        from: &NodeId,
        key: ClientKey,
        id: MessageId,
        attempt: CopyAttempt,
    ) -> bool {
        let Some(sender) = self.senders.get(from) else { return false };
        let refused = sender.refused.get(&(key, id)).copied().unwrap_or_default();
        attempt.attempt <= refused.max(sender.refused_floor)
    }

    /// Notes that a copy was taken; the driver stores this with the message.
    pub fn handle_taken(&mut self, from: &NodeId, key: ClientKey, id: MessageId, copy: u64) {
        let sender = self.senders.entry(from.clone()).or_default();
        sender.taken_next += 1;
        sender.taken.insert(((key, id), copy), sender.taken_next);
        if sender.taken.len() > ANSWERS_MAX {
            remove_oldest(&mut sender.taken);
        }
    }

    /// Notes that the attempts so far were refused, and those that are still on their way.
    pub fn handle_refused(
        &mut self,
        from: &NodeId,
        key: ClientKey,
        id: MessageId,
        attempt: CopyAttempt,
    ) {
        let sender = self.senders.entry(from.clone()).or_default();
        let refused = sender.refused.entry((key, id)).or_default();
        // The highest attempt that was refused covers all before it.
        *refused = (*refused).max(attempt.attempt);
        // A refusal that is forgotten becomes one of all attempts of its age, which are made again.
        if sender.refused.len() > ANSWERS_MAX {
            let oldest = remove_oldest(&mut sender.refused);
            sender.refused_floor = sender.refused_floor.max(oldest);
        }
    }
}

/// Removes the entry with the lowest number; returns the number.
fn remove_oldest<K: Copy + Ord>(answers: &mut BTreeMap<K, u64>) -> u64 {
    let oldest = answers.iter().min_by_key(|(_, number)| **number);
    let Some((name, number)) = oldest.map(|(name, number)| (*name, *number)) else { return 0 };
    answers.remove(&name);
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::names::{Incarnation, MessageSource};

    const KEY: ClientKey = ClientKey(5);

    fn id(number: u64) -> MessageId {
        let source = MessageSource { store: 1, incarnation: Incarnation(3), shard: 0 };
        MessageId { source, number }
    }

    fn node() -> NodeId {
        NodeId::new("n1").unwrap()
    }

    const fn of(copy: u64, attempt: u64) -> CopyAttempt {
        CopyAttempt { copy, attempt, was_on_lane: false }
    }

    #[test]
    fn a_copy_that_was_taken_says_nothing_about_another_one() {
        let mut answers = AttemptAnswers::default();
        answers.handle_taken(&node(), KEY, id(1), 4);
        assert!(answers.is_taken(&node(), KEY, id(1), of(4, 9)));
        assert!(!answers.is_taken(&node(), KEY, id(1), of(5, 9)));
        assert!(!answers.is_taken(&node(), ClientKey(6), id(1), of(4, 9)));
        let from_lane = CopyAttempt { was_on_lane: true, ..of(5, 9) };
        assert!(!answers.is_taken(&node(), KEY, id(1), from_lane));
        answers.handle_taken(&node(), KEY, id(1), LANE_COPY);
        assert!(answers.is_taken(&node(), KEY, id(1), from_lane));
    }

    #[test]
    fn refused_attempts_stay_refused_beyond_the_bound() {
        let mut answers = AttemptAnswers::default();
        let most = ANSWERS_MAX as u64;
        for number in 1..=most + 10 {
            answers.handle_refused(&node(), KEY, id(number), of(1, number));
            answers.handle_taken(&node(), KEY, id(number), 1);
        }
        assert!((1..=most + 10).all(|at| answers.is_refused(&node(), KEY, id(at), of(1, at))));
        assert!(!answers.is_refused(&node(), KEY, id(most), of(1, most + 1)));
        let sender = &answers.senders[&node()];
        assert_eq!((sender.refused.len(), sender.taken.len()), (ANSWERS_MAX, ANSWERS_MAX));
        assert!(!answers.is_taken(&node(), KEY, id(10), of(1, 1)), "the oldest is forgotten");
        assert!(answers.is_taken(&node(), KEY, id(11), of(1, 1)));
    }
}
