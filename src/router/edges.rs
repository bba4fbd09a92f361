//! The edges from a node of the tree to the nodes of its literal levels.
//!
//! This is a specialised hash table, because most lookups miss the processor's cache. A general
//! table reads its control bytes, its entry and the node before it knows the result; this one reads
//! one cache line. An entry stores enough of the hash that the node can be read later, together
//! with others. Open addressing with linear probing; removal leaves no tombstones.

use std::num::NonZeroU32;

/// Most nodes have no child or one.
#[derive(Debug, Default)]
pub(super) enum Edges {
    #[default]
    None,
    One(NonZeroU32),
    Many(Box<Table>),
}

/// Between an eighth and three quarters of the slots are in use.
#[derive(Debug)]
pub(super) struct Table {
    /// The slots; their number is a power of two.
    places: Box<[Option<Edge>]>,
    len: usize,
}

/// The number of a node, and the hash of its level.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) hash: u32,
    pub(super) node: NonZeroU32,
}

const PLACES_MIN: usize = 4;

impl Edges {
    pub(super) const fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Returns one node whose level may have this hash. If its level differs, `all` includes the
    /// right node, if it exists.
    pub(super) fn candidate(&self, hash: u32) -> Option<NonZeroU32> {
        match self {
            Self::None => None,
            Self::One(node) => Some(*node),
            Self::Many(table) => table.all(hash).next(),
        }
    }

    /// Returns all nodes whose levels may have this hash.
    pub(super) fn all(&self, hash: u32) -> impl Iterator<Item = NonZeroU32> {
        let (one, table) = match self {
            Self::None => (None, None),
            Self::One(node) => (Some(*node), None),
            Self::Many(table) => (None, Some(table)),
        };
        one.into_iter().chain(table.into_iter().flat_map(move |table| table.all(hash)))
    }

    /// Adds an edge. `hash_of` returns the hash of a node that is in the table already.
    pub(super) fn insert(&mut self, edge: Edge, hash_of: impl FnOnce(NonZeroU32) -> u32) {
        match self {
            Self::None => *self = Self::One(edge.node),
            Self::One(other) => {
                let mut table = Table { places: vec![None; PLACES_MIN].into(), len: 0 };
                table.insert(Edge { hash: hash_of(*other), node: *other });
                table.insert(edge);
                *self = Self::Many(Box::new(table));
            }
            Self::Many(table) => table.insert(edge),
        }
    }

    pub(super) fn remove(&mut self, edge: Edge) {
        match self {
            Self::None => {}
            Self::One(_) => *self = Self::None,
            Self::Many(table) => {
                table.remove(edge);
                if table.len == 0 {
                    *self = Self::None;
                }
            }
        }
    }
}

impl Table {
    const fn mask(&self) -> usize {
        self.places.len() - 1
    }

    /// Probes from the slot of the hash to the next free slot.
    fn all(&self, hash: u32) -> impl Iterator<Item = NonZeroU32> {
        let mut at = hash as usize & self.mask();
        std::iter::from_fn(move || {
            let edge = self.places[at]?;
            at = (at + 1) & self.mask();
            Some(edge)
        })
        .filter(move |edge| edge.hash == hash)
        .map(|edge| edge.node)
    }

    fn insert(&mut self, edge: Edge) {
        if self.len + 1 > self.places.len() / 4 * 3 {
            self.resize(self.places.len() * 2);
        }
        self.put(edge);
        self.len += 1;
    }

    fn resize(&mut self, places: usize) {
        let before = std::mem::replace(&mut self.places, vec![None; places].into());
        before.iter().flatten().for_each(|edge| self.put(*edge));
    }

    fn put(&mut self, edge: Edge) {
        let mut at = edge.hash as usize & self.mask();
        while self.places[at].is_some() {
            at = (at + 1) & self.mask();
        }
        self.places[at] = Some(edge);
    }

    fn remove(&mut self, edge: Edge) {
        // Probing begins at the home of the hash, and ends at the edge or at a free place.
        let mut free = edge.hash as usize & self.mask();
        while let Some(other) = self.places[free]
            && other.node != edge.node
        {
            free = (free + 1) & self.mask();
        }
        // A free place was found, so the edge is not in the table.
        if self.places[free].take().is_none() {
            return;
        }
        self.len -= 1;
        // Edges behind the gap may have been pushed there by it; without the move a search would miss them.
        self.close_gap(free);
        // Shrink, so that a table that was large once does not stay large. At an eighth, because adding and
        // removing at one size must not resize again and again.
        if self.places.len() > PLACES_MIN && self.len < self.places.len() / 8 {
            self.resize(self.places.len() / 2);
        }
    }

    /// Moves up the entries after a freed slot, but none to before the slot of its hash.
    fn close_gap(&mut self, mut free: usize) {
        let mut at = free;
        loop {
            at = (at + 1) & self.mask();
            let Some(next) = self.places[at] else { return };
            let from_home = at.wrapping_sub(next.hash as usize) & self.mask();
            let from_free = at.wrapping_sub(free) & self.mask();
            if from_home >= from_free {
                self.places[free] = self.places[at].take();
                free = at;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastrand::Rng;

    use super::*;

    #[test]
    fn edges_are_found_whatever_came_and_went() {
        let mut rng = Rng::with_seed(17);
        // Few hashes, so that most collide; then many, so that some probes wrap around the end.
        for hashes in [3, 60, u32::MAX] {
            let mut edges = Edges::default();
            let mut there = BTreeMap::new();
            for step in 1..4_000_u32 {
                let node = NonZeroU32::new(rng.u32(1..200)).expect("not zero");
                let is_growing = step / 500 % 2 == 0;
                match there.remove(&node) {
                    Some(hash) if !is_growing => edges.remove(Edge { hash, node }),
                    Some(hash) => drop(there.insert(node, hash)),
                    None if is_growing => {
                        let hash = rng.u32(..hashes);
                        edges.insert(Edge { hash, node }, |other| there[&other]);
                        there.insert(node, hash);
                    }
                    None => {}
                }
                assert_eq!(edges.is_empty(), there.is_empty());
                for (node, hash) in &there {
                    assert!(edges.all(*hash).any(|found| found == *node), "{step}");
                }
                if let Edges::Many(table) = &edges {
                    assert!(
                        (table.len..=PLACES_MIN.max(16 * table.len)).contains(&table.places.len())
                    );
                }
                if !matches!(edges, Edges::One(_)) {
                    let hash = rng.u32(..hashes);
                    let right = there.values().filter(|other| **other == hash).count();
                    assert_eq!(edges.all(hash).count(), right);
                }
            }
        }
    }
}
