//! The tree of retained messages: a node for each topic level, and what each counts.
//!
//! **Every byte that the tree counts is charged to one message**, so that the bytes of all messages of
//! an owner are what it takes: a topic level is charged to a message below it, at first to the one that
//! needed it, and to another one below it when that goes. Knows no bound and no owner's account.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use crate::{
    mqtt::{Message, Timestamp},
    owners::Account,
};

/// What an entry of a node's table takes beside the text of its level: tables of several entries are
/// half full at least.
const ENTRY_BYTES: usize = 144;
/// What the first entry of a table takes more: the table has room for eleven.
const TABLE_BYTES: usize = 432;
/// What a message takes beside its text.
const MESSAGE_BYTES: usize = 288;
/// What the order of expiry takes for a message that has one.
const EXPIRY_BYTES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Node {
    message: Option<Box<Kept>>,
    /// In an order, so that a walk can go on where it was interrupted.
    children: BTreeMap<Box<str>, Self>,
}

/// A message that is retained.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) message: Arc<Message>,
    /// Counts the messages that were retained.
    pub(super) number: u64,
    /// Whose it is; `None` for the broker's own.
    pub(super) owner: Option<Arc<Account>>,
    /// Bytes of topic levels that are charged to it.
    pub(super) level_bytes: usize,
}

/// What is known of the place of a topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PlaceOf<'n> {
    /// What is retained there.
    pub(super) kept: Option<&'n Kept>,
    /// Bytes of the topic levels that are not there yet.
    pub(super) new_level_bytes: usize,
}

/// What has become of a tree by a removal.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) kept: Box<Kept>,
    /// Bytes that the tree counts less.
    pub(super) bytes: usize,
    /// The account that is charged so many bytes of topic levels from now on.
    pub(super) heir: Option<(Option<Arc<Account>>, usize)>,
}

impl Kept {
    /// Bytes that are charged to it.
    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.message) + self.level_bytes
    }

    /// The message, if the walk is to find it.
    fn is_for(&self, walk: &Walk<'_>) -> Option<Arc<Message>> {
        let is_old_enough = self.number <= walk.until;
        let found = is_old_enough && !self.message.publication().has_expired(walk.now);
        found.then(|| self.message.clone())
    }
}

/// Bytes of a message, without its topic levels.
pub(super) fn bytes_of(message: &Message) -> usize {
    let expires = message.publication().expires_at.is_some();
    message.size() + MESSAGE_BYTES + if expires { EXPIRY_BYTES } else { 0 }
}

impl Node {
    pub(super) fn get(&self, topic: &str) -> Option<&Kept> {
        self.place_of(topic).kept
    }

