//! Retained messages: the last message of each topic, found by Topic Filter. Their number and bytes
//! are limited, in total and for each owner; expired messages are removed in the order of their
//! expiry.
//!
//! Knows the accounts of owners, but not the owners.

mod node;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use self::node::{Kept, PlaceOf, Removed, RetainedNode, TreeWalk, bytes_of};
use crate::{
    mqtt::{Message, Timestamp},
    owners::Account,
};

/// Limits on retained messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetainedLimits {
    /// Maximum number of messages, which is also the number of topics.
    pub messages_max: usize,
    /// Maximum bytes: topics, properties and payloads, the overhead of each message, and the topic
    /// levels that lead to it.
    pub bytes_max: usize,
}

/// There is no room for another retained message. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetainedFull {
    /// The limit of all owners together is reached.
    #[error("limit on retained messages is reached")]
    All,
    /// The owner has reached its limit of messages.
    #[error("limit on retained messages of one user is reached")]
    OwnerMessages,
    /// The owner has reached its limit of bytes.
    #[error("limit on bytes of retained messages of one user is reached")]
    OwnerBytes,
}

/// All retained messages, shared by all shards.
#[derive(Debug)]
pub struct Retained {
    store: RwLock<RetainedTree>,
}

#[derive(Debug, Default)]
struct RetainedTree {
    limits: RetainedLimits,
    root: RetainedNode,
    messages: usize,
    bytes: usize,
    last_number: u64,
    /// Messages that expire, by expiry time and number.
    expiring: BTreeMap<(Timestamp, u64), Arc<Message>>,
}

/// Maximum number of expired messages that one new message removes to make room.
const EXPIRED_AT_ONCE_MAX: usize = 4_096;

/// Target size of a slice, reached by its last message: the caller holds a slice until it is sent.
const SLICE_BYTES: usize = 64 * 1024;

/// A query for retained messages.
#[derive(Clone, Copy, Debug)]
pub struct RetainedQuery<'q> {
    /// A valid Topic Filter without `$share/`.
    pub filter: &'q str,
    /// The end of the previous slice; `None` for the first slice.
    pub after: Option<&'q str>,
    /// [`Retained::last_number`] at the start of the walk; messages retained later are not
    /// returned.
    pub until: u64,
}

/// A part of the result of a query.
#[derive(Debug)]
pub struct RetainedSlice {
    /// The messages of this slice.
    pub messages: Vec<Arc<Message>>,
    /// The topic after which the next slice begins; `None` after the last slice.
    pub go_on_after: Option<Box<str>>,
    /// Number of tree nodes that were visited.
    pub nodes: usize,
}

impl Retained {
    /// Creates an empty store.
    #[must_use]
    pub fn new(limits: RetainedLimits) -> Self {
        Self { store: RwLock::new(RetainedTree { limits, ..RetainedTree::default() }) }
    }

    /// Puts other limits into force. What is retained stays, also beyond them.
    pub fn set_limits(&self, limits: RetainedLimits) {
        self.write().limits = limits;
    }

    /// Retains `message`, published by `owner`, and replaces the previous message of its topic.
    /// [MQTT-3.3.1-5] If room is needed, messages that have expired by `now` are removed and added
    /// to `gone`.
    ///
    /// # Errors
    /// [`RetainedFull`] if a limit would be exceeded. The topic keeps its previous message.
    pub fn set(
        &self,
        message: Arc<Message>,
        owner: Option<&Arc<Account>>,
        now: Timestamp,
        gone: &mut Vec<Arc<Message>>,
    ) -> Result<(), RetainedFull> {
        let mut store = self.write();
        self.make_room(&mut store, &message, owner, now, gone)?;
        store.put(message, owner);
        Ok(())
    }

    /// Does the same without retaining the message: it will be retained by [`Retained::restore`].
    ///
    /// # Errors
    /// As [`Retained::set`].
    pub fn has_room(
        &self,
        message: &Message,
        owner: Option<&Arc<Account>>,
        now: Timestamp,
        gone: &mut Vec<Arc<Message>>,
    ) -> Result<(), RetainedFull> {
        self.make_room(&mut self.write(), message, owner, now, gone)
    }

