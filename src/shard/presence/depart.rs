//! A connection ends. The session stays, or ends as well (`ending.rs`).

use std::sync::Arc;

use crate::{
    hooks::DisconnectReason,
    journal::Change,
    mqtt::{Publication, Timestamp, validate_filter},
    router::MemberState,
    session::{KeepAlive, NEVER_EXPIRES},
    shard::{
        Departure, Presence, Shard, Slot,
        chores::SUBSCRIPTIONS_AT_A_TIME,
        connect::AcceptedWill,
        doors::{ConnectionDoor, ToConnection},
        silences::SilencesOfConnection,
    },
};

/// The time after which a Will is tried again that is due and has to wait for the store.
const WILL_DELAYED_MILLIS: u64 = 100;

impl Shard {
    /// Ends a client's connection, which then writes its pending output and closes; returns whether
    /// there was one.
    pub(crate) fn end_connection(
        &mut self,
        slot: u32,
        departure: Departure,
        now: Timestamp,
    ) -> bool {
        let Some((door, bytes)) = self.leave_connection(slot, departure, now) else { return false };
        door.send(ToConnection::Finish(bytes));
        true
    }

    /// Ends the connection of a slot; returns the pending output.
    pub(crate) fn depart(&mut self, slot: u32, departure: Departure, now: Timestamp) -> Vec<u8> {
        self.leave_connection(slot, departure, now).map(|(_, bytes)| bytes).unwrap_or_default()
    }

    /// Ends the connection of a slot; returns the door to it and the pending output.
    fn leave_connection(
        &mut self,
        slot: u32,
        departure: Departure,
        now: Timestamp,
    ) -> Option<(Box<dyn ConnectionDoor>, Vec<u8>)> {
        let found = self.slots.get_mut(slot as usize)?;
        // A slot without a connection has departed already, so a departure counts once.
        let connected = found.connected.take()?;
        // A node without leases lets nothing more leave: behind pending output, no DISCONNECT follows either.
        let is_fenced = departure.reason == DisconnectReason::Fenced;
        let is_mute = is_fenced && found.session.link().is_some_and(|link| link.has_pending());
        // DISCONNECT must be in the output before the link, and with it the output, is taken away.
        if let Some(code) = departure.code.filter(|_| !is_mute) {
            found.session.disconnect(code, departure.why);
        }
        // The permission that it remembers belongs to this connection.
        found.recent_topic = None;
        if connected.settings.is_some() {
            found.drop_queue_limits();
        }
        let mut link = found.session.detach();
        let protocol = link.as_ref().map(|link| link.version());
        let keep_alive = link.as_ref().map(|link| *link.keep_alive());
        let written = link.as_mut().filter(|_| !is_mute);
        let bytes = written.map(|link| link.take_unwritten()).unwrap_or_default();
        self.count(slot, link.map(|mut link| link.take_tally()).unwrap_or_default());
        self.metrics.disconnects.increment(departure.reason);
        self.metrics.connections.set(self.lifecycle.count_disconnected() as u64);
        // Without a link the sweep must not find a Keep Alive deadline.
        self.note_deadline(slot);
        // From now on nobody waits for this client, and it waits for nobody.
        self.forget_waits(slot, now);
        self.tell_disconnected(slot, &departure, now);
        self.trace_end(slot, &departure);
        // A client whose CONNACK was not sent was never online, so no event says that it has gone.
        if connected.unannounced.is_none() {
            self.announce_disconnected(slot, departure.reason, now);
            self.note_end_in_history(slot, protocol, &departure, now);
            self.note_silences(slot, keep_alive, &departure, now);
        }
        if let Some(found) = self.slots.get_mut(slot as usize) {
            found.last_end = Some(Box::new(departure.as_last_end(now)));
        }
        // The Will comes before the expiry, which may free the slot and the Will with it.
        self.settle_will(slot, &departure, now);
        self.settle_expiry(slot, &departure, now);
        self.lifecycle.tell_if_all_gone();
        Some((connected.door, bytes))
    }

