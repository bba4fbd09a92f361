//! Putting a broker together.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize},
    },
};

use actix::Actor;
use actix_rt::{Arbiter, ArbiterHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Broker, Running};
use crate::{
    actors::{Core, CoreParts, Registry, ShardHandle},
    auth::{Authenticator, Authorizer, DenyAll},
    hooks::{Hooks, NoHooks},
    limits::Limits,
    metrics::Metrics,
    mqtt::{TopicError, validate_topic},
    net::{Admission, ListenerParts, accept_loop, bind},
    router::Host,
    store::{MemoryStore, Store, StoreError},
};

/// How a broker is to be. Without an authenticator and an authorizer nobody gets in.
#[must_use]
pub struct Builder {
    node: Arc<str>,
    response_topic_prefix: Box<str>,
    listeners: Vec<(String, Option<Arc<rustls::ServerConfig>>)>,
    shards: usize,
    on_current_arbiter: bool,
    limits: Limits,
    authenticator: Arc<dyn Authenticator>,
    authorizer: Arc<dyn Authorizer>,
    hooks: Arc<dyn Hooks>,
    store: Arc<dyn Store>,
}

/// Why a broker did not start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address that cannot be understood or found.
    #[error(
        "cannot find the address {address}: {source}; give it as IP:PORT, for example 127.0.0.1:1883"
    )]
    Address {
        /// As it was given.
        address: String,
        /// What was wrong.
        source: io::Error,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {source}; stop what uses the port or choose another")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What was wrong.
        source: io::Error,
    },
    /// A prefix that is no beginning of a topic.
    #[error("response_topic_prefix is not usable: {0}; write one like \"responses/\"")]
    ResponseTopicPrefix(TopicError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no actix `System` on this thread.
    #[error(
        "no actix System runs on this thread; start the broker inside #[actix_web::main] or System::block_on"
    )]
    NoSystem,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            node: "hearthmq".into(),
            response_topic_prefix: "".into(),
            listeners: Vec::new(),
            shards: 0,
            on_current_arbiter: false,
            limits: Limits::default(),
            authenticator: Arc::new(DenyAll),
            authorizer: Arc::new(DenyAll),
            hooks: Arc::new(NoHooks),
            store: Arc::new(MemoryStore::default()),
        }
    }
}

impl Builder {
    /// The broker's name in events.
    pub fn node(mut self, name: &str) -> Self {
        self.node = name.into();
        self
    }

    /// What Response Topics are to begin with: an MQTT 5.0 client that asks for Response Information
    /// is given this, its client identifier and a slash. Without a prefix, the default, it is given
    /// none; neither is a client whose identifier is no level of a topic. What the client may do
    /// there is the authorizer's to say.
    pub fn response_topic_prefix(mut self, prefix: &str) -> Self {
        self.response_topic_prefix = prefix.into();
        self
    }

    /// Listens for MQTT over TCP; port 0 lets the operating system choose.
    pub fn tcp(mut self, address: impl Into<String>) -> Self {
        self.listeners.push((address.into(), None));
        self
    }

    /// Listens for MQTT over TLS.
    pub fn tls(mut self, address: impl Into<String>, config: Arc<rustls::ServerConfig>) -> Self {
        self.listeners.push((address.into(), Some(config)));
        self
    }

    /// Threads that sessions live on; 0, the default, is one a core.
    pub const fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// Runs as one shard on this thread's arbiter instead of threads of its own. With a paused
    /// tokio clock the whole broker then runs on virtual time.
    pub const fn on_current_arbiter(mut self) -> Self {
        self.on_current_arbiter = true;
        self
    }

