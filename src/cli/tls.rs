//! The TLS settings of all listeners: read at the start, and again at a reload or when a file
//! changes.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use hearthmq::{
    Broker,
    auth::RevokedCertificates,
    config::Config,
    net::tls::{Alpn, TlsConfig, TlsError, TlsSource, examine},
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::crl::{Fetched, fetch_all, with_lists};

/// Seconds without a change after which a file counts as completely replaced.
const WATCH_AGAIN_SECS: u32 = 1;

/// The TLS settings of all listeners.
#[derive(Clone, Default)]
pub(super) struct TlsSources {
    sources: Vec<(SocketAddr, Alpn, TlsSource)>,
    /// The current `tls.watch_secs`.
    watch_secs: Arc<AtomicU32>,
    /// The configuration in force, once a listener has TLS.
    config: Arc<ArcSwapOption<Config>>,
    /// Notified when revocation lists must be fetched again.
    fetch_now: Arc<Notify>,
}

/// Identifies a version of a file: time of its last change, length, inode number.
type Stamp = Option<(SystemTime, u64, u64)>;

impl TlsSources {
    /// Returns the settings of the listener at `address`; they are opened once.
    pub(super) fn at(
        &mut self,
        address: SocketAddr,
        alpn: Alpn,
        config: &Config,
    ) -> Result<TlsSource, TlsError> {
        let mut known = self.sources.iter();
        if let Some((.., source)) = known.find(|one| (one.0, one.1) == (address, alpn)) {
            return Ok(source.clone());
        }
        let files = with_lists(config, &config.tls_at(&address.to_string()));
        let source = TlsSource::open(&files, alpn)?;
        // Kept, so that a reload replaces the settings of this listener in place.
        self.sources.push((address, alpn, source.clone()));
        self.take(config);
        Ok(source)
    }

    fn take(&self, config: &Config) {
        self.watch_secs.store(config.tls.watch_secs, Ordering::Relaxed);
        self.config.store(Some(Arc::new(config.clone())));
    }

    /// Fetches revocation lists now and then, and at a reload. Then rechecks all sessions if one has
    /// changed.
    pub(super) async fn refresh_lists(self, broker: Broker) {
        loop {
            if let Some(config) = self.config.load_full().filter(|one| !one.tls.crl_urls.is_empty())
            {
                let Fetched { changed, failed } = fetched_aside(Arc::clone(&config)).await;
                let fetched = config.tls.crl_urls.len() - failed;
                broker.metrics().count_list_fetches(fetched as u64, failed as u64);
                if changed > 0 {
                    self.reload_from(&config);
                    broker.recheck().await;
                }
            }
            // Read again: a reload may have changed the interval while lists were fetched.
            let config = self.config.load_full();
            match config.map_or(0, |config| config.tls.crl_refresh_secs) {
                0 => self.fetch_now.notified().await,
                secs => {
                    let waiting =
                        timeout(Duration::from_secs(secs.into()), self.fetch_now.notified());
                    drop(waiting.await); // Either it is time, or a reload asks.
                }
            }
        }
    }

    /// Refuses certificates of this set at all listeners.
    pub(super) fn refuse_revoked(&self, revoked: &RevokedCertificates) {
        self.sources.iter().for_each(|(.., source)| source.refuse_revoked(revoked));
    }

    /// Reads all files again, by the options of `config`. Invalid files change nothing.
    pub(super) fn reload(&self, config: &Config) {
        self.take(config);
        self.fetch_now.notify_one();
        self.reload_from(config);
    }

    fn reload_from(&self, config: &Config) {
        for (address, _, source) in &self.sources {
            let files = with_lists(config, &config.tls_at(&address.to_string()));
            tell(*address, &files, source.reload_from(&files));
        }
    }

    fn read_again(&self) {
        for (address, _, source) in &self.sources {
            if let Some(files) = source.files() {
                tell(*address, &files, source.reload());
            }
        }
    }

    /// Reads all files again whenever one has changed and is stable, then rechecks all sessions.
    pub(super) async fn watch(self, broker: Broker) {
        let mut known = self.stamps();
        loop {
            let secs = self.watch_secs.load(Ordering::Relaxed);
            sleep(Duration::from_secs(u64::from(secs.max(WATCH_AGAIN_SECS)))).await;
            if secs == 0 || self.stamps() == known {
                continue;
            }
            // A certificate and its key are two files: wait until both are replaced.
            loop {
                known = self.stamps();
                sleep(Duration::from_secs(WATCH_AGAIN_SECS.into())).await;
                if self.stamps() == known {
                    break;
                }
            }
            tracing::info!("a TLS file has changed");
            self.read_again();
            // Connections that no longer satisfy the new authorities or lists are closed now.
            broker.recheck().await;
        }
    }

    fn stamps(&self) -> BTreeMap<PathBuf, Stamp> {
        let mut all = BTreeMap::new();
        for (.., source) in &self.sources {
            let Some(files) = source.files() else { continue };
            let lists = files.client_ca.iter().chain(&files.crl);
            for path in [&files.certificate, &files.key, &files.ocsp].into_iter().chain(lists) {
                all.entry(path.clone()).or_insert_with(|| stamp(path));
            }
        }
        all
    }
}

/// Fetches on another thread than that of the program's tasks.
async fn fetched_aside(config: Arc<Config>) -> Fetched {
    let done = actix_web::rt::task::spawn_blocking(move || fetch_all(&config)).await;
    done.unwrap_or_default() // The program is about to end.
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    let number = std::os::unix::fs::MetadataExt::ino(&found);
    Some((found.modified().ok()?, found.len(), number))
}

fn tell(address: SocketAddr, files: &TlsConfig, outcome: Result<(), TlsError>) {
    let certificate = files.certificate.display();
    match outcome {
        Ok(()) => {
            tracing::info!(%address, %certificate, "TLS files read again");
            for line in examine(files).unwrap_or_default() {
                tracing::warn!(%address, "{line}");
            }
        }
        Err(error) => {
            tracing::error!(%address, "TLS settings are unchanged: {error}");
        }
    }
}

/// Returns warnings about the files of all TLS listeners, each once.
///
/// # Errors
/// The files of a listener cannot be used.
pub(super) fn look_at_files(config: &Config) -> Result<Vec<String>, TlsError> {
    let listeners = [&config.mqtt.tls, &config.mqtt.secure_websocket, &config.http.https];
    let mut lines = Vec::new();
    for address in listeners.into_iter().flatten() {
        for line in examine(&with_lists(config, &config.tls_at(&address.to_string())))? {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    Ok(lines)
}
