//! The TLS settings of a listener, which can be replaced while it listens.
//!
//! Knows rustls and how to reload the files; does not know listeners. A listener takes the current
//! settings for each connection that it accepts, so a reload touches no socket.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, ServerConfig,
    pki_types::{CertificateDer, UnixTime},
    server::danger::ClientCertVerifier,
};

use tokio::sync::watch;

use super::{ALPN_HTTP, ALPN_MQTT, ClientAuth, RevokedHere, TlsConfig, TlsError, build};
use crate::auth::RevokedCertificates;

/// The protocol inside TLS, which decides the ALPN names that a client may offer. A client without
/// ALPN is always accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alpn {
    /// MQTT: a client that sends ALPN must offer `mqtt`.
    Mqtt,
    /// HTTPS: a client that sends ALPN must offer `http/1.1`.
    Http,
    /// Any name: for WebSocket, where browsers offer HTTP and other clients offer MQTT or nothing.
    Any,
}

/// TLS settings that can be replaced; all clones share them. Cheap to clone.
///
/// [`TlsSource::open`] reads them from files, which can be [reloaded](TlsSource::reload). They can
/// also be a rustls configuration of the embedding application, which can
/// [replace](TlsSource::replace) it.
#[derive(Clone)]
pub struct TlsSource(Arc<Shared>);

struct Shared {
    alpn: Alpn,
    present: ArcSwap<Settings>,
    /// Notifies connections that the settings were replaced.
    replaced: watch::Sender<()>,
    /// The certificates that an operator has revoked.
    revoked: RevokedHere,
}

impl Shared {
    fn new(alpn: Alpn, settings: Settings, revoked: RevokedHere) -> Self {
        let replaced = watch::Sender::new(());
        Self { alpn, present: ArcSwap::from_pointee(settings), replaced, revoked }
    }
}

/// The settings that are replaced together.
struct Settings {
    /// `None` for a configuration of the application.
    files: Option<TlsConfig>,
    server: Arc<ServerConfig>,
    /// `None` if clients are not asked for a certificate, or for a configuration of the
    /// application.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Increases with each replacement of the settings.
    number: u64,
}

impl TlsSource {
    /// Reads the files of `config`.
    ///
    /// # Errors
    /// A file is missing or invalid, or the options contradict each other.
    pub fn open(config: &TlsConfig, alpn: Alpn) -> Result<Self, TlsError> {
        let revoked = RevokedHere::default();
        let settings = read(config, alpn, &revoked)?;
        Ok(Self(Arc::new(Shared::new(alpn, settings, revoked))))
    }

    /// Refuses certificates that are in this set, as those in a revocation list. A broker does this for
    /// the listeners that it starts. The first set stays; a configuration of the application has none.
    pub fn refuse_revoked(&self, revoked: &RevokedCertificates) {
        drop(self.0.revoked.set(revoked.clone())); // The set of the first broker stays.
    }

    /// Returns the current settings, for a new connection.
    #[must_use]
    pub fn present(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.present.load().server)
    }

    /// Reads the files again, for new connections. Does nothing to a configuration of the
    /// application.
    ///
    /// # Errors
    /// As [`TlsSource::open`]; the old settings stay in force.
    pub fn reload(&self) -> Result<(), TlsError> {
        match &self.0.present.load().files {
            Some(config) => self.reload_from(config),
            None => Ok(()),
        }
    }

    /// Reloads with other files and options, as [`TlsSource::reload`] does.
    ///
    /// # Errors
    /// As [`TlsSource::open`]; the old settings stay in force.
    pub fn reload_from(&self, config: &TlsConfig) -> Result<(), TlsError> {
        self.put(read(config, self.0.alpn, &self.0.revoked)?);
        Ok(())
    }

    /// Replaces the settings, for new connections.
    pub fn replace(&self, server: Arc<ServerConfig>) {
        self.put(Settings { files: None, server, verifier: None, number: 0 });
    }

    fn put(&self, settings: Settings) {
        self.0.present.rcu(|former| Settings {
            files: settings.files.clone(),
            server: Arc::clone(&settings.server),
            verifier: settings.verifier.clone(),
            number: former.number + 1,
        });
        self.0.replaced.send_replace(());
    }

    /// Returns the current settings for a new connection, and a [`Trust`] that can verify the
    /// certificate of its client again later.
    #[must_use]
    pub fn begin(&self) -> (Arc<ServerConfig>, Trust) {
        let settings = self.0.present.load();
        let verified_by = AtomicU64::new(self.number_of(&settings));
        (Arc::clone(&settings.server), Trust { source: self.clone(), verified_by })
    }

    /// Returns a number that is another one after each replacement and each change of the revoked
    /// certificates. Both numbers only increase.
    fn number_of(&self, settings: &Settings) -> u64 {
        settings.number + self.0.revoked.get().map_or(0, RevokedCertificates::changes)
    }

    /// Returns the files in use; `None` for a configuration of the application.
    #[must_use]
    pub fn files(&self) -> Option<TlsConfig> {
        self.0.present.load().files.clone()
    }

    /// Returns whether clients are asked for a certificate; `None` for a configuration of the
    /// application, where this is unknown.
    #[must_use]
    pub fn client_auth(&self) -> Option<ClientAuth> {
        self.0.present.load().files.as_ref().map(|config| config.client_auth)
    }
}

