//! The HTTP and HTTPS server of the `hearthmq` program: its worker threads, and the path of a
//! connection from accept to actix-http.
//!
//! It gets bound listeners and their TLS settings; it knows no files and no MQTT. It accepts
//! connections itself, because actix-web has no limit for one address, no deadline for the second
//! request of a connection, and no way to replace TLS settings. A host application has its own
//! server and does not need this one.

mod accept;
mod certificate;
mod places;
mod taken;
mod watch;

use std::{
    fmt, io,
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
};

use actix_rt::Arbiter;
use arc_swap::ArcSwapOption;
use socket2::SockRef;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    accept::{Door, Worker},
    places::Places,
};
use super::{Api, CallRate};
use crate::{
    auth::Network,
    net::{ProxyProtocol, accept_who_has_spoken, tls::TlsSource},
};

/// Connections that the operating system queues before they are accepted. If the queue is full, a
/// client retries after a second, which is too late for a health check.
const BACKLOG: i32 = 4_096;

/// A socket that the server listens on.
#[derive(Debug)]
pub struct Listener {
    /// The bound socket, which need not listen yet; the server calls `listen`.
    pub socket: TcpListener,
    /// The TLS settings for HTTPS.
    pub tls: Option<TlsSource>,
    /// Requires a PROXY header on every connection, and lists the trusted balancers.
    pub proxy: Option<ProxyProtocol>,
}

impl Listener {
    /// Creates a listener for HTTP without TLS and without a PROXY header.
    #[must_use]
    pub const fn http(socket: TcpListener) -> Self {
        Self { socket, tls: None, proxy: None }
    }

    /// Creates a listener for HTTPS without a PROXY header.
    #[must_use]
    pub const fn https(socket: TcpListener, tls: TlsSource) -> Self {
        Self { socket, tls: Some(tls), proxy: None }
    }

    /// Returns the URL that rules and the log use for the listener.
    ///
    /// # Errors
    /// The operating system cannot return the address of the socket.
    pub fn url(&self) -> io::Result<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.socket.local_addr()?))
    }
}

/// Limits and settings of the server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Number of threads that serve connections.
    pub workers: usize,
    /// Maximum number of simultaneous connections. A connection beyond the limit replaces the one
    /// that has been idle the longest, of the address with the most connections.
    pub connections_max: usize,
    /// Maximum number of simultaneous connections from one address (IPv6: one /64). A connection
    /// beyond the limit replaces the one of that address that has been idle the longest.
    pub connections_per_address_max: usize,
    /// Rate limit of TLS handshakes from one address (IPv6: one /64).
    pub handshake_rate: Option<CallRate>,
    /// Networks of reverse proxies and balancers. The limits for one address do not apply to them,
    /// because their connections belong to many callers. The limit in total does.
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

/// A running server. Dropping it does not stop it; [`Server::stop`] does.
pub struct Server {
    workers: Mutex<Vec<Arbiter>>,
    ending: CancellationToken,
    cut: CancellationToken,
    open: TaskTracker,
    places: Arc<Places>,
    /// For each listener the PROXY header that it expects, and from which addresses.
    proxies: Vec<Proxy>,
}

/// The PROXY header that a listener expects at present.
type Proxy = Arc<ArcSwapOption<ProxyProtocol>>;

impl Server {
    /// Serves `api` on `listeners`, on its own threads. Needs a running actix `System`. Does
    /// nothing without listeners.
    ///
    /// # Errors
    /// The operating system refuses to listen on a socket.
    pub fn start(api: &Api, listeners: Vec<Listener>, options: &ServerOptions) -> io::Result<Self> {
        let proxies = listeners.iter().map(|one| one.proxy.clone().map(Arc::new));
        let server = Self {
            places: Arc::new(Places::new(options)),
            proxies: proxies.map(|proxy| Arc::new(ArcSwapOption::new(proxy))).collect(),
            workers: Mutex::default(),
            ending: CancellationToken::new(),
            cut: CancellationToken::new(),
            open: TaskTracker::new(),
        };
        if listeners.is_empty() {
            return Ok(server);
        }
        for listener in &listeners {
            let socket = SockRef::from(&listener.socket);
            // Before any worker runs, so that an error ends the start and leaves no thread behind.
            socket.listen(BACKLOG)?;
            accept_who_has_spoken(&socket);
        }
        for _ in 0..options.workers.max(1) {
            let doors = listeners.iter().zip(&server.proxies);
            let doors = doors.map(|(listener, proxy)| Door::of(listener, proxy));
            // Each worker has a copy of each socket; the kernel gives a connection to one of them.
            let doors = doors.collect::<io::Result<Vec<_>>>()?;
            let worker = Worker {
                api: api.clone(),
                places: Arc::clone(&server.places),
                ending: server.ending.clone(),
                cut: server.cut.clone(),
                open: server.open.clone(),
            };
            let arbiter = Arbiter::new();
            // Held until the worker has opened its listeners, so that `stop` waits for it.
            let begins = server.open.token();
            arbiter.spawn_fn(move || {
                actix_rt::spawn(async move {
                    worker.run(doors).await;
                    drop(begins);
                });
            });
            server.workers.lock().unwrap_or_else(PoisonError::into_inner).push(arbiter);
        }
        Ok(server)
    }

    /// Changes the options, for connections from then on. The number of workers stays as it was.
    pub fn set_options(&self, options: &ServerOptions) {
        self.places.set(options);
    }

    /// Changes for each listener, in the order in which they were given, whether connections begin with
    /// a PROXY header from then on, and who may send one.
    pub fn set_proxies(&self, proxies: impl IntoIterator<Item = Option<ProxyProtocol>>) {
        for (listener, proxy) in self.proxies.iter().zip(proxies) {
            listener.store(proxy.map(Arc::new));
        }
    }

    /// Stops the server, gracefully after the current calls or immediately. Returns when all
    /// connections and listeners are closed.
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

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("workers", &self.workers).finish_non_exhaustive()
    }
}
