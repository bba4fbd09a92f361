//! Traces: a new one observes the connections of its clients.

use std::sync::Arc;

use actix::{Handler, Message, ResponseFuture};

use super::Registry;
use crate::{shard::calls::clients, traces::Trace};

/// Has a trace observe the connections of its clients on this registry's shard. The reply comes after
/// all of them were told.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct FollowTrace(pub(crate) Arc<Trace>);

impl Handler<FollowTrace> for Registry {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, FollowTrace(trace): FollowTrace, _: &mut Self::Context) -> Self::Result {
        Box::pin(clients::follow_trace(&self.clients, trace))
    }
}
