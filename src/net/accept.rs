//! Accepts connections and takes them through the layers below MQTT.

use super::newcomer::Shown;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use tokio::{
    net::{TcpListener, UnixListener},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::{
    Arrival, ListenerLimits,
    admission::{Admitted, Stage, Whose},
    handshake,
    listener::{Bound, Layers},
    refused::Refused,
    shortage, tls, websocket,
};
use crate::{
    auth::ListenerLogins,
    metrics::{ConnectRefusal, ShardMetrics, TransportKind},
    router::ShardNumber,
    shard::Core,
    told::Subject,
    transport::{SocketTransport, Transport},
};

/// Pause after accept failed without a remedy.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Pause after a connection was evicted for lack of file descriptors, so that its own is closed.
const PAUSE_AFTER_EVICTION: Duration = Duration::from_millis(1);

/// The address of Unix socket clients for permissions, limits and events.
const UNIX_PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The parts that an accept loop needs.
pub(crate) struct ListenerParts {
    pub(crate) core: Arc<Core>,
    /// The shard that accepts.
    pub(crate) shard: ShardNumber,
    /// The metrics of that shard.
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) admission: Arc<ListenerLimits>,
    pub(crate) kind: TransportKind,
    /// The URL of the listener.
    pub(crate) listener: Arc<str>,
    /// As of what comes now.
    pub(crate) settings: Arc<ArcSwap<ListenerSettings>>,
    /// Every connection holds a token of it while its stream is open.
    pub(crate) open: TaskTracker,
}

/// The layers of a connection and the rules for its login. Each accepting loop has its own, so that shards
/// do not share a count.
#[derive(Clone)]
pub(crate) struct ListenerSettings {
    pub(crate) layers: Layers,
    pub(crate) logins: ListenerLogins,
}

/// Accepts connections until it is cancelled. Runs on a shard's thread.
pub(crate) async fn accept_loop(bound: Bound, parts: ListenerParts) {
    let parts = Arc::new(parts);
    let accepting = async {
        match bound {
            Bound::Tcp(listener) => accept_tcp(TcpListener::from_std(listener)?, &parts).await,
            Bound::Unix(listener, _file) => {
                accept_unix(UnixListener::from_std(listener)?, &parts).await
            }
        }
    };
    let outcome: Result<(), io::Error> = tokio::select! {
        () = parts.core.ending.cancelled() => return,
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
                begin_connection(SocketTransport::new(stream), canonical(peer), parts).await;
            }
            Err(error) => {
                recover(&error, parts, &listener, || drop(listener.accept().now_or_never())).await;
            }
        }
    }
}

async fn accept_unix(listener: UnixListener, parts: &Arc<ListenerParts>) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                begin_connection(SocketTransport::new(stream), UNIX_PEER, parts).await
            }
            Err(error) => {
                recover(&error, parts, &listener, || drop(listener.accept().now_or_never())).await;
            }
        }
    }
}

/// Handles an accept failure: for lack of file descriptors, evicts a connection or uses the spare
/// file; otherwise pauses.
async fn recover(
    error: &io::Error,
    parts: &ListenerParts,
    listener: &impl AsRawFd,
    accept_and_close: impl FnOnce(),
) {
    // Without a waiting client, an eviction would free a descriptor for nobody.
    if shortage::is_of_files(error) && !shortage::is_somebody_waiting(listener) {
        return sleep(PAUSE_AFTER_FAILURE).await;
    }
    parts.metrics.accepts_failed.increment();
    parts.core.told.accept_failed(error, &parts.listener);
    if !shortage::is_of_files(error) {
        sleep(PAUSE_AFTER_FAILURE).await;
    } else if parts.admission.evict_one() {
        // Preferred to the spare file, which only closes
        // the waiting client: now it can be accepted.
        sleep(PAUSE_AFTER_EVICTION).await;
    } else if !parts.admission.shortage.with_spare_file(accept_and_close) {
        sleep(PAUSE_AFTER_FAILURE).await;
    }
}

/// Converts IPv4-mapped IPv6 addresses to IPv4, for permissions, limits and events.
pub(crate) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

