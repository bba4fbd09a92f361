//! Where the authenticator keeps the pairs of user and address that were right: in the store of the
//! broker.
//!
//! Called by authenticators, from any thread; what they keep goes to the store behind what the shards
//! have handed over.

use std::sync::Arc;

use crate::{
    auth::{LoginKey, LoginLedger},
    clock::Clock,
    durable::Keeper,
    journal::Change,
};

/// See the module.
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
            // It only puts strangers and old acquaintances on a par.
            tracing::warn!(%error, "earlier logins cannot be read from the store");
        }
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
