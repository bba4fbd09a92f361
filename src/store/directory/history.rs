//! The changes of a group to the histories of clients: their rings, and the order in which rings
//! leave.
//!
//! A ring is read when the group first changes it, and written once. `owners.rs` has the order of
//! each owner. Knows the state before the group and returns the writes.

use std::{collections::BTreeSet, iter};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, hash_map::Entry};

use super::{
    database::{Database, Writes},
    keys::{self, OwnerKey, Space, meta},
    owners::OwnerGroup,
    records, rings,
    view::View,
};
use crate::{
    history::{ClientHistory, ConnectionNotes, HistoryPlace, HistoryShare, HistoryTidy},
    journal::Change,
    owners::Owner,
    store::StoreError,
};

/// Collects the changes of rings.
pub(super) struct HistoryGroup<'a> {
    database: &'a Database,
    /// The rings that the group has touched, by their keys.
    rings: HashMap<Vec<u8>, RingChange, RandomState>,
    /// The places of those that exist now.
    places: BTreeSet<(HistoryPlace, Vec<u8>)>,
    /// The owners of these rings, before and now.
    owners: HashMap<OwnerKey, OwnerGroup<'a>, RandomState>,
    /// The last owner that was looked up, and its key: often the next ring has the same.
    last_owner: Option<(Owner, OwnerKey)>,
    /// The number of connections of all rings, before the group and now; `None` while no change
    /// needs it.
    records: Option<(u64, u64)>,
}

struct RingChange {
    /// The place of the ring in the store.
    before: Option<RingPlace>,
    /// The ring; `None` if it is gone.
    now: Option<(ClientHistory, RingPlace)>,
}

/// Where a ring is in the orders.
#[derive(Clone, Copy, PartialEq, Eq)]
struct RingPlace {
    place: HistoryPlace,
    /// `None` for a ring that is not counted for its owner.
    owner: Option<OwnerKey>,
}

impl<'a> HistoryGroup<'a> {
    pub(super) fn new(database: &'a Database) -> Self {
        Self {
            database,
            rings: HashMap::default(),
            places: BTreeSet::new(),
            owners: HashMap::default(),
            last_owner: None,
            records: None,
        }
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
        let mut left = connections.share.limit;
        for (client_id, connection) in &connections.notes {
            let key = keys::history(client_id);
            let ring = self.take(&key)?;
            let mut ring = ring.unwrap_or_else(|| ClientHistory::new(client_id.clone()));
            ring.note(connection, connections.kept);
            if let Some(owner) = self.put(key, ring)? {
                self.hold_share(&owner, &connections.share, &mut left)?;
            }
        }
        Ok(())
    }

    /// Removes the first rings of an owner while it has more than its share.
    fn hold_share(
        &mut self,
        owner: &OwnerKey,
        share: &HistoryShare,
        left: &mut u32,
    ) -> Result<(), StoreError> {
        // Bounded by `left`, so that an owner with a lowered share does not make one group long.
        while *left > 0
            && let Some(group) = self.owners.get_mut(owner)
            && group.count > share.records_max
        {
            let rings = &self.rings;
            let first = group.first(self.database, owner, |key| rings.contains_key(key))?;
            // The order has closed rings first; if the first one stays, all stay.
            let Some((_, key)) = first.filter(|(place, _)| share.removes(*place)) else { break };
            *left -= 1;
            // Only the connections of this owner leave; those of a former owner of the identifier stay.
            if let Some(mut ring) = self.take(&key)? {
                ring.leave();
                self.put(key, ring)?;
            }
        }
        Ok(())
    }

    /// Takes a ring out, to put it back changed or not at all.
    fn take(&mut self, key: &[u8]) -> Result<Option<ClientHistory>, StoreError> {
        let now = match self.rings.get_mut(key) {
            Some(change) => change.now.take(),
            // Read once for the group; later changes find it in memory.
            None => {
                let now = self.stored(key)?;
                let before = now.as_ref().map(|(_, at)| *at);
                self.rings.insert(key.to_vec(), RingChange { before, now: None });
                now
            }
        };
        let Some((ring, RingPlace { place, owner })) = now else { return Ok(None) };
        let records = ring.connections.len() as u64;
        self.count()?.1 -= records;
        // Its place is of the past now; `put` gives it the new one.
        self.places.remove(&(place, key.to_vec()));
        if let Some(owner) = owner {
            let group = self.owner(owner)?;
            group.count = group.count.saturating_sub(records);
            group.places.remove(&(place, key.to_vec()));
        }
        Ok(Some(ring))
    }

