//! How a bridge reaches an address with TLS: the authorities that it trusts, and its own certificate.

use std::{fmt, fs, io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use super::{address::BridgeAddress, error::BridgeError};
use crate::outbound::{authorities_in, roots_of_system};

/// The authorities that a bridge trusts, and its certificate. Without a file of authorities, those of the
/// system are trusted.
#[derive(Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct BridgeTls {
    authorities: Option<Vec<CertificateDer<'static>>>,
    own: Option<OwnCertificate>,
    server_name: Option<Box<str>>,
    alpn: Option<Box<str>>,
}

/// A certificate with its intermediates, and the key, as PEM.
#[derive(Clone, PartialEq, Eq)]
struct OwnCertificate {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl BridgeTls {
    /// Trusts the certification authorities in a PEM file, instead of those of the system.
    ///
    /// # Errors
    /// [`BridgeError::File`] if the file cannot be read or has no certificate.
    pub fn trusting(mut self, file: &Path) -> Result<Self, BridgeError> {
        let found = authorities_in(file).map_err(|source| fault(file, source))?;
        self.authorities = Some(found);
        Ok(self)
    }

    /// Shows the certificate in a PEM file, with its intermediates, and its key in another one.
    ///
    /// # Errors
    /// [`BridgeError::File`] if a file cannot be read, or has no certificate or key.
    pub fn showing(mut self, certificate: &Path, key: &Path) -> Result<Self, BridgeError> {
        let read = |path: &Path| fs::read(path).map_err(|source| fault(path, source));
        let own = OwnCertificate { chain: read(certificate)?, key: read(key)? };
        chain_of(&own.chain).map_err(|error| fault(certificate, error))?;
        key_of(&own.key).map_err(|error| fault(key, error))?;
        self.own = Some(own);
        Ok(self)
    }

    /// Expects this name in the certificate of the other broker, instead of the host of the address.
    ///
    /// # Errors
    /// [`BridgeError::Tls`] if the name is invalid.
    pub fn server_name(mut self, name: &str) -> Result<Self, BridgeError> {
        ServerName::try_from(name)
            .map_err(|_| BridgeError::Tls(format!("{name:?} is not the name of a server")))?;
        self.server_name = Some(name.into());
        Ok(self)
    }

    /// Asks for this protocol by ALPN.
    pub fn alpn(mut self, protocol: &str) -> Self {
        self.alpn = Some(protocol.into());
        self
    }

    /// Returns the configuration of the connections.
    ///
    /// # Errors
    /// The system has no authorities, or the certificate does not fit its key.
    pub(super) fn client_config(&self) -> Result<Arc<ClientConfig>, BridgeError> {
        let as_text = |error: &dyn fmt::Display| BridgeError::Tls(error.to_string());
        // The authorities of the configuration replace those of the system, so a private one is enough.
        let roots = match &self.authorities {
            None => roots_of_system().map_err(|error| as_text(&error))?,
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    roots.add(authority.clone()).map_err(|error| as_text(&error))?;
                }
                roots
            }
        };
        // Named here, because a process may have several providers and no default.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| as_text(&error))?
            .with_root_certificates(roots);
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some(OwnCertificate { chain, key }) => {
                let chain = chain_of(chain).map_err(|error| as_text(&error))?;
                let key = key_of(key).map_err(|error| as_text(&error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| as_text(&error))?
            }
        };
        // Some brokers select MQTT on a shared port by this name.
        config.alpn_protocols = self.alpn.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Returns the name that the certificate of an address must have.
    pub(super) fn name_of(&self, address: &BridgeAddress) -> io::Result<ServerName<'static>> {
        let name = self.server_name.as_deref().unwrap_or(&address.host);
        ServerName::try_from(name.to_owned()).map_err(io::Error::other)
    }
}

impl fmt::Debug for BridgeTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeTls")
            .field("server_name", &self.server_name)
            .field("alpn", &self.alpn)
            .finish_non_exhaustive()
    }
}

fn fault(path: &Path, source: io::Error) -> BridgeError {
    BridgeError::File { path: path.to_owned(), source }
}

fn chain_of(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(io::Error::other)?;
    if found.is_empty() {
        return Err(io::Error::other("it has no certificate"));
    }
    Ok(found)
}

fn key_of(pem: &[u8]) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| io::Error::other("it has no private key"))
}
