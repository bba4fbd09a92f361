//! Restores the contents of the store when a broker starts, without blocking the caller's thread.
//!
//! Does not know the format of the store, nor how a shard restores a session.

use std::{panic::resume_unwind, sync::Arc};

use futures_util::future::join_all;
use tokio::task::spawn_blocking;

use super::{Broker, StartError, shards::Threads};
use crate::{
    actors::{Begin, Restore, Restored},
    durable::{IN_TRANSIT, Keeper, StoredLogins, deliver_undelivered},
    journal::Change,
    mqtt::{Timestamp, is_of_the_broker},
    router::ShardNumber,
    store::{Durability, StoreError, StoredRetained, StoredSession},
};

/// Maximum number of sessions that are handed to a shard in one message.
const RESTORED_AT_A_TIME: usize = 256;
/// Maximum number of retained messages that are removed from the store in one group.
const CLEARED_AT_A_TIME: usize = 4_096;

/// Does work that may block, on a thread for such work. A test with simulated shards gets it done on
/// its own thread, so that each run has the same order.
pub(super) async fn aside<T: Send + 'static>(
    threads: &Threads,
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    if matches!(threads, Threads::Simulated(_)) {
        return work();
    }
    match spawn_blocking(work).await {
        Ok(done) => done,
        // A panic of a store is a fault of its code; the caller must see it as if it ran there.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(StartError::NoSystem), // The runtime of the System ends.
        },
    }
}

impl Broker {
    /// Restores the contents of the store, before any client can connect.
    pub(super) async fn restore(&self, threads: &Threads) -> Result<(), StartError> {
        let core = &self.running.core;
        let Some(keeper) = &core.keeper else {
            self.begin_access().await;
            #[cfg(feature = "accounts")]
            self.begin_uses();
            return Ok(());
        };
        let (broker, its_keeper) = (self.clone(), Arc::clone(keeper));
        aside(threads, move || broker.read_store(&its_keeper)).await?;
        // All refusals are known before listeners open: no client slips in during a restart.
        self.restore_revoked().await;
        self.restore_drain().await;
        self.begin_access().await;
        #[cfg(feature = "accounts")]
        self.begin_uses();
        // Published only once all sessions are there, so that no subscriber misses a Will.
        let registries = &self.running.registries;
        join_all(registries.iter().map(|registry| registry.send(Restored))).await;
        // Only after every shard has answered `Restored`:
        // a Will may have subscribers on any of them.
        join_all(registries.iter().map(|registry| registry.send(Begin))).await;
        Ok(())
    }

    /// Reads the store, gives the shards what they need of it, and begins to write it. May block.
    fn read_store(&self, keeper: &Arc<Keeper>) -> Result<(), StartError> {
        let core = &self.running.core;
        let now = core.clock.now();
        // First: sessions and owners are judged by the accounts that are among them.
        core.records.restore()?;
        // Before the sessions are read, so that they already have these messages in their queues.
        let undelivered = deliver_undelivered(keeper)?;
        self.restore_retained(keeper, now)?;
        // Handed over in groups while the store is read, so that shards restore sessions meanwhile.
        let mut by_shard: Vec<Vec<StoredSession>> = Vec::new();
        by_shard.resize_with(core.shards().len(), Vec::new);
        let hand_over = |home: ShardNumber, sessions: &mut Vec<StoredSession>| {
            let registry = &self.running.registries[usize::from(home.0)];
            registry.do_send(Restore { sessions: std::mem::take(sessions) });
        };
        let mut found = 0;
        keeper.store().sessions(&mut |session| {
            if session.number == IN_TRANSIT {
                return; // the broker's own record
            }
            found += 1;
            let home = core.home(&session.record.client_id);
            let sessions = &mut by_shard[usize::from(home.0)];
            sessions.push(session);
            if sessions.len() >= RESTORED_AT_A_TIME {
                // The shard restores them on its thread while this one reads on.
                hand_over(home, sessions);
            }
        })?;
        for (shard, sessions) in by_shard.iter_mut().enumerate() {
            hand_over(ShardNumber(shard as u16), sessions);
        }
        // Started last: until here this thread alone writes to the store.
        keeper.start(core.clock, core.shared_shards()).map_err(StartError::StoreThread)?;
        core.history.begin_run(&core.records);
        let logins = StoredLogins::new(Arc::clone(keeper), core.clock);
        core.authenticator.keep_logins_in(Arc::new(logins));
        let retained = core.retained.usage().0;
        tracing::info!(sessions = found, retained, undelivered, "store read");
        Ok(())
    }

    /// Restores the retained messages. Removes those from the store that have expired meanwhile, and
    /// those under topics of the broker that clients of an earlier version have written.
    fn restore_retained(&self, keeper: &Keeper, now: Timestamp) -> Result<(), StoreError> {
        let core = &self.running.core;
        let mut gone = Vec::new();
        let mut over_limits = 0_u64;
        let mut reserved = 0_u64;
        keeper.store().retained(&mut |StoredRetained { message, owner }| {
            let is_reserved = is_of_the_broker(message.topic());
            reserved += u64::from(is_reserved);
            if is_reserved || message.publication().has_expired(now) {
                // The store is being read and cannot be changed;
                // the removals are collected for afterwards.
                return gone.push(Change::ClearRetained(message.topic().into()));
            }
            let account = owner.map(|owner| core.account(owner));
            // A lower limit than before must not delete
            // retained messages, so they only block new ones.
            over_limits += u64::from(!core.retained.restore(message, account.as_ref()));
        })?;
        if over_limits > 0 {
            tracing::warn!(
                over_limits,
                "more retained messages than the limits allow; no new one is taken"
            );
        }
        if reserved > 0 {
            tracing::warn!(
                reserved,
                "retained messages under topics of the broker's own were found, and are removed"
            );
        }
        // Some at a time, so that one group of the store stays small.
        for some in gone.chunks(CLEARED_AT_A_TIME) {
            keeper.store().apply(some, Durability::Written)?;
        }
        Ok(())
    }
}
