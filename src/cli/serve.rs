//! Wires the broker out of a configuration: accounts, permissions, TLS, listeners, REST.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use hearthmq::{
    auth::{AuthenticationConfig, FileAuthenticator, FileError, FilePolicy},
    config::Config,
    control::{Control, ControlError, KeepAliveChanged, SetKeepAlive},
    http::{Api, ApiOptions, Listeners, Server},
    metrics::Metrics,
    net::tls::{TlsConfig, TlsError, client_certificate, server_config},
};
use socket2::{Domain, Socket, Type};

/// Connections that the operating system holds until they are accepted.
const BACKLOG: i32 = 1_024;

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("cannot listen on {address}: {source}; free it, or set another address in {key}")]
    Listen {
        address: SocketAddr,
        key: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot serve http: {0}; see the log")]
    Http(#[source] io::Error),
    #[error("cannot receive signals: {0}; see the limits of the process")]
    Signals(#[source] io::Error),
}

/// The broker at work.
pub(super) struct Serving {
    api: Api,
    http: Server,
    authenticator: Arc<FileAuthenticator>,
    policy: Arc<FilePolicy>,
    deadline: Duration,
}

impl Serving {
    /// Starts everything; returns once every listener is bound.
    pub(super) fn start(config: &Config) -> Result<Self, StartError> {
        let authentication = AuthenticationConfig::from(config);
        let authenticator = FileAuthenticator::open(config.users_file(), authentication)?;
        let authenticator = Arc::new(authenticator);
        let policy = Arc::new(FilePolicy::open(config.policy_file())?);
        let https = if config.http.https.is_empty() {
            None
        } else {
            Some(server_config(&TlsConfig::from(&config.tls))?)
        };
        let listeners = Listeners {
            http: bind_all(&config.http.listen, "http.listen")?,
            https: bind_all(&config.http.https, "http.https")?,
            tls: https,
        };
        let api = Api::new(
            Arc::new(NoBroker),
            Arc::<FileAuthenticator>::clone(&authenticator),
            Arc::<FilePolicy>::clone(&policy),
            Arc::new(Metrics::new(config.shards.max(1).into())),
            &ApiOptions::from(&config.http),
        );
        let http = Server::start(&api, listeners, config.http.workers.into(), |chain| {
            client_certificate(chain).ok()
        })
        .map_err(StartError::Http)?;
        for (scheme, addresses) in [("http", &config.http.listen), ("https", &config.http.https)] {
            for address in addresses {
                tracing::info!("listening on {scheme}://{address}");
            }
        }
        Ok(Self {
            api,
            http,
            authenticator,
            policy,
            deadline: Duration::from_secs(config.shutdown_deadline_secs.into()),
        })
    }

    /// Reads accounts and permissions again. Files that are wrong change nothing.
    pub(super) fn reload(&self) {
        for (what, outcome) in [
            ("accounts", self.authenticator.reload()),
            ("permissions", self.policy.reload()),
        ] {
            match outcome {
                Ok(()) => tracing::info!("{what} read again"),
                Err(error) => tracing::error!("{what} stay as they were: {error}"),
            }
        }
    }

    /// Ends everything, in the time that the configuration gives it.
    pub(super) async fn shut_down(self) {
        self.api.set_ready(false);
        let graceful = self.http.stop(true);
        if tokio::time::timeout(self.deadline, graceful).await.is_err() {
            tracing::warn!("calls were still under way at the deadline");
            self.http.stop(false).await;
        }
    }
}

fn bind_all(addresses: &[SocketAddr], key: &'static str) -> Result<Vec<TcpListener>, StartError> {
    addresses
        .iter()
        .map(|&address| {
            bind(address).map_err(|source| StartError::Listen {
                address,
                key,
                source,
            })
        })
        .collect()
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?; // a restart does not wait for old connections
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Stands where the broker's handle comes.
struct NoBroker;

#[async_trait]
impl Control for NoBroker {
    async fn set_keep_alive(&self, _: SetKeepAlive) -> Result<KeepAliveChanged, ControlError> {
        Err(ControlError::NotOnline)
    }

    async fn query_online(&self, _: &str) -> Result<bool, ControlError> {
        Ok(false)
    }
}
