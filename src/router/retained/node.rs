//! The tree of retained messages, with one node for each topic level, and the bytes that it counts.
//!
//! **Every byte of the tree is charged to exactly one message**, so that the bytes of an owner are
//! the sum over its messages. A topic level is charged to the first message that needed it; when
//! that message is removed, it is charged to another message below the level. Knows no limits and
//! no accounts of owners.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use crate::{
    mqtt::{Message, Timestamp},
    owners::Account,
};

/// Bytes of an entry in a node's table, without the text of its level. Tables with several entries
/// are at least half full.
const ENTRY_BYTES: usize = 144;
/// Additional bytes of a table's first entry: the table has room for eleven.
const TABLE_BYTES: usize = 432;
/// Bytes of a message in addition to its text.
const MESSAGE_BYTES: usize = 288;
/// Bytes of a message in the order of expiry, if it expires.
const EXPIRY_BYTES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct RetainedNode {
    message: Option<Box<Kept>>,
    /// Sorted, so that an interrupted walk can continue.
    children: BTreeMap<Box<str>, Self>,
}

/// A retained message.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) message: Arc<Message>,
    /// The sequence number of the message in this store.
    pub(super) number: u64,
    /// The owner's account; `None` for the broker's own messages.
    pub(super) owner: Option<Arc<Account>>,
    /// Bytes of the topic levels that are charged to it.
    pub(super) level_bytes: usize,
}

/// The result of looking up a topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PlaceOf<'n> {
    /// The retained message of the topic.
    pub(super) kept: Option<&'n Kept>,
    /// Bytes of the topic levels that the tree does not have yet.
    pub(super) new_level_bytes: usize,
}

/// The result of a removal.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) kept: Box<Kept>,
    /// Bytes by which the count of the tree decreases.
    pub(super) bytes: usize,
    /// The account that takes over topic levels of the removed message, and their bytes.
    pub(super) heir: Option<(Option<Arc<Account>>, usize)>,
}

impl Kept {
    /// Returns the bytes that are charged to it.
    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.message) + self.level_bytes
    }

    /// Returns the message if it belongs to the result of the walk.
    fn is_for(&self, walk: &TreeWalk<'_>) -> Option<Arc<Message>> {
        let is_old_enough = self.number <= walk.until;
        let found = is_old_enough && !self.message.publication().has_expired(walk.now);
        found.then(|| self.message.clone())
    }
}

/// Returns the bytes of a message without its topic levels.
pub(super) fn bytes_of(message: &Message) -> usize {
    let expires = message.publication().expires_at.is_some();
    message.size() + MESSAGE_BYTES + if expires { EXPIRY_BYTES } else { 0 }
}

impl RetainedNode {
    pub(super) fn get(&self, topic: &str) -> Option<&Kept> {
        self.place_of(topic).kept
    }

    /// Looks up `topic`.
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

    /// Stores a message under its topic.
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

    /// Removes the message of `topic` and the nodes that only led to it. Remaining levels that were
    /// charged to it are charged to another message below them.
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

    /// Removes the message of `topic`; adds the bytes of nodes that only led to it to `freed`.
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
        // A level without message and children led only to the removed message.
        if child.message.is_none() && child.children.is_empty() {
            self.children.remove(level);
            // The table itself is freed with its last entry.
            *freed += entry_bytes(level, self.children.is_empty());
        }
        removed
    }

    /// Finds a message below all existing levels of `topic` and below their tables.
    fn heir_of(&mut self, topic: &str) -> Option<&mut Kept> {
        let mut node = self;
        for level in topic.split('/') {
            // The rest of the topic has no level of its own yet.
            if !node.children.contains_key(level) {
                break;
            }
            node = node.children.get_mut(level)?;
        }
        // Every branch ends in a message, so going down always finds one.
        while !node.children.is_empty() {
            node = node.children.values_mut().next()?;
            if node.message.is_some() {
                break;
            }
        }
        node.message.as_deref_mut()
    }

    /// Visits this node and its descendants that match `levels` of a filter, in the order of their
    /// names. Skips nodes up to and including `after`. Returns `Break` when a limit of the walk is
    /// reached.
    pub(super) fn visit(
        &self,
        levels: &[&str],
        after: Option<&[&str]>,
        walk: &mut TreeWalk<'_>,
    ) -> ControlFlow<()> {
        // With `after`, this node was visited by the former part of the walk.
        if after.is_none() {
            // `#` includes the parent level, so an exhausted filter and `#` match here. [MQTT 5.0, 4.7.1.2]
            if matches!(levels.first(), None | Some(&"#")) {
                let found = self.message.as_ref().and_then(|kept| kept.is_for(walk));
                let bytes = found.as_ref().map_or(0, |message| message.size());
                // The message that exceeds the bound is still taken, so that each part makes progress.
                walk.bytes_left = walk.bytes_left.saturating_sub(bytes);
                walk.found.extend(found);
            }
            // A node without a message counts too, because a tree may have many of them.
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
        // Children before the last position are skipped, which costs one search in the ordered map.
        let (from, rest) = match after {
            Some([from, rest @ ..]) => (*from, rest),
            None | Some([]) => ("", &[][..]),
        };
        let skips_dollar = walk.depth == 0 && !walk.has_dollar;
        let mut go_on = |name: &str, child: &Self| {
            // Only on the way to the last position is the rest of it needed.
            let is_begun = after.is_some_and(|after| after.first() == Some(&name));
            walk.within(name, |walk| child.visit(below, is_begun.then_some(rest), walk))
        };
        // A literal level has one child at most.
        if level != "#" && level != "+" {
            let child = self.children.get(level).filter(|_| level >= from);
            return child.map_or(ControlFlow::Continue(()), |child| go_on(level, child));
        }
        // Wildcards do not match a first level that begins with '$'. Skip these levels as a range:
        // there may be many. [MQTT-4.7.2-1]
        let (gap, after_gap) = if skips_dollar { ("$", "%") } else { ("", "") };
        let before = (Bound::Included(from.min(gap)), Bound::Excluded(gap));
        let behind = (Bound::Included(from.max(after_gap)), Bound::Unbounded);
        let before = self.children.range::<str, _>(before);
        let mut children = before.chain(self.children.range::<str, _>(behind));
        children.try_for_each(|(name, child)| go_on(name, child))
    }
}

/// The state of a walk through the tree.
pub(super) struct TreeWalk<'w> {
    pub(super) now: Timestamp,
    pub(super) until: u64,
    pub(super) nodes_left: usize,
    pub(super) bytes_left: usize,
    /// Whether `#` matches first levels that begin with `$` too.
    pub(super) has_dollar: bool,
    pub(super) found: &'w mut Vec<Arc<Message>>,
    /// The topic of the current node, and its number of levels.
    pub(super) topic: String,
    pub(super) depth: usize,
}

impl TreeWalk<'_> {
    /// Visits one level further down. If that breaks off, `topic` stays at the last visited node.
    fn within(
        &mut self,
        level: &str,
        visit: impl FnOnce(&mut Self) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // The topic of the visited node is built in one buffer.
        let above = self.topic.len();
        if self.depth > 0 {
            self.topic.push('/');
        }
        self.topic.push_str(level);
        self.depth += 1;
        // On a break the topic stays, because the next part begins behind it.
        visit(self)?;
        self.depth -= 1;
        self.topic.truncate(above);
        ControlFlow::Continue(())
    }
}

/// Returns the bytes of a topic level; the first entry of a table includes the table.
const fn entry_bytes(level: &str, is_first: bool) -> usize {
    ENTRY_BYTES + level.len() + if is_first { TABLE_BYTES } else { 0 }
}
