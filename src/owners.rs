//! The owners of sessions and stored data, and their limits. An owner is a user, or, for clients
//! without a user name, the address that they come from.
//!
//! An [`Account`] counts the resources of one owner over all shards. A session holds the account of
//! its owner, so names are looked up only at CONNECT and when the store is read, not on the path of
//! a message. Knows amounts, not what they count.

mod account;
mod charge;

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use foldhash::fast::RandomState;

pub(crate) use self::{
    account::{Account, Meter},
    charge::Charge,
};
use crate::limits::{Limits, OwnLimits};

/// The owner of a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A user, by name.
    User(Arc<str>),
    /// Clients without a user name, by their address (IPv6: its /64).
    Address(IpAddr),
}

impl Owner {
    /// Returns the owner of the resources of a client with this user name and address.
    #[must_use]
    pub fn of(username: Option<&Arc<str>>, address: IpAddr) -> Self {
        match username {
            Some(username) => Self::User(username.clone()),
            None => Self::Address(network_of(address)),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user {name:?}"),
            Self::Address(address @ IpAddr::V4(_)) => write!(f, "address {address}"),
            Self::Address(address @ IpAddr::V6(_)) => write!(f, "address {address}/64"),
        }
    }
}

/// Returns the /64 of an IPv6 address: one site may use all addresses in it, so they count as one.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// The accounts of all owners with a session or a retained message.
#[derive(Debug)]
pub(crate) struct Owners {
    accounts: Mutex<AccountTable>,
    disk_bytes: Option<u64>,
}

#[derive(Debug, Default)]
struct AccountTable {
    /// Of each owner that has none of its own.
    limits: OwnLimits,
    /// Maximum bytes of unhandled packets of one owner.
    incomplete_bytes_max: u64,
    by_owner: HashMap<Owner, Weak<Account>, RandomState>,
    /// Number of entries left by the last cleanup.
    left: usize,
}

/// Minimum number of entries before a cleanup removes those of dropped accounts. A cleanup also
/// waits until the entries have doubled since the last one.
const ENTRIES_BEFORE_CLEANING: usize = 1_024;

/// One owner has at most this part of the bytes of unhandled packets.
const INCOMPLETE_PART: u64 = 4;

impl Owners {
    /// Creates the register; `limits` has the limits of each owner. Stored bytes are also limited
    /// to a part of `disk_bytes`, the size of the disk that they are on.
    #[must_use]
    pub(crate) fn new(limits: &Limits, disk_bytes: Option<u64>) -> Self {
        let owners = Self { accounts: Mutex::default(), disk_bytes };
        owners.set_limits(limits);
        owners
    }

