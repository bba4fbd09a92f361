//! Checks whether earlier permissions still hold: after accounts, permissions or certificates were
//! read again, each shard walks along its sessions and ends what is no longer allowed.
//!
//! `rechecks.rs` calls it for a few sessions at a time, and other tasks get their turn in between.
//! The same is checked when an offline client connects again.

use std::{ops::Range, sync::Arc};

use crate::{
    auth::{AccessRequest, Action, Decision, Standing},
    control::Rechecked,
    hooks::DisconnectReason,
    mqtt::{Publication, QoS, ReasonCode, Timestamp, validate_filter},
    owners::Account,
    shard::{
        Departure, Presence, Shard, Slot,
        chores::SUBSCRIPTIONS_AT_A_TIME,
        connect::{AcceptedConnect, AcceptedWill},
        doors::ToConnection,
    },
};

/// The number of steps before other tasks of the thread get their turn: a session and a
/// subscription count one each. They take about half a millisecond with a policy of some rules.
const STEPS_AT_A_TIME: usize = SUBSCRIPTIONS_AT_A_TIME;
/// Verifying a certificate chain takes as long as this number of steps.
const STEPS_OF_CERTIFICATE: usize = 64;

/// The progress of a walk along the sessions of a shard.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    next: u32,
    /// The session before that with its generation, while it has subscriptions to be checked or
    /// messages to be examined.
    under_way: Option<(u32, u32)>,
    /// The authorizer has prepared for the slots before this one.
    prepared_up_to: u32,
    /// The last slots for which the authorizer could not load its data.
    unprepared: Vec<u32>,
    /// The account of the only sessions that are checked; `None`: all are.
    only: Option<Arc<Account>>,
    found: Rechecked,
    /// Whether the session under way has been counted as touched.
    is_touched: bool,
}

/// The result of checking some subscriptions of one session.
pub(in crate::shard) struct CheckedPart {
    /// The number of subscriptions that were checked; 0 if the check is over.
    pub(in crate::shard) checked: usize,
    /// Whether a subscription has ended.
    has_ended_some: bool,
}

impl CheckedPart {
    const OVER: Self = Self { checked: 0, has_ended_some: false };
}

impl Rounds {
    /// Creates the walk along the sessions of one account.
    pub(crate) fn of(account: Arc<Account>) -> Self {
        Self { only: Some(account), ..Self::default() }
    }

    /// Returns the findings so far.
    pub(crate) const fn found(&self) -> Rechecked {
        self.found
    }

    /// Returns the next slots for which the authorizer must prepare before the walk continues; `None` if it can
    /// continue. `end` gives the end of the range from its first slot.
    pub(super) fn next_to_prepare(
        &mut self,
        end: impl Fn(u32, &Self) -> u32,
    ) -> Option<Range<u32>> {
        if self.under_way.is_some() || self.next < self.prepared_up_to {
            return None;
        }
        self.unprepared.clear();
        self.prepared_up_to = end(self.next, self);
        Some(self.next..self.prepared_up_to)
    }

    /// Returns whether the walk is about this session.
    pub(super) fn concerns(&self, found: &Slot) -> bool {
        let is_meant = |account| Arc::ptr_eq(account, &found.account);
        !found.is_ending() && self.only.as_ref().is_none_or(is_meant)
    }

    /// Returns whether the walk is about the sessions of one user.
    pub(super) const fn is_of_one_user(&self) -> bool {
        self.only.is_some()
    }

    /// Counts the session under way, once.
    fn note_touched(&mut self) {
        self.found.touched += usize::from(!std::mem::replace(&mut self.is_touched, true));
    }

    pub(super) fn note_unprepared(&mut self, slot: u32) {
        self.unprepared.push(slot);
    }
}

