//! The actor of one connection: it has the byte stream on one side and the session on the other.
//!
//! Its mailbox carries control messages only. One future of the actor reads and writes the stream;
//! deliveries go to the session's output and wake that future. The actor knows nothing of MQTT: the
//! shard decodes, decides and encodes.

mod authentication;
mod reading;
mod takeover;
mod traced;
mod writing;

use std::{
    io,
    pin::Pin,
    task::{Context as Task, Poll, ready},
    time::Duration,
};

use actix::{
    Actor, ActorContext, ActorFuture, Addr, AsyncContext, Context, Handler, Message, SpawnHandle,
};
use tokio::io::ReadBuf;
use tracing::Span;

use self::reading::Reading;
use crate::{
    control::{ControlError, KickOptions, Kicked, Redirection},
    hooks::DisconnectReason,
    shard::{
        CERTIFICATE, Departure, FiltersAsked, IDENTITY_EXPIRED, Shard, SharedShard,
        connect::Permit,
        doors::{ConnectionDoor, ToConnection},
        not_authorized,
        refusal::reason_of,
        stream::{rest::Rest, tail::Tail},
    },
    transport::{Transport, poll_write_all},
};

/// Maximum number of reads, and of writes, before other connections get their turn.
const TURNS_PER_WAKE: usize = 4;
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
    slot: u32,
    link: u64,
    transport: Box<dyn Transport>,
    tail: Tail,
    /// A packet of which a part has been handled; the tail follows it.
    asked: Option<Box<FiltersAsked>>,
    /// The bytes left to read of a client that closed its connection while it was held.
    rest: Option<Box<Rest>>,
    phase: Phase,
    keep_alive_expired: bool,
    /// Whether bytes arrived in this turn.
    has_read: bool,
    /// Whether pending output has waited for one turn; the next turn writes it.
    gives_way: bool,
    /// Whether reading has ended; the connection leaves once all output is written.
    is_leaving: bool,
    /// Whether the stream takes no more bytes at present.
    is_blocked: bool,
    /// Whether the stream has taken bytes since the last check.
    has_written: bool,
    /// Whether a timer checks now and then that the stream takes bytes.
    is_watched: bool,
    /// Newer connections that wait until this connection has been read once more.
    successors: Option<Box<takeover::Successors>>,
    /// The timer that ends the connection if the authentication exchange in progress takes too
    /// long.
    authentication_timeout: Option<SpawnHandle>,
    /// The span that names the client in log lines; `None` if log lines need no span.
    span: Option<Box<Span>>,
    /// Held while the stream is open.
    _permit: Permit,
}

enum Phase {
    Open,
    /// The session is gone; the connection writes these bytes and then closes the stream.
    Closing {
        bytes: Vec<u8>,
        written: usize,
    },
    /// All is written and this side of the stream is closed; the client must close the other side.
    Lingering,
}

