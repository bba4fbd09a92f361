//! Builds and starts a broker.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use actix_rt::{Arbiter, ArbiterHandle, System};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

#[cfg(feature = "bridge")]
use super::bridges::check as check_bridges;
#[cfg(feature = "accounts")]
use super::users::Users;
use super::{
    Broker, CallsUnderWay, Running, StartError, access::ChangesOfAccess, draining::Drain,
    restoring::aside, shards::Threads, simulation::SimulatedShards,
};
#[cfg(feature = "accounts")]
use crate::auth::StoredUsers;
#[cfg(feature = "bridge")]
use crate::bridge::{Bridge, BridgeAuthorizer, BridgeMethod, Dial, Granted, InProcessDial};
#[cfg(feature = "websocket")]
use crate::net::WebSocketOptions;
#[cfg(feature = "tls")]
use crate::net::tls::TlsSource;
#[cfg(feature = "otlp")]
use crate::otlp::{Otlp, PreparedOtlp};
#[cfg(feature = "webhooks")]
use crate::webhooks::{Webhook, check_names};
use crate::{
    auth::{Authenticator, Authorizer, DenyAll, EnhancedAuthenticator, Methods},
    durable::SyncPolicy,
    hooks::Hooks,
    limits::Limits,
    metrics::Metrics,
    mqtt::validate_topic,
    net::{BindError, Bound, Listener, ListenerLimits, bind},
    shard::{Core, CoreParts},
    store::Store,
    told::{ClientLines, Told},
};

/// The configuration of a broker. Without an authenticator and an authorizer no client is admitted.
#[must_use]
pub struct Builder {
    node: Arc<str>,
    response_topic_prefix: Box<str>,
    listeners: Vec<Listener>,
    shards: usize,
    threads: Threads,
    limits: Limits,
    authenticator: Arc<dyn Authenticator>,
    methods: Methods,
    authorizer: Arc<dyn Authorizer>,
    hooks: Vec<Box<dyn Hooks>>,
    store: Option<Arc<dyn Store>>,
    sync: SyncPolicy,
    sys_interval: Duration,
    client_lines: ClientLines,
    #[cfg(feature = "bridge")]
    bridges: Vec<Bridge>,
    #[cfg(feature = "cluster")]
    cluster: Option<crate::cluster::joining::ClusterSettings>,
    #[cfg(feature = "bridge")]
    bridge_dial: Option<Arc<dyn Dial>>,
    #[cfg(feature = "webhooks")]
    webhooks: Vec<Webhook>,
    #[cfg(feature = "otlp")]
    otlp: Option<Otlp>,
    #[cfg(feature = "accounts")]
    stored_users: Option<Arc<StoredUsers>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            node: "hearthmq".into(),
            response_topic_prefix: "".into(),
            listeners: Vec::new(),
            shards: 0,
            threads: Threads::default(),
            limits: Limits::default(),
            // Nothing is allowed until the application says what is.
            authenticator: Arc::new(DenyAll),
            methods: Methods::default(),
            authorizer: Arc::new(DenyAll),
            hooks: Vec::new(),
            store: None,
            sync: SyncPolicy::default(),
            sys_interval: Duration::from_secs(10),
            client_lines: ClientLines::default(),
            #[cfg(feature = "bridge")]
            bridges: Vec::new(),
            #[cfg(feature = "cluster")]
            cluster: None,
            #[cfg(feature = "bridge")]
            bridge_dial: None,
            #[cfg(feature = "webhooks")]
            webhooks: Vec::new(),
            #[cfg(feature = "otlp")]
            otlp: None,
            #[cfg(feature = "accounts")]
            stored_users: None,
        }
    }
}

impl Builder {
    /// Sets the broker's name in events.
    pub fn node(mut self, name: &str) -> Self {
        self.node = name.into();
        self
    }

    /// Sets the prefix of Response Topics. An MQTT 5.0 client that requests Response Information
    /// gets this prefix, its client identifier and a slash. It gets none without a prefix, which is
    /// the default, or if its identifier is not a valid level of a topic. The authorizer decides
    /// what the client may do there.
    pub fn response_topic_prefix(mut self, prefix: &str) -> Self {
        self.response_topic_prefix = prefix.into();
        self
    }

    /// Sets which `tracing` events about clients are emitted (target `hearthmq::clients`).
    pub const fn client_lines(mut self, lines: ClientLines) -> Self {
        self.client_lines = lines;
        self
    }

