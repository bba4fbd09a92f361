//! TLS for the listeners: files to a rustls configuration, a verified certificate to a name.
//!
//! Knows files, rustls and X.509; does not know MQTT, HTTP or accounts. Called by whoever starts
//! or reloads a listener, and by whoever accepts a connection on one.

mod source;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use serde::{Deserialize, Serialize};
use x509_parser::{error::X509Error, nom, parse_x509_certificate};

pub use self::source::{Alpn, TlsSource, Trust};
use crate::auth::ClientCertificate;

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
    /// A certificate is not one.
    #[error("{}: the certificate cannot be used: {source}", path.display())]
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
    let chain = read_pem(&config.certificate, "certificate", "BEGIN CERTIFICATE")?;
    let key = read_key(&config.key, &provider)?;
    let verifier = client_verifier(config, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let mut server = match verifier.clone() {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    }
    .with_single_cert(chain, key)
    .map_err(|source| {
        if source == rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) {
            TlsError::KeyMismatch {
                key: config.key.clone(),
                certificate: config.certificate.clone(),
            }
        } else {
            TlsError::Certificate { path: config.certificate.clone(), source }
        }
    })?;
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

fn read_key(path: &Path, provider: &CryptoProvider) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    if contains(&text, b"BEGIN ENCRYPTED PRIVATE KEY") || contains(&text, b"Proc-Type: 4,ENCRYPTED")
    {
        return Err(TlsError::EncryptedKey { path: path.to_owned() });
    }
    let mut keys = PrivateKeyDer::pem_slice_iter(&text);
    let key = keys.next().ok_or_else(|| TlsError::Missing {
        path: path.to_owned(),
        wanted: "private key",
        begins: "BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY",
    })?;
    let key = key.map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    match provider.key_provider.load_private_key(key.clone_key()) {
        Ok(_) => Ok(key),
        Err(source) => Err(TlsError::Key { path: path.to_owned(), source }),
    }
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

/// Why a certificate that TLS has accepted does not say who its owner is.
#[derive(Debug, thiserror::Error)]
pub enum ClientCertificateError {
    /// There is no certificate.
    #[error("no certificate was shown")]
    Missing,
    /// It cannot be parsed.
    #[error("certificate cannot be parsed: {0}")]
    Malformed(#[from] nom::Err<X509Error>),
    /// The subject has no Common Name, or an empty one.
    #[error("certificate has no common name in its subject")]
    NoCommonName,
    /// The subject has several, and nobody can tell which one is meant.
    #[error("certificate has several common names in its subject")]
    SeveralCommonNames,
    /// The Common Name is no text, or holds a control character.
    #[error("certificate has a common name that is no plain text")]
    InvalidCommonName,
}

/// Who the owner of a verified chain is. The first certificate is the client's own.
///
/// # Errors
/// The certificate has not exactly one Common Name that can be a user name.
pub fn client_certificate(
    chain: &[CertificateDer<'_>],
) -> Result<ClientCertificate, ClientCertificateError> {
    let der = chain.first().ok_or(ClientCertificateError::Missing)?;
    let (_, certificate) = parse_x509_certificate(der)?;
    let mut common_names = certificate.subject().iter_common_name();
    let common_name = common_names.next().ok_or(ClientCertificateError::NoCommonName)?;
    if common_names.next().is_some() {
        return Err(ClientCertificateError::SeveralCommonNames);
    }
    let common_name =
        common_name.as_str().map_err(|_| ClientCertificateError::InvalidCommonName)?;
    if common_name.is_empty() {
        return Err(ClientCertificateError::NoCommonName);
    }
    if common_name.chars().any(char::is_control) {
        return Err(ClientCertificateError::InvalidCommonName);
    }
    Ok(ClientCertificate {
        common_name: common_name.to_owned(),
        serial_number: hexadecimal(certificate.raw_serial()),
    })
}

/// Two digits a byte, without the zero byte that only says that the number is positive: as
/// `openssl x509 -serial` shows it, in lower case.
fn hexadecimal(serial_number: &[u8]) -> String {
    let significant = match serial_number {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    significant.iter().map(|byte| format!("{byte:02x}")).collect()
}
