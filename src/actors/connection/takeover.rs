//! A connection gives way to another with its client identifier: first it is read once more, and its
//! client has heard its CONNACK.
//!
//! What a client sent before it connected again may have reached this machine and not been read
//! yet: its last messages, or the DISCONNECT that drops its Will. So the new connection waits for
//! the old one to read what is there, which takes one turn, and for its CONNACK, which may wait for
//! the store; only then it takes its session. Does not know sessions, nor what waits.

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tokio::{sync::oneshot, task::yield_now};

use super::{Connection, Phase};
use crate::shard::doors::Baton;

/// Others wait for a connection to be read.
pub(super) struct Successors {
    /// Told by being dropped.
    _baton: oneshot::Sender<Baton>,
    /// What had come before them can be read now.
    are_due: bool,
}

impl Connection {
    /// Lets its successors go on if they have waited enough, or need not wait.
    pub(super) fn give_way_if_due(&mut self) {
        let Some(successors) = &self.successors else { return };
        let may_go_on =
            successors.are_due && !self.shard.borrow().awaits_conn_ack(self.slot, self.link);
        if may_go_on || !matches!(self.phase, Phase::Open) {
            self.give_way();
        }
    }

    /// Lets its successors go on.
    pub(super) fn give_way(&mut self) {
        self.successors = None;
    }

    /// Begins to give way. Dropped, wherever that happens, the baton lets the successors go on, so that
    /// none waits for a connection that is no more.
    pub(super) fn begin_to_give_way(
        &mut self,
        baton: oneshot::Sender<Baton>,
        ctx: &mut Context<Self>,
    ) {
        self.successors = Some(Box::new(Successors { _baton: baton, are_due: false }));
        // A stream has what its reactor has been told of, and that is told when nobody else runs.
        let turn = yield_now().into_actor(self).map(|(), connection, _| {
            if let Some(successors) = &mut connection.successors {
                successors.are_due = true;
            }
            let mut shard = connection.shard.borrow_mut();
            if let Some(slot) = shard.linked(connection.slot, connection.link) {
                slot.wake();
            }
        });
        ctx.spawn(turn);
    }
}