    /// Reads a ring from the store.
    fn stored(&mut self, key: &[u8]) -> Result<Option<(ClientHistory, RingPlace)>, StoreError> {
        let Some(value) = self.database.read(Space::History, key)? else { return Ok(None) };
        let ring = rings::decode(&value);
        let damaged = || self.database.damaged("the history of a client cannot be read");
        let ring = ring.ok_or_else(damaged)?;
        let Some(place) = ring.place() else { return Ok(None) };
        let owner = ring.owner().filter(|_| rings::is_counted(&value));
        let owner = owner.map(|owner| self.key_of(owner));
        Ok(Some((ring, RingPlace { place, owner })))
    }

    /// Puts a ring back unless it is empty; returns its owner.
    fn put(&mut self, key: Vec<u8>, ring: ClientHistory) -> Result<Option<OwnerKey>, StoreError> {
        // A ring without connections has no place, and is not written.
        let (Some(place), Some(owner)) = (ring.place(), ring.owner()) else { return Ok(None) };
        let owner = self.key_of(owner);
        let records = ring.connections.len() as u64;
        self.count()?.1 += records;
        self.places.insert((place, key.clone()));
        let group = self.owner(owner)?;
        group.count += records;
        group.places.insert((place, key.clone()));
        if let Some(change) = self.rings.get_mut(&key) {
            change.now = Some((ring, RingPlace { place, owner: Some(owner) }));
        }
        Ok(Some(owner))
    }

    fn key_of(&mut self, owner: Owner) -> OwnerKey {
        match &self.last_owner {
            Some((last, key)) if *last == owner => *key,
            _ => {
                let key = keys::owner(&owner);
                self.last_owner = Some((owner, key));
                key
            }
        }
    }

    fn owner(&mut self, owner: OwnerKey) -> Result<&mut OwnerGroup<'a>, StoreError> {
        match self.owners.entry(owner) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(OwnerGroup::read(self.database, &owner)?)),
        }
    }

    fn count(&mut self) -> Result<&mut (u64, u64), StoreError> {
        if self.records.is_none() {
            let stored = self.database.read_number(Space::Meta, meta::CONNECTIONS)?;
            self.records = Some((stored, stored));
        }
        Ok(self.records.get_or_insert((0, 0)))
    }

    fn tidy(&mut self, tidy: &HistoryTidy) -> Result<(), StoreError> {
        let view = View::new(self.database);
        let mut left = tidy.limit;
        // Closed rings go before open ones, because an open one may belong to a client that is online.
        for kind in [keys::CLOSED, keys::OPEN] {
            let mut stored = view.beginning(Space::HistoryOrder, &[kind]);
            let mut next_stored = self.next_untouched(&mut stored)?;
            while left > 0 {
                let touched = self.places.iter().find(|(place, _)| keys::kind_of(*place) == kind);
                // The order of the store and that of the group are merged, because the group may
                // have moved rings.
                let first = next_stored.iter().chain(touched).min().cloned();
                let Some((place, key)) = first else { break };
                if !tidy.removes(place, self.count()?.1) {
                    break;
                }
                // The pass goes on behind it before the ring is taken, which marks it as touched.
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
            let at = now.as_ref().map(|(_, at)| *at);
            // Made and removed within the group.
            if before.is_none() && at.is_none() {
                continue;
            }
            let in_order = |at: RingPlace| keys::history_place(at.place, key);
            let of_owner = |at: RingPlace| {
                let owner = at.owner?;
                Some(keys::owner_place(&owner, at.place, key))
            };
            // Old and new place differ by time, so each change of a ring moves its key.
            move_to(Space::HistoryOrder, before.map(in_order), at.map(in_order), writes);
            let (before, at) = (before.and_then(of_owner), at.and_then(of_owner));
            move_to(Space::OwnerOrder, before, at, writes);
            let ring = now.as_ref().map(|(ring, _)| rings::encode(ring));
            writes.insert((Space::History, key.clone()), ring);
        }
        for (owner, group) in &self.owners {
            group.write(owner, writes);
        }
        if let Some((before, now)) = self.records
            && before != now
        {
            let number = Some(records::encode_number(now));
            writes.insert((Space::Meta, meta::CONNECTIONS.to_vec()), number);
        }
    }
}

/// Adds the writes that move an entry of an order to another key.
fn move_to(space: Space, before: Option<Vec<u8>>, now: Option<Vec<u8>>, writes: &mut Writes) {
    if before == now {
        return;
    }
    if let Some(before) = before {
        writes.insert((space, before), None);
    }
    if let Some(now) = now {
        writes.insert((space, now), Some(Vec::new()));
    }
}
