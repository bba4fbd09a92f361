//! Presence versions: numbers of connections that never go back, also over a restart.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    durable::Keeper,
    mqtt::Timestamp,
    store::{Store, StoreError},
};

/// Presence versions, and the last version that is reserved in the store.
pub(crate) struct Versions {
    /// The maximum presence version that an earlier run of the broker may have given out.
    floor: u64,
    reserved: AtomicU64,
}

/// Versions that one reservation adds: one durable write serves this many connections.
const VERSIONS_AT_A_TIME: u64 = 1 << 20;

impl Versions {
    pub(in crate::shard) fn new(
        store: Option<&dyn Store>,
        floor: u64,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let reserved = match store {
            None => u64::MAX, // Each run of the broker counts from the start again.
            Some(store) => {
                let up_to = floor + VERSIONS_AT_A_TIME;
                Keeper::prepare(store, up_to, now)?;
                up_to
            }
        };
        Ok(Self { floor, reserved: AtomicU64::new(reserved) })
    }

    pub(crate) const fn floor(&self) -> u64 {
        self.floor
    }

    /// Returns whether `version` may be given out.
    pub(crate) fn is_reserved(&self, version: u64) -> bool {
        version <= self.reserved.load(Ordering::Acquire)
    }

    /// Returns the version up to which to reserve now, well before the reserved ones are used up.
    pub(crate) fn to_reserve(&self, version: u64) -> Option<u64> {
        let is_needed = !self.is_reserved(version.saturating_add(VERSIONS_AT_A_TIME / 2));
        is_needed.then(|| version.saturating_add(VERSIONS_AT_A_TIME))
    }

    /// Returns the highest version that may be given out.
    pub(crate) fn highest(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }

    /// Notes that a reservation is stored.
    pub(crate) fn reserved(&self, up_to: u64) {
        self.reserved.fetch_max(up_to, Ordering::AcqRel);
    }
}
