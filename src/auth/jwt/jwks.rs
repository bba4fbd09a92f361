//! A JWK Set at a URL or in a file, which is read at regular intervals.
//!
//! If a reading fails, the keys of the last reading stay. A token with an unknown key causes a reading, but not
//! more than one in ten seconds.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request,
    header::{ACCEPT, USER_AGENT},
};
use jsonwebtoken::Header;
use tokio::time::Instant;

use super::{
    keys::{self, TokenKey},
    options::{JwtConfig, JwtError},
};
use crate::outbound::{self, ServiceCaller, ServiceUrl, UrlFault, said};

/// Maximum time of a reading.
const TIME_MAX: Duration = Duration::from_secs(2);
/// Maximum bytes of a set.
const BYTES_MAX: usize = 256 * 1024;
/// Minimum time between two extra readings: for an unknown key, or after a failure.
const PAUSE: Duration = Duration::from_secs(10);
/// The interval at which a watcher looks for a changed configuration.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A JWK Set.
pub(super) struct Jwks {
    text: String,
    place: Place,
    refresh: Duration,
    keys: ArcSwap<Vec<TokenKey>>,
    state: Mutex<State>,
    /// Held by the task that reads.
    turn: tokio::sync::Mutex<()>,
}

enum Place {
    File(PathBuf),
    Url(ServiceUrl, Box<ServiceCaller>),
}

/// The state of the last readings.
#[derive(Clone, Copy, Default)]
struct State {
    read_at: Option<Instant>,
    is_good: bool,
    is_told: bool,
}

/// The answer to a token that names an unknown key.
pub(super) enum Lookup {
    /// These are the keys now.
    Read(Guard<Arc<Vec<TokenKey>>>),
    /// The set is fresh: there is no such key.
    Unknown,
    /// The set cannot be read.
    Unavailable,
}

/// Checks the place of the set, without reading it.
pub(super) fn check_place(config: &JwtConfig) -> Result<(), JwtError> {
    url_of(config).map(drop)
}

/// Returns the URL of the set; `None` if it is a file, or there is none.
fn url_of(config: &JwtConfig) -> Result<Option<ServiceUrl>, JwtError> {
    if !config.jwks.contains("://") {
        return Ok(None);
    }
    // An attacker that replaces these keys can log in as anybody.
    let parsed = match config.jwks_allow_http {
        true => ServiceUrl::any(&config.jwks),
        false => ServiceUrl::encrypted(&config.jwks),
    };
    let url = parsed.map_err(|fault| {
        let why = match fault {
            UrlFault::Malformed => {
                "not a URL: write https://HOST/PATH, without user, password and #".to_owned()
            }
            UrlFault::NotEncrypted(host) => format!(
                "http to {host} is not encrypted, so that others can replace the keys: write https, or set \
                 jwks_allow_http"
            ),
        };
        JwtError::of("jwks", why)
    })?;
    Ok(Some(url))
}

impl Jwks {
    /// Returns the set of a configuration. One with the same place keeps its keys; a file is read now.
    pub(super) fn of(
        config: &JwtConfig,
        former: Option<Arc<Self>>,
    ) -> Result<Option<Arc<Self>>, JwtError> {
        if config.jwks.is_empty() {
            return Ok(None);
        }
        let place = match url_of(config)? {
            None => Place::File(config.jwks.as_str().into()),
            Some(url) => {
                let authorities = match config.jwks_ca.as_os_str().is_empty() {
                    true => None,
                    false => Some(outbound::authorities_in(&config.jwks_ca).map_err(|source| {
                        let path = config.jwks_ca.clone();
                        JwtError::Unreadable { option: "jwks_ca", path, source }
                    })?),
                };
                let tls = outbound::tls_config(authorities.as_deref(), url.is_encrypted());
                let tls = tls.map_err(|fault| JwtError::of("jwks_ca", fault.to_string()))?;
                Place::Url(url, Box::new(ServiceCaller::new(tls, 1)))
            }
        };
        // Keys of another place must not stay in force.
        let kept = former.filter(|former| former.text == config.jwks);
        let keys = match (&place, kept) {
            (Place::File(path), _) => {
                let keys = read_file(path);
                keys.map_err(|why| JwtError::of("jwks", format!("{}: {why}", config.jwks)))?
            }
            (Place::Url(..), Some(former)) => former.keys.load().to_vec(),
            // Read later, in the background: a start must not wait for another server.
            (Place::Url(..), None) => Vec::new(),
        };
        Ok(Some(Arc::new(Self {
            text: config.jwks.clone(),
            place,
            refresh: Duration::from_secs(config.jwks_refresh_secs.into()),
            keys: ArcSwap::from_pointee(keys),
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })))
    }

