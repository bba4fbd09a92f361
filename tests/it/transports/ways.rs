//! The transports to a broker, each as a stream that carries MQTT.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use actix_web::{App, HttpServer, dev::ServerHandle};
use hearthmq::{
    Broker,
    auth::AllowAll,
    broker::Builder,
    metrics::ConnectRefusal,
    mqtt::{Connect, ProtocolVersion},
    net::{
        Listener, ProxyProtocol,
        tls::{ClientAuth, TlsConfig, TlsVersion, mqtt_server_config, server_config},
    },
};
use proxy_header::{ProxiedAddress, ProxyHeader};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    pki::Pki,
    support::{self, generous},
    websocket_client::Binary,
};

/// How a client reaches the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Tcp,
    Tls,
    WebSocket,
    SecureWebSocket,
    /// Through the actix-web `App` of an application.
    Hosted,
    Unix,
    Ipv6,
    /// Through a balancer that sends PROXY headers.
    Proxied,
    ProxiedSecureWebSocket,
}

/// Any stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

pub(crate) type Client = support::Client<Box<dyn Stream>>;

/// The address that balancers name.
pub(crate) const BEHIND: &str = "198.51.100.7:4711";

/// A broker of two shards with one kind of listener, and one for TCP.
pub(crate) struct World {
    pub(crate) broker: Broker,
    way: Way,
    /// Address of the listener under test; that of TCP if it has none.
    pub(crate) address: SocketAddr,
    tcp: SocketAddr,
    dir: TempDir,
    http: Option<ServerHandle>,
}

pub(crate) fn builder() -> Builder {
    Broker::builder().shards(2).limits(generous()).authenticator(AllowAll).authorizer(AllowAll)
}

impl World {
    pub(crate) async fn with(way: Way) -> Self {
        Self::configured(way, |builder| builder).await
    }

    pub(crate) async fn configured(way: Way, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let builder = configure(builder()).tcp("127.0.0.1:0");
        let any = "127.0.0.1:0";
        let builder = match way {
            Way::Tcp | Way::Hosted => builder,
            Way::Tls => builder.tls(any, mqtt_server_config(&tls_files()).unwrap()),
            Way::WebSocket => builder.websocket(any),
            Way::SecureWebSocket => {
                builder.secure_websocket(any, server_config(&tls_files()).unwrap())
            }
            Way::Unix => builder.unix(dir.path().join("mqtt.sock")),
            Way::Ipv6 => builder.tcp("[::1]:0"),
            Way::Proxied => {
                builder.listen(Listener::tcp(any).proxy_protocol(ProxyProtocol::default()))
            }
            Way::ProxiedSecureWebSocket => {
                let tls = server_config(&tls_files()).unwrap();
                let listener = Listener::secure_websocket(any, tls, "/mqtt");
                builder.listen(listener.proxy_protocol(ProxyProtocol::default()))
            }
        };
        let broker = builder.start().await.unwrap();
        let tcp = broker.local_addrs()[0];
        let mut address = *broker.local_addrs().last().unwrap();
        let mut http = None;
        if way == Way::Hosted {
            let routes = broker.websocket_routes("/mqtt");
            let server = HttpServer::new(move || App::new().configure(routes.clone()))
                .workers(1)
                // Otherwise actix-http holds a socket for a second after the end of an answer.
                .client_disconnect_timeout(std::time::Duration::ZERO)
                .disable_signals()
                .bind("127.0.0.1:0")
                .unwrap();
            address = server.addrs()[0];
            let server = server.run();
            http = Some(server.handle());
            actix_rt::spawn(server);
        }
        Self { broker, way, address, tcp, dir, http }
    }

    pub(crate) fn socket_file(&self) -> PathBuf {
        self.dir.path().join("mqtt.sock")
    }

    /// Opens a client over this transport, without CONNECT.
    pub(crate) async fn client(&self, version: ProtocolVersion) -> Client {
        Client::on(self.stream().await, version)
    }

    /// Connects a client over this transport; returns whether its session was present.
    pub(crate) async fn connected(&self, connect: Connect<'_>) -> (Client, bool) {
        let mut client = self.client(connect.version).await;
        let session_present = client.connect(connect).await;
        (client, session_present)
    }

    /// Does the same over TCP.
    pub(crate) async fn connected_over_tcp(&self, connect: Connect<'_>) -> (Client, bool) {
        let stream = TcpStream::connect(self.tcp).await.unwrap();
        let mut client = Client::on(Box::new(stream), connect.version);
        let session_present = client.connect(connect).await;
        (client, session_present)
    }

    async fn stream(&self) -> Box<dyn Stream> {
        let tcp = async || TcpStream::connect(self.address).await.unwrap();
        match self.way {
            Way::Tcp | Way::Ipv6 => Box::new(tcp().await),
            Way::Tls => Box::new(tls(tcp().await).await),
            Way::WebSocket | Way::Hosted => Box::new(Binary::over(tcp().await).await),
            Way::SecureWebSocket => Box::new(Binary::over(tls(tcp().await).await).await),
            Way::Unix => Box::new(UnixStream::connect(self.socket_file()).await.unwrap()),
            Way::Proxied => Box::new(proxied(tcp().await).await),
            Way::ProxiedSecureWebSocket => {
                let stream = proxied(tcp().await).await;
                Box::new(Binary::over(tls(stream).await).await)
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(http) = &self.http {
            drop(http.stop(false)); // asking for the end is enough
        }
    }
}

/// Names the client of this connection as a balancer does.
async fn proxied(mut stream: TcpStream) -> TcpStream {
    let addresses =
        ProxiedAddress::stream(BEHIND.parse().unwrap(), "192.0.2.1:1883".parse().unwrap());
    let mut header = Vec::new();
    ProxyHeader::with_address(addresses).encode_v2(&mut header).unwrap();
    stream.write_all(&header).await.unwrap();
    stream
}

fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(Pki::new)
}

pub(crate) fn tls_files() -> TlsConfig {
    TlsConfig {
        certificate: pki().server.chain.clone(),
        key: pki().server.key.clone(),
        client_ca: Vec::new(),
        client_auth: ClientAuth::None,
        crl: Vec::new(),
        min_version: TlsVersion::V1_2,
        ocsp: PathBuf::new(),
    }
}

async fn tls(stream: TcpStream) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&pki().ca).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Returns the address that the broker sees for clients of this transport.
pub(crate) fn ip_seen(way: Way) -> IpAddr {
    match way {
        Way::Ipv6 => Ipv6Addr::LOCALHOST.into(),
        Way::Proxied | Way::ProxiedSecureWebSocket => BEHIND.parse::<SocketAddr>().unwrap().ip(),
        Way::Tcp | Way::Tls | Way::WebSocket | Way::SecureWebSocket | Way::Hosted | Way::Unix => {
            "127.0.0.1".parse().unwrap()
        }
    }
}

/// Waits until this many connections were refused for this reason: a client may see the end of its
/// connection before the broker has counted it.
pub(crate) async fn expect_refused(broker: &Broker, reason: ConnectRefusal, expected: u64) {
    let metrics = broker.metrics();
    let counted =
        || metrics.shards().map(|shard| shard.connects_refused.of(reason).value()).sum::<u64>();
    let reached = async {
        while counted() < expected {
            tokio::task::yield_now().await;
        }
    };
    drop(timeout(support::secs(60), reached).await);
    assert_eq!(counted(), expected);
}
