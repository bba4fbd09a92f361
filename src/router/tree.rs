//! The tree of Topic Filters, with one edge for each level of a filter.
//!
//! Matching a topic follows the literal edge and the `+` edge of each level, so the cost depends on
//! the topic's levels and not on the number of filters.

use std::{
    hash::{BuildHasher, Hasher},
    num::NonZeroU32,
};

use foldhash::fast::RandomState;
use slab::Slab;
use smallvec::SmallVec;

use super::{
    edges::{Edge, Edges},
    level::Level,
    subscribers::Subscribers,
};

/// A tree of filters. The root node is created with the tree and never removed.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Slab<Node>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    /// The child for `+`. The root is never a child, so its number 0 can mean none.
    single: Option<NonZeroU32>,
    /// The level of the edge from the parent.
    level: Level,
    children: Edges,
    /// Subscribers whose filter ends here.
    here: Option<Box<Subscribers>>,
    /// Subscribers whose filter ends with `#` after this level.
    below: Option<Box<Subscribers>>,
}

/// Subscribers of filters that match a topic.
pub(super) type Matches<'t> = SmallVec<[&'t Subscribers; 16]>;
/// The nodes that the levels of a topic lead to.
type Nodes<'t> = SmallVec<[&'t Node; 32]>;

const ROOT: u32 = 0;
const SINGLE_LEVEL_WILDCARD: &[u8] = b"+";

impl Tree {
    pub(super) fn new() -> Self {
        let mut nodes = Slab::new();
        nodes.insert(Node::new(ROOT, b""));
        Self { nodes, hasher: RandomState::default() }
    }

    /// Changes the subscribers of `filter`: creates the entry if it is missing and removes it if it
    /// is empty afterwards.
    pub(super) fn change<T>(
        &mut self,
        filter: &str,
        change: impl FnOnce(&mut Subscribers) -> T,
    ) -> T {
        // A trailing `#` is no node of its own: its subscribers are in the node of its parent level.
        let (path, multi) = split(filter);
        let mut at = ROOT;
        for level in path {
            at = self.child_or_new(at, level.as_bytes());
        }
        let node = &mut self.nodes[at as usize];
        // One filter and the same with `/#` end at one node.
        let place = if multi { &mut node.below } else { &mut node.here };
        let subscribers = place.get_or_insert_default();
        let outcome = change(subscribers);
        // Levels that only led to this filter go with it.
        if subscribers.is_empty() {
            *place = None;
            self.prune(at);
        }
        outcome
    }

    /// Returns the subscribers of all filters that match `topic`.
    ///
    /// Processes one level at a time, and each step for all nodes of that level. In a large tree
    /// few nodes are in the processor's cache, so this lets several memory reads overlap.
    pub(super) fn matches(&self, topic: &str) -> Matches<'_> {
        let mut found = Matches::new();
        // All nodes so far; each level appends its nodes.
        let mut nodes = Nodes::new();
        // The root is no level of the topic, and never a match itself.
        nodes.push(self.node(ROOT));
        let mut those_of_level = 0..1;
        // Wildcards do not match a first level that begins with '$'. [MQTT-4.7.2-1]
        let mut wildcards_match = !topic.starts_with('$');
        for level in topic.as_bytes().split(|byte| *byte == b'/') {
            // No filter goes on this far, so the rest of the topic need not be read.
            if those_of_level.is_empty() {
                break;
            }
            if wildcards_match {
                for at in those_of_level.clone() {
                    // '#' includes its parent level (section 4.7.1.2).
                    if let Some(below) = &nodes[at].below {
                        found.push(below);
                    }
                    if let Some(child) = nodes[at].single {
                        nodes.push(self.node(child.get()));
                    }
                }
            }
            // Hashed once for all nodes of the level.
            let hash = self.hash(level);
            let candidates = nodes.len();
            // First all candidates, then their comparison: the reads of the first loop overlap.
            for at in those_of_level.clone() {
                if let Some(child) = nodes[at].children.candidate(hash) {
                    nodes.push(self.node(child.get()));
                }
            }
            // Backwards, because `swap_remove` moves the last node to the removed position.
            for at in (candidates..nodes.len()).rev() {
                if nodes[at].level.as_bytes() != level {
                    match self.literal_child(nodes[at].parent, level, hash) {
                        Some(right) => nodes[at] = self.node(right.get()),
                        None => drop(nodes.swap_remove(at)),
                    }
                }
            }
            those_of_level = those_of_level.end..nodes.len();
            // Only the first level hides topics that begin with `$`.
            wildcards_match = true;
        }
        // The topic ends here: these nodes match it exactly, or by a `#` of the parent level.
        for node in &nodes[those_of_level] {
            if let Some(below) = &node.below {
                found.push(below);
            }
            if let Some(here) = &node.here {
                found.push(here);
            }
        }
        found
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    /// Finds the child for `level`, whose hash is `hash`.
    fn literal_child(&self, at: u32, level: &[u8], hash: u32) -> Option<NonZeroU32> {
        let mut all = self.node(at).children.all(hash);
        all.find(|child| self.node(child.get()).level.as_bytes() == level)
    }

    fn child_or_new(&mut self, at: u32, level: &[u8]) -> u32 {
        let hash = self.hash(level);
        // `+` has an edge of its own, so that matching a literal level never meets it.
        let is_single = level == SINGLE_LEVEL_WILDCARD;
        let child =
            if is_single { self.node(at).single } else { self.literal_child(at, level, hash) };
        if let Some(child) = child {
            return child.get();
        }
        let child = self.nodes.insert(Node::new(at, level)) as u32;
        // Index 0 is the root, which lets the edge do without a flag for "none".
        let node = NonZeroU32::new(child).expect("the root was there before");
        if is_single {
            self.nodes[at as usize].single = Some(node);
        } else {
            // Taken out while inserting, because `hash_of` reads other nodes.
            let mut children = std::mem::take(&mut self.nodes[at as usize].children);
            let hash_of = |other: NonZeroU32| self.hash(self.node(other.get()).level.as_bytes());
            children.insert(Edge { hash, node }, hash_of);
            self.nodes[at as usize].children = children;
        }
        child
    }

    /// Removes a node that is no longer needed, and then its unneeded ancestors.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.nodes[at as usize].is_unused() {
            let Node { parent, level, .. } = self.nodes.remove(at as usize);
            let level = level.as_bytes();
            if level == SINGLE_LEVEL_WILDCARD {
                self.nodes[parent as usize].single = None;
            } else if let Some(node) = NonZeroU32::new(at) {
                let edge = Edge { hash: self.hash(level), node };
                self.nodes[parent as usize].children.remove(edge);
            }
            at = parent;
        }
    }

    fn hash(&self, level: &[u8]) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(level);
        hasher.finish() as u32
    }
}

impl Node {
    fn new(parent: u32, level: &[u8]) -> Self {
        Self {
            parent,
            single: None,
            level: Level::new(level),
            children: Edges::None,
            here: None,
            below: None,
        }
    }

    const fn is_unused(&self) -> bool {
        self.here.is_none()
            && self.below.is_none()
            && self.single.is_none()
            && self.children.is_empty()
    }
}

/// Returns the levels of a filter before a final `#`, and whether there is a `#`.
fn split(filter: &str) -> (impl Iterator<Item = &str>, bool) {
    let (path, multi) = match filter.strip_suffix('#') {
        None => (Some(filter), false),
        // "#" has no level before it; "/#" has one, which is empty.
        Some(before) => (before.strip_suffix('/'), true),
    };
    (path.into_iter().flat_map(|path| path.split('/')), multi)
}
