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

impl Shard {
    /// Sends away those among some of the slots, from `from` on, that are meant; how many, and
    /// where to go on.
    pub(in crate::actors) fn redirect(
        &mut self,
        request: &Redirect,
        from: usize,
        now: Timestamp,
    ) -> (usize, Option<usize>) {
        let (slots, next) = match &request.clients {
            Clients::One(client_id) => {
                (self.clients.get(&**client_id).copied().into_iter().collect(), None)
            }
            Clients::Matching(_) => {
                let to = from + SLOTS_AT_A_TIME;
                let slots = (from..to).map(|slot| slot as u32).collect::<Vec<_>>();
                (slots, (to < self.slots.capacity()).then_some(to))
            }
        };
        let redirected = slots.into_iter().filter(|slot| {
            self.is_meant(*slot, request) && self.redirect_slot(*slot, &request.to, now)
        });
        (redirected.count(), next)
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

    /// Whether there was a connection.
    fn redirect_slot(&mut self, slot: u32, to: &Redirection, now: Timestamp) -> bool {
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