    fn make_room(
        &self,
        store: &mut RetainedTree,
        message: &Message,
        owner: Option<&Arc<Account>>,
        now: Timestamp,
        gone: &mut Vec<Arc<Message>>,
    ) -> Result<(), RetainedFull> {
        let mut left = EXPIRED_AT_ONCE_MAX;
        while let Err(full) = self.check(store, message, owner) {
            let expired = store.remove_first_expired(now).filter(|_| left > 0).ok_or(full)?;
            left -= 1;
            gone.push(expired);
        }
        Ok(())
    }

    /// Retains a message from the store at start, or from the other nodes of a cluster, even beyond the
    /// limits: an acknowledged message must not be lost because a limit was lowered. Returns whether it is
    /// within the limits.
    pub fn restore(&self, message: Arc<Message>, owner: Option<&Arc<Account>>) -> bool {
        let mut store = self.write();
        let is_within = self.check(&store, &message, owner).is_ok();
        store.put(message, owner);
        is_within
    }

    /// Checks whether `message` fits in place of the previous message of its topic.
    fn check(
        &self,
        store: &RetainedTree,
        message: &Message,
        owner: Option<&Arc<Account>>,
    ) -> Result<(), RetainedFull> {
        let PlaceOf { kept, new_level_bytes } = store.root.place_of(message.topic());
        let former = kept.map_or((0, 0), |kept| (1, bytes_of(&kept.message)));
        let (messages_more, bytes_now) = (1 - former.0, bytes_of(message) + new_level_bytes);
        // Beyond a lowered limit of bytes, a message that is not larger may still replace another.
        if store.messages + messages_more > store.limits.messages_max
            || (bytes_now > former.1 && store.bytes + bytes_now - former.1 > store.limits.bytes_max)
        {
            return Err(RetainedFull::All);
        }
        // Messages of the broker itself count for nobody.
        let Some(owner) = owner else { return Ok(()) };
        let is_own = |kept: &&Kept| kept.owner.as_ref().is_some_and(|own| Arc::ptr_eq(own, owner));
        let own = kept.filter(is_own).map_or((0, 0), |kept| (1, kept.bytes()));
        // The levels charged to the previous message become the new one's.
        let bytes = bytes_now + kept.map_or(0, |kept| kept.level_bytes);
        if !owner.retained_messages.fits(1 - own.0) {
            Err(RetainedFull::OwnerMessages)
        } else if !owner.retained_bytes.fits(bytes.saturating_sub(own.1) as u64) {
            Err(RetainedFull::OwnerBytes)
        } else {
            Ok(())
        }
    }

    /// Removes the retained message of `topic`. [MQTT-3.3.1-6]
    pub fn clear(&self, topic: &str) {
        self.write().remove(topic);
    }

    /// Removes at most `messages_max` messages that have expired by `now`, and returns them.
    #[must_use]
    pub fn remove_expired(&self, now: Timestamp, messages_max: usize) -> Vec<Arc<Message>> {
        if !self.read().has_expired(now) {
            return Vec::new();
        }
        let mut store = self.write();
        let expired = std::iter::from_fn(|| store.remove_first_expired(now));
        expired.take(messages_max).collect()
    }

    /// Returns the retained message of `topic` and the account of its owner.
    pub fn get(&self, topic: &str) -> Option<(Arc<Message>, Option<Arc<Account>>)> {
        let store = self.read();
        let kept = store.root.get(topic)?;
        Some((kept.message.clone(), kept.owner.clone()))
    }

    /// Returns the number of messages retained so far; later messages get higher numbers.
    pub fn last_number(&self) -> u64 {
        self.read().last_number
    }

    /// Returns the next slice of the retained messages that match a query, in the order of their
    /// levels. It covers the next `nodes_max` nodes of the tree and ends at about 64 KiB of
    /// messages.
    pub fn slice(
        &self,
        which: &RetainedQuery<'_>,
        nodes_max: usize,
        now: Timestamp,
    ) -> RetainedSlice {
        self.walk(which, false, nodes_max, now)
    }

