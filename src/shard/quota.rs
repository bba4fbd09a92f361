//! Limits that are reached: how the broker tells the publisher and the log, and how it slows down a
//! client that gets no reason code and connects again to retry.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use crate::{
    hooks::DisconnectReason,
    journal::Change,
    metrics::{DropReason, UserLimit},
    mqtt::{Message, Publication, Publish, QoS, ReasonCode, Timestamp},
    owners::Account,
    router::RetainedFull,
    session::Link,
    shard::{Departure, Shard, packets::Handled},
};

/// Maximum number of expired retained messages that one sweep removes, which takes a few milliseconds.
const EXPIRED_AT_ONCE_MAX: usize = 1_024;

impl Shard {
    /// Retains or clears a message of `slot` or of the broker itself. [MQTT-3.3.1-5]
    /// [MQTT-3.3.1-6] [MQTT-3.3.1-7]
    ///
    /// # Errors
    /// Returns why there is no room. Then the topic still has its former message.
    pub(crate) fn retain(
        &mut self,
        publication: &Publication<'_>,
        slot: Option<u32>,
        now: Timestamp,
    ) -> Result<(), RetainedFull> {
        let owner = slot.and_then(|slot| self.slot(slot)).map(|found| found.account.clone());
        let retained = self.retain_for(owner, publication, now);
        if let Err(full) = retained {
            self.tell_retained_full(slot, publication.topic, full);
        }
        retained
    }

    /// Retains or clears a message that counts for this account.
    ///
    /// # Errors
    /// As [`Self::retain`].
    pub(in crate::shard) fn retain_for(
        &mut self,
        owner: Option<Arc<Account>>,
        publication: &Publication<'_>,
        now: Timestamp,
    ) -> Result<(), RetainedFull> {
        if self.retains_in_cluster(publication.topic) {
            return self.retain_in_cluster(owner, publication, now);
        }
        // An empty payload removes the retained message. [MQTT-3.3.1-6]
        if publication.payload.is_empty() {
            self.core.retained.clear(publication.topic);
            self.note(|| Change::ClearRetained(publication.topic.into()));
            return Ok(());
        }
        let message = Arc::new(Message::new(publication).received(now));
        let mut gone = Vec::new();
        let set = self.core.retained.set(message.clone(), owner.as_ref(), now, &mut gone);
        // Room is made by removing expired messages, which the store must forget too.
        self.note_cleared(&gone);
        match set {
            Ok(()) => {
                // Noted only now: a message that was refused must not come back after a restart.
                self.note(|| Change::Retain(message, owner.map(|account| account.owner().clone())));
                Ok(())
            }
            Err(full) => {
                self.metrics.dropped(DropReason::RetainedFull, 1);
                Err(full)
            }
        }
    }

    /// Removes the retained message of a topic; returns whether there was one.
    pub(crate) fn clear_retained(&self, topic: &str, now: Timestamp) -> bool {
        let was_there = self.has_retained(topic, now);
        self.core.retained.clear(topic);
        self.note(|| Change::ClearRetained(topic.into()));
        was_there
    }

    /// Removes expired retained messages from memory and from the store.
    pub(crate) fn remove_expired_retained(&self, now: Timestamp) {
        let expired = self.core.retained.remove_expired(now, EXPIRED_AT_ONCE_MAX);
        self.note_cleared(&expired);
    }

    pub(in crate::shard) fn note_cleared(&self, gone: &[Arc<Message>]) {
        for message in gone {
            self.note(|| Change::ClearRetained(message.topic().into()));
        }
    }

    /// Refuses a message that cannot be accepted. The broker sends a reason code; where the version
    /// has none, it ends the connection without an acknowledgement, so that the client sends the
    /// message again.
    pub(crate) fn refuse_publish(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        departure: Departure,
        now: Timestamp,
    ) -> Result<Handled, Departure> {
        let has_reasons = |link: &Link| link.version().has_properties();
        let found = self.slots.get_mut(slot as usize);
        let reason = departure.code.unwrap_or(ReasonCode::UnspecifiedError);
        // PUBACK and PUBREC have a Reason Code only in MQTT 5.0.
        match found.filter(|found| found.session.link().is_some_and(has_reasons)) {
            Some(found) => {
                found.session.publish_done(publish.flags.qos, publish.packet_id, reason, None);
                Ok(Handled::Done)
            }
            None => {
                // The client will connect and send again; without a delay it would do so in a tight loop.
                if reason == ReasonCode::QuotaExceeded {
                    self.slow_down(slot, now);
                }
                Err(departure)
            }
        }
    }

    fn tell_retained_full(&self, slot: Option<u32>, topic: &str, full: RetainedFull) {
        let Some(slot) = slot else { return }; // the broker's own, which is counted
        match full {
            RetainedFull::All => {
                self.tell_over_limit(slot, "retained_messages_max or retained_bytes_max", topic);
            }
            RetainedFull::OwnerMessages => {
                self.tell_user_limit(slot, UserLimit::RetainedMessages, topic);
            }
            RetainedFull::OwnerBytes => self.tell_user_limit(slot, UserLimit::RetainedBytes, topic),
        }
    }

    /// Counts that the user of a slot has reached a limit, and logs it.
    fn tell_user_limit(&self, slot: u32, limit: UserLimit, what: &str) {
        self.metrics.user_limits_reached.increment(limit);
        self.tell_over_limit(slot, limit.name(), what);
    }

