//! What all shards of a broker share.

use std::{
    hash::BuildHasher,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use actix::Addr;
use foldhash::quality::FixedState;

use super::{Clock, Registry, in_process::InProcess};
use crate::{
    auth::{Authenticator, Authorizer},
    hooks::Hooks,
    limits::Limits,
    metrics::Metrics,
    router::{Host, Index, Retained, RetainedLimits},
    session::QueueUsage,
    store::{Store, StoreError},
};

/// What a broker is made of before its shards start.
pub(crate) struct CoreParts {
    pub(crate) node: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Shared by all shards, listeners and handles of one broker.
pub(crate) struct Core {
    pub(crate) node: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) index: Index,
    pub(crate) retained: Retained,
    pub(crate) queue_usage: Arc<QueueUsage>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) in_process: InProcess,
    pub(crate) versions: Versions,
    shards: OnceLock<Box<[ShardHandle]>>,
}

/// How the other shards reach one.
pub(crate) struct ShardHandle {
    pub(crate) registry: Addr<Registry>,
    /// Batches of deliveries that were sent to it and that it has not taken up yet.
    pub(crate) batches_waiting: Arc<AtomicUsize>,
}

impl Core {
    pub(crate) fn new(parts: CoreParts) -> Result<Self, StoreError> {
        let retained = RetainedLimits {
            messages_max: parts.limits.retained_messages_max,
            bytes_max: parts.limits.retained_bytes_max,
        };
        Ok(Self {
            clock: Clock::start(),
            index: Index::default(),
            retained: Retained::new(retained),
            queue_usage: Arc::default(),
            in_process: InProcess::default(),
            versions: Versions::new(parts.store)?,
            shards: OnceLock::new(),
            node: parts.node,
            limits: parts.limits,
            authenticator: parts.authenticator,
            authorizer: parts.authorizer,
            hooks: parts.hooks,
            metrics: parts.metrics,
        })
    }

    /// Makes the shards known to each other; once, before anything is accepted.
    pub(crate) fn set_shards(&self, shards: Vec<ShardHandle>) {
        let was_set = self.shards.set(shards.into_boxed_slice()).is_err();
        debug_assert!(!was_set, "shards are set once");
    }

    pub(crate) fn shards(&self) -> &[ShardHandle] {
        self.shards.get().map_or(&[], |shards| shards)
    }

    pub(crate) fn shard(&self, host: Host) -> Option<&ShardHandle> {
        self.shards().get(usize::from(host.0))
    }

    /// Where a client identifier lives: always the same shard while the broker runs.
    pub(crate) fn home(&self, client_id: &str) -> Host {
        let hash = FixedState::default().hash_one(client_id);
        Host((hash % self.shards().len().max(1) as u64) as u16)
    }
}

/// Presence versions: how far they are reserved in the store.
pub(crate) struct Versions {
    store: Arc<dyn Store>,
    /// Every version that an earlier run of the broker may have given out is at most this.
    floor: u64,
    reserved: AtomicU64,
    reserving: Mutex<()>,
}

/// So many versions are reserved at a time: one durable write for as many connections.
const VERSIONS_AT_A_TIME: u64 = 1 << 20;

impl Versions {
    fn new(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let floor = store.reserved_versions()?;
        let versions =
            Self { store, floor, reserved: AtomicU64::new(floor), reserving: Mutex::new(()) };
        versions.reserve(floor + 1)?;
        Ok(versions)
    }

    pub(crate) const fn floor(&self) -> u64 {
        self.floor
    }

    /// Makes sure that `version` was reserved before it is given out.
    pub(crate) fn reserve(&self, version: u64) -> Result<(), StoreError> {
        if version <= self.reserved.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one_at_a_time = self.reserving.lock().unwrap_or_else(PoisonError::into_inner);
        if version > self.reserved.load(Ordering::Acquire) {
            let up_to = version + VERSIONS_AT_A_TIME;
            self.store.reserve_versions(up_to)?;
            self.reserved.store(up_to, Ordering::Release);
        }
        Ok(())
    }
}
