//! Opens the byte stream to another broker: names, TCP, TLS.
//!
//! Behind a trait, so that a test can lead a bridge elsewhere. Knows no MQTT.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::{TcpSocket, TcpStream, lookup_host},
};
use tokio_rustls::TlsConnector;

use super::{
    address::BridgeAddress,
    error::BridgeError,
    fault::{BridgeTrouble, TroubleKind},
    options::Bridge,
    tls::BridgeTls,
};

/// A byte stream to another broker.
pub(crate) trait BridgeStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> BridgeStream for S {}

/// An open stream, and the address of its other end.
pub(crate) type Dialled = (Box<dyn BridgeStream>, Option<SocketAddr>);

/// Opens streams.
#[async_trait]
pub(crate) trait Dial: Send + Sync {
    /// Opens a stream to one of the addresses of a bridge.
    ///
    /// # Errors
    /// The other broker cannot be reached.
    async fn dial(&self, address: &BridgeAddress) -> Result<Dialled, BridgeTrouble>;
}

/// Opens connections of TCP, with TLS where the address says so.
pub(crate) struct NetworkDial {
    tls: BridgeTls,
    config: Option<Arc<ClientConfig>>,
    bind_address: Option<IpAddr>,
}

impl NetworkDial {
    /// Creates it for a bridge.
    ///
    /// # Errors
    /// TLS is needed and cannot be set up.
    pub(crate) fn new(bridge: &Bridge) -> Result<Self, BridgeError> {
        let config = bridge.needs_tls().then(|| bridge.tls.client_config()).transpose()?;
        Ok(Self { tls: bridge.tls.clone(), config, bind_address: bridge.options.bind_address })
    }

    /// Connects to the first address of a host that answers.
    async fn connect(&self, address: &BridgeAddress) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for at in lookup_host((&*address.host, address.port)).await? {
            match self.connect_to(at).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, at: SocketAddr) -> io::Result<TcpStream> {
        let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(own) = self.bind_address {
            socket.bind(SocketAddr::new(own, 0))?;
        }
        let stream = socket.connect(at).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

#[async_trait]
impl Dial for NetworkDial {
    async fn dial(&self, address: &BridgeAddress) -> Result<Dialled, BridgeTrouble> {
        let unreachable = |error: io::Error| BridgeTrouble::new(TroubleKind::Unreachable, error);
        let stream = self.connect(address).await.map_err(unreachable)?;
        let peer = stream.peer_addr().ok();
        let Some(config) = self.config.as_ref().filter(|_| address.is_encrypted) else {
            return Ok((Box::new(stream), peer));
        };
        let of_tls = |error: io::Error| BridgeTrouble::new(TroubleKind::Tls, error);
        let name = self.tls.name_of(address).map_err(of_tls)?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name, stream).await.map_err(of_tls)?;
        Ok((Box::new(stream), peer))
    }
}

/// Returns the stream to an address.
pub(crate) type DialInProcess = Box<dyn Fn(&str) -> io::Result<DuplexStream> + Send + Sync>;

/// Opens streams within this process, for tests.
pub(crate) struct InProcessDial(pub(crate) DialInProcess);

#[async_trait]
impl Dial for InProcessDial {
    async fn dial(&self, address: &BridgeAddress) -> Result<Dialled, BridgeTrouble> {
        let stream = (self.0)(&address.to_string());
        let stream = stream.map_err(|error| BridgeTrouble::new(TroubleKind::Unreachable, error))?;
        Ok((Box::new(stream), None))
    }
}
