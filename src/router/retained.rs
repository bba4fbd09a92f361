//! Retained messages: the last one of each topic, found by Topic Filter; bounded, for all and for
//! each owner; and those that expire in the order in which they do.
//!
//! Knows accounts of owners, and not who the owners are.

mod node;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use self::node::{Kept, Node, PlaceOf, Removed, Walk, bytes_of};
use crate::{
    mqtt::{Message, Timestamp},
    owners::Account,
};

/// How much may be retained.
#[derive(Clone, Copy, Debug)]
pub struct RetainedLimits {
    /// Messages, which is also topics.
    pub messages_max: usize,
    /// Bytes of topics, properties and payloads, of what a message takes beside them, and of the topic
    /// levels that lead to it.
    pub bytes_max: usize,
}

/// No room for another retained message. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetainedFull {
    /// All have as much as they may have.
    #[error("limit on retained messages is reached")]
    All,
    /// Its owner has as many messages as one may have.
    #[error("limit on retained messages of one user is reached")]
    OwnerMessages,
    /// Its owner has as many bytes as one may have.
    #[error("limit on bytes of retained messages of one user is reached")]
    OwnerBytes,
}

/// All retained messages, shared by all shards.
#[derive(Debug)]
pub struct Retained {
    store: RwLock<Store>,
    limits: RetainedLimits,
}

#[derive(Debug, Default)]
struct Store {
    root: Node,
    messages: usize,
    bytes: usize,
    last_number: u64,
    /// Those that expire, by when and by their number.
    expiring: BTreeMap<(Timestamp, u64), Arc<Message>>,
}

/// A message that is to be retained looks for so much room at most among those that have expired.
const EXPIRED_AT_ONCE_MAX: usize = 4_096;

/// A slice ends with the message that makes it so large: somebody keeps it until it is sent.
const SLICE_BYTES: usize = 64 * 1024;

/// Which retained messages are asked for.
#[derive(Clone, Copy, Debug)]
pub struct RetainedQuery<'q> {
    /// A valid Topic Filter that is not shared.
    pub filter: &'q str,
    /// Where the last slice ended; `None` for the first.
    pub after: Option<&'q str>,
    /// [`Retained::last_number`] of when the walk began: what was retained since is not found.
    pub until: u64,
}

/// Some of the retained messages that were asked for.
#[derive(Debug)]
pub struct RetainedSlice {
    /// They.
    pub messages: Vec<Arc<Message>>,
    /// After which topic to go on; `None` if that were all.
    pub go_on_after: Option<Box<str>>,
    /// How many nodes of the tree were looked at.
    pub nodes: usize,
}

impl Retained {
    /// An empty store with these limits.
    #[must_use]
    pub fn new(limits: RetainedLimits) -> Self {
        Self { store: RwLock::default(), limits }
    }

    /// Retains `message`, which `owner` has published, in place of its topic's former one.
    /// [MQTT-3.3.1-5] If its room is needed, messages that have expired by `now` go, and are added to
    /// `gone`.
    ///
    /// # Errors
    /// [`RetainedFull`] if a limit would be passed. The topic keeps its former message.
    pub fn set(
        &self,
        message: Arc<Message>,
        owner: Option<&Arc<Account>>,
        now: Timestamp,
        gone: &mut Vec<Arc<Message>>,
    ) -> Result<(), RetainedFull> {
        let mut store = self.write();
        let mut left = EXPIRED_AT_ONCE_MAX;
        while let Err(full) = self.check(&store, &message, owner) {
            let expired = store.remove_first_expired(now).filter(|_| left > 0).ok_or(full)?;
            left -= 1;
            gone.push(expired);
        }
        store.put(message, owner);
        Ok(())
    }

    /// Retains a message that was retained before the broker began, whatever the limits say: what was
    /// acknowledged is not lost because they were lowered. Whether it is within them.
    pub fn restore(&self, message: Arc<Message>, owner: Option<&Arc<Account>>) -> bool {
        let mut store = self.write();
        let is_within = self.check(&store, &message, owner).is_ok();
        store.put(message, owner);
        is_within
    }