async fn begin_connection<S: Transport>(stream: S, peer: SocketAddr, parts: &Arc<ListenerParts>) {
    // One load for the whole connection, so that a reload in between does not mix two settings.
    let settings = parts.settings.load_full();
    let whose = match settings.layers.proxy {
        None => Whose::Of(peer.ip()),
        // The client behind the balancer is not known yet.
        Some(_) => Whose::PassedOnBy(peer.ip()),
    };
    let (admitted, eviction) = match parts.admission.enter_in_turn(whose).await {
        Ok(admitted) => admitted,
        Err(refused) => {
            // No answer: before CONNECT the MQTT version of the client is unknown.
            turn_away(&refused.into(), peer, parts);
            return;
        }
    };
    parts.metrics.sockets_accepted.increment(parts.kind);
    // The time runs from here, not from the end of TLS, so slow layers cannot prolong it.
    let connect_by = parts.core.connect_by();
    let token = parts.open.token();
    let parts = Arc::clone(parts);
    // A task of its own: a slow handshake must not keep the next connection waiting.
    actix_rt::spawn(async move {
        let arrival =
            pin!(arrive(stream, peer, (admitted, token), connect_by, (&parts, &settings)));
        if let Err(evicted) = eviction.unless_evicted(arrival).await {
            turn_away(&evicted.into(), peer, &parts);
        }
    });
}

/// Counts and logs a connection that ends before its CONNECT.
fn turn_away(refused: &Refused, peer: SocketAddr, parts: &ListenerParts) {
    parts.metrics.connects_refused.increment(refused.counted_as);
    if refused.counted_as != ConnectRefusal::Closed {
        refused.tell(&parts.core, &Subject::stranger(peer, &parts.listener), None);
    }
}

/// Takes a connection through its layers to CONNECT, and from there to its home shard.
async fn arrive<S: Transport>(
    stream: S,
    mut peer: SocketAddr,
    (admitted, token): (Admitted, TaskTrackerToken),
    connect_by: Instant,
    (parts, settings): (&ListenerParts, &ListenerSettings),
) {
    let layered = if settings.layers.are_none() {
        Ok(Layered { transport: Box::new(stream), peer, certificate: Ok(None), admitted })
    } else {
        // Boxed, so that the future of a client without layers stays small.
        let layered = Box::pin(layer(stream, &mut peer, admitted, &settings.layers));
        let layered = timeout_at(connect_by, layered);
        // At the end of the broker there is nothing to answer before CONNECT.
        let Some(layered) = parts.core.unless_ending(layered).await else { return };
        layered.unwrap_or(Err(ConnectRefusal::ConnectTimeout.into()))
    };
    match layered {
        Ok(layered) => {
            let arrival = layered.arrival(connect_by, parts, settings.logins, token);
            let count = |refused| parts.metrics.connects_refused.increment(refused);
            handshake(arrival, &parts.core, &count).await;
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
        logins: ListenerLogins,
        open: TaskTrackerToken,
    ) -> Arrival {
        let Self { transport, peer, certificate, admitted } = self;
        let (came_to, listener) = (Some(parts.shard), Arc::clone(&parts.listener));
        Arrival {
            transport,
            peer,
            listener,
            logins,
            certificate,
            connect_by,
            came_to,
            admitted,
            open,
        }
    }
}

/// Goes through the layers below MQTT, the outermost first. Sets `peer` to the client that a
/// balancer names.
async fn layer<S: Transport>(
    mut stream: S,
    peer: &mut SocketAddr,
    mut admitted: Admitted,
    layers: &Layers,
) -> Result<Layered, Refused> {
    // First, because the header comes before TLS, and limits need the address of the client.
    if let Some(proxy) = &layers.proxy {
        let named = proxy.read_peer(&mut stream, *peer).await;
        let refused = |error| Refused::because(ConnectRefusal::ProxyProtocol, error);
        *peer = canonical(named.map_err(refused)?);
        // Before TLS: an address with too many connections costs no handshake.
        admitted.count_for(peer.ip())?;
    }
    let (transport, certificate) = match &layers.tls {
        None => (within(stream, layers, false).await?, Ok(None)),
        Some(source) => {
            let (stream, certificate) = tls::secure(stream, source, &mut admitted).await?;
            let has_certificate = !matches!(certificate, Ok(None));
            (within(stream, layers, has_certificate).await?, certificate)
        }
    };
    // A client that has passed all layers is evicted after those that have not.
    admitted.reach(Stage::Speaking);
    Ok(Layered { transport, peer: *peer, certificate, admitted })
}

/// Adds the innermost layer, WebSocket, if there is one.
async fn within<S: Transport>(
    stream: S,
    layers: &Layers,
    has_certificate: bool,
) -> Result<Box<dyn Transport>, Refused> {
    Ok(match &layers.websocket {
        None => Box::new(stream),
        Some(options) => {
            // For TLS settings of the application, only the connection shows whether there is a
            // certificate.
            let asks = layers.tls.as_ref().is_some_and(tls::TlsSource::asks_for_certificate);
            let can_be_login = asks || has_certificate;
            Box::new(websocket::accept(stream, options, can_be_login).await?)
        }
    })
}