    /// Listens for MQTT over TCP; port 0 lets the operating system choose.
    pub fn tcp(self, address: impl Into<String>) -> Self {
        self.listen(Listener::tcp(address))
    }

    /// Listens for MQTT over TLS.
    #[cfg(feature = "tls")]
    pub fn tls(self, address: impl Into<String>, tls: impl Into<TlsSource>) -> Self {
        self.listen(Listener::tls(address, tls))
    }

    /// Listens for MQTT over WebSocket, at the path `/mqtt`.
    #[cfg(feature = "websocket")]
    pub fn websocket(self, address: impl Into<String>) -> Self {
        self.listen(Listener::websocket(address, WebSocketOptions::default()))
    }

    /// Listens for MQTT over WebSocket over TLS, at the path `/mqtt`.
    #[cfg(all(feature = "tls", feature = "websocket"))]
    pub fn secure_websocket(self, address: impl Into<String>, tls: impl Into<TlsSource>) -> Self {
        self.listen(Listener::secure_websocket(address, tls, WebSocketOptions::default()))
    }

    /// Listens for MQTT over a Unix socket, for its owner and its group.
    pub fn unix(self, path: impl Into<PathBuf>) -> Self {
        self.listen(Listener::unix(path))
    }

    /// Listens with a full description of a listener: with a path, permissions, a PROXY header.
    pub fn listen(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Sets the number of threads for sessions; 0, the default, is one for each core.
    pub const fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// Runs as one shard on this thread's arbiter, without threads of its own for sessions. With a
    /// paused tokio clock the whole broker then runs on virtual time.
    pub fn on_current_arbiter(mut self) -> Self {
        self.threads = Threads::Current;
        self
    }

    /// Runs as these shards on this thread's arbiter, for tests: their mail waits until the test
    /// delivers it.
    #[doc(hidden)]
    pub fn simulated(mut self, shards: &SimulatedShards) -> Self {
        self.threads = Threads::Simulated(shards.clone());
        self
    }

    /// Sets the limits for clients.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets what checks credentials; a [`Chain`](crate::auth::Chain) of several authenticators, for
    /// example.
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticator = Arc::new(authenticator);
        self
    }

    /// Adds a check for MQTT 5.0 clients that give an Authentication Method; it replaces the
    /// authenticator for them. Can be called several times; of two methods of the same name, the
    /// first one is used. The methods of the authenticator itself come last. Without any, such
    /// clients are refused.
    pub fn enhanced_authenticator(mut self, authenticator: impl EnhancedAuthenticator) -> Self {
        self.methods.add(authenticator);
        self
    }

    /// Sets what decides about permissions.
    pub fn authorizer(mut self, authorizer: impl Authorizer) -> Self {
        self.authorizer = Arc::new(authorizer);
        self
    }

    /// Adds a receiver of events. Can be called several times; each event goes to all receivers, in
    /// the order in which they were added.
    pub fn hooks(mut self, hooks: impl Hooks) -> Self {
        self.hooks.push(Box::new(hooks));
        self
    }

    /// Adds a connection to another broker. Can be called several times; see also
    /// [`Broker::set_bridges`].
    #[cfg(feature = "bridge")]
    pub fn bridge(mut self, bridge: Bridge) -> Self {
        self.bridges.push(bridge);
        self
    }

    /// Makes the broker a member of a cluster. Messages travel between its brokers; sessions do not move yet.
    #[cfg(feature = "cluster")]
    pub fn cluster(mut self, settings: crate::cluster::joining::ClusterSettings) -> Self {
        self.cluster = Some(settings);
        self
    }

    /// Leads bridges elsewhere, for tests: gets an address and returns the stream to it.
    #[cfg(feature = "bridge")]
    #[doc(hidden)]
    pub fn dial_bridges(
        mut self,
        dial: impl Fn(&str) -> std::io::Result<tokio::io::DuplexStream> + Send + Sync + 'static,
    ) -> Self {
        self.bridge_dial = Some(Arc::new(InProcessDial(Box::new(dial))));
        self
    }

    /// Adds an HTTP endpoint that receives the events of presence. Can be called several times.
    /// Events wait in the store until the endpoint has taken them; without a store, in memory.
    #[cfg(feature = "webhooks")]
    pub fn webhook(mut self, webhook: Webhook) -> Self {
        self.webhooks.push(webhook);
        self
    }

    /// Exports metrics and traces to an OpenTelemetry collector.
    #[cfg(feature = "otlp")]
    pub fn otlp(mut self, otlp: Otlp) -> Self {
        self.otlp = Some(otlp);
        self
    }

