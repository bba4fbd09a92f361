//! Traces: a new one observes the connections of its clients, and a new connection is observed by those
//! that run.

use std::sync::Arc;

use actix::{Handler, Message, ResponseFuture};

use super::Registry;
use crate::{
    control::TraceTarget,
    shard::{connect::AcceptedConnect, doors::ToConnection},
    traces::{Trace, TracedClient},
    transport::Transport,
};

/// Has a trace observe the connections of its clients on this registry's shard. The reply comes after
/// all of them were told.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct FollowTrace(pub(crate) Arc<Trace>);

impl Handler<FollowTrace> for Registry {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, FollowTrace(trace): FollowTrace, _: &mut Self::Context) -> Self::Result {
        if let TraceTarget::Client(client_id) = trace.target() {
            // A connection that waits for its turn is observed when it arrives.
            let _ = self.clients.send(client_id, ToConnection::Trace(Arc::clone(&trace)));
            return Box::pin(async {});
        }
        let shard = self.shard.clone();
        Box::pin(async move {
            let mut next = Some(0);
            while let Some(from) = next {
                next = shard.borrow().begin_trace(&trace, from);
                tokio::task::yield_now().await;
            }
        })
    }
}

impl Registry {
    /// Has the traces that run observe a connection that has arrived, if they record its client.
    pub(super) fn trace_arrival(
        &self,
        transport: &mut Box<dyn Transport>,
        connect: &AcceptedConnect,
        read_ahead: &[u8],
    ) {
        let client = TracedClient {
            client_id: Some(&connect.client_id),
            username: connect.identity.username.as_deref(),
            address: connect.peer.ip(),
        };
        let (peer, version) = (connect.peer, connect.version);
        self.core.traces.tap_arrived(transport, (peer, client), version, read_ahead);
    }
}