    /// Whether there is room for a message in place of its topic's former one.
    fn check(
        &self,
        store: &Store,
        message: &Message,
        owner: Option<&Arc<Account>>,
    ) -> Result<(), RetainedFull> {
        let PlaceOf { kept, new_level_bytes } = store.root.place_of(message.topic());
        let former = kept.map_or((0, 0), |kept| (1, bytes_of(&kept.message)));
        let (messages_more, bytes_now) = (1 - former.0, bytes_of(message) + new_level_bytes);
        if store.messages + messages_more > self.limits.messages_max
            || (bytes_now > former.1 && store.bytes + bytes_now - former.1 > self.limits.bytes_max)
        {
            return Err(RetainedFull::All);
        }
        let Some(owner) = owner else { return Ok(()) };
        let is_own = |kept: &&Kept| kept.owner.as_ref().is_some_and(|own| Arc::ptr_eq(own, owner));
        let own = kept.filter(is_own).map_or((0, 0), |kept| (1, kept.bytes()));
        // The levels of the former message are charged to the new one.
        let bytes = bytes_now + kept.map_or(0, |kept| kept.level_bytes);
        if !owner.retained_messages.fits(1 - own.0) {
            Err(RetainedFull::OwnerMessages)
        } else if !owner.retained_bytes.fits(bytes.saturating_sub(own.1) as u64) {
            Err(RetainedFull::OwnerBytes)
        } else {
            Ok(())
        }
    }

    /// Forgets the retained message of `topic`. [MQTT-3.3.1-6]
    pub fn clear(&self, topic: &str) {
        self.write().remove(topic);
    }

    /// Removes messages that have expired by `now`, so many at most; they.
    #[must_use]
    pub fn remove_expired(&self, now: Timestamp, messages_max: usize) -> Vec<Arc<Message>> {
        if !self.read().has_expired(now) {
            return Vec::new();
        }
        let mut store = self.write();
        let expired = std::iter::from_fn(|| store.remove_first_expired(now));
        expired.take(messages_max).collect()
    }

    /// The retained message of `topic`, and whose it is.
    pub fn get(&self, topic: &str) -> Option<(Arc<Message>, Option<Arc<Account>>)> {
        let store = self.read();
        let kept = store.root.get(topic)?;
        Some((kept.message.clone(), kept.owner.clone()))
    }

    /// How many messages were ever retained: what is retained from now on has a higher number.
    pub fn last_number(&self) -> u64 {
        self.read().last_number
    }

    /// The next of the retained messages whose topic matches `filter`, a valid one that is not
    /// shared: those after the topic `after`, in the order of their levels' text, as far as they are
    /// found among the next `nodes_max` nodes of the tree and have at most the number `until`, and no
    /// more than about 64 KiB of them.
    pub fn slice(
        &self,
        which: &RetainedQuery<'_>,
        nodes_max: usize,
        now: Timestamp,
    ) -> RetainedSlice {
        let levels: Vec<&str> = which.filter.split('/').collect();
        let after: Option<Vec<&str>> = which.after.map(|topic| topic.split('/').collect());
        let mut messages = Vec::new();
        // The root counts as well.
        let nodes_left = nodes_max.max(1).saturating_add(usize::from(after.is_none()));
        let mut walk = Walk {
            now,
            until: which.until,
            nodes_left,
            bytes_left: SLICE_BYTES,
            found: &mut messages,
            topic: String::new(),
            depth: 0,
        };
        let outcome = self.read().root.visit(&levels, after.as_deref(), &mut walk);
        let nodes = nodes_left - walk.nodes_left;
        let go_on_after = outcome.is_break().then(|| walk.topic.into_boxed_str());
        RetainedSlice { messages, go_on_after, nodes }
    }

    /// Messages and bytes retained.
    pub fn usage(&self) -> (usize, usize) {
        let store = self.read();
        (store.messages, store.bytes)
    }

    fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn put(&mut self, message: Arc<Message>, owner: Option<&Arc<Account>>) {
        let PlaceOf { kept, new_level_bytes } = self.root.place_of(message.topic());
        let level_bytes = kept.map_or(new_level_bytes, |kept| kept.level_bytes);
        if let Some(kept) = kept {
            let (former, number) = (kept.message.clone(), kept.number);
            self.messages -= 1;
            self.bytes -= kept.bytes();
            give_back(kept.owner.as_ref(), kept.bytes());
            self.forget_expiry(&former, number);
        }
        self.last_number += 1;
        let number = self.last_number;
        if let Some(at) = message.publication().expires_at {
            self.expiring.insert((at, number), message.clone());
        }
        let kept = Kept { message, number, owner: owner.cloned(), level_bytes };
        self.messages += 1;
        self.bytes += kept.bytes();
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

    /// Removes the message that has expired first, if one has by `now`.
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
