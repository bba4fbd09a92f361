//! The number and the bytes of the records of a namespace, in all and by the user that set each.
//!
//! Counts committed records, and reservations for changes that are on their way to the store. Knows no
//! content: a function of the namespace finds the user in a record.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::journal::{Record, RecordKey};

/// Bytes that a record takes beside its key and its value.
const RECORD_BYTES: u64 = 400;

/// The user that set a record; records without a user have one common share.
pub(crate) type SetBy = Option<Arc<str>>;

/// Finds in the value of a record the user that set it.
pub(crate) type FindSetBy = fn(&[u8]) -> SetBy;

/// A number of records, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordAmount {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl RecordAmount {
    /// Returns the amount of one record.
    fn of(name: &RecordKey, value: &[u8]) -> Self {
        let bytes = RECORD_BYTES + (name.key().len() + value.len()) as u64;
        Self { records: 1, bytes }
    }

    const fn plus(self, other: Self) -> Self {
        let Self { records, bytes } = other;
        Self { records: self.records + records, bytes: self.bytes + bytes }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_sub(other.records),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    const fn is_within(self, max: Self) -> bool {
        self.records <= max.records && self.bytes <= max.bytes
    }
}

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordBounds {
    pub(crate) all: RecordAmount,
    /// The share of one user; `None`: it has no bound of its own.
    pub(crate) share: Option<RecordAmount>,
}

/// Why a record has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// There are as many as there may be.
    Full,
    /// The user has its share.
    ShareFull,
}

/// The amounts of a namespace.
pub(crate) struct RecordTally {
    find_set_by: FindSetBy,
    /// The number of committed records, which a CONNECT reads.
    committed: AtomicUsize,
    amounts: Mutex<Amounts>,
}

#[derive(Default)]
struct Amounts {
    all: RecordAmount,
    by_user: HashMap<SetBy, RecordAmount>,
}

/// Room for a change, until the change is committed.
pub(crate) struct ReservedRoom {
    tally: Arc<RecordTally>,
    by: SetBy,
    amount: RecordAmount,
}

impl Drop for ReservedRoom {
    fn drop(&mut self) {
        self.tally.lock().take(&self.by, self.amount);
    }
}

impl RecordTally {
    pub(super) fn new(find_set_by: FindSetBy) -> Self {
        Self { find_set_by, committed: AtomicUsize::new(0), amounts: Mutex::default() }
    }

    /// Returns whether no record is committed.
    pub(crate) fn is_empty(&self) -> bool {
        self.committed.load(Ordering::Acquire) == 0
    }

