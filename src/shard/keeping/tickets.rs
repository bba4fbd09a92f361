//! Tickets: changes that must be stored before they are acknowledged. Output that waits for a ticket is released when
//! this ticket and all before it are stored.
//!
//! A ticket has one part for each that must store something for it: the store, for the changes of
//! this shard, and each shard that was sent messages for durable sessions of its own. That shard
//! passes the ticket on to one of its own, so that a message may go from shard to shard.

use std::{
    collections::VecDeque,
    sync::{Arc, mpsc},
};

use tokio::sync::oneshot;

use crate::{
    between::{
        batch::{Awaited, Stored},
        door::ToShard,
        nodes::MailStored,
    },
    durable::{
        HandedOver, Order, Trouble,
        in_transit::{Destination, IN_TRANSIT, OnItsWay},
    },
    journal::{Change, Journal, JournalPage, QueuePlace, SessionNumber, Ticket},
    mqtt::Message,
    shard::{
        Core, Shard, Slot,
        keeping::debtor::{Debtor, OtherLoads},
        turn::Turn,
    },
    spans::ReceiveSpan,
};

/// A shard's state of its tickets.
#[derive(Default)]
pub(in crate::shard) struct Tickets {
    /// The sender to the writer; `None` if the store is called directly.
    orders: Option<mpsc::Sender<Order>>,
    /// The owner that is charged with the changes of this turn.
    pub(super) debtor: Debtor,
    /// Those of them that count for other owners.
    pub(super) loads: OtherLoads,
    /// The tickets that are not stored, in order without gaps; behind the first there may also be
    /// some that are stored.
    open: VecDeque<OpenTicket>,
    /// The recipients that wait for the current ticket, besides those that the journal knows.
    owed: Vec<Owed>,
    /// Changes that are noted after the current ticket is stored.
    then: Vec<Afterwards>,
    /// Presence versions that the current ticket reserves.
    reserves: Option<u64>,
    /// The tickets whose changes an immediate store has not taken so far.
    unapplied: Vec<(HandedOver, Ticket)>,
    /// Slots that wait to read a page that the store does not have yet.
    starved: Vec<u32>,
    /// The last ticket that had changes for the store.
    handed_over: Option<Ticket>,
    /// The last ticket whose changes the store has applied.
    written: Option<Ticket>,
}

struct OpenTicket {
    ticket: Ticket,
    parts: usize,
    waiting: Vec<u32>,
    owed: Vec<Owed>,
    then: Vec<Afterwards>,
    reserves: Option<u64>,
}

/// A change that is noted after a ticket is stored.
enum Afterwards {
    Note(Change),
    /// A Will was published.
    DropWill(u32, SessionNumber),
}

/// A recipient that is notified when a ticket is stored.
pub(in crate::shard) enum Owed {
    /// A ticket of another shard, which has one part less to wait for.
    Shard(Awaited),
    /// A caller that asked for it.
    Caller(oneshot::Sender<()>),
    /// The span of a message that is acknowledged then.
    Span(Box<ReceiveSpan>),
    /// The node that has sent messages.
    Node(MailStored),
}

/// A position in the changes of a shard.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) struct Mark {
    noted: u64,
    awaited: u64,
}

impl Shard {
    /// Returns the present position, to compare it with a later one.
    pub(in crate::shard) fn mark(&self) -> Mark {
        let noted = self.journal.as_ref().map_or(0, Journal::noted);
        Mark { noted, awaited: self.batches.awaited() }
    }

    /// Returns the ticket that CONNACK must wait for: that of the changes of this session and of
    /// the one before it.
    pub(in crate::shard) fn gate_of_connect(&self, slot: u32) -> Option<Ticket> {
        let has_changed = |journal: &&Journal| !journal.is_empty() || !self.tickets.then.is_empty();
        Some(self.journal.as_ref().filter(has_changed)?.await_by(slot))
    }

    /// Returns the ticket that an answer must wait for, if anything has changed since `mark`.
    pub(in crate::shard) fn gate_since(&self, mark: Mark, slot: u32) -> Option<Ticket> {
        let journal = self.journal.as_ref()?;
        (self.mark() != mark).then(|| journal.await_by(slot))
    }

    /// Returns why the broker cannot promise durability now, if it cannot.
    pub(in crate::shard) fn trouble(&self) -> Option<Trouble> {
        self.core.keeper.as_ref()?.health.trouble()
    }

    /// Makes another shard's ticket wait for the changes of this turn.
    pub(in crate::shard) fn owe(&mut self, to: Option<Awaited>) {
        self.tickets.owed.extend(to.map(Owed::Shard));
    }

