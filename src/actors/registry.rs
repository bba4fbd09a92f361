//! The registry of one shard: from client identifier to session and connection.
//!
//! Every request that names a client identifier goes to the registry of its home shard. The
//! registry answers at once what it knows itself, and forwards to the Connection actor what the
//! connection must do. It starts a Connection actor for each socket that arrives at its home.

mod control;
mod feed;
mod keep_alive;
mod publishing;
mod settings;
mod traces;
mod views;

use std::{
    cell::Cell,
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
use tokio::sync::{Mutex, oneshot};

pub(crate) use self::{feed::QueryOnlinePart, settings::OfUser, traces::FollowTrace};
use super::{
    connection::Connection,
    messages::{Begin, PublishMessage, Quiesce, Recheck, Restore, Restored, Retire, Shutdown},
};
use crate::{
    auth::Patience,
    between::door::{Sender, ShardDoor, ToShard},
    control::Rechecked,
    metrics::ShardMetrics,
    router::ShardNumber,
    shard::{
        ClientTurns, FoundSession, Handover, LOOK_EVERY, Rounds, Shard, SharedShard,
        common::Core,
        connect::{AcceptedConnect, Permit, TakeClient},
        do_chores,
        doors::ArrivalDoor,
        prepare_again, prepare_found,
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
    pub(super) shard: SharedShard,
    pub(super) core: Arc<Core>,
    rechecks: Rc<Rechecks>,
    /// Whether this is the first shard of the broker. It does the work that one shard does for all.
    is_first: bool,
    clients: Rc<ClientTurns>,
    /// With the authorizer, while sessions are restored.
    patience: Option<Patience>,
    /// The number of sessions that were restored without what the authorizer needs.
    unprepared: usize,
}

impl Registry {
    pub(crate) fn new(
        number: ShardNumber,
        core: Arc<Core>,
        metrics: Arc<ShardMetrics>,
        bytes_waiting: Arc<AtomicUsize>,
    ) -> Self {
        let shard = Shard::new(number, core.clone(), metrics, bytes_waiting).shared();
        let clients = Rc::new(ClientTurns::new(shard.clone()));
        let (rechecks, is_first) = (Rc::default(), number == ShardNumber(0));
        Self { shard, core, rechecks, is_first, clients, patience: None, unprepared: 0 }
    }

    /// Restores sessions that the authorizer has prepared for.
    fn restore(&mut self, (found, patience): (Vec<FoundSession>, Patience)) {
        self.patience = Some(patience);
        self.unprepared += found.iter().filter(|session| session.is_unprepared()).count();
        let now = self.core.clock.now();
        let mut shard = self.shard.borrow_mut();
        let mut listener = Arc::from("");
        for session in found {
            shard.restore(&session, &mut listener, now);
        }
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
        if let Err(error) = transport.join_reactor() {
            tracing::warn!(%error, "connection lost on its way to its home shard");
            return;
        }
        if self.core.traces.is_any() {
            self.trace_arrival(&mut transport, &connect, &read_ahead);
        }
        if self.shard.borrow().lifecycle.is_quiet() {
            return self.refuse(transport, &connect, permit, &NoSession::ShuttingDown);
        }
        let now = self.core.clock.now();
        let mut shard = self.shard.borrow_mut();
        let prepared = match transport.verify_certificate() {
            Ok(()) => shard.prepare(&mut connect, now),
            Err(_) => Err(NoSession::NotAuthorized),
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => {
                drop(shard);
                self.refuse(transport, &connect, permit, &refusal);
                return;
            }
        };
        let at = (prepared.slot, prepared.link);
        let stream = ClientStream::new(at, transport, read_ahead);
        let connection = Connection::new(self.shard.clone(), stream, permit)
            .within(connection_span(&subject_of(&connect)));
        let address = connection.run();
        shard.answer_connect(&prepared, Box::new(address), connect, now);
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
        let shard = self.shard.borrow();
        shard.metrics.connects_refused.increment(refusal.counted_as());
        shard.tell_no_session(connect, refusal);
        drop(shard);
        let bytes = refusal.conn_ack(connect.version, connect.maximum_packet_size);
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
        let core = self.core.clone();
        let patience = self.patience.take();
        let mut preparing = Box::pin(async move {
            let mut patience = patience.unwrap_or_else(|| Patience::new(core.connect_time()));
            let found = prepare_found(&core, message.sessions, &mut patience).await;
            (found, patience)
        });
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
        let sessions = std::mem::take(&mut self.unprepared);
        if sessions > 0 {
            tracing::warn!(
                sessions,
                "permissions of sessions cannot be loaded; they queue no messages until their \
                 clients connect, or all sessions are checked again"
            );
        }
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
        let (shard, core, rechecks) =
            (self.shard.clone(), self.core.clone(), self.rechecks.clone());
        let Some(account) = message.only else {
            rechecks.asked.set(rechecks.asked.get() + 1);
            let asked = rechecks.asked.get();
            return Box::pin(async move {
                let _turn = rechecks.turn.lock().await;
                if rechecks.done.get() >= asked {
                    return rechecks.found.get(); // A later round has begun and checked all.
                }
                let begun = rechecks.asked.get();
                let found = walk(&shard, &core, Rounds::default()).await;
                rechecks.found.set(found);
                rechecks.done.set(begun);
                found
            });
        };
        Box::pin(async move {
            let _turn = rechecks.turn.lock().await;
            walk(&shard, &core, Rounds::of(account)).await
        })
    }
}

/// Walks along the sessions of a shard, with other tasks in between.
async fn walk(shard: &SharedShard, core: &Core, mut rounds: Rounds) -> Rechecked {
    let mut patience = Patience::new(core.connect_time());
    let mut sessions = 0;
    loop {
        let unprepared = shard.borrow_mut().begin_preparing(&mut rounds);
        let results = prepare_again(core, &unprepared, &mut patience).await;
        let goes_on = {
            let mut shard = shard.borrow_mut();
            sessions += shard.take_prepared(&mut rounds, &unprepared, results);
            let goes_on = shard.recheck(&mut rounds, core.clock.now());
            shard.flush();
            goes_on
        };
        if !goes_on {
            break;
        }
        tokio::task::yield_now().await;
    }
    if sessions > 0 {
        tracing::warn!(sessions, "permissions cannot be loaded; sessions keep those they have");
    }
    rounds.found()
}

/// Rounds along the sessions, one after the other. One along all of them answers every caller that has asked
/// for one before it began.
#[derive(Default)]
struct Rechecks {
    turn: Mutex<()>,
    asked: Cell<u64>,
    /// The number of requests that ended rounds have answered.
    done: Cell<u64>,
    /// The result of the last walk along all sessions.
    found: Cell<Rechecked>,
}

impl Handler<PublishMessage> for Registry {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: PublishMessage, _: &mut Self::Context) -> Self::Result {
        let now = self.core.clock.now();
        let mut shard = self.shard.borrow_mut();
        let publication = message.message.publication();
        let (stored, is_stored) = oneshot::channel();
        shard.publish_and_retain(&publication, None, now);
        shard.tell_when_stored(stored);
        shard.flush();
        // The message is published; a caller that waits for the answer publishes the next one when
        // there is room.
        let full = shard.full_targets(&publication);
        let core = self.core.clone();
        Box::pin(async move {
            let _ = is_stored.await;
            for place in full {
                while core.waits.is_waited_for(place) {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        })
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
