//! What the store knows comes back: sessions when the broker starts, and of their queues the next
//! page whenever a client is ready for it.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc};

use super::{Presence, Shard, Slot};
use crate::{
    actors::messages::AcceptedWill,
    auth::Identity,
    journal::{Change, SessionRecord, WillRecord},
    mqtt::{Timestamp, validate_filter},
    owners::{Account, Charge},
    router::Subscriber,
    session::{LeftInQueue, NEVER_EXPIRES, Orphan, Page, Session, Subscription},
    store::{PageBounds, StoredSession},
    told::cut,
};

/// What is read of a queue at a time: about as much as a session has in memory of it.
const PAGE: PageBounds = PageBounds { messages_max: 64, bytes_max: 64 * 1024 };

/// How long after the start the client of a session that ended with the broker has to come back
/// before its Will is published.
const LAST_WILL_GRACE_SECS: u64 = 10;

impl Shard {
    /// Reads the next page of a session's queue; whether there was something in it. Where there
    /// was not, it is on its way to the store, and the session is told when it may be there.
    pub(super) fn read_page(&mut self, slot: u32) -> bool {
        let Some(keeper) = self.core.keeper.clone() else { return false };
        let Some(found) = self.slots.get_mut(slot as usize) else { return false };
        let Some((number, from)) = found.session.unread_from() else { return false };
        self.forget_taken_out(slot);
        let Some(found) = self.slots.get_mut(slot as usize) else { return false };
        let messages = match keeper.store().waiting(number, from, PAGE) {
            Ok(messages) => messages,
            Err(error) => {
                let client_id = &*cut(found.session.client_id());
                tracing::error!(%error, client_id, "a queue cannot be read, and waits");
                self.starve(slot);
                return false;
            }
        };
        let index = &self.core.index;
        let share_number = |filter: &str| index.share(validate_filter(filter).ok()?);
        let has_some = !messages.is_empty();
        let orphans = found.session.take_page(Page { messages }, share_number);
        if !orphans.is_empty() {
            let now = self.core.clock.now();
            self.adopt(orphans, now);
        }
        if has_some {
            return true;
        }
        if self.is_immediate() && self.flush_changes() {
            return self.read_page(slot);
        }
        if self.is_all_kept() {
            let found = &mut self.slots[slot as usize];
            let client_id = &*cut(found.session.client_id());
            tracing::error!(client_id, "messages that were counted are not in the store");
            found.session.forget_unread();
        } else {
            self.starve(slot);
        }
        false
    }

