//! TLS for the listeners: files to a rustls configuration, a verified certificate to a name.
//!
//! Knows files, rustls and X.509; does not know MQTT, HTTP or accounts. Called by whoever starts
//! or reloads a listener, and by whoever accepts a connection on one.

mod client;
mod examine;
mod own;
mod source;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, CertificateRevocationListDer,
        pem::{self, PemObject},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use serde::{Deserialize, Serialize};
use x509_parser::{error::X509Error, nom};

pub use self::{
    client::{ClientCertificateError, client_certificate, explained},
    examine::examine,
    source::{Alpn, TlsSource, Trust},
};

/// The ALPN name of MQTT, as registered with IANA.
pub const ALPN_MQTT: &[u8] = b"mqtt";

/// The ALPN name of HTTP/1.1, the only version of HTTP that is spoken.
pub const ALPN_HTTP: &[u8] = b"http/1.1";

/// TLS of one listener. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate, and behind it the intermediate ones.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
    /// The CAs whose client certificates are accepted.
    #[serde(default)]
    pub client_ca: Vec<PathBuf>,
    /// Whether clients show a certificate.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Revocation lists. If there is one, there must be one for every CA and intermediate that
    /// has issued a certificate in a client's chain: of unknown counts as revoked. A list stays in
    /// use when its next update is overdue.
    #[serde(default)]
    pub crl: Vec<PathBuf>,
    /// The oldest version of TLS that is spoken.
    #[serde(default)]
    pub min_version: TlsVersion,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    None,
    /// They may. One that is shown and is not right fails the handshake all the same.
    Optional,
    /// They must.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3
    #[serde(rename = "1.3")]
    V1_3,
}

/// Why there is no TLS. Each says which file, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is not there, or may not be read.
    #[error("{}: cannot be read: {source}; check the path in [tls] and who may read the file", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file is broken.
    #[error("{}: not a PEM file: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// The file has nothing of the kind in it.
    #[error("{}: no {wanted} in it; a PEM file with {begins} is needed", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What is missing.
        wanted: &'static str,
        /// What it begins with.
        begins: &'static str,
    },
    /// The private key cannot be read without a password, which nobody could give.
    #[error("{}: the key is encrypted; `openssl pkey -in KEY -out PLAIN_KEY` decrypts it", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is of a kind that is not supported.
    #[error("{}: the key cannot be used ({source}); RSA of 2,048 bits or more, ECDSA P-256, P-384 or P-521, or Ed25519 is needed", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// Key and certificate are not a pair.
    #[error("{}: the key does not fit the certificate in {}; give the two that were made together", key.display(), certificate.display())]
    KeyMismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
    },
    /// The broker's own certificate is not one.
    #[error("{}: the broker's own certificate cannot be read ({source}); give one in PEM form, with the intermediate ones behind it", path.display())]
    OwnCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: nom::Err<X509Error>,
    },
    /// The certificate of an authority is not one.
    #[error("{}: the certificate of an authority in client_ca cannot be used ({source}); give one of X.509 version 3 in PEM form", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// A revocation list is not one.
    #[error("{}: the revocation list cannot be used: {source}", path.display())]
    RevocationList {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::server::VerifierBuilderError,
    },
    /// Client certificates are asked for, and there is nobody to vouch for them.
    #[error(
        "client_auth asks for certificates but client_ca names no CA; name its file, or set client_auth = \"none\""
    )]
    NoClientCa,
    /// CAs or revocation lists are given, but nobody is asked for a certificate.
    #[error(
        "client_ca or crl is given but client_auth is \"none\"; set it to \"optional\" or \"required\", or leave them out"
    )]
    UnusedClientCa,
    /// rustls refuses for another reason.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The configuration of a listener that speaks TLS, without ALPN. [`TlsSource::open`] makes one that
/// can be read again.
///
/// The cryptography is chosen here and for this configuration alone: nothing is installed for the
/// process, which may be somebody else's.
///
/// # Errors
/// A file is missing or wrong, or the options contradict each other.
pub fn server_config(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    build(config).map(|(server, _)| Arc::new(server))
}

/// As [`server_config`], for MQTT: a client that names protocols by ALPN must name `mqtt`; one that
/// names none is welcome too.
///
/// # Errors
/// As [`server_config`].
pub fn mqtt_server_config(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let (mut server, _) = build(config)?;
    server.alpn_protocols = vec![ALPN_MQTT.to_vec()];
    Ok(Arc::new(server))
}

type Verifier = Arc<dyn ClientCertVerifier>;

/// The configuration of the server, and what verifies its clients' certificates in it.
fn build(config: &TlsConfig) -> Result<(ServerConfig, Option<Verifier>), TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[&SupportedProtocolVersion] = match config.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let own = own::certified_key(config, &provider)?;
    let verifier = client_verifier(config, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let mut server = match verifier.clone() {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    }
    .with_cert_resolver(Arc::new(own));
    if verifier.is_some() {
        // A resumed session is not verified again: a certificate that has since expired would do.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    } else {
        // Tickets cost no memory here, and a fleet that comes back comes back cheaply.
        server.ticketer = aws_lc_rs::Ticketer::new()?;
    }
    Ok((server, verifier))
}

fn client_verifier(
    config: &TlsConfig,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Verifier>, TlsError> {
    if config.client_auth == ClientAuth::None {
        return match config.client_ca.is_empty() && config.crl.is_empty() {
            true => Ok(None),
            false => Err(TlsError::UnusedClientCa),
        };
    }
    let mut roots = RootCertStore::empty();
    for path in &config.client_ca {
        for root in read_pem::<CertificateDer<'_>>(path, "certificate", "BEGIN CERTIFICATE")? {
            roots
                .add(root)
                .map_err(|source| TlsError::Certificate { path: path.clone(), source })?;
        }
    }
    if roots.is_empty() {
        return Err(TlsError::NoClientCa);
    }
    let roots = Arc::new(roots);
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
    for path in &config.crl {
        let lists = read_pem::<CertificateRevocationListDer<'_>>(
            path,
            "revocation list",
            "BEGIN X509 CRL",
        )?;
        // Each file is tried by itself first, so that the error can name it.
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
            .with_crls(lists.clone())
            .build()
            .map_err(|source| TlsError::RevocationList { path: path.clone(), source })?;
        builder = builder.with_crls(lists);
    }
    if config.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(Some(verifier))
}

/// Everything of this kind in a file, at least one.
fn read_pem<T: PemObject>(
    path: &Path,
    wanted: &'static str,
    begins: &'static str,
) -> Result<Vec<T>, TlsError> {
    let text = read(path)?;
    let items = T::pem_slice_iter(&text).collect::<Result<Vec<T>, _>>();
    let items = items.map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    if items.is_empty() {
        return Err(TlsError::Missing { path: path.to_owned(), wanted, begins });
    }
    Ok(items)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}
