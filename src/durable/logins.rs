//! The pairs of user and address that have logged in: the authenticator stores them in the broker's
//! store.
//!
//! Authenticators call this from any thread. Their changes go to the store behind those that the
//! shards have handed over.

use std::sync::Arc;

use crate::{
    auth::{LoginKey, LoginLedger},
    clock::Clock,
    durable::Keeper,
    journal::Change,
};

/// The authenticator's access to the stored pairs.
pub(crate) struct StoredLogins {
    keeper: Arc<Keeper>,
    clock: Clock,
}

impl StoredLogins {
    pub(crate) const fn new(keeper: Arc<Keeper>, clock: Clock) -> Self {
        Self { keeper, clock }
    }
}

impl LoginLedger for StoredLogins {
    fn read(&self) -> Vec<LoginKey> {
        let mut logins = Vec::new();
        let read = self.keeper.store().logins(&mut |key, at| logins.push((at, key)));
        if let Err(error) = read {
            // Without them, the broker only treats unknown addresses and those of earlier logins
            // alike.
            tracing::warn!(%error, "earlier logins cannot be read from the store");
        }
        // The oldest first, so that the newest survive if the authenticator keeps only some.
        logins.sort_unstable();
        logins.into_iter().map(|(_, key)| key).collect()
    }

    fn note(&self, key: LoginKey) {
        let now = self.clock.now();
        self.keeper.note(Change::NoteLogin(key, now), now);
    }

    fn remove(&self, key: LoginKey) {
        self.keeper.note(Change::ForgetLogin(key), self.clock.now());
    }
}
