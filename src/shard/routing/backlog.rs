//! Messages that wait for a shared subscription go to members that can be sent them: to a member
//! that returns or joins, and to the connected members when another leaves.
//!
//! The index knows which members have a backlog (`router/backlog.rs`). A member that may take
//! messages asks those members, for as many as it could be sent immediately, until no message is left;
//! no other member asks. So each piece of work is small. Waiting messages keep their order, and
//! stay in the store until they are sent, and the next member that returns gets a part of the rest.
//! Called where connections begin and end, where a client subscribes, and where a connection has
//! room.

use std::{collections::HashSet, num::NonZeroU32, sync::Arc};

use foldhash::fast::RandomState;

use super::wishes::Wishes;
use crate::{
    between::{
        batch::{BacklogTaken, BacklogWaits, TakeBacklog},
        door::ToShard,
        search::Given,
    },
    mqtt::{FilterParts, Timestamp, validate_filter},
    router::{Host, Place},
    session::{Accepts, BacklogScan, Orphan, Portion, Share},
    shard::{Shard, Slot},
    store::PageBounds,
};

/// The state of a session in the backlogs of its groups.
#[derive(Default)]
pub(in crate::shard) struct Backlogs {
    /// Groups for which the index knows that messages may wait here. Members that were connected at
    /// that time have been told, and ask until no message waits here.
    held: HashSet<NonZeroU32, RandomState>,
    /// The groups with messages that the client may take.
    wanted: Wishes,
    /// Whether another shard, or a store, was asked and has not answered.
    is_asking: bool,
    /// How far other members have searched what waits here.
    scan: Option<BacklogScan>,
}

/// Requests of members for backlogs here that are answered later: one for each member.
#[derive(Default)]
pub(in crate::shard) struct AskedLater(Vec<TakeBacklog>);

/// The maximum that a member is given at a time. It takes some 100 µs, the longest delay for
/// others.
const PORTION: Portion = Portion { messages: 64, bytes: 64 * 1024 };
/// Pages that are searched for one portion, in a queue with other messages as well.
const LOOKS_MAX: usize = 4;
/// The minimum that is read of a queue at a time, because other messages may wait in between.
const PAGE_MESSAGES_MIN: usize = 8;

impl Slot {
    fn backlogs(&mut self) -> &mut Backlogs {
        self.backlogs.get_or_insert_default()
    }

    /// Makes the next search of this queue start at its beginning: the client has connected or
    /// gone, or messages have left the queue in another way.
    pub(in crate::shard) fn begin_scan_again(&mut self) {
        if let Some(backlogs) = &mut self.backlogs {
            backlogs.scan = None;
        }
    }

    /// Forgets the groups of a client that has gone. While it was connected, no member was told
    /// that messages wait here.
    pub(in crate::shard) fn forget_backlogs(&mut self) {
        if let Some(backlogs) = &mut self.backlogs {
            backlogs.wanted.clear();
            backlogs.held.clear();
        }
    }
}

impl Shard {
    /// Notes that a message waits at a slot for a shared subscription.
    pub(in crate::shard) fn note_waiting(&mut self, slot: u32, share: Share<'_>) {
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        let backlogs = found.backlogs();
        if !backlogs.held.insert(share.number) {
            return;
        }
        // A connected client keeps what waits for it until another member joins or returns.
        let is_offered = found.connected.is_none();
        self.offer_backlog(slot, share.filter, is_offered);
    }

    /// Notes in the index that messages may wait at a slot, and tells the members that may take
    /// them.
    fn offer_backlog(&mut self, slot: u32, filter: &Arc<str>, is_offered: bool) {
        let Some(place) = self.place(slot) else { return };
        let Ok(parts) = validate_filter(filter) else { return };
        for member in self.core.index.note_holder(parts, place) {
            if !is_offered {
                return;
            }
            match member.host {
                Host::Shard(number) if number == self.number => self.want(member.slot, filter),
                Host::Shard(number) => {
                    let waits = BacklogWaits { member, filter: filter.clone() };
                    self.send_to_shard(number, ToShard::BacklogWaits(waits));
                }
                Host::InProcess => {
                    self.post(TakeBacklog::in_process(filter.clone(), place, member));
                }
                Host::Nodes => {} // No member is one: groups name nodes apart.
            }
        }
    }

