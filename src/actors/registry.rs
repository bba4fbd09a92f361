//! The registry of one shard: from client identifier to session and connection.
//!
//! Every request that names a client identifier goes to the registry of its home shard. The
//! registry answers at once what it knows itself, and forwards to the Connection actor what the
//! connection must do. It starts a Connection actor for each socket that arrives at its home.

mod control;
mod feed;
mod keep_alive;
#[cfg(feature = "cluster")]
mod owning;
mod publishing;
mod settings;
mod traces;
mod views;

use std::{
    fmt,
    rc::Rc,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message,
    ResponseFuture, WrapFuture,
};
use futures_util::FutureExt as _;

#[cfg(feature = "cluster")]
pub(crate) use self::owning::{
    AdoptSession, AppendRest, DropSession, FenceShard, GiveUpOrder, ListLasting, OfferClient,
    ReadRest,
};
pub(crate) use self::{feed::QueryOnlinePart, settings::OfUser, traces::FollowTrace};
use super::{
    connection::Connection,
    messages::{Begin, Quiesce, Recheck, Restore, Restored, Retire, Shutdown},
};
use crate::{
    between::door::{Sender, ShardDoor, ToShard},
    control::Rechecked,
    metrics::ShardMetrics,
    router::ShardNumber,
    shard::{
        ClientTurns, Handover, PreparedSessions, Rechecks, Restoring, Shard, SharedShard,
        common::Core,
        connect::{AcceptedConnect, Permit, TakeClient},
        do_chores,
        doors::ArrivalDoor,
        refusal::NoSession,
        stream::ClientStream,
        subject_of, weed_queues,
    },
    told::connection_span,
    transport::Transport,
};

/// The interval between two checks of the deadlines. Together with the time of a sweep, this
/// detects a Keep Alive timeout well within the promised 250 ms.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// Maximum number of messages in the mailbox of a registry; further senders must wait.
const MAILBOX_CAPACITY: usize = 4096;

/// The registry actor of one shard.
pub struct Registry {
    shard: SharedShard,
    core: Arc<Core>,
    clients: Rc<ClientTurns>,
    rechecks: Rc<Rechecks>,
    restoring: Restoring,
    /// Whether this is the first shard of the broker. It does the work that one shard does for all.
    is_first: bool,
}

impl Registry {
    pub(crate) fn new(
        number: ShardNumber,
        core: Arc<Core>,
        metrics: Arc<ShardMetrics>,
        bytes_waiting: Arc<AtomicUsize>,
    ) -> Self {
        let shard = Shard::new(number, core.clone(), metrics, bytes_waiting).shared();
        let clients = Rc::new(ClientTurns::new(shard.clone(), core.clone()));
        let rechecks = Rc::new(Rechecks::new(shard.clone(), core.clone()));
        let (restoring, is_first) = (Restoring::default(), number == ShardNumber(0));
        Self { shard, core, clients, rechecks, restoring, is_first }
    }

    /// Restores sessions for which the authorizer has prepared.
    fn restore(&mut self, prepared: PreparedSessions) {
        self.restoring.restore(&mut self.shard.borrow_mut(), prepared);
    }

    /// Starts a new connection, or begins what it must wait for.
    fn hand_over(&self, handover: Handover, client_id: &Arc<str>, ctx: &mut Context<Self>) {
        match handover {
            Handover::Now(arrival) => self.start_connection(arrival),
            Handover::Behind(refused) => {
                refused.into_iter().for_each(|older| self.refuse_overtaken(older));
            }
            Handover::After(gives_way) => {
                let client_id = Arc::clone(client_id);
                let gives_way = gives_way.into_actor(self);
                ctx.spawn(gives_way.map(move |_, registry, ctx| registry.go_on(&client_id, ctx)));
            }
        }
    }

    /// Continues with what waits for a client after its connection has given way.
    fn go_on(&self, client_id: &Arc<str>, ctx: &mut Context<Self>) {
        let mut has_given_way = true;
        while let Some(handover) = self.clients.next(client_id, has_given_way) {
            let must_wait = matches!(handover, Handover::After(_));
            self.hand_over(handover, client_id, ctx);
            if must_wait {
                return;
            }
            has_given_way = false;
        }
    }

    /// Starts the Connection actor and attaches it to its session.
    fn start_connection(&self, message: TakeClient) {
        let TakeClient { mut transport, read_ahead, mut connect, permit } = message;
        // The socket may come from another thread, whose reactor it has left.
        if let Err(error) = transport.join_reactor() {
            tracing::warn!(%error, "connection lost on its way to its home shard");
            return;
        }
        // Before the session is asked for, so that a trace sees CONNACK and refusals.
        self.core.trace_arrival(&mut transport, &connect, &read_ahead);
        let now = self.core.clock.now();
        let mut shard = self.shard.borrow_mut();
        let prepared = match shard.admit(&*transport, &mut connect, now) {
            Ok(prepared) => prepared,
            Err(refusal) => {
                // `refuse` borrows the shard again.
                drop(shard);
                return self.refuse(transport, &connect, permit, &refusal);
            }
        };
        let stream = ClientStream::new((prepared.slot, prepared.link), transport, read_ahead);
        let connection = Connection::new(self.shard.clone(), stream, permit)
            .within(connection_span(&subject_of(&connect)));
        // Started before CONNACK, because the session needs its door; it runs in a later turn.
        let address = connection.run();
        shard.answer_connect(&prepared, Box::new(address), connect, now);
        // Before the flush: the changes of a CONNECT count for the owner of its session.
        shard.charge(prepared.slot);
        shard.flush();
        self.begin_chores(&mut shard);
    }

