//! A limit in bytes that all connections of a broker share, for memory of a connection that is
//! neither queued nor retained. Knows nothing of what the bytes hold.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A limit in bytes, and the number of bytes taken.
#[derive(Debug)]
pub(crate) struct Budget {
    taken: AtomicUsize,
    max: AtomicUsize,
}

/// Bytes that were taken from a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub(crate) struct BudgetShare {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), max: AtomicUsize::new(max) })
    }

    /// Changes the limit. Shares beyond it stay until they are given back.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Returns the number of bytes taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes `bytes` bytes, if that many are left.
    pub(crate) fn share(self: &Arc<Self>, bytes: usize) -> Option<BudgetShare> {
        let mut share = BudgetShare { budget: self.clone(), bytes: 0 };
        share.grow_to(bytes).then_some(share)
    }

    /// Takes `bytes` bytes, even beyond the limit.
    pub(crate) fn share_anyway(self: &Arc<Self>, bytes: usize) -> BudgetShare {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        BudgetShare { budget: self.clone(), bytes }
    }
}

impl BudgetShare {
    /// Grows the share to `bytes` if the budget allows it; returns whether it has this size. A
    /// share never shrinks.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        // Added first and taken back if it was too much, so that two shards cannot share the last bytes.
        let taken = self.budget.taken.fetch_add(more, Ordering::Relaxed);
        if taken.saturating_add(more) > self.budget.max.load(Ordering::Relaxed) {
            self.budget.taken.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_together_and_given_back() {
        let budget = Budget::new(10);
        let mut one = budget.share(4).expect("there are ten");
        assert!(one.grow_to(7) && one.grow_to(5));
        assert!(budget.share(4).is_none() && !one.grow_to(11));
        assert_eq!(budget.taken(), 7);
        drop(budget.share(3).expect("three are left"));
        drop(one);
        assert_eq!(budget.taken(), 0);
    }
}