    /// Lets other members take the messages that wait at a slot for its shared subscriptions, or for those
    /// that it has just lost.
    pub(in crate::shard) fn offer_backlogs<'f>(
        &mut self,
        slot: u32,
        filters: impl Iterator<Item = &'f str>,
    ) {
        // At the end of the broker, the messages stay in the store for the next start.
        if self.lifecycle.is_quiet() {
            return;
        }
        for filter in filters.filter(|filter| filter.starts_with("$share/")) {
            let Some(share) = validate_filter(filter).ok().and_then(|p| self.core.index.share(p))
            else {
                continue;
            };
            let Some(found) = self.slots.get_mut(slot as usize) else { return };
            found.begin_scan_again();
            // Without messages there is nothing to offer, in this group or any other.
            if found.session.queued() == 0 {
                return;
            }
            found.backlogs().held.insert(share);
            self.offer_backlog(slot, &filter.into(), true);
        }
    }

    /// Forgets for which groups messages wait here, because the session has left a group. The next
    /// waiting message of a group notes it again.
    pub(in crate::shard) fn forget_held(&mut self, slot: u32) {
        if let Some(backlogs) = self.slot_mut(slot).and_then(|found| found.backlogs.as_mut()) {
            backlogs.held.clear();
        }
    }

    /// Lets a newly connected member ask for messages that wait for its group, like the other members.
    pub(in crate::shard) fn seek_backlog(&mut self, slot: u32, filter: &str) {
        if !filter.starts_with("$share/") {
            return;
        }
        let (Some(place), Ok(parts)) = (self.place(slot), validate_filter(filter)) else { return };
        if self.core.index.next_holder(parts, &[place]).is_some() {
            self.want(slot, &filter.into());
        }
    }

    fn want(&mut self, slot: u32, filter: &Arc<str>) {
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        if found.connected.is_none() {
            return;
        }
        found.backlogs().wanted.add(filter);
        found.wake();
    }

    /// Handles the report of another shard that a backlog waits for a group of a client here.
    pub(crate) fn backlog_waits(&mut self, waits: &BacklogWaits) {
        if self.slot_at(waits.member).is_some() {
            self.want(waits.member.slot, &waits.filter);
        }
    }

    /// Takes some of the messages that wait at other members for the groups of a client, if they
    /// could be sent immediately; returns whether there may be more.
    pub(in crate::shard) fn take_backlogs(&mut self, slot: u32, now: Timestamp) -> bool {
        let Some(found) = self.slots.get_mut(slot as usize) else { return false };
        let Some(backlogs) = &mut found.backlogs else { return false };
        // One question at a time: a second answer might exceed the room of the member.
        if backlogs.is_asking || self.lifecycle.is_quiet() {
            return false;
        }
        let Some((filter, passed)) = backlogs.wanted.first() else { return false };
        let (filter, mut except) = (filter.clone(), passed.to_vec());
        let Some(accepts) = found.session.accepts(&filter) else {
            backlogs.wanted.remove_first(); // It has unsubscribed.
            return true;
        };
        // A member takes no more than it can be sent now, so that the rest stays in the store.
        let messages = found.session.room_at_once(accepts.qos).min(PORTION.messages);
        if messages == 0 {
            return false;
        }
        let (Some(taker), Ok(parts)) = (self.place(slot), validate_filter(&filter)) else {
            return false;
        };
        except.push(taker);
        // All members with waiting messages have been asked.
        let Some(holder) = self.core.index.next_holder(parts, &except) else {
            if let Some(found) = self.slots.get_mut(slot as usize) {
                found.backlogs().wanted.remove_first();
            }
            return true;
        };
        let asked = TakeBacklog { filter, holder, taker, messages, accepts, passed: Vec::new() };
        let given = if holder.host == self.host() { self.give(&asked, now) } else { Given::Later };
        // Until the answer comes, the member asks nobody else: it has room for one answer.
        if given == Given::Later {
            if let Some(found) = self.slots.get_mut(slot as usize) {
                found.backlogs().is_asking = true;
            }
            // The holder's messages are on their way to the store; its shard asks itself again later.
            if holder.host == self.host() {
                self.asked_later.0.push(asked);
            } else {
                self.post(asked);
            }
            return false;
        }
        self.note_given(&asked.into_answer(given));
        true
    }

    /// Notes the answer to a request of a member here.
    pub(crate) fn note_given(&mut self, answer: &BacklogTaken) {
        let BacklogTaken { filter, holder, taker, given } = answer;
        if self.slot_at(*taker).is_none() {
            return;
        }
        let Some(found) = self.slots.get_mut(taker.slot as usize) else { return };
        let backlogs = found.backlogs();
        backlogs.is_asking = false;
        if *given == Given::Nothing {
            backlogs.wanted.pass(filter, *holder);
        }
        found.wake();
    }

    /// Gives a member the messages that it has asked for, and answers it.
    pub(crate) fn answer_backlog(&mut self, mut asked: TakeBacklog, now: Timestamp) {
        let given = self.give(&asked, now);
        if given == Given::Later {
            return self.asked_later.0.push(asked);
        }
        // The messages must be on their way before the answer says so.
        self.flush();
        if let Host::Shard(number) = asked.taker.host {
            let answer = asked.into_answer(given);
            if number == self.number {
                self.note_given(&answer);
            } else {
                // The answer goes behind the messages, because mail of one shard keeps its order.
                self.send_to_shard(number, ToShard::BacklogTaken(answer));
            }
            return;
        }
        // No other request is made for a subscriber in this process.
        if given == Given::Nothing {
            asked.passed.push(asked.holder);
        }
        let parts = validate_filter(&asked.filter);
        let next = parts.ok().and_then(|p| self.core.index.next_holder(p, &asked.passed));
        // The request goes on to the next holder by itself, since nobody repeats it for an application.
        if let Some(holder) = next.filter(|_| !self.lifecycle.is_quiet()) {
            self.post(TakeBacklog { holder, ..asked });
        }
    }

    fn post(&self, asked: TakeBacklog) {
        self.send_to_shard_of(asked.holder, ToShard::TakeBacklog(asked));
    }

    /// Answers the requests that had to wait.
    pub(in crate::shard) fn answer_later(&mut self) {
        if self.asked_later.0.is_empty() {
            return;
        }
        let now = self.core.clock.now();
        for asked in std::mem::take(&mut self.asked_later.0) {
            self.answer_backlog(asked, now);
        }
    }

    /// Gives a member messages that wait at another one for their group, at most as many as it
    /// asked for.
    fn give(&mut self, asked: &TakeBacklog, now: Timestamp) -> Given {
        let Ok(parts) = validate_filter(&asked.filter) else { return Given::Nothing };
        let Some(share) = self.core.index.share(parts).filter(|_| !self.lifecycle.is_quiet())
        else {
            return Given::Nothing;
        };
        // The session ended after the index named it.
        if self.slot_at(asked.holder).is_none() {
            self.core.index.forget_holder(parts, asked.holder, true);
            return Given::Nothing;
        }
        let mut portion = Portion { messages: asked.messages.min(PORTION.messages), ..PORTION };
        // An application has a channel of fixed size; what does not fit would be dropped.
        if asked.taker.host == Host::InProcess {
            match self.core.in_process.room(asked.taker) {
                None => return Given::Nothing,
                Some(0) => return Given::Later,
                Some(room) => portion.messages = portion.messages.min(room),
            }
        }
        let slot = asked.holder.slot;
        self.forget_taken_out(slot);
        // The search goes on where the last one ended, so that a long queue is searched once.
        let mut scan = self.take_scan(slot, share);
        let mut taken = Vec::new();
        let mut outcome = Given::Some;
        // Each look may read one page, so their number bounds the time of this turn.
        for _ in 0..LOOKS_MAX {
            let looked = self.look(slot, &mut scan, asked, &mut portion, &mut taken, now);
            if looked != Given::Some {
                outcome = looked;
                break;
            }
            if portion.messages == 0 || portion.bytes == 0 {
                break;
            }
        }
        if outcome == Given::Nothing {
            // The index need not name this holder again until it has new messages.
            self.strike_off(parts, asked.holder, &scan);
        } else if let Some(found) = self.slots.get_mut(slot as usize) {
            found.backlogs().scan = Some(scan);
        }
        // What was found goes on its way, even if the search found the end or had to stop.
        let outcome = if taken.is_empty() { outcome } else { Given::Some };
        self.hand_over_to(Some(asked.taker), taken, now);
        outcome
    }

    fn take_scan(&mut self, slot: u32, share: NonZeroU32) -> BacklogScan {
        let backlogs = self.slots.get_mut(slot as usize).and_then(|found| found.backlogs.as_mut());
        let scan = backlogs.and_then(|backlogs| backlogs.scan.take());
        scan.filter(|scan| scan.share == share).unwrap_or_else(|| BacklogScan::new(share))
    }

    /// Notes that no message waits at a slot for a group any more, or only ones that are too large.
    fn strike_off(&mut self, parts: FilterParts<'_>, holder: Place, scan: &BacklogScan) {
        if let Some(found) = self.slots.get_mut(holder.slot as usize) {
            found.backlogs().held.remove(&scan.share);
        }
        self.core.index.forget_holder(parts, holder, !scan.has_too_large);
    }

    /// Searches once: in memory, or if all of that was seen, one page of the store. Returns
    /// `Nothing` if all was seen.
    fn look(
        &mut self,
        slot: u32,
        scan: &mut BacklogScan,
        asked: &TakeBacklog,
        portion: &mut Portion,
        taken: &mut Vec<Orphan>,
        now: Timestamp,
    ) -> Given {
        let Some(found) = self.slots.get_mut(slot as usize) else { return Given::Nothing };
        taken.append(&mut found.session.take_backlog(scan, portion, &asked.accepts, now));
        // One page only if memory has no more, because messages in memory are the older ones.
        if portion.messages == 0 || portion.bytes == 0 || found.session.has_more_in_memory(scan) {
            return Given::Some;
        }
        let (Some(keeper), Some((number, from))) =
            (&self.core.keeper, found.session.backlog_unread(scan))
        else {
            return Given::Nothing;
        };
        // A page has a minimum size: a request for one message would otherwise read the queue
        // message by message.
        let bounds = PageBounds {
            messages_max: portion.messages.max(PAGE_MESSAGES_MIN),
            bytes_max: PORTION.bytes,
        };
        let page = match keeper.store().waiting(number, from, bounds) {
            Ok(page) => page,
            Err(error) => {
                self.tell_unreadable(slot, &error);
                return Given::Later;
            }
        };
        // An empty page may only mean that the messages are not written yet.
        if page.is_empty() {
            return self.look_at_end(scan);
        }
        scan.in_doubt = None;
        let how = (&asked.accepts, now);
        let found = &mut self.slots[slot as usize];
        taken.append(&mut found.session.take_backlog_page(scan, page, &asked.filter, portion, how));
        Given::Some
    }

    /// Handles the end of the store's part of a queue; messages on their way to the store are not
    /// found yet.
    fn look_at_end(&mut self, scan: &mut BacklogScan) -> Given {
        if self.is_immediate() && self.flush_changes() {
            return Given::Some;
        }
        let noted_before = self.noted_before();
        let in_doubt = *scan.in_doubt.get_or_insert(noted_before);
        if in_doubt <= self.stored_before() { Given::Nothing } else { Given::Later }
    }

    /// Forgets messages that were taken out of a queue, once the store has removed them.
    pub(in crate::shard) fn forget_taken_out(&mut self, slot: u32) {
        let stored_before = self.stored_before();
        if let Some(found) = self.slots.get_mut(slot as usize) {
            found.session.forget_taken_out(|ticket| ticket < stored_before);
        }
    }
}

impl TakeBacklog {
    /// Returns a request for a subscriber in this process, which takes any message.
    pub(crate) fn in_process(filter: Arc<str>, holder: Place, taker: Place) -> Self {
        let (messages, accepts) = (PORTION.messages, Accepts::ALL);
        Self { filter, holder, taker, messages, accepts, passed: Vec::new() }
    }

    fn into_answer(self, given: Given) -> BacklogTaken {
        let Self { filter, holder, taker, .. } = self;
        BacklogTaken { filter, holder, taker, given }
    }
}
