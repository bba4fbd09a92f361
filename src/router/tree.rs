//! The tree of Topic Filters, one level of a filter an edge.
//!
//! Matching a topic walks the literal edge and the `+` edge of each level, so its cost depends on
//! the topic's levels and not on how many filters there are.

use std::{
    hash::{BuildHasher, Hasher},
    num::NonZeroU32,
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use slab::Slab;

use super::{level::Level, subscribers::Subscribers};

/// A tree of filters. The root's node is made at once and never removed.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Slab<Node>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    /// Where `+` leads to. The root is nobody's child, so its number is free to mean none.
    single: Option<NonZeroU32>,
    /// The level that leads here from the parent.
    level: Level,
    children: Children,
    /// Those whose filter ends here.
    here: Option<Box<Subscribers>>,
    /// Those whose filter ends with `#` after this level.
    below: Option<Box<Subscribers>>,
}

/// The nodes of the literal levels below a node, each of which has its text itself. Most nodes have
/// none or one.
#[derive(Debug, Default)]
enum Children {
    #[default]
    None,
    One(u32),
    /// By the hash of their text.
    Many(Box<HashTable<u32>>),
}

const ROOT: u32 = 0;
const SINGLE_LEVEL_WILDCARD: &[u8] = b"+";

impl Tree {
    pub(super) fn new() -> Self {
        let mut nodes = Slab::new();
        nodes.insert(Node::new(ROOT, b""));
        Self { nodes, hasher: RandomState::default() }
    }

    /// Changes the subscribers of `filter`, which are made when they are not there yet and
    /// forgotten when they are empty afterwards.
    pub(super) fn change<T>(
        &mut self,
        filter: &str,
        change: impl FnOnce(&mut Subscribers) -> T,
    ) -> T {
        let (path, multi) = split(filter);
        let mut at = ROOT;
        for level in path {
            at = self.child_or_new(at, level.as_bytes());
        }
        let node = &mut self.nodes[at as usize];
        let place = if multi { &mut node.below } else { &mut node.here };
        let subscribers = place.get_or_insert_default();
        let outcome = change(subscribers);
        if subscribers.is_empty() {
            *place = None;
            self.prune(at);
        }
        outcome
    }

    /// Calls `found` with the subscribers of every filter that matches `topic`.
    pub(super) fn matches<'a>(&'a self, topic: &str, found: &mut impl FnMut(&'a Subscribers)) {
        // Wildcards do not match a first level that begins with '$'. [MQTT-4.7.2-1]
        if topic.starts_with('$') {
            let (first, rest) = next_level(topic.as_bytes());
            if let Some(child) = self.literal_child(&self.nodes[ROOT as usize], first) {
                self.walk(child, rest, found);
            }
        } else {
            self.walk(ROOT, Some(topic.as_bytes()), found);
        }
    }

    /// `rest` is what of the topic lies below this node.
    fn walk<'a>(&'a self, at: u32, rest: Option<&[u8]>, found: &mut impl FnMut(&'a Subscribers)) {
        let node = &self.nodes[at as usize];
        // '#' includes the level above it. Section 4.7.1.2.
        if let Some(subscribers) = &node.below {
            found(subscribers);
        }
        let Some(rest) = rest else {
            if let Some(subscribers) = &node.here {
                found(subscribers);
            }
            return;
        };
        let (level, rest) = next_level(rest);
        if let Some(child) = node.single {
            self.walk(child.get(), rest, found);
        }
        if let Some(child) = self.literal_child(node, level) {
            self.walk(child, rest, found);
        }
    }

    fn literal_child(&self, node: &Node, level: &[u8]) -> Option<u32> {
        let is_it = |child: &u32| self.nodes[*child as usize].level.as_bytes() == level;
        match &node.children {
            Children::None => None,
            Children::One(child) => is_it(child).then_some(*child),
            Children::Many(table) => table.find(self.hash(level), is_it).copied(),
        }
    }

    fn child_or_new(&mut self, at: u32, level: &[u8]) -> u32 {
        let node = &self.nodes[at as usize];
        let child = if level == SINGLE_LEVEL_WILDCARD {
            node.single.map(NonZeroU32::get)
        } else {
            self.literal_child(node, level)
        };
        if let Some(child) = child {
            return child;
        }
        let child = self.nodes.insert(Node::new(at, level)) as u32;
        if level == SINGLE_LEVEL_WILDCARD {
            self.nodes[at as usize].single = NonZeroU32::new(child);
        } else {
            self.add_literal_child(at, child);
        }
        child
    }

    fn add_literal_child(&mut self, at: u32, child: u32) {
        // Taken out for the moment, since other nodes are looked at.
        let children = std::mem::take(&mut self.nodes[at as usize].children);
        let hash_of = |child: &u32| self.hash(self.nodes[*child as usize].level.as_bytes());
        let children = match children {
            Children::None => Children::One(child),
            Children::One(other) => {
                let mut table = HashTable::with_capacity(2);
                table.insert_unique(hash_of(&other), other, hash_of);
                table.insert_unique(hash_of(&child), child, hash_of);
                Children::Many(Box::new(table))
            }
            Children::Many(mut table) => {
                table.insert_unique(hash_of(&child), child, hash_of);
                Children::Many(table)
            }
        };
        self.nodes[at as usize].children = children;
    }

    /// Removes a node that nothing needs any more, and then its parents likewise.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.nodes[at as usize].is_unused() {
            let Node { parent, level, .. } = self.nodes.remove(at as usize);
            let level = level.as_bytes();
            if level == SINGLE_LEVEL_WILDCARD {
                self.nodes[parent as usize].single = None;
            } else {
                let hash = self.hash(level);
                self.nodes[parent as usize].children.remove(hash, at);
            }
            at = parent;
        }
    }

    fn hash(&self, level: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(level);
        hasher.finish()
    }
}

impl Node {
    fn new(parent: u32, level: &[u8]) -> Self {
        Self {
            parent,
            single: None,
            level: Level::new(level),
            children: Children::None,
            here: None,
            below: None,
        }
    }

    const fn is_unused(&self) -> bool {
        self.here.is_none()
            && self.below.is_none()
            && self.single.is_none()
            && matches!(self.children, Children::None)
    }
}

impl Children {
    /// `hash` is that of the child's text.
    fn remove(&mut self, hash: u64, child: u32) {
        match self {
            Self::None => {}
            Self::One(_) => *self = Self::None,
            Self::Many(table) => {
                if let Ok(entry) = table.find_entry(hash, |other| *other == child) {
                    entry.remove();
                }
                if table.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }
}

/// The first level, and what comes after its separator if it has one.
fn next_level(topic: &[u8]) -> (&[u8], Option<&[u8]>) {
    match topic.iter().position(|byte| *byte == b'/') {
        Some(at) => (&topic[..at], Some(&topic[at + 1..])),
        None => (topic, None),
    }
}

/// The levels of a filter before a final `#`, and whether there is one.
fn split(filter: &str) -> (impl Iterator<Item = &str>, bool) {
    let (path, multi) = match filter.strip_suffix('#') {
        None => (Some(filter), false),
        // "#" has no level before it; "/#" has one, which is empty.
        Some(before) => (before.strip_suffix('/'), true),
    };
    (path.into_iter().flat_map(|path| path.split('/')), multi)
}