    /// Returns the next slice of all retained messages behind a topic, also of those under topics that
    /// begin with `$`.
    pub fn slice_of_all(
        &self,
        after: Option<&str>,
        nodes_max: usize,
        now: Timestamp,
    ) -> RetainedSlice {
        let all = RetainedQuery { filter: "#", after, until: u64::MAX };
        self.walk(&all, true, nodes_max, now)
    }

    fn walk(
        &self,
        which: &RetainedQuery<'_>,
        has_dollar: bool,
        nodes_max: usize,
        now: Timestamp,
    ) -> RetainedSlice {
        let levels: Vec<&str> = which.filter.split('/').collect();
        let after: Option<Vec<&str>> = which.after.map(|topic| topic.split('/').collect());
        let mut messages = Vec::new();
        // The root counts as a node too; one more is visited, so that each slice advances.
        let nodes_left = nodes_max.max(1).saturating_add(usize::from(after.is_none()));
        let mut walk = TreeWalk {
            now,
            until: which.until,
            nodes_left,
            bytes_left: SLICE_BYTES,
            has_dollar,
            found: &mut messages,
            topic: String::new(),
            depth: 0,
        };
        let outcome = self.read().root.visit(&levels, after.as_deref(), &mut walk);
        let nodes = nodes_left - walk.nodes_left;
        let go_on_after = outcome.is_break().then(|| walk.topic.into_boxed_str());
        RetainedSlice { messages, go_on_after, nodes }
    }

    /// Returns the number and the bytes of retained messages.
    pub fn usage(&self) -> (usize, usize) {
        let store = self.read();
        (store.messages, store.bytes)
    }

    fn read(&self) -> RwLockReadGuard<'_, RetainedTree> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, RetainedTree> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RetainedTree {
    fn put(&mut self, message: Arc<Message>, owner: Option<&Arc<Account>>) {
        let PlaceOf { kept, new_level_bytes } = self.root.place_of(message.topic());
        // The levels charged to the former message pass to the new one.
        let level_bytes = kept.map_or(new_level_bytes, |kept| kept.level_bytes);
        // The owner may be another one, so the former message is given back whole.
        if let Some(kept) = kept {
            let (former, number) = (kept.message.clone(), kept.number);
            self.messages -= 1;
            self.bytes -= kept.bytes();
            give_back(kept.owner.as_ref(), kept.bytes());
            self.forget_expiry(&former, number);
        }
        // A new number also for a known topic: a walk that has begun leaves this message to its subscription.
        self.last_number += 1;
        let number = self.last_number;
        if let Some(at) = message.publication().expires_at {
            self.expiring.insert((at, number), message.clone());
        }
        let kept = Kept { message, number, owner: owner.cloned(), level_bytes };
        self.messages += 1;
        self.bytes += kept.bytes();
        // Not refused here: `set` has checked the limits, and a restored message may exceed them.
        if let Some(owner) = owner {
            owner.retained_messages.force(1);
            owner.retained_bytes.force(kept.bytes() as u64);
        }
        self.root.put(kept);
    }

    fn remove(&mut self, topic: &str) {
        let Some(Removed { kept, bytes, heir }) = self.root.remove(topic) else { return };
        self.messages -= 1;
        self.bytes -= bytes;
        give_back(kept.owner.as_ref(), kept.bytes());
        if let Some((Some(owner), bytes)) = heir {
            owner.retained_bytes.force(bytes as u64);
        }
        self.forget_expiry(&kept.message, kept.number);
    }

    fn forget_expiry(&mut self, message: &Message, number: u64) {
        if let Some(at) = message.publication().expires_at {
            self.expiring.remove(&(at, number));
        }
    }

    fn has_expired(&self, now: Timestamp) -> bool {
        self.expiring.first_key_value().is_some_and(|((at, _), _)| *at <= now)
    }

    /// Removes the message that expires first, if it has expired by `now`.
    fn remove_first_expired(&mut self, now: Timestamp) -> Option<Arc<Message>> {
        if !self.has_expired(now) {
            return None;
        }
        let (_, message) = self.expiring.pop_first()?;
        self.remove(message.topic());
        Some(message)
    }
}

fn give_back(owner: Option<&Arc<Account>>, bytes: usize) {
    if let Some(owner) = owner {
        owner.retained_messages.give_back(1);
        owner.retained_bytes.give_back(bytes as u64);
    }
}