    /// Keeps these accounts in the store of the broker, where callers over REST change them; see
    /// [`FileAuthenticator::stored_users`](crate::auth::FileAuthenticator::stored_users). The authenticator
    /// must have them as a source, too. Without a store, they are lost with the broker.
    #[cfg(feature = "accounts")]
    pub fn stored_users(mut self, users: Arc<StoredUsers>) -> Self {
        self.stored_users = Some(users);
        self
    }

    /// Sets the store that survives a restart: it holds durable sessions with their queues,
    /// retained messages and presence versions. Without a store all of these are lost.
    pub fn store(self, store: impl Store) -> Self {
        self.shared_store(Arc::new(store))
    }

    /// Does the same as [`Builder::store`] with a store that the application also holds.
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Sets when acknowledged data is safe in the store; by default before the acknowledgement.
    pub const fn sync(mut self, sync: SyncPolicy) -> Self {
        self.sync = sync;
        self
    }

    /// Sets how often `$SYS/broker/…` is updated, by default every ten seconds; zero means never.
    pub const fn sys_interval(mut self, interval: Duration) -> Self {
        self.sys_interval = interval;
        self
    }

    #[cfg(feature = "webhooks")]
    fn checked_webhooks(&self) -> Result<Vec<Webhook>, StartError> {
        check_names(&self.webhooks)?;
        Ok(self.webhooks.clone())
    }

    /// Starts the broker; returns once every listener accepts connections. The store is read before
    /// that: until then connections are refused. Needs a running actix `System`.
    ///
    /// The calling thread stays free: names are resolved and the store is read on another one.
    /// Dropping the future ends what has been started, as an error does.
    ///
    /// # Errors
    /// An address cannot be used for listening, the store cannot be used, or there is no `System`.
    pub async fn start(self) -> Result<Broker, StartError> {
        if System::try_current().is_none() || Handle::try_current().is_err() {
            return Err(StartError::NoSystem);
        }
        if !self.response_topic_prefix.is_empty() {
            validate_topic(&self.response_topic_prefix).map_err(StartError::ResponseTopicPrefix)?;
        }
        #[cfg(feature = "webhooks")]
        let webhooks = self.checked_webhooks()?;
        #[cfg(feature = "bridge")]
        let (this, bridges) = self.granting()?;
        #[cfg(not(feature = "bridge"))]
        let this = self;
        let threads = this.threads.clone();
        let shards = threads.shards(this.shards);
        let opened = aside(&threads, move || this.open(shards)).await?;
        let Opened { listeners, bound, core, admission, .. } = opened;
        #[cfg(feature = "otlp")]
        let otlp = opened.otlp;
        let local_addrs = bound.iter().filter_map(Bound::local_addr).collect();
        let listener_urls = urls(&bound, &listeners);
        let arbiters = threads.start(shards);
        let registries = threads.start_shards(&core, shards, &arbiters);
        let hosts = hosts(&arbiters, shards);
        #[cfg(feature = "accounts")]
        let users =
            opened.stored_users.map(|source| Users::attach(source, &core.records, core.clock));
        // From here on, dropping this handle ends everything that was started, also if a later step
        // fails.
        let broker = Broker {
            running: Arc::new(Running {
                #[cfg(feature = "cluster")]
                cluster: super::cluster::MembershipOfBroker::prepare(&core, opened.cluster),
                core,
                registries,
                admission,
                hosts,
                arbiters: Mutex::new(arbiters),
                local_addrs,
                listener_urls,
                listeners: Mutex::default(),
                open: TaskTracker::new(),
                is_ready: AtomicBool::new(true),
                under_way: CallsUnderWay::default(),
                drain: Drain::default(),
                #[cfg(feature = "bridge")]
                bridges: super::bridges::Bridges::new(bridges.granted, bridges.dial),
                #[cfg(feature = "webhooks")]
                webhook_secrets: super::webhooks::SecretsOfWebhooks::default(),
                #[cfg(feature = "otlp")]
                otlp: super::otlp::ExportOfBroker::default(),
                access: ChangesOfAccess::default(),
                #[cfg(feature = "accounts")]
                users,
            }),
        };
        broker.set_listener_logins(listeners.iter().map(|listener| listener.logins));
        broker.restore(&threads).await?;
        #[cfg(feature = "otlp")]
        broker.start_otlp(otlp)?;
        #[cfg(feature = "webhooks")]
        broker.start_webhooks(webhooks, &threads).await?;
        #[cfg(feature = "bridge")]
        broker.start_bridges(bridges.all, &threads).await?;
        #[cfg(feature = "cluster")]
        broker.start_cluster()?;
        #[cfg(feature = "tls")]
        broker.refuse_revoked(&listeners);
        broker.accept_all(&bound, &listeners)?;
        Ok(broker)
    }

