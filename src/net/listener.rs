//! Describes and binds listeners: an address or a socket file, and the layers below MQTT.
//!
//! [`Listener`] is the description, [`bind`] opens the socket, `accept` accepts the connections.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, ToSocketAddrs as _},
    os::unix::net::UnixListener,
    path::PathBuf,
    sync::Arc,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{
    proxy::ProxyProtocol,
    tcp::{self, TCP_KEEP_ALIVE_SECS_DEFAULT},
    tls::TlsSource,
    unix::{self, SocketFile},
    websocket::WebSocketOptions,
};
use crate::{auth::ListenerLogins, metrics::TransportKind};

/// Connections that the kernel queues before they are accepted.
const BACKLOG: i32 = 4096;

/// The listener name of streams that the embedding application provides itself.
pub(crate) const IN_PROCESS: &str = "in-process";

/// Default permissions of a Unix socket: its owner and its group.
const UNIX_MODE_DEFAULT: u32 = 0o660;

/// A listener for MQTT clients.
///
/// Addresses are `IP:PORT`; with port 0 the operating system chooses one, and `[::]` accepts IPv4
/// as well. TLS settings are a [`TlsSource`], whose files can be reloaded, or an
/// `Arc<rustls::ServerConfig>`, for example from
/// [`mqtt_server_config`](super::tls::mqtt_server_config) or, for WebSocket,
/// [`server_config`](super::tls::server_config).
#[derive(Clone, Debug)]
#[must_use]
pub struct Listener {
    pub(crate) endpoint: Endpoint,
    pub(crate) layers: Layers,
    pub(crate) tcp_keep_alive_secs: u16,
    pub(crate) logins: ListenerLogins,
}

#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    Address(String),
    File { path: PathBuf, mode: u32 },
}

/// The layers between a socket and MQTT, the outermost first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    pub(crate) proxy: Option<ProxyProtocol>,
    pub(crate) tls: Option<TlsSource>,
    pub(crate) websocket: Option<WebSocketOptions>,
}

impl Layers {
    /// Returns whether MQTT starts with the first byte.
    pub(crate) const fn are_none(&self) -> bool {
        self.proxy.is_none() && self.tls.is_none() && self.websocket.is_none()
    }
}

impl Listener {
    fn of(endpoint: Endpoint) -> Self {
        let tcp_keep_alive_secs = TCP_KEEP_ALIVE_SECS_DEFAULT;
        let logins = ListenerLogins::default();
        Self { endpoint, layers: Layers::default(), tcp_keep_alive_secs, logins }
    }

    fn at(address: impl Into<String>) -> Self {
        Self::of(Endpoint::Address(address.into()))
    }

    /// Creates a listener for MQTT over TCP.
    pub fn tcp(address: impl Into<String>) -> Self {
        Self::at(address)
    }

    /// Creates a listener for MQTT over TLS.
    #[cfg(feature = "tls")]
    pub fn tls(address: impl Into<String>, tls: impl Into<TlsSource>) -> Self {
        let mut listener = Self::at(address);
        listener.layers.tls = Some(tls.into());
        listener
    }

    /// Creates a listener for MQTT over WebSocket; `options` may be just the path.
    #[cfg(feature = "websocket")]
    pub fn websocket(address: impl Into<String>, options: impl Into<WebSocketOptions>) -> Self {
        let mut listener = Self::at(address);
        listener.layers.websocket = Some(options.into());
        listener
    }

    /// Creates a listener for MQTT over WebSocket over TLS.
    #[cfg(all(feature = "tls", feature = "websocket"))]
    pub fn secure_websocket(
        address: impl Into<String>,
        tls: impl Into<TlsSource>,
        options: impl Into<WebSocketOptions>,
    ) -> Self {
        let mut listener = Self::websocket(address, options);
        listener.layers.tls = Some(tls.into());
        listener
    }

    /// Creates a listener for MQTT over a Unix socket, for clients on the same machine.
    /// Authenticators, permissions, limits and events see these clients as 127.0.0.1, port 0.
    ///
    /// A stale socket file at `path` is replaced; a socket in use is not. The broker removes the
    /// file when it stops.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::of(Endpoint::File { path: path.into(), mode: UNIX_MODE_DEFAULT })
    }

    /// Sets the permission bits of the Unix socket; the default is 0o660. Has no effect on an
    /// address.
    pub const fn mode(mut self, bits: u32) -> Self {
        if let Endpoint::File { mode, .. } = &mut self.endpoint {
            *mode = bits;
        }
        self
    }

    /// Sets the TCP keep-alive: after `secs` seconds of silence the operating system probes the
    /// client, and after twice that time without a sign of life it closes the connection, also
    /// while data is unacknowledged. The default is 60; 0 keeps the system's settings. Has no
    /// effect on a Unix socket.
    pub const fn tcp_keep_alive_secs(mut self, secs: u16) -> Self {
        self.tcp_keep_alive_secs = secs;
        self
    }

    /// Sets the login rules of this listener, which replace those of the authenticator.
    pub const fn logins(mut self, logins: ListenerLogins) -> Self {
        self.logins = logins;
        self
    }

    /// Requires a PROXY header, version 1 or 2, at the start of every connection; a connection
    /// without one is closed. The address in the header is used for permissions, limits and events.
    /// Information about a client certificate in the header is ignored.
    pub fn proxy_protocol(mut self, proxy: ProxyProtocol) -> Self {
        self.layers.proxy = Some(proxy);
        self
    }
}

