//! QoS 1 and 2 messages in flight to the client, by Packet Identifier, in the order sent.
//!
//! Identifiers are assigned one after the other. So those in use usually form one run of numbers,
//! and an acknowledgement finds its message by subtraction. A message that is acknowledged out of
//! order leaves a gap, which closes when those before it are done. A message that stays
//! unacknowledged while thousands after it are done is put aside. Otherwise it would make the run
//! longer and longer. Its identifier is passed over when the numbers come round again.

mod aside;

use std::collections::VecDeque;

use self::aside::Aside;
use super::envelope::Envelope;
use crate::{journal::QueuePlace, mqtt::PacketId};

/// The state of the delivery of one message, figures 4.2 and 4.3 of MQTT 5.0.
///
/// ```text
/// Published ── PUBACK, PUBREC with an error ──► done
///     └─ PUBREC ──► Released ── PUBCOMP ──► done
/// ```
#[derive(Clone, Debug)]
pub(super) enum InFlight {
    /// PUBLISH is to be sent, or was sent: the delivery waits for PUBACK (QoS 1) or PUBREC (QoS 2).
    Published(Envelope),
    /// PUBREL was sent on this connection: the delivery waits for PUBCOMP. The place is that of the
    /// message.
    Released(QueuePlace),
}

impl InFlight {
    /// Returns its place in the queue of a durable session.
    pub(super) const fn place(&self) -> QueuePlace {
        match self {
            Self::Published(envelope) => envelope.place,
            Self::Released(place) => *place,
        }
    }
}

/// The message that an acknowledgement was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// Place of the message in the queue of a durable session.
    pub(super) place: QueuePlace,
    /// The message counted against the client's Receive Maximum on this connection.
    pub(super) was_counted: bool,
}

#[derive(Debug, Default)]
pub(super) struct Window {
    /// The first entry is never a gap.
    run: VecDeque<Option<InFlight>>,
    /// Packet Identifier of the first entry, minus one: 0..=65,534.
    first: u16,
    in_flight: usize,
    /// Bytes of the messages whose PUBLISH is not acknowledged.
    bytes: usize,
    /// Position in the run of the first entry that was not examined yet on this connection.
    unsent_from: usize,
    aside: Option<Box<Aside>>,
}

/// Packet Identifiers run from 1 to this.
const IDS: usize = u16::MAX as usize;
/// A run longer than this is shortened if three quarters of it are gaps.
const SPARSE_RUN: usize = 2048;
/// An empty window keeps at most this capacity.
const KEPT_CAPACITY: usize = 32;

impl Window {
    /// Returns the number of messages in flight.
    pub(super) const fn len(&self) -> usize {
        self.in_flight
    }

    /// Returns the bytes of the messages whose PUBLISH is not acknowledged.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether every identifier is in use.
    pub(super) const fn is_full(&self) -> bool {
        self.in_flight >= IDS
    }

    /// Returns whether all entries in flight were examined on this connection.
    pub(super) fn is_all_sent(&self) -> bool {
        self.unsent_from == self.run.len()
            && self.aside.as_ref().is_none_or(|aside| aside.is_all_sent())
    }

    /// Begins a new connection: no message was sent on it yet. Returns the identifiers whose PUBREL
    /// must be sent again, in the order of their assignment. [`Self::next_unsent`] does not return
    /// these.
    pub(super) fn begin_resending(&mut self) -> Vec<PacketId> {
        // Nothing was sent on this connection, so everything is unsent.
        self.unsent_from = 0;
        let mut released = Vec::new();
        let mut begin = |id, entry: &InFlight| {
            if matches!(entry, InFlight::Released(_)) {
                released.push(id);
            }
        };
        // Those put aside were sent first, so their PUBREL comes first too.
        if let Some(aside) = &mut self.aside {
            aside.begin_resending().for_each(|(id, entry)| begin(id, entry));
        }
        for (at, entry) in self.run.iter().enumerate() {
            if let Some(entry) = entry {
                begin(id_at(self.first, at), entry);
            }
        }
        released
    }

    /// Returns the first PUBLISH that was not sent on this connection yet. It counts as sent from
    /// now on.
    pub(super) fn next_unsent(&mut self) -> Option<(PacketId, Envelope)> {
        // The oldest ones were put aside, so they are sent again first.
        if let Some(unsent) = self.aside.as_mut().and_then(|aside| aside.next_unsent()) {
            return Some(unsent);
        }
        while self.unsent_from < self.run.len() {
            let at = self.unsent_from;
            self.unsent_from += 1;
            // Gaps, and messages that only wait for PUBCOMP. [MQTT-4.3.3-6]
            if let Some(InFlight::Published(envelope)) = &self.run[at] {
                return Some((id_at(self.first, at), envelope.clone()));
            }
        }
        None
    }