    /// Starts to do the chores of the shard, if there are any.
    fn begin_chores(&self, shard: &mut Shard) {
        if shard.begins_chores() {
            actix_rt::spawn(do_chores(self.shard.clone()));
        }
    }

    /// Refuses a CONNECT that a later one of the same client has overtaken.
    fn refuse_overtaken(&self, message: TakeClient) {
        let TakeClient { mut transport, connect, permit, .. } = message;
        match transport.join_reactor() {
            Ok(()) => self.refuse(transport, &connect, permit, &NoSession::Overtaken),
            Err(error) => tracing::warn!(%error, "connection lost on its way to its home shard"),
        }
    }

    /// Answers a CONNECT that gets no session, and closes the connection.
    fn refuse(
        &self,
        transport: Box<dyn Transport>,
        connect: &AcceptedConnect,
        permit: Permit,
        refusal: &NoSession,
    ) {
        let bytes = self.shard.borrow().refuse(connect, refusal);
        Connection::new(self.shard.clone(), ClientStream::closing(transport, bytes), permit).run();
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        ctx.run_interval(SWEEP_EVERY, |registry, _| {
            let now = registry.core.clock.now();
            if registry.is_first {
                registry.core.told.tell_left_out();
            }
            let mut shard = registry.shard.borrow_mut();
            shard.sweep(now);
            if shard.begins_weeding() {
                actix_rt::spawn(weed_queues(registry.shard.clone()));
            }
            registry.begin_chores(&mut shard);
        });
    }
}

impl Message for ToShard {
    type Result = ();
}

impl Message for TakeClient {
    type Result = ();
}

impl Handler<ToShard> for Registry {
    type Result = ();

    fn handle(&mut self, message: ToShard, _: &mut Self::Context) {
        let now = self.core.clock.now();
        self.shard.borrow_mut().take_up(message, now);
    }
}

impl Handler<TakeClient> for Registry {
    type Result = ();

    fn handle(&mut self, arrival: TakeClient, ctx: &mut Self::Context) {
        let client_id = arrival.connect.client_id.clone();
        let handover = self.clients.take(arrival, self.core.clock.now());
        self.hand_over(handover, &client_id, ctx);
    }
}

impl ShardDoor for Addr<Registry> {
    fn send(&self, _: Sender, message: ToShard) {
        self.do_send(message);
    }
}

impl ArrivalDoor for Addr<Registry> {
    fn bring(&self, arrival: TakeClient) {
        self.do_send(arrival);
    }
}

impl Handler<Restore> for Registry {
    type Result = ();

    fn handle(&mut self, message: Restore, ctx: &mut Self::Context) {
        let mut preparing = Box::pin(self.restoring.prepare(self.core.clone(), message.sessions));
        match (&mut preparing).now_or_never() {
            Some(prepared) => self.restore(prepared),
            None => {
                let preparing = preparing.into_actor(self);
                // Nothing else is handled meanwhile: what follows needs these sessions.
                ctx.wait(preparing.map(|prepared, registry, _| registry.restore(prepared)));
            }
        }
    }
}

impl Handler<Restored> for Registry {
    type Result = ();

    fn handle(&mut self, _: Restored, _: &mut Self::Context) {
        self.restoring.end();
    }
}

impl Handler<Begin> for Registry {
    type Result = ();

    fn handle(&mut self, _: Begin, _: &mut Self::Context) {
        let now = self.core.clock.now();
        let mut shard = self.shard.borrow_mut();
        shard.lifecycle.begin();
        if self.is_first {
            shard.announce_started(now);
            shard.flush();
        }
        shard.sweep(now);
    }
}

impl Handler<Recheck> for Registry {
    type Result = ResponseFuture<Rechecked>;

    fn handle(&mut self, message: Recheck, _: &mut Self::Context) -> Self::Result {
        self.rechecks.check(message.only)
    }
}

impl Handler<Quiesce> for Registry {
    type Result = ();

    fn handle(&mut self, _: Quiesce, _: &mut Self::Context) {
        self.shard.borrow_mut().lifecycle.quiesce();
    }
}

impl Handler<Shutdown> for Registry {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        let mut shard = self.shard.borrow_mut();
        let Some(all_gone) = shard.lifecycle.all_gone() else { return Box::pin(async {}) };
        shard.tell_farewell();
        Box::pin(async move {
            let _ = all_gone.await;
        })
    }
}

impl Handler<Retire> for Registry {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) {
        let mut shard = self.shard.borrow_mut();
        shard.lifecycle.quiesce();
        // If the arbiter goes on without the broker, its connections would go on too.
        shard.tell_farewell();
        ctx.stop();
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}
