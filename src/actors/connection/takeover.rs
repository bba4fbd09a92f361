//! A connection gives way to another with its client identifier: first it is read once more.
//!
//! What a client sent before it connected anew may have reached this machine and not been read
//! yet: its last messages, or the DISCONNECT that drops its Will. So the new connection waits for
//! the old one to read what is there, which takes one turn, and only then takes its session. Two
//! that wait keep the order in which they came. Called by the registry; does not know sessions.

use actix::{ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use tokio::task::yield_now;

use super::{Connection, Phase};
use crate::actors::{messages::Attach, registry::Registry};

/// To a connection, and back to the registry that it came from.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Successor {
    attach: Attach,
    /// Of its link to the session. Later connections have larger numbers.
    link: u64,
    registry: Addr<Registry>,
}

/// Those that wait for a connection to be read, in the order in which they came.
pub(super) struct Successors {
    waiting: Vec<Successor>,
    /// What had come before them can be read now.
    are_due: bool,
}

impl Connection {
    /// Lets its successors go on if they have waited enough, or need not wait.
    pub(super) fn give_way_if_due(&mut self) {
        let are_due = self.successors.as_ref().is_some_and(|them| them.are_due);
        if are_due || !matches!(self.phase, Phase::Open) {
            self.give_way();
        }
    }

    /// Lets its successors go on.
    pub(super) fn give_way(&mut self) {
        for successor in self.successors.take().into_iter().flat_map(|them| them.waiting) {
            successor.registry.clone().do_send(successor);
        }
    }
}

impl Handler<Successor> for Connection {
    type Result = ();

    fn handle(&mut self, message: Successor, ctx: &mut Context<Self>) {
        if let Some(successors) = &mut self.successors {
            successors.waiting.push(message);
            return;
        }
        self.successors = Some(Box::new(Successors { waiting: vec![message], are_due: false }));
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

impl Handler<Attach> for Registry {
    type Result = ();

    fn handle(&mut self, attach: Attach, ctx: &mut Context<Self>) {
        let (link, older) = self.shard.borrow_mut().await_turn(&attach.connect.client_id);
        if let Some(older) = older {
            older.do_send(Successor { attach, link, registry: ctx.address() });
        } else {
            self.attach(attach, link);
        }
    }
}

impl Handler<Successor> for Registry {
    type Result = ();

    fn handle(&mut self, message: Successor, _: &mut Context<Self>) {
        let Successor { attach, link, .. } = message;
        // Whoever came later may have been faster, if the old connection ended by itself.
        if !self.shard.borrow().is_overtaken(&attach.connect.client_id, link) {
            self.attach(attach, link);
        }
    }
}