    /// Returns the identifier for the next message. The window must not be full, and all its
    /// messages must be sent. [MQTT-2.2.1-4]
    #[inline(always)] // each message passes it
    pub(super) fn next_id(&mut self) -> PacketId {
        debug_assert!(!self.is_full() && self.is_all_sent(), "the caller has asked");
        self.pass_over_used();
        id_at(self.first, self.run.len())
    }

    /// Adds a message that was just sent with [`Window::next_id`].
    pub(super) fn push(&mut self, envelope: Envelope) {
        self.bytes += envelope.message.size();
        self.run.push_back(Some(InFlight::Published(envelope)));
        self.in_flight += 1;
        self.unsent_from = self.run.len();
    }

    pub(super) fn get_mut(&mut self, id: PacketId) -> Option<&mut InFlight> {
        let at = self.position(id);
        if let Some(Some(entry)) = self.run.get_mut(at) {
            return Some(entry);
        }
        Some(self.aside.as_mut()?.find(id)?.0)
    }

    /// Notes PUBREC; returns `None` if the message is not in flight. If PUBREC comes on a new
    /// connection before its PUBLISH was sent again, the PUBLISH is not sent again, and the
    /// delivery counts from now on.
    pub(super) fn release(&mut self, id: PacketId) -> Option<Acknowledged> {
        let at = self.position(id);
        let (entry, is_sent) = match (self.run.get_mut(at), &mut self.aside) {
            (Some(Some(entry)), _) => (entry, at < self.unsent_from),
            (_, Some(aside)) => aside.find(id)?,
            (_, None) => return None,
        };
        let place = entry.place();
        let mut was_counted = true;
        if let InFlight::Published(envelope) = entry {
            self.bytes -= envelope.message.size();
            // Unless it was sent again, it is not in the quota of this connection.
            was_counted = is_sent;
            *entry = InFlight::Released(place);
        }
        Some(Acknowledged { place, was_counted })
    }

    /// Ends a delivery and frees its identifier; returns `None` if it is not in flight.
    pub(super) fn remove(&mut self, id: PacketId) -> Option<Acknowledged> {
        let at = self.position(id);
        let (entry, is_sent) = match self.run.get_mut(at).and_then(Option::take) {
            Some(entry) => {
                let is_sent = at < self.unsent_from;
                // The entry at the front may be gone now.
                self.close_gap();
                (entry, is_sent)
            }
            None => self.remove_aside(id)?,
        };
        self.in_flight -= 1;
        let place = entry.place();
        let mut was_counted = true;
        if let InFlight::Published(envelope) = entry {
            self.bytes -= envelope.message.size();
            was_counted = is_sent;
        }
        Some(Acknowledged { place, was_counted })
    }

    /// Restores the messages that were in flight when the broker ended, in the order in which they
    /// were sent. The window must be empty.
    pub(super) fn restore(&mut self, entries: Vec<(PacketId, InFlight)>) {
        debug_assert_eq!(self.in_flight, 0, "nothing was sent before");
        // The longest run at the end whose identifiers follow one another closely.
        let follows = |pair: &[(PacketId, InFlight)]| {
            let step = distance(pair[0].0, pair[1].0);
            (1..=SPARSE_RUN / 4).contains(&step)
        };
        let breaks = entries.windows(2).rposition(|pair| !follows(pair));
        let mut run_from = breaks.map_or(0, |at| at + 1);
        let span = |from: usize| {
            let ids = &entries[from..];
            ids.windows(2).map(|pair| distance(pair[0].0, pair[1].0)).sum::<usize>()
        };
        // Positions are differences of identifiers; a run as long as half of all of them would be ambiguous.
        while span(run_from) >= IDS / 2 {
            run_from = (run_from + entries.len()).div_ceil(2);
        }
        for (at, (id, entry)) in entries.into_iter().enumerate() {
            if let InFlight::Published(envelope) = &entry {
                self.bytes += envelope.message.size();
            }
            self.in_flight += 1;
            // An entry aside may have any identifier, so those that break the run go there.
            if at < run_from {
                self.aside.get_or_insert_default().push(id, entry);
                continue;
            }
            if self.run.is_empty() {
                self.first = id.number() - 1;
            }
            let position = self.position(id);
            // Gaps are identifiers whose messages were acknowledged out of order.
            while self.run.len() < position {
                self.run.push_back(None);
            }
            self.run.push_back(Some(entry));
        }
    }

