//! The registry of one shard: from client identifier to session and connection.
//!
//! Everybody who has a client identifier asks the registry of its home shard. It answers what it
//! knows at once, forwards to the connection actor what is the connection's to do, and starts a
//! connection actor for every socket that comes home.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture,
    dev::{MessageResponse, OneshotSender, SendError},
};
use tokio::sync::{Mutex, oneshot};

use super::{
    connection::{Connection, Queues},
    core::Core,
    messages::{
        AcceptedConnect, Attach, BacklogTaken, BacklogWaits, Begin, ChangeKeepAlive, Deliver,
        Farewell, Kept, Kick, Kicked, Permit, PublishMessage, QueryClient, QueryOnline,
        QueryOnlineMany, Quiesce, Recheck, Restore, Restored, Retire, SetKeepAliveMany, Shutdown,
        TakeBacklog, WillRequest,
    },
    refusal::NoSession,
    shard::{Departure, LOOK_EVERY, Rounds, Shard, subject_of},
    transport::Transport,
};
use crate::{
    control::{ControlError, KeepAliveChanged, Redirect, SetKeepAlive},
    hooks::DisconnectReason,
    metrics::ShardMetrics,
    mqtt::ReasonCode,
    router::Host,
    told::connection_span,
};

/// Deadlines are looked at this often. With what a sweep takes, a keep-alive timeout is noticed
/// well within the 250 ms that are promised.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// Messages that may wait for a registry before those who ask are made to wait.
const MAILBOX_CAPACITY: usize = 4096;

/// The registry actor of one shard.
pub struct Registry {
    pub(super) shard: Rc<RefCell<Shard>>,
    pub(super) core: Arc<Core>,
    bytes_waiting: Arc<AtomicUsize>,
    rechecks: Rc<Rechecks>,
    /// Its shard is the first of the broker, which does what one has to do for all.
    is_first: bool,
    pub(super) queues: Queues,
}

impl Registry {
    pub(crate) fn new(
        host: Host,
        core: Arc<Core>,
        metrics: Arc<ShardMetrics>,
        bytes_waiting: Arc<AtomicUsize>,
    ) -> Self {
        let shard = Shard::new(host, core.clone(), metrics).shared();
        let is_first = host == Host(0);
        let queues = Queues::default();
        Self { shard, core, bytes_waiting, rechecks: Rc::default(), is_first, queues }
    }

    /// Starts the actor of a connection and gives it its session.
    pub(super) fn attach(&self, message: Attach) {
        if self.shard.borrow().is_quiet {
            return; // The broker is shutting down: the connection is closed.
        }
        let Attach { mut transport, read_ahead, mut connect, permit } = message;
        if let Err(error) = transport.join_reactor() {
            tracing::warn!(%error, "connection lost on its way to its home shard");
            return;
        }
        let now = self.core.clock.now();
        let mut shard = self.shard.borrow_mut();
        let link = shard.next_link();
        let prepared = match transport.verify_certificate() {
            Ok(()) => shard.prepare(&mut connect, link, now),
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
        let connection = Connection::new(self.shard.clone(), at, transport, read_ahead, permit)
            .within(connection_span(&subject_of(&connect)));
        let address = connection.run();
        shard.attach(&prepared, address, connect, now);
        shard.flush();
    }

    /// Refuses a CONNECT that was overtaken by a later one of the same client.
    pub(super) fn refuse_overtaken(&self, message: Attach) {
        let Attach { mut transport, connect, permit, .. } = message;
        match transport.join_reactor() {
            Ok(()) => self.refuse(transport, &connect, permit, &NoSession::Overtaken),
            Err(error) => tracing::warn!(%error, "connection lost on its way to its home shard"),
        }
    }

    /// Answers a CONNECT that gets no session, and closes.
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
        Connection::closing(self.shard.clone(), transport, bytes, permit).run();
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
            registry.shard.borrow_mut().sweep(now);
        });
    }
}

impl Handler<Deliver> for Registry {
    type Result = ();

    fn handle(&mut self, message: Deliver, _: &mut Self::Context) {
        self.bytes_waiting.fetch_sub(message.bytes, Ordering::Relaxed);
        let now = self.core.clock.now();
        let mut shard = self.shard.borrow_mut();
        let awaited = message.awaited;
        shard.deliver_all(message, now);
        shard.owe(awaited);
        // A search among the members of a shared subscription may go on elsewhere.
        shard.flush();
    }
}

impl Handler<Kept> for Registry {
    type Result = ();

    fn handle(&mut self, message: Kept, _: &mut Self::Context) {
        self.shard.borrow_mut().note_kept(&message.tickets);
    }
}

