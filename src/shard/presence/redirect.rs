//! The broker redirects clients to another server, section 4.11 of MQTT 5.0.

use std::sync::Arc;

use crate::{
    control::{Clients, Redirect},
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
            let slot = self.clients.get(&**wanted).copied();
            return (slot.and_then(client_id).into_iter().collect(), None);
        }
        let to = self.slots.capacity().min(from + SLOTS_AT_A_TIME);
        let (mut next, mut bytes, mut meant) = (from, 0, Vec::new());
        while next < to && bytes < CLIENT_ID_BYTES_AT_A_TIME {
            let slot = next as u32;
            bytes += self.slot(slot).map_or(0, |found| found.session.client_id().len());
            meant.extend(client_id(slot));
            next += 1;
        }
        (meant, (next < self.slots.capacity()).then_some(next))
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
