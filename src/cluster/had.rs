//! The messages that a session has had, of those that another copy may come of. It travels with the session.
//!
//! A message that went one way, into the queue of its session, has no second copy. So this set has only
//! messages that were planned for several nodes, and those in the queue at a hand-over. Both end with the
//! hand-over, so the set is small. It has a bound nevertheless, and forgets the oldest message first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::names::MessageId;

/// Maximum number of messages in the set of one session. A delayed copy of an older message can be
/// delivered a second time.
pub const HAD_MAX: usize = 4_096;

/// A set of messages that has a bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<MessageId>", into = "Vec<MessageId>")]
pub struct HadMessages {
    places: BTreeMap<MessageId, u64>,
    /// In the order of their insertion.
    order: BTreeMap<u64, MessageId>,
    next: u64,
}

impl HadMessages {
    /// Returns whether the session has had a message.
    pub fn contains(&self, id: &MessageId) -> bool {
        self.places.contains_key(id)
    }

    /// Returns the number of messages.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Adds a message. Forgets the oldest one if there are too many.
    pub fn insert(&mut self, id: MessageId) {
        self.remove(&id);
        self.places.insert(id, self.next);
        self.order.insert(self.next, id);
        self.next += 1;
        if self.places.len() > HAD_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.places.remove(&oldest);
        }
    }

    /// Removes a message that another node has now.
    pub fn remove(&mut self, id: &MessageId) {
        if let Some(place) = self.places.remove(id) {
            self.order.remove(&place);
        }
    }

    /// Adds all messages of another set.
    pub fn extend(&mut self, other: Self) {
        for id in other.order.into_values() {
            self.insert(id);
        }
    }
}

impl From<Vec<MessageId>> for HadMessages {
    fn from(ids: Vec<MessageId>) -> Self {
        let mut had = Self::default();
        for id in ids {
            had.insert(id);
        }
        had
    }
}

impl From<HadMessages> for Vec<MessageId> {
    fn from(had: HadMessages) -> Self {
        had.order.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::names::{Incarnation, MessageSource};

    #[test]
    fn the_set_forgets_the_oldest_and_travels_whole() {
        let source = MessageSource { store: 1, incarnation: Incarnation(3), shard: 0 };
        let id = |number| MessageId { source, number };
        let most = HAD_MAX as u64;
        let mut had: HadMessages = (0..most).map(id).collect::<Vec<_>>().into();
        had.insert(id(0)); // Newer than all others now.
        had.insert(id(most));
        assert_eq!(had.len(), HAD_MAX);
        assert!(had.contains(&id(0)) && !had.contains(&id(1)) && had.contains(&id(2)));
        let bytes = postcard::to_stdvec(&had).unwrap();
        let read: HadMessages = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(Vec::from(read), Vec::from(had));
    }
}