    /// Tells a caller when the changes of this turn are stored.
    pub(crate) fn tell_when_stored(&mut self, caller: oneshot::Sender<()>) {
        if self.journal.is_some() {
            self.tickets.owed.push(Owed::Caller(caller));
        }
    }

    /// Notifies a recipient when the changes of this turn are stored.
    pub(in crate::shard) fn owe_to(&mut self, owed: Owed) {
        self.tickets.owed.push(owed);
    }

    /// Ends a span when the changes of this turn are stored.
    pub(in crate::shard) fn owe_span(&mut self, span: Box<ReceiveSpan>) {
        self.tickets.owed.push(Owed::Span(span));
    }

    /// Notes a change.
    pub(in crate::shard) fn note(&self, change: impl FnOnce() -> Change) {
        if let Some(journal) = &self.journal {
            journal.note(change());
        }
    }

    /// Stores that a message is on its way to where it must arrive exactly once; returns its place
    /// among those in transit. A message from another shard moves on under the place that it has.
    pub(in crate::shard) fn send_on_its_way(
        &mut self,
        message: &Arc<Message>,
        to: impl FnOnce(&Core) -> Destination,
        turn: &mut Turn<'_>,
    ) -> Option<QueuePlace> {
        if let Some(place) = turn.on_its_way.take() {
            return Some(place);
        }
        let publisher = turn.publisher?;
        let place = self.core.keeper.as_ref()?.next_in_transit();
        let sent = OnItsWay { message: message.clone(), publisher, to: to(&self.core) };
        self.note(|| Change::Enqueue(IN_TRANSIT, place, sent.into_queued(), None));
        Some(place)
    }

    /// Notes that a message has arrived, in one ticket with the copies that sessions here store.
    pub(in crate::shard) fn has_arrived(&self, on_its_way: Option<QueuePlace>) {
        if let Some(place) = on_its_way {
            self.note(|| Change::Dequeue(IN_TRANSIT, place));
        }
    }

    /// Removes a message from its queue, after all that this turn sends to other nodes is stored there.
    pub(in crate::shard) fn dequeue_then(&mut self, session: SessionNumber, place: QueuePlace) {
        self.tickets.then.push(Afterwards::Note(Change::Dequeue(session, place)));
    }

    /// Notes that a session has ended, after all changes that were noted before are stored.
    pub(in crate::shard) fn end_then(&mut self, session: SessionNumber) {
        self.tickets.then.push(Afterwards::Note(Change::EndSession(session)));
    }

    /// Notes that a Will was published, after all changes that were noted before are stored: its
    /// receivers may be on another shard.
    pub(in crate::shard) fn drop_will_then(&mut self, slot: u32) {
        let number = self.slot(slot).and_then(|found| found.session.number());
        self.tickets.then.extend(number.map(|number| Afterwards::DropWill(slot, number)));
    }

    /// Returns whether the current ticket ends a session or a Will once it is stored.
    pub(in crate::shard) const fn ends_something(&self) -> bool {
        !self.tickets.then.is_empty()
    }

    /// Returns whether the Will of a slot was published in this turn.
    pub(in crate::shard) fn has_published_will(&self, slot: u32) -> bool {
        self.tickets
            .then
            .iter()
            .any(|after| matches!(after, Afterwards::DropWill(at, _) if *at == slot))
    }

    /// Notes that presence versions are reserved; they may be given out once that is stored.
    pub(in crate::shard) fn note_reservation(&mut self, up_to: u64) {
        self.note(|| Change::ReserveVersions(up_to));
        self.tickets.reserves = Some(up_to);
    }

    /// Lets the slot wait for a page that is not in the store yet.
    pub(in crate::shard) fn starve(&mut self, slot: u32) {
        if self.tickets.starved.last() != Some(&slot) {
            self.tickets.starved.push(slot);
        }
    }

    /// Returns whether the store is called directly.
    pub(in crate::shard) fn is_immediate(&self) -> bool {
        self.core.keeper.as_ref().is_some_and(|keeper| keeper.store().is_immediate())
    }

    /// Returns whether everything that was noted is in the store.
    pub(in crate::shard) fn is_all_stored(&self) -> bool {
        self.tickets.open.is_empty() && self.is_written(self.noted_so_far())
    }

    /// Returns the ticket up to which the store must have written to have all that was noted so
    /// far.
    pub(in crate::shard) fn noted_so_far(&self) -> Option<Ticket> {
        let current = self.journal.as_ref().filter(|journal| !journal.is_empty());
        current.map(Journal::ticket).or(self.tickets.handed_over)
    }

    /// Returns whether the store has written up to this ticket.
    pub(in crate::shard) fn is_written(&self, up_to: Option<Ticket>) -> bool {
        up_to <= self.tickets.written
    }

