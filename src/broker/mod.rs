//! The broker as a whole: built, started, asked, shut down.
//!
//! [`Broker`] is what an application that embeds HearthMQ holds, and what the binary holds too.
//! It makes no runtime and no logger, and never ends the process.

mod builder;
mod draining;
mod many;
mod recheck;
mod settings;
#[cfg(test)]
mod tests;
mod websocket;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::{Addr, MailboxError};
use actix_rt::{Arbiter, ArbiterHandle};
use actix_web::web::ServiceConfig;
use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_blocking,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::builder::{Builder, StartError};
use self::draining::Draining;
use crate::{
    actors::{
        AnyStream, ClientSession, Core, InProcess, Kick, Kicked, PublishMessage, QueryClient,
        QueryOnline, Quiesce, Registry, Retire, Shutdown, Subscription, WillRequest,
    },
    auth::{Authenticator, Authorizer, ListenerLogins},
    control::{
        Clients, Control, ControlError, KeepAliveChanged, Redirect, Redirection, SetKeepAlive,
    },
    http::{self, ApiOptions},
    metrics::{Metrics, TransportKind},
    mqtt::{Message, Publication, QoS, TopicError, validate_filter, validate_topic},
    net::{Admission, Arrival, IN_PROCESS, Whose, canonical, handshake},
};

/// Whoever asks waits so long for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Questions that may be under way at once; one more is refused rather than queued.
const QUESTIONS_MAX: usize = 16 * 1024;
/// Walks along all clients that may be under way at once.
const WALKS_MAX: usize = 4;
/// In each of these rounds a search for a member of a shared subscription may go on to another
/// shard: one for each effort that it makes. Few go further.
const QUIESCE_ROUNDS: usize = 3;

/// A running broker. Clones are handles to the same one; it runs until [`Broker::shutdown`], or
/// until the last handle is dropped.
#[derive(Clone)]
pub struct Broker {
    running: Arc<Running>,
}

struct Running {
    core: Arc<Core>,
    admission: Arc<Admission>,
    /// The threads of the shards, in their order.
    hosts: Vec<ArbiterHandle>,
    arbiters: Mutex<Vec<Arbiter>>,
    local_addrs: Vec<SocketAddr>,
    listener_urls: Vec<Arc<str>>,
    stop: CancellationToken,
    /// Every connection holds a token while its stream is open.
    open: TaskTracker,
    is_ready: AtomicBool,
    questions: AtomicUsize,
    walks: AtomicUsize,
    evacuations: AtomicUsize,
}