    /// Counts the silences of a connection that has ended.
    fn note_silences(
        &self,
        slot: u32,
        keep_alive: Option<KeepAlive>,
        departure: &Departure,
        now: Timestamp,
    ) {
        let (Some(found), Some(keep_alive)) = (self.slot(slot), keep_alive) else { return };
        let silence = keep_alive.unanswered_millis(now);
        // A packet was due after the Keep Alive, and was lost.
        // The longest silence that can be said to be fatal is the Keep Alive itself.
        let due = u32::from(keep_alive.interval_secs()) * 1_000;
        let fatal_millis = if departure.reason == DisconnectReason::KeepaliveTimeout {
            Some(silence.min(due))
        } else {
            departure.is_cut.then_some(silence)
        };
        let survived_max_millis = keep_alive.survived_millis();
        let ended = SilencesOfConnection { survived_max_millis, fatal_millis };
        let Presence { peer, listener, .. } = &found.presence;
        self.core.silences.note(peer.ip(), listener, ended);
    }

    /// Publishes the Will, stores it for later, or drops it.
    fn settle_will(&mut self, slot: u32, departure: &Departure, now: Timestamp) {
        let Some(found) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let Some(will) = found.will.take() else { return };
        // DISCONNECT with Normal disconnection, for example. [MQTT-3.14.4-3]
        if !departure.publishes_will {
            // The record in the store existed for this Will alone.
            if let Some(record) = will.record {
                self.note(|| Change::EndSession(record));
            }
            return self.note_will(slot);
        }
        let expiry_secs = found.session.expiry_interval_secs();
        // The Will waits for its delay or for the session's end, whichever comes first.
        // [MQTT-3.1.2-8]
        let delay_secs = if departure.ends_session { 0 } else { will.delay_secs.min(expiry_secs) };
        if delay_secs == 0 {
            self.publish_will(slot, &will, now);
            self.drop_will_then(slot);
            if let Some(record) = will.record {
                self.end_then(record);
            }
        } else {
            // A connection that takes over cancels a delayed Will.
            if !departure.is_resumed {
                // [MQTT-3.1.3-9]
                found.will = Some(will);
                found.will_at = Some(now.plus_secs(u64::from(delay_secs)));
            }
            self.note_will(slot);
        }
    }

    fn settle_expiry(&mut self, slot: u32, departure: &Departure, now: Timestamp) {
        let Some(found) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let secs = found.session.expiry_interval_secs();
        if secs == 0 || departure.ends_session {
            self.forget(slot, now); // [MQTT-4.1.0-2]
            return;
        }
        if secs != NEVER_EXPIRES {
            found.expires_at = Some(now.plus_secs(u64::from(secs)));
        }
        self.set_timer(slot);
        self.note_session(slot, false);
        // For a takeover the next connection follows in the same turn, so groups and memory stay as they are.
        if !departure.is_resumed {
            if let Some(found) = self.slots.get_mut(slot as usize) {
                // The store has the messages of an absent client, so they need no memory.
                found.session.leave_to_store();
            }
            self.tell_groups(slot);
        }
    }

    pub(in crate::shard) fn publish_will(
        &mut self,
        slot: u32,
        will: &AcceptedWill,
        now: Timestamp,
    ) {
        if !self.may_publish_will(slot, will) {
            return self.tell_denied(slot, "publish_will", will.message.topic());
        }
        let publisher = self.place(slot);
        let publication = Publication {
            expires_at: will.expiry_secs.map(|secs| now.plus_secs(u64::from(secs))),
            ..will.message.publication()
        };
        if !self.will_waits_for_stream(&publication, publisher, now) {
            self.publish_retained(&publication, publisher, now);
        }
    }

    /// Does the due work of a slot when its timer fires.
    pub(in crate::shard) fn timer_due(&mut self, slot: u32, now: Timestamp) {
        // Identity and Keep Alive concern the connection; they may send it off before the session is judged.
        self.tell_identity_expired(slot, now);
        self.expire_rules(slot, now);
        self.revert_keep_alive_if_due(slot, now);
        let Some(found) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let is_due = found.will_at.is_some_and(|at| at <= now);
        // Nothing of the Will is done while its changes would have to wait, so that nothing is undone.
        if is_due && self.waits_for_store(slot, now) {
            return self.delay_will(slot, now);
        }
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        if is_due {
            found.will_at = None;
            // The Will counts for its owner, although no packet has caused it in this turn.
            if let Some(will) = found.will.take() {
                self.charged_to(slot, |shard| shard.publish_will(slot, &will, now));
                self.drop_will_then(slot);
            }
        }
        let Some(found) = self.slot(slot) else { return };
        let (will_at, expires_at) = (found.will_at, found.expires_at);
        // A session that expires and still has a delayed Will keeps only this Will.
        if expires_at.is_some_and(|at| at <= now) {
            match will_at.filter(|_| self.is_last_will(slot)) {
                Some(will_at) => self.leave_last_will(slot, will_at, now),
                None => self.forget(slot, now),
            }
        } else {
            // Weeding only for sessions that stay.
            self.weed_if_due(slot, now);
            self.set_timer(slot);
        }
    }