    /// Returns all messages whose PUBLISH is not acknowledged, in the order sent.
    pub(super) fn published(&self) -> impl Iterator<Item = &Envelope> {
        let aside = self.aside.iter().flat_map(|aside| aside.entries());
        aside.chain(self.run.iter().flatten()).filter_map(|entry| match entry {
            InFlight::Published(envelope) => Some(envelope),
            InFlight::Released(_) => None,
        })
    }

    /// Makes sure that the identifier after the run is free.
    #[inline]
    fn pass_over_used(&mut self) {
        if self.run.len() >= SPARSE_RUN || self.aside.is_some() {
            self.search_unused();
        }
    }

    fn search_unused(&mut self) {
        loop {
            self.shorten();
            let Some(aside) = &self.aside else { return };
            if self.run.len() < IDS && !aside.contains(id_at(self.first, self.run.len())) {
                return;
            }
            if self.run.is_empty() {
                self.first = after(self.first);
            } else {
                self.run.push_back(None);
            }
        }
    }

    /// Puts the first entry of the run aside if too many of those after it are done.
    fn shorten(&mut self) {
        let aside_len = self.aside.as_ref().map_or(0, |aside| aside.len());
        let is_sparse = (self.in_flight - aside_len) * 4 < self.run.len();
        if self.run.len() < SPARSE_RUN || !(is_sparse || self.run.len() == IDS) {
            return;
        }
        // The oldest entry blocks the run; all others stay where they are.
        if let Some(entry) = self.run.front_mut().and_then(Option::take) {
            let aside = self.aside.get_or_insert_default();
            aside.push(id_at(self.first, 0), entry);
            aside.note_all_sent();
        }
        self.close_gap();
    }

    #[inline(always)] // each message passes it
    fn close_gap(&mut self) {
        while let Some(None) = self.run.front() {
            self.run.pop_front();
            self.first = after(self.first);
            self.unsent_from = self.unsent_from.saturating_sub(1);
        }
        if self.run.is_empty() && self.run.capacity() > KEPT_CAPACITY {
            self.run = VecDeque::new();
        }
    }

    /// Removes an entry from those aside; returns it, and whether it was sent on this connection.
    fn remove_aside(&mut self, id: PacketId) -> Option<(InFlight, bool)> {
        let aside = self.aside.as_mut()?;
        let taken = aside.remove(id);
        if aside.len() == 0 {
            self.aside = None;
        }
        taken
    }

    /// Returns the position of this identifier in the run, or where it would be.
    fn position(&self, id: PacketId) -> usize {
        let (at, first) = (usize::from(id.number() - 1), usize::from(self.first));
        if at >= first { at - first } else { at + IDS - first }
    }
}

fn id_at(first: u16, position: usize) -> PacketId {
    let at = usize::from(first) + position; // Both are less than IDS.
    let number = if at < IDS { at } else { at - IDS } + 1;
    PacketId::new(number as u16).expect("it is one at least")
}

/// Returns how many identifiers `to` is after `from`.
fn distance(from: PacketId, to: PacketId) -> usize {
    (usize::from(to.number()) + IDS - usize::from(from.number())) % IDS
}

