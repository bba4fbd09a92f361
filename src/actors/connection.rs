//! The actor of one connection: its mailbox, its timers and its place among the tasks of the thread.
//!
//! Its mailbox carries control messages only. One future of the actor drives the stream; deliveries go
//! to the session's output and wake that future. The stream (`shard/stream`) reads, writes and decides;
//! the actor waits and ends.

mod authentication;

use std::{
    pin::Pin,
    task::{Context as Task, Poll, ready},
    time::Duration,
};

use actix::{
    Actor, ActorContext, ActorFuture, ActorFutureExt, Addr, AsyncContext, Context, Handler,
    Message, SpawnHandle, WrapFuture,
};
use tokio::task::yield_now;
use tracing::Span;

use crate::{
    hooks::DisconnectReason,
    shard::{
        Departure, SharedShard,
        connect::Permit,
        doors::{ConnectionDoor, ToConnection},
        look_after_held,
        stream::{AfterMessage, ClientStream, Departed, NextTurn},
    },
};

/// The maximum time in which a closing connection writes its pending output.
const CLOSING_TIME_MAX: Duration = Duration::from_secs(5);
/// The maximum time for a client to close its side. Until then the broker reads and drops what the
/// client still sends: to close a socket with unread bytes would reset the connection, and the
/// client could lose the last packets that were written to it.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
/// While the broker shuts down, it closes the connection of a client that has taken no bytes for
/// this time. Such a client would delay the end of the broker, and thereby the return of its other
/// clients.
const STALLED_TIME_MAX: Duration = Duration::from_millis(1_500);

/// One connection.
pub(crate) struct Connection {
    shard: SharedShard,
    stream: ClientStream,
    /// Whether a timer checks now and then that the stream takes bytes.
    is_watched: bool,
    /// The timer that ends the connection if the authentication exchange in progress takes too
    /// long.
    authentication_timeout: Option<SpawnHandle>,
    /// The span that names the client in log lines; `None` if log lines need no span.
    span: Option<Box<Span>>,
    /// Held while the stream is open.
    _permit: Permit,
}

impl Connection {
    pub(super) fn new(shard: SharedShard, stream: ClientStream, permit: Permit) -> Self {
        Self {
            shard,
            stream,
            is_watched: false,
            authentication_timeout: None,
            span: None,
            _permit: permit,
        }
    }

    /// Returns the connection with a span that names its client in the log.
    pub(super) fn within(mut self, span: Option<Box<Span>>) -> Self {
        self.span = span;
        self
    }

    /// Starts the actor. Its mailbox takes what the door sends, without a limit of its own: questions in
    /// progress are limited by the broker, and the shard sends one message for each of its own reasons.
    pub(super) fn run(self) -> Addr<Self> {
        self.start()
    }

    /// Does all that can be done now; returns `Ready` once the stream is closed.
    fn drive(&mut self, ctx: &mut Context<Self>, task: &mut Task<'_>) -> Poll<()> {
        if self.stream.is_open() {
            match self.drive_open(task) {
                // Not a loop: the other connections of the thread have their turn first.
                Ok(NextTurn::Soon) => task.waker().wake_by_ref(),
                Ok(NextTurn::WhenWoken) => {}
                Err(departure) => self.depart(departure, ctx),
            }
        }
        // After the read, because the client may have sent its last packets before it connected again.
        if self.stream.has_successors() {
            self.stream.give_way_if_due(&self.shard.borrow());
        }
        if self.stream.is_closing() {
            if ready!(self.stream.poll_close(task)).is_err() {
                return Poll::Ready(());
            }
            // Set once: the stream is not closing any more when it is polled again.
            ctx.run_later(LINGER_TIME_MAX, |_, ctx| ctx.stop());
        }
        if self.stream.is_open() {
            return Poll::Pending;
        }
        self.stream.poll_client_close(&mut self.shard.borrow_mut(), task)
    }