impl Broker {
    /// A broker to be configured. Nobody may connect until an authenticator and an authorizer are
    /// given.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The addresses that the MQTT listeners are bound to, in the order in which they were given;
    /// Unix sockets have none.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.running.local_addrs
    }

    /// The URLs of the MQTT listeners with the addresses that they are bound to, in the order in
    /// which they were given. Rules, log and events name listeners by them.
    #[must_use]
    pub fn listener_urls(&self) -> &[Arc<str>] {
        &self.running.listener_urls
    }

    /// Whether the broker takes connections; not once it is shutting down.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.running.is_ready.load(Ordering::Acquire)
    }

    /// Whether durable messages are taken: there is no store, or it can be written.
    #[must_use]
    pub fn is_storing(&self) -> bool {
        self.running.core.is_storing()
    }

    /// Waits until all that was acknowledged so far is in the store, for so long at most; whether it is.
    /// Blocks the thread: not to be called where actors run.
    #[must_use]
    pub fn flush_store(&self, time_max: Duration) -> bool {
        self.running.core.keeper.as_ref().is_none_or(|keeper| keeper.flush(time_max))
    }

    /// The registry actor of the shard where this client identifier lives, for applications that
    /// speak actix: it takes [`SetKeepAlive`], [`QueryOnline`] and [`Kick`].
    ///
    /// # Panics
    /// Never: a broker that has started has shards.
    #[must_use]
    pub fn registry(&self, client_id: &str) -> Addr<Registry> {
        let core = &self.running.core;
        let shard = core.shard(core.home(client_id)).expect("a broker that has started has shards");
        shard.registry.clone()
    }

    /// Changes the Keep Alive of a live connection. The interval is in seconds.
    ///
    /// # Errors
    /// If the client is not online or has Keep Alive turned off, or the broker cannot answer.
    pub async fn set_keep_alive(
        &self,
        client_id: &str,
        interval_secs: u16,
    ) -> Result<KeepAliveChanged, ControlError> {
        let client_id = client_id.to_owned();
        Control::set_keep_alive(self, SetKeepAlive { client_id, interval_secs, by: None }).await
    }

    /// Whether a client is connected now.
    ///
    /// # Errors
    /// If the broker cannot answer.
    pub async fn online(&self, client_id: &str) -> Result<bool, ControlError> {
        let question = QueryOnline { client_id: client_id.to_owned() };
        self.ask(self.registry(client_id).send(question).timeout(ANSWER_TIME_MAX)).await
    }

    /// What is known of a client's session; `None` if there is none.
    ///
    /// # Errors
    /// If the broker cannot answer.
    pub async fn client(&self, client_id: &str) -> Result<Option<ClientSession>, ControlError> {
        let question = QueryClient { client_id: client_id.to_owned() };
        self.ask(self.registry(client_id).send(question).timeout(ANSWER_TIME_MAX)).await
    }

    /// Ends a client's connection, and its session if so asked.
    ///
    /// # Errors
    /// If the client is not online, or the broker cannot answer.
    pub async fn kick(
        &self,
        client_id: &str,
        end_session: bool,
        will: WillRequest,
    ) -> Result<Kicked, ControlError> {
        let question = Kick { client_id: client_id.to_owned(), end_session, will };
        self.ask(self.registry(client_id).send(question).timeout(ANSWER_TIME_MAX)).await?
    }

    /// Sends clients to another server: their connections end with DISCONNECT and the Server
    /// Reference, where their version has that. Their sessions last as after any other end that
    /// a client has not asked for, and their Wills are due. How many it were.
    ///
    /// Dropping the future ends it; those that were sent away by then have gone, as after an error.
    ///
    /// # Errors
    /// If the broker cannot answer, or is at four of these for clients that match a pattern.
    pub async fn redirect(&self, clients: Clients, to: Redirection) -> Result<usize, ControlError> {
        Control::redirect(self, Redirect { clients, to, only: None }).await
    }

    /// Refuses CONNECT from now on and names another server; with `None`, takes clients again.
    /// Those that are connected stay: [`Broker::redirect`] sends them away.
    pub fn drain(&self, to: Option<Redirection>) {
        self.running.core.draining.store(to.map(Arc::new));
    }

    /// Publishes a message in the broker's own name. With
    /// [`QueueFull::HoldPublisher`](crate::limits::QueueFull::HoldPublisher) it returns when no
    /// subscriber's queue is full any more that would have to be waited for.
    ///
    /// # Errors
    /// If the topic is not a valid Topic Name, or is over the [`Limits`](crate::limits::Limits).
    pub async fn publish(
        &self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
    ) -> Result<(), PublishError> {
        validate_topic(topic)?;
        if !self.running.core.limits.allows_topic(topic) {
            return Err(PublishError::TopicOverLimits);
        }
        let publication =
            Publication { topic, payload, qos, retain, properties: &[], expires_at: None };
        let message = PublishMessage { message: Arc::new(Message::new(&publication)) };
        self.registry(topic).send(message).await.map_err(|_| PublishError::Stopped)
    }

    /// Subscribes the application itself. Dropping the subscription ends it.
    ///
    /// # Errors
    /// If the filter is not a valid Topic Filter.
    pub fn subscribe(&self, filter: &str, qos: QoS) -> Result<Subscription, TopicError> {
        let core = &self.running.core;
        let parts = validate_filter(filter)?;
        Ok(InProcess::subscribe(core, parts, filter, qos, core.clock.now()))
    }

    /// Serves one MQTT client over any byte stream. Returns once the client's CONNECT has been
    /// accepted or refused; the connection goes on by itself. It counts in
    /// `connections_max` and `connecting_max`; the limits of one address are left to the application. A stream that belongs to a reactor
    /// stays with the thread that made it, which must go on running.
    pub async fn serve<S>(&self, stream: S, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Running { core, admission, stop, open, .. } = &*self.running;
        let peer = canonical(peer);
        // The thread is any, so that no shard's cell may be written.
        let count = |refused| {
            core.metrics.count_elsewhere(|cell| cell.connects_refused.increment(refused));
        };
        let (admitted, eviction) = match admission.enter(Whose::PassedOnBy(peer.ip())) {
            Ok(admitted) => admitted,
            Err(refused) => return count(refused),
        };
        core.metrics
            .count_elsewhere(|cell| cell.sockets_accepted.increment(TransportKind::InProcess));
        let arrival = Arrival {
            transport: Box::new(AnyStream(stream)),
            peer,
            listener: IN_PROCESS.into(),
            logins: ListenerLogins::default(),
            certificate: Ok(None),
            connect_by: core.connect_by(),
            came_to: None,
            admitted,
            open: open.token(),
        };
        tokio::select! {
            () = stop.cancelled() => {}
            outcome = eviction.unless_evicted(handshake(arrival, core, &count)) => {
                outcome.unwrap_or_else(count);
            }
        }
    }

    /// Who checks credentials.
    #[must_use]
    pub fn authenticator(&self) -> Arc<dyn Authenticator> {
        self.running.core.authenticator.clone()
    }

    /// Who decides about permissions.
    #[must_use]
    pub fn authorizer(&self) -> Arc<dyn Authorizer> {
        self.running.core.authorizer.clone()
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        self.running.core.metrics.clone()
    }

    /// The REST interface, to be mounted into the application's own actix-web `App`:
    /// `App::new().configure(broker.http_routes())`.
    pub fn http_routes(&self) -> impl FnOnce(&mut ServiceConfig) + Clone + Send + 'static {
        http::routes(self.api(&ApiOptions::default()))
    }

    /// Connections that count against the limits: those online and those on their way in or out.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.running.admission.connections()
    }

    /// Stops accepting and reading, writes what is queued to the sockets, tells MQTT 5.0 clients
    /// Server shutting down, and ends. After `deadline` whatever is left is cut off.
    ///
    /// Messages that were acknowledged to their publishers are written to the subscribers that
    /// are connected, as far as their Receive Maximum allows. Once this returns, the broker's
    /// threads have ended and its addresses are free, unless the deadline has passed.
    pub async fn shutdown(&self, deadline: Duration) {
        let running = &self.running;
        running.is_ready.store(false, Ordering::Release);
        running.stop.cancel();
        running.open.close();
        let ended = async {
            let shards = running.core.shards();
            for _ in 0..QUIESCE_ROUNDS {
                join_all(shards.iter().map(|shard| shard.registry.send(Quiesce))).await;
            }
            join_all(shards.iter().map(|shard| shard.registry.send(Shutdown))).await;
            running.open.wait().await;
            let threads = running.end();
            let keeper = running.core.keeper.clone();
            let joined = spawn_blocking(move || {
                let _ = threads.into_iter().try_for_each(Arbiter::join);
                if let Some(keeper) = keeper {
                    keeper.stop();
                }
            });
            let _ = joined.await;
        };
        if tokio::time::timeout(deadline, ended).await.is_err() {
            tracing::warn!("shutdown deadline passed, connections are cut off");
            running.end();
            if let Some(keeper) = running.core.keeper.clone() {
                let _ = spawn_blocking(move || keeper.stop()).await;
            }
        }
    }

    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, MailboxError>>,
    ) -> Result<T, ControlError> {
        if !self.is_ready() {
            return Err(ControlError::Unavailable);
        }
        let _asking = Asking::new(&self.running.questions, QUESTIONS_MAX)?;
        question.await.map_err(|error| match error {
            MailboxError::Closed => ControlError::Unavailable,
            MailboxError::Timeout => ControlError::Timeout,
        })
    }

    /// A place among the walks that are under way, if one is needed.
    fn walking(&self, request: &Redirect) -> Result<Option<Asking<'_>>, ControlError> {
        match request.clients {
            Clients::One(_) => Ok(None),
            Clients::Matching(_) => Asking::new(&self.running.walks, WALKS_MAX).map(Some),
        }
    }

    async fn send_away(&self, request: Redirect) -> Result<usize, ControlError> {
        let shards = self.running.core.shards();
        let homes: Vec<_> = match &request.clients {
            Clients::One(client_id) => vec![self.registry(client_id)],
            Clients::Matching(_) => shards.iter().map(|shard| shard.registry.clone()).collect(),
        };
        let asked = homes.into_iter().map(|registry| {
            let redirected = registry.send(request.clone()).timeout(ANSWER_TIME_MAX);
            self.ask(redirected)
        });
        Ok(try_join_all(asked).await?.into_iter().sum())
    }
}

