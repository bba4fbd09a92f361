//! The subscription index that all shards share.
//!
//! One lock around the tree: a subscribe holds it for about a microsecond, and publishers that
//! have cached their plan do not take it at all. The generation tells them when a plan is stale.

use std::{
    num::NonZeroU32,
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{Place, Plan, SharedTargets, Subscriber, tree::Tree};
use crate::mqtt::FilterParts;

/// All subscriptions of all sessions.
#[derive(Debug)]
pub struct Index {
    tree: RwLock<Tree>,
    generation: AtomicU64,
    subscriptions: AtomicUsize,
    /// Groups of shared subscriptions that were ever made.
    shares: AtomicU32,
    bytes: AtomicUsize,
}

/// What a subscription counts beside its text, and each level of its filter: an entry in its
/// session and in the set of the filter's subscribers; a node of the tree and its place in the
/// parent's table. Levels that subscriptions have in common are kept once and counted each time.
const OVERHEAD_BYTES: usize = 256;

impl Default for Index {
    fn default() -> Self {
        Self {
            tree: RwLock::new(Tree::new()),
            generation: AtomicU64::new(0),
            subscriptions: AtomicUsize::new(0),
            shares: AtomicU32::new(0),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl Index {
    /// Changes whenever a plan that was made earlier may no longer be right.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// Whether there is no subscription.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What all subscriptions count against a limit on bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What a subscription to this filter counts.
    #[must_use]
    pub fn bytes_of(filter: FilterParts<'_>) -> usize {
        let text = filter.filter.len() + filter.share_name.map_or(0, str::len);
        let levels = filter.filter.split('/').count();
        2 * text + (levels + 1) * OVERHEAD_BYTES
    }

    /// Adds a subscription, or replaces that session's to the same filter; whether it is new.
    pub fn subscribe(&self, filter: FilterParts<'_>, subscriber: Subscriber) -> bool {
        let is_new = self.write().change(filter.filter, |subscribers| {
            subscribers.insert(filter.share_name, subscriber, || self.next_share())
        });
        if is_new {
            self.subscriptions.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(Self::bytes_of(filter), Ordering::Relaxed);
        }
        self.generation.fetch_add(1, Ordering::Release);
        is_new
    }

    /// Removes a subscription; whether it was there.
    pub fn unsubscribe(&self, filter: FilterParts<'_>, place: Place) -> bool {
        let removed = self.write().change(filter.filter, |s| s.remove(filter.share_name, place));
        if removed {
            self.subscriptions.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(Self::bytes_of(filter), Ordering::Relaxed);
        }
        self.generation.fetch_add(1, Ordering::Release);
        removed
    }

    /// Says whether the session at `place`, a member of a shared subscription, is away. The
    /// subscription's number, if some member is there afterwards.
    pub fn set_away(
        &self,
        filter: FilterParts<'_>,
        place: Place,
        away: bool,
    ) -> Option<NonZeroU32> {
        let share_name = filter.share_name?;
        let share = self.write().change(filter.filter, |s| s.set_away(share_name, place, away));
        self.generation.fetch_add(1, Ordering::Release);
        share
    }

    /// Who gets a message on `topic`. Ask for the generation before, not after.
    pub fn plan(&self, topic: &str) -> Plan {
        let mut direct = Vec::new();
        let mut shared = Vec::new();
        self.read().matches(topic, &mut |subscribers| {
            direct.extend_from_slice(subscribers.direct.as_slice());
            shared.extend(subscribers.groups.iter().map(SharedTargets::new));
        });
        Plan::new(direct, shared)
    }

    /// After four thousand million groups the numbers begin again. Should a message then still wait
    /// under the number of a group that is gone, it goes to another group of its own topic.
    fn next_share(&self) -> NonZeroU32 {
        let number = self.shares.fetch_add(1, Ordering::Relaxed);
        NonZeroU32::new(number.wrapping_add(1)).unwrap_or(NonZeroU32::MAX)
    }

    fn read(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }
}
