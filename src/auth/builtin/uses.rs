//! When credentials of accounts in the store were last used.
//!
//! A login notes it in memory. From time to time the broker takes what has changed, and stores it. The
//! uses are divided into buckets by the number of the credential, so that a change writes some KiB and not
//! all of them, and a million uses take a few thousand records. Knows neither accounts nor the store.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;

/// Maximum number of credentials whose last use is remembered. Further ones have none.
const USES_MAX: usize = 4_000_000;
/// Maximum number in one bucket: its record has less than 64 KiB. Numbers are random, so buckets fill alike.
const USES_PER_BUCKET_MAX: usize = 5_000;
/// Bytes of a use in a record: a number and a time.
const USE_BYTES: usize = 12;
/// The number of buckets.
pub(crate) const USE_BUCKETS: usize = 4_096;

/// The last uses of credentials.
#[derive(Default)]
pub(super) struct CredentialUses(Mutex<UseBuckets>);

#[derive(Default)]
struct UseBuckets {
    /// Empty before the first use: many brokers have no accounts in the store.
    all: Vec<UseBucket>,
    len: usize,
    /// The bucket that is examined next.
    next: usize,
}

#[derive(Default)]
struct UseBucket {
    /// Seconds since the Unix epoch, by the number of the credential.
    uses: HashMap<u64, u32, RandomState>,
    has_changed: bool,
}

impl CredentialUses {
    /// Notes a use.
    pub(super) fn note(&self, credential: u64, secs: u32) {
        let mut buckets = self.lock();
        if buckets.put(credential, secs) {
            buckets.all[bucket_of(credential)].has_changed = true;
        }
    }

    /// Returns when a credential was last used.
    pub(super) fn last(&self, credential: u64) -> Option<u32> {
        self.lock().all.get(bucket_of(credential))?.uses.get(&credential).copied()
    }

    /// Forgets the uses of a credential that is gone.
    pub(super) fn forget(&self, credential: u64) {
        let mut buckets = self.lock();
        let Some(bucket) = buckets.all.get_mut(bucket_of(credential)) else { return };
        if bucket.uses.remove(&credential).is_some() {
            bucket.has_changed = true;
            buckets.len -= 1;
        }
    }

    /// Takes over the uses in a record. Uses that are known already are later, and stay.
    pub(super) fn restore(&self, record: &[u8]) {
        let mut buckets = self.lock();
        for (number, secs) in
            record.chunks_exact(USE_BYTES).filter_map(|one| one.split_at_checked(8))
        {
            let (Ok(number), Ok(secs)) = (number.try_into(), secs.try_into()) else { continue };
            let (number, secs) = (u64::from_le_bytes(number), u32::from_le_bytes(secs));
            let bucket = buckets.all.get(bucket_of(number));
            if !bucket.is_some_and(|bucket| bucket.uses.contains_key(&number)) {
                buckets.put(number, secs);
            }
        }
    }

    /// Examines the next buckets, and returns the records of those that have changed.
    pub(super) fn take_changed(&self, count: usize) -> Vec<(usize, Vec<u8>)> {
        let mut buckets = self.lock();
        let mut changed = Vec::new();
        // Buckets are made at the first use; until then there is nothing to store.
        if buckets.all.is_empty() {
            return changed;
        }
        for _ in 0..count {
            let at = buckets.next;
            buckets.next = (at + 1) % USE_BUCKETS;
            let bucket = &mut buckets.all[at];
            if std::mem::take(&mut bucket.has_changed) {
                changed.push((at, bucket.record()));
            }
        }
        changed
    }

    /// Marks a bucket as changed again, because it could not be stored.
    pub(super) fn keep_changed(&self, bucket: usize) {
        if let Some(bucket) = self.lock().all.get_mut(bucket) {
            bucket.has_changed = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, UseBuckets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UseBuckets {
    /// Notes a use; returns whether there was room for it.
    fn put(&mut self, credential: u64, secs: u32) -> bool {
        if self.all.is_empty() {
            self.all.resize_with(USE_BUCKETS, UseBucket::default);
        }
        let uses = &mut self.all[bucket_of(credential)].uses;
        let has_room = self.len < USES_MAX && uses.len() < USES_PER_BUCKET_MAX;
        if !has_room && !uses.contains_key(&credential) {
            return false;
        }
        self.len += usize::from(uses.insert(credential, secs).is_none());
        true
    }
}

impl UseBucket {
    fn record(&self) -> Vec<u8> {
        let mut record = Vec::with_capacity(self.uses.len() * USE_BYTES);
        for (number, secs) in &self.uses {
            record.extend(number.to_le_bytes());
            record.extend(secs.to_le_bytes());
        }
        record
    }
}

/// Returns the bucket of a credential. The numbers are random.
const fn bucket_of(credential: u64) -> usize {
    (credential % USE_BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_taken_once_and_is_the_same_after_its_record() {
        let uses = CredentialUses::default();
        for (credential, secs) in [(7, 1), (7 + USE_BUCKETS as u64, 2), (u64::MAX, 3), (7, 4)] {
            uses.note(credential, secs);
        }
        assert_eq!(uses.take_changed(7), []);
        let changed = uses.take_changed(USE_BUCKETS);
        assert_eq!(changed.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [7, USE_BUCKETS - 1]);
        assert_eq!(uses.take_changed(USE_BUCKETS), []);
        uses.keep_changed(7);
        assert_eq!(uses.take_changed(USE_BUCKETS).len(), 1);

        let restored = CredentialUses::default();
        restored.note(u64::MAX, 9);
        for (_, record) in &changed {
            restored.restore(record);
            restored.restore(&record[..record.len() - 1]); // A damaged one is read as far as it goes.
        }
        let known = [7, 7 + USE_BUCKETS as u64, u64::MAX, 8].map(|number| restored.last(number));
        assert_eq!(known, [Some(4), Some(2), Some(9), None]);
        restored.forget(7);
        assert_eq!(restored.last(7), None);
        let changed = restored.take_changed(USE_BUCKETS);
        assert_eq!(changed.iter().map(|(_, record)| record.len()).collect::<Vec<_>>(), [12, 12]);
    }

    #[test]
    fn a_bucket_is_bounded() {
        let uses = CredentialUses::default();
        for number in 0..=USES_PER_BUCKET_MAX as u64 {
            uses.note(number * USE_BUCKETS as u64, 1);
        }
        assert_eq!(uses.last(USES_PER_BUCKET_MAX as u64 * USE_BUCKETS as u64), None);
        uses.note(0, 2);
        assert_eq!(uses.last(0), Some(2));
        assert!(uses.take_changed(1)[0].1.len() < 64 * 1024);
    }
}
