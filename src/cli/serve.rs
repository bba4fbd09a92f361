//! Wires the broker out of a configuration: accounts, permissions, TLS, listeners, REST.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use hearthmq::{
    Broker,
    actors::SyncPolicy,
    auth::{AuthenticationConfig, FileAuthenticator, FileError, FilePolicy, ScramSha256},
    broker,
    config::{Config, StoreConfig, SyncMode},
    http::{Api, ApiOptions, Listeners, Server},
    net::tls::{Alpn, TlsError, client_certificate},
    store::DirectoryStore,
};
use socket2::{Domain, Socket, Type};
use tokio::time::{Instant, timeout_at};

use super::{listeners::mqtt_listeners, tls::TlsSources};

/// Connections that the operating system holds until they are accepted.
const BACKLOG: i32 = 1_024;

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("cannot listen on {address}: {source}; free it, or set another address in {key}")]
    Listen { address: SocketAddr, key: &'static str, source: io::Error },
    #[error(transparent)]
    Broker(#[from] broker::StartError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot serve http: {0}; see the log")]
    Http(#[source] io::Error),
    #[error("cannot receive signals: {0}; see the limits of the process")]
    Signals(#[source] io::Error),
    #[error("cannot start the thread of the log: {0}; see the limits of the process")]
    Log(#[source] io::Error),
}

/// The broker at work.
pub(super) struct Serving {
    broker: Broker,
    api: Api,
    http: Server,
    authenticator: Arc<FileAuthenticator>,
    policy: Arc<FilePolicy>,
    tls: TlsSources,
    deadline: Duration,
}

impl Serving {
    /// Starts everything; returns once every listener is bound.
    pub(super) async fn start(config: &Config, store: DirectoryStore) -> Result<Self, StartError> {
        let authentication = AuthenticationConfig::from(config);
        let authenticator = FileAuthenticator::open(config.users_file(), authentication)?;
        let authenticator = Arc::new(authenticator);
        let policy = Arc::new(FilePolicy::open(config.policy_file())?);
        let mut tls = TlsSources::default();
        let settings = config.http.https.iter().map(|address| tls.at(*address, Alpn::Http, config));
        let settings = settings.collect::<Result<Vec<_>, _>>()?;
        let http = bind_all(&config.http.listen, "http.listen")?;
        let https = bind_all(&config.http.https, "http.https")?;
        let addresses = [("http", &http), ("https", &https)]
            .map(|(scheme, listeners)| (scheme, local_addresses(listeners)));
        let listeners = Listeners { http, https: https.into_iter().zip(settings).collect() };
        let broker = Self::start_broker(config, &authenticator, &policy, store, &mut tls).await?;
        let api = broker.api(&ApiOptions::from(&config.http));
        let http = Server::start(&api, listeners, config.http.workers.into(), |chain| {
            client_certificate(chain).ok()
        })
        .map_err(StartError::Http)?;
        for (scheme, addresses) in addresses {
            for address in addresses {
                tracing::info!("listening on {scheme}://{address}");
            }
        }
        Ok(Self {
            broker,
            api,
            http,
            authenticator,
            policy,
            tls,
            deadline: Duration::from_secs(config.shutdown_deadline_secs.into()),
        })
    }

    async fn start_broker(
        config: &Config,
        authenticator: &Arc<FileAuthenticator>,
        policy: &Arc<FilePolicy>,
        store: DirectoryStore,
        tls: &mut TlsSources,
    ) -> Result<Broker, StartError> {
        let mut builder = Broker::builder()
            .node(&config.node)
            .shards(config.shards.into())
            .response_topic_prefix(&config.mqtt.response_topic_prefix)
            .limits(config.limits.clone())
            .authenticator(Arc::clone(authenticator))
            .authorizer(Arc::clone(policy))
            .store(store)
            .sync(sync_policy(&config.store));
        if config.auth.scram {
            builder = builder.enhanced_authenticator(ScramSha256::new(Arc::clone(authenticator)));
        }
        for listener in mqtt_listeners(config, tls)? {
            builder = builder.listen(listener);
        }
        let broker = builder.start().await?;
        for url in broker.listener_urls() {
            tracing::info!("listening on {url}");
        }
        Ok(broker)
    }

    pub(super) fn authenticator(&self) -> &FileAuthenticator {
        &self.authenticator
    }

    pub(super) fn policy(&self) -> &FilePolicy {
        &self.policy
    }

    pub(super) const fn tls(&self) -> &TlsSources {
        &self.tls
    }

    pub(super) const fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Ends everything, in the time that the configuration gives it.
    pub(super) async fn shut_down(self) {
        let deadline = Instant::now() + self.deadline;
        self.api.set_ready(false);
        self.broker.shutdown(self.deadline).await;
        let graceful = self.http.stop(true);
        if timeout_at(deadline, graceful).await.is_err() {
            tracing::warn!("calls were still under way at the deadline");
            self.http.stop(false).await;
        }
    }
}

fn sync_policy(config: &StoreConfig) -> SyncPolicy {
    match config.sync {
        SyncMode::Always => SyncPolicy::Always,
        SyncMode::Interval => {
            SyncPolicy::Interval(Duration::from_millis(config.sync_interval_ms.into()))
        }
        SyncMode::Off => SyncPolicy::Off,
    }
}

fn bind_all(addresses: &[SocketAddr], key: &'static str) -> Result<Vec<TcpListener>, StartError> {
    addresses
        .iter()
        .map(|&address| bind(address).map_err(|source| StartError::Listen { address, key, source }))
        .collect()
}

/// Where listeners are bound: the operating system chooses a port for 0.
fn local_addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    let addresses = listeners.iter().map(TcpListener::local_addr);
    addresses.filter_map(Result::ok).collect()
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?; // a restart does not wait for old connections
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
