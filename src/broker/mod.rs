//! The broker as a whole: how it is built, started, queried and shut down.
//!
//! [`Broker`] is the handle that an embedding application and the `hearthmq` program hold. It
//! creates no runtime and no logger, and never ends the process.

mod accepting;
mod access;
mod asking;
#[cfg(feature = "bridge")]
mod bridges;
mod builder;
mod certificates;
#[cfg(feature = "cluster")]
mod cluster;
mod control;
mod draining;
mod error;
mod follow;
mod here;
#[cfg(feature = "http")]
mod http;
mod listening;
mod many;
#[cfg(feature = "otlp")]
mod otlp;
mod recheck;
mod restoring;
mod settings;
mod shards;
#[doc(hidden)]
pub mod simulation;
#[cfg(test)]
mod tests;
mod topics;
mod traces;
#[cfg(feature = "accounts")]
mod users;
mod views;
#[cfg(feature = "webhooks")]
mod webhooks;
#[cfg(all(feature = "http", feature = "websocket"))]
mod websocket;

use std::{
    fmt,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::Addr;
use actix_rt::{Arbiter, ArbiterHandle};
use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_blocking,
};
use tokio_util::task::TaskTracker;

use self::{access::ChangesOfAccess, draining::Drain};
pub use self::{
    builder::Builder,
    error::{Error, PublishError, StartError},
};
use crate::{
    actors::{PublishMessage, Quiesce, Registry, Retire, Shutdown},
    auth::{Authenticator, Authorizer, ListenerLogins},
    control::{
        ChangeSettings, ClientSession, ClientViews, Clients, ControlError, KeepAliveChanged, Kick,
        KickOptions, Kicked, LiveClients, Redirect, Redirection, Redirects, SetKeepAlive,
        SettingsChange, SettingsChanged, SettingsOfClients,
    },
    metrics::{Metrics, TransportKind},
    mqtt::{PublicationBuilder, QoS, TopicError, validate_filter},
    net::{Arrival, IN_PROCESS, ListenerLimits, ListenerSettings, Whose, canonical, handshake},
    records::Records,
    shard::{Core, subscription::Subscription},
    transport::AnyStream,
};

/// How long a caller waits for an answer at most.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Rounds of [`Quiesce`] at shutdown. In each, a search for a member of a shared subscription may
/// move on to another shard: one round for each effort of a search. Few searches need more.
const QUIESCE_ROUNDS: usize = 3;

/// A running broker. Clones are handles to the same broker; it runs until [`Broker::shutdown`], or
/// until the last handle is dropped.
#[derive(Clone)]
pub struct Broker {
    running: Arc<Running>,
}

struct Running {
    core: Arc<Core>,
    /// The actors of the shards, in the order of the shards.
    registries: Vec<Addr<Registry>>,
    admission: Arc<ListenerLimits>,
    /// The threads of the shards, in the order of the shards.
    hosts: Vec<ArbiterHandle>,
    arbiters: Mutex<Vec<Arbiter>>,
    local_addrs: Vec<SocketAddr>,
    listener_urls: Vec<Arc<str>>,
    /// The settings of each listener, with a copy for each shard.
    listeners: Mutex<Vec<Vec<Arc<ArcSwap<ListenerSettings>>>>>,
    /// Gives each connection a token for as long as its stream is open.
    open: TaskTracker,
    is_ready: AtomicBool,
    under_way: CallsUnderWay,
    /// Where new clients are redirected.
    drain: Drain,
    #[cfg(feature = "bridge")]
    bridges: bridges::Bridges,
    #[cfg(feature = "cluster")]
    cluster: cluster::MembershipOfBroker,
    #[cfg(feature = "webhooks")]
    webhook_secrets: webhooks::SecretsOfWebhooks,
    #[cfg(feature = "otlp")]
    otlp: otlp::ExportOfBroker,
    access: ChangesOfAccess,
    /// The accounts in the store, if a source of the authenticator has them.
    #[cfg(feature = "accounts")]
    users: Option<users::Users>,
}

#[cfg(not(feature = "accounts"))]
impl Running {
    fn end_uses(&self) {}
}

/// Without accounts, there are none.
#[cfg(not(feature = "accounts"))]
impl crate::control::UserAccounts for Broker {}

/// Without bridges, there are none.
#[cfg(not(feature = "bridge"))]
impl crate::control::BridgeControl for Broker {}

/// The calls that have not been answered yet.
#[derive(Default)]
struct CallsUnderWay {
    questions: AtomicUsize,
    walks: AtomicUsize,
    waits: AtomicUsize,
    lists: AtomicUsize,
    evacuations: AtomicUsize,
}

