//! The logins of the world: credentials that expire, and permissions that must be loaded first.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use hearthmq::{
    auth::{
        AuthenticationError, Authenticator, Credentials, Identity, Preparation, PrepareRequest,
        Prepared,
    },
    mqtt::Timestamp,
};
use tokio::{task::yield_now, time::Instant};

/// Issues identities. A password is the number of seconds for which its identity is valid.
#[derive(Clone)]
pub(crate) struct PassOffice {
    began: Instant,
    /// The broker's time minus that of the world, in milliseconds; 0 if it is not known yet.
    ahead: Arc<AtomicU64>,
}

impl Default for PassOffice {
    fn default() -> Self {
        Self { began: Instant::now(), ahead: Arc::default() }
    }
}

impl PassOffice {
    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Notes the time of the broker. Another broker has another time.
    pub(crate) fn note_time(&self, broker: Timestamp) {
        self.ahead.store(broker.millis() - self.now(), Ordering::Relaxed);
    }

    pub(crate) fn forget_time(&self) {
        self.ahead.store(0, Ordering::Relaxed);
    }

    pub(crate) fn knows_time(&self) -> bool {
        self.ahead.load(Ordering::Relaxed) > 0
    }
}

#[async_trait]
impl Authenticator for PassOffice {
    async fn authenticate(&self, shown: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        let secs = shown.password.map(|secs| {
            let secs: u64 = str::from_utf8(secs).expect("digits").parse().expect("a number");
            secs * 1000
        });
        let now = self.ahead.load(Ordering::Relaxed) + self.now();
        let username = shown.username.map(Into::into);
        let expires_at = secs.map(|millis| Timestamp(now + millis));
        Ok(Identity { username, expires_at, ..Identity::default() })
    }
}

/// What is loaded for an identity: whose it is.
struct Loaded(Arc<str>);

/// Loads what the rules need, which takes a few turns.
pub(crate) fn load<'a>(request: PrepareRequest<'a>) -> Preparation<'a> {
    Box::pin(async move {
        let name = request.identity.username.clone().expect("every client has a name");
        for _ in 0..name.len() % 4 {
            yield_now().await;
        }
        Ok(Prepared::new(Arc::new(Loaded(name))))
    })
}

/// Checks that what an identity needs was loaded for it before anything is decided about it. Nothing is
/// loaded for callers with a token.
pub(crate) fn assert_loaded(identity: &Identity) {
    if identity.source.as_deref() == Some("tokens") {
        return;
    }
    let loaded = identity.prepared.get::<Loaded>();
    let name = loaded.map(|Loaded(name)| &**name);
    assert!(name.is_some() && name == identity.username.as_deref(), "{name:?} {identity:?}");
}