    /// Notes that the store has written up to this ticket, also if nothing waits for it.
    fn note_written(&mut self, up_to: Option<Ticket>) {
        self.tickets.written = self.tickets.written.max(up_to);
    }

    /// Returns a ticket after all tickets of the changes noted so far.
    pub(in crate::shard) fn noted_before(&self) -> Ticket {
        let ticket = |journal: &Journal| match journal.is_empty() {
            true => journal.ticket(),
            false => journal.ticket().next(),
        };
        self.journal.as_ref().map_or_else(Ticket::default, ticket)
    }

    /// Returns a ticket before which all tickets are stored.
    pub(in crate::shard) fn stored_before(&self) -> Ticket {
        let current = || self.journal.as_ref().map_or_else(Ticket::default, Journal::ticket);
        let stored = self.tickets.open.front().map_or_else(current, |first| first.ticket);
        if self.is_written(self.tickets.handed_over) {
            return stored;
        }
        // If nothing waits for the store, it may be behind.
        stored.min(self.tickets.written.map_or_else(Ticket::default, Ticket::next))
    }

    /// Sends the collected changes to the keeper, and the deliveries to the other shards. Ends the charge
    /// to an owner.
    pub(crate) fn flush(&mut self) {
        // A ticket that is stored immediately may cause further changes.
        while self.close_ticket() {}
        self.flush_batches(None);
        self.send_receipts();
        self.tickets.debtor = Debtor::Nobody;
    }

    /// Does the same for changes alone; returns whether there were any.
    pub(crate) fn flush_changes(&mut self) -> bool {
        let has_some = self.journal.as_ref().is_some_and(|journal| !journal.is_blank());
        if has_some {
            self.flush();
        } else {
            self.send_receipts();
            self.tickets.debtor = Debtor::Nobody;
        }
        has_some
    }

    /// Closes the current ticket, if anything belongs to it or waits for it; returns whether that
    /// may have caused more changes.
    fn close_ticket(&mut self) -> bool {
        let Some(journal) = &self.journal else { return false };
        // Messages for durable sessions of other shards wait in batches.
        let has_awaited = self.batches.has_awaited();
        let Tickets { owed, then, .. } = &self.tickets;
        // The normal turn without durable changes ends here.
        if journal.is_blank() && !has_awaited && owed.is_empty() && then.is_empty() {
            return false;
        }
        if !has_awaited {
            // No other shard must store anything first. So these changes are stored with the rest
            // or not at all, and nothing is ever there twice.
            let then = std::mem::take(&mut self.tickets.then);
            self.note_afterwards(then);
        }
        let Some(journal) = &self.journal else { return false };
        // The page has all changes since the last ticket; those that follow belong to the next one.
        let mut page = journal.turn_over();
        // Before the deliveries, so that another shard's changes for them reach the store after
        // these.
        let is_stored = page.changes.is_empty() || self.hand_over(&mut page);
        let parts = usize::from(!is_stored) + self.flush_batches(Some(page.ticket));
        let JournalPage { ticket, waiting, .. } = page;
        // Output and acknowledgements wait behind this ticket, even if it is complete already, to
        // keep their order.
        let Tickets { open, owed, then, reserves, .. } = &mut self.tickets;
        let (owed, then) = (std::mem::take(owed), std::mem::take(then));
        let reserves = reserves.take();
        open.push_back(OpenTicket { ticket, parts, waiting, owed, then, reserves });
        // No part is left to wait for, so the ticket is settled in this turn.
        if parts == 0 {
            self.complete(ticket);
            self.settle_first();
        }
        // Settling may have released packets that change sessions again.
        self.journal.as_ref().is_some_and(|journal| !journal.is_blank())
    }

    /// Gives changes to the keeper; returns whether nothing need wait for them any more.
    fn hand_over(&mut self, page: &mut JournalPage) -> bool {
        // Loads are taken even without a store, because they must not count for the next page.
        let owners = (self.debtor(), self.take_loads());
        let Some(keeper) = &self.core.keeper else { return true };
        // The writer may have started since the last turn.
        if self.tickets.orders.is_none() {
            self.tickets.orders = keeper.orders();
        }
        self.tickets.handed_over = Some(page.ticket);
        let now = self.core.clock.now();
        if let Some(orders) = &self.tickets.orders {
            keeper.hand_over(orders, self.number, page, owners, now);
            return !keeper.makes_wait();
        }
        // A store without a thread is written here, on the thread of the shard.
        match keeper.apply(&mut page.changes, now) {
            Ok(()) => {
                self.tickets.written = self.tickets.handed_over;
                true
            }
            // The keeper applies these changes again. With `store.sync = "off"`, output does not wait for it.
            Err(place) => {
                self.tickets.unapplied.push((place, page.ticket));
                !keeper.makes_wait()
            }
        }
    }

