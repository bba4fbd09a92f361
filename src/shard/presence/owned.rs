//! The right to serve a client, where a shard asks for it: before CONNACK, and when this node has lost its leases.
//!
//! Knows no cluster: `ownership.rs` has the interface. Called by the arrival of a client, by connections before they
//! write, and by the registry.

use std::sync::Arc;

use crate::shard::{
    Core, Shard, connect::AcceptedConnect, ownership::Ownership, refusal::NoSession,
};
#[cfg(feature = "cluster")]
use crate::{mqtt::Timestamp, shard::Departure};

/// Slots that are examined before other tasks of the thread get their turn.
#[cfg(feature = "cluster")]
const SLOTS_AT_A_TIME: usize = 256;

impl Core {
    /// Makes the broker a node, which owns client identifiers.
    #[cfg(feature = "cluster")]
    pub(crate) fn set_ownership(&self, ownership: Arc<dyn Ownership>) {
        let was_set = self.ownership.0.set(ownership).is_err();
        debug_assert!(!was_set, "ownership is set once");
    }

    /// Returns the ownership; `None` for a broker alone.
    pub(crate) fn ownership(&self) -> Option<&Arc<dyn Ownership>> {
        self.ownership.0.get()
    }

    /// Returns whether something may leave for a client now: always, unless this node has lost its leases.
    pub(crate) fn may_act(&self) -> bool {
        self.ownership().is_none_or(|ownership| ownership.may_act())
    }
}

impl Shard {
    /// Checks that the client of a CONNECT is still owned by this node, which may act.
    pub(in crate::shard) fn check_owner(&self, connect: &AcceptedConnect) -> Result<(), NoSession> {
        let holds = match &connect.owned {
            Some(owned) => owned.0.holds(),
            None => self.core.may_act(), // The session of a bridge is not claimed.
        };
        if holds { Ok(()) } else { Err(NoSession::NotOwned) }
    }

    /// Returns the presence version of a new connection. In a cluster, it goes on from the term of the owner.
    pub(in crate::shard) fn next_version(
        &self,
        connect: &AcceptedConnect,
        existing: Option<u32>,
    ) -> Result<u64, NoSession> {
        let presence = existing.and_then(|slot| self.slot(slot)).map(|slot| &slot.presence);
        let former = presence.map(|presence| presence.version);
        match &connect.owned {
            Some(owned) => {
                // A session of the store has a version that is an upper bound.
                let given = former.filter(|_| presence.is_some_and(|it| !it.is_restored));
                owned.0.next_version(given).ok_or(NoSession::NotOwned)
            }
            None => Ok(former.unwrap_or_else(|| self.numbers.version_floor()) + 1),
        }
    }

    /// Keeps the right to serve the client of a CONNECT, as long as its session lasts.
    pub(in crate::shard) fn keep_right(&mut self, connect: &mut AcceptedConnect) {
        if let Some(owned) = connect.owned.take() {
            self.owned.keep(connect.client_id.clone(), owned);
        }
    }

    /// Ends the connections of some slots, from `from` on, because this node has lost its leases. Returns the slot at
    /// which to continue.
    #[cfg(feature = "cluster")]
    pub(crate) fn fence_some(&mut self, from: usize, now: Timestamp) -> Option<usize> {
        let end = self.slots.capacity();
        let to = end.min(from.saturating_add(SLOTS_AT_A_TIME));
        for slot in from..to {
            if self.slot(slot as u32).is_some_and(|found| found.connected.is_some()) {
                self.charge_leaving(slot as u32);
                self.end_connection(slot as u32, Departure::FENCED, now);
            }
            if self.slot(slot as u32).is_some_and(|found| found.moving.is_some()) {
                self.end_arriving(slot as u32, now);
            }
        }
        self.flush();
        (to < end).then_some(to)
    }

    /// Returns the clients of some slots whose sessions outlive their connections, from `from` on, and the slot at
    /// which to continue.
    #[cfg(feature = "cluster")]
    pub(crate) fn lasting_clients(&self, from: usize) -> (Vec<Arc<str>>, Option<usize>) {
        let end = self.slots.capacity();
        let to = end.min(from.saturating_add(SLOTS_AT_A_TIME));
        let lasts = |slot: usize| {
            let found = self.slot(slot as u32)?;
            let is_lasting = !found.is_ending() && found.session.expiry_interval_secs() > 0;
            is_lasting.then(|| found.session.client_id().clone())
        };
        ((from..to).filter_map(lasts).collect(), (to < end).then_some(to))
    }
}