    /// Finds the place of `topic`.
    pub(super) fn place_of(&self, topic: &str) -> PlaceOf<'_> {
        let mut node = Some(self);
        let mut new_level_bytes = 0;
        for level in topic.split('/') {
            let parent = node;
            node = parent.and_then(|node| node.children.get(level));
            if node.is_none() {
                let is_first = parent.is_none_or(|parent| parent.children.is_empty());
                new_level_bytes += entry_bytes(level, is_first);
            }
        }
        PlaceOf { kept: node.and_then(|node| node.message.as_deref()), new_level_bytes }
    }

    /// Puts a message in the place of its topic.
    pub(super) fn put(&mut self, kept: Kept) {
        let message = kept.message.clone();
        let mut node = self;
        for level in message.topic().split('/') {
            if !node.children.contains_key(level) {
                node.children.insert(level.into(), Self::default());
            }
            node = node.children.get_mut(level).expect("it is there or was just inserted");
        }
        node.message = Some(Box::new(kept));
    }

    /// Removes the message of `topic`, and the nodes that only led to it. The levels that were charged
    /// to it and stay are charged to another message below them.
    pub(super) fn remove(&mut self, topic: &str) -> Option<Removed> {
        let mut freed = 0;
        let kept = self.take(topic, &mut freed)?;
        let left = kept.level_bytes.saturating_sub(freed);
        let heir = if left > 0 { self.heir_of(topic) } else { None };
        let heir = heir.map(|heir| {
            heir.level_bytes += left;
            (heir.owner.clone(), left)
        });
        Some(Removed { bytes: bytes_of(&kept.message) + freed, kept, heir })
    }

    /// Takes the message of `topic` out; adds to `freed` what the nodes counted that only led to it.
    fn take(&mut self, topic: &str, freed: &mut usize) -> Option<Box<Kept>> {
        let (level, rest) = match topic.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (topic, None),
        };
        let child = self.children.get_mut(level)?;
        let removed = match rest {
            Some(rest) => child.take(rest, freed),
            None => child.message.take(),
        };
        if child.message.is_none() && child.children.is_empty() {
            self.children.remove(level);
            *freed += entry_bytes(level, self.children.is_empty());
        }
        removed
    }

    /// A message below all levels of `topic` that are there, and below their tables.
    fn heir_of(&mut self, topic: &str) -> Option<&mut Kept> {
        let mut node = self;
        for level in topic.split('/') {
            if !node.children.contains_key(level) {
                break;
            }
            node = node.children.get_mut(level)?;
        }
        while !node.children.is_empty() {
            node = node.children.values_mut().next()?;
            if node.message.is_some() {
                break;
            }
        }
        node.message.as_deref_mut()
    }

    /// Visits this node and those below it that `levels` of a filter lead to, in the order of their
    /// names; `Break` once enough were visited. Those up to and including `after` are passed over.
    pub(super) fn visit(
        &self,
        levels: &[&str],
        after: Option<&[&str]>,
        walk: &mut Walk<'_>,
    ) -> ControlFlow<()> {
        if after.is_none() {
            if matches!(levels.first(), None | Some(&"#")) {
                let found = self.message.as_ref().and_then(|kept| kept.is_for(walk));
                let bytes = found.as_ref().map_or(0, |message| message.size());
                walk.bytes_left = walk.bytes_left.saturating_sub(bytes);
                walk.found.extend(found);
            }
            walk.nodes_left -= 1;
            if walk.nodes_left == 0 || walk.bytes_left == 0 {
                return ControlFlow::Break(());
            }
        }
        let (level, below) = match levels {
            [] => return ControlFlow::Continue(()),
            ["#"] => ("#", levels),
            [level, below @ ..] => (*level, below),
        };
        let (from, rest) = match after {
            Some([from, rest @ ..]) => (*from, rest),
            None | Some([]) => ("", &[][..]),
        };
        let is_root = walk.depth == 0;
        let mut go_on = |name: &str, child: &Self| {
            let is_begun = after.is_some_and(|after| after.first() == Some(&name));
            walk.within(name, |walk| child.visit(below, is_begun.then_some(rest), walk))
        };
        if level != "#" && level != "+" {
            let child = self.children.get(level).filter(|_| level >= from);
            return child.map_or(ControlFlow::Continue(()), |child| go_on(level, child));
        }
        // Wildcards do not match a first level that begins with '$', and these are leapt over: they
        // may be many. [MQTT-4.7.2-1]
        let (gap, after_gap) = if is_root { ("$", "%") } else { ("", "") };
        let before = (Bound::Included(from.min(gap)), Bound::Excluded(gap));
        let behind = (Bound::Included(from.max(after_gap)), Bound::Unbounded);
        let before = self.children.range::<str, _>(before);
        let mut children = before.chain(self.children.range::<str, _>(behind));
        children.try_for_each(|(name, child)| go_on(name, child))
    }
}

/// A walk along the tree, and where it is.
pub(super) struct Walk<'w> {
    pub(super) now: Timestamp,
    pub(super) until: u64,
    pub(super) nodes_left: usize,
    pub(super) bytes_left: usize,
    pub(super) found: &'w mut Vec<Arc<Message>>,
    /// The topic of the node, and how many levels it has.
    pub(super) topic: String,
    pub(super) depth: usize,
}

impl Walk<'_> {
    /// Does something one level further down. Where it breaks off, `topic` stays where it was.
    fn within(
        &mut self,
        level: &str,
        visit: impl FnOnce(&mut Self) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let above = self.topic.len();
        if self.depth > 0 {
            self.topic.push('/');
        }
        self.topic.push_str(level);
        self.depth += 1;
        visit(self)?;
        self.depth -= 1;
        self.topic.truncate(above);
        ControlFlow::Continue(())
    }
}

/// What a topic level takes; the first of a table takes the table, too.
const fn entry_bytes(level: &str, is_first: bool) -> usize {
    ENTRY_BYTES + level.len() + if is_first { TABLE_BYTES } else { 0 }
}
