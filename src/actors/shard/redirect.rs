//! Clients are sent to another server, section 4.11 of MQTT 5.0.

use super::{Departure, Shard};
use crate::{
    actors::messages::Finish,
    control::{Clients, Redirect, Redirection},
    hooks::DisconnectReason,
    mqtt::{ReasonCode, Timestamp},
};

/// Slots that are looked at before others on the thread have their turn.
const SLOTS_AT_A_TIME: usize = 256;
/// Bytes of client identifiers that are looked at before that; the last may pass it.
const CLIENT_ID_BYTES_AT_A_TIME: usize = 64 * 1024;

impl Shard {
    /// Sends away those among some of the slots, from `from` on, that are meant; how many, and
    /// where to go on.
    pub(in crate::actors) fn redirect(
        &mut self,
        request: &Redirect,
        from: usize,
        now: Timestamp,
    ) -> (usize, Option<usize>) {
        if let Clients::One(client_id) = &request.clients {
            let slot = self.clients.get(&**client_id).copied();
            let is_redirected = slot.is_some_and(|slot| self.redirect_slot(slot, request, now));
            return (is_redirected.into(), None);
        }
        let to = self.slots.capacity().min(from + SLOTS_AT_A_TIME);
        let (mut next, mut bytes, mut redirected) = (from, 0, 0);
        while next < to && bytes < CLIENT_ID_BYTES_AT_A_TIME {
            let slot = next as u32;
            bytes += self.slot(slot).map_or(0, |found| found.session.client_id().len());
            redirected += usize::from(self.redirect_slot(slot, request, now));
            next += 1;
        }
        (redirected, (next < self.slots.capacity()).then_some(next))
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
        is_meant && request.only.as_ref().is_none_or(|only| (only.0)(client_id))
    }

    /// Whether there was a connection, and it was meant.
    fn redirect_slot(&mut self, slot: u32, request: &Redirect, now: Timestamp) -> bool {
        if !self.is_meant(slot, request) {
            return false;
        }
        let to = &request.to;
        let Some(found) = self.slot_mut(slot) else {
            return false;
        };
        let Some(address) = found.connected.as_ref().map(|c| c.address.clone()) else {
            return false;
        };
        found.session.redirect(reason_of(to), to.server_reference());
        let departure = Departure::unannounced(DisconnectReason::Redirected);
        let bytes = self.depart(slot, departure, now);
        address.do_send(Finish { bytes });
        true
    }
}

/// How a redirection is said to MQTT 5.0; before, a CONNECT is refused as Server unavailable.
pub(crate) const fn reason_of(to: &Redirection) -> ReasonCode {
    if to.is_permanent() { ReasonCode::ServerMoved } else { ReasonCode::UseAnotherServer }
}
