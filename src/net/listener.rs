//! Where clients come in: an address or a file, and what is spoken before MQTT.
//!
//! [`Listener`] says it, [`bind`] does it; `accept` takes what comes.

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

/// Connections that the kernel holds before they are accepted.
const BACKLOG: i32 = 4096;

/// The name of the listener of streams that the application itself brings.
pub(crate) const IN_PROCESS: &str = "in-process";

/// Who may use a Unix socket if nothing else is said: its owner and its group.
const UNIX_MODE_DEFAULT: u32 = 0o660;

/// A way in for MQTT clients.
///
/// Addresses are `IP:PORT`; port 0 lets the operating system choose, and `[::]` takes IPv4 as well.
/// TLS is a [`TlsSource`], whose files can be read again, or an `Arc<rustls::ServerConfig>`, for
/// example of [`mqtt_server_config`](super::tls::mqtt_server_config) or, for WebSocket,
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

/// What lies between a socket and MQTT, the outermost first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    pub(crate) proxy: Option<ProxyProtocol>,
    pub(crate) tls: Option<TlsSource>,
    pub(crate) websocket: Option<WebSocketOptions>,
}

impl Layers {
    /// Whether MQTT is spoken from the first byte on.
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

    /// MQTT over TCP.
    pub fn tcp(address: impl Into<String>) -> Self {
        Self::at(address)
    }

    /// MQTT over TLS.
    pub fn tls(address: impl Into<String>, tls: impl Into<TlsSource>) -> Self {
        let mut listener = Self::at(address);
        listener.layers.tls = Some(tls.into());
        listener
    }

    /// MQTT over WebSocket; `options` may be just the path.
    pub fn websocket(address: impl Into<String>, options: impl Into<WebSocketOptions>) -> Self {
        let mut listener = Self::at(address);
        listener.layers.websocket = Some(options.into());
        listener
    }

    /// MQTT over WebSocket over TLS.
    pub fn secure_websocket(
        address: impl Into<String>,
        tls: impl Into<TlsSource>,
        options: impl Into<WebSocketOptions>,
    ) -> Self {
        let mut listener = Self::websocket(address, options);
        listener.layers.tls = Some(tls.into());
        listener
    }

    /// MQTT over a Unix socket, for clients on the same machine. To authenticators, permissions,
    /// limits and events its clients come from 127.0.0.1, port 0.
    ///
    /// A socket that somebody has left there is replaced, one that is in use is not. The file goes
    /// away with the broker.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::of(Endpoint::File { path: path.into(), mode: UNIX_MODE_DEFAULT })
    }

    /// Who may use the Unix socket, as permission bits; 0o660 if nothing is said. Means nothing for
    /// an address.
    pub const fn mode(mut self, bits: u32) -> Self {
        if let Endpoint::File { mode, .. } = &mut self.endpoint {
            *mode = bits;
        }
        self
    }

    /// Asks a client's machine after so many seconds of silence whether it is still there, and gives it
    /// up after twice as many without a word from it, also if it does not take what is sent to it; 60 if
    /// nothing is said, 0 = as the system has it. Means nothing for a Unix socket.
    pub const fn tcp_keep_alive_secs(mut self, secs: u16) -> Self {
        self.tcp_keep_alive_secs = secs;
        self
    }

    /// What holds for logins at this listener, in place of what the authenticator does elsewhere.
    pub const fn logins(mut self, logins: ListenerLogins) -> Self {
        self.logins = logins;
        self
    }

    /// Every connection begins with a PROXY header, version 1 or 2; one without it is closed. The
    /// address that it names counts for permissions, limits and events. What a balancer says about
    /// a client's certificate is not believed.
    pub fn proxy_protocol(mut self, proxy: ProxyProtocol) -> Self {
        self.layers.proxy = Some(proxy);
        self
    }
}

impl Listener {
    /// The URL by which rules, log and events name the listener: `mqtt://127.0.0.1:1883`,
    /// `wss://[::]:8084/mqtt`, `unix:/run/hearthmq/mqtt.sock`. `bound` is the address that it is
    /// bound to; a Unix socket has none.
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
        let path = self.layers.websocket.as_ref().map_or("", |options| options.path.as_str());
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

/// A listening socket; every shard accepts from a copy of it.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener),
    /// The file goes away with the last copy.
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

    /// Lets clients connect.
    pub(crate) fn listen(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => {
                let socket = SockRef::from(listener);
                socket.listen(BACKLOG)?;
                #[cfg(target_os = "linux")]
                accept_who_has_spoken(&socket);
                Ok(())
            }
            Self::Unix(listener, _) => SockRef::from(listener).listen(BACKLOG),
        }
    }

    /// Where it listens; a Unix socket has no such address.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

/// Why there is nothing to accept from.
#[derive(Debug)]
pub(crate) enum BindError {
    /// The address means nothing.
    NotFound(io::Error),
    /// The operating system refuses.
    Refused(io::Error),
}

/// Binds a socket. Nobody can connect to it before [`Bound::listen`].
pub(crate) fn bind(listener: &Listener) -> Result<Bound, BindError> {
    match &listener.endpoint {
        Endpoint::Address(address) => {
            let mut resolved = address.to_socket_addrs().map_err(BindError::NotFound)?;
            let not_found = || BindError::NotFound(io::ErrorKind::NotFound.into());
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
    // A restarted broker finds its port free although old connections linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` stands for every address of the machine, as it does for HTTP.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    // Small packets leave at once; the broker gathers what belongs together by itself. What is
    // accepted takes this over from the listener, which saves a system call for each connection.
    socket.set_tcp_nodelay(true)?;
    tcp::give_up_the_dead(&socket, keep_alive_secs)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// In all that is spoken here the client begins. So a connection is worth a look when its first bytes
/// are there, or a second later, and not twice; one that only knocks costs the broker nothing.
#[cfg(target_os = "linux")]
fn accept_who_has_spoken(listener: &Socket) {
    use uapi::c::{IPPROTO_TCP, TCP_DEFER_ACCEPT, c_int};

    let secs: c_int = 1;
    let fd = std::os::fd::AsRawFd::as_raw_fd(listener);
    if let Err(error) = uapi::setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &secs) {
        // Without it all is the same, only dearer.
        tracing::debug!(%error, "TCP_DEFER_ACCEPT is refused");
    }
}
