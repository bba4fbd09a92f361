//! The HTTP and HTTPS server of the `hearthmq` program: its worker threads, and the way of a
//! connection from accept to actix-http.
//!
//! It gets bound listeners and their TLS settings; it knows no file and no MQTT. It accepts
//! connections itself, because actix-web has no bound for one address, no deadline for the second
//! request of a connection, and no way to replace TLS settings. A host application has a server of
//! its own and does not need this one.

mod accept;
mod places;
mod watch;

use std::{
    io,
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
};

use actix_rt::Arbiter;
use socket2::SockRef;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{accept::Worker, places::Places};
use super::{Api, CallRate};
use crate::{
    auth::Network,
    net::{ProxyProtocol, tls::TlsSource},
};

/// Connections that the operating system holds until they are accepted. One that finds no room tries
/// again after a second, which is too late for a look at the broker's health.
const BACKLOG: i32 = 4_096;

/// A socket that the server listens on.
#[derive(Debug)]
pub struct Listener {
    /// The bound socket. Whether it listens already or not, it does from the start of the server on.
    pub socket: TcpListener,
    /// The TLS settings, for HTTPS.
    pub tls: Option<TlsSource>,
    /// Whether every connection begins with a PROXY header, and who may send one.
    pub proxy: Option<ProxyProtocol>,
}

impl Listener {
    /// HTTP without TLS, and without a PROXY header.
    #[must_use]
    pub const fn http(socket: TcpListener) -> Self {
        Self { socket, tls: None, proxy: None }
    }

    /// HTTPS, without a PROXY header.
    #[must_use]
    pub const fn https(socket: TcpListener, tls: TlsSource) -> Self {
        Self { socket, tls: Some(tls), proxy: None }
    }

    /// The URL that rules and the log name the listener by.
    ///
    /// # Errors
    /// The operating system does not tell the address of the socket.
    pub fn url(&self) -> io::Result<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.socket.local_addr()?))
    }
}

/// The URL of the listener that accepted a connection, for the connection's data: rules and the log
/// name the listener by it. Calls on a connection without it come from `hosted-http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerName(pub Arc<str>);

/// What connections may use.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Threads that serve connections.
    pub workers: usize,
    /// Connections at one time. One more takes the place of the connection that has been idle the
    /// longest, of the address that holds the most.
    pub connections_max: usize,
    /// Connections at one time from one address (IPv6: one /64). One more takes the place of the
    /// connection of that address that has been idle the longest.
    pub connections_per_address_max: usize,
    /// How often one address (IPv6: one /64) may begin a TLS handshake.
    pub handshake_rate: Option<CallRate>,
    /// Networks of reverse proxies and balancers, whose connections are those of many callers: the
    /// bounds for one address do not count for them.
    pub proxies: Vec<Network>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            connections_max: 1_000,
            connections_per_address_max: 500,
            handshake_rate: None,
            proxies: Vec::new(),
        }
    }
}

/// A running server. Dropping it lets it go on; it ends by [`Server::stop`].
pub struct Server {
    workers: Mutex<Vec<Arbiter>>,
    ending: CancellationToken,
    cut: CancellationToken,
    open: TaskTracker,
}

impl Server {
    /// Serves `api` on `listeners`, on threads of its own. Needs an actix `System` to run in. Without
    /// listeners it does nothing.
    ///
    /// # Errors
    /// A listener that the operating system does not let be used.
    pub fn start(api: &Api, listeners: Vec<Listener>, options: &ServerOptions) -> io::Result<Self> {
        let server = Self {
            workers: Mutex::default(),
            ending: CancellationToken::new(),
            cut: CancellationToken::new(),
            open: TaskTracker::new(),
        };
        if listeners.is_empty() {
            return Ok(server);
        }
        for listener in &listeners {
            SockRef::from(&listener.socket).listen(BACKLOG)?;
        }
        let places = Arc::new(Places::new(options));
        for _ in 0..options.workers.max(1) {
            let sockets = listeners.iter().map(accept::Door::of).collect::<io::Result<Vec<_>>>()?;
            let worker = Worker {
                api: api.clone(),
                places: Arc::clone(&places),
                ending: server.ending.clone(),
                cut: server.cut.clone(),
                open: server.open.clone(),
            };
            let arbiter = Arbiter::new();
            let begins = server.open.token();
            arbiter.spawn_fn(move || {
                actix_rt::spawn(async move {
                    worker.run(sockets).await;
                    drop(begins);
                });
            });
            server.workers.lock().unwrap_or_else(PoisonError::into_inner).push(arbiter);
        }
        Ok(server)
    }

    /// Ends the server: gracefully after the calls that are under way, or at once. Returns when
    /// every connection and listener is closed.
    pub async fn stop(&self, graceful: bool) {
        self.ending.cancel();
        if !graceful {
            self.cut.cancel();
        }
        self.open.close();
        self.open.wait().await;
        for worker in self.workers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            worker.stop();
        }
    }
}
