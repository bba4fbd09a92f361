//! The vocabulary of the dialogues: a world with a broker, and clients that state what they send
//! and what they expect, packet by packet.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use hearthmq::{
    Broker,
    auth::{AllowAll, AuthenticationError, Authenticator, Authorizer, Credentials, Identity},
    broker::Builder,
    limits::Limits,
    metrics::ConnectRefusal,
    store::MemoryStore,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::Notify,
};

thread_local! {
    /// Each test has a thread of its own.
    static IS_TIME_PAUSED: Cell<bool> = const { Cell::new(false) };
}

/// Pauses the time of this test if an earlier broker has not done so.
pub(crate) fn pause_time() {
    if !IS_TIME_PAUSED.replace(true) {
        tokio::time::pause();
    }
}

/// Starts a broker on this thread and on virtual time: whenever everything waits, the clock jumps
/// to the next event.
pub async fn world() -> Broker {
    world_with(|builder| builder).await
}

/// Does the same with configuration.
pub async fn world_with(configure: impl FnOnce(Builder) -> Builder) -> Broker {
    pause_time();
    configure(builder()).start().await.unwrap()
}

/// Returns a builder for a broker on this thread that admits every client. It has a store, like the
/// program.
pub fn builder() -> Builder {
    Broker::builder()
        .on_current_arbiter()
        .store(MemoryStore::default())
        .limits(generous())
        .authenticator(AllowAll)
        .authorizer(AllowAll)
}

/// Starts a broker on virtual time with limits of the test.
pub async fn world_within(change: impl FnOnce(&mut Limits)) -> Broker {
    let mut limits = generous();
    change(&mut limits);
    world_with(|builder| builder.limits(limits)).await
}

/// Returns limits that no test reaches by accident.
pub fn generous() -> Limits {
    Limits { connects_per_address_per_sec: 0, connections_max: 1_000_000, ..Limits::default() }
}

/// Does the same without a store, so that all queues are in memory.
pub async fn forgetful_world_within(change: impl FnOnce(&mut Limits)) -> Broker {
    let mut limits = generous();
    change(&mut limits);
    pause_time();
    let builder = Broker::builder().on_current_arbiter();
    let builder = builder.limits(limits).authenticator(AllowAll).authorizer(AllowAll);
    builder.start().await.unwrap()
}

/// Starts a broker with this authorizer.
pub async fn world_where(authorizer: impl Authorizer) -> Broker {
    world_with(|builder| builder.authorizer(authorizer)).await
}

/// Checks credentials without end, and says when it begins.
#[derive(Clone, Default)]
pub struct Undecided(Arc<Notify>);

impl Undecided {
    pub async fn is_asked(&self) {
        self.0.notified().await;
    }
}

#[async_trait]
impl Authenticator for Undecided {
    async fn authenticate(&self, _: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        self.0.notify_one();
        std::future::pending().await
    }
}

/// Returns how many connections were refused for this reason, on all threads.
pub fn refused(broker: &Broker, reason: ConnectRefusal) -> u64 {
    let metrics = broker.metrics();
    metrics.shards().map(|shard| shard.connects_refused.of(reason).value()).sum()
}

/// Opens a stream to the broker.
pub fn stream(broker: &Broker) -> DuplexStream {
    stream_of(broker, 1 << 20)
}

/// Opens a stream that holds this many bytes in each direction.
pub fn stream_of(broker: &Broker, bytes: usize) -> DuplexStream {
    let (here, there) = tokio::io::duplex(bytes);
    let broker = broker.clone();
    actix_rt::spawn(async move {
        broker.serve(there, "192.0.2.7:40000".parse().unwrap()).await;
    });
    here
}

/// Opens a stream that, after the first bytes, does not wake the broker when it has more; the
/// broker finds them when it reads, as with a socket whose reactor has not run yet.
pub fn stream_that_wakes_nobody(broker: &Broker) -> DuplexStream {
    let (here, there) = tokio::io::duplex(1 << 20);
    let broker = broker.clone();
    actix_rt::spawn(async move {
        let quiet = Quiet { stream: there, has_woken: false };
        broker.serve(quiet, "192.0.2.7:40000".parse().unwrap()).await;
    });
    here
}

struct Quiet {
    stream: DuplexStream,
    has_woken: bool,
}

impl AsyncRead for Quiet {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut nobody = Context::from_waker(Waker::noop());
        let task = if self.has_woken { &mut nobody } else { task };
        let polled = Pin::new(&mut self.stream).poll_read(task, buffer);
        self.has_woken |= polled.is_ready();
        polled
    }
}

impl AsyncWrite for Quiet {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

/// Lets this much virtual time pass.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Seconds.
pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Milliseconds.
pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
