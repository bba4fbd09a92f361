//! Accepts connections and takes them through the layers below HTTP, a PROXY header and TLS, both
//! optional. Then actix-http takes over.
//!
//! Runs on the threads of the server's workers.

use std::{
    fmt::Display,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_http::HttpService;
use actix_service::{
    IntoServiceFactory as _, Service as _, ServiceFactory as _, ServiceFactoryExt as _, map_config,
};
use actix_web::{
    App,
    dev::{AppConfig, Extensions, Payload, ServiceResponse},
    web,
};
use futures_util::future::{LocalBoxFuture, OptionFuture};
use rustls::server::Acceptor;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Listener, Proxy,
    certificate::Verified,
    places::{ConnectionPlace, Places},
    taken::WatchedBody,
    watch::{ConnectionWatch, HEAD_TIMEOUT, WatchedStream},
};
use crate::{
    http::{
        Api, ListenerName,
        admission::PeerIsCaller,
        asking::ItsPlace,
        certificate::ShownCertificate,
        live::{LiveAnswer, ServerEnding},
        not_found,
        remembered::LastAccepted,
        routes,
    },
    metrics::ShardMetrics,
    net::{ProxyProtocol, Whose, canonical, is_of_files, is_somebody_waiting, tls},
    told::{Severity, Subject},
};

/// Pause after accept failed, usually for lack of file descriptors.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Pause after a connection was closed for want of files, in which its own becomes free.
const PAUSE_AFTER_CUT: Duration = Duration::from_millis(1);

/// Maximum time to drain input and to shut down a connection.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A listener, as used by one worker.
pub(super) struct Door {
    socket: StdListener,
    tls: Option<tls::TlsSource>,
    proxy: Proxy,
    name: ListenerName,
}

impl Door {
    pub(super) fn of(listener: &Listener, proxy: &Proxy) -> io::Result<Self> {
        let socket = listener.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            tls: listener.tls.clone(),
            proxy: Arc::clone(proxy),
            name: ListenerName(listener.url()?.into()),
        })
    }
}

/// The parts that a worker needs.
pub(super) struct Worker {
    pub(super) api: Api,
    pub(super) places: Arc<Places>,
    /// Cancelled when the server stops accepting; connections end after their current response.
    pub(super) ending: CancellationToken,
    /// Cancelled to end everything immediately.
    pub(super) cut: CancellationToken,
    /// Every open listener and connection holds a token of it.
    pub(super) open: TaskTracker,
}

/// Serves HTTP on a stream until the connection ends.
type Speak = dyn Fn(WatchedStream<AcceptedSocket>, SocketAddr) -> LocalBoxFuture<'static, ()>;

impl Worker {
    /// Accepts from all listeners until the server stops.
    pub(super) async fn run(self, doors: Vec<Door>) {
        let Some(speak) = speaker(&self.api, &self.ending).await else {
            return tracing::error!("cannot start an http worker");
        };
        let worker = Rc::new(self);
        for door in doors {
            let (worker, speak) = (Rc::clone(&worker), Rc::clone(&speak));
            let token = worker.open.token();
            actix_web::rt::spawn(async move {
                tokio::select! {
                    () = worker.ending.cancelled() => {}
                    error = worker.accept_from(door, speak) => {
                        tracing::error!(%error, "listener cannot be used");
                    }
                }
                drop(token);
            });
        }
    }