impl Shard {
    /// Checks some more sessions, those that are prepared; returns `false` once all were checked.
    pub(crate) fn recheck(&mut self, rounds: &mut Rounds, now: Timestamp) -> bool {
        let mut steps = 0;
        while steps < STEPS_AT_A_TIME {
            // One session at a time is under way, so the walk remembers one position and not a list.
            if let Some((slot, generation)) = rounds.under_way {
                let part = self.check_some(slot, generation, now);
                if part.has_ended_some {
                    rounds.note_touched();
                }
                // Only after all subscriptions were checked is it known which queued messages belong to none.
                let taken = match part.checked {
                    0 => self.examine_waiting(slot, generation, now),
                    taken => taken,
                };
                steps += taken;
                if taken == 0 {
                    rounds.under_way = None;
                }
                continue;
            }
            if rounds.next as usize >= self.slots.capacity() {
                return false;
            }
            // The authorizer must load data for the next portion first; the registry waits for it.
            if rounds.next >= rounds.prepared_up_to {
                return true;
            }
            let slot = rounds.next;
            rounds.next += 1;
            if !self.slot(slot).is_some_and(|found| rounds.concerns(found)) {
                // Comparing a name costs little, so a round about one user counts only the slots of this user.
                steps += usize::from(!rounds.is_of_one_user());
                continue;
            }
            steps += 1;
            rounds.found.sessions += 1;
            rounds.is_touched = false;
            if self.recheck_client(slot, rounds, &mut steps, now) {
                rounds.under_way = self.begin_check(slot);
            }
        }
        true
    }

    /// Checks the client of a slot; returns whether its subscriptions must be checked. If the authorizer could not load
    /// its data, the client keeps its permissions, and its session rests if it rested before.
    fn recheck_client(
        &mut self,
        slot: u32,
        rounds: &mut Rounds,
        steps: &mut usize,
        now: Timestamp,
    ) -> bool {
        // A client whose permissions could not be loaded keeps those that it has.
        let is_prepared = !rounds.unprepared.contains(&slot);
        // A ban is in force whatever the account allows.
        self.end_if_banned(slot, rounds, now);
        let Some(found) = self.slot(slot) else { return false };
        let standing = self.standing(found);
        let may_connect = !is_prepared || self.may(found, Action::Connect);
        let is_there = found.connected.is_some();
        match standing {
            Standing::Gone => {
                rounds.note_touched();
                // A deleted account leaves nothing for which its session could wait.
                if is_there {
                    let departure = Departure { ends_session: true, ..not_authorized(ACCOUNT) };
                    self.send_off(slot, departure, now);
                } else {
                    // The end does its first portion immediately, which counts for this turn.
                    *steps += first_portion(found);
                    self.forget(slot, now);
                }
                false
            }
            Standing::Changed if is_there => {
                rounds.note_touched();
                self.send_off(slot, not_authorized(CREDENTIALS), now);
                may_connect && is_prepared // The session waits for its user, and collects what it may.
            }
            Standing::Good | Standing::Changed if may_connect => {
                // A session that was suspended, and may collect again, is a target for messages from now on.
                if is_prepared && found.is_suspended {
                    *steps += first_portion(found);
                    self.collect_again(slot);
                    self.tell_groups(slot);
                }
                self.recheck_certificate(slot, steps);
                is_prepared
            }
            Standing::Good | Standing::Changed | Standing::Suspended => {
                let why = if may_connect { ACCOUNT } else { PERMISSION };
                // A session that was suspended before is no new finding of this round.
                if is_there || !found.is_suspended {
                    rounds.note_touched();
                }
                *steps += first_portion(found);
                // First the connection, so that the client learns the reason before its session falls silent.
                self.send_off(slot, not_authorized(why), now);
                self.suspend(slot);
                self.tell_groups(slot);
                false
            }
        }
    }

    /// Ends the connection of a client that is banned. Its session stays.
    fn end_if_banned(&mut self, slot: u32, rounds: &mut Rounds, now: Timestamp) {
        let Some(found) = self.slot(slot).filter(|found| found.connected.is_some()) else { return };
        let Presence { identity, peer, .. } = &found.presence;
        let (name, address) = (identity.username.as_deref(), peer.ip());
        if self.core.bans.keeps_out(found.session.client_id(), name, address, now) {
            rounds.note_touched();
            self.send_off(slot, BANNED, now);
        }
    }

    /// Ends the connection of a slot, if it has one.
    fn send_off(&mut self, slot: u32, departure: Departure, now: Timestamp) {
        self.end_connection(slot, departure, now);
    }

