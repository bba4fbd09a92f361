//! Traces of clients of this shard: which connections a new trace observes, and the end of a connection.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    shard::{Departure, Shard, Slot, common::Core, connect::AcceptedConnect, doors::ToConnection},
    told::Subject,
    traces::{Trace, TracedClient, TracedEvent},
    transport::Transport,
};

/// Slots that are examined before other tasks of the thread get their turn.
const SLOTS_AT_A_TIME: usize = 256;

/// Returns the client of a slot's connection, as traces see it.
pub(crate) fn traced_client(slot: &Slot) -> (SocketAddr, TracedClient<'_>) {
    let peer = slot.presence.peer;
    let client = TracedClient {
        client_id: Some(slot.session.client_id()),
        username: slot.presence.identity.username.as_deref(),
        address: peer.ip(),
    };
    (peer, client)
}

impl Shard {
    /// Has a trace observe connections of this shard: those of some slots, from `from` on. Returns the
    /// slot at which to continue.
    pub(crate) fn begin_trace(&self, trace: &Arc<Trace>, from: usize) -> Option<usize> {
        let to = self.slots.capacity().min(from.saturating_add(SLOTS_AT_A_TIME));
        for slot in from..to {
            if let Some(found) = self.slots.get(slot)
                && let Some(connected) = &found.connected
                && trace.follows(traced_client(found).1, &*self.core.authorizer)
            {
                connected.door.send(ToConnection::Trace(Arc::clone(trace)));
            }
        }
        (to < self.slots.capacity()).then_some(to)
    }

    /// Records the end of a connection, if a trace runs.
    pub(in crate::shard) fn trace_end(&self, slot: u32, departure: &Departure) {
        if !self.core.traces.is_any() {
            return;
        }
        let Some(found) = self.slot(slot) else { return };
        let (peer, client) = traced_client(found);
        let event =
            TracedEvent::Ended { reason: departure.reason.name(), by: departure.by.as_deref() };
        self.core.traces.record(peer, (client.client_id, client.username), &event);
    }
}

impl Core {
    /// Has the traces that run observe a connection that has arrived, if they record its client.
    pub(crate) fn trace_arrival(
        &self,
        transport: &mut Box<dyn Transport>,
        connect: &AcceptedConnect,
        read_ahead: &[u8],
    ) {
        if !self.traces.is_any() {
            return;
        }
        let client = TracedClient {
            client_id: Some(&connect.client_id),
            username: connect.identity.username.as_deref(),
            address: connect.peer.ip(),
        };
        let (peer, version) = (connect.peer, connect.version);
        self.traces.tap_arrived(transport, (peer, client), version, read_ahead);
    }

    /// Records that a connection was refused, if a trace runs.
    pub(crate) fn trace_refused(&self, subject: &Subject<'_>, reason: &str) {
        if self.traces.is_any() {
            let client = (subject.client_id, subject.user);
            self.traces.record(subject.peer, client, &TracedEvent::Refused { reason });
        }
    }
}
