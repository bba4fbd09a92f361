//! The records in the broker's own store, all of them in memory too.
//!
//! A change is first *pending*: later changes of the same key are compared with it, but it is not
//! read. The store's writer commits the changes in the order in which they came, and only then are
//! they read and followed. Without a store, a change is committed at once.

mod tally;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

pub(crate) use self::tally::{
    FindSetBy, NoRoom, RecordAmount, RecordBounds, RecordTally, ReservedRoom,
};
use crate::{
    clock::Clock,
    durable::Keeper,
    journal::Change,
    mqtt::Timestamp,
    records::{
        Expected, Put, Record, RecordChange, RecordKey, Records, RecordsError, Revision,
        VALUE_BYTES_MAX, Watch, Watched,
    },
    store::StoreError,
};

/// Maximum number of pending records for which nobody waits: as many are added as the store commits.
const BEHIND_MAX: usize = 4_096;
/// Expired records that one call of [`StoredRecords::remove_expired`] removes.
const EXPIRED_AT_A_TIME: usize = 64;

/// The records of this node.
pub(crate) struct StoredRecords {
    /// `None` if nothing survives the broker.
    keeper: Option<Arc<Keeper>>,
    clock: Clock,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The number of pending changes for which nobody waits.
    behind: usize,
    /// The revision of the last change, pending or committed.
    revision: Revision,
    entries: BTreeMap<RecordKey, KnownRecord>,
    /// The committed records that expire, by that time.
    expiring: BTreeSet<(Timestamp, RecordKey)>,
    watched: BTreeMap<Box<str>, Watched>,
    /// The number of committed records of a namespace, where it is asked for.
    counted: BTreeMap<Box<str>, Arc<AtomicUsize>>,
    /// The amounts of a namespace, where they are asked for.
    tallies: BTreeMap<Box<str>, Arc<RecordTally>>,
}

/// The state of one key; there is no entry without either part.
#[derive(Default)]
struct KnownRecord {
    committed: Option<Record>,
    /// The last pending change: its revision, and the record unless it is a removal.
    pending: Option<Box<(Revision, Option<Record>)>>,
}

impl KnownRecord {
    /// Ends the pending change if it is this one, and not a later one.
    fn end_pending(&mut self, revision: Revision) {
        self.pending.take_if(|pending| pending.0 == revision);
    }

    /// Returns the record as the last change left it, pending or not.
    fn newest(&self) -> Option<&Record> {
        match self.pending.as_deref() {
            Some((_, record)) => record.as_ref(),
            None => self.committed.as_ref(),
        }
    }
}

impl StoredRecords {
    /// Creates the access to the records of a broker; [`Self::restore`] must follow if there is a
    /// store.
    pub(crate) fn new(keeper: Option<Arc<Keeper>>, clock: Clock, revision: Revision) -> Self {
        let state = State { revision, ..State::default() };
        Self { keeper, clock, state: Arc::new(Mutex::new(state)) }
    }