    async fn accept_from(self: &Rc<Self>, door: Door, speak: Rc<Speak>) -> io::Error {
        let Door { socket, tls, proxy, name } = door;
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => return error,
        };
        let (api, places) = (self.api.clone(), Arc::clone(&self.places));
        let way = Rc::new(Way { tls, proxy, name, places, speak, api });
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.admit(stream, canonical(peer), &way).await,
                Err(error) if is_of_files(&error) && !is_somebody_waiting(&listener) => {
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
                Err(error) => {
                    self.api.0.told.accept_failed(&error, &way.name.0);
                    let count = |cell: &ShardMetrics| cell.accepts_failed.increment();
                    self.api.0.metrics.count_elsewhere(count);
                    // The first connection to go is closed for the one
                    // that waits; if there is none, only time helps.
                    let has_made_room = is_of_files(&error) && self.places.make_room();
                    sleep(if has_made_room { PAUSE_AFTER_CUT } else { PAUSE_AFTER_FAILURE }).await;
                }
            }
        }
    }

    async fn admit(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, way: &Rc<Way>) {
        let proxy = way.proxy.load_full();
        let whose = match proxy {
            None => Whose::Of(peer.ip()),
            // The client behind the balancer is not known yet.
            Some(_) => Whose::PassedOnBy(peer.ip()),
        };
        // No response: there is no request to respond to.
        let Some(place) = self.places.admit(whose).await else { return };
        let (worker, way) = (Rc::clone(self), Rc::clone(way));
        // Held to the end of the connection, so that `stop` waits for its answer.
        let token = self.open.token();
        actix_web::rt::spawn(async move {
            let seat = place.seat();
            let connection = pin!(way.go(stream, (peer, proxy), place, &worker.ending));
            tokio::select! {
                () = worker.cut.cancelled() => {}
                _ = seat.sit(connection) => {}
            }
            drop(token);
        });
    }
}

/// The settings for connections of one listener.
struct Way {
    tls: Option<tls::TlsSource>,
    proxy: Proxy,
    name: ListenerName,
    places: Arc<Places>,
    speak: Rc<Speak>,
    api: Api,
}

impl Way {
    /// Logs a connection that ends before its first request.
    fn tell_refused(&self, peer: SocketAddr, reason: &'static str, error: &dyn Display) {
        let caller = Subject::stranger(peer, &self.name.0);
        let why = error.to_string();
        self.api.0.told.connect_refused(&caller, Severity::Warning, reason, Some(&why));
    }

    async fn go(
        &self,
        stream: TcpStream,
        (peer, proxy): (SocketAddr, Option<Arc<ProxyProtocol>>),
        place: ConnectionPlace,
        ending: &CancellationToken,
    ) {
        let by = Instant::now() + HEAD_TIMEOUT;
        let layered = tokio::select! {
            () = ending.cancelled() => return,
            layered = timeout_at(by, self.layer(stream, (peer, proxy), &place)) => layered,
        };
        let Ok(Some((socket, peer))) = layered else { return };
        let watch = ConnectionWatch::new(place);
        let certificate = socket.certificate.clone();
        let distrusted = OptionFuture::from(certificate.map(Verified::distrusted));
        let connection = (self.speak)(WatchedStream::new(socket, Rc::clone(&watch)), peer);
        watch.keep(connection, distrusted).await;
    }

    /// Goes through the layers below HTTP. Assigns the place to the caller that the PROXY header
    /// names.
    async fn layer(
        &self,
        mut stream: TcpStream,
        (mut peer, proxy): (SocketAddr, Option<Arc<ProxyProtocol>>),
        place: &ConnectionPlace,
    ) -> Option<(AcceptedSocket, SocketAddr)> {
        let has_named_peer = proxy.is_some();
        if let Some(proxy) = proxy {
            let named = proxy.read_peer(&mut stream, peer).await.inspect_err(|error| {
                self.tell_refused(peer, "proxy_protocol", error);
            });
            peer = canonical(named.ok()?);
            // Before TLS: a caller with too many connections costs no handshake.
            place.belongs_to(peer.ip()).then_some(())?;
        }
        let name = self.name.clone();
        let Some(tls) = &self.tls else {
            let layer = Layer::Plain(stream);
            return Some((AcceptedSocket { layer, name, has_named_peer, certificate: None }, peer));
        };
        let (settings, trust) = tls.begin();
        let handshake = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            // Only a complete ClientHello counts: silent sockets would use up the handshake rate of
            // another caller at the same address.
            if !self.places.allow_handshake(peer.ip()) {
                return Ok(None);
            }
            // A caller that has begun TLS is closed after those that have sent nothing.
            place.set_waiting();
            hello.into_stream(settings).await.map(Some)
        };
        let stream = handshake.await.map_err(tls::explained);
        let stream = stream.inspect_err(|error| {
            self.tell_refused(peer, "tls", error);
        });
        let stream = stream.ok()??;
        let certificate = Verified::new(stream.get_ref().1.peer_certificates(), trust);
        let layer = Layer::Tls(Box::new(stream));
        Some((AcceptedSocket { layer, name, has_named_peer, certificate }, peer))
    }
}