    /// Delays a Will that is due, because its owner has more than its share on the way to the store. The end of
    /// the session waits with it.
    fn delay_will(&mut self, slot: u32, now: Timestamp) {
        if let Some(found) = self.slots.get_mut(slot as usize) {
            found.will_at = Some(now.plus_millis(WILL_DELAYED_MILLIS));
            found.expires_at =
                found.expires_at.map(|at| at.max(now.plus_millis(WILL_DELAYED_MILLIS)));
        }
        self.set_timer(slot);
    }

    /// Updates a slot's entry among the timers.
    pub(in crate::shard) fn set_timer(&mut self, slot: u32) {
        let Some(found) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let reverts_at = found.keep_alive_reverts_at();
        let due = [
            found.will_at,
            found.expires_at,
            found.weeds_at(),
            found.identity_expires_at(),
            found.rules_expire_at(),
            found.identity_renews_at(),
            reverts_at,
        ];
        let due = due.into_iter().flatten().min();
        self.deadlines.set_timer(slot, &mut found.timer, due);
    }

    /// Tells the groups of a session's shared subscriptions whether its client is connected, because
    /// messages go to connected members first, and lets them share the waiting messages.
    pub(in crate::shard) fn tell_groups(&mut self, slot: u32) {
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        found.begin_scan_again();
        if found.connected.is_none() {
            found.forget_backlogs();
        }
        if !found.session.has_shared_subscriptions() {
            return;
        }
        let walk = found.session.walk_shared();
        found.chores_mut().groups = Some(walk);
        if self.tell_some(slot) {
            self.queue_chores(slot);
        }
    }

    /// Tells some of the groups; returns whether there are more.
    pub(in crate::shard) fn tell_some(&mut self, slot: u32) -> bool {
        let Some(place) = self.place(slot) else { return false };
        let Some(found) = self.slots.get_mut(slot as usize) else { return false };
        let walk = found.chores.as_mut().and_then(|chores| chores.groups.take());
        let Some(mut walk) = walk else { return false };
        let state = match &found.connected {
            Some(_) => MemberState::Online,
            None if found.is_suspended => MemberState::Suspended,
            None => MemberState::Offline,
        };
        // Waiting messages of an absent member are free for the others; a present one looks for
        // those of absent ones.
        let away = state != MemberState::Online;
        let offers = found.session.queued() > 0;
        let next = || found.session.next_of_walk(&mut walk).map(|(filter, _)| Box::from(filter));
        // At most one portion of filters in a turn: one session may be in thousands of groups.
        let some: Vec<Box<str>> = std::iter::from_fn(next).take(SUBSCRIPTIONS_AT_A_TIME).collect();
        for filter in &some {
            let Ok(parts) = validate_filter(filter) else { continue };
            self.core.index.set_member(parts, place, state);
            if away && offers {
                self.offer_backlogs(slot, std::iter::once(&**filter));
            } else if !away {
                self.seek_backlog(slot, filter);
            }
        }
        let Some(found) = self.slots.get_mut(slot as usize) else { return false };
        let has_more = some.len() == SUBSCRIPTIONS_AT_A_TIME;
        // A full portion may have been the last one; the next call then finds nothing and ends the chore.
        found.chores_mut().groups = has_more.then_some(walk);
        found.tidy_chores();
        has_more
    }
}

/// Returns the user name of a slot's last connection.
pub(in crate::shard) fn username(slot: &Slot) -> Option<Arc<str>> {
    slot.presence.identity.username.clone()
}
