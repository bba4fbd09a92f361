//! Checks again what was allowed before.

use std::{net::IpAddr, sync::Arc};

use futures_util::future::join_all;

use super::Broker;
use crate::{
    actors::Recheck,
    control::Rechecked,
    owners::{Account, Owner},
};

impl Broker {
    /// Checks all sessions again after the authenticator, the authorizer or certificates have
    /// changed. Returns what it has found once all are checked.
    ///
    /// Disconnects clients whose credentials are no longer valid, or that may no longer connect,
    /// with Not authorized (0x87). Ends subscriptions that are no longer allowed, and drops
    /// messages that wait under these alone. The session of an offline client queues no messages
    /// while the client may not connect, and ends if its user no longer exists. Other work proceeds
    /// in between, however many sessions there are. Callers that ask at the same time may share one
    /// check and its numbers.
    pub async fn recheck(&self) -> Rechecked {
        self.running.core.refresh_owners();
        self.recheck_sessions(None).await
    }

    /// Does the same for the sessions of one user, after its account has changed. A user without sessions
    /// costs nothing.
    pub async fn recheck_user(&self, username: &str) -> Rechecked {
        let (core, owner) = (&self.running.core, Owner::User(username.into()));
        if core.owners.find(&owner).is_none() {
            return Rechecked::default();
        }
        // It now has the limits that are in force.
        let account = core.account(owner);
        self.recheck_sessions(Some(account)).await
    }

    /// Does the same for the sessions that are charged to this user, or to this address if they have no
    /// user name.
    pub(super) async fn recheck_owner(
        &self,
        username: Option<&Arc<str>>,
        address: IpAddr,
    ) -> Rechecked {
        let account = self.running.core.account_of(username, address);
        self.recheck_sessions(Some(account)).await
    }

    async fn recheck_sessions(&self, only: Option<Arc<Account>>) -> Rechecked {
        let registries = self.running.registries.iter();
        let found = join_all(registries.map(|one| one.send(Recheck { only: only.clone() })));
        // A shard that has ended has no sessions.
        found.await.into_iter().flatten().fold(Rechecked::default(), Rechecked::and)
    }
}
