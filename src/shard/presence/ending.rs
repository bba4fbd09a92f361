//! A session ends: its Will is published, its subscriptions end, and the messages that wait for
//! shared subscriptions go to the other members.
//!
//! From the beginning, the client has no session any more, and nothing is delivered to it. What a
//! session with very many subscriptions or messages leaves behind is removed in portions. Until
//! then, the store has a record of the session with an end in the past, so that the next start
//! continues if the broker ends before.

use std::sync::Arc;

use crate::{
    control::{ControlError, Kicked, WillRequest},
    journal::Change,
    mqtt::{Timestamp, validate_filter},
    owners::Account,
    shard::{
        Shard, Slot,
        chores::{Ending, Progress, SUBSCRIPTIONS_AT_A_TIME},
    },
};

/// Maximum number of messages that go to other members in one portion.
const MESSAGES_AT_A_TIME: usize = 64;
/// Reading a page of a queue takes as long as this number of messages.
const STEPS_OF_PAGE: usize = 8;
/// Maximum number of sessions that are searched for one that ends.
const SEARCHED_MAX: usize = 64;

impl Shard {
    /// Ends the session of an absent client, because a caller asks for it.
    ///
    /// # Errors
    /// The client has no session, or has come back meanwhile.
    pub(crate) fn end_absent(
        &mut self,
        client_id: &str,
        will: WillRequest,
        now: Timestamp,
    ) -> Result<Kicked, ControlError> {
        let slot = self.clients.get(client_id).copied().filter(|slot| !self.is_last_will(*slot));
        let slot = slot.ok_or(ControlError::NotOnline)?;
        let before = self.before_kick(slot, will);
        let found = self.slot_mut(slot).ok_or(ControlError::NotOnline)?;
        if found.connected.is_some() {
            return Err(ControlError::Unavailable);
        }
        if will == WillRequest::Discard {
            found.will = None;
        }
        self.forget(slot, now);
        before.map(|before| self.kicked(&before)).ok_or(ControlError::NotOnline)
    }

    /// Ends a session that has no connection; its Will is published now at the latest.
    pub(in crate::shard) fn forget(&mut self, slot: u32, now: Timestamp) {
        self.forget_as(slot, now, false);
    }

    /// Does the same. `has_moved`: another node has the session, so its messages go to no other member.
    pub(in crate::shard) fn forget_as(&mut self, slot: u32, now: Timestamp, has_moved: bool) {
        let Some(place) = self.place(slot) else { return };
        // A session that is ending has already given away its Will and its place.
        if self.slots[slot as usize].is_ending() {
            return;
        }
        let will = self.slots[slot as usize].will.take();
        // The session has ended, so its Will waits no longer. [MQTT-3.1.2-8]
        if let Some(will) = &will {
            self.publish_will(slot, will, now);
            if let Some(record) = will.record {
                self.end_then(record);
            }
        }
        let found = &mut self.slots[slot as usize];
        // Nothing finds the session under its former place.
        found.generation = self.numbers.next_generation();
        // The timer would end the session a second time.
        self.deadlines.set_timer(slot, &mut found.timer, None);
        (found.will_at, found.expires_at) = (None, Some(now));
        found.lasting.set(0);
        found.backlogs = None;
        let has_will = will.is_some() || self.has_published_will(slot);
        let found = &mut self.slots[slot as usize];
        let ending = Ending { place, has_will, has_moved, in_flight: None };
        // The end replaces all other chores of the session.
        found.chores = None;
        found.chores_mut().ending = Some(ending);
        // A newer session of the same client may have the entry.
        if self.clients.get(found.session.client_id()) == Some(&slot) {
            self.clients.remove(found.session.client_id());
            self.owned.release(found.session.client_id());
        }
        // A later session of this client must have a higher version.
        self.numbers.raise_version_floor(found.presence.version);
        self.metrics.sessions.set(self.clients.len() as u64);
        // What fits into one portion leaves no record of an ending.
        if self.end_some(slot, now) != Progress::Done {
            self.note_session(slot, false);
            if will.is_some() {
                self.drop_will_then(slot);
            }
            self.queue_chores(slot);
        }
    }

