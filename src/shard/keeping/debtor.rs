//! Charges the changes that a shard hands over to the store to the owner whose packets caused them. An owner with more
//! than its share on the way waits: its packets that need the store are not handled.
//!
//! All changes of a turn count for one owner: the owner of the connection that was read, or of the messages that
//! another shard has sent. A Will counts for its own owner. Changes that no packet has caused count for no owner.

use std::sync::Arc;

use crate::{
    flow::StoreLoad,
    journal::Journal,
    mqtt::{Packet, Publish, QoS, Timestamp},
    owners::Account,
    shard::{Shard, Slot, routing::plans::RecentTopic},
};

/// The amounts that count for other owners than the debtor of a turn.
#[derive(Default)]
pub(in crate::shard) struct OtherLoads {
    all: Vec<StoreLoad>,
    bytes: usize,
}

/// The owner that is charged with the changes of a turn.
#[derive(Default)]
pub(in crate::shard) enum Debtor {
    #[default]
    Nobody,
    /// The owner of this slot's session. Looked up if there are changes.
    Slot(u32),
    Account(Arc<Account>),
}

impl Shard {
    /// Lets the changes until the next flush count for the owner of this slot.
    pub(crate) fn charge(&mut self, slot: u32) {
        self.tickets.debtor = Debtor::Slot(slot);
    }

    /// Lets the changes until the next flush count for this owner.
    pub(in crate::shard) fn charge_account(&mut self, account: Option<Arc<Account>>) {
        self.tickets.debtor = account.map_or(Debtor::Nobody, Debtor::Account);
    }

    /// Does the same for the owner of a session that may end meanwhile.
    pub(crate) fn charge_leaving(&mut self, slot: u32) {
        self.charge_account(self.slot(slot).map(|found| found.account.clone()));
    }

    /// Returns the account for which the changes of this turn count.
    pub(in crate::shard) fn debtor(&self) -> Option<Arc<Account>> {
        match &self.tickets.debtor {
            Debtor::Nobody => None,
            Debtor::Slot(slot) => self.slot(*slot).map(|found| found.account.clone()),
            Debtor::Account(account) => Some(account.clone()),
        }
    }

    /// Takes the amounts that other owners than the debtor have caused in this turn.
    pub(in crate::shard) fn take_loads(&mut self) -> Vec<StoreLoad> {
        std::mem::take(&mut self.tickets.loads).all
    }

    /// Lets the changes that `work` makes count for the owner of a slot, apart from the other changes of the
    /// turn.
    pub(in crate::shard) fn charged_to<R>(
        &mut self,
        slot: u32,
        work: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let before = self.noted_bytes();
        let result = work(self);
        let bytes = self.noted_bytes().saturating_sub(before);
        if bytes > 0
            && let Some(keeper) = &self.core.keeper
        {
            let account = self.slot(slot).map(|found| found.account.clone());
            let now = self.core.clock.now();
            self.tickets.loads.all.extend(keeper.announce(bytes, || account, now));
            self.tickets.loads.bytes += bytes;
        }
        result
    }

    /// Returns the bytes of this turn's changes that do not count in an account yet.
    fn noted_bytes(&self) -> usize {
        let noted = self.journal.as_ref().map_or(0, Journal::bytes);
        noted.saturating_sub(self.tickets.loads.bytes)
    }

    /// Returns whether packets of a client that need the store must wait, because its owner has more than its share
    /// on the way.
    pub(crate) fn waits_for_store(&self, slot: u32, now: Timestamp) -> bool {
        self.slot(slot).is_some_and(|found| self.owner_waits_for_store(&found.account, now))
    }

    /// Returns whether work of this owner that needs the store has to wait.
    pub(in crate::shard) fn owner_waits_for_store(
        &self,
        account: &Account,
        now: Timestamp,
    ) -> bool {
        let Some(keeper) = &self.core.keeper else { return false };
        let more = self.noted_bytes() + self.batches.announced();
        keeper.holds(account, more, now)
    }

    /// Returns whether a packet of a durable session, or a part of one, must wait.
    pub(crate) fn session_waits_for_store(&self, slot: u32, now: Timestamp) -> bool {
        self.slot(slot).is_some_and(has_durable_session) && self.waits_for_store(slot, now)
    }

    /// Returns whether a packet other than PUBLISH must wait.
    pub(in crate::shard) fn must_wait_for_store(
        &self,
        slot: u32,
        packet: &Packet<'_>,
        now: Timestamp,
    ) -> bool {
        let changes_session = matches!(
            packet,
            Packet::PubAck(_)
                | Packet::PubRec(_)
                | Packet::PubRel(_)
                | Packet::PubComp(_)
                | Packet::Subscribe(_)
                | Packet::Unsubscribe(_)
        );
        changes_session && self.session_waits_for_store(slot, now)
    }

    /// Returns whether a PUBLISH must wait. While the store is in trouble, a message that must be stored
    /// before its acknowledgement is refused instead.
    pub(in crate::shard) fn publish_waits_for_store(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
        recent: &mut RecentTopic,
        now: Timestamp,
    ) -> bool {
        let qos = publish.flags.qos;
        (qos != QoS::AtMostOnce || publish.flags.retain)
            && self.waits_for_store(slot, now)
            && (qos == QoS::AtMostOnce || self.trouble().is_none())
            && self.needs_store(slot, publish, topic, recent)
    }

    /// Returns whether a message must be stored, or its Packet Identifier.
    pub(in crate::shard) fn needs_store(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
        recent: &mut RecentTopic,
    ) -> bool {
        let qos = publish.flags.qos;
        publish.flags.retain
            || (qos == QoS::ExactlyOnce && self.slot(slot).is_some_and(has_durable_session))
            || (qos != QoS::AtMostOnce && self.current_plan(recent, topic).durable_len() > 0)
    }
}

fn has_durable_session(slot: &Slot) -> bool {
    slot.session.number().is_some()
}
