//! A trace begins to observe a connection that is there already.
//!
//! Bytes that were read and not handled, or encoded and not written, belong to the time before the
//! trace.

use std::sync::Arc;

use super::ClientStream;
use crate::{
    shard::{Shard, traced_client},
    traces::{StreamPlace, Trace, TracedEvent},
};

impl ClientStream {
    /// Has a trace observe the connection from now on, if the trace records its client.
    pub(super) fn begin_trace(&mut self, shard: &mut Shard, trace: &Arc<Trace>) {
        let core = Arc::clone(&shard.core);
        let Some(slot) = shard.linked(self.slot, self.link) else { return };
        let Some(link) = slot.session.link().filter(|_| self.is_open()) else { return };
        let (peer, client) = traced_client(slot);
        let keep_alive_secs = link.keep_alive().interval_secs();
        let version = link.version();
        let place = StreamPlace { read: &self.tail.bytes, unwritten: link.unwritten_bytes() };
        if core.traces.tap(&mut self.transport, trace, (peer, client), (version, place)) {
            let event = TracedEvent::Followed { version, keep_alive_secs };
            event.record(trace, (peer, client.client_id), core.clock.now());
        }
    }
}
