//! The HTTP and HTTPS server of the `hearthmq` program: worker threads, time-outs, and the
//! certificate that a caller has shown.
//!
//! It gets bound listeners and their TLS settings; it knows no file and no MQTT. A host
//! application has a server of its own and does not need this one.

use std::{
    any::Any,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{
    App, HttpServer,
    dev::{Extensions, ServerHandle},
    rt::net::TcpStream,
    web,
};
use rustls::pki_types::CertificateDer;

use super::{Api, not_found, routes};
use crate::{auth::ClientCertificate, net::tls::TlsSource};

/// How long a caller may take for the head of a request, and for TLS.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept for the caller's next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Connections of one worker. Calls are short; this many at once is a flood.
const CONNECTIONS_MAX: usize = 10_000;

/// Reads who a verified certificate chain belongs to. A chain that it makes nothing of counts as
/// none.
pub type ReadCertificate = fn(&[CertificateDer<'_>]) -> Option<ClientCertificate>;

/// Where the server listens, all bound already.
#[derive(Default)]
pub struct Listeners {
    /// For HTTP.
    pub http: Vec<TcpListener>,
    /// For HTTPS, each with its TLS settings.
    pub https: Vec<(TcpListener, TlsSource)>,
}

/// The URL of the listener that accepted a connection, for the connection's data: rules and the log
/// name the listener by it. Calls on a connection without it come from `hosted-http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerName(pub Arc<str>);

/// The names of all listeners, by the address that each is bound to.
struct Names(Vec<(SocketAddr, bool, Arc<str>)>);

impl Names {
    fn new(listeners: &Listeners) -> Self {
        let http = listeners.http.iter().map(|listener| (listener, "http"));
        let https = listeners.https.iter().map(|(listener, _)| (listener, "https"));
        let named = http.chain(https).filter_map(|(listener, scheme)| {
            let at = listener.local_addr().ok()?;
            Some((at, scheme == "https", format!("{scheme}://{at}").into()))
        });
        Self(named.collect())
    }

    /// The listener of a connection: bound to the very address, or to all of them.
    fn of(&self, stream: &TcpStream, is_tls: bool) -> Option<ListenerName> {
        let address = stream.local_addr().ok()?;
        let is_here = |at: &SocketAddr| at.port() == address.port();
        let mut all = self.0.iter().filter(|(at, tls, _)| is_here(at) && *tls == is_tls);
        let canonical = |at: &SocketAddr| at.ip().to_canonical();
        let exact = all.clone().find(|(at, ..)| canonical(at) == canonical(&address));
        let found = exact.or_else(|| all.find(|(at, ..)| at.ip().is_unspecified()))?;
        Some(ListenerName(Arc::clone(&found.2)))
    }
}

/// A running server. Dropping it lets it go on; it ends by [`Server::stop`].
pub struct Server {
    handle: ServerHandle,
}

impl Server {
    /// Serves `api` on `listeners` with `workers` threads. Needs an actix `System` to run in.
    ///
    /// # Errors
    /// A listener that the operating system does not let be used.
    pub fn start(
        api: &Api,
        listeners: Listeners,
        workers: usize,
        read_certificate: ReadCertificate,
    ) -> io::Result<Self> {
        let api = api.clone();
        let names = Names::new(&listeners);
        let mut server = HttpServer::new(move || {
            App::new().configure(routes(api.clone())).default_service(web::to(not_found))
        })
        .on_connect(move |connection, extensions| {
            keep_certificate(connection, extensions, read_certificate);
            keep_name(connection, extensions, &names);
        })
        .workers(workers)
        .max_connections(CONNECTIONS_MAX)
        .client_request_timeout(REQUEST_TIMEOUT)
        .tls_handshake_timeout(REQUEST_TIMEOUT)
        .keep_alive(IDLE_TIMEOUT)
        .disable_signals();
        for listener in listeners.http {
            server = server.listen(listener)?;
        }
        for (listener, tls) in listeners.https {
            server = server.listen_rustls_0_23(listener, (*tls.present()).clone())?;
        }
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "http server ended");
            }
        });
        Ok(Self { handle })
    }

    /// Ends the server: gracefully after the calls that are under way, or at once.
    pub async fn stop(&self, graceful: bool) {
        self.handle.stop(graceful).await;
    }
}

/// Leaves the listener's name where the calls look for it.
fn keep_name(connection: &dyn Any, extensions: &mut Extensions, names: &Names) {
    let plain = connection.downcast_ref::<TcpStream>().map(|stream| (stream, false));
    let secure = connection.downcast_ref::<TlsStream<TcpStream>>();
    let secure = secure.map(|stream| (stream.get_ref().0, true));
    let name = plain.or(secure).and_then(|(stream, is_tls)| names.of(stream, is_tls));
    if let Some(name) = name {
        extensions.insert(name);
    }
}

/// Leaves the certificate that the TLS handshake has verified where the calls look for it.
fn keep_certificate(
    connection: &dyn Any,
    extensions: &mut Extensions,
    read_certificate: ReadCertificate,
) {
    let Some(tls) = connection.downcast_ref::<TlsStream<TcpStream>>() else {
        return; // HTTP without TLS
    };
    let chain = tls.get_ref().1.peer_certificates();
    if let Some(certificate) = chain.and_then(read_certificate) {
        extensions.insert(certificate);
    }
}
