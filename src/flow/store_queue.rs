//! Counts the bytes on their way to the store, of all owners together and of each. An owner that has more
//! than its share on the way waits; the others do not wait for it.
//!
//! Knows neither changes nor the store. The keeper counts with it, and shards ask
//! before they handle a packet that needs the store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    mqtt::Timestamp,
    owners::{Account, Charge},
};

/// Maximum bytes of changes that wait for the store, before every packet that needs the store waits.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// The bytes that one owner may have on the way, as part of [`BYTES_MAX`]: two groups of the writer, so that one owner
/// alone can keep the store busy.
const OWNER_PART: usize = 8;
/// The same while the store is behind.
const OWNER_PART_BEHIND: usize = 16;
/// An owner with a larger part of [`BYTES_MAX`] begins no further work that needs the store: some of its changes come
/// from no packet that could be held.
const OWNER_PART_EXHAUSTED: usize = 4;
/// The store is behind if its oldest change has waited for longer.
const BEHIND_AFTER: Duration = Duration::from_millis(250);
/// All limits are this many times larger while the store is in trouble: the broker then refuses durable messages, so
/// only acknowledgements of subscribers and retained messages of QoS 0 remain.
const TIMES_IN_TROUBLE: usize = 4;

/// The changes on their way to the store.
#[derive(Debug)]
pub(crate) struct StoreQueue {
    bytes: AtomicUsize,
    /// When the oldest change of the group that is being written, or was written last, was handed over, in
    /// milliseconds. An owner with much on the way is in that group or in the next one.
    oldest: AtomicU64,
}

/// Some of the changes on their way; they leave the queue when this is dropped.
#[derive(Debug)]
pub(crate) struct StoreLoad {
    queue: Arc<StoreQueue>,
    bytes: usize,
    charge: Option<Charge>,
}

impl Default for StoreQueue {
    fn default() -> Self {
        Self { bytes: AtomicUsize::new(0), oldest: AtomicU64::new(Timestamp::NEVER.0) }
    }
}

impl StoreQueue {
    /// Adds changes that packets of this owner have caused; `None` if no owner has.
    pub(crate) fn add(
        self: &Arc<Self>,
        bytes: usize,
        account: Option<Arc<Account>>,
        now: Timestamp,
    ) -> StoreLoad {
        // The queue was empty, so its age begins now.
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.note_oldest(now);
        }
        // The charge gives the bytes back when it is dropped, whatever becomes of the changes.
        let charge = account.map(|account| {
            let mut charge = Charge::new(account, |account| &account.store_waiting);
            charge.set(bytes as u64);
            charge
        });
        StoreLoad { queue: self.clone(), bytes, charge }
    }

    /// Returns the bytes of all changes on their way.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notes when the oldest change of the group that is written now was handed over.
    pub(crate) fn note_oldest(&self, at: Timestamp) {
        self.oldest.store(at.0, Ordering::Relaxed);
    }

    /// Returns whether there is no room for changes of any owner.
    pub(crate) fn is_full(&self, is_in_trouble: bool) -> bool {
        self.bytes() > BYTES_MAX * times(is_in_trouble)
    }

    /// Returns whether any owner may have to wait, if the caller is about to add `more` bytes. Otherwise, no
    /// owner has to be asked.
    pub(crate) fn may_be_long(&self, more: usize) -> bool {
        self.bytes().saturating_add(more) > BYTES_MAX / OWNER_PART_BEHIND
    }

    /// Returns whether packets of this owner that need the store must wait, if the caller is about to add `more` bytes.
    pub(crate) fn holds(
        &self,
        account: &Account,
        more: usize,
        now: Timestamp,
        is_in_trouble: bool,
    ) -> bool {
        // While the store is in trouble more may wait, because publishers are refused and do not wait anyway.
        let times = times(is_in_trouble);
        let is_above = |part: usize| {
            account.store_waiting.used().saturating_add(more as u64)
                > (BYTES_MAX / part * times) as u64
        };
        // All owners wait only if the whole queue is full; before that, each by its own part.
        self.is_full(is_in_trouble)
            || is_above(OWNER_PART)
            || (is_above(OWNER_PART_BEHIND) && self.is_behind(now))
    }

    /// Returns whether this owner has too much on the way to begin a session or a Will that needs the store.
    pub(crate) fn is_exhausted_by(&self, account: &Account, now: Timestamp) -> bool {
        account.store_waiting.used() > (BYTES_MAX / OWNER_PART_EXHAUSTED) as u64
            && self.is_behind(now)
    }

    fn is_behind(&self, now: Timestamp) -> bool {
        now.since(Timestamp(self.oldest.load(Ordering::Relaxed))) > BEHIND_AFTER
    }
}

const fn times(is_in_trouble: bool) -> usize {
    if is_in_trouble { TIMES_IN_TROUBLE } else { 1 }
}

impl StoreLoad {
    /// Returns the account of the owner whose packets have caused the changes.
    pub(crate) fn account(&self) -> Option<&Arc<Account>> {
        self.charge.as_ref().map(Charge::account)
    }

    /// Returns the bytes of the changes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for StoreLoad {
    fn drop(&mut self) {
        self.queue.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::Limits,
        owners::{Owner, Owners},
    };

    const MIB: usize = 1024 * 1024;

    #[test]
    fn an_owner_waits_beyond_its_share_and_the_others_do_not() {
        let owners = Owners::new(&Limits::default(), None);
        let account = |name: &str| owners.account(Owner::User(name.into()), None);
        let (one, two) = (account("one"), account("two"));
        let queue = Arc::new(StoreQueue::default());
        let holds = |account: &Account, more, millis, is_in_trouble| {
            queue.holds(account, more, Timestamp(millis), is_in_trouble)
        };
        let first = queue.add(4 * MIB + 1, Some(one.clone()), Timestamp(0));
        assert!(queue.may_be_long(0));
        assert!(!holds(&one, 0, 250, false) && holds(&one, 0, 251, false));
        assert!(!holds(&one, 0, 251, true) && !holds(&two, 0, 251, false));
        assert!(holds(&one, 4 * MIB, 0, false), "what it is about to add counts");
        queue.note_oldest(Timestamp(251));
        let second = queue.add(4 * MIB, Some(one.clone()), Timestamp(251));
        assert!(holds(&one, 0, 251, false) && !holds(&two, 0, 251, false));
        queue.note_oldest(Timestamp(0));
        assert!(!queue.is_exhausted_by(&one, Timestamp(251)));
        let third = queue.add(8 * MIB, Some(one.clone()), Timestamp(251));
        assert!(queue.is_exhausted_by(&one, Timestamp(251)));
        drop((first, second, third));
        assert_eq!((queue.bytes(), one.store_waiting.used()), (0, 0));
        assert!(!queue.may_be_long(0) && !holds(&one, 0, 251, false));
    }

    #[test]
    fn beyond_the_bound_of_all_every_owner_waits() {
        let owners = Owners::new(&Limits::default(), None);
        let account = owners.account(Owner::User("one".into()), None);
        let queue = Arc::new(StoreQueue::default());
        let load = queue.add(BYTES_MAX, None, Timestamp(0));
        assert!(!queue.holds(&account, 0, Timestamp(0), false));
        let more = queue.add(1, None, Timestamp(0));
        assert!(queue.holds(&account, 0, Timestamp(0), false) && queue.is_full(false));
        assert!(!queue.holds(&account, 0, Timestamp(0), true) && !queue.is_full(true));
        drop((load, more));
        assert!(!queue.holds(&account, 0, Timestamp(0), false));
    }
}
