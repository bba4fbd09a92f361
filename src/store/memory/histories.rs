//! The histories of clients in memory, and the order in which they leave: of all, and of each owner.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    history::{ClientHistory, ConnectionNotes, HistoryPlace, HistoryShare, HistoryTidy},
    owners::Owner,
};

#[derive(Debug, Default)]
pub(super) struct Histories {
    rings: BTreeMap<Arc<str>, ClientHistory>,
    order: BTreeSet<(HistoryPlace, Arc<str>)>,
    /// The order of the rings of each owner.
    of_owners: BTreeSet<(Owner, HistoryPlace, Arc<str>)>,
    /// The number of connections of the rings of each owner.
    counts: BTreeMap<Owner, u64>,
    /// The number of connections of all rings.
    records: u64,
}

impl Histories {
    pub(super) fn find(&self, client_id: &str) -> Option<&ClientHistory> {
        self.rings.get(client_id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &ClientHistory> {
        self.rings.values()
    }

    pub(super) fn note(&mut self, connections: &ConnectionNotes) {
        let mut left = connections.share.limit;
        for (client_id, connection) in &connections.notes {
            let ring = self.remove(client_id);
            let mut ring = ring.unwrap_or_else(|| ClientHistory::new(client_id.clone()));
            ring.note(connection, connections.kept);
            if let Some(owner) = self.put(ring) {
                self.hold_share(&owner, &connections.share, &mut left);
            }
        }
    }

    /// Removes the first rings of an owner while it has more than its share.
    fn hold_share(&mut self, owner: &Owner, share: &HistoryShare, left: &mut u32) {
        while *left > 0 && self.counts.get(owner).is_some_and(|count| *count > share.records_max) {
            // The order is by owner first, so its rings are one range.
            let from = (owner.clone(), HistoryPlace::FIRST, Arc::from(""));
            let first = self.of_owners.range(from..).next().filter(|first| first.0 == *owner);
            let Some((_, place, client_id)) = first.cloned() else { return };
            if !share.removes(place) {
                return;
            }
            *left -= 1;
            // Only the connections of this owner leave; those of a former owner of the identifier stay.
            if let Some(mut ring) = self.remove(&client_id) {
                ring.leave();
                self.put(ring);
            }
        }
    }

    pub(super) fn tidy(&mut self, tidy: &HistoryTidy) {
        for _ in 0..tidy.limit {
            let closed = self.first_from(HistoryPlace::FIRST);
            let closed = closed.filter(|(place, _)| matches!(place, HistoryPlace::Closed(_)));
            let open = self.first_from(HistoryPlace::Open(0));
            let candidates = [closed, open].into_iter().flatten();
            let leaving = candidates.filter(|(place, _)| tidy.removes(*place, self.records));
            let Some(client_id) = leaving.map(|(_, client_id)| client_id.clone()).next() else {
                return;
            };
            self.remove(&client_id);
        }
    }

    fn first_from(&self, place: HistoryPlace) -> Option<&(HistoryPlace, Arc<str>)> {
        self.order.range((place, Arc::from(""))..).next()
    }

    /// Adds a ring unless it is empty; returns its owner.
    fn put(&mut self, ring: ClientHistory) -> Option<Owner> {
        let (place, owner) = (ring.place()?, ring.owner()?);
        let (records, client_id) = (ring.connections.len() as u64, &ring.client_id);
        self.records += records;
        *self.counts.entry(owner.clone()).or_default() += records;
        self.order.insert((place, client_id.clone()));
        self.of_owners.insert((owner.clone(), place, client_id.clone()));
        self.rings.insert(client_id.clone(), ring);
        Some(owner)
    }

    fn remove(&mut self, client_id: &Arc<str>) -> Option<ClientHistory> {
        let ring = self.rings.remove(client_id)?;
        // A ring without connections is in no order.
        let (place, owner) = (ring.place()?, ring.owner()?);
        let records = ring.connections.len() as u64;
        self.records -= records;
        self.order.remove(&(place, client_id.clone()));
        if let Some(count) = self.counts.get_mut(&owner) {
            *count -= records;
            if *count == 0 {
                self.counts.remove(&owner);
            }
        }
        self.of_owners.remove(&(owner, place, client_id.clone()));
        Some(ring)
    }
}
