//! Counts what calls take at the same time, in all and for each account: places, or bytes of bodies and answers.
//!
//! One account never takes all, however many calls it makes. Knows no HTTP.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How much there is.
#[derive(Clone, Copy)]
pub(super) struct ShareBounds {
    /// For all accounts together.
    pub(super) all: usize,
    /// For one account.
    pub(super) own: usize,
}

impl ShareBounds {
    /// Returns the bounds of bytes of which one account may take a quarter.
    pub(super) const fn of_bytes(all: usize) -> Self {
        Self { all, own: all / 4 }
    }
}

/// The shares of one kind that are taken.
#[derive(Default)]
pub(super) struct Shares(Arc<Mutex<TakenAmounts>>);

#[derive(Default)]
struct TakenAmounts {
    all: usize,
    by_account: HashMap<Arc<str>, usize>,
}

/// The share that one call has taken; given back on drop.
pub(super) struct OwnShare {
    account: Arc<str>,
    amount: usize,
    taken: Arc<Mutex<TakenAmounts>>,
}

fn locked(taken: &Mutex<TakenAmounts>) -> MutexGuard<'_, TakenAmounts> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shares {
    /// Takes an amount for an account; `None` if that is more than there is.
    pub(super) fn take(
        &self,
        account: Arc<str>,
        amount: usize,
        bounds: ShareBounds,
    ) -> Option<OwnShare> {
        let mut share = OwnShare { account, amount: 0, taken: Arc::clone(&self.0) };
        share.grow(amount, bounds).then_some(share)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let taken = locked(&self.0);
        taken.all == 0 && taken.by_account.is_empty()
    }
}

impl OwnShare {
    /// Returns what the call has taken.
    pub(super) const fn amount(&self) -> usize {
        self.amount
    }

    /// Takes more; returns false if that is more than there is.
    pub(super) fn grow(&mut self, amount: usize, bounds: ShareBounds) -> bool {
        let mut taken = locked(&self.taken);
        let own = taken.by_account.get(&self.account).copied().unwrap_or_default();
        if taken.all.saturating_add(amount) > bounds.all || own.saturating_add(amount) > bounds.own
        {
            return false;
        }
        taken.all += amount;
        taken.by_account.insert(Arc::clone(&self.account), own + amount);
        self.amount += amount;
        true
    }

    /// Gives back the part above `amount`.
    pub(super) fn shrink_to(&mut self, amount: usize) {
        let rest = self.amount.saturating_sub(amount);
        self.amount -= rest;
        let mut taken = locked(&self.taken);
        taken.all -= rest;
        if let Some(own) = taken.by_account.get_mut(&self.account) {
            *own -= rest;
            if *own == 0 {
                taken.by_account.remove(&self.account);
            }
        }
    }
}

impl Drop for OwnShare {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_takes_its_share_and_gives_it_back() {
        let (shares, bounds) = (Shares::default(), ShareBounds::of_bytes(100));
        let take = |account: &str, amount| shares.take(account.into(), amount, bounds);
        assert!(take("ann", 26).is_none());
        let mut ann = take("ann", 20).unwrap();
        assert!(ann.grow(5, bounds));
        assert!(!ann.grow(1, bounds));
        assert!(take("ann", 1).is_none());
        let others = ["bob", "eve", "dan"].map(|name| take(name, 25).unwrap());
        assert!(take("new", 1).is_none(), "in all");
        ann.shrink_to(20);
        assert_eq!(ann.amount(), 20);
        assert!(take("new", 6).is_none());
        assert!(take("new", 5).is_some());
        drop((ann, others));
        assert!(shares.is_empty());
    }
}