impl TlsSource {
    /// Returns whether clients are known to be asked for a certificate.
    pub(in crate::net) fn asks_for_certificate(&self) -> bool {
        self.client_auth().is_some_and(|asks| asks != ClientAuth::None)
    }
}

/// Verifies the client certificate of one connection again after the TLS settings were replaced.
#[derive(Debug)]
pub struct Trust {
    source: TlsSource,
    /// The number of the settings that verified the certificate last.
    verified_by: AtomicU64,
}

impl Trust {
    /// Verifies a certificate chain again if the settings were replaced since its last
    /// verification. With a configuration of the application, whose verifier is unknown, the chain
    /// stays valid.
    ///
    /// # Errors
    /// The chain is no longer valid: revoked, expired, or issued by a removed authority.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let settings = self.source.0.present.load();
        let [end_entity, intermediates @ ..] = chain else { return Ok(()) };
        let number = self.source.number_of(&settings);
        // Checked for each client at each reload of rules, so unchanged settings must cost nothing.
        if number == self.verified_by.load(Ordering::Relaxed) {
            return Ok(());
        }
        match &settings.verifier {
            Some(verifier) => {
                verifier.verify_client_cert(end_entity, intermediates, UnixTime::now())?;
            }
            // The files do not ask for certificates any more, so nothing vouches for this one.
            None if settings.files.is_some() => {
                return Err(CertificateError::UnknownIssuer.into());
            }
            None => {}
        }
        self.verified_by.store(number, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(feature = "http")]
impl Trust {
    /// Waits until a certificate chain that was verified before is no longer valid.
    pub(crate) async fn lost(&self, chain: &[CertificateDer<'_>]) {
        let mut replaced = self.source.0.replaced.subscribe();
        let revoked = self.source.0.revoked.get().cloned().unwrap_or_default();
        let mut revoked_changed = revoked.subscribe();
        while self.verify(chain).is_ok() {
            let changed = tokio::select! {
                changed = replaced.changed() => changed,
                changed = revoked_changed.changed() => changed,
            };
            if changed.is_err() {
                std::future::pending::<()>().await; // the settings can no longer be replaced
            }
        }
    }
}

fn read(config: &TlsConfig, alpn: Alpn, revoked: &RevokedHere) -> Result<Settings, TlsError> {
    let (mut server, verifier) = build(config, revoked)?;
    server.alpn_protocols = match alpn {
        Alpn::Mqtt => vec![ALPN_MQTT.to_vec()],
        Alpn::Http => vec![ALPN_HTTP.to_vec()],
        Alpn::Any => Vec::new(),
    };
    Ok(Settings { files: Some(config.clone()), server: Arc::new(server), verifier, number: 0 })
}

impl From<Arc<ServerConfig>> for TlsSource {
    fn from(server: Arc<ServerConfig>) -> Self {
        let settings = Settings { files: None, server, verifier: None, number: 0 };
        Self(Arc::new(Shared::new(Alpn::Any, settings, RevokedHere::default())))
    }
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSource")
            .field("files", &self.0.present.load().files)
            .finish_non_exhaustive()
    }
}