impl Broker {
    /// Returns a builder. Without an authenticator and an authorizer no client may connect.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns the addresses to which the MQTT listeners are bound, in the order in which they were
    /// added; Unix sockets have none.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.running.local_addrs
    }

    /// Returns the URLs of the MQTT listeners with the addresses to which they are bound, in the
    /// order in which they were added. Rules, log and events name listeners by these URLs.
    #[must_use]
    pub fn listener_urls(&self) -> &[Arc<str>] {
        &self.running.listener_urls
    }

    /// Returns whether the broker accepts connections; `false` once it is shutting down.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.running.is_ready.load(Ordering::Acquire)
    }

    /// Returns whether durable messages are accepted: there is no store, or it can be written.
    #[must_use]
    pub fn is_storing(&self) -> bool {
        self.running.core.is_storing()
    }

    /// Waits until everything acknowledged so far is in the store, for `time_max` at most. Returns
    /// whether it is. Blocks the thread: must not be called on a thread that runs actors.
    #[must_use]
    pub fn flush_store(&self, time_max: Duration) -> bool {
        let core = &self.running.core;
        core.hand_over_audit();
        core.keeper.as_ref().is_none_or(|keeper| keeper.flush(time_max))
    }

    /// Returns the registry actor of the shard to which this client identifier belongs, for
    /// applications that use actix messages: it takes [`SetKeepAlive`], [`Kick`] and
    /// [`QueryOnline`](crate::actors::QueryOnline), about clients of this node alone.
    ///
    /// # Panics
    /// Never: a started broker has shards.
    #[must_use]
    pub fn registry(&self, client_id: &str) -> Addr<Registry> {
        let home = self.running.core.home(client_id);
        self.running.registries[usize::from(home.0)].clone()
    }

    /// Changes the Keep Alive of a live connection. The interval is in seconds.
    ///
    /// # Errors
    /// The client is not online or has Keep Alive turned off, or the broker cannot answer.
    pub async fn set_keep_alive(
        &self,
        client_id: &str,
        interval_secs: u16,
    ) -> Result<KeepAliveChanged, ControlError> {
        LiveClients::set_keep_alive(self, SetKeepAlive::new(client_id, interval_secs)).await
    }

    /// Returns whether a client is connected now.
    ///
    /// # Errors
    /// The broker cannot answer.
    pub async fn online(&self, client_id: &str) -> Result<bool, ControlError> {
        LiveClients::query_online(self, client_id).await
    }

    /// Returns the state of a client's session; `None` if there is no session.
    ///
    /// # Errors
    /// The broker cannot answer.
    pub async fn client(&self, client_id: &str) -> Result<Option<ClientSession>, ControlError> {
        ClientViews::client(self, client_id).await
    }

    /// Ends a client's connection as the options say. With [`KickOptions::default`] the session and
    /// the Will are treated as after any disconnection that the client did not ask for.
    ///
    /// # Errors
    /// The client is not online, or the broker cannot answer.
    pub async fn kick(
        &self,
        client_id: &str,
        options: KickOptions,
    ) -> Result<Kicked, ControlError> {
        LiveClients::kick(self, Kick::new(client_id, options)).await
    }

    /// Changes settings of a connected client, from its next packet on; returns those that it has
    /// then, and its node.
    ///
    /// # Errors
    /// The client is not online, a setting is invalid, or the broker cannot answer.
    pub async fn change_settings(
        &self,
        client_id: &str,
        change: SettingsChange,
    ) -> Result<SettingsChanged, ControlError> {
        SettingsOfClients::change_settings(self, ChangeSettings::new(client_id, change)).await
    }

    /// Changes the sticky settings of all clients with a user name, of connected ones from their next
    /// packet on; returns those that are stored then. Settings of a client come before those of its
    /// user.
    ///
    /// # Errors
    /// A setting is invalid, or the broker cannot store the settings.
    pub async fn change_user_settings(
        &self,
        username: &str,
        change: SettingsChange,
    ) -> Result<SettingsChanged, ControlError> {
        SettingsOfClients::change_settings(self, ChangeSettings::of_user(username, change)).await
    }

    /// Redirects clients to another server and returns how many were redirected. Their connections
    /// end with DISCONNECT and the Server Reference, if their MQTT version has these. Their
    /// sessions last as after any disconnection that the client did not ask for, and their Wills
    /// are published.
    ///
    /// Dropping the future stops it; clients that were redirected by then stay so, as after an
    /// error.
    ///
    /// # Errors
    /// The broker cannot answer, or four redirects of clients that match a pattern are under way
    /// already.
    pub async fn redirect(&self, clients: Clients, to: Redirection) -> Result<usize, ControlError> {
        Redirects::redirect(self, Redirect::new(clients, to)).await
    }

    /// Refuses CONNECT from now on and names another server; `None` admits clients again. Connected
    /// clients stay: [`Broker::redirect`] redirects them. This lasts over a restart if there is a
    /// store and it can be written; otherwise a log line says that it does not.
    pub async fn drain(&self, to: Option<Redirection>) {
        self.settle_drain(to);
        self.store_drain().await;
    }

    /// Publishes a message without properties in the broker's own name, as
    /// [`Broker::publish_with`] does.
    ///
    /// # Errors
    /// The topic is invalid, reserved for the broker, or exceeds the
    /// [`Limits`](crate::limits::Limits).
    pub async fn publish(
        &self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
    ) -> Result<(), PublishError> {
        self.publish_with(PublicationBuilder::new(topic, payload).qos(qos).retain(retain)).await
    }

    /// Publishes a message in the broker's own name; no authorizer is asked. With
    /// [`QueueFull::HoldPublisher`](crate::limits::QueueFull::HoldPublisher) it returns only when
    /// no subscriber that it must wait for has a full queue.
    ///
    /// # Errors
    /// The message is invalid, or its topic is reserved for the broker or exceeds the
    /// [`Limits`](crate::limits::Limits). Nothing is published.
    pub async fn publish_with(
        &self,
        publication: PublicationBuilder<'_>,
    ) -> Result<(), PublishError> {
        let core = &self.running.core;
        let message = Arc::new(publication.build(core.clock.now())?);
        if !core.allows_topic(message.topic()) {
            return Err(PublishError::TopicOverLimits);
        }
        let registry = self.registry(message.topic());
        registry.send(PublishMessage { message }).await.map_err(|_| PublishError::Stopped)
    }

    /// Subscribes the application itself, and returns immediately. Dropping the subscription ends it.
    /// Matching retained messages come first; they are read as the application takes them, however
    /// many there are.
    ///
    /// # Errors
    /// The filter is not a valid Topic Filter.
    pub fn subscribe(&self, filter: &str, qos: QoS) -> Result<Subscription, TopicError> {
        let core = &self.running.core;
        let parts = validate_filter(filter)?;
        Ok(Subscription::begin(core, parts, filter, qos))
    }

    /// Serves one MQTT client over any byte stream. Returns once the client's CONNECT has been
    /// accepted or refused; the connection then continues without the caller. It counts towards
    /// `connections_max` and `connecting_max`; the application enforces its own limits for one
    /// address. A stream that belongs to a reactor stays on the thread that created it, and that
    /// thread must keep running.
    pub async fn serve<S>(&self, stream: S, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Running { core, admission, open, .. } = &*self.running;
        // An IPv4 address in the form of IPv6 must not pass by bans and permissions of the address.
        let peer = canonical(peer);
        // This may be any thread, so it must not write the metrics of a shard.
        let count = |refused| {
            core.metrics.count_elsewhere(|cell| cell.connects_refused.increment(refused));
        };
        let (admitted, eviction) = match admission.enter_in_turn(Whose::PassedOnBy(peer.ip())).await
        {
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
        let handshake = pin!(handshake(arrival, core, &count));
        eviction.unless_evicted(handshake).await.unwrap_or_else(count);
    }

    /// Returns what checks credentials.
    #[must_use]
    pub fn authenticator(&self) -> Arc<dyn Authenticator> {
        self.running.core.authenticator.clone()
    }

    /// Returns what decides about permissions.
    #[must_use]
    pub fn authorizer(&self) -> Arc<dyn Authorizer> {
        self.running.core.authorizer.clone()
    }

    /// Returns the records: what operators and applications set, and a restart must not lose.
    #[must_use]
    pub fn records(&self) -> Arc<dyn Records> {
        self.running.core.records.clone()
    }

    /// Returns the metrics.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        self.running.core.metrics.clone()
    }

    /// Returns the number of connections that count towards the limits: those that are online,
    /// connecting or closing.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.running.admission.connections()
    }

    /// Stops accepting and reading, writes queued output to the sockets, disconnects MQTT 5.0
    /// clients with Server shutting down, and ends. After `deadline` all remaining connections are
    /// cut off.
    ///
    /// Messages that were acknowledged to their publishers are written to the connected
    /// subscribers, as far as their Receive Maximum allows. Once this returns, the broker's threads
    /// have ended and its addresses are free, unless the deadline has passed.
    pub async fn shutdown(&self, deadline: Duration) {
        let running = &self.running;
        running.is_ready.store(false, Ordering::Release);
        running.core.ending.cancel();
        running.open.close();
        let ended = async {
            let registries = &running.registries;
            for _ in 0..QUIESCE_ROUNDS {
                join_all(registries.iter().map(|registry| registry.send(Quiesce))).await;
            }
            // After all shards have read their last packets, so that none sends to a shard that has
            // ended.
            join_all(registries.iter().map(|registry| registry.send(Shutdown))).await;
            running.open.wait().await;
            let threads = running.end();
            running.core.end_history();
            running.core.hand_over_audit();
            running.end_uses();
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
            tracing::warn!("shutdown deadline passed; cutting off the remaining connections");
            running.end();
            running.core.end_history();
            running.core.hand_over_audit();
            running.end_uses();
            if let Some(keeper) = running.core.keeper.clone() {
                let _ = spawn_blocking(move || keeper.stop()).await;
            }
        }
        #[cfg(feature = "cluster")]
        running.end_cluster();
        #[cfg(feature = "otlp")]
        running.end_otlp().await;
    }
}

impl Running {
    /// Ends everything at once. Returns the threads, which end soon.
    fn end(&self) -> Vec<Arbiter> {
        self.is_ready.store(false, Ordering::Release);
        self.core.ending.cancel();
        for registry in &self.registries {
            registry.do_send(Retire);
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

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("listeners", &self.running.listener_urls)
            .field("is_ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}