    fn drive_open(&mut self, task: &mut Task<'_>) -> Result<NextTurn, Departure> {
        let mut shard = self.shard.borrow_mut();
        let outcome = self.stream.drive(&mut shard, task);
        if shard.begins_to_look_after_held() {
            actix_rt::spawn(look_after_held(self.shard.clone()));
        }
        outcome
    }

    /// Leaves the session and begins to close the connection.
    fn depart(&mut self, departure: Departure, ctx: &mut Context<Self>) {
        let departed = self.stream.depart(&mut self.shard.borrow_mut(), departure);
        match departed {
            Departed::Before => {}
            Departed::Silently => ctx.stop(),
            Departed::With(bytes) => self.close(bytes, ctx),
        }
    }

    fn close(&mut self, bytes: Vec<u8>, ctx: &mut Context<Self>) {
        if self.stream.close(bytes) {
            self.watch(ctx);
            ctx.run_later(CLOSING_TIME_MAX, |_, ctx| ctx.stop());
        }
    }

    /// Lets all other tasks have a turn, and says so to the stream.
    fn let_others_have_turn(&self, ctx: &mut Context<Self>) {
        let turn = yield_now().into_actor(self).map(|(), connection, _| {
            connection.stream.note_others_had_turn(&mut connection.shard.borrow_mut());
        });
        ctx.spawn(turn);
    }

    /// Checks now and then whether the stream takes bytes. While the broker shuts down, a
    /// connection whose stream takes none is closed.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.is_watched, true) {
            self.stream.watch();
            ctx.run_interval(STALLED_TIME_MAX, |connection, ctx| {
                let has_stalled = connection.stream.has_stalled();
                if has_stalled && connection.shard.borrow().lifecycle.is_quiet() {
                    connection.leave(Departure::SERVER_SHUTDOWN);
                    ctx.stop();
                }
            });
        }
    }

    /// Leaves the session. Bytes that are still to be written are lost.
    fn leave(&self, departure: Departure) {
        self.stream.leave(&mut self.shard.borrow_mut(), departure);
    }
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(Drive);
        if !self.stream.is_open() {
            self.watch(ctx);
            ctx.run_later(CLOSING_TIME_MAX, |_, ctx| ctx.stop());
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        // Whatever ended the actor, its session must not count as connected.
        self.leave(Departure::unannounced(DisconnectReason::InternalError));
        self.stream.give_way();
    }
}

/// The future that drives a connection's stream.
struct Drive;

impl ActorFuture<Connection> for Drive {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        connection: &mut Connection,
        ctx: &mut Context<Connection>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        let _within = connection.span.as_deref().map(|span| span.clone().entered());
        ready!(connection.drive(ctx, task));
        ctx.stop();
        Poll::Ready(())
    }
}

impl Message for ToConnection {
    type Result = ();
}

impl ConnectionDoor for Addr<Connection> {
    fn send(&self, message: ToConnection) {
        self.do_send(message);
    }
}

impl Handler<ToConnection> for Connection {
    type Result = ();

    fn handle(&mut self, message: ToConnection, ctx: &mut Self::Context) {
        let then = self.stream.handle(&mut self.shard.borrow_mut(), message);
        match then {
            AfterMessage::Waits => {}
            AfterMessage::Departs(departure) => self.depart(departure, ctx),
            AfterMessage::GivesWay => self.let_others_have_turn(ctx),
            AfterMessage::TakesStep(step) => self.take_step(step, ctx),
            AfterMessage::RenewsIdentity => self.renew_identity(ctx),
            AfterMessage::Closes(bytes) => self.close(bytes, ctx),
            AfterMessage::Leaves => {
                self.watch(ctx);
                ctx.run_later(CLOSING_TIME_MAX, |connection, ctx| {
                    connection.depart(Departure::SERVER_SHUTDOWN, ctx);
                });
            }
        }
    }
}