    /// Lets the sessions of bridges do what they are configured for, whatever the authorizer says, also
    /// when they are judged while the store is read.
    #[cfg(feature = "bridge")]
    fn granting(mut self) -> Result<(Self, BridgePlan), StartError> {
        check_bridges(&self.bridges)?;
        let granted = Arc::new(Granted::default());
        granted.set(&self.bridges);
        let others = self.authorizer;
        self.authorizer = Arc::new(BridgeAuthorizer { others, granted: Arc::clone(&granted) });
        self.methods.add(BridgeMethod(Arc::clone(&granted)));
        let (all, dial) = (std::mem::take(&mut self.bridges), self.bridge_dial.clone());
        Ok((self, BridgePlan { all, granted, dial }))
    }

    /// Takes the addresses and opens the store. May block.
    fn open(self, shards: usize) -> Result<Opened, StartError> {
        // Bound before the store is read, so that a wrong address fails at once.
        let bound = self.listeners.iter().map(listen).collect::<Result<Vec<_>, StartError>>()?;
        let admission = Arc::new(ListenerLimits::new(&self.limits));
        let mut methods = self.methods;
        // Added last, so that a method of the builder serves its name.
        if let Some(known) = self.authenticator.methods() {
            methods.add(known);
        }
        let metrics = Arc::new(Metrics::new(shards));
        metrics.set_sources(self.authenticator.source_metrics());
        #[cfg(feature = "otlp")]
        let otlp =
            self.otlp.map(|otlp| PreparedOtlp::new(otlp, &self.node, &metrics)).transpose()?;
        #[cfg(feature = "otlp")]
        let tracer = otlp.as_ref().and_then(|otlp| otlp.tracer().cloned());
        #[cfg(not(feature = "otlp"))]
        let tracer = None;
        let core = Arc::new(Core::new(CoreParts {
            node: self.node,
            response_topic_prefix: self.response_topic_prefix,
            limits: self.limits,
            authenticator: self.authenticator,
            methods,
            authorizer: self.authorizer,
            hooks: self.hooks,
            store: self.store,
            sync: self.sync,
            metrics,
            sys_interval: self.sys_interval,
            told: Arc::new(Told::new(self.client_lines)),
            tracer,
        })?);
        Ok(Opened {
            listeners: self.listeners,
            bound,
            core,
            admission,
            #[cfg(feature = "accounts")]
            stored_users: self.stored_users,
            #[cfg(feature = "cluster")]
            cluster: self.cluster,
            #[cfg(feature = "otlp")]
            otlp,
        })
    }
}

/// Returns the threads of the shards, in the order of the shards.
fn hosts(arbiters: &[Arbiter], shards: usize) -> Vec<ArbiterHandle> {
    let handle = |number| arbiters.get(number).map_or_else(Arbiter::current, Arbiter::handle);
    (0..shards).map(handle).collect()
}

/// The bridges with which a broker starts.
#[cfg(feature = "bridge")]
struct BridgePlan {
    all: Vec<Bridge>,
    granted: Arc<Granted>,
    dial: Option<Arc<dyn Dial>>,
}

/// The parts of a broker before its shards start.
struct Opened {
    listeners: Vec<Listener>,
    bound: Vec<Bound>,
    core: Arc<Core>,
    admission: Arc<ListenerLimits>,
    #[cfg(feature = "otlp")]
    otlp: Option<PreparedOtlp>,
    #[cfg(feature = "accounts")]
    stored_users: Option<Arc<StoredUsers>>,
    #[cfg(feature = "cluster")]
    cluster: Option<crate::cluster::joining::ClusterSettings>,
}

/// Returns the URLs of listeners with the addresses to which they are bound.
fn urls(bound: &[Bound], listeners: &[Listener]) -> Vec<Arc<str>> {
    let both = bound.iter().zip(listeners);
    both.map(|(bound, listener)| listener.url(bound.local_addr()).into()).collect()
}

fn listen(listener: &Listener) -> Result<Bound, StartError> {
    let address = listener.to_string();
    bind(listener).map_err(|error| match error {
        BindError::NotFound(source) => StartError::Address { address, source },
        BindError::Refused(source) => StartError::Listen { address, source },
    })
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("node", &self.node)
            .field("listeners", &self.listeners)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