impl Handler<TakeBacklog> for Registry {
    type Result = ();

    fn handle(&mut self, message: TakeBacklog, _: &mut Self::Context) {
        let now = self.core.clock.now();
        self.shard.borrow_mut().answer_backlog(message, now);
    }
}

impl Handler<BacklogTaken> for Registry {
    type Result = ();

    fn handle(&mut self, message: BacklogTaken, _: &mut Self::Context) {
        self.shard.borrow_mut().note_given(&message);
    }
}

impl Handler<BacklogWaits> for Registry {
    type Result = ();

    fn handle(&mut self, message: BacklogWaits, _: &mut Self::Context) {
        self.shard.borrow_mut().backlog_waits(&message);
    }
}

impl Handler<Restore> for Registry {
    type Result = ();

    fn handle(&mut self, message: Restore, _: &mut Self::Context) {
        let now = self.core.clock.now();
        let mut shard = self.shard.borrow_mut();
        for session in message.sessions {
            shard.restore(session, now);
        }
    }
}

impl Handler<Restored> for Registry {
    type Result = ();

    fn handle(&mut self, _: Restored, _: &mut Self::Context) {}
}

impl Handler<Begin> for Registry {
    type Result = ();

    fn handle(&mut self, _: Begin, _: &mut Self::Context) {
        let now = self.core.clock.now();
        let mut shard = self.shard.borrow_mut();
        shard.has_begun = true;
        shard.sweep(now);
    }
}

impl Handler<QueryOnline> for Registry {
    type Result = MessageResult<QueryOnline>;

    fn handle(&mut self, message: QueryOnline, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.shard.borrow().is_online(&message.client_id))
    }
}

impl Handler<QueryOnlineMany> for Registry {
    type Result = MessageResult<QueryOnlineMany>;

    fn handle(&mut self, message: QueryOnlineMany, _: &mut Self::Context) -> Self::Result {
        let shard = self.shard.borrow();
        MessageResult(message.client_ids.iter().map(|id| shard.is_online(id)).collect())
    }
}

impl Handler<QueryClient> for Registry {
    type Result = MessageResult<QueryClient>;

    fn handle(&mut self, message: QueryClient, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.shard.borrow().describe(&message.client_id))
    }
}

impl Handler<SetKeepAlive> for Registry {
    type Result = ResponseFuture<Result<KeepAliveChanged, ControlError>>;

    fn handle(&mut self, message: SetKeepAlive, _: &mut Self::Context) -> Self::Result {
        Box::pin(answer_of(self.ask_for_keep_alive(message)))
    }
}

impl Handler<SetKeepAliveMany> for Registry {
    type Result = ResponseFuture<Vec<Result<KeepAliveChanged, ControlError>>>;

    fn handle(&mut self, message: SetKeepAliveMany, _: &mut Self::Context) -> Self::Result {
        let asked = message.requests.into_iter().map(|request| self.ask_for_keep_alive(request));
        let asked: Vec<_> = asked.collect();
        Box::pin(async move {
            let mut answers = Vec::with_capacity(asked.len());
            for one in asked {
                answers.push(answer_of(one).await);
            }
            answers
        })
    }
}

/// Where the answer of a connection will come, if it could be asked.
type Asked = Result<oneshot::Receiver<Result<KeepAliveChanged, ControlError>>, ControlError>;

async fn answer_of(asked: Asked) -> Result<KeepAliveChanged, ControlError> {
    asked?.await.unwrap_or(Err(ControlError::NotOnline))
}

impl Handler<Kick> for Registry {
    type Result = Result<Kicked, ControlError>;

    fn handle(&mut self, message: Kick, _: &mut Self::Context) -> Self::Result {
        let mut departure =
            Departure::by_server(DisconnectReason::Kicked, ReasonCode::AdministrativeAction);
        departure.publishes_will = message.will == WillRequest::Publish;
        departure.ends_session = message.end_session;
        let now = self.core.clock.now();
        let mut shard = self.shard.borrow_mut();
        // At once, so that whoever asks next is not told that the client is online.
        let kicked = shard.end_connection(&message.client_id, departure, now);
        shard.flush();
        kicked.then_some(Kicked).ok_or(ControlError::NotOnline)
    }
}

impl Handler<Redirect> for Registry {
    type Result = Walk;

    fn handle(&mut self, message: Redirect, _: &mut Self::Context) -> Self::Result {
        Walk { shard: self.shard.clone(), core: self.core.clone(), request: message }
    }
}

