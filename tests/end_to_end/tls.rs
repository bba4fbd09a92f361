//! TLS from the client's side: a version, and a certificate or none.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
};

use hearthmq::mqtt::{Connect, ReasonCode};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{
    http::{Answer, exchange, request},
    mqtt::{Client, tcp},
    pki::Pair,
};

/// Both versions.
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

/// A client that trusts one CA.
pub(crate) struct Tls(Arc<ClientConfig>);

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

impl Tls {
    pub(crate) fn new(
        ca: &Path,
        version: &'static SupportedProtocolVersion,
        certificate: Option<&Pair>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_file_iter(&pair.chain).unwrap();
                let chain = chain.map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        Self(Arc::new(config))
    }

    /// Returns the protocol that the server chooses among these, offered by ALPN.
    pub(crate) fn chosen_protocol(&self, address: SocketAddr, offered: &[&str]) -> Option<String> {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut stream = Self(Arc::new(config)).stream(address);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        let chosen = stream.conn.alpn_protocol();
        chosen.map(|name| String::from_utf8(name.to_vec()).unwrap())
    }

    /// Opens a connection that has sent nothing yet.
    pub(crate) fn stream(&self, address: SocketAddr) -> Stream {
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        StreamOwned::new(connection, tcp(address))
    }

    /// Calls `METHOD target`; an error if the handshake fails.
    pub(crate) fn call(
        &self,
        address: SocketAddr,
        authorization: Option<&str>,
        line: &str,
    ) -> io::Result<Answer> {
        exchange(self.stream(address), request(line, authorization))
    }

    /// Connects an MQTT client; an error if the handshake fails.
    pub(crate) fn connect(
        &self,
        address: SocketAddr,
        connect: Connect<'_>,
    ) -> io::Result<(Client<Stream>, ReasonCode)> {
        Client::on(self.stream(address), connect)
    }
}