/// A question that is under way; also when whoever asked has gone.
struct Asking<'a>(&'a AtomicUsize);

impl<'a> Asking<'a> {
    fn new(questions: &'a AtomicUsize, max: usize) -> Result<Self, ControlError> {
        let before = questions.fetch_add(1, Ordering::Relaxed);
        let asking = Self(questions);
        if before < max { Ok(asking) } else { Err(ControlError::Unavailable) }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Control for Broker {
    async fn set_keep_alive(
        &self,
        request: SetKeepAlive,
    ) -> Result<KeepAliveChanged, ControlError> {
        let registry = self.registry(&request.client_id);
        self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await?
    }

    async fn query_online(&self, client_id: &str) -> Result<bool, ControlError> {
        self.online(client_id).await
    }

    async fn query_each_online(&self, client_ids: Vec<String>) -> Vec<Result<bool, ControlError>> {
        Self::query_each_online(self, client_ids).await
    }

    async fn set_each_keep_alive(
        &self,
        requests: Vec<SetKeepAlive>,
    ) -> Vec<Result<KeepAliveChanged, ControlError>> {
        Self::set_each_keep_alive(self, requests).await
    }

    async fn redirect(&self, request: Redirect) -> Result<usize, ControlError> {
        let _walking = self.walking(&request)?;
        self.send_away(request).await
    }

    async fn evacuate(&self, request: Redirect) -> Result<usize, ControlError> {
        let _walking = self.walking(&request)?; // first, as nobody is to be refused in vain
        let draining = Draining::begin(&self.running, &request.to)?;
        let redirected = self.send_away(request).await?;
        draining.stay();
        Ok(redirected)
    }

    fn drain(&self, to: Option<Redirection>) {
        Self::drain(self, to);
    }

    fn drained_to(&self) -> Option<Redirection> {
        self.running.core.draining.load_full().map(Arc::unwrap_or_clone)
    }

    fn is_ready(&self) -> bool {
        Self::is_ready(self)
    }

    fn is_storing(&self) -> bool {
        Self::is_storing(self)
    }
}

impl Running {
    /// Ends everything at once; the threads that will end now.
    fn end(&self) -> Vec<Arbiter> {
        self.is_ready.store(false, Ordering::Release);
        self.stop.cancel();
        for shard in self.core.shards() {
            shard.registry.do_send(Retire);
        }
        let mut arbiters = self.arbiters.lock().unwrap_or_else(PoisonError::into_inner);
        for arbiter in &*arbiters {
            arbiter.stop();
        }
        std::mem::take(&mut *arbiters)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        if let Some(keeper) = &self.core.keeper {
            keeper.end();
        }
    }
}

/// Why a message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not a Topic Name.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Longer than `topic_bytes_max` or deeper than `topic_levels_max`.
    #[error("topic is longer or deeper than the broker's limits allow")]
    TopicOverLimits,
    /// The broker has been shut down.
    #[error("broker has been shut down")]
    Stopped,
}
