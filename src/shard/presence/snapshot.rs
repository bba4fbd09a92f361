//! The clients of one shard in a snapshot of all clients that are online.
//!
//! A snapshot is read in parts, between which clients come and go. A change during the snapshot
//! has an event behind the place of the snapshot, so that a follower learns of it in any case.

use crate::{
    auth::Authorizer,
    control::{Caller, FeedFilter, FeedKind},
    feed::OnlinePart,
    hooks::ClientConnected,
    shard::{Shard, Slot, presence::depart::username},
};

/// Slots that are examined in one turn.
const SLOTS_AT_A_TIME: usize = 64;
/// Bytes of identifiers and user names that are examined in one turn; the last ones may exceed it.
const TEXT_BYTES_AT_A_TIME: usize = 64 * 1024;

impl Shard {
    /// Returns at most `clients_max` of the clients that are online, from a slot on: those that the
    /// filter selects and the caller may observe. The events have this number.
    pub(crate) fn online_part(
        &self,
        (filter, caller): (&FeedFilter, Option<&Caller>),
        (from, clients_max): (u32, usize),
        number: u64,
    ) -> OnlinePart {
        // The bounds hold for slots, text and clients, because any of them can make a turn long.
        let end = self.slots.capacity();
        let mut at = from as usize;
        let to = end.min(at.saturating_add(SLOTS_AT_A_TIME));
        let (mut clients, mut bytes) = (Vec::new(), 0);
        let rules: &dyn Authorizer = &*self.core.authorizer;
        let wants_clients = filter.selects_kind(FeedKind::ClientConnected);
        while wants_clients
            && at < to
            && bytes < TEXT_BYTES_AT_A_TIME
            && clients.len() < clients_max
        {
            if let Some(found) = self.slot(at as u32).filter(|found| found.is_announced()) {
                let client_id = found.session.client_id();
                let user = found.presence.identity.username.as_deref();
                // Counted for clients that are not selected too: comparing their text is the work.
                bytes += client_id.len() + user.map_or(0, str::len);
                if filter.selects_client(client_id, user)
                    && caller.is_none_or(|caller| caller.may_observe(rules, client_id))
                {
                    clients.extend(self.as_connected(found, number));
                }
            }
            at += 1;
        }
        let next = (wants_clients && at < end).then_some(at as u32);
        OnlinePart { clients, next }
    }

    fn as_connected(&self, found: &Slot, number: u64) -> Option<ClientConnected> {
        let link = found.session.link()?;
        Some(ClientConnected {
            client_id: found.session.client_id().clone(),
            username: username(found),
            clean_start: found.connected.as_ref()?.clean_start,
            connected_at: found.presence.connected_at,
            keep_alive_secs: link.keep_alive().interval_secs(),
            node: self.core.node.clone(),
            protocol_version: link.version(),
            peer: found.presence.peer,
            at: found.presence.connected_at,
            version: found.presence.version,
            number,
        })
    }
}

impl Slot {
    /// Returns whether its connection was announced as online.
    fn is_announced(&self) -> bool {
        self.connected.as_ref().is_some_and(|connected| connected.unannounced.is_none())
    }
}
