//! TLS for the listeners: builds a rustls configuration from files and reads the name in a verified
//! certificate.
//!
//! Knows files, rustls and X.509; does not know MQTT, HTTP or accounts. Called when a listener
//! starts or reloads, and for each connection that it accepts.

mod client;
mod examine;
mod list;
mod own;
mod revoked;
mod secured;
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

use self::revoked::{RevocationVerifier, RevokedHere};
pub(super) use self::secured::secure;
pub use self::{
    client::{CertificateSyntaxError, ClientCertificateError, client_certificate, explained},
    examine::examine,
    list::{RevocationListError, check_revocation_list},
    source::{Alpn, TlsSource, Trust},
};

/// The ALPN name of MQTT, as registered with IANA.
pub const ALPN_MQTT: &[u8] = b"mqtt";

/// The ALPN name of HTTP/1.1, the only version of HTTP that the broker supports.
pub const ALPN_HTTP: &[u8] = b"http/1.1";

/// TLS settings of one listener. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate, followed by the intermediate certificates.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
    /// The CAs whose client certificates are accepted.
    #[serde(default)]
    pub client_ca: Vec<PathBuf>,
    /// Whether clients are asked for a certificate.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Revocation lists. If any is given, every CA and intermediate that has issued a certificate
    /// in a client's chain needs one: a certificate whose issuer has no list counts as revoked. A
    /// list stays in use after its next update is overdue.
    #[serde(default)]
    pub crl: Vec<PathBuf>,
    /// The oldest accepted version of TLS.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// An OCSP response (DER) about the certificate, which is sent with it. An empty path means none.
    #[serde(default)]
    pub ocsp: PathBuf,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ClientAuth {
    /// Clients are not asked for a certificate.
    #[default]
    None,
    /// Clients may send a certificate. An invalid one still fails the handshake.
    Optional,
    /// Clients must send a certificate.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3
    #[serde(rename = "1.3")]
    V1_3,
}

/// Why TLS cannot be set up. Each message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file does not exist or cannot be read.
    #[error("{}: cannot be read: {source}; check the path in [tls] and who may read the file", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file is not valid PEM.
    #[error("{}: not a PEM file: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The parse error.
        source: pem::Error,
    },
    /// The file has no item of the wanted kind.
    #[error("{}: the file contains no {wanted}; a PEM file with {begins} is needed", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The kind of item that is missing.
        wanted: &'static str,
        /// The line that such an item begins with.
        begins: &'static str,
    },
    /// The private key is encrypted; the broker has no way to ask for the password.
    #[error("{}: the key is encrypted; `openssl pkey -in KEY -out PLAIN_KEY` decrypts it", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is of an unsupported kind.
    #[error("{}: the key cannot be used ({source}); RSA of 2,048 bits or more, ECDSA P-256, P-384 or P-521, or Ed25519 is needed", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The error of rustls.
        source: rustls::Error,
    },
    /// The key does not match the certificate.
    #[error("{}: the key does not match the certificate in {}; give the key of this certificate", key.display(), certificate.display())]
    KeyMismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
    },
    /// The broker's own certificate cannot be parsed.
    #[error("{}: the broker's own certificate cannot be read ({source}); give one in PEM form, followed by the intermediate certificates", path.display())]
    OwnCertificate {
        /// The file.
        path: PathBuf,
        /// The parse error.
        source: CertificateSyntaxError,
    },
    /// The OCSP response cannot be used.
    #[error("{}: not a successful OCSP response in DER form; fetch one with `openssl ocsp ... -respout FILE`", path.display())]
    OcspResponse {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in `client_ca` cannot be used.
    #[error("{}: the certificate of an authority in client_ca cannot be used ({source}); give one of X.509 version 3 in PEM form", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The error of rustls.
        source: rustls::Error,
    },
    /// A revocation list cannot be used.
    #[error("{}: the revocation list cannot be used: {source}", path.display())]
    RevocationList {
        /// The file.
        path: PathBuf,
        /// The error of rustls.
        source: rustls::server::VerifierBuilderError,
    },
    /// Client certificates are requested, but no CA is given to verify them.
    #[error(
        "client_auth asks for certificates but client_ca names no CA; name its file, or set client_auth = \"none\""
    )]
    NoClientCa,
    /// CAs or revocation lists are given, but client certificates are not requested.
    #[error(
        "client_ca or crl is given but client_auth is \"none\"; set it to \"optional\" or \"required\", or leave them out"
    )]
    UnusedClientCa,
    /// rustls refuses the settings for another reason.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Builds the configuration of a TLS listener, without ALPN. Use [`TlsSource::open`] for one that
/// can be reloaded.
///
/// The cryptography provider is set for this configuration only. None is installed for the whole
/// process, because the process may belong to another application.
///
/// # Errors
/// A file is missing or invalid, or the options contradict each other.
pub fn server_config(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    build(config, &RevokedHere::default()).map(|(server, _)| Arc::new(server))
}

/// Builds a configuration as [`server_config`] does, for MQTT: a client that sends ALPN must offer
/// `mqtt`; a client without ALPN is accepted.
///
/// # Errors
/// As [`server_config`].
pub fn mqtt_server_config(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let (mut server, _) = build(config, &RevokedHere::default())?;
    server.alpn_protocols = vec![ALPN_MQTT.to_vec()];
    Ok(Arc::new(server))
}

type Verifier = Arc<dyn ClientCertVerifier>;

/// Builds the server configuration and the verifier of its client certificates.
fn build(
    config: &TlsConfig,
    revoked: &RevokedHere,
) -> Result<(ServerConfig, Option<Verifier>), TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[&SupportedProtocolVersion] = match config.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    // Files are read here, not at the first client, so that an error stops the start or the reload.
    let own = own::certified_key(config, &provider)?;
    let verifier = client_verifier(config, &provider)?;
    let verifier = verifier
        .map(|inner| Arc::new(RevocationVerifier::new(inner, Arc::clone(revoked))) as Verifier);
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let mut server = match verifier.clone() {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    }
    .with_cert_resolver(Arc::new(own));
    if verifier.is_some() {
        // A resumed session is not verified again, so a certificate that has expired since would be
        // accepted.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    } else {
        // Tickets need no memory here and make it cheap for many clients to reconnect at once.
        server.ticketer = aws_lc_rs::Ticketer::new()?;
    }
    Ok((server, verifier))
}

fn client_verifier(
    config: &TlsConfig,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Verifier>, TlsError> {
    if config.client_auth == ClientAuth::None {
        // A CA without a request for certificates is a mistake: the operator believes in a check.
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
    // Without a CA, every certificate would be refused.
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
        // Try each file alone first, so that the error can name it.
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

/// Returns all items of one kind in a file, at least one.
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