    /// Reserves room for a record in place of the former one.
    ///
    /// # Errors
    /// There would be more in all, or of its user, than there may be. A change that adds nothing has
    /// room.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        name: &RecordKey,
        former: Option<&Record>,
        value: &[u8],
        bounds: RecordBounds,
    ) -> Result<ReservedRoom, NoRoom> {
        // The user that is charged stands in the record, so that a restart charges the same one.
        let by = (self.find_set_by)(value);
        let whole = RecordAmount::of(name, value);
        let replaced = former
            .map_or_else(RecordAmount::default, |former| RecordAmount::of(name, &former.value));
        // A record that another user takes over counts for its new user as a whole.
        let is_own = former.is_some_and(|former| (self.find_set_by)(&former.value) == by);
        let added = whole.minus(replaced);
        let added_to_share = if is_own { added } else { whole };
        let nothing = RecordAmount::default();
        let mut amounts = self.lock();
        // A record that becomes smaller is always accepted, even above a limit that was lowered.
        if added != nothing && !amounts.all.plus(added).is_within(bounds.all) {
            return Err(NoRoom::Full);
        }
        let of_user = amounts.by_user.get(&by).copied().unwrap_or_default();
        let has_share = |share| of_user.plus(added_to_share).is_within(share);
        if added_to_share != nothing && !bounds.share.is_none_or(has_share) {
            return Err(NoRoom::ShareFull);
        }
        // Reserved under the same lock that checked the room.
        amounts.add(&by, added);
        drop(amounts);
        Ok(ReservedRoom { tally: Arc::clone(self), by, amount: added })
    }

    /// Counts a committed change.
    pub(super) fn change(&self, name: &RecordKey, former: Option<&Record>, new: Option<&Record>) {
        match (former, new) {
            (None, Some(_)) => drop(self.committed.fetch_add(1, Ordering::AcqRel)),
            (Some(_), None) => drop(self.committed.fetch_sub(1, Ordering::AcqRel)),
            (None, None) | (Some(_), Some(_)) => {}
        }
        // The reservation is counted as well, until its caller drops it.
        let mut amounts = self.lock();
        if let Some(former) = former {
            let amount = RecordAmount::of(name, &former.value);
            amounts.take(&(self.find_set_by)(&former.value), amount);
        }
        if let Some(new) = new {
            amounts.add(&(self.find_set_by)(&new.value), RecordAmount::of(name, &new.value));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Amounts> {
        self.amounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Amounts {
    fn add(&mut self, by: &SetBy, amount: RecordAmount) {
        self.all = self.all.plus(amount);
        let of_user = self.by_user.entry(by.clone()).or_default();
        *of_user = of_user.plus(amount);
    }

    fn take(&mut self, by: &SetBy, amount: RecordAmount) {
        self.all = self.all.minus(amount);
        let Some(of_user) = self.by_user.get_mut(by) else { return };
        *of_user = of_user.minus(amount);
        if *of_user == RecordAmount::default() {
            self.by_user.remove(by);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::journal::Revision;

    fn name(key: &str) -> RecordKey {
        RecordKey::new("ns", key).expect("it is short")
    }

    fn record(by: &'static str) -> Record {
        Record { revision: Revision(1), value: Bytes::from_static(by.as_bytes()), expires_at: None }
    }

    fn bounds(all: u64, share: Option<u64>) -> RecordBounds {
        let amount = |records| RecordAmount { records, bytes: 1_000_000 };
        RecordBounds { all: amount(all), share: share.map(amount) }
    }

    #[test]
    fn what_is_on_its_way_and_what_is_committed_count_once() {
        let tally =
            Arc::new(RecordTally::new(|value| std::str::from_utf8(value).ok().map(Arc::from)));
        let reserve = |key: &str, former: Option<&Record>, by: &str, bounds| {
            tally.reserve(&name(key), former, by.as_bytes(), bounds)
        };
        let way = reserve("a", None, "ann", bounds(3, Some(1)));
        assert!(way.is_ok() && tally.is_empty());
        assert_eq!(reserve("b", None, "ann", bounds(3, Some(1))).err(), Some(NoRoom::ShareFull));
        tally.change(&name("a"), None, Some(&record("ann")));
        drop(way);
        assert!(!tally.is_empty());
        // Another user takes it over, and the first one has room again.
        let former = record("ann");
        drop(reserve("a", Some(&former), "bob", bounds(1, Some(1))).ok());
        tally.change(&name("a"), Some(&former), Some(&record("bob")));
        assert!(reserve("b", None, "ann", bounds(3, Some(1))).is_ok());
        assert_eq!(reserve("b", None, "bob", bounds(3, Some(1))).err(), Some(NoRoom::ShareFull));
        // Without a share, only all of them count.
        assert!(reserve("b", None, "bob", bounds(2, None)).is_ok());
        assert_eq!(reserve("b", None, "bob", bounds(1, None)).err(), Some(NoRoom::Full));
        // A limit that was lowered stops no change that adds nothing.
        let former = record("bob");
        assert!(reserve("a", Some(&former), "bob", bounds(0, Some(0))).is_ok());
        tally.change(&name("a"), Some(&former), None);
        assert!(tally.is_empty() && tally.lock().by_user.is_empty());
        assert_eq!(tally.lock().all, RecordAmount::default());
    }
}
