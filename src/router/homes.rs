//! Where client identifiers live: on which shard, in one run of the broker.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::ShardNumber;

/// Where client identifiers live in one run of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Homes {
    /// Random, so that nobody can choose client identifiers that all live on one shard.
    pub(crate) seed: u64,
    pub(crate) shards: u16,
}

impl Homes {
    pub(crate) fn new(shards: u16) -> Self {
        let mut seed = [0; 8];
        // Without it identifiers could be chosen; nothing else depends on it.
        let _ = getrandom::fill(&mut seed);
        Self { seed: u64::from_le_bytes(seed), shards: shards.max(1) }
    }

    /// Where a client identifier lives: always the same shard while the broker runs.
    pub(crate) fn home(&self, client_id: &str) -> ShardNumber {
        let hash = FixedState::with_seed(self.seed).hash_one(client_id);
        ShardNumber((hash % u64::from(self.shards)) as u16)
    }
}