impl Connection {
    pub(super) fn new(
        shard: SharedShard,
        (slot, link): (u32, u64),
        transport: Box<dyn Transport>,
        read_ahead: Vec<u8>,
        permit: Permit,
    ) -> Self {
        Self {
            shard,
            slot,
            link,
            transport,
            tail: Tail::read_ahead(read_ahead),
            asked: None,
            rest: None,
            phase: Phase::Open,
            keep_alive_expired: false,
            has_read: false,
            gives_way: false,
            is_leaving: false,
            is_blocked: false,
            has_written: false,
            is_watched: false,
            successors: None,
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

    /// Returns a connection without a session: it writes these bytes, then closes.
    pub(super) fn closing(
        shard: SharedShard,
        transport: Box<dyn Transport>,
        bytes: Vec<u8>,
        permit: Permit,
    ) -> Self {
        let mut connection = Self::new(shard, (u32::MAX, 0), transport, Vec::new(), permit);
        connection.phase = Phase::Closing { bytes, written: 0 };
        connection
    }

    /// Does all that can be done now; returns `Ready` once the stream is closed.
    fn drive(&mut self, ctx: &mut Context<Self>, task: &mut Task<'_>) -> Poll<()> {
        if matches!(self.phase, Phase::Open) {
            self.drive_open(ctx, task);
        }
        self.give_way_if_due();
        if let Phase::Closing { bytes, written } = &mut self.phase {
            let before = *written;
            let wrote = poll_write_all(&mut *self.transport, task, bytes, written);
            self.has_written |= *written > before;
            self.is_blocked = wrote.is_pending();
            let wrote = ready!(wrote);
            let is_shut =
                wrote.is_ok() && ready!(Pin::new(&mut *self.transport).poll_shutdown(task)).is_ok();
            if !is_shut {
                return Poll::Ready(());
            }
            self.phase = Phase::Lingering;
            ctx.run_later(LINGER_TIME_MAX, |_, ctx| ctx.stop());
        }
        match self.phase {
            Phase::Open | Phase::Closing { .. } => Poll::Pending,
            Phase::Lingering => self.drop_rest(task),
        }
    }

    /// Reads and drops what the client sends to a closed connection; returns `Ready` once the
    /// client has closed its side.
    fn drop_rest(&mut self, task: &mut Task<'_>) -> Poll<()> {
        let mut shard = self.shard.borrow_mut();
        for _ in 0..TURNS_PER_WAKE {
            let mut buffer = ReadBuf::new(shard.buffers.scratch());
            let read = ready!(Pin::new(&mut *self.transport).poll_read(task, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }

    fn drive_open(&mut self, ctx: &mut Context<Self>, task: &mut Task<'_>) {
        let shard = self.shard.clone();
        let mut shard = shard.borrow_mut();
        if let Some(slot) = shard.linked(self.slot, self.link)
            && let Some(connected) = &mut slot.connected
        {
            connected.is_awake = true;
            if !connected.waker.as_ref().is_some_and(|w| w.will_wake(task.waker())) {
                connected.waker = Some(task.waker().clone());
            }
        } else {
            return; // The session has left; Finish is in the mailbox.
        }
        shard.charge(self.slot);
        let outcome = self.read(&mut shard, task);
        shard.flush();
        if self.lets_others_go_first(&shard, &outcome) {
            task.waker().wake_by_ref();
            return;
        }
        let outcome = outcome.and_then(|reading| {
            shard.charge(self.slot);
            let mut is_drained = self.write(&mut shard, task)?;
            // Flushing notes what was sent, which may release output that waited for it.
            if shard.flush_changes() && shard.has_output(self.slot) {
                is_drained = false;
            }
            let reads_on = match reading {
                Reading::Waits => false,
                Reading::Yields => true,
                Reading::Blocked => self.may_read(&shard),
                // The output just written may be what held this connection, and a working
                // connection gets no wake-up.
                Reading::Held => !shard.is_held(self.slot),
            };
            Ok(reads_on || !is_drained)
        });
        match outcome {
            Ok(has_more_to_do) => {
                if self.is_leaving && !has_more_to_do && !shard.has_pending(self.slot) {
                    drop(shard);
                    return self.depart(Departure::SERVER_SHUTDOWN, ctx);
                }
                if has_more_to_do {
                    task.waker().wake_by_ref();
                }
                if let Some(connected) =
                    shard.linked(self.slot, self.link).and_then(|s| s.connected.as_mut())
                {
                    connected.is_awake = false;
                }
            }
            Err(departure) => {
                drop(shard);
                self.depart(departure, ctx);
            }
        }
    }

    /// Returns whether pending output waits until other ready tasks had their turn. Then one write
    /// also carries the answers to what this client sends meanwhile, and what other clients send to
    /// it; a write is the most expensive step here. Output waits once, and not at all where no
    /// other task is ready.
    fn lets_others_go_first(
        &mut self,
        shard: &Shard,
        reading: &Result<Reading, Departure>,
    ) -> bool {
        let has_read = std::mem::take(&mut self.has_read);
        let may_wait = has_read && matches!(reading, Ok(Reading::Waits));
        self.gives_way = may_wait && !self.gives_way && shard.has_output(self.slot);
        self.gives_way
    }

    /// Leaves the session and begins to close the connection.
    fn depart(&mut self, departure: Departure, ctx: &mut Context<Self>) {
        let is_by_client = departure.is_by_client();
        let Some(bytes) = self.leave(departure) else { return };
        let has_all_been_said = is_by_client && bytes.is_empty();
        if has_all_been_said && !self.transport.has_farewell() {
            // Neither side has anything left to say, so there is nothing to wait for.
            ctx.stop();
        } else {
            self.close(bytes, ctx);
        }
    }

    /// Leaves the session, unless it has left already; returns the bytes that are still to be
    /// written.
    fn leave(&mut self, departure: Departure) -> Option<Vec<u8>> {
        let mut shard = self.shard.borrow_mut();
        shard.linked(self.slot, self.link)?;
        let now = shard.core.clock.now();
        shard.charge_leaving(self.slot);
        let bytes = shard.depart(self.slot, departure, now);
        shard.flush();
        Some(bytes)
    }

    fn close(&mut self, bytes: Vec<u8>, ctx: &mut Context<Self>) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Closing { bytes, written: 0 };
            self.tail = Tail::default();
            self.asked = None;
            self.watch(ctx);
            ctx.run_later(CLOSING_TIME_MAX, |_, ctx| ctx.stop());
        }
    }
}

impl Connection {
    /// Starts the actor. Its mailbox takes what the door sends, without a limit of its own: questions in
    /// progress are limited by the broker, and the shard sends one message for each of its own reasons.
    pub(super) fn run(self) -> Addr<Self> {
        self.start()
    }

    /// Checks now and then whether the stream takes bytes. While the broker shuts down, a
    /// connection whose stream takes none is closed.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.is_watched, true) {
            self.has_written = false;
            ctx.run_interval(STALLED_TIME_MAX, |connection, ctx| {
                let has_stalled = connection.is_blocked && !connection.has_written;
                connection.has_written = false;
                if has_stalled && connection.shard.borrow().lifecycle.is_quiet() {
                    connection.leave(Departure::SERVER_SHUTDOWN);
                    ctx.stop();
                }
            });
        }
    }
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(Drive);
        if !matches!(self.phase, Phase::Open) {
            self.watch(ctx);
            ctx.run_later(CLOSING_TIME_MAX, |_, ctx| ctx.stop());
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        // Whatever ended the actor, its session must not count as connected.
        self.leave(Departure::unannounced(DisconnectReason::InternalError));
        self.give_way();
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
        // The caller may no longer wait for its answer; the action counts nevertheless.
        match message {
            ToConnection::SetKeepAlive { request, reply } => {
                let mut shard = self.shard.borrow_mut();
                let now = shard.core.clock.now();
                let _ = reply.send(shard.set_keep_alive((self.slot, self.link), &request, now));
            }
            ToConnection::FollowOverride { by, reply } => {
                let mut shard = self.shard.borrow_mut();
                let now = shard.core.clock.now();
                let _ = reply.send(shard.follow_override((self.slot, self.link), by, now));
            }
            ToConnection::ChangeSettings { change, reply } => {
                let mut shard = self.shard.borrow_mut();
                let now = shard.core.clock.now();
                let changed = shard.change_settings((self.slot, self.link), &change, now);
                let _ = reply.send(changed);
            }
            ToConnection::DescribeTls(reply) => {
                let _ = reply.send(self.transport.tls());
            }
            ToConnection::ChangeSubscriptions { changes, reply } => {
                let mut shard = self.shard.borrow_mut();
                let now = shard.core.clock.now();
                let changed = shard.change_subscriptions((self.slot, self.link), &changes, now);
                let _ = reply.send(changed);
            }
            ToConnection::Kick { options, by, reply } => {
                let is_there = self.tell_kick(&options);
                self.depart(Departure::kicked(&options, by), ctx);
                let node = &self.shard.borrow().core.node;
                let kicked = is_there.then(|| Kicked::new(node.clone()));
                let _ = reply.send(kicked.ok_or(ControlError::NotOnline));
            }
            ToConnection::Redirect { to, by, reply } => {
                if self.tell_redirection(&to) {
                    self.depart(Departure::redirected(by), ctx);
                    let _ = reply.send(());
                }
            }
            ToConnection::GiveWay(baton) => self.begin_to_give_way(baton, ctx),
            // Bytes that have arrived but are not read yet count, so the stream is read first.
            ToConnection::KeepAliveExpired => self.keep_alive_expired = true,
            ToConnection::IdentityExpired => {
                if self.shard.borrow().has_expired_identity(self.slot, self.link) {
                    self.depart(IDENTITY_EXPIRED, ctx);
                }
            }
            ToConnection::RenewIdentity => self.renew_identity(ctx),
            ToConnection::VerifyCertificate => {
                if let Err(error) = self.transport.verify_certificate() {
                    tracing::debug!(%error, "the client's certificate is not trusted any more");
                    self.depart(not_authorized(CERTIFICATE), ctx);
                }
            }
            ToConnection::Trace(trace) => self.begin_trace(&trace),
            ToConnection::TakeStep(step) => self.take_step(step, ctx),
            ToConnection::Finish(bytes) => self.close(bytes, ctx),
            ToConnection::Farewell => {
                self.is_leaving = true;
                self.watch(ctx);
                ctx.run_later(CLOSING_TIME_MAX, |connection, ctx| {
                    connection.depart(Departure::SERVER_SHUTDOWN, ctx);
                });
            }
        }
    }
}

impl Connection {
    fn is_linked(&self) -> bool {
        self.shard.borrow_mut().linked(self.slot, self.link).is_some()
    }

    /// Writes a DISCONNECT with the reason of a caller; returns whether the connection still had its
    /// session.
    fn tell_kick(&self, options: &KickOptions) -> bool {
        let mut shard = self.shard.borrow_mut();
        let Some(slot) = shard.linked(self.slot, self.link) else { return false };
        slot.session.disconnect(options.reason_code, options.reason_string.as_deref());
        true
    }

    /// Writes a DISCONNECT that names another server; returns whether the connection still had its
    /// session.
    fn tell_redirection(&self, to: &Redirection) -> bool {
        let mut shard = self.shard.borrow_mut();
        let Some(slot) = shard.linked(self.slot, self.link) else { return false };
        slot.session.redirect(reason_of(to), to.server_reference());
        true
    }
}

fn lost(error: &io::Error) -> Departure {
    tracing::debug!(%error, "connection lost");
    Departure { is_cut: is_cut(error.kind()), ..ended() }
}

/// Returns whether the network has dropped a connection that failed in this way: its client, or a
/// device between, knows it no longer, or nothing arrives there.
const fn is_cut(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

const fn ended() -> Departure {
    Departure::unannounced(DisconnectReason::TcpClosed)
}
