//! Finds the clients that a request selects: to redirect them to another server (section 4.11 of MQTT 5.0), or to list
//! them.

use std::sync::Arc;

use crate::{
    control::{Clients, Redirect, SelectClients},
    shard::Shard,
};

/// Slots that are examined before other tasks of the thread get their turn.
const SLOTS_AT_A_TIME: usize = 256;
/// Bytes of client identifiers that are examined before that; the last identifier may exceed it.
const CLIENT_ID_BYTES_AT_A_TIME: usize = 64 * 1024;

impl Shard {
    /// Returns the clients that a request selects among some of the slots, from `from` on, and the
    /// slot at which to continue.
    pub(crate) fn meant_by(
        &self,
        request: &Redirect,
        from: usize,
    ) -> (Vec<Arc<str>>, Option<usize>) {
        let client_id = |slot: u32| {
            let found = self.slot(slot).filter(|_| self.is_meant(slot, request))?;
            Some(found.session.client_id().clone())
        };
        if let Clients::One(wanted) = &request.clients {
            let slot = self.clients.get(wanted).copied();
            return (slot.and_then(client_id).into_iter().collect(), None);
        }
        self.walk_some(from, client_id)
    }

    /// Returns the clients that a request selects among some of the slots, from `from` on, and the
    /// slot at which to continue.
    pub(crate) fn selected_by(
        &self,
        request: &SelectClients,
        from: usize,
    ) -> (Vec<Arc<str>>, Option<usize>) {
        let SelectClients { selector, caller, .. } = request;
        let rules = &*self.core.authorizer;
        self.walk_some(from, |slot| {
            let found = self.slot(slot)?;
            let is_there = found.is_online() || (selector.with_absent && !self.is_last_will(slot));
            let client_id = found.session.client_id();
            let is_selected = is_there
                && selector.matches(client_id, found.presence.identity.username.as_deref())
                && caller.as_ref().is_none_or(|caller| caller.may_control(rules, client_id));
            is_selected.then(|| client_id.clone())
        })
    }

    /// Returns the clients that are chosen among some of the slots, from `from` on, and the slot at
    /// which to continue.
    fn walk_some(
        &self,
        from: usize,
        chosen: impl Fn(u32) -> Option<Arc<str>>,
    ) -> (Vec<Arc<str>>, Option<usize>) {
        let to = self.slots.capacity().min(from.saturating_add(SLOTS_AT_A_TIME));
        let (mut next, mut bytes, mut found) = (from, 0, Vec::new());
        while next < to && bytes < CLIENT_ID_BYTES_AT_A_TIME {
            let slot = next as u32;
            bytes += self.slot(slot).map_or(0, |found| found.session.client_id().len());
            found.extend(chosen(slot));
            next += 1;
        }
        (found, (next < self.slots.capacity()).then_some(next))
    }

    fn is_meant(&self, slot: u32, request: &Redirect) -> bool {
        let Some(found) = self.slot(slot).filter(|found| found.connected.is_some()) else {
            return false;
        };
        let client_id = found.session.client_id();
        let is_meant = match &request.clients {
            Clients::One(wanted) => **client_id == **wanted,
            Clients::Matching(pattern) => pattern.matches(client_id),
        };
        let rules = &*self.core.authorizer;
        let caller = request.caller.as_ref();
        is_meant && caller.is_none_or(|caller| caller.may_control(rules, client_id))
    }
}