    /// Bounds on what clients may use.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Who checks credentials.
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticator = Arc::new(authenticator);
        self
    }

    /// Who decides about permissions.
    pub fn authorizer(mut self, authorizer: impl Authorizer) -> Self {
        self.authorizer = Arc::new(authorizer);
        self
    }

    /// Who hears what happens to sessions.
    pub fn hooks(mut self, hooks: impl Hooks) -> Self {
        self.hooks = Arc::new(hooks);
        self
    }

    /// What remembers beyond the broker's end; in memory if none is given.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Arc::new(store);
        self
    }

    /// Starts the broker; returns once every listener is bound. Needs a running actix `System`.
    ///
    /// # Errors
    /// If an address cannot be listened on, the store cannot be used, or there is no `System`.
    pub async fn start(self) -> Result<Broker, StartError> {
        if actix_rt::System::try_current().is_none() {
            return Err(StartError::NoSystem);
        }
        if !self.response_topic_prefix.is_empty() {
            validate_topic(&self.response_topic_prefix).map_err(StartError::ResponseTopicPrefix)?;
        }
        let shards = self.shards_wanted();
        let metrics = Arc::new(Metrics::new(shards));
        let listeners = self
            .listeners
            .iter()
            .map(|(address, tls)| Ok((listen(address)?, tls.clone())))
            .collect::<Result<Vec<_>, StartError>>()?;
        let local_addrs = listeners.iter().map(|(listener, _)| listener.1).collect();
        let admission = Arc::new(Admission::new(&self.limits));
        let core = Arc::new(Core::new(CoreParts {
            node: self.node,
            response_topic_prefix: self.response_topic_prefix,
            limits: self.limits,
            authenticator: self.authenticator,
            authorizer: self.authorizer,
            hooks: self.hooks,
            store: self.store,
            metrics,
        })?);
        let arbiters: Vec<Arbiter> = if self.on_current_arbiter {
            Vec::new()
        } else {
            (0..shards).map(|_| Arbiter::new()).collect()
        };
        start_shards(&core, &arbiters);
        let handles: Vec<ArbiterHandle> = arbiters.iter().map(Arbiter::handle).collect();
        // From here on whatever has begun ends with this handle, also if the rest fails.
        let broker = Broker {
            running: Arc::new(Running {
                core,
                admission,
                arbiters: Mutex::new(arbiters),
                local_addrs,
                stop: CancellationToken::new(),
                open: TaskTracker::new(),
                is_ready: AtomicBool::new(true),
                questions: AtomicUsize::new(0),
            }),
        };
        for ((listener, address), tls) in listeners {
            broker
                .accept(&listener, &handles, tls.as_ref())
                .map_err(|source| StartError::Listen { address, source })?;
        }
        Ok(broker)
    }

    fn shards_wanted(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        match self.shards {
            _ if self.on_current_arbiter => 1,
            0 => cores(),
            shards => shards,
        }
    }
}

impl Broker {
    /// Every shard accepts from a copy of the listener.
    fn accept(
        &self,
        listener: &TcpListener,
        arbiters: &[ArbiterHandle],
        tls: Option<&Arc<rustls::ServerConfig>>,
    ) -> io::Result<()> {
        let Running { core, admission, stop, open, .. } = &*self.running;
        let accept_on = |shard: usize| {
            let parts = ListenerParts {
                core: core.clone(),
                metrics: core.metrics.shard(shard),
                admission: admission.clone(),
                tls: tls.cloned(),
                stop: stop.clone(),
                open: open.clone(),
            };
            io::Result::Ok(accept_loop(listener.try_clone()?, parts))
        };
        if arbiters.is_empty() {
            actix_rt::spawn(accept_on(0)?);
        }
        for (shard, arbiter) in arbiters.iter().enumerate() {
            arbiter.spawn(accept_on(shard)?);
        }
        Ok(())
    }
}

fn listen(address: &str) -> Result<(TcpListener, SocketAddr), StartError> {
    let not_found = |source| StartError::Address { address: address.to_owned(), source };
    let resolved = address.to_socket_addrs().map_err(not_found)?.next();
    let resolved = resolved.ok_or_else(|| not_found(io::ErrorKind::NotFound.into()))?;
    let failed = |source| StartError::Listen { address: resolved, source };
    let listener = bind(resolved).map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}

fn start_shards(core: &Arc<Core>, arbiters: &[Arbiter]) {
    let start = |number: usize, arbiter: Option<&Arbiter>| {
        let batches_waiting = Arc::default();
        let handle_batches = Arc::clone(&batches_waiting);
        let (core, metrics) = (core.clone(), core.metrics.shard(number));
        let make = move || Registry::new(Host(number as u16), core, metrics, batches_waiting);
        let registry = match arbiter {
            Some(arbiter) => Registry::start_in_arbiter(&arbiter.handle(), |_| make()),
            None => make().start(),
        };
        ShardHandle { registry, batches_waiting: handle_batches }
    };
    let shards = if arbiters.is_empty() {
        vec![start(0, None)]
    } else {
        arbiters.iter().enumerate().map(|(number, arbiter)| start(number, Some(arbiter))).collect()
    };
    core.set_shards(shards);
}