/// Creates the function that serves HTTP on a stream: actix-http with the routes of the interface.
async fn speaker(api: &Api, ending: &CancellationToken) -> Option<Rc<Speak>> {
    let app = App::new()
        .configure(routes(api.clone()))
        .default_service(web::to(not_found))
        .wrap_fn(|request, service| {
            // The watch learns here when a request is complete, because actix-http does not tell.
            let watch = request.conn_data::<Rc<ConnectionWatch>>().cloned();
            if let Some(watch) = &watch {
                watch.begin_answer(!matches!(request.parts().1, Payload::None));
            }
            let answer = service.call(request);
            async move {
                let answer = answer.await;
                let is_live = |answer: &ServiceResponse<_>| {
                    answer.response().extensions().contains::<LiveAnswer>()
                };
                if let Some(watch) = &watch {
                    match answer.as_ref().is_ok_and(is_live) {
                        true => watch.begin_live(),
                        false => watch.end_answer(),
                    }
                }
                match answer {
                    Ok(answer) => Ok(answer.map_body(|_, body| WatchedBody::new(body, watch))),
                    Err(error) => {
                        // No body will end it.
                        watch.inspect(|watch| watch.end_body());
                        Err(error)
                    }
                }
            }
        });
    let app = app.into_factory().map_err(|error: actix_web::Error| error.error_response());
    // Deadlines of a head and of the end are here; all others are those of the watch.
    let (ending, for_calls) = (ending.clone(), ending.clone());
    let service = HttpService::build()
        .keep_alive(actix_http::KeepAlive::Os) // the watch ends idle connections
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .graceful_shutdown_signal(move || {
            let ending = ending.clone();
            async move { ending.cancelled().await }
        })
        .on_connect_ext(move |stream: &WatchedStream<AcceptedSocket>, data: &mut Extensions| {
            data.insert(Rc::clone(stream.watch()));
            data.insert(ServerEnding(for_calls.clone()));
            let place: ItsPlace = Rc::<ConnectionWatch>::clone(stream.watch());
            data.insert(place);
            data.insert(stream.stream().name.clone());
            data.insert(LastAccepted::default());
            if stream.stream().has_named_peer {
                data.insert(PeerIsCaller);
            }
            if let Some(certificate) = &stream.stream().certificate {
                let shown: ShownCertificate = certificate.clone();
                data.insert(shown);
            }
        })
        .h1(map_config(app, |()| AppConfig::default()));
    // One service for all connections of this worker.
    let service = service.new_service(()).await.ok()?;
    Some(Rc::new(move |stream, peer| {
        let ended = service.call((stream, Some(peer)));
        Box::pin(async move {
            if let Err(error) = ended.await {
                tracing::debug!(%error, %peer, "http connection ended");
            }
        })
    }))
}

/// The stream of a connection, its listener and its client certificate.
struct AcceptedSocket {
    layer: Layer,
    name: ListenerName,
    /// Whether a PROXY header named the peer.
    has_named_peer: bool,
    certificate: Option<Rc<Verified>>,
}

enum Layer {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for AcceptedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Layer::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for AcceptedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Layer::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Layer::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Layer::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