    fn recheck_certificate(&self, slot: u32, steps: &mut usize) {
        let connected = self.slot(slot).and_then(|found| found.connected.as_ref());
        if let Some(connected) = connected.filter(|connected| connected.has_certificate) {
            *steps += STEPS_OF_CERTIFICATE;
            // One message for each round, and rounds follow one another.
            connected.door.send(ToConnection::VerifyCertificate);
        }
    }

    /// Begins to check whether the client of a slot may still have its subscriptions. Returns the
    /// slot with its generation.
    fn begin_check(&mut self, slot: u32) -> Option<(u32, u32)> {
        let found = self.slots.get_mut(slot as usize)?;
        if found.session.subscriptions_len() > 0 {
            let walk = found.session.walk_all();
            found.chores_mut().check = Some(walk);
        }
        Some((slot, found.generation))
    }

    /// Checks some of the subscriptions, and ends those that the client may no longer have.
    pub(in crate::shard) fn check_some(
        &mut self,
        slot: u32,
        generation: u32,
        now: Timestamp,
    ) -> CheckedPart {
        // The slot may have another session since the check began.
        let found = self.slot_mut(slot).filter(|found| found.generation == generation);
        let walk = found.and_then(|found| found.chores.as_mut()?.check.take());
        let (Some(mut walk), Some(found)) = (walk, self.slot(slot)) else {
            return CheckedPart::OVER;
        };
        let mut checked = 0;
        let mut denied = Vec::new();
        // A session that is suspended meanwhile is checked when it collects again.
        while checked < SUBSCRIPTIONS_AT_A_TIME && !found.is_suspended {
            let Some((filter, subscription)) = found.session.next_of_walk(&mut walk) else { break };
            checked += 1;
            let qos = subscription.options.qos;
            let Ok(parts) = validate_filter(filter) else { continue };
            if !self.may(found, Action::Subscribe { filter: parts.filter, qos }) {
                denied.push((Box::from(filter), qos));
            }
        }
        // After the loop, because a withdrawal changes the subscriptions along which it walks.
        self.withdraw(slot, &denied, now);
        let part = CheckedPart { checked, has_ended_some: !denied.is_empty() };
        let Some(found) = self.slots.get_mut(slot as usize) else { return part };
        if checked == SUBSCRIPTIONS_AT_A_TIME {
            found.chores_mut().check = Some(walk);
        } else if let Some(link) = found.session.link_mut() {
            // All are checked, so the messages that waited for the end of the check may go.
            link.withhold_messages(false);
            found.wake();
        }
        found.tidy_chores();
        part
    }

    /// Ends the subscriptions that a client may no longer have when it continues with its session.
    /// If there are very many, messages wait until all are checked.
    pub(in crate::shard) fn revoke_subscriptions(&mut self, slot: u32, now: Timestamp) {
        let Some((slot, generation)) = self.begin_check(slot) else { return };
        self.check_some(slot, generation, now);
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        if found.is_being_checked() {
            if let Some(link) = found.session.link_mut() {
                link.withhold_messages(true);
            }
            self.queue_chores(slot);
        }
    }

    /// Ends subscriptions. Queued messages that came only by them are dropped before they could be
    /// sent; those of a shared subscription go to its other members.
    pub(in crate::shard) fn withdraw(
        &mut self,
        slot: u32,
        filters: &[(Box<str>, QoS)],
        now: Timestamp,
    ) {
        self.withdraw_untold(slot, filters.iter().map(|(filter, _)| &**filter));
        for (filter, qos) in filters {
            self.announce_unsubscribed(slot, filter, *qos, now);
        }
    }

