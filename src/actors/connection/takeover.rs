//! A connection gives way to another with its client identifier: first it is read once more, and its
//! client has heard its CONNACK.
//!
//! What a client sent before it connected anew may have reached this machine and not been read
//! yet: its last messages, or the DISCONNECT that drops its Will. So the new connection waits for
//! the old one to read what is there, which takes one turn, and for its CONNACK, which may wait for
//! the store; only then it takes its session. Those that wait stand in a queue of their client at the
//! registry, and go on in the order in which they came. Does not know sessions.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use actix::{ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use foldhash::fast::RandomState;
use tokio::task::yield_now;

use super::{Connection, Phase};
use crate::{
    actors::{messages::Attach, registry::Registry},
    mqtt::Timestamp,
};

/// So many connections of one client wait; of more, the oldest is refused.
const WAITING_MAX: usize = 64;
/// A connection that has waited so long is refused when a later one comes: where the store is slow,
/// clients that try again and again leave no heap of connections.
const PATIENCE_SECS: u64 = 2;

/// The connections that wait for an older one of their client, the oldest first; no queue is empty.
pub(in crate::actors) type Queues = HashMap<Arc<str>, VecDeque<Waiting>, RandomState>;

/// A connection that waits.
pub(in crate::actors) struct Waiting {
    attach: Attach,
    since: Timestamp,
}

/// To a connection: give way to those that wait for you. Dropped, wherever that happens, it tells the
/// registry that they may go on, so that none waits for a connection that is no more.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct GiveWay {
    client_id: Arc<str>,
    registry: Addr<Registry>,
}

/// To a registry: the connection that those of this client have waited for gives way.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct GivesWay {
    client_id: Arc<str>,
}

impl Drop for GiveWay {
    fn drop(&mut self) {
        self.registry.do_send(GivesWay { client_id: self.client_id.clone() });
    }
}

/// Others wait for a connection to be read.
pub(super) struct Successors {
    _waiting: GiveWay,
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
}

impl Handler<GiveWay> for Connection {
    type Result = ();

    fn handle(&mut self, message: GiveWay, ctx: &mut Context<Self>) {
        self.successors = Some(Box::new(Successors { _waiting: message, are_due: false }));
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
        let client_id = &attach.connect.client_id;
        let since = self.core.clock.now();
        if let Some(queue) = self.queues.get_mut(client_id) {
            let has_waited = |older: &&Waiting| since.since(older.since).as_secs() >= PATIENCE_SECS;
            let excess = (queue.len() + 1).saturating_sub(WAITING_MAX);
            let overtaken = queue.iter().take_while(has_waited).count().max(excess);
            let overtaken: Vec<_> = queue.drain(..overtaken).collect();
            queue.push_back(Waiting { attach, since });
            overtaken.into_iter().for_each(|older| self.refuse_overtaken(older.attach));
            return;
        }
        let holder = self.shard.borrow().holder(client_id);
        if let Some(holder) = holder {
            let client_id = client_id.clone();
            holder.do_send(GiveWay { client_id: client_id.clone(), registry: ctx.address() });
            self.queues.insert(client_id, VecDeque::from([Waiting { attach, since }]));
        } else {
            self.attach(attach);
        }
    }
}

impl Handler<GivesWay> for Registry {
    type Result = ();

    /// Gives the session to the first that waits, and has the next wait for that.
    fn handle(&mut self, GivesWay { client_id }: GivesWay, ctx: &mut Context<Self>) {
        while let Some(queue) = self.queues.get_mut(&client_id)
            && let Some(first) = queue.pop_front()
        {
            self.attach(first.attach);
            let are_more = self.queues.get(&client_id).is_some_and(|queue| !queue.is_empty());
            let holder = self.shard.borrow().holder(&client_id);
            if let Some(holder) = holder.filter(|_| are_more) {
                return holder.do_send(GiveWay { client_id, registry: ctx.address() });
            }
        }
        self.queues.remove(&client_id);
    }
}
