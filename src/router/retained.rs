//! Retained messages: the last one of each topic, found by Topic Filter.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use foldhash::fast::RandomState;

use crate::mqtt::{Message, Timestamp};

/// How much may be retained.
#[derive(Clone, Copy, Debug)]
pub struct RetainedLimits {
    /// Messages, which is also topics.
    pub messages_max: usize,
    /// Bytes of topics, properties and payloads, and of the topic levels that lead to them.
    pub bytes_max: usize,
}

/// No room for another retained message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit on retained messages is reached")]
pub struct RetainedFull;

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
    /// When room was last looked for among what has expired.
    cleaned_at: Timestamp,
}

/// A full store looks for expired messages no more often than this: it looks at every message.
const CLEAN_EVERY_SECS: u64 = 10;

/// What a level of a topic that no other retained message has counts against the bytes, beside its
/// text: a node of the tree, its place in the parent's table, and what that table keeps free.
const LEVEL_BYTES: usize = 256;

#[derive(Debug, Default)]
struct Node {
    message: Option<Arc<Message>>,
    children: HashMap<Box<str>, Self, RandomState>,
}

impl Retained {
    /// An empty store with these limits.
    #[must_use]
    pub fn new(limits: RetainedLimits) -> Self {
        Self { store: RwLock::default(), limits }
    }

    /// Retains `message` in place of its topic's former one. [MQTT-3.3.1-5]
    /// Messages that have expired by `now` go if their room is needed.
    ///
    /// # Errors
    /// [`RetainedFull`] if a limit would be passed; nothing is changed then.
    pub fn set(&self, message: Arc<Message>, now: Timestamp) -> Result<(), RetainedFull> {
        let mut store = self.write();
        let (messages, bytes) = match self.usage_with(&store, &message) {
            Ok(usage) => usage,
            Err(RetainedFull) => {
                store.clean(now);
                self.usage_with(&store, &message)?
            }
        };
        let mut node = &mut store.root;
        for level in message.topic().split('/') {
            if !node.children.contains_key(level) {
                node.children.insert(level.into(), Node::default());
            }
            node = node.children.get_mut(level).expect("it is there or was just inserted");
        }
        node.message = Some(message);
        (store.messages, store.bytes) = (messages, bytes);
        Ok(())
    }

    /// Messages and bytes once `message` is retained, if there is room for it.
    fn usage_with(&self, store: &Store, message: &Message) -> Result<(usize, usize), RetainedFull> {
        let (former, new_levels) = store.root.place_of(message.topic());
        let former = former.map(|m| m.size());
        let bytes = store.bytes + message.size() + new_levels - former.unwrap_or(0);
        let messages = store.messages + usize::from(former.is_none());
        if messages > self.limits.messages_max || bytes > self.limits.bytes_max {
            return Err(RetainedFull);
        }
        Ok((messages, bytes))
    }

    /// Forgets the retained message of `topic`. [MQTT-3.3.1-6]
    pub fn clear(&self, topic: &str) {
        self.write().remove(topic);
    }

    /// The retained messages whose topic matches `filter`, a valid one that is not shared.
    pub fn matching(&self, filter: &str, now: Timestamp) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        let store = self.read();
        let mut take = |message: &Arc<Message>| {
            if !message.publication().has_expired(now) {
                found.push(message.clone());
            }
        };
        store.root.matching(filter.split('/'), true, &mut take);
        found
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
    fn remove(&mut self, topic: &str) {
        let mut freed = 0;
        if let Some(message) = self.root.remove(topic, &mut freed) {
            self.messages -= 1;
            self.bytes -= message.size() + freed;
        }
    }

    /// Removes what has expired, unless that was done a moment ago.
    fn clean(&mut self, now: Timestamp) {
        if now < self.cleaned_at.plus_secs(CLEAN_EVERY_SECS) {
            return;
        }
        self.cleaned_at = now;
        let (messages, bytes) = self.root.remove_expired(now);
        self.messages -= messages;
        self.bytes -= bytes;
    }
}

impl Node {
    /// Removes what has expired, and the nodes that only led to it; how many messages, and how
    /// many bytes they counted.
    fn remove_expired(&mut self, now: Timestamp) -> (usize, usize) {
        let expired = self.message.take_if(|m| m.publication().has_expired(now));
        let mut removed = expired.map_or((0, 0), |message| (1, message.size()));
        self.children.retain(|level, child| {
            let (messages, bytes) = child.remove_expired(now);
            removed.0 += messages;
            removed.1 += bytes;
            if child.is_unused() {
                removed.1 += bytes_of(level);
            }
            !child.is_unused()
        });
        removed
    }

    /// The message of `topic`, and what its levels that are not there yet would count.
    fn place_of(&self, topic: &str) -> (Option<&Arc<Message>>, usize) {
        let mut node = Some(self);
        let mut new_levels = 0;
        for level in topic.split('/') {
            node = node.and_then(|node| node.children.get(level));
            if node.is_none() {
                new_levels += bytes_of(level);
            }
        }
        (node.and_then(|node| node.message.as_ref()), new_levels)
    }

    /// Removes the message of `topic`, and the nodes that only led to it; adds to `freed` what
    /// those counted.
    fn remove(&mut self, topic: &str, freed: &mut usize) -> Option<Arc<Message>> {
        let (level, rest) = match topic.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (topic, None),
        };
        let child = self.children.get_mut(level)?;
        let removed = match rest {
            Some(rest) => child.remove(rest, freed),
            None => child.message.take(),
        };
        if child.is_unused() {
            self.children.remove(level);
            *freed += bytes_of(level);
        }
        removed
    }

    fn is_unused(&self) -> bool {
        self.message.is_none() && self.children.is_empty()
    }

    fn matching<'f>(
        &self,
        mut levels: impl Iterator<Item = &'f str> + Clone,
        is_root: bool,
        take: &mut impl FnMut(&Arc<Message>),
    ) {
        let Some(level) = levels.next() else {
            self.message.iter().for_each(take);
            return;
        };
        // Wildcards do not match a first level that begins with '$'. [MQTT-4.7.2-1]
        let hidden = |name: &str| is_root && name.starts_with('$');
        match level {
            "#" => self.all(is_root, take),
            "+" => {
                for (name, child) in &self.children {
                    if !hidden(name) {
                        child.matching(levels.clone(), false, take);
                    }
                }
            }
            literal => {
                if let Some(child) = self.children.get(literal) {
                    child.matching(levels, false, take);
                }
            }
        }
    }

    fn all(&self, is_root: bool, take: &mut impl FnMut(&Arc<Message>)) {
        self.message.iter().for_each(&mut *take);
        for (name, child) in &self.children {
            if !(is_root && name.starts_with('$')) {
                child.all(false, take);
            }
        }
    }
}

const fn bytes_of(level: &str) -> usize {
    LEVEL_BYTES + level.len()
}
