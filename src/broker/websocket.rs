//! MQTT over WebSocket inside an application's own actix-web `App`.
//!
//! The application's server has accepted the connection and read the request. From the response on,
//! the bytes go to and from the broker. The MQTT session sees no difference.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::Arc,
};

use actix_http::ConnectionType;
use actix_rt::ArbiterHandle;
use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode, Version,
        header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL},
    },
    web::{self, Payload, ServiceConfig},
};

use super::{Broker, Running};
use crate::{
    auth::{ClientCertificate, ListenerLogins},
    metrics::{ConnectRefusal, ShardMetrics, TransportKind},
    net::{
        Accepted, Arrival, Pages, UpgradeRefusal, UpgradeRequest, WebSocket, WebSocketOptions,
        Whose, canonical, handshake, hosted,
    },
    told::{Severity, Subject},
};

/// Name of the listener for WebSocket routes of an application.
const HOSTED: &str = "hosted-websocket";

impl Broker {
    /// Returns MQTT over WebSocket, to mount into the application's own actix-web `App`:
    /// `App::new().configure(broker.websocket_routes("/mqtt"))`. To restrict origins, pass
    /// [`WebSocketOptions`] in place of a path.
    ///
    /// The clients count towards the broker's limits like those of its own listeners. Their address
    /// is that of the socket. A client certificate is trusted if the application has put it as a
    /// [`ClientCertificate`] into the connection's data, in `HttpServer::on_connect`; see
    /// [`client_certificate`](crate::net::tls::client_certificate).
    ///
    /// Shut down the broker before the HTTP server, which otherwise waits for the WebSockets to
    /// end.
    pub fn websocket_routes(
        &self,
        options: impl Into<WebSocketOptions>,
    ) -> impl FnOnce(&mut ServiceConfig) + Clone + Send + 'static {
        let broker = self.clone();
        let WebSocketOptions { path, origins } = options.into();
        move |config: &mut ServiceConfig| {
            let handle = move |request: HttpRequest, payload: Payload| {
                let answer = broker.upgrade(&request, payload, &origins);
                async move { answer }
            };
            config.service(web::resource(path).to(handle));
        }
    }

    /// Upgrades a request of the application's own route to a WebSocket for MQTT, or returns the
    /// response that refuses it: for applications that inspect the request first. Otherwise the
    /// same as [`Broker::websocket_routes`].
    pub fn accept_websocket(&self, request: &HttpRequest, payload: Payload) -> HttpResponse {
        self.upgrade(request, payload, &[])
    }

    fn upgrade(&self, request: &HttpRequest, payload: Payload, origins: &[String]) -> HttpResponse {
        let headers = request.headers().iter();
        let asked = UpgradeRequest {
            method: request.method().as_str(),
            is_http_1_1: request.version() == Version::HTTP_11,
            headers: headers.map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
        };
        // A browser sends the certificate for every page, so the origin decides then.
        let has_certificate = request.conn_data::<ClientCertificate>().is_some();
        let pages = Pages::new(origins, has_certificate);
        let decided = asked.decide(pages).map_err(|refusal| (ConnectRefusal::WebSocket, refusal));
        let hosted = decided.and_then(|accepted| {
            let hosted = self.host(request, payload, accepted);
            hosted.map_err(|refused| (refused, UpgradeRefusal::Unavailable))
        });
        hosted.unwrap_or_else(|(counted_as, refusal)| {
            self.count_refusal(peer(request), counted_as);
            let mut answer = answer_to(refusal);
            if request.head().upgrade() {
                // The upgrade is refused; the next bytes may be something else than HTTP.
                answer.head_mut().set_connection_type(ConnectionType::Close);
            }
            answer
        })
    }

    /// Takes over the bytes of a connection.
    fn host(
        &self,
        request: &HttpRequest,
        payload: Payload,
        accepted: Accepted,
    ) -> Result<HttpResponse, ConnectRefusal> {
        let running = &*self.running;
        let peer = peer(request);
        if !self.is_ready() {
            return Err(ConnectRefusal::Closed);
        }
        // A full broker says so in HTTP, which it cannot after the upgrade.
        if running.admission.is_full() {
            return Err(ConnectRefusal::ConnectionsMax);
        }
        // Not in turn: this thread belongs to the application and must not wait.
        let (admitted, eviction) = running.admission.enter(Whose::Of(peer.ip()))?;
        let (socket, body, feed) = hosted(payload);
        let arrival = Arrival {
            transport: Box::new(WebSocket::new(socket, Vec::new())),
            peer,
            listener: HOSTED.into(),
            logins: ListenerLogins::default(),
            connect_by: running.core.connect_by(),
            came_to: None,
            certificate: Ok(request.conn_data::<ClientCertificate>().cloned()),
            admitted,
            open: running.open.token(),
        };
        // The response cannot leave its thread; the connection goes to a shard.
        actix_web::rt::spawn(feed);
        let (host, metrics) = self.shard_for(peer);
        let core = running.core.clone();
        // The handshake runs on a shard, because only a shard's thread may write its metrics.
        host.spawn(async move {
            metrics.sockets_accepted.increment(TransportKind::WebSocket);
            let count = |refused| metrics.connects_refused.increment(refused);
            let handshake = pin!(handshake(arrival, &core, &count));
            eviction.unless_evicted(handshake).await.unwrap_or_else(count);
        });
        let Accepted { key, subprotocol } = accepted;
        Ok(HttpResponse::SwitchingProtocols()
            .upgrade("websocket")
            .insert_header((SEC_WEBSOCKET_ACCEPT, key))
            .insert_header((SEC_WEBSOCKET_PROTOCOL, subprotocol))
            .streaming(body))
    }

    fn count_refusal(&self, peer: SocketAddr, refused: ConnectRefusal) {
        let (host, metrics) = self.shard_for(peer);
        host.spawn(async move { metrics.connects_refused.increment(refused) });
        let told = &self.running.core.told;
        told.connect_refused(
            &Subject::stranger(peer, HOSTED),
            Severity::Warning,
            refused.name(),
            None,
        );
    }

    /// Returns the thread and the metrics of a shard; only that thread may write these metrics.
    fn shard_for(&self, peer: SocketAddr) -> (&ArbiterHandle, Arc<ShardMetrics>) {
        let Running { hosts, core, .. } = &*self.running;
        let shard = usize::from(peer.port()) % hosts.len();
        (&hosts[shard], core.metrics.shard(shard))
    }
}

/// Returns the address that a request comes from. Some sockets of an application have none; the
/// result is then the unspecified address, which no rule allows by accident.
fn peer(request: &HttpRequest) -> SocketAddr {
    let peer = request.peer_addr();
    canonical(peer.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
}

fn answer_to(refusal: UpgradeRefusal) -> HttpResponse {
    let (status, _) = refusal.status();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut answer = HttpResponse::build(status);
    if let Some(header) = refusal.header() {
        answer.insert_header(header);
    }
    answer.content_type("application/json").body(refusal.body())
}
