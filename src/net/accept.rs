//! Accepting, and the way of a connection through what is spoken before MQTT.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{
    Admission, Arrival,
    admission::Admitted,
    handshake,
    listener::{Bound, Layers},
    refused::Refused,
    secured::Secured,
    tls::{self, ClientCertificateError, TlsSource},
    websocket,
};
use crate::{
    actors::{Core, Host, SocketTransport, Transport},
    auth::ClientCertificate,
    metrics::{ConnectRefusal, ShardMetrics, TransportKind},
    told::Subject,
};

/// Pause after accept failed, usually for want of file descriptors.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Where clients of a Unix socket come from, as permissions, limits and events see it.
const UNIX_PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What an accepting loop needs.
pub(crate) struct ListenerParts {
    pub(crate) core: Arc<Core>,
    /// The shard that accepts.
    pub(crate) host: Host,
    /// Of that shard.
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) kind: TransportKind,
    /// Its URL.
    pub(crate) listener: Arc<str>,
    pub(crate) layers: Layers,
    pub(crate) stop: CancellationToken,
    /// Every connection holds a token of it while its stream is open.
    pub(crate) open: TaskTracker,
}

/// Accepts until it is told to stop. Runs on a shard's thread.
pub(crate) async fn accept_loop(bound: Bound, parts: ListenerParts) {
    let parts = Arc::new(parts);
    let stop = parts.stop.clone();
    let accepting = async {
        match bound {
            Bound::Tcp(listener) => accept_tcp(TcpListener::from_std(listener)?, &parts).await,
            Bound::Unix(listener, _file) => {
                accept_unix(UnixListener::from_std(listener)?, &parts).await
            }
        }
    };
    let outcome: Result<(), io::Error> = tokio::select! {
        () = stop.cancelled() => return,
        outcome = accepting => outcome,
    };
    if let Err(error) = outcome {
        tracing::error!(%error, "listener cannot be used");
    }
}

async fn accept_tcp(listener: TcpListener, parts: &Arc<ListenerParts>) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                admit(SocketTransport::new(stream), canonical(peer), parts);
            }
            Err(error) => pause(&error).await,
        }
    }
}

async fn accept_unix(listener: UnixListener, parts: &Arc<ListenerParts>) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => admit(SocketTransport::new(stream), UNIX_PEER, parts),
            Err(error) => pause(&error).await,
        }
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "accept failed");
    sleep(PAUSE_AFTER_FAILURE).await;
}

/// IPv4 over a socket of IPv6 is IPv4, to permissions, limits and events alike.
pub(crate) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn admit<S: Transport>(stream: S, peer: SocketAddr, parts: &Arc<ListenerParts>) {
    let admitted = match parts.layers.proxy {
        None => parts.admission.admit(peer.ip()),
        // Whose connection a balancer passes on is not known yet.
        Some(_) => parts.admission.admit_unknown(),
    };
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(refused) => {
            // Nothing is answered: before CONNECT the broker does not know what to say.
            turn_away(&refused.into(), peer, parts);
            return;
        }
    };
    parts.metrics.sockets_accepted.increment(parts.kind);
    let connect_by = parts.core.connect_by();
    let token = parts.open.token();
    let parts = Arc::clone(parts);
    actix_rt::spawn(async move {
        tokio::select! {
            () = parts.stop.cancelled() => {}
            () = arrive(stream, peer, (admitted, token), connect_by, &parts) => {}
        }
    });
}

/// Counts a connection that does not come to its CONNECT, and tells of it.
fn turn_away(refused: &Refused, peer: SocketAddr, parts: &ListenerParts) {
    parts.metrics.connects_refused.increment(refused.counted_as);
    if refused.counted_as != ConnectRefusal::Closed {
        refused.tell(&parts.core, &Subject::stranger(peer, &parts.listener), None);
    }
}

/// Takes a connection to its CONNECT, and that to its home shard.
async fn arrive<S: Transport>(
    stream: S,
    mut peer: SocketAddr,
    (admitted, token): (Admitted, TaskTrackerToken),
    connect_by: Instant,
    parts: &ListenerParts,
) {
    let layered = if parts.layers.are_none() {
        Ok(Layered { transport: Box::new(stream), peer, certificate: Ok(None), admitted })
    } else {
        // On the heap, so that a client that needs none of it has no room for it moved about.
        let layered = Box::pin(layer(stream, &mut peer, admitted, &parts.layers));
        let layered = timeout_at(connect_by, layered).await;
        layered.unwrap_or(Err(ConnectRefusal::ConnectTimeout.into()))
    };
    match layered {
        Ok(layered) => {
            let arrival = layered.arrival(connect_by, parts, token);
            handshake(arrival, &parts.core, &parts.metrics).await;
        }
        Err(refused) => turn_away(&refused, peer, parts),
    }
}

/// A connection that is ready for MQTT.
struct Layered {
    transport: Box<dyn Transport>,
    peer: SocketAddr,
    certificate: Shown,
    admitted: Admitted,
}

impl Layered {
    fn arrival(
        self,
        connect_by: Instant,
        parts: &ListenerParts,
        token: impl Send + 'static,
    ) -> Arrival {
        let Self { transport, peer, certificate, admitted } = self;
        let (came_to, permit) = (Some(parts.host), Box::new((admitted, token)));
        let listener = Arc::clone(&parts.listener);
        Arrival { transport, peer, listener, certificate, connect_by, came_to, permit }
    }
}

/// Goes through what is spoken before MQTT, from the outermost layer to the innermost. The peer becomes
/// the one that a balancer names.
async fn layer<S: Transport>(
    mut stream: S,
    peer: &mut SocketAddr,
    mut admitted: Admitted,
    layers: &Layers,
) -> Result<Layered, Refused> {
    if let Some(proxy) = &layers.proxy {
        let named = proxy.read_peer(&mut stream, *peer).await;
        let refused = |error| Refused::because(ConnectRefusal::ProxyProtocol, error);
        *peer = canonical(named.map_err(refused)?);
        admitted.count_for(peer.ip())?;
    }
    let (transport, certificate) = match &layers.tls {
        None => (within(stream, layers).await?, Ok(None)),
        Some(source) => {
            let (stream, certificate) = secure(stream, source).await?;
            (within(stream, layers).await?, certificate)
        }
    };
    Ok(Layered { transport, peer: *peer, certificate, admitted })
}

/// The innermost layer.
async fn within<S: Transport>(stream: S, layers: &Layers) -> Result<Box<dyn Transport>, Refused> {
    Ok(match &layers.websocket {
        None => Box::new(stream),
        Some(options) => Box::new(websocket::accept(stream, options).await?),
    })
}

/// The certificate that TLS has verified, if the client has shown one, or why it names nobody.
pub(crate) type Shown = Result<Option<ClientCertificate>, ClientCertificateError>;

/// The TLS handshake; the client's certificate, if it has shown one.
async fn secure<S: Transport>(
    stream: S,
    source: &TlsSource,
) -> Result<(Secured<S>, Shown), Refused> {
    let (settings, trust) = source.begin();
    let stream = TlsAcceptor::from(settings).accept(stream).await.map_err(tls::explained);
    let stream = stream.map_err(|error| Refused::because(ConnectRefusal::Tls, error))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = match chain {
        [] => Ok(None),
        chain => tls::client_certificate(chain).map(Some), // an error is answered in CONNACK
    };
    Ok((Secured::new(stream, trust), certificate))
}