    /// Returns the keys that were read last.
    pub(super) fn keys(&self) -> Guard<Arc<Vec<TokenKey>>> {
        self.keys.load()
    }

    /// Reads the set again for a token with an unknown key.
    pub(super) async fn look_for(&self, header: &Header) -> Lookup {
        // One reading for all logins that wait for the same new key.
        let _turn = self.turn.lock().await;
        let keys = self.keys();
        if header.kid.is_some() && keys.iter().any(|key| key.fits(header) && key.is_named()) {
            // Another token has caused a reading meanwhile, or the signature is wrong.
            return Lookup::Read(keys);
        }
        let state = *self.state();
        // Anybody can invent key names, and must not make the broker flood the server of the keys.
        if state.read_at.is_some_and(|at| at.elapsed() < PAUSE) {
            return if state.is_good { Lookup::Unknown } else { Lookup::Unavailable };
        }
        match self.read().await {
            true => Lookup::Read(self.keys()),
            false => Lookup::Unavailable,
        }
    }

    /// Reads the set if that is due. Returns the time until it is due again.
    pub(super) async fn refresh_if_due(&self) -> Duration {
        let _turn = self.turn.lock().await;
        let due_in = self.due_in();
        if due_in.is_zero() {
            self.read().await;
            return self.due_in();
        }
        due_in
    }

    fn due_in(&self) -> Duration {
        let State { read_at, is_good, .. } = *self.state();
        let pause = if is_good { self.refresh } else { PAUSE.min(self.refresh) };
        read_at.map_or(Duration::ZERO, |at| pause.saturating_sub(at.elapsed()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the set; returns whether that succeeded. The caller has the turn.
    async fn read(&self) -> bool {
        {
            // A login that ends while it reads is followed by the same pause.
            let mut state = self.state();
            (state.read_at, state.is_good) = (Some(Instant::now()), false);
        }
        let read = match &self.place {
            Place::File(path) => read_file(path),
            Place::Url(url, caller) => fetch(url, caller).await,
        };
        // A set that never had a key is probably a mistake; one that has none any more was withdrawn.
        let read = match read {
            Ok(keys) if keys.is_empty() && self.keys.load().is_empty() => {
                Err("it has no key for signatures".to_owned())
            }
            other => other,
        };
        let mut state = self.state();
        state.read_at = Some(Instant::now());
        state.is_good = read.is_ok();
        match read {
            Ok(keys) => {
                if std::mem::take(&mut state.is_told) {
                    tracing::info!(jwks = self.shown(), "the JWK Set can be read again");
                }
                tracing::debug!(jwks = self.shown(), keys = keys.len(), "JWK Set read");
                if keys.is_empty() && !self.keys.load().is_empty() {
                    tracing::warn!(
                        jwks = self.shown(),
                        "the JWK Set has no key for signatures now"
                    );
                }
                self.keys.store(Arc::new(keys));
                true
            }
            Err(why) => {
                let keys = self.keys.load().len();
                // Logged once at the beginning of a fault, and once at its end.
                if !std::mem::replace(&mut state.is_told, true) {
                    tracing::warn!(
                        jwks = self.shown(),
                        why,
                        keys,
                        "the JWK Set cannot be read; the keys that were read before stay"
                    );
                }
                false
            }
        }
    }

    /// Returns the place for the log.
    fn shown(&self) -> &str {
        match &self.place {
            Place::File(_) => &self.text,
            Place::Url(url, _) => url.host(),
        }
    }
}

fn read_file(path: &PathBuf) -> Result<Vec<TokenKey>, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    match text.len() <= BYTES_MAX {
        true => keys::of_set(&text),
        false => Err("it is too long".to_owned()),
    }
}

async fn fetch(url: &ServiceUrl, caller: &ServiceCaller) -> Result<Vec<TokenKey>, String> {
    let request = Request::get(url.uri().clone())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, outbound::AGENT)
        .body(Full::<Bytes>::default())
        .expect("the headers are constants");
    let answer = caller.call(request, TIME_MAX, BYTES_MAX).await.map_err(|failure| failure.why)?;
    match answer.status.is_success() {
        true => keys::of_set(&answer.body),
        false => Err(said(answer.status)),
    }
}
