//! Tracks the phase of a connection and enforces the deadline of each phase.
//!
//! actix-http has a deadline only for the head of the first request. Here each head has one, and
//! each response (with the body of its request) and each wait for the next request. Knows a byte
//! stream and the moments at which a request is complete and answered; parses nothing.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

use super::places::ConnectionPlace;
use crate::http::asking::CallPlace;

/// Maximum time for the head of a request.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time for a response, from the request's head until the caller has taken the last byte.
/// The operations that a response waits for have shorter timeouts of their own.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// Maximum time for a caller to take [`PROGRESS_BYTES`] of an answer that waits for it.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The bytes that a caller must take in that time: one that takes a byte now and then would hold the room of its
/// answer as long as one that takes none.
const PROGRESS_BYTES: usize = 16 * 1024;

/// Maximum time for a caller to take a part of an answer that has no end. Something is written every
/// 15 s.
const LIVE_TIMEOUT: Duration = Duration::from_secs(45);

/// Maximum number of bytes that are read from a connection in one turn of its thread. A caller that
/// pipelines many requests shares the thread with other callers, and the requests do not fill memory:
/// actix-http copies the bytes that it has read behind each of them.
const BYTES_PER_TURN: usize = 512;

/// The same after a turn with several requests: about one request. So connections that pipeline
/// requests without end delay a request on another connection as little as connections that do not.
const BYTES_PER_TURN_OF_MANY: usize = 32;

/// Maximum time for a graceful close.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// The phases of a connection.
///
/// ```text
///            bytes           head complete         answer written
///   Idle ───────────► Head ────────────────► Busy ────────────────► Idle
///     └── too long ─► Ending ◄── too long ─────┘ (cut at once)
///                                  Busy ── answer without an end ──► Live ── not written ─► (cut)
///                                  Busy ── answer ready ──► Answering ── last piece taken ──► Answered
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has arrived since the last response.
    Idle,
    /// The head of a request is arriving; also the initial phase.
    Head,
    /// A request is being processed.
    Busy,
    /// The response is being written, and pieces of its body follow.
    Answering,
    /// The last piece of the response is being written.
    Answered,
    /// A response that has no end is being written.
    Live,
    /// actix-http sees the end of the input and closes gracefully.
    Ending,
}

/// A connection's phase and deadline. Shared by its stream, its requests and the future that ends
/// it.
pub(super) struct ConnectionWatch {
    place: ConnectionPlace,
    phase: Cell<Phase>,
    deadline: Cell<Instant>,
    /// The number of bytes that can still be read in this turn.
    readable: Cell<usize>,
    /// The number of requests that were complete in this turn.
    requests: Cell<usize>,
    /// Whether a turn had several requests, and more bytes have been waiting since.
    is_pipelining: Cell<bool>,
    /// Whether the caller has closed its direction of the connection.
    has_left: Cell<bool>,
    /// Whether the body of the present request may still be arriving.
    has_body: Cell<bool>,
    /// Whether the present call waits for others, for as long as its caller is there.
    is_waiting: Cell<bool>,
    /// When the present response is cut, whatever its caller takes.
    answer_by: Cell<Instant>,
    /// While the caller takes nothing of a response: how many bytes it has taken since.
    stalled: Cell<Option<usize>>,
}

impl ConnectionWatch {
    /// Starts to watch a connection before its first request.
    pub(super) fn new(place: ConnectionPlace) -> Rc<Self> {
        let deadline = Cell::new(Instant::now() + HEAD_TIMEOUT);
        Rc::new(Self {
            place,
            phase: Cell::new(Phase::Head),
            deadline,
            readable: Cell::new(BYTES_PER_TURN),
            requests: Cell::new(0),
            is_pipelining: Cell::new(false),
            has_left: Cell::new(false),
            has_body: Cell::new(false),
            is_waiting: Cell::new(false),
            answer_by: Cell::new(Instant::now()),
            stalled: Cell::new(None),
        })
    }

    /// Notes that the head of a request is complete, and whether a body follows it.
    pub(super) fn begin_answer(&self, has_body: bool) {
        self.has_body.set(has_body);
        self.requests.update(|requests| requests + 1);
        self.end_check();
        self.go_on(Phase::Busy, ANSWER_TIMEOUT);
        self.answer_by.set(self.deadline.get());
        self.stalled.set(None);
    }

    /// Notes that the response is ready and will be written.
    pub(super) fn end_answer(&self) {
        if self.phase.get() == Phase::Busy {
            self.place.set_waiting();
            self.phase.set(Phase::Answering);
        }
    }

    /// Notes that actix-http has taken the last piece of the body.
    pub(super) fn end_body(&self) {
        if self.phase.get() == Phase::Answering {
            self.phase.set(Phase::Answered);
        }
    }

    /// Notes that the response goes on until its caller leaves. The place is not given to others: the
    /// number of such calls has a limit of its own.
    pub(super) fn begin_live(&self) {
        self.place.set_busy();
        self.go_on(Phase::Live, LIVE_TIMEOUT);
    }

