//! The knowledge of a node from its earlier questions: owners of clients, and nodes that do not answer. It is pure.
//!
//! Both are hints: an owner that is wrong costs one more question, and a node that is taken for silent is asked again
//! soon.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use super::super::names::{ClientKey, NodeId};
use crate::mqtt::Timestamp;

/// Clients in one of the two halves of [`KnownOwners`]: as many as a table of 32,768 places takes.
const HALF_MAX: usize = 28 * 1024;
/// Questions of this node that one other node may have at a time.
pub(super) const IN_FLIGHT_MAX: usize = 256;
/// How long a node is not asked after it has not answered.
const SILENT_MILLIS: u64 = 1_000;

/// The owners of the clients that were asked for last: at most 57,344. A place of a table takes 33 bytes, so both halves
/// together have 2.2 MB at most.
#[derive(Debug, Default)]
pub(super) struct KnownOwners {
    /// The names of the nodes, by the number that stands for them.
    nodes: Vec<NodeId>,
    recent: HashMap<ClientKey, u32, RandomState>,
    /// The recent ones of before; dropped when there are as many new ones.
    older: HashMap<ClientKey, u32, RandomState>,
}

impl KnownOwners {
    /// Returns the owner of a client.
    pub(super) fn find(&self, key: ClientKey) -> Option<NodeId> {
        let number = self.recent.get(&key).or_else(|| self.older.get(&key))?;
        self.nodes.get(*number as usize).cloned()
    }

    /// Notes that another node owns a client.
    pub(super) fn note(&mut self, key: ClientKey, node: &NodeId) {
        let known = self.nodes.iter().position(|other| other == node);
        let number = known.unwrap_or_else(|| {
            self.nodes.push(node.clone());
            self.nodes.len() - 1
        });
        if self.recent.len() >= HALF_MAX {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(key, number as u32);
    }

    /// Forgets the owner of a client.
    pub(super) fn forget(&mut self, key: ClientKey) {
        self.recent.remove(&key);
        self.older.remove(&key);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }
}

/// Why a node is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAsked {
    /// As many questions as allowed are under way to it.
    TooMany,
    /// It has not answered a short time ago.
    Silent,
}

#[derive(Debug, Default)]
struct AskedNode {
    in_flight: usize,
    answered_at: Timestamp,
    silent_until: Timestamp,
}

/// The questions under way to each node.
#[derive(Debug, Default)]
pub(super) struct AskedNodes(BTreeMap<NodeId, AskedNode>);

impl AskedNodes {
    /// Begins a question.
    ///
    /// # Errors
    /// The node has too many questions, or has not answered the last ones.
    pub(super) fn begin(&mut self, node: &NodeId, now: Timestamp) -> Result<(), NotAsked> {
        let asked = self.0.entry(node.clone()).or_default();
        if now < asked.silent_until {
            return Err(NotAsked::Silent);
        }
        if asked.in_flight >= IN_FLIGHT_MAX {
            return Err(NotAsked::TooMany);
        }
        asked.in_flight += 1;
        Ok(())
    }

    /// Ends a question.
    pub(super) fn end(&mut self, node: &NodeId) {
        if let Some(asked) = self.0.get_mut(node) {
            asked.in_flight = asked.in_flight.saturating_sub(1);
        }
    }

    /// Notes that a node has answered.
    pub(super) fn note_answered(&mut self, node: &NodeId, now: Timestamp) {
        if let Some(asked) = self.0.get_mut(node) {
            (asked.answered_at, asked.silent_until) = (now, Timestamp(0));
        }
    }

    /// Notes that a question since this time has no answer. A node that has answered others meanwhile is only slow.
    pub(super) fn note_silent(&mut self, node: &NodeId, since: Timestamp, now: Timestamp) {
        if let Some(asked) = self.0.get_mut(node)
            && asked.answered_at < since
        {
            asked.silent_until = now.plus_millis(SILENT_MILLIS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    #[test]
    fn owners_are_known_until_as_many_others_were_asked_for() {
        let mut owners = KnownOwners::default();
        owners.note(ClientKey(0), &node("b"));
        owners.note(ClientKey(1), &node("c"));
        owners.forget(ClientKey(1));
        assert_eq!(owners.find(ClientKey(0)), Some(node("b")));
        assert_eq!(owners.find(ClientKey(1)), None);
        for key in 2..=HALF_MAX as u128 {
            owners.note(ClientKey(key), &node("c"));
        }
        assert_eq!(owners.find(ClientKey(0)), Some(node("b")), "in the older half");
        for key in 0..4 * HALF_MAX as u128 {
            owners.note(ClientKey(1_000_000 + key), &node("c"));
            assert!(owners.len() <= 2 * HALF_MAX);
        }
        assert_eq!(owners.find(ClientKey(0)), None);
    }

    #[test]
    fn a_silent_node_is_asked_again_after_a_second() {
        let (mut asked, b) = (AskedNodes::default(), node("b"));
        assert_eq!(asked.begin(&b, Timestamp(10)), Ok(()));
        asked.note_silent(&b, Timestamp(10), Timestamp(1_010));
        assert_eq!(asked.begin(&b, Timestamp(1_500)), Err(NotAsked::Silent));
        assert_eq!(asked.begin(&b, Timestamp(2_010)), Ok(()));
        asked.note_answered(&b, Timestamp(2_020));
        asked.note_silent(&b, Timestamp(2_010), Timestamp(3_010));
        assert_eq!(asked.begin(&b, Timestamp(3_020)), Ok(()), "it is only slow");
    }

    #[test]
    fn questions_to_one_node_are_bounded() {
        let (mut asked, b) = (AskedNodes::default(), node("b"));
        for _ in 0..IN_FLIGHT_MAX {
            assert_eq!(asked.begin(&b, Timestamp(1)), Ok(()));
        }
        assert_eq!(asked.begin(&b, Timestamp(1)), Err(NotAsked::TooMany));
        assert_eq!(asked.begin(&node("c"), Timestamp(1)), Ok(()));
        asked.end(&b);
        assert_eq!(asked.begin(&b, Timestamp(1)), Ok(()));
    }
}