/// Goes along the clients of a shard and sends away those that are meant, a few at a time. Ends
/// early when whoever asked no longer waits for the answer.
pub struct Walk {
    shard: Rc<RefCell<Shard>>,
    pub(super) core: Arc<Core>,
    request: Redirect,
}

impl MessageResponse<Registry, Redirect> for Walk {
    fn handle(self, _: &mut Context<Registry>, reply: Option<OneshotSender<usize>>) {
        actix_rt::spawn(async move {
            let mut redirected = 0;
            let mut next = Some(0);
            while let Some(from) = next
                && !reply.as_ref().is_some_and(OneshotSender::is_closed)
            {
                let (count, then) = {
                    let mut shard = self.shard.borrow_mut();
                    let outcome = shard.redirect(&self.request, from, self.core.clock.now());
                    shard.flush();
                    outcome
                };
                (redirected, next) = (redirected + count, then);
                tokio::task::yield_now().await;
            }
            reply.map(|reply| reply.send(redirected))
        });
    }
}

impl Handler<Recheck> for Registry {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Recheck, _: &mut Self::Context) -> Self::Result {
        let (shard, core, rechecks) =
            (self.shard.clone(), self.core.clone(), self.rechecks.clone());
        rechecks.asked.set(rechecks.asked.get() + 1);
        let asked = rechecks.asked.get();
        Box::pin(async move {
            let _turn = rechecks.turn.lock().await;
            if rechecks.done.get() >= asked {
                return; // Another has begun since, and looked at all.
            }
            let begun = rechecks.asked.get();
            let mut rounds = Rounds::default();
            loop {
                let goes_on = {
                    let mut shard = shard.borrow_mut();
                    let goes_on = shard.recheck(&mut rounds, core.clock.now());
                    shard.flush();
                    goes_on
                };
                if !goes_on {
                    break;
                }
                tokio::task::yield_now().await;
            }
            rechecks.done.set(begun);
        })
    }
}

/// Rounds along all sessions, one after the other, however many are asked for.
#[derive(Default)]
struct Rechecks {
    turn: Mutex<()>,
    asked: Cell<u64>,
    /// So many of those that were asked for are answered by rounds that have ended.
    done: Cell<u64>,
}

impl Handler<PublishMessage> for Registry {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: PublishMessage, _: &mut Self::Context) -> Self::Result {
        let now = self.core.clock.now();
        let mut shard = self.shard.borrow_mut();
        let publication = message.message.publication();
        let (kept, is_kept) = oneshot::channel();
        shard.publish_and_retain(&publication, None, now);
        shard.tell_when_kept(kept);
        shard.flush();
        // It is published; whoever waits for the answer publishes the next when there is room.
        let full = shard.full_targets(&publication);
        let core = self.core.clone();
        Box::pin(async move {
            let _ = is_kept.await;
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
        self.shard.borrow_mut().is_quiet = true;
    }
}

impl Handler<Shutdown> for Registry {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        let mut shard = self.shard.borrow_mut();
        let connections = shard.connections();
        if connections.is_empty() {
            return Box::pin(async {});
        }
        let (done, all_gone) = oneshot::channel();
        shard.shutting_down = Some(done);
        for connection in connections {
            connection.do_send(Farewell);
        }
        Box::pin(async move {
            let _ = all_gone.await;
        })
    }
}

impl Handler<Retire> for Registry {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) {
        let mut shard = self.shard.borrow_mut();
        shard.is_quiet = true;
        // On an arbiter that goes on without the broker its connections would, too.
        for connection in shard.connections() {
            connection.do_send(Farewell);
        }
        ctx.stop();
    }
}

impl Registry {
    /// Forwards to the connection, which answers.
    fn ask_for_keep_alive(&self, request: SetKeepAlive) -> Asked {
        let (reply, answer) = oneshot::channel();
        let change =
            ChangeKeepAlive { interval_secs: request.interval_secs, by: request.by, reply };
        self.tell(&request.client_id, change).map(|()| answer)
    }

    /// Hands a message to the connection of a client that is online.
    fn tell<M>(&self, client_id: &str, message: M) -> Result<(), ControlError>
    where
        M: Message<Result = ()> + Send + 'static,
        Connection: Handler<M>,
    {
        let shard = self.shard.borrow();
        let online = shard.find(client_id).filter(|slot| slot.is_online());
        let Some(connected) = online.and_then(|slot| slot.connected.as_ref()) else {
            return Err(ControlError::NotOnline);
        };
        connected.address.try_send(message).map_err(|error| match error {
            SendError::Full(_) => ControlError::Unavailable,
            SendError::Closed(_) => ControlError::NotOnline,
        })
    }
}