impl Listener {
    /// Refuses client certificates of this set.
    #[cfg(feature = "tls")]
    pub(crate) fn refuse_revoked(&self, revoked: &crate::auth::RevokedCertificates) {
        if let Some(tls) = &self.layers.tls {
            tls.refuse_revoked(revoked);
        }
    }

    /// Returns the URL that rules, log and events use for the listener: `mqtt://127.0.0.1:1883`,
    /// `wss://[::]:8084/mqtt`, `unix:/run/hearthmq/mqtt.sock`. `bound` is the address that the
    /// socket is bound to; a Unix socket has none.
    #[must_use]
    pub fn url(&self, bound: Option<SocketAddr>) -> String {
        let scheme = match self.kind() {
            TransportKind::Unix => return format!("unix:{self}"),
            TransportKind::Tcp => "mqtt",
            TransportKind::Tls => "mqtts",
            TransportKind::WebSocket => "ws",
            TransportKind::SecureWebSocket => "wss",
            TransportKind::InProcess => return IN_PROCESS.to_owned(),
        };
        let path = self.layers.websocket.as_ref().map_or("", WebSocketOptions::path);
        // The bound address has the port that the system chose if the configured port is 0.
        match bound {
            Some(address) => format!("{scheme}://{address}{path}"),
            None => format!("{scheme}://{self}{path}"),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Address(address) => f.write_str(address),
            Endpoint::File { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

impl Listener {
    pub(crate) const fn kind(&self) -> TransportKind {
        match (&self.endpoint, &self.layers.websocket, &self.layers.tls) {
            (Endpoint::File { .. }, ..) => TransportKind::Unix,
            (Endpoint::Address(_), None, None) => TransportKind::Tcp,
            (Endpoint::Address(_), None, Some(_)) => TransportKind::Tls,
            (Endpoint::Address(_), Some(_), None) => TransportKind::WebSocket,
            (Endpoint::Address(_), Some(_), Some(_)) => TransportKind::SecureWebSocket,
        }
    }
}

/// A listening socket; every shard accepts from its own copy.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener),
    /// The file is removed with the last copy.
    Unix(UnixListener, Arc<SocketFile>),
}

impl Bound {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener, file) => {
                listener.try_clone().map(|listener| Self::Unix(listener, file.clone()))
            }
        }
    }

    /// Starts to listen, so that clients can connect.
    pub(crate) fn listen(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => {
                let socket = SockRef::from(listener);
                socket.listen(BACKLOG)?;
                accept_who_has_spoken(&socket);
                Ok(())
            }
            Self::Unix(listener, _) => SockRef::from(listener).listen(BACKLOG),
        }
    }

    /// Returns the bound address; a Unix socket has none.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

/// Why a socket cannot be bound.
#[derive(Debug)]
pub(crate) enum BindError {
    /// The address cannot be resolved.
    NotFound(io::Error),
    /// The operating system refuses to bind.
    Refused(io::Error),
}

/// Binds a socket. Clients cannot connect before [`Bound::listen`].
pub(crate) fn bind(listener: &Listener) -> Result<Bound, BindError> {
    match &listener.endpoint {
        Endpoint::Address(address) => {
            let mut resolved = address.to_socket_addrs().map_err(BindError::NotFound)?;
            let not_found = || BindError::NotFound(io::ErrorKind::NotFound.into());
            // One address only: a name with several would
            // need a listener for each, and a URL for each.
            let address = resolved.next().ok_or_else(not_found)?;
            let bound = bind_tcp(address, listener.tcp_keep_alive_secs);
            bound.map(Bound::Tcp).map_err(BindError::Refused)
        }
        Endpoint::File { path, mode } => {
            let (listener, file) = unix::bind(path, *mode).map_err(BindError::Refused)?;
            Ok(Bound::Unix(listener, Arc::new(file)))
        }
    }
}

fn bind_tcp(address: SocketAddr, keep_alive_secs: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Lets a restarted broker bind its port while old connections are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` means every address of the machine, IPv4 included, as for HTTP.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // tokio expects a socket that does not block.
    socket.set_nonblocking(true)?;
    // Small packets are sent immediately; the broker batches its writes itself. Accepted sockets
    // inherit the option from the listener, which saves a system call for each connection.
    socket.set_tcp_nodelay(true)?;
    tcp::give_up_the_dead(&socket, keep_alive_secs)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Delays accept until the client has sent its first bytes, or for one second: in every protocol
/// here the client speaks first, so an earlier accept would only wake the broker twice. A
/// connection that sends nothing and closes costs the broker nothing.
pub(crate) fn accept_who_has_spoken(listener: &Socket) {
    #[cfg(target_os = "linux")]
    defer_accept(listener);
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

#[cfg(target_os = "linux")]
fn defer_accept(listener: &Socket) {
    use uapi::c::{IPPROTO_TCP, TCP_DEFER_ACCEPT, c_int};

    let secs: c_int = 1;
    let fd = std::os::fd::AsRawFd::as_raw_fd(listener);
    if let Err(error) = uapi::setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &secs) {
        // Only an optimisation: without it, everything still works.
        tracing::debug!(%error, "cannot set TCP_DEFER_ACCEPT");
    }
}
