//! The part of an owner's account that one thing uses; returned when the thing is dropped.

use std::sync::Arc;

use super::{Account, Meter};

/// An amount of one resource, charged to an owner's account.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    meter: fn(&Account) -> &Meter,
    taken: u64,
}

impl Charge {
    /// Creates a charge of zero.
    #[must_use]
    pub(crate) const fn new(account: Arc<Account>, meter: fn(&Account) -> &Meter) -> Self {
        Self { account, meter, taken: 0 }
    }

    /// Returns the charged amount.
    #[must_use]
    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    /// Returns the charged account.
    #[must_use]
    pub(crate) const fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Returns whether the account has room for a charge of `amount`.
    #[must_use]
    pub(crate) fn fits(&self, amount: u64) -> bool {
        self.meter().fits(amount.saturating_sub(self.taken))
    }

    /// Changes the charge to `amount` if the account has room; returns whether it did.
    pub(crate) fn try_set(&mut self, amount: u64) -> bool {
        // More needs room; giving back never fails.
        if amount > self.taken && !self.meter().take(amount - self.taken) {
            return false;
        }
        if amount < self.taken {
            self.meter().give_back(self.taken - amount);
        }
        self.taken = amount;
        true
    }

    /// Changes the charge to `amount`, even beyond the account's limit.
    pub(crate) fn set(&mut self, amount: u64) {
        if amount > self.taken {
            self.meter().force(amount - self.taken);
        } else if amount < self.taken {
            self.meter().give_back(self.taken - amount);
        }
        self.taken = amount;
    }

    /// Charges another account instead, even beyond its limit.
    pub(crate) fn move_to(&mut self, account: &Arc<Account>) {
        if Arc::ptr_eq(&self.account, account) {
            return;
        }
        let amount = self.taken;
        // Taken from the former account first, so that nothing counts twice.
        self.set(0);
        self.account = account.clone();
        self.set(amount);
    }

    fn meter(&self) -> &Meter {
        (self.meter)(&self.account)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.meter().give_back(self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::OwnLimits,
        owners::{Owner, Owners},
    };

    #[test]
    fn a_charge_grows_within_the_bound_moves_and_is_given_back() {
        let own = OwnLimits { will_bytes_max: Some(10), ..OwnLimits::default() };
        let owners = Owners::new(&crate::limits::Limits::default(), None);
        let account = |name: &str| owners.account(Owner::User(name.into()), Some(own));
        let (one, two) = (account("one"), account("two"));
        let mut charge = Charge::new(one.clone(), |account| &account.will_bytes);
        assert!(charge.try_set(10) && !charge.try_set(11) && charge.try_set(4));
        assert!(charge.fits(10) && !charge.fits(11));
        charge.set(12);
        assert_eq!(one.will_bytes.used(), 12);
        charge.move_to(&two);
        assert_eq!((one.will_bytes.used(), two.will_bytes.used()), (0, 12));
        drop(charge);
        assert_eq!(two.will_bytes.used(), 0);
    }
}
