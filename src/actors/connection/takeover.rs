//! A connection gives way to a newer one with its client identifier. Before that, it reads once
//! more, and its client has received its CONNACK.
//!
//! Bytes that a client sent before it connected again may have arrived and not been read yet: its
//! last messages, or the DISCONNECT that drops its Will. So the new connection waits for two
//! things: the old one reads what is there, which takes one turn, and sends its CONNACK, which may
//! wait for the store. Only then the new connection takes the session. Does not know sessions, nor
//! what waits.

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tokio::{sync::oneshot, task::yield_now};

use super::{Connection, Phase};
use crate::shard::doors::Baton;

/// The newer connections that wait until this connection has been read.
pub(super) struct Successors {
    /// Dropping it tells the successors to continue.
    _baton: oneshot::Sender<Baton>,
    /// Whether the bytes that arrived before the successors can be read now.
    are_due: bool,
}

impl Connection {
    /// Lets its successors continue if they have waited long enough, or need not wait.
    pub(super) fn give_way_if_due(&mut self) {
        let Some(successors) = &self.successors else { return };
        let may_go_on =
            successors.are_due && !self.shard.borrow().awaits_conn_ack(self.slot, self.link);
        if may_go_on || !matches!(self.phase, Phase::Open) {
            self.give_way();
        }
    }

    /// Lets its successors continue.
    pub(super) fn give_way(&mut self) {
        self.successors = None;
    }

    /// Begins to give way. Wherever the baton is dropped, the successors continue, so that none
    /// waits for a connection that has ended.
    pub(super) fn begin_to_give_way(
        &mut self,
        baton: oneshot::Sender<Baton>,
        ctx: &mut Context<Self>,
    ) {
        self.successors = Some(Box::new(Successors { _baton: baton, are_due: false }));
        // A stream knows the bytes that its reactor has reported, and the reactor reports when no
        // other task runs.
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
