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
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has arrived since the last response.
    Idle,
    /// The head of a request is arriving; also the initial phase.
    Head,
    /// A request is being processed.
    Busy,
    /// The response is being written.
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
        })
    }

    /// Notes that the head of a request is complete, and whether a body follows it.
    pub(super) fn begin_answer(&self, has_body: bool) {
        self.has_body.set(has_body);
        self.requests.update(|requests| requests + 1);
        self.end_check();
        self.go_on(Phase::Busy, ANSWER_TIMEOUT);
    }

    /// Notes that the response is ready and will be written.
    pub(super) fn end_answer(&self) {
        if self.phase.get() == Phase::Busy {
            self.place.set_waiting();
            self.phase.set(Phase::Answered);
        }
    }

    /// Notes that the response goes on until its caller leaves. The place is not given to others: the
    /// number of such calls has a limit of its own.
    pub(super) fn begin_live(&self) {
        self.place.set_busy();
        self.go_on(Phase::Live, LIVE_TIMEOUT);
    }

    fn has_written(&self) {
        if self.phase.get() == Phase::Live {
            self.deadline.set(Instant::now() + LIVE_TIMEOUT);
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
            Phase::Busy | Phase::Answered | Phase::Live | Phase::Ending => false,
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
            self.begin_turn();
            loop {
                if connection.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if is_trusted && matches!(distrusted.as_mut().poll(cx), Poll::Ready(Some(()))) {
                    is_trusted = false;
                }
                // An answer without an end ends with its caller, or with the trust in it.
                if self.phase.get() == Phase::Live && (self.has_left.get() || !is_trusted) {
                    return Poll::Ready(());
                }
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
        if matches!(written, Poll::Ready(Ok(_))) {
            self.watch.has_written();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if matches!(written, Poll::Ready(Ok(_))) {
            self.watch.has_written();
        }
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
mod tests {
    use std::{
        future::ready,
        net::{IpAddr, Ipv4Addr},
        sync::Arc,
    };

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split},
        task::{unconstrained, yield_now},
        time::sleep,
    };

    use super::{
        super::{ServerOptions, places::Places},
        *,
    };
    use crate::net::Whose;

    const CALLER: Whose = Whose::Of(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));

    /// Runs a test on virtual time.
    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    fn places(connections_max: usize) -> Arc<Places> {
        Arc::new(Places::new(&ServerOptions { connections_max, ..ServerOptions::default() }))
    }

    /// Returns the caller's end of a connection that answers each line with `answer`.
    fn connect(places: &Arc<Places>, answer: &'static [u8]) -> DuplexStream {
        let (caller, stream) = duplex(1_024);
        let watch = ConnectionWatch::new(places.admit_now(CALLER).unwrap());
        let stream = WatchedStream::new(stream, Rc::clone(&watch));
        tokio::task::spawn_local(async move {
            watch.keep(speak(stream, answer), ready(None)).await;
        });
        caller
    }

    async fn speak(stream: WatchedStream<DuplexStream>, answer: &[u8]) {
        let watch = Rc::clone(stream.watch());
        let (mut input, mut output) = split(stream);
        while let Ok(byte) = input.read_u8().await {
            if byte == b'\n' {
                watch.begin_answer(false);
                watch.end_answer();
                output.write_all(answer).await.unwrap();
                output.flush().await.unwrap();
            }
        }
    }

    async fn ask(caller: &mut DuplexStream) {
        caller.write_all(b"request\n").await.unwrap();
        assert_eq!(caller.read_u8().await.unwrap(), b'!');
    }

    /// Returns the seconds until the other end closes.
    async fn secs_to_end(caller: &mut DuplexStream) -> u64 {
        let began = Instant::now();
        let mut rest = Vec::new();
        drop(caller.read_to_end(&mut rest).await);
        began.elapsed().as_secs()
    }

    #[test]
    fn the_first_head_has_its_time_from_the_beginning() {
        run(async {
            assert_eq!(secs_to_end(&mut connect(&places(8), b"!")).await, 5);
        });
    }

    #[test]
    fn each_later_head_has_its_time_from_its_first_byte_and_no_byte_puts_it_off() {
        run(async {
            let mut caller = connect(&places(8), b"!");
            for _ in 0..3 {
                ask(&mut caller).await;
                sleep(Duration::from_secs(60)).await;
            }
            let began = Instant::now();
            while caller.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
            assert_eq!(began.elapsed().as_secs(), 6, "five seconds, and the write that notices");
        });
    }

    #[test]
    fn an_idle_connection_stays_for_a_while_and_shorter_while_places_are_few() {
        run(async {
            let roomy = places(8);
            let mut caller = connect(&roomy, b"!");
            ask(&mut caller).await;
            assert_eq!(secs_to_end(&mut caller).await, 75);

            let mut callers: Vec<_> = (0..6).map(|_| connect(&roomy, b"!")).collect();
            ask(&mut callers[0]).await;
            assert_eq!(secs_to_end(&mut callers[0]).await, 5);
        });
    }

    #[test]
    fn a_caller_that_does_not_take_its_answer_is_cut_off() {
        run(async {
            let places = places(8);
            let mut caller = connect(&places, &[b'!'; 4_096]);
            caller.write_all(b"request\n").await.unwrap();
            sleep(ANSWER_TIMEOUT - Duration::from_secs(1)).await;
            assert!(caller.write_all(b"x").await.is_ok());
            sleep(Duration::from_secs(2)).await;
            assert!(caller.write_all(b"x").await.is_err());
        });
    }

    #[test]
    fn a_caller_that_sends_very_many_requests_at_once_lets_others_go_first_now_and_then() {
        run(async {
            let (mut caller, stream) = duplex(10 * BYTES_PER_TURN);
            caller.write_all(&[b'x'; 10 * BYTES_PER_TURN]).await.unwrap();
            drop(caller);
            let watch = ConnectionWatch::new(places(8).admit_now(CALLER).unwrap());
            let mut stream = WatchedStream::new(stream, Rc::clone(&watch));
            let reading = async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                assert_eq!(all.len(), 10 * BYTES_PER_TURN);
            };
            let mut connection = pin!(watch.keep(reading, ready(None)));
            let mut turns = 0;
            while futures_util::poll!(connection.as_mut()).is_pending() {
                turns += 1;
                yield_now().await;
            }
            assert_eq!(turns, 10);
        });
    }

    #[test]
    fn a_caller_that_pipelines_requests_has_a_turn_for_each_until_it_pauses() {
        run(async {
            let request = [&[b'x'; BYTES_PER_TURN_OF_MANY - 1][..], b"\n"].concat();
            let watch = ConnectionWatch::new(places(8).admit_now(CALLER).unwrap());
            let (mut caller, stream) = duplex(100 * BYTES_PER_TURN);
            let stream = WatchedStream::new(stream, Rc::clone(&watch));
            let connection = watch.keep(speak(stream, b"!"), ready(None));
            let mut connection = pin!(unconstrained(connection));
            let mut answers = [0; 100];
            let first = BYTES_PER_TURN / BYTES_PER_TURN_OF_MANY;
            for _ in 0..2 {
                caller.write_all(&request.repeat(100)).await.unwrap();
                assert!(futures_util::poll!(connection.as_mut()).is_pending());
                assert_eq!(caller.read(&mut answers).await.unwrap(), first);
                for _ in first..100 {
                    assert!(futures_util::poll!(connection.as_mut()).is_pending());
                    assert_eq!(caller.read(&mut answers).await.unwrap(), 1);
                }
                assert!(futures_util::poll!(connection.as_mut()).is_pending(), "a pause");
            }
        });
    }
}
