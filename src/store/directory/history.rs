//! The changes of a group to the histories of clients: their rings, and the order in which rings
//! leave.
//!
//! A ring is read when the group first changes it, and written once. Knows the state before the group
//! and returns the writes.

use std::{collections::BTreeSet, iter};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, hash_map::Entry};

use super::{
    database::{Database, Writes},
    keys::{self, Space, meta},
    records, rings,
    view::View,
};
use crate::{
    history::{ClientHistory, ConnectionNotes, HistoryPlace, HistoryTidy},
    journal::Change,
    store::StoreError,
};

/// Collects the changes of rings.
pub(super) struct HistoryGroup<'a> {
    database: &'a Database,
    /// The rings that the group has touched, by their keys.
    rings: HashMap<Vec<u8>, RingChange, RandomState>,
    /// The places of those that exist now.
    places: BTreeSet<(HistoryPlace, Vec<u8>)>,
    /// The number of connections of all rings, before the group and now; `None` while no change
    /// needs it.
    records: Option<(u64, u64)>,
}

struct RingChange {
    /// The place that the store has.
    before: Option<HistoryPlace>,
    /// The ring; `None` if it is gone.
    now: Option<ClientHistory>,
}

impl<'a> HistoryGroup<'a> {
    pub(super) fn new(database: &'a Database) -> Self {
        Self { database, rings: HashMap::default(), places: BTreeSet::new(), records: None }
    }

    /// Adds the next change; ignores all but those of histories.
    pub(super) fn add(&mut self, change: &Change) -> Result<(), StoreError> {
        if let Change::NoteConnections(connections) = change {
            self.note(connections)
        } else if let Change::TidyHistory(tidy) = change {
            self.tidy(tidy)
        } else {
            Ok(())
        }
    }

    fn note(&mut self, connections: &ConnectionNotes) -> Result<(), StoreError> {
        for (client_id, connection) in &connections.notes {
            let key = keys::history(client_id);
            let ring = self.take(&key)?;
            let mut ring = ring.unwrap_or_else(|| ClientHistory::new(client_id.clone()));
            ring.note(connection, connections.kept);
            self.put(key, ring)?;
        }
        Ok(())
    }

    /// Takes a ring out, to put it back changed or not at all.
    fn take(&mut self, key: &[u8]) -> Result<Option<ClientHistory>, StoreError> {
        let now = match self.rings.entry(key.to_vec()) {
            Entry::Occupied(entry) => entry.into_mut().now.take(),
            Entry::Vacant(entry) => {
                let now = stored(self.database, key)?;
                let before = now.as_ref().and_then(ClientHistory::place);
                entry.insert(RingChange { before, now: None });
                now
            }
        };
        if let Some(ring) = &now {
            self.count()?.1 -= ring.connections.len() as u64;
            if let Some(place) = ring.place() {
                self.places.remove(&(place, key.to_vec()));
            }
        }
        Ok(now)
    }

    fn put(&mut self, key: Vec<u8>, ring: ClientHistory) -> Result<(), StoreError> {
        let Some(place) = ring.place() else { return Ok(()) };
        self.count()?.1 += ring.connections.len() as u64;
        self.places.insert((place, key.clone()));
        if let Some(change) = self.rings.get_mut(&key) {
            change.now = Some(ring);
        }
        Ok(())
    }

    fn count(&mut self) -> Result<&mut (u64, u64), StoreError> {
        if self.records.is_none() {
            let stored = self.database.read(Space::Meta, meta::CONNECTIONS)?;
            let stored = stored.map_or(Some(0), |stored| records::decode_number(&stored));
            let damaged = || self.database.damaged("a counter cannot be read");
            let stored = stored.ok_or_else(damaged)?;
            self.records = Some((stored, stored));
        }
        Ok(self.records.get_or_insert((0, 0)))
    }

    fn tidy(&mut self, tidy: &HistoryTidy) -> Result<(), StoreError> {
        let view = View::new(self.database);
        let mut left = tidy.limit;
        for kind in [keys::CLOSED, keys::OPEN] {
            let mut stored = view.beginning(Space::HistoryOrder, &[kind]);
            let mut next_stored = self.next_untouched(&mut stored)?;
            while left > 0 {
                let touched = self.places.iter().find(|(place, _)| keys::kind_of(*place) == kind);
                let first = next_stored.iter().chain(touched).min().cloned();
                let Some((place, key)) = first else { break };
                if !tidy.removes(place, self.count()?.1) {
                    break;
                }
                if next_stored.as_ref().is_some_and(|(_, stored)| *stored == key) {
                    next_stored = self.next_untouched(&mut stored)?;
                }
                self.take(&key)?;
                left -= 1;
            }
        }
        Ok(())
    }

    /// Returns the next place of the store whose ring the group has not touched.
    fn next_untouched(
        &self,
        stored: &mut super::view::RecordRange<'_>,
    ) -> Result<Option<(HistoryPlace, Vec<u8>)>, StoreError> {
        for entry in iter::from_fn(|| stored.next()) {
            let place = keys::split_history_place(&entry?.0);
            let damaged = || self.database.damaged("a place in the history cannot be read");
            let (place, key) = place.ok_or_else(damaged)?;
            if !self.rings.contains_key(&key) {
                return Ok(Some((place, key)));
            }
        }
        Ok(None)
    }

    /// Adds the writes.
    pub(super) fn write(&self, writes: &mut Writes) {
        for (key, RingChange { before, now }) in &self.rings {
            let place = now.as_ref().and_then(ClientHistory::place);
            if before.is_none() && place.is_none() {
                continue;
            }
            if let Some(before) = before.filter(|before| Some(*before) != place) {
                writes.insert((Space::HistoryOrder, keys::history_place(before, key)), None);
            }
            if let Some(place) = place.filter(|place| Some(*place) != *before) {
                let key = keys::history_place(place, key);
                writes.insert((Space::HistoryOrder, key), Some(Vec::new()));
            }
            writes.insert((Space::History, key.clone()), now.as_ref().map(rings::encode));
        }
        if let Some((before, now)) = self.records
            && before != now
        {
            let number = Some(records::encode_number(now));
            writes.insert((Space::Meta, meta::CONNECTIONS.to_vec()), number);
        }
    }
}

fn stored(database: &Database, key: &[u8]) -> Result<Option<ClientHistory>, StoreError> {
    let Some(value) = database.read(Space::History, key)? else { return Ok(None) };
    let ring = rings::decode(&value);
    ring.map(Some).ok_or_else(|| database.damaged("the history of a client cannot be read"))
}