    /// Reads what was in flight when the broker ended, before the session goes on; `false` if it
    /// cannot be read, and the session must not go on without it.
    pub(super) fn recall(&mut self, slot: u32) -> bool {
        let Some(keeper) = self.core.keeper.clone() else { return true };
        let Some(found) = self.slots.get_mut(slot as usize) else { return true };
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
            Err(error) => {
                let client_id = &*cut(found.session.client_id());
                tracing::error!(%error, client_id, "what was in flight cannot be read");
                false
            }
        }
    }

    /// What a session that ends leaves in the store to the other members of shared subscriptions.
    pub(super) fn stored_orphans(&mut self, slot: u32) -> Vec<Orphan> {
        if !self.slot(slot).is_some_and(|found| found.session.may_hold_shared()) {
            return Vec::new();
        }
        if !self.recall(slot) {
            return Vec::new();
        }
        let mut orphans = Vec::new();
        while self.slot(slot).is_some_and(|found| found.session.unread_from().is_some())
            && self.read_page(slot)
        {
            let Some(found) = self.slots.get_mut(slot as usize) else { break };
            orphans.append(&mut found.session.take_all_orphans());
        }
        orphans
    }

    /// Takes back a session that was found in the store.
    pub(in crate::actors) fn restore(&mut self, stored: StoredSession, now: Timestamp) {
        if let Some(there) = self.clients.get(&stored.record.client_id).copied() {
            // Of two of one client the older was about to end.
            let number_there = self.slot(there).and_then(|found| found.session.number());
            if number_there > Some(stored.number) {
                return self.note(|| Change::EndSession(stored.number));
            }
            self.forget(there, now);
        }
        let record = &stored.record;
        let expiry_secs = record.expiry_interval_secs;
        // The session ended with its connection; its Will waits for the client to come back.
        let is_last_will = expiry_secs == 0 && stored.will.is_some();
        let has_ended =
            record.ends_at.is_some_and(|at| at <= now) || (record.is_connected && expiry_secs == 0);
        let leaves_more = !stored.subscriptions.is_empty()
            || !stored.accepted.is_empty()
            || stored.waiting.messages > 0
            || stored.in_flight > 0;
        let slot = self.restore_slot(&stored);
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        // A connection that there was has ended now at the latest.
        found.expires_at = if record.is_connected {
            (expiry_secs != NEVER_EXPIRES).then(|| now.plus_secs(u64::from(expiry_secs)))
        } else {
            record.ends_at
        };
        if let Some(will) = &stored.will {
            let delay_secs = u64::from(will.delay_secs.min(expiry_secs));
            found.will_at = Some(will.due_at.unwrap_or_else(|| now.plus_secs(delay_secs)));
            let mut will = accepted(will);
            // It was accepted before the broker ended, and counts whatever the limits say.
            let mut charge = Charge::new(found.account.clone(), |account| &account.will_bytes);
            charge.set(will.counted_bytes() as u64);
            will.share = Some((self.core.wills.share_anyway(will.counted_bytes()), charge));
            found.will = Some(Box::new(will));
        }
        if is_last_will {
            // The record stays as it is: each start gives the client the whole grace.
            let due_at = now.plus_secs(LAST_WILL_GRACE_SECS);
            found.will_at = Some(due_at);
            found.expires_at = Some(if leaves_more { now } else { due_at });
            return self.set_timer(slot);
        }
        if has_ended {
            found.expires_at = Some(now);
        }
        self.set_timer(slot);
        self.note_session(slot, false);
        self.note_will(slot);
    }

    fn restore_slot(&mut self, stored: &StoredSession) -> u32 {
        let StoredSession { number, record, subscriptions, accepted, waiting, .. } = stored;
        let usage = self.core.queue_usage.clone();
        let mut session = Session::new(record.client_id.clone(), self.queue_limits, usage);
        session.set_expiry_interval_secs(record.expiry_interval_secs);
        let presence = Presence {
            identity: Identity { username: record.username.clone(), ..Identity::default() },
            peer: record.peer.parse().unwrap_or(UNKNOWN_PEER),
            listener: "".into(),
            connected_at: record.connected_at,
            // Every version that was given out was reserved before.
            version: self.version_floor,
            proven: None,
        };
        let account = self.core.account_of(record.username.as_ref(), presence.peer.ip());
        let slot = self.insert_slot(session, presence, &account);
        let place = self.place(slot);
        let journal = self.journal.clone();
        let Some(found) = self.slots.get_mut(slot as usize) else { return slot };
        for (filter, kept) in subscriptions {
            let (Ok(parts), Some(place)) = (validate_filter(filter), place) else { continue };
            let (options, identifier) = (kept.options, kept.identifier);
            let subscriber = Subscriber { place, options, identifier, is_durable: true };
            self.core.index.subscribe(parts, subscriber);
            found.session.restore_subscription(filter, Subscription { options, identifier });
        }
        let left = LeftInQueue {
            messages: waiting.messages,
            bytes: waiting.bytes,
            next: waiting.first.unwrap_or_default(),
            last_place: stored.last_place,
            in_flight: stored.in_flight,
            in_flight_bytes: stored.in_flight_bytes,
            // Nobody knows what a client that was there has been sent last.
            doubtful_up_to: match record.is_connected {
                true => stored.last_place,
                // Places begin again where a queue was empty: what comes now was never sent.
                false => record.doubtful_up_to.min(stored.last_place),
            },
        };
        found.lasting.set(u64::from(record.expiry_interval_secs > 0));
        if let Some(journal) = journal {
            found.session.restore(*number, journal, slot, &left, accepted);
        }
        self.set_shared_away(slot, true);
        self.offer_all_backlogs(slot, self.core.clock.now());
        slot
    }

    /// Notes what is kept of the session itself.
    pub(super) fn note_session(&self, slot: u32, is_connected: bool) {
        let Some(found) = self.slot(slot) else { return };
        let Some(number) = found.session.number() else { return };
        self.note(|| Change::PutSession(number, Box::new(found.record(is_connected))));
    }

    /// Notes what is kept of the session's Will.
    pub(super) fn note_will(&self, slot: u32) {
        let Some(found) = self.slot(slot) else { return };
        let Some(number) = found.session.number() else { return };
        let record = found.will.as_ref().map(|will| will_record(will, found.will_at));
        self.note(|| match record {
            Some(record) => Change::PutWill(number, Box::new(record)),
            None => Change::DropWill(number),
        });
    }

    /// Notes the Will of a client whose session is not kept, so that it is published even if the
    /// broker ends without notice. No answer waits for that, and a store in trouble is spared it.
    pub(super) fn note_last_will(&mut self, slot: u32) {
        let (Some(keeper), Some(journal)) = (&self.core.keeper, &self.journal) else { return };
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        if found.will.is_none()
            || found.session.number().is_some()
            || keeper.health.trouble().is_some()
        {
            return;
        }
        let (number, session) = (keeper.next_session(), found.record(true));
        let Some(will) = &mut found.will else { return };
        journal.note(Change::PutSession(number, Box::new(session)));
        journal.note(Change::PutWill(number, Box::new(will_record(will, None))));
        will.record = Some(number);
    }

    /// Ends a session that ended with the broker, but for its Will, which still waits for the client.
    pub(super) fn leave_last_will(&mut self, slot: u32, due_at: Timestamp, now: Timestamp) {
        let usage = self.core.queue_usage.clone();
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        let will = found.will.take();
        let (presence, account) = (found.presence.clone(), found.account.clone());
        let session = Session::new(found.session.client_id().clone(), self.queue_limits, usage);
        self.note_will(slot); // The new record has it from now on.
        self.forget(slot, now);
        let slot = self.insert_slot(session, presence, &account);
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        found.will = will;
        found.expires_at = Some(due_at);
        self.note_last_will(slot);
        self.set_timer(slot);
    }

    /// Returns whether a session has ended already, and is there for its Will alone: that of a
    /// client that was connected when the broker ended.
    pub(super) fn is_last_will(&self, slot: u32) -> bool {
        let is_over =
            |found: &Slot| found.connected.is_none() && found.session.expiry_interval_secs() == 0;
        self.slot(slot).is_some_and(is_over)
    }

    /// Puts a session into a slot of its own.
    pub(super) fn insert_slot(
        &mut self,
        mut session: Session,
        presence: Presence,
        account: &Arc<Account>,
    ) -> u32 {
        self.next_generation = self.next_generation.wrapping_add(1);
        let client_id = session.client_id().clone();
        session.set_owner(account);
        let slot = self.slots.insert(Slot {
            generation: self.next_generation,
            session,
            presence,
            account: account.clone(),
            lasting: Charge::new(account.clone(), |account| &account.sessions),
            connected: None,
            will: None,
            will_at: None,
            expires_at: None,
            timer_at: None,
            recent_topic: None,
            is_suspended: false,
            backlogs: None,
        }) as u32;
        self.clients.insert(client_id, slot);
        self.metrics.sessions.set(self.slots.len() as u64);
        slot
    }
}

impl Slot {
    /// Says whose the session is from now on.
    pub(super) fn set_account(&mut self, account: Arc<Account>) {
        if !Arc::ptr_eq(&self.account, &account) {
            self.session.set_owner(&account);
            self.lasting.move_to(&account);
            self.account = account;
        }
    }

    /// What is kept of the session itself.
    pub(super) fn record(&self, is_connected: bool) -> SessionRecord {
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
        }
    }
}

/// Where the client of a session was whose record does not say it.
const UNKNOWN_PEER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

fn will_record(will: &AcceptedWill, due_at: Option<Timestamp>) -> WillRecord {
    WillRecord {
        message: will.message.clone(),
        delay_secs: will.delay_secs,
        expiry_secs: will.expiry_secs,
        due_at,
    }
}

fn accepted(will: &WillRecord) -> AcceptedWill {
    AcceptedWill {
        message: Arc::clone(&will.message),
        delay_secs: will.delay_secs,
        expiry_secs: will.expiry_secs,
        share: None,
        record: None,
    }
}