    /// Reads the records from the store.
    ///
    /// # Errors
    /// If the store cannot be read, or is damaged.
    pub(crate) fn restore(&self) -> Result<(), StoreError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let mut state = lock(&self.state);
        keeper.store().records(&mut |name, record| {
            let revision = record.revision;
            state.commit(name, revision, Some(record));
        })
    }

    /// Returns a record, as it was last committed.
    pub(crate) fn committed(&self, name: &RecordKey) -> Option<Record> {
        let now = self.clock.now();
        let state = lock(&self.state);
        let record = state.entries.get(name)?.committed.as_ref()?;
        (!record.has_expired(now)).then(|| record.clone())
    }

    /// Returns a record as the last change leaves it, which may be pending. A change of part of a record
    /// begins with this one: the store commits them in order.
    #[cfg(feature = "accounts")]
    pub(crate) fn newest(&self, name: &RecordKey) -> Option<Record> {
        let now = self.clock.now();
        let state = lock(&self.state);
        let record = state.entries.get(name)?.newest()?;
        (!record.has_expired(now)).then(|| record.clone())
    }

    /// Returns the committed records of a namespace in the order of their keys, from the first key after
    /// `after` on, at most `limit`.
    pub(crate) fn page(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<(RecordKey, Record)> {
        let now = self.clock.now();
        let name = |key| RecordKey::new(namespace, key);
        let from = match after {
            None => name("").map(Bound::Included),
            Some(key) => name(key).map(Bound::Excluded),
        };
        let Some(from) = from else { return Vec::new() };
        let state = lock(&self.state);
        let entries = state.entries.range((from, Bound::Unbounded));
        let committed = entries
            // The map has all namespaces in one order.
            .take_while(|(name, _)| name.namespace() == namespace)
            .filter_map(|(name, entry)| Some((name, entry.committed.as_ref()?)))
            .filter(|(_, record)| !record.has_expired(now));
        committed.take(limit).map(|(name, record)| (name.clone(), record.clone())).collect()
    }

    /// Returns the number of committed records of a namespace, which changes with them. Called before
    /// there are any.
    #[cfg(feature = "accounts")]
    pub(crate) fn count(&self, namespace: &str) -> Arc<AtomicUsize> {
        lock(&self.state).counted.entry(namespace.into()).or_default().clone()
    }

    /// Returns the amounts of the records of a namespace, which change with them. Called before there
    /// are any.
    pub(crate) fn tally(&self, namespace: &str, find_set_by: FindSetBy) -> Arc<RecordTally> {
        let mut state = lock(&self.state);
        let tally = state.tallies.entry(namespace.into());
        tally.or_insert_with(|| Arc::new(RecordTally::new(find_set_by))).clone()
    }

    /// Adds or replaces a record, and does not wait for it; `None` if the store does not take it. It is
    /// lost if the store cannot be written, and refused while [`BEHIND_MAX`] such records are pending.
    pub(crate) fn put_behind(&self, put: Put) -> Option<Committing> {
        let Put { name, value, expected, expires_at } = put;
        let content = Some((value, expires_at));
        let mut state = lock(&self.state);
        if state.behind >= BEHIND_MAX {
            return None;
        }
        self.change(&mut state, name, content, expected, true).ok()
    }

    /// Removes a record, and does not wait for it. It stays if the store cannot be written.
    pub(crate) fn remove_behind(&self, name: RecordKey) {
        let _ = self.change(&mut lock(&self.state), name, None, Expected::Any, false);
    }

    /// Removes records that have expired, a bounded number in one call.
    pub(crate) fn remove_expired(&self, now: Timestamp) {
        let mut state = lock(&self.state);
        // The lock is held meanwhile, so the number is bounded.
        for _ in 0..EXPIRED_AT_A_TIME {
            let Some((at, name)) = state.expiring.first().cloned().filter(|(at, _)| *at <= now)
            else {
                break;
            };
            // A change under way decides about the record; it may give it a later time.
            let is_pending = state.entries.get(&name).is_some_and(|entry| entry.pending.is_some());
            if !is_pending
                && self.change(&mut state, name.clone(), None, Expected::Any, false).is_err()
            {
                break; // until the store can be written again
            }
            // If the change is given up, the record is put back here.
            state.expiring.remove(&(at, name));
        }
    }

    /// Hands a change to the store if the record is the expected one. `is_behind`: it counts as one for
    /// which nobody waits.
    fn change(
        &self,
        state: &mut State,
        name: RecordKey,
        content: Option<(Bytes, Option<Timestamp>)>,
        expected: Expected,
        is_behind: bool,
    ) -> Result<Committing, RecordsError> {
        let now = self.clock.now();
        // Compared with pending changes too, so of two calls at the same time the second one sees the first.
        state.check(&name, expected, now)?;
        if self.keeper.as_ref().is_some_and(|keeper| !keeper.takes_more()) {
            return Err(RecordsError::Unavailable);
        }
        let revision = Revision(state.revision.0 + 1);
        // A revision is used once, even if its change fails, so that two changes never share one.
        state.revision = revision;
        let record = content.map(|(value, expires_at)| Record { revision, value, expires_at });
        let Some(keeper) = &self.keeper else {
            state.commit(name, revision, record);
            return Ok(Committing::Done(revision));
        };
        // Not readable yet: a reader must not see a record that a crash would take back.
        state.entries.entry(name.clone()).or_default().pending =
            Some(Box::new((revision, record.clone())));
        let boxed = Box::new(name.clone());
        let change = match &record {
            Some(record) => Change::PutRecord(boxed, Box::new(record.clone())),
            None => Change::RemoveRecord(boxed, revision),
        };
        let (tell, told) = oneshot::channel();
        let shared = Arc::clone(&self.state);
        let of_writer = (name.clone(), record.clone());
        let finish = Box::new(move |is_stored| {
            let (name, record) = of_writer;
            let mut state = lock(&shared);
            state.behind -= usize::from(is_behind);
            state.finish(name, revision, record, is_stored);
            drop(state);
            let _ = tell.send(is_stored); // The caller may have stopped waiting.
        });
        // Handed over while the state is locked, so that changes are written in the order of their
        // revisions.
        match keeper.commit(change, now, finish) {
            None => {
                state.behind += usize::from(is_behind);
                Ok(Committing::UnderWay(revision, told))
            }
            Some(is_stored) => {
                state.finish(name, revision, record, is_stored);
                is_stored.then_some(Committing::Done(revision)).ok_or(RecordsError::Unavailable)
            }
        }
    }
}

