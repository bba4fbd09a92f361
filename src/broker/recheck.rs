//! Checks again what was allowed before.

use futures_util::future::join_all;

use super::Broker;
use crate::actors::Recheck;

impl Broker {
    /// Checks all sessions again after the authenticator, the authorizer or certificates have
    /// changed. Returns once all are checked.
    ///
    /// Disconnects clients whose credentials are no longer valid, or that may no longer connect,
    /// with Not authorized (0x87). Ends subscriptions that are no longer allowed, and drops
    /// messages that wait under these alone. The session of an offline client queues no messages
    /// while the client may not connect, and ends if its user no longer exists. Other work proceeds
    /// in between, however many sessions there are.
    pub async fn recheck(&self) {
        let core = &self.running.core;
        core.refresh_owners();
        let registries = &self.running.registries;
        join_all(registries.iter().map(|registry| registry.send(Recheck))).await;
    }
}