    /// Reports that a session has lost messages because its user has reached the limit of stored
    /// messages, or of those in memory.
    pub(crate) fn tell_displaced(&self, slot: u32, topic: &str) {
        let Some(found) = self.slot(slot) else { return };
        if found.account.take_displaced() > 0 {
            self.tell_user_limit(slot, UserLimit::Stored, topic);
        }
        if found.account.take_displaced_in_memory() > 0 {
            self.tell_user_limit(slot, UserLimit::Queued, topic);
        }
    }

    /// Makes a client wait before it connects again, longer each time, after its connection ended
    /// because there is no room for what it sends.
    pub(crate) fn slow_down(&mut self, slot: u32, now: Timestamp) {
        if let Some(found) = self.slots.get(slot as usize) {
            let client_id = found.session.client_id().clone();
            self.slowed.add(client_id, found.account.clone(), now);
        }
    }
}

/// The clients that must wait before they connect again.
#[derive(Debug, Default)]
pub(crate) struct Slowed {
    clients: HashMap<Arc<str>, Wait, RandomState>,
}

#[derive(Debug)]
struct Wait {
    /// The account of the client that was slowed down; other clients of this name are not affected.
    account: Arc<Account>,
    times: u32,
    until: Timestamp,
}

/// Maximum number of slowed clients that a shard remembers; a further one replaces the one whose
/// wait ends first.
const CLIENTS_MAX: usize = 1_024;
/// The first wait; each further one is twice as long, up to [`WAIT_MILLIS_MAX`].
const WAIT_MILLIS_FIRST: u64 = 1_000;
const WAIT_MILLIS_MAX: u64 = 64_000;
/// A client that was not slowed down for this time after its wait starts with the first one again.
const FORGOTTEN_AFTER_MILLIS: u64 = 120_000;

impl Slowed {
    fn add(&mut self, client_id: Arc<str>, account: Arc<Account>, now: Timestamp) {
        let is_over = |wait: &Wait| now > wait.until.plus_millis(FORGOTTEN_AFTER_MILLIS);
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&client_id) {
            self.clients.retain(|_, wait| !is_over(wait));
            if self.clients.len() >= CLIENTS_MAX {
                let first = self.clients.iter().min_by_key(|(_, wait)| wait.until);
                let first = first.map(|(client_id, _)| client_id.clone());
                first.map(|client_id| self.clients.remove(&client_id));
            }
        }
        let former = self.clients.get(&client_id).filter(|wait| !is_over(wait));
        let times = former.map_or(1, |wait| wait.times.saturating_add(1));
        let millis = WAIT_MILLIS_FIRST << (times - 1).min(16);
        let until = now.plus_millis(millis.min(WAIT_MILLIS_MAX));
        self.clients.insert(client_id, Wait { account, times, until });
    }

    /// Returns whether a client of this name and owner connects too early.
    pub(crate) fn is_too_early(
        &self,
        client_id: &str,
        account: &Arc<Account>,
        now: Timestamp,
    ) -> bool {
        let wait = self.clients.get(client_id);
        wait.is_some_and(|wait| now < wait.until && Arc::ptr_eq(&wait.account, account))
    }
}

/// Returns the refusal of a message for which there is no room among the retained ones.
pub(crate) const fn refused_retained(full: RetainedFull) -> Departure {
    let why = match full {
        RetainedFull::All => "limit on retained messages is reached",
        RetainedFull::OwnerMessages | RetainedFull::OwnerBytes => {
            "limit on retained messages of one user is reached"
        }
    };
    Departure::by_server(DisconnectReason::QuotaExceeded, ReasonCode::QuotaExceeded).because(why)
}

/// Returns whether the publisher of a message gets an answer that it is refused.
pub(crate) const fn is_answered(publication: &Publication<'_>) -> bool {
    !matches!(publication.qos, QoS::AtMostOnce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::Limits,
        owners::{Owner, Owners},
    };

    #[test]
    fn waits_double_end_and_are_of_one_owner() {
        let owners = Owners::new(&Limits::default(), None);
        let account = |name: &str| owners.account(Owner::User(name.into()), None);
        let (one, other) = (account("one"), account("other"));
        let mut slowed = Slowed::default();
        let id: Arc<str> = "c".into();
        let mut now = Timestamp(0);
        for wait in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000] {
            slowed.add(id.clone(), one.clone(), now);
            assert!(slowed.is_too_early("c", &one, now.plus_millis(wait - 1)));
            assert!(!slowed.is_too_early("c", &other, now) && !slowed.is_too_early("d", &one, now));
            now = now.plus_millis(wait);
            assert!(!slowed.is_too_early("c", &one, now));
        }
        now = now.plus_millis(FORGOTTEN_AFTER_MILLIS + 1);
        slowed.add(id, one.clone(), now);
        assert!(!slowed.is_too_early("c", &one, now.plus_millis(1_000)), "it begins again");
    }

    #[test]
    fn few_clients_are_remembered() {
        let owners = Owners::new(&Limits::default(), None);
        let account = owners.account(Owner::User("one".into()), None);
        let mut slowed = Slowed::default();
        for number in 0..3 * CLIENTS_MAX as u64 {
            slowed.add(number.to_string().into(), account.clone(), Timestamp(number));
            assert!(slowed.clients.len() <= CLIENTS_MAX);
        }
        let last = (3 * CLIENTS_MAX - 1).to_string();
        assert!(slowed.is_too_early(&last, &account, Timestamp(3 * CLIENTS_MAX as u64)));
        assert!(!slowed.is_too_early("0", &account, Timestamp(0)));
    }
}