    fn note_written(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(bytes)) => self.has_written(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.has_stalled(),
        }
    }

    fn has_written(&self, bytes: usize) {
        if self.phase.get() == Phase::Live {
            self.deadline.set(Instant::now() + LIVE_TIMEOUT);
        }
        match self.stalled.get().map(|taken| taken + bytes) {
            Some(taken) if taken < PROGRESS_BYTES => self.stalled.set(Some(taken)),
            Some(_) => self.end_stall(),
            None => {}
        }
    }

    /// Notes that the caller does not read the answer.
    fn has_stalled(&self) {
        let is_answering = matches!(self.phase.get(), Phase::Answering | Phase::Answered);
        if is_answering && self.stalled.get().is_none() {
            self.stalled.set(Some(0));
            self.deadline.set(self.answer_by.get().min(Instant::now() + STALL_TIMEOUT));
        }
    }

    fn end_stall(&self) {
        if self.stalled.take().is_some() {
            self.deadline.set(self.answer_by.get());
        }
    }

    /// Limits the bytes of this turn, according to the last one.
    fn begin_turn(&self) {
        let has_more = self.readable.get() == 0;
        let is_pipelining = self.requests.take() > 1 || self.is_pipelining.get() && has_more;
        self.is_pipelining.set(is_pipelining);
        self.readable.set(if is_pipelining { BYTES_PER_TURN_OF_MANY } else { BYTES_PER_TURN });
    }

    fn has_read(&self) {
        if self.phase.get() == Phase::Idle {
            self.go_on(Phase::Head, HEAD_TIMEOUT);
        }
    }

    fn has_flushed(&self) {
        self.end_stall();
        if self.phase.get() == Phase::Answered {
            self.place.set_idle();
            self.go_on(Phase::Idle, self.place.idle_timeout());
        }
    }

    fn go_on(&self, phase: Phase, timeout: Duration) {
        self.phase.set(phase);
        self.deadline.set(Instant::now() + timeout);
    }

    /// Handles an expired deadline; returns whether the connection may close gracefully.
    fn has_farewell(&self) -> bool {
        match self.phase.get() {
            Phase::Idle | Phase::Head => {
                self.go_on(Phase::Ending, FAREWELL_TIMEOUT);
                true
            }
            // A caller that does not read a response would not read a graceful close either.
            Phase::Busy | Phase::Answering | Phase::Answered | Phase::Live | Phase::Ending => false,
        }
    }

    /// Drives a connection until it ends or is late. When its certificate is `distrusted`, the
    /// connection ends as soon as it is idle.
    pub(super) async fn keep(
        &self,
        connection: impl Future,
        distrusted: impl Future<Output = Option<()>>,
    ) {
        let mut connection = pin!(connection);
        let mut distrusted = pin!(distrusted.fuse());
        let mut is_trusted = true;
        let mut timer = pin!(sleep_until(self.deadline.get()));
        std::future::poll_fn(|cx| {
            // A new allowance of bytes: one caller with much input must not keep the thread.
            self.begin_turn();
            loop {
                // The connection first: it may change phase and deadline, which are judged below.
                if connection.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if is_trusted && matches!(distrusted.as_mut().poll(cx), Poll::Ready(Some(()))) {
                    is_trusted = false;
                }
                // An answer without an end ends with its caller, or with the trust in it; a call that
                // waits ends with its caller.
                let is_live = self.phase.get() == Phase::Live;
                let has_left = self.has_left.get() && (is_live || self.is_waiting.get());
                if has_left || is_live && !is_trusted {
                    return Poll::Ready(());
                }
                // An answer under way is completed; the connection ends before the next request.
                if !is_trusted && self.phase.get() == Phase::Idle {
                    self.go_on(Phase::Ending, FAREWELL_TIMEOUT);
                    continue;
                }
                // A postponed deadline costs nothing until the timer fires.
                if self.deadline.get() < timer.deadline() {
                    timer.as_mut().reset(self.deadline.get());
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if self.deadline.get() <= Instant::now() && !self.has_farewell() {
                    return Poll::Ready(());
                }
                timer.as_mut().reset(self.deadline.get());
            }
        })
        .await;
    }
}

impl CallPlace for ConnectionWatch {
    fn begin_check(&self) {
        self.place.set_asking();
    }

    fn end_check(&self) {
        match self.has_body.get() {
            true => self.place.set_waiting(),
            false => self.place.set_busy(),
        }
    }

    fn begin_wait(&self) {
        self.place.set_busy();
        self.is_waiting.set(true);
    }

    fn end_wait(&self) {
        self.is_waiting.set(false);
    }
}

/// The stream of a watched connection.
pub(super) struct WatchedStream<S> {
    stream: S,
    watch: Rc<ConnectionWatch>,
}

impl<S> WatchedStream<S> {
    pub(super) const fn new(stream: S, watch: Rc<ConnectionWatch>) -> Self {
        Self { stream, watch }
    }

    pub(super) const fn watch(&self) -> &Rc<ConnectionWatch> {
        &self.watch
    }

    pub(super) const fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.watch.phase.get() == Phase::Ending {
            return Poll::Ready(Ok(())); // as if the caller had closed it
        }
        let readable = self.watch.readable.get();
        // The allowance of this turn is used up; others run before this connection reads on.
        if readable == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut bytes = [MaybeUninit::uninit(); BYTES_PER_TURN];
        let most = readable.min(buf.remaining());
        let mut bytes = ReadBuf::uninit(&mut bytes[..most]);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut bytes);
        buf.put_slice(bytes.filled());
        self.watch.readable.set(readable - bytes.filled().len());
        // An empty read is the end of input only if there was room for a byte.
        if most > 0 && bytes.filled().is_empty() && matches!(read, Poll::Ready(Ok(()))) {
            self.watch.has_left.set(true);
        }
        if !bytes.filled().is_empty() {
            self.watch.has_read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch.note_written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch.note_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.watch.has_flushed(); // actix-http flushes after its last write
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
