//! A store for tests of power cuts: synced groups stay, and of those only written since, as many
//! whole groups as the test chooses.
//!
//! Keeps each group that was applied, and knows nothing of its contents.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hearthmq::store::{Change, Durability, MemoryStore, Store, StoreError};

#[derive(Default)]
pub struct TornStore {
    is_immediate: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    groups: Vec<Vec<Change>>,
    /// Number of groups that are durable.
    synced: usize,
    store: MemoryStore,
}

impl TornStore {
    /// Returns a store whose [`Store::is_immediate`] returns this.
    pub fn new(is_immediate: bool) -> Self {
        Self { is_immediate, ..Self::default() }
    }

    /// Returns how many groups a crash would lose if no unsynced group survived.
    pub fn unsynced(&self) -> usize {
        let state = self.state();
        state.groups.len() - state.synced
    }

    /// Loses unsynced groups, except the first `keep` of them.
    pub fn crash(&self, keep: usize) {
        let mut state = self.state();
        let kept = state.synced + keep;
        state.groups.truncate(kept);
        state.synced = state.groups.len();
        state.store = MemoryStore::default();
        for group in &state.groups {
            state.store.apply(group, Durability::Synced).expect("memory takes all");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for TornStore {
    fn apply(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        let mut state = self.state();
        state.store.apply(changes, durability)?;
        state.groups.push(changes.to_vec());
        if durability == Durability::Synced {
            state.synced = state.groups.len();
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        state.synced = state.groups.len();
        Ok(())
    }

    fn is_immediate(&self) -> bool {
        self.is_immediate
    }

    crate::from_below!(|this| &this.state().store =>
        bounds sessions retained logins records histories in_flight waiting);
}
