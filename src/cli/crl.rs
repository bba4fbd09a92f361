//! Revocation lists from URLs: fetched, checked, and kept as files in the data directory.
//!
//! TLS reads these files like those of the operator, so the last good list stays in force while a URL
//! cannot be reached, also over a restart. Knows HTTP and files; does not know TLS listeners.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hearthmq::{
    config::{Config, TlsFiles},
    net::tls::{ClientAuth, RevocationListError, TlsConfig, check_revocation_list},
};
use rustls::crypto::aws_lc_rs;
use sha2::{Digest as _, Sha256};
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig as ClientTls},
};

use super::files::{make_parent, put_private};

/// The longest time of one fetch.
const FETCH_TIME_MAX: Duration = Duration::from_secs(30);
/// Maximum size of a list: about 400,000 certificates.
const LIST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why a list could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    Http(Box<ureq::Error>),
    #[error("the list cannot be used: {0}")]
    List(#[from] RevocationListError),
    #[error("the list cannot be kept: {0}")]
    Kept(io::Error),
}

/// A list cannot be fetched, and there is no former one.
#[derive(Debug, thiserror::Error)]
#[error(
    "tls.crl_urls: {url}: {source}; a start needs this list, because without it revoked certificates \
     would be accepted. Make the URL reachable, or remove it"
)]
pub(super) struct NoList {
    url: String,
    source: FetchError,
}

/// Returns the file of the list from this URL.
fn file_of(config: &Config, url: &str) -> PathBuf {
    let name: String = Sha256::digest(url)[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    config.data_dir.join("crl").join(name + ".crl")
}

/// Returns the TLS settings of a listener, with the lists that were fetched.
pub(super) fn with_lists(config: &Config, files: &TlsFiles) -> TlsConfig {
    let mut settings = TlsConfig::from(files);
    if settings.client_auth != ClientAuth::None {
        let fetched = config.tls.crl_urls.iter().map(|url| file_of(config, url));
        settings.crl.extend(fetched.filter(|file| file.exists()));
    }
    settings
}

/// Fetches the lists that were never fetched. May block.
///
/// # Errors
/// One cannot be fetched.
pub(super) fn fetch_missing(config: &Config) -> Result<(), NoList> {
    let is_missing = |url: &&String| !file_of(config, url).exists();
    let missing: Vec<_> = config.tls.crl_urls.iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(()); // an agent reads all authorities of the system
    }
    let agent = agent();
    for url in missing {
        fetch(&agent, config, url).map_err(|source| NoList { url: url.clone(), source })?;
        tracing::info!(url, "revocation list fetched");
    }
    Ok(())
}

/// The outcomes of the fetches of all lists.
#[derive(Clone, Copy, Default)]
pub(super) struct Fetched {
    pub(super) changed: usize,
    pub(super) failed: usize,
}

/// Fetches all lists again. May block.
pub(super) fn fetch_all(config: &Config) -> Fetched {
    let agent = agent();
    let mut fetched = Fetched::default();
    for url in &config.tls.crl_urls {
        match fetch(&agent, config, url) {
            Ok(true) => {
                fetched.changed += 1;
                tracing::info!(url, "revocation list fetched");
            }
            Ok(false) => tracing::debug!(url, "revocation list is unchanged"),
            Err(error) => {
                fetched.failed += 1;
                tracing::warn!(url, why = %error, "revocation list not fetched; the former one stays");
            }
        }
    }
    fetched
}

/// Fetches a list; returns whether it is another one than before.
fn fetch(agent: &Agent, config: &Config, url: &str) -> Result<bool, FetchError> {
    let http = |error| FetchError::Http(Box::new(error));
    let response = agent.get(url).call().map_err(http)?;
    let body = response.into_body().into_with_config().limit(LIST_BYTES_MAX);
    let bytes = body.read_to_vec().map_err(http)?;
    let file = file_of(config, url);
    let former = fs::read(&file).ok();
    let pem = check_revocation_list(&bytes, &authorities(config), former.as_deref())?;
    if former.as_deref() == Some(pem.as_bytes()) {
        return Ok(false);
    }
    replace(&file, &pem).map_err(FetchError::Kept)?;
    Ok(true)
}

/// Returns the files of all authorities of clients.
fn authorities(config: &Config) -> Vec<PathBuf> {
    let own = config.listeners.iter().filter_map(|own| own.tls.as_ref()?.client_ca.as_ref());
    own.flatten().chain(&config.tls.client_ca).cloned().collect()
}

/// Puts a file in its place in one step, so that nobody reads a half of it.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    make_parent(file).map_err(io::Error::other)?;
    put_private(&new, text).map_err(io::Error::other)?;
    fs::rename(&new, file)
}

fn agent() -> Agent {
    let found = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<_> = found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let tls = ClientTls::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .build();
    let config = Agent::config_builder()
        // Authorities move their lists; the signature of a list is checked whatever its place.
        .max_redirects(3)
        .proxy(None)
        // The lists are fetched one after the other, and a start waits for missing ones.
        .timeout_global(Some(FETCH_TIME_MAX))
        .tls_config(tls)
        .user_agent(concat!("hearthmq/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::new_with_config(config)
}