    /// Withdraws subscriptions without an event.
    pub(in crate::shard) fn withdraw_untold<'f>(
        &mut self,
        slot: u32,
        filters: impl Iterator<Item = &'f str> + Clone,
    ) {
        let Some(place) = self.place(slot).filter(|_| filters.clone().next().is_some()) else {
            return;
        };
        let mut ended = Vec::with_capacity(filters.size_hint().0);
        for filter in filters.clone() {
            let Ok(parts) = validate_filter(filter) else { continue };
            // The number of the share must be known before the last member leaves and the share with it.
            ended.push((filter, self.core.index.share(parts)));
            self.core.index.unsubscribe(parts, place);
        }
        // The groups whose messages wait here have changed; the next message of a group notes it again.
        self.forget_held(slot);
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        found.session.withdraw(ended.into_iter());
        // The other members may take its waiting messages.
        self.offer_backlogs(slot, filters);
        // The queue may have become shorter, which frees publishers.
        self.note_queued(slot);
        self.set_timer(slot);
    }

    /// Stops the session of an offline client from collecting messages, until the client may
    /// connect again. Its subscriptions stay in the index, so that this takes no longer for many.
    fn suspend(&mut self, slot: u32) {
        if let Some(found) = self.slots.get_mut(slot as usize) {
            found.is_suspended = true;
        }
    }

    /// Lets a suspended session collect messages again.
    pub(in crate::shard) fn collect_again(&mut self, slot: u32) {
        if let Some(found) = self.slots.get_mut(slot as usize) {
            found.is_suspended = false;
        }
    }

    /// Returns whether the client of a slot may do this.
    pub(in crate::shard) fn may(&self, found: &Slot, action: Action<'_>) -> bool {
        let request = AccessRequest {
            identity: &found.presence.identity,
            client_id: found.session.client_id(),
            peer: found.presence.peer,
            listener: &found.presence.listener,
            action,
        };
        self.core.authorizer.authorize(&request) == Decision::Allow
    }

    /// Returns whether an accepted Will may be published now that it is due: if its client could
    /// connect and publish it. A session that collects nothing because it is about to end still has
    /// its Will.
    pub(in crate::shard) fn may_publish_will(&self, slot: u32, will: &AcceptedWill) -> bool {
        let Some(found) = self.slot(slot) else { return false };
        let standing = self.standing(found);
        let Publication { topic, qos, retain, .. } = will.message.publication();
        matches!(standing, Standing::Good | Standing::Changed)
            && (!found.is_suspended || self.may(found, Action::Connect))
            && self.may(found, Action::Publish { topic, qos, retain })
    }

    /// Returns whether login and permissions still hold, if accounts or rules were reloaded since
    /// CONNECT.
    pub(in crate::shard) fn is_still_welcome(&self, connect: &AcceptedConnect) -> bool {
        let AcceptedConnect { identity, client_id, peer, listener, proven, will, .. } = connect;
        if self.core.proves_now(proven.method.clone()) == *proven {
            return true;
        }
        let may = |action| {
            let request = AccessRequest { identity, client_id, peer: *peer, listener, action };
            self.core.authorizer.authorize(&request) == Decision::Allow
        };
        let may_publish_will = will.as_ref().is_none_or(|will| {
            let Publication { topic, qos, retain, .. } = will.message.publication();
            may(Action::Publish { topic, qos, retain })
        });
        self.core.standing(identity, proven, listener) == Standing::Good
            && may(Action::Connect)
            && may_publish_will
    }
}

/// Returns the steps of the first portion when a session ends, or tells its groups.
fn first_portion(found: &Slot) -> usize {
    found.session.subscriptions_len().min(SUBSCRIPTIONS_AT_A_TIME)
}

const ACCOUNT: &str = "the account was removed or disabled";
const CREDENTIALS: &str = "the account has other credentials now";
pub(in crate::shard) const PERMISSION: &str =
    "no rule allows to connect with this client identifier any more";
/// MQTT has Banned for CONNACK alone. [MQTT-3.14.2-1]
const BANNED: Departure =
    Departure::by_server(DisconnectReason::Banned, ReasonCode::AdministrativeAction)
        .because("the client is banned");
pub(crate) const CERTIFICATE: &str = "the certificate is not trusted any more";

/// Returns the departure of a client that was accepted and would not be accepted now.
pub(crate) const fn not_authorized(why: &'static str) -> Departure {
    Departure::by_server(DisconnectReason::NotAuthorized, ReasonCode::NotAuthorized).because(why)
}