const fn after(first: u16) -> u16 {
    if first as usize + 1 == IDS { 0 } else { first + 1 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mqtt::{Message, Publication, QoS};

    fn envelope() -> Envelope {
        let publication = Publication {
            topic: "t",
            payload: &[],
            qos: QoS::ExactlyOnce,
            retain: false,
            properties: &[],
            expires_at: None,
        };
        let message = Arc::new(Message::new(&publication));
        let place = QueuePlace(0);
        Envelope {
            message,
            qos: QoS::ExactlyOnce,
            retain: false,
            identifiers: None,
            share: None,
            place,
        }
    }

    fn send(window: &mut Window) -> PacketId {
        let id = window.next_id();
        window.push(envelope());
        id
    }

    /// Removes a message; returns whether it counted.
    fn removed(window: &mut Window, id: PacketId) -> Option<bool> {
        window.remove(id).map(|acknowledged| acknowledged.was_counted)
    }

    fn released(window: &mut Window, id: PacketId) -> Option<bool> {
        window.release(id).map(|acknowledged| acknowledged.was_counted)
    }

    #[test]
    fn identifiers_wrap_around_and_are_never_zero() {
        let mut window = Window::default();
        let mut last = 0;
        for _ in 0..2 * IDS + 10 {
            let id = send(&mut window);
            assert_eq!(usize::from(id.number()), last % IDS + 1);
            last = usize::from(id.number());
            assert_eq!(removed(&mut window, id), Some(true));
        }
    }

    #[test]
    fn an_acknowledgement_out_of_turn_frees_its_identifier_later() {
        let mut window = Window::default();
        let ids: Vec<_> = (0..3).map(|_| send(&mut window)).collect();
        assert_eq!(removed(&mut window, ids[1]), Some(true));
        assert_eq!(removed(&mut window, ids[1]), None);
        assert_eq!(window.len(), 2);
        assert_eq!(removed(&mut window, ids[0]), Some(true));
        assert_eq!(window.run.len(), 1);
        assert!(window.get_mut(ids[2]).is_some());
    }

    #[test]
    fn an_acknowledgement_before_the_resend_tells_so() {
        let mut window = Window::default();
        let ids: Vec<_> = (0..3).map(|_| send(&mut window)).collect();
        assert_eq!(window.begin_resending(), []);
        assert_eq!(window.next_unsent().map(|(id, _)| id), Some(ids[0]));
        assert_eq!(removed(&mut window, ids[1]), Some(false));
        assert_eq!(removed(&mut window, ids[0]), Some(true));
        assert_eq!(window.next_unsent().map(|(id, _)| id), Some(ids[2]));
        assert!(window.is_all_sent());
    }

    #[test]
    fn what_was_released_is_not_published_again_and_counts_until_its_end() {
        let mut window = Window::default();
        let ids: Vec<_> = (0..3).map(|_| send(&mut window)).collect();
        assert_eq!(released(&mut window, ids[1]), Some(true), "it counts already");
        assert_eq!(window.begin_resending(), [ids[1]]);
        assert_eq!(released(&mut window, ids[2]), Some(false), "it counts from now on");
        assert_eq!(window.next_unsent().map(|(id, _)| id), Some(ids[0]));
        assert!(window.next_unsent().is_none());
        assert_eq!(released(&mut window, ids[0]), Some(true));
        let counted = ids.iter().map(|id| removed(&mut window, *id));
        assert_eq!(counted.collect::<Vec<_>>(), [Some(true); 3]);
    }

    /// Two messages that are never acknowledged delay no other message. Their identifiers are
    /// neither assigned again nor lost.
    #[test]
    fn identifiers_in_use_are_passed_over_however_often_the_numbers_come_round() {
        let mut window = Window::default();
        let stuck = [send(&mut window), send(&mut window)];
        for _ in 0..3 * IDS {
            let id = send(&mut window);
            assert!(!stuck.contains(&id));
            assert_eq!(removed(&mut window, id), Some(true));
            assert!(window.run.len() <= SPARSE_RUN);
        }
        let last = send(&mut window);
        window.begin_resending();
        let again: Vec<_> = std::iter::from_fn(|| Some(window.next_unsent()?.0)).collect();
        assert_eq!(again, [stuck[0], stuck[1], last], "in the order in which they were sent");
        assert_eq!(removed(&mut window, stuck[1]), Some(true));
        assert_eq!(removed(&mut window, stuck[1]), None);
        assert_eq!(removed(&mut window, stuck[0]), Some(true));
        assert_eq!(window.len(), 1);
        assert!(window.aside.is_none());
    }

    /// Whatever is in flight, a restored window sends the same messages in the same order, and
    /// assigns no identifier that is in use.
    #[test]
    fn what_was_in_flight_is_taken_back_in_its_order() {
        let mut rng = fastrand::Rng::with_seed(17);
        for _ in 0..200 {
            let mut window = Window::default();
            let mut order: Vec<PacketId> = Vec::new();
            for _ in 0..rng.usize(..IDS / 8) {
                order.push(send(&mut window));
                while order.len() > 20 {
                    let at = rng.usize(1..order.len());
                    window.remove(order.remove(at));
                }
            }
            let entries = order.iter().map(|id| (*id, InFlight::Published(envelope()))).collect();
            let mut restored = Window::default();
            restored.restore(entries);
            restored.begin_resending();
            let sent: Vec<_> = std::iter::from_fn(|| Some(restored.next_unsent()?.0)).collect();
            assert_eq!(sent, order);
            for _ in 0..100 {
                assert!(!order.contains(&send(&mut restored)));
            }
            for id in order {
                assert_eq!(removed(&mut restored, id), Some(true));
            }
            assert_eq!(restored.len(), 100);
        }
    }

    #[test]
    fn all_identifiers_can_be_in_use_at_once() {
        let mut window = Window::default();
        let ids: Vec<_> = (0..IDS).map(|_| send(&mut window)).collect();
        assert!(window.is_full());
        for id in &ids[1..] {
            assert_eq!(removed(&mut window, *id), Some(true));
            assert_eq!(send(&mut window), *id, "the only one that is free");
        }
        assert!(window.is_full());
    }
}
