//! Reads stored data back: the next page of a queue whenever a client is ready for it, and the
//! messages that were in flight. Also notes changes of sessions here.

use std::{fmt::Display, num::NonZeroU32, sync::Arc};

use crate::{
    auth::Authorizer,
    journal::{Change, SessionRecord, WillRecord},
    mqtt::{Timestamp, validate_filter},
    owners::{Account, Charge},
    session::{Page, Session},
    shard::{Presence, Shard, Slot, connect::AcceptedWill, deadlines::Timer},
    store::PageBounds,
};

/// Maximum part of a queue that is read at a time: about as much as a session holds of it in
/// memory.
const PAGE: PageBounds = PageBounds { messages_max: 64, bytes_max: 64 * 1024 };

impl Shard {
    /// Reads the next page of a session's queue; returns whether it had messages. If not, they are
    /// on their way to the store, and the session is told when they may be there.
    pub(in crate::shard) fn read_page(&mut self, slot: u32) -> bool {
        let Some(keeper) = self.core.keeper.clone() else { return false };
        let Some(found) = self.slots.get_mut(slot as usize) else { return false };
        let Some((number, from)) = found.session.unread_from() else { return false };
        // The session need not remember messages that the store has removed: the page lacks them.
        self.forget_taken_out(slot);
        let Some(place) = self.place(slot) else { return false };
        // The call above may have changed the slot.
        let Some(found) = self.slots.get_mut(slot as usize) else { return false };
        let messages = match keeper.store().waiting(number, from, PAGE) {
            Ok(messages) => messages,
            Err(error) => {
                self.tell_unreadable(slot, &error);
                // The session asks again later; a faulty disk must not end the connection.
                self.starve(slot);
                return false;
            }
        };
        // A share has another number after each start, so its filter is what the store has.
        let index = &self.core.index;
        let share_number = |filter: &str| index.share(validate_filter(filter).ok()?);
        let has_some = !messages.is_empty();
        let is_under_subscription = |topic: &str| index.has_subscriber(topic, place);
        let orphans =
            found.session.take_page(Page { messages }, share_number, is_under_subscription);
        // A message of a group whose member lost its subscription belongs to the other members.
        if !orphans.is_empty() {
            let now = self.core.clock.now();
            self.adopt(orphans, now);
        }
        if has_some {
            return true;
        }
        // The missing messages may be among the changes of this turn, which an immediate store takes at once.
        if self.is_immediate() && self.flush_changes() {
            return self.read_page(slot);
        }
        // Everything is written and the page is still empty: waiting longer would never help.
        if self.is_all_stored() {
            self.tell_unreadable(slot, &"they were counted, but are not in the store");
            self.slots[slot as usize].session.forget_unread();
        } else {
            self.starve(slot);
        }
        false
    }

    /// Reads the messages that were in flight when the broker ended, before the session continues.
    /// Returns `false` if they cannot be read; then the session must not continue.
    pub(in crate::shard) fn recall(&mut self, slot: u32) -> bool {
        let Some(keeper) = self.core.keeper.clone() else { return true };
        let Some(found) = self.slots.get_mut(slot as usize) else { return true };
        // A session without a number was never stored, so nothing of it was in flight before the start.
        let Some(number) = found.session.number().filter(|_| found.session.must_recall()) else {
            return true;
        };
        let index = &self.core.index;
        let share_number =
            |filter: &str| -> Option<NonZeroU32> { index.share(validate_filter(filter).ok()?) };
        match keeper.store().in_flight(number) {
            Ok(entries) => {
                let entries = entries.into_iter().map(|e| (e.place, e.sent, e.message)).collect();
                found.session.recall(entries, share_number);
                true
            }
            // Packet Identifiers in flight are unknown now, and a new one could be the same. [MQTT-2.2.1-4]
            Err(error) => {
                self.tell_unreadable(slot, &error);
                false
            }
        }
    }

    pub(in crate::shard) fn tell_unreadable(&self, slot: u32, why: &dyn Display) {
        let Some(found) = self.slot(slot) else { return };
        let address = found.presence.peer.ip();
        self.core.told.unreadable(found.session.client_id(), address, why);
    }

    /// Notes the session's own record.
    pub(in crate::shard) fn note_session(&self, slot: u32, is_connected: bool) {
        let Some(found) = self.slot(slot) else { return };
        let Some(number) = found.session.number() else { return };
        self.note(|| {
            Change::PutSession(number, Box::new(found.record(is_connected, &*self.core.authorizer)))
        });
    }

    /// Returns the Will of an absent client, which is delayed.
    #[cfg(feature = "cluster")]
    pub(in crate::shard) fn delayed_will(&self, slot: u32) -> Option<WillRecord> {
        let found = self.slot(slot)?;
        found.will.as_ref().map(|will| will_record(will, found.will_at))
    }

    /// Notes the session's Will.
    pub(in crate::shard) fn note_will(&self, slot: u32) {
        let Some(found) = self.slot(slot) else { return };
        let Some(number) = found.session.number() else { return };
        let record = found.will.as_ref().map(|will| will_record(will, found.will_at));
        self.note(|| match record {
            Some(record) => Change::PutWill(number, Box::new(record)),
            None => Change::DropWill(number),
        });
    }