    /// Tries again to store the changes that an immediate store has not taken, and notes the tickets that it
    /// has.
    pub(in crate::shard) fn apply_again(&mut self) {
        let is_in_trouble = self.trouble().is_some() && self.is_immediate();
        if !is_in_trouble && self.tickets.unapplied.is_empty() {
            return;
        }
        let Some(keeper) = &self.core.keeper else { return };
        let applied = keeper.apply_again(self.core.clock.now());
        let unapplied = std::mem::take(&mut self.tickets.unapplied);
        let (stored, left): (Vec<_>, _) = unapplied.into_iter().partition(|(at, _)| *at <= applied);
        self.tickets.unapplied = left;
        let Some((_, last)) = stored.last() else { return };
        self.note_written(Some(*last));
        if self.core.makes_wait() {
            let tickets: Vec<Ticket> = stored.into_iter().map(|(_, ticket)| ticket).collect();
            self.note_stored_parts(&tickets);
        }
    }

    /// Takes the report that parts of tickets are stored.
    pub(in crate::shard) fn take_stored(&mut self, stored: &Stored) {
        if stored.is_by_store {
            self.note_written(stored.tickets.iter().copied().max());
        }
        self.note_stored_parts(&stored.tickets);
    }

    /// Notes that one part of each of these tickets is stored.
    fn note_stored_parts(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            self.settle_part(*ticket);
        }
        self.settle_first();
        self.feed_starved();
        self.flush();
    }

    fn settle_part(&mut self, ticket: Ticket) {
        let Some(first) = self.tickets.open.front().map(|open| open.ticket) else { return };
        let at = ticket.0.wrapping_sub(first.0);
        let found = usize::try_from(at).ok().and_then(|at| self.tickets.open.get_mut(at));
        let Some(open) = found else { return };
        open.parts = open.parts.saturating_sub(1);
        if open.parts == 0 {
            self.complete(ticket);
        }
    }

    /// Notes that all parts of one ticket are stored; tickets before it may not be.
    fn complete(&mut self, ticket: Ticket) {
        let Some(first) = self.tickets.open.front().map(|open| open.ticket) else { return };
        let Some(open) = self.tickets.open.get_mut((ticket.0 - first.0) as usize) else { return };
        let (owed, then) = (std::mem::take(&mut open.owed), std::mem::take(&mut open.then));
        for owed in owed {
            match owed {
                Owed::Shard(Awaited { shard, ticket }) => {
                    let (tickets, is_by_store) = (vec![ticket], false);
                    self.send_to_shard(shard, ToShard::Stored(Stored { tickets, is_by_store }));
                }
                Owed::Caller(caller) => {
                    let _ = caller.send(());
                }
                Owed::Span(span) => span.stored(),
                Owed::Node(stored) => stored(),
            }
        }
        self.note_afterwards(then);
    }

    fn note_afterwards(&self, then: Vec<Afterwards>) {
        for afterwards in then {
            match afterwards {
                Afterwards::Note(change) => self.note(|| change),
                Afterwards::DropWill(slot, number) => {
                    // Unless the client has come back with another Will.
                    let is_without = |found: &Slot| {
                        found.session.number() == Some(number) && found.will.is_none()
                    };
                    if self.slot(slot).is_some_and(is_without) {
                        self.note(|| Change::DropWill(number));
                    }
                }
            }
        }
    }

    /// Releases the output that waited for tickets which are stored, with all tickets before them.
    fn settle_first(&mut self) {
        // In order: an acknowledgement must not overtake an earlier one of the same client.
        while self.tickets.open.front().is_some_and(|open| open.parts == 0) {
            let Some(OpenTicket { ticket, waiting, reserves, .. }) = self.tickets.open.pop_front()
            else {
                return;
            };
            // Versions may be given out from the moment when their reservation is stored.
            if let Some(up_to) = reserves {
                self.core.versions.reserved(up_to);
            }
            for slot in waiting {
                // The client may have gone or reconnected meanwhile; its output went with its link.
                let Some(found) = self.slot_mut(slot) else { continue };
                let Some(link) = found.session.link_mut() else { continue };
                let is_conn_ack = link.open_gate(ticket);
                found.wake();
                // The client is online from this moment on, so events and handling of early packets begin here.
                if is_conn_ack {
                    self.conn_ack_said(slot);
                }
            }
        }
    }

    /// Lets the slots that waited for a page read again.
    pub(in crate::shard) fn feed_starved(&mut self) {
        for slot in std::mem::take(&mut self.tickets.starved) {
            if let Some(found) = self.slot_mut(slot) {
                found.wake();
            }
        }
        self.answer_later();
    }
}
