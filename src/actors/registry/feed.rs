//! The part of a shard in a snapshot of the clients that are online.

use std::sync::Arc;

use actix::{Handler, Message, MessageResult};

use super::Registry;
use crate::{
    control::{Caller, FeedFilter},
    feed::OnlinePart,
};

/// Asks for some of the clients of this registry's shard that are online.
#[derive(Clone, Debug, Message)]
#[rtype(result = "OnlinePart")]
pub(crate) struct QueryOnlinePart {
    /// Which clients.
    pub(crate) filter: Arc<FeedFilter>,
    /// Restricts them to those that this caller may observe.
    pub(crate) caller: Option<Arc<Caller>>,
    /// The slot at which to begin.
    pub(crate) from: u32,
    /// How many clients at most.
    pub(crate) clients_max: usize,
    /// The number of the place of the snapshot.
    pub(crate) number: u64,
}

impl Handler<QueryOnlinePart> for Registry {
    type Result = MessageResult<QueryOnlinePart>;

    fn handle(&mut self, message: QueryOnlinePart, _: &mut Self::Context) -> Self::Result {
        let QueryOnlinePart { filter, caller, from, clients_max, number } = message;
        let chosen = (&*filter, caller.as_deref());
        MessageResult(self.shard.borrow().online_part(chosen, (from, clients_max), number))
    }
}
