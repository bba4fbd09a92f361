//! Messages that the client does not acknowledge while thousands after them are done.
//!
//! They are rare, and a client that leaves one message unacknowledged leaves few. So they are
//! searched from the beginning. This module knows nothing of the run that they were taken from.

use super::InFlight;
use crate::{mqtt::PacketId, session::envelope::Envelope};

/// Messages that were put aside, in the order sent.
#[derive(Debug, Default)]
pub(super) struct Aside {
    ids: Vec<PacketId>,
    entries: Vec<InFlight>,
    /// Position of the first entry that was not examined yet on this connection.
    unsent_from: usize,
}

impl Aside {
    pub(super) const fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) const fn is_all_sent(&self) -> bool {
        self.unsent_from == self.ids.len()
    }

    pub(super) const fn note_all_sent(&mut self) {
        self.unsent_from = self.ids.len();
    }

    /// Begins a new connection: no message was sent on it yet. Returns all entries in flight.
    pub(super) fn begin_resending(&mut self) -> impl Iterator<Item = (PacketId, &InFlight)> {
        self.unsent_from = 0;
        self.ids.iter().copied().zip(&self.entries)
    }

    /// Returns the first PUBLISH that was not sent on this connection yet. It counts as sent from
    /// now on.
    pub(super) fn next_unsent(&mut self) -> Option<(PacketId, Envelope)> {
        while self.unsent_from < self.ids.len() {
            let at = self.unsent_from;
            self.unsent_from += 1;
            if let InFlight::Published(envelope) = &self.entries[at] {
                return Some((self.ids[at], envelope.clone()));
            }
        }
        None
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &InFlight> {
        self.entries.iter()
    }

    pub(super) fn contains(&self, id: PacketId) -> bool {
        self.position(id).is_some()
    }

    pub(super) fn push(&mut self, id: PacketId, entry: InFlight) {
        self.ids.push(id);
        self.entries.push(entry);
    }

    /// Returns the entry of this identifier and whether it was sent on this connection.
    pub(super) fn find(&mut self, id: PacketId) -> Option<(&mut InFlight, bool)> {
        let at = self.position(id)?;
        Some((&mut self.entries[at], at < self.unsent_from))
    }

    /// Removes the entry of this identifier; returns it, and whether it was sent on this
    /// connection.
    pub(super) fn remove(&mut self, id: PacketId) -> Option<(InFlight, bool)> {
        let at = self.position(id)?;
        let is_sent = at < self.unsent_from;
        self.unsent_from -= usize::from(is_sent);
        self.ids.remove(at);
        Some((self.entries.remove(at), is_sent))
    }

    fn position(&self, id: PacketId) -> Option<usize> {
        self.ids.iter().position(|used| *used == id)
    }
}
