//! The clients of a shard by their identifiers: to find one, and to walk along them in order.
//!
//! The order is that of the bytes of the identifiers. It makes a list stable: a walk remembers the
//! last identifier, and finds its place again whatever came and went meanwhile.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use foldhash::fast::RandomState;

/// The slots of a shard's clients, by Client Identifier.
#[derive(Default)]
pub(in crate::shard) struct ClientIndex {
    slots: HashMap<Arc<str>, u32, RandomState>,
    /// The same identifiers in order. It shares their text, so a client costs about 24 bytes.
    ordered: BTreeSet<Arc<str>>,
}

impl ClientIndex {
    pub(in crate::shard) fn get(&self, client_id: &str) -> Option<&u32> {
        self.slots.get(client_id)
    }

    pub(in crate::shard) fn insert(&mut self, client_id: Arc<str>, slot: u32) {
        if self.slots.insert(client_id.clone(), slot).is_none() {
            self.ordered.insert(client_id);
        }
    }

    pub(in crate::shard) fn remove(&mut self, client_id: &str) {
        if self.slots.remove(client_id).is_some() {
            self.ordered.remove(client_id);
        }
    }

    pub(in crate::shard) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the identifiers from a bound on, in the order of their bytes.
    pub(in crate::shard) fn from<'s>(
        &'s self,
        bound: Bound<&str>,
    ) -> impl Iterator<Item = &'s Arc<str>> + use<'s> {
        self.ordered.range::<str, _>((bound, Bound::Unbounded))
    }
}