/// A change that was handed to the store.
pub(crate) enum Committing {
    Done(Revision),
    UnderWay(Revision, oneshot::Receiver<bool>),
}

impl Committing {
    /// Waits until the change is committed.
    pub(crate) async fn wait(self) -> Result<Revision, RecordsError> {
        match self {
            Self::Done(revision) => Ok(revision),
            Self::UnderWay(revision, told) => match told.await {
                Ok(true) => Ok(revision),
                Ok(false) | Err(_) => Err(RecordsError::Unavailable),
            },
        }
    }
}

#[async_trait]
impl Records for StoredRecords {
    async fn get(&self, name: &RecordKey) -> Result<Option<Record>, RecordsError> {
        Ok(self.committed(name))
    }

    async fn put(&self, put: Put) -> Result<Revision, RecordsError> {
        let Put { name, value, expected, expires_at } = put;
        if value.len() > VALUE_BYTES_MAX {
            return Err(RecordsError::TooLong);
        }
        let content = Some((value, expires_at));
        let committing = self.change(&mut lock(&self.state), name, content, expected, false)?;
        committing.wait().await
    }

    async fn remove(&self, name: RecordKey, expected: Expected) -> Result<(), RecordsError> {
        let committing = {
            let mut state = lock(&self.state);
            // Nothing is written for a record that is not there.
            let is_known = state.entries.contains_key(&name);
            if !is_known && expected == Expected::Any {
                return Ok(());
            }
            self.change(&mut state, name, None, expected, false)?
        };
        committing.wait().await.map(drop)
    }

    async fn list(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Record)>, RecordsError> {
        Ok(self.page(namespace, after, limit))
    }

    fn watch(&self, namespace: &str) -> Watch {
        lock(&self.state).watched.entry(namespace.into()).or_default().watch()
    }
}

impl State {
    /// Fails if the record is not the expected one.
    fn check(
        &self,
        name: &RecordKey,
        expected: Expected,
        now: Timestamp,
    ) -> Result<(), RecordsError> {
        // The newest state counts, even if it is not committed yet.
        let newest = self.entries.get(name).and_then(KnownRecord::newest);
        let found = newest.filter(|record| !record.has_expired(now)).map(|record| record.revision);
        let is_expected = match expected {
            Expected::Any => true,
            Expected::Absent => found.is_none(),
            Expected::At(revision) => found == Some(revision),
        };
        if is_expected { Ok(()) } else { Err(RecordsError::Conflict(found)) }
    }

    /// Ends a pending change: it is stored, or was given up.
    fn finish(
        &mut self,
        name: RecordKey,
        revision: Revision,
        record: Option<Record>,
        is_stored: bool,
    ) {
        if is_stored {
            // Only now is the change visible.
            return self.commit(name, revision, record);
        }
        let Some(entry) = self.entries.get_mut(&name) else { return };
        entry.end_pending(revision);
        match &entry.committed {
            None if entry.pending.is_none() => drop(self.entries.remove(&name)),
            Some(Record { expires_at: Some(at), .. }) => drop(self.expiring.insert((*at, name))),
            _ => {}
        }
    }

    /// Makes a change readable, and tells its followers.
    fn commit(&mut self, name: RecordKey, revision: Revision, record: Option<Record>) {
        let entry = self.entries.entry(name.clone()).or_default();
        entry.end_pending(revision);
        // The former record is needed below, to take back its part of each count.
        let former = std::mem::replace(&mut entry.committed, record.clone());
        let is_empty = entry.committed.is_none() && entry.pending.is_none();
        // Readers of the count do not take the lock.
        if let Some(count) = self.counted.get(name.namespace()) {
            match (&former, &record) {
                (None, Some(_)) => drop(count.fetch_add(1, Ordering::AcqRel)),
                (Some(_), None) => drop(count.fetch_sub(1, Ordering::AcqRel)),
                (None, None) | (Some(_), Some(_)) => {}
            }
        }
        if let Some(tally) = self.tallies.get(name.namespace()) {
            tally.change(&name, former.as_ref(), record.as_ref());
        }
        if let Some(at) = former.and_then(|former| former.expires_at) {
            self.expiring.remove(&(at, name.clone()));
        }
        if let Some(at) = record.as_ref().and_then(|record| record.expires_at) {
            self.expiring.insert((at, name.clone()));
        }
        if is_empty {
            self.entries.remove(&name);
        }
        // Last, so that a follower which reads the table finds this change.
        if let Some(watched) = self.watched.get(name.namespace()) {
            watched.tell(match record {
                Some(record) => RecordChange::Put(name, record),
                None => RecordChange::Removed(name, revision),
            });
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