    /// Changes the limits of each owner; [`Self::refresh`] passes them on to existing accounts.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        // A packet of the largest size has room, however small the limit is.
        let part = limits.incomplete_packet_bytes_max.div_ceil(INCOMPLETE_PART);
        let incomplete_bytes_max = part.max(limits.packet_bytes_max.into());
        let mut limits = OwnLimits::of_each_user(limits);
        // Also bounded by a part of the disk, because the configured limit may be larger than the machine.
        if let (Some(bytes), Some(max)) = (self.disk_bytes, &mut limits.stored_bytes_max) {
            *max = (*max).min(bytes / DISK_PART);
        }
        let mut accounts = self.lock();
        accounts.limits = limits;
        accounts.incomplete_bytes_max = incomplete_bytes_max;
    }

    /// Returns the account of an owner. `own` has its individual limits, which replace the general
    /// ones from now on.
    pub(crate) fn account(&self, owner: Owner, own: Option<OwnLimits>) -> Arc<Account> {
        // One lock for looking up and adding, so that an owner never has two accounts.
        let mut accounts = self.lock();
        let limits = own.unwrap_or_default().or(accounts.limits);
        // The limits may have changed since the account was made.
        if let Some(account) = accounts.by_owner.get(&owner).and_then(Weak::upgrade) {
            account.set_limits(limits, accounts.incomplete_bytes_max);
            return account;
        }
        // Accounts without a session stay as dead entries until the table has doubled, so cleaning
        // costs little.
        if accounts.by_owner.len() >= ENTRIES_BEFORE_CLEANING.max(2 * accounts.left) {
            accounts.by_owner.retain(|_, account| account.strong_count() > 0);
            accounts.left = accounts.by_owner.len();
        }
        let account = Arc::new(Account::new(owner.clone(), limits, accounts.incomplete_bytes_max));
        accounts.by_owner.insert(owner, Arc::downgrade(&account));
        account
    }

    /// Returns the account of an owner that has a session or a retained message.
    pub(crate) fn find(&self, owner: &Owner) -> Option<Arc<Account>> {
        self.lock().by_owner.get(owner)?.upgrade()
    }

    /// Updates the limits of all accounts; `own` returns the individual limits of a user.
    pub(crate) fn refresh(&self, own: impl Fn(&str) -> Option<OwnLimits>) {
        let all = self.lock();
        let (limits, incomplete_bytes_max) = (all.limits, all.incomplete_bytes_max);
        // Kept alive by these references, and the lock ends before the functions of others are called.
        let accounts: Vec<_> = all.by_owner.values().filter_map(Weak::upgrade).collect();
        drop(all);
        for account in accounts {
            let own = match account.owner() {
                Owner::User(name) => own(name),
                Owner::Address(_) => None,
            };
            account.set_limits(own.unwrap_or_default().or(limits), incomplete_bytes_max);
        }
    }

    /// Returns the number of owners with a session or a retained message.
    pub(crate) fn len(&self) -> usize {
        self.lock().by_owner.values().filter(|account| account.strong_count() > 0).count()
    }

    fn lock(&self) -> MutexGuard<'_, AccountTable> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Divisor of the disk size that limits one user's stored messages, so that one user cannot fill a
/// small disk.
const DISK_PART: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_without_a_name_count_by_their_network() {
        let of = |address: &str| Owner::of(None, address.parse().expect("it is an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        let named = Owner::of(Some(&"10.0.0.1".into()), IpAddr::from([10, 0, 0, 1]));
        assert_ne!(named, of("10.0.0.1"), "a name is no address");
    }

    #[test]
    fn an_account_is_one_for_all_and_goes_with_the_last_who_holds_it() {
        let limits = Limits { retained_messages_per_user_max: 7, ..Limits::default() };
        let owners = Owners::new(&limits, None);
        let owner = |number: usize| Owner::User(number.to_string().into());
        let one = owners.account(owner(0), None);
        assert!(Arc::ptr_eq(&one, &owners.account(owner(0), None)));
        assert_eq!(one.retained_messages.max(), 7);
        for number in 1..5 * ENTRIES_BEFORE_CLEANING {
            drop(owners.account(owner(number), None));
        }
        assert_eq!(owners.len(), 1);
        assert!(owners.lock().by_owner.len() <= ENTRIES_BEFORE_CLEANING);
        let own = OwnLimits { retained_messages_max: Some(9), ..OwnLimits::default() };
        owners.refresh(|name| (name == "0").then_some(own));
        assert_eq!(one.retained_messages.max(), 9);
        assert_eq!(one.will_bytes.max(), limits.will_bytes_per_user_max);
    }

    #[test]
    fn a_small_disk_makes_the_share_of_a_user_smaller() {
        let limits = Limits { stored_bytes_per_user_max: 1_000, ..Limits::default() };
        for (disk_bytes, max) in [(None, 1_000), (Some(80_000), 1_000), (Some(800), 100)] {
            let owners = Owners::new(&limits, disk_bytes);
            let account = owners.account(Owner::User("one".into()), None);
            assert_eq!(account.stored_bytes.max(), max);
        }
    }
}
