//! What was allowed is looked at again.

use futures_util::future::join_all;

use super::Broker;
use crate::actors::Recheck;

impl Broker {
    /// Checks all sessions again, after the authenticator, the authorizer or certificates have
    /// changed what they say; returns once all were checked.
    ///
    /// Clients whose credentials no longer hold, or that may no longer connect, are disconnected with
    /// Not authorized (0x87). Subscriptions that are no longer allowed end, and what waits under them
    /// alone is dropped. The session of a client that is away collects nothing while it may not
    /// connect, and ends if its user is gone. Other work has its turn in between, however many
    /// sessions there are.
    pub async fn recheck(&self) {
        let core = &self.running.core;
        core.owners.refresh(|username| core.authenticator.limits_of(username));
        let shards = core.shards();
        join_all(shards.iter().map(|shard| shard.registry.send(Recheck))).await;
    }
}