    /// Returns whether the session is durable.
    pub(in crate::shard) fn is_durable(&self, slot: u32) -> bool {
        self.slot(slot).is_some_and(|found| found.session.number().is_some())
    }

    /// Notes the Will of a client whose session is not durable, so that it is published even if the
    /// broker ends unexpectedly. No answer waits for that, and the change is not sent to a store in
    /// trouble.
    pub(in crate::shard) fn note_last_will(&mut self, slot: u32) {
        if self.trouble().is_none() && !self.is_durable(slot) {
            self.put_last_will(slot);
        }
    }

    /// Notes the Will of a slot in a record of its own.
    fn put_last_will(&mut self, slot: u32) {
        let (Some(keeper), Some(journal)) = (&self.core.keeper, &self.journal) else { return };
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        let session = found.record(true, &*self.core.authorizer);
        let Some(will) = &mut found.will else { return };
        let number = keeper.next_session();
        journal.note(Change::PutSession(number, Box::new(session)));
        journal.note(Change::PutWill(number, Box::new(will_record(will, None))));
        will.record = Some(number);
    }

    /// Ends a session that ended with the broker, except for its Will, which still waits for the
    /// client.
    pub(in crate::shard) fn leave_last_will(
        &mut self,
        slot: u32,
        due_at: Timestamp,
        now: Timestamp,
    ) {
        // The Will must survive `forget`, which frees the slot with everything in it.
        let usage = self.core.queue_usage.clone();
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        let will = found.will.take();
        let (presence, account) = (found.presence.clone(), found.account.clone());
        // A blank session keeps the client identifier known, so its return can still cancel the Will.
        let session = Session::new(found.session.client_id().clone(), usage);
        self.note_will(slot); // The new record has the Will from now on.
        self.forget(slot, now);
        let slot = self.insert_slot(session, presence, &account);
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        found.will = will;
        found.expires_at = Some(due_at);
        self.put_last_will(slot); // Also while the store is in trouble: the former record goes.
        self.set_timer(slot);
    }

    /// Returns whether a session has ended already and is only there for its Will, because its
    /// client was connected when the broker ended.
    pub(in crate::shard) fn is_last_will(&self, slot: u32) -> bool {
        let is_over =
            |found: &Slot| found.connected.is_none() && found.session.expiry_interval_secs() == 0;
        self.slot(slot).is_some_and(is_over)
    }

    /// Puts a session into a new slot.
    pub(in crate::shard) fn insert_slot(
        &mut self,
        mut session: Session,
        presence: Presence,
        account: &Arc<Account>,
    ) -> u32 {
        let client_id = session.client_id().clone();
        // Before anything is subscribed or queued: all of it counts for this owner.
        session.set_owner(account);
        let slot = self.slots.insert(Slot {
            // Places of the slot's former client do not lead to this session.
            generation: self.numbers.next_generation(),
            session,
            presence,
            account: account.clone(),
            // Charges nothing yet: CONNECT or the stored record decides whether the session lasts.
            lasting: Charge::new(account.clone(), |account| &account.sessions),
            connected: None,
            will: None,
            will_at: None,
            expires_at: None,
            timer: Timer::default(),
            recent_topic: None,
            is_suspended: false,
            #[cfg(feature = "cluster")]
            moving: None,
            chores: None,
            backlogs: None,
            weeds_after: Timestamp(0),
            dropped: None,
            messages_in: 0,
            last_end: None,
        }) as u32;
        self.clients.insert(client_id, slot);
        // The limits of a bridge follow its client identifier, so a session from the store has them too.
        if let Some(found) = self.slots.get_mut(slot as usize) {
            found.take_limits_of_bridge(&self.core.bridge_queues);
        }
        self.metrics.sessions.set(self.clients.len() as u64);
        slot
    }
}

impl Slot {
    /// Sets the owner of the session from now on.
    pub(in crate::shard) fn set_account(&mut self, account: Arc<Account>) {
        if !Arc::ptr_eq(&self.account, &account) {
            self.session.set_owner(&account);
            self.lasting.move_to(&account);
            self.account = account;
        }
    }

    /// Returns the session's own record for the store.
    pub(in crate::shard) fn record(
        &self,
        is_connected: bool,
        rules: &dyn Authorizer,
    ) -> SessionRecord {
        let Presence { identity, peer, connected_at, .. } = &self.presence;
        SessionRecord {
            client_id: self.session.client_id().clone(),
            username: identity.username.clone(),
            expiry_interval_secs: self.session.expiry_interval_secs(),
            ends_at: self.expires_at,
            is_connected,
            doubtful_up_to: self.session.doubtful_up_to(),
            peer: peer.to_string().into(),
            connected_at: *connected_at,
            login: self.login_record(rules),
        }
    }
}

fn will_record(will: &AcceptedWill, due_at: Option<Timestamp>) -> WillRecord {
    WillRecord {
        message: will.message.clone(),
        delay_secs: will.delay_secs,
        expiry_secs: will.expiry_secs,
        due_at,
    }
}