    /// Removes a portion of the subscriptions and messages of a session that has ended.
    pub(in crate::shard) fn end_some(&mut self, slot: u32, now: Timestamp) -> Progress {
        let Some(found) = self.slots.get_mut(slot as usize) else { return Progress::Done };
        let Some(mut ending) = found.chores_mut().ending.take() else { return Progress::Done };
        let mut portion = Progress::Done;
        // Counted down, so that `left == 0` tells a full portion from one that has come to the end.
        for left in (0..SUBSCRIPTIONS_AT_A_TIME).rev() {
            let Some(filter) = found.session.remove_any_subscription() else { break };
            if let Ok(parts) = validate_filter(&filter) {
                self.core.index.unsubscribe(parts, ending.place);
            }
            if left == 0 {
                portion = Progress::More;
            }
        }
        // Messages follow when the last subscription has gone, so a portion has one kind of work.
        if portion == Progress::Done && !ending.has_moved {
            portion = self.leave_some(slot, &mut ending, now);
        }
        if portion == Progress::Done {
            self.remove_ended(slot, &ending);
        } else if let Some(found) = self.slots.get_mut(slot as usize) {
            found.chores_mut().ending = Some(ending);
        }
        portion
    }

    /// Lets other members have some of the messages that the session leaves.
    fn leave_some(&mut self, slot: u32, ending: &mut Ending, now: Timestamp) -> Progress {
        if self.lifecycle.is_quiet() {
            // The next start continues with what the store has.
            return if self.is_durable(slot) { Progress::Later } else { Progress::Done };
        }
        // What moves to other queues must not pile up before the store or another shard.
        if self.is_congested()
            || self.waits_for_store(slot, now)
            || (ending.in_flight.is_none() && !self.recall_shared(slot))
        {
            return Progress::Later;
        }
        let mut steps = 0;
        while steps < MESSAGES_AT_A_TIME {
            // `adopt` may have changed the slots.
            let Some(found) = self.slots.get_mut(slot as usize) else { return Progress::Done };
            let session = &mut found.session;
            let in_flight =
                ending.in_flight.get_or_insert_with(|| session.orphans_in_flight().into());
            let left = MESSAGES_AT_A_TIME - steps;
            // Messages in flight were sent first, so they reach the other members first.
            if !in_flight.is_empty() {
                let orphans: Vec<_> = in_flight.drain(..left.min(in_flight.len())).collect();
                steps += orphans.len();
                self.adopt(orphans, now);
                continue;
            }
            let (taken, orphans) = session.leave_waiting(left);
            steps += taken;
            if taken == 0 {
                // What is not shared is dropped with the record, and needs no reading.
                if !session.may_hold_shared() || session.unread_from().is_none() {
                    return Progress::Done;
                }
                // A read of the store counts, whatever it finds.
                steps += STEPS_OF_PAGE;
                if !self.read_page(slot) {
                    return Progress::Later;
                }
            }
            self.adopt(orphans, now);
        }
        Progress::More
    }

    /// Reads messages in flight from the store, if other members may get them; returns whether it
    /// could.
    fn recall_shared(&mut self, slot: u32) -> bool {
        !self.slot(slot).is_some_and(|found| found.session.may_hold_shared()) || self.recall(slot)
    }

    /// Makes room for a subscription of `account` by removing subscriptions of sessions that have
    /// ended: a client that starts with a new session may need the room of its former one. Removes
    /// no more bytes than are needed, so this takes no longer for many.
    pub(in crate::shard) fn make_room(&mut self, account: &Arc<Account>, more: usize) {
        let bytes_max = self.core.limits_now().subscription_bytes_max;
        loop {
            let is_index_full = (self.core.index.bytes() + more) as u64 > bytes_max;
            if !is_index_full && account.subscription_bytes.fits(more as u64) {
                return;
            }
            // Only its own subscriptions give room back to an account; if the index is full, any of them do.
            let is_meant = |found: &Slot| is_index_full || Arc::ptr_eq(&found.account, account);
            // The search is short too, because a client waits for its SUBACK meanwhile.
            let mut with_chores = self.chores.first(SEARCHED_MAX);
            let has_room_to_give =
                |f: &Slot| f.is_ending() && f.session.subscriptions_len() > 0 && is_meant(f);
            let found = with_chores.find(|slot| self.slot(*slot).is_some_and(has_room_to_give));
            let Some(found) = found.and_then(|slot| self.slots.get_mut(slot as usize)) else {
                return;
            };
            let ending = found.chores.as_ref().and_then(|chores| chores.ending.as_ref());
            let Some(place) = ending.map(|ending| ending.place) else { return };
            let Some(filter) = found.session.remove_any_subscription() else { return };
            if let Ok(parts) = validate_filter(&filter) {
                self.core.index.unsubscribe(parts, place);
            }
        }
    }

    fn remove_ended(&mut self, slot: u32, ending: &Ending) {
        let found = self.slots.remove(slot as usize);
        let Some(number) = found.session.number() else { return };
        if ending.has_will {
            // Only after the receivers of its Will have stored it.
            self.end_then(number);
        } else {
            self.note(|| Change::EndSession(number));
        }
    }
}
