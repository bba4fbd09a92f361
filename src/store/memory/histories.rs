//! The histories of clients in memory, and the order in which they leave.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    history::{ClientHistory, ConnectionNotes, HistoryPlace, HistoryTidy},
    mqtt::Timestamp,
};

#[derive(Debug, Default)]
pub(super) struct Histories {
    rings: BTreeMap<Arc<str>, ClientHistory>,
    order: BTreeSet<(HistoryPlace, Arc<str>)>,
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
        for (client_id, connection) in &connections.notes {
            let ring = self.remove(client_id);
            let mut ring = ring.unwrap_or_else(|| ClientHistory::new(client_id.clone()));
            ring.note(connection, connections.kept);
            if let Some(place) = ring.place() {
                self.records += ring.connections.len() as u64;
                self.order.insert((place, client_id.clone()));
                self.rings.insert(client_id.clone(), ring);
            }
        }
    }

    pub(super) fn tidy(&mut self, tidy: &HistoryTidy) {
        for _ in 0..tidy.limit {
            let closed = self.first_from(HistoryPlace::Closed(Timestamp(0)));
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

    fn remove(&mut self, client_id: &Arc<str>) -> Option<ClientHistory> {
        let ring = self.rings.remove(client_id)?;
        self.records -= ring.connections.len() as u64;
        if let Some(place) = ring.place() {
            self.order.remove(&(place, client_id.clone()));
        }
        Some(ring)
    }
}
