//! The histories of one owner in a group of changes: their number of connections, and their order.
//!
//! Knows neither rings nor shares.

use std::{collections::BTreeSet, iter::Peekable};

use super::{
    database::{Database, Writes},
    keys::{self, OwnerKey, Space},
    records,
    view::{RecordRange, View},
};
use crate::{history::HistoryPlace, store::StoreError};

/// The histories of an owner, before the group and now.
pub(super) struct OwnerGroup<'a> {
    /// The number of connections before the group.
    before: u64,
    /// The number of connections now.
    pub(super) count: u64,
    /// The places of the rings that the group has touched.
    pub(super) places: BTreeSet<(HistoryPlace, Vec<u8>)>,
    /// The places in the store that were not passed yet; `None` while none is needed.
    stored: Option<Peekable<RecordRange<'a>>>,
}

impl<'a> OwnerGroup<'a> {
    pub(super) fn read(database: &Database, owner: &OwnerKey) -> Result<Self, StoreError> {
        let before = database.read_number(Space::OwnerCounts, owner)?;
        Ok(Self { before, count: before, places: BTreeSet::new(), stored: None })
    }

    /// Returns the first place now. `is_touched` returns whether the group has changed the ring with
    /// this key, so that the place in the store is of the past.
    pub(super) fn first(
        &mut self,
        database: &'a Database,
        owner: &OwnerKey,
        is_touched: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<(HistoryPlace, Vec<u8>)>, StoreError> {
        // The pass over the store begins once for the group, and goes on where it stopped.
        let stored = self.stored.get_or_insert_with(|| {
            View::new(database).beginning(Space::OwnerOrder, owner).peekable()
        });
        let mut next_stored = None;
        // Places of rings that the group has changed are skipped: their new places are in `places`.
        while let Some(entry) = stored.peek() {
            if let Ok((key, _)) = entry {
                let place = keys::split_owner_place(key);
                let damaged = || database.damaged("a place of an owner cannot be read");
                let (_, place, ring) = place.ok_or_else(damaged)?;
                if !is_touched(&ring) {
                    next_stored = Some((place, ring));
                    break;
                }
            }
            stored.next().transpose()?;
        }
        Ok(next_stored.iter().chain(self.places.first()).min().cloned())
    }

    /// Adds the write of the number, if it has changed.
    pub(super) fn write(&self, owner: &OwnerKey, writes: &mut Writes) {
        if self.before != self.count {
            let number = (self.count > 0).then(|| records::encode_number(self.count));
            writes.insert((Space::OwnerCounts, owner.to_vec()), number);
        }
    }
}
