//! QoS 1 and 2 messages on their way to the client, by Packet Identifier, in the order sent.
//!
//! Identifiers are given out one after the other, so those in use lie in one run of numbers and an
//! acknowledgement finds its message by subtraction. One that is acknowledged out of turn leaves a
//! gap that closes when those before it are done.

use std::collections::VecDeque;

use super::queue::Envelope;
use crate::mqtt::PacketId;

/// Where the delivery of one message stands, figure 4.2 and 4.3 of MQTT 5.0.
#[derive(Clone, Debug)]
pub(super) enum InFlight {
    /// PUBLISH was sent: waits for PUBACK (QoS 1) or PUBREC (QoS 2).
    Published(Envelope),
    /// PUBREL was sent: waits for PUBCOMP.
    Released,
}

#[derive(Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<Option<InFlight>>,
    /// Number of the first entry, less one: 0..=65,534.
    first: u16,
    in_flight: usize,
    /// Position of the first entry that was not yet sent on this connection.
    unsent_from: usize,
}

/// Packet Identifiers run from 1 to this.
const IDS: usize = u16::MAX as usize;

impl Window {
    /// Messages in flight.
    pub(super) const fn len(&self) -> usize {
        self.in_flight
    }

    /// Whether no further identifier can be given out before an earlier one is free.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= IDS
    }

    /// Whether all that is in flight was sent on this connection.
    pub(super) fn is_all_sent(&self) -> bool {
        self.unsent_from == self.entries.len()
    }

    /// A new connection: nothing has been sent on it yet.
    pub(super) const fn begin_resending(&mut self) {
        self.unsent_from = 0;
    }

    /// The first entry that was not yet sent on this connection, which counts as sent from now.
    pub(super) fn next_unsent(&mut self) -> Option<(PacketId, InFlight)> {
        while self.unsent_from < self.entries.len() {
            let at = self.unsent_from;
            self.unsent_from += 1;
            if let Some(entry) = &self.entries[at] {
                return Some((self.id_at(at), entry.clone()));
            }
        }
        None
    }

    /// Gives the next identifier to a message that is sent now. [MQTT-2.2.1-4]
    /// The window is not full and all in it is sent.
    pub(super) fn push(&mut self, in_flight: InFlight) -> PacketId {
        debug_assert!(!self.is_full() && self.is_all_sent(), "the caller has asked");
        let id = self.id_at(self.entries.len());
        self.entries.push_back(Some(in_flight));
        self.in_flight += 1;
        self.unsent_from = self.entries.len();
        id
    }

    pub(super) fn get_mut(&mut self, id: PacketId) -> Option<&mut InFlight> {
        let at = self.position(id)?;
        self.entries.get_mut(at)?.as_mut()
    }

    /// Ends a delivery; its identifier is free again. Whether it was sent on this connection;
    /// `None` if it is not in flight.
    pub(super) fn remove(&mut self, id: PacketId) -> Option<bool> {
        let at = self.position(id)?;
        self.entries.get_mut(at)?.take()?;
        let was_sent = at < self.unsent_from;
        self.in_flight -= 1;
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first = ((usize::from(self.first) + 1) % IDS) as u16;
            self.unsent_from = self.unsent_from.saturating_sub(1);
        }
        if self.entries.is_empty() && self.entries.capacity() > KEPT_CAPACITY {
            self.entries = VecDeque::new();
        }
        Some(was_sent)
    }

    fn id_at(&self, position: usize) -> PacketId {
        let number = (usize::from(self.first) + position) % IDS + 1;
        PacketId::new(number as u16).expect("it is one at least")
    }

    fn position(&self, id: PacketId) -> Option<usize> {
        let offset = usize::from(id.number() - 1) + IDS - usize::from(self.first);
        let at = offset % IDS;
        (at < self.entries.len()).then_some(at)
    }
}

/// A window that is empty again keeps room for so many messages, and no more.
const KEPT_CAPACITY: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_wrap_around_and_are_never_zero() {
        let mut window = Window::default();
        let mut last = 0;
        for _ in 0..2 * IDS + 10 {
            let id = window.push(InFlight::Released);
            assert_eq!(usize::from(id.number()), last % IDS + 1);
            last = usize::from(id.number());
            assert_eq!(window.remove(id), Some(true));
        }
    }

    #[test]
    fn an_acknowledgement_out_of_turn_frees_its_identifier_later() {
        let mut window = Window::default();
        let ids: Vec<_> = (0..3).map(|_| window.push(InFlight::Released)).collect();
        assert_eq!(window.remove(ids[1]), Some(true));
        assert_eq!(window.remove(ids[1]), None);
        assert_eq!(window.len(), 2);
        assert_eq!(window.remove(ids[0]), Some(true));
        assert_eq!(window.entries.len(), 1);
        assert!(window.get_mut(ids[2]).is_some());
    }

    #[test]
    fn an_acknowledgement_before_the_resend_tells_so() {
        let mut window = Window::default();
        let ids: Vec<_> = (0..3).map(|_| window.push(InFlight::Released)).collect();
        window.begin_resending();
        assert_eq!(window.next_unsent().map(|(id, _)| id), Some(ids[0]));
        assert_eq!(window.remove(ids[1]), Some(false));
        assert_eq!(window.remove(ids[0]), Some(true));
        assert_eq!(window.next_unsent().map(|(id, _)| id), Some(ids[2]));
        assert!(window.is_all_sent());
    }
}
