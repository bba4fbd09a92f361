//! Listening sockets, and accepting from them.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Admission, Arrival, handshake, tls};
use crate::{
    actors::{Core, TcpTransport, Transport},
    auth::ClientCertificate,
    metrics::{ConnectRefusal, ShardMetrics},
};

/// Connections that the kernel holds before they are accepted.
const BACKLOG: i32 = 4096;
/// Pause after accept failed, usually for want of file descriptors.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// What an accepting loop needs.
#[derive(Clone)]
pub(crate) struct ListenerParts {
    pub(crate) core: Arc<Core>,
    /// Of the shard that accepts.
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) stop: CancellationToken,
    /// Every connection holds a token of it while its stream is open.
    pub(crate) open: TaskTracker,
}

/// Binds a listening socket; every shard accepts from a copy of it.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted broker finds its port free although old connections linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until it is told to stop. Runs on a shard's thread.
pub(crate) async fn accept_loop(listener: std::net::TcpListener, parts: ListenerParts) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "listener cannot be used");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            () = parts.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, &parts),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, parts: &ListenerParts) {
    let permit = match parts.admission.admit(peer.ip()) {
        Ok(permit) => permit,
        Err(refused) => {
            // Nothing is answered: before CONNECT the broker does not know what to say.
            parts.metrics.connects_refused.increment(refused);
            return;
        }
    };
    // Small packets leave at once; the broker gathers what belongs together by itself.
    if let Err(error) = SockRef::from(&stream).set_tcp_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    let core = parts.core.clone();
    let metrics = parts.metrics.clone();
    let stop = parts.stop.clone();
    let permit = (permit, parts.open.token());
    let transport = TcpTransport::new(stream);
    let tls = parts.tls.clone();
    let connect_by = core.connect_by();
    actix_rt::spawn(async move {
        let arriving = async {
            let (transport, certificate) = match tls {
                None => (Box::new(transport) as Box<dyn Transport>, None),
                Some(config) => secure(transport, config, connect_by, &metrics).await?,
            };
            let arrival =
                Arrival { transport, peer, certificate, connect_by, permit: Box::new(permit) };
            handshake(arrival, &core, &metrics).await;
            Some(())
        };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = arriving => {}
        }
    });
}

/// The TLS handshake, within the time that CONNECT may take.
async fn secure(
    transport: TcpTransport,
    config: Arc<rustls::ServerConfig>,
    connect_by: Instant,
    metrics: &ShardMetrics,
) -> Option<(Box<dyn Transport>, Option<ClientCertificate>)> {
    let stream = match tokio::time::timeout_at(
        connect_by,
        TlsAcceptor::from(config).accept(transport),
    )
    .await
    {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            metrics.connects_refused.increment(ConnectRefusal::Tls);
            return None;
        }
        Err(_) => {
            metrics.connects_refused.increment(ConnectRefusal::ConnectTimeout);
            return None;
        }
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    if chain.is_empty() {
        return Some((Box::new(stream), None));
    }
    let certificate = match tls::client_certificate(chain) {
        Ok(certificate) => Some(certificate),
        Err(error) => {
            tracing::debug!(%error, "client certificate cannot be used");
            metrics.connects_refused.increment(ConnectRefusal::Tls);
            return None;
        }
    };
    Some((Box::new(stream), certificate))
}
