//! The tree of Topic Filters, one level of a filter an edge.
//!
//! Matching a topic walks the literal edge and the `+` edge of each level, so its cost depends on
//! the topic's levels and not on how many filters there are.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use slab::Slab;

use super::subscribers::Subscribers;

/// A tree of filters. The root's node is made at once and never removed.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Slab<Node>,
}

#[derive(Debug, Default)]
struct Node {
    parent: u32,
    /// The level that leads here from the parent.
    level: Box<str>,
    children: Children,
    /// Where `+` leads to.
    single: Option<u32>,
    /// Those whose filter ends here.
    here: Option<Box<Subscribers>>,
    /// Those whose filter ends with `#` after this level.
    below: Option<Box<Subscribers>>,
}

/// The literal levels below a node. Most nodes have none or one.
#[derive(Debug, Default)]
enum Children {
    #[default]
    None,
    One(Box<str>, u32),
    #[expect(clippy::box_collection, reason = "most nodes have none, and there are many nodes")]
    Many(Box<HashMap<Box<str>, u32, RandomState>>),
}

const ROOT: u32 = 0;

impl Tree {
    pub(super) fn new() -> Self {
        let mut nodes = Slab::new();
        nodes.insert(Node::default());
        Self { nodes }
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
            at = self.child_or_new(at, level);
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
        let root = &self.nodes[ROOT as usize];
        let mut levels = topic.split('/');
        let first = levels.next().unwrap_or_default();
        // Wildcards do not match a first level that begins with '$'. [MQTT-4.7.2-1]
        if first.starts_with('$') {
            if let Some(child) = root.children.find(first) {
                self.walk(child, levels, found);
            }
        } else {
            self.walk(ROOT, topic.split('/'), found);
        }
    }

    fn walk<'a, 't>(
        &'a self,
        at: u32,
        mut levels: impl Iterator<Item = &'t str> + Clone,
        found: &mut impl FnMut(&'a Subscribers),
    ) {
        let node = &self.nodes[at as usize];
        // '#' includes the level above it. Section 4.7.1.2.
        if let Some(subscribers) = &node.below {
            found(subscribers);
        }
        let Some(level) = levels.next() else {
            if let Some(subscribers) = &node.here {
                found(subscribers);
            }
            return;
        };
        if let Some(child) = node.single {
            self.walk(child, levels.clone(), found);
        }
        if let Some(child) = node.children.find(level) {
            self.walk(child, levels, found);
        }
    }

    fn child_or_new(&mut self, at: u32, level: &str) -> u32 {
        let node = &self.nodes[at as usize];
        let child = if level == "+" { node.single } else { node.children.find(level) };
        if let Some(child) = child {
            return child;
        }
        let new = Node { parent: at, level: level.into(), ..Node::default() };
        let child = self.nodes.insert(new) as u32;
        let node = &mut self.nodes[at as usize];
        if level == "+" {
            node.single = Some(child);
        } else {
            node.children.insert(level.into(), child);
        }
        child
    }

    /// Removes a node that nothing needs any more, and then its parents likewise.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.nodes[at as usize].is_unused() {
            let Node { parent, level, .. } = self.nodes.remove(at as usize);
            let parent_node = &mut self.nodes[parent as usize];
            if &*level == "+" {
                parent_node.single = None;
            } else {
                parent_node.children.remove(&level);
            }
            at = parent;
        }
    }
}

impl Node {
    const fn is_unused(&self) -> bool {
        self.here.is_none()
            && self.below.is_none()
            && self.single.is_none()
            && matches!(self.children, Children::None)
    }
}

impl Children {
    fn find(&self, level: &str) -> Option<u32> {
        match self {
            Self::None => None,
            Self::One(name, child) => (&**name == level).then_some(*child),
            Self::Many(map) => map.get(level).copied(),
        }
    }

    fn insert(&mut self, level: Box<str>, child: u32) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(level, child),
            Self::One(name, other) => {
                let mut map = HashMap::with_capacity_and_hasher(4, RandomState::default());
                map.insert(name, other);
                map.insert(level, child);
                Self::Many(Box::new(map))
            }
            Self::Many(mut map) => {
                map.insert(level, child);
                Self::Many(map)
            }
        };
    }

    fn remove(&mut self, level: &str) {
        match self {
            Self::None => {}
            Self::One(..) => *self = Self::None,
            Self::Many(map) => {
                map.remove(level);
                if map.is_empty() {
                    *self = Self::None;
                }
            }
        }
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
