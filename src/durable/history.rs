//! Brings the history of clients to the store, behind the answers to the clients, and reads it.
//!
//! Shards note connections that begin and end in a buffer of bounded length; the sweep of the first
//! shard hands portions of it to the store. A broker without a store has the histories in memory. How
//! the former runs of the broker ended is a record, so that neither a start nor a shutdown must write
//! an end for each connection. Knows no sessions.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    durable::{Keeper, StoredRecords},
    history::{
        ClientHistory, ConnectionEnd, ConnectionNotes, ConnectionRecord, HistoryShare, HistoryTidy,
    },
    journal::Change,
    mqtt::Timestamp,
    records::{Put, RecordKey},
    store::{Bounds, Durability, MemoryStore, Store, StoreError},
};

/// Notes that wait for the store; a further one is lost, and counted.
const WAITING_MAX: usize = 8_192;
/// Notes that are handed to the store at a time.
const PORTION: usize = 1_024;
/// Histories that leave the store at a time: more than a portion can add.
const TIDIED_AT_A_TIME: u32 = 2 * PORTION as u32;
/// The interval in which old histories leave while nothing is noted.
const TIDY_EVERY: Duration = Duration::from_secs(600);
/// Maximum number of connections in the histories of a broker whose store is in memory.
const IN_MEMORY_MAX: u64 = 100_000;

/// The record that says how former runs of the broker ended.
const NAMESPACE: &str = "history";
const RUNS: &str = "runs";
/// Maximum number of runs in it. If the oldest leaves, its connections ended with the next one.
const RUNS_MAX: usize = 64;

/// The limits on histories.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HistoryLimits {
    /// Connections of one client; 0 turns histories off.
    pub(crate) per_client_max: u16,
    pub(crate) age_max: Duration,
    /// Connections of all clients.
    pub(crate) records_max: u64,
    /// Connections of one owner; 0 = a quarter of all.
    pub(crate) records_per_owner_max: u64,
}

/// A connection that has begun or ended.
type Note = (Arc<str>, ConnectionRecord);

/// The histories of a broker.
pub(crate) struct History {
    /// `None` if nothing survives the broker.
    keeper: Option<Arc<Keeper>>,
    /// Has the histories if there is no keeper.
    in_memory: MemoryStore,
    clock: Clock,
    /// Connections with at most this version are of former runs.
    floor: u64,
    /// The last time that the former run has left in the store.
    former_clock: Timestamp,
    waiting: Mutex<Waiting>,
    lost: Arc<AtomicU64>,
    /// How former runs ended, in the order of their versions.
    runs: Mutex<Vec<FormerRun>>,
}

#[derive(Default)]
struct Waiting {
    notes: VecDeque<Note>,
    /// Those on their way to the store.
    under_way: Option<Arc<ConnectionNotes>>,
    tidied_at: Timestamp,
}

/// How a run of the broker ended.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct FormerRun {
    /// No connection of the run has a higher version.
    version: u64,
    at: u64,
    reason: RunEnd,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum RunEnd {
    ServerShutdown,
    BrokerEnded,
}

impl RunEnd {
    const fn name(self) -> &'static str {
        match self {
            Self::ServerShutdown => "server_shutdown",
            Self::BrokerEnded => "broker_ended",
        }
    }
}

impl History {
    pub(crate) fn new(keeper: Option<Arc<Keeper>>, clock: Clock, former: &Bounds) -> Self {
        Self {
            keeper,
            in_memory: MemoryStore::default(),
            clock,
            floor: former.versions,
            former_clock: former.clock,
            waiting: Mutex::default(),
            lost: Arc::default(),
            runs: Mutex::default(),
        }
    }

    /// Finds out how former runs ended. Called after the records are read, and before there are
    /// connections.
    pub(crate) fn begin_run(&self, records: &StoredRecords) {
        let found = name_of_runs().and_then(|name| records.committed(&name));
        let found = found.and_then(|found| serde_json::from_slice(&found.value).ok());
        *lock(&self.runs) = found.unwrap_or_default();
        let (version, at) = (self.floor, self.former_clock);
        self.note_end_of_run(records, version, at, RunEnd::BrokerEnded);
    }

    /// Notes that the broker ends as it should, with connections up to this version. Hands over all
    /// that waits.
    pub(crate) fn end_run(&self, records: &StoredRecords, version: u64) {
        let now = self.clock.now();
        // The end of the run stands for the end of all its connections, so none is noted for each.
        self.note_end_of_run(records, version, now, RunEnd::ServerShutdown);
        let (Some(keeper), notes) = (&self.keeper, std::mem::take(&mut lock(&self.waiting).notes))
        else {
            return;
        };
        if !notes.is_empty() {
            // The next run removes the excess.
            let share = HistoryShare::UNLIMITED;
            let notes = ConnectionNotes { notes: notes.into(), kept: u16::MAX, share };
            keeper.note(Change::NoteConnections(Box::new(notes)), now);
        }
    }

    fn note_end_of_run(
        &self,
        records: &StoredRecords,
        version: u64,
        at: Timestamp,
        reason: RunEnd,
    ) {
        let mut runs = lock(&self.runs);
        if self.keeper.is_none() || runs.last().map_or(0, |last| last.version) >= version {
            return; // Nothing survives, or the end is known.
        }
        runs.push(FormerRun { version, at: at.millis(), reason });
        // The oldest runs go first: connections of theirs are the oldest in each history.
        let excess = runs.len().saturating_sub(RUNS_MAX);
        runs.drain(..excess);
        if let Some(name) = name_of_runs()
            && let Ok(value) = serde_json::to_vec(&*runs)
        {
            records.put_behind(Put::new(name, value));
        }
    }

    /// Notes that a connection has begun or ended. Costs a push to a buffer.
    pub(crate) fn note(&self, client_id: Arc<str>, connection: ConnectionRecord) {
        let mut waiting = lock(&self.waiting);
        if waiting.notes.len() < WAITING_MAX {
            waiting.notes.push_back((client_id, connection));
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of connections whose beginning or end could not be noted.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Hands a portion of the waiting notes to the store, unless the former portion is still on its way.
    pub(crate) fn write_some(self: &Arc<Self>, limits: HistoryLimits, now: Timestamp) {
        let is_in_trouble =
            |keeper: &Arc<Keeper>| keeper.health.trouble().is_some() || !keeper.takes_more();
        if self.keeper.as_ref().is_some_and(is_in_trouble) {
            return; // It waits until the store can be written again.
        }
        let mut waiting = lock(&self.waiting);
        // A tidy removes by age as well, so it is due at times even if nothing was noted.
        let is_tidy_due = now.since(waiting.tidied_at) >= TIDY_EVERY;
        // One portion at a time, so that a slow store gets larger portions and not more of them.
        if waiting.under_way.is_some() || (waiting.notes.is_empty() && !is_tidy_due) {
            return;
        }
        let count = waiting.notes.len().min(PORTION);
        let notes: Vec<Note> = waiting.notes.drain(..count).collect();
        waiting.tidied_at = now;
        let tidy = Change::TidyHistory(self.tidy(limits, now));
        let share = self.share(limits);
        let portion = ConnectionNotes { notes, kept: limits.per_client_max, share };
        // Without a store, the histories end with the process, and nothing has to be waited for.
        let Some(keeper) = &self.keeper else {
            let notes = Change::NoteConnections(Box::new(portion));
            let _ = self.in_memory.apply(&[notes, tidy], Durability::Written);
            return;
        };
        keeper.note(tidy, now);
        if portion.notes.is_empty() {
            return;
        }
        // Kept until the store has it: a query must find these notes in one of both places.
        waiting.under_way = Some(Arc::new(portion.clone()));
        drop(waiting); // An immediate store finishes here.
        let change = Change::NoteConnections(Box::new(portion));
        let this = Arc::clone(self);
        let finish = Box::new(move |is_stored| this.finish(is_stored));
        if let Some(is_stored) = keeper.commit(change, now, finish) {
            self.finish(is_stored);
        }
    }

    /// Ends the way of a portion to the store. One that is not stored waits again, before the others.
    fn finish(&self, is_stored: bool) {
        let mut waiting = lock(&self.waiting);
        let Some(portion) = waiting.under_way.take().filter(|_| !is_stored) else { return };
        let room = WAITING_MAX.saturating_sub(waiting.notes.len());
        let lost = portion.notes.len().saturating_sub(room);
        self.lost.fetch_add(lost as u64, Ordering::Relaxed);
        for note in portion.notes[lost..].iter().rev() {
            waiting.notes.push_front(note.clone());
        }
    }

    fn tidy(&self, limits: HistoryLimits, now: Timestamp) -> HistoryTidy {
        let HistoryLimits { per_client_max, age_max, .. } = limits;
        let (oldest, is_off) = (oldest_kept(age_max, now), per_client_max == 0);
        let runs = lock(&self.runs);
        let old_runs = runs.iter().filter(|run| run.at < oldest.millis());
        HistoryTidy {
            closed_before: oldest,
            open_up_to: old_runs.map(|run| run.version).max().unwrap_or(0),
            records_max: if is_off { 0 } else { self.records_max(limits) },
            over_limit_up_to: if is_off { u64::MAX } else { self.floor },
            limit: TIDIED_AT_A_TIME,
        }
    }

    /// Returns the share of an owner. The rings of its online clients stay.
    fn share(&self, limits: HistoryLimits) -> HistoryShare {
        let all = self.records_max(limits);
        let records_max = match limits.records_per_owner_max {
            0 => all.div_ceil(4),
            records_max => records_max,
        };
        HistoryShare { records_max, over_limit_up_to: self.floor, limit: TIDIED_AT_A_TIME }
    }

    fn records_max(&self, limits: HistoryLimits) -> u64 {
        let is_in_memory = self.keeper.as_ref().is_none_or(|k| k.store().is_immediate());
        let bound = if is_in_memory { IN_MEMORY_MAX } else { u64::MAX };
        limits.records_max.min(bound)
    }

    /// Returns the connections of a client in the order of their versions, with those still on their
    /// way to the store. Connections that ended with a former run have that end.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) fn find(
        &self,
        client_id: &str,
        limits: HistoryLimits,
        now: Timestamp,
    ) -> Result<Vec<ConnectionRecord>, StoreError> {
        // The lock ends before the store is read, so that shards which note connections do not wait for a disk.
        let newer: Vec<Note> = {
            let waiting = lock(&self.waiting);
            let under_way = waiting.under_way.iter().flat_map(|portion| &portion.notes);
            // Notes of all clients are searched; they are few, because the sweep hands them over.
            let of_client = |note: &&Note| *note.0 == *client_id;
            under_way.chain(&waiting.notes).filter(of_client).cloned().collect()
        };
        let store: &dyn Store = match &self.keeper {
            Some(keeper) => keeper.store(),
            None => &self.in_memory,
        };
        let ring = store.history(client_id)?;
        let mut ring = ring.unwrap_or_else(|| ClientHistory::new(client_id.into()));
        // In the order of their versions, so that the ring drops the oldest.
        for (_, connection) in &newer {
            ring.note(connection, limits.per_client_max);
        }
        let runs = lock(&self.runs);
        for connection in &mut ring.connections {
            // A connection of a former run that has no end was open when that run ended.
            if connection.end.is_none() && connection.version <= self.floor {
                connection.end = runs
                    .iter()
                    .find(|run| connection.version <= run.version)
                    .map(|run| run.end_of(connection.connected_at));
            }
        }
        let oldest = oldest_kept(limits.age_max, now);
        let is_kept = |it: &ConnectionRecord| it.end.as_ref().is_none_or(|end| end.at >= oldest);
        ring.connections.retain(is_kept);
        Ok(ring.connections)
    }
}

impl FormerRun {
    /// Returns the end of a connection that ended with the run.
    fn end_of(&self, connected_at: Timestamp) -> ConnectionEnd {
        let at = Timestamp(self.at).max(connected_at);
        ConnectionEnd { at, reason: self.reason.name().into(), by: None }
    }
}

fn name_of_runs() -> Option<RecordKey> {
    RecordKey::new(NAMESPACE, RUNS)
}

fn oldest_kept(age_max: Duration, now: Timestamp) -> Timestamp {
    let age = u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX);
    Timestamp(now.millis().saturating_sub(age))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(version: u64) -> ConnectionRecord {
        ConnectionRecord {
            version,
            connected_at: Timestamp(1),
            peer: ([127, 0, 0, 1], 1).into(),
            listener: "".into(),
            username: None,
            protocol: 5,
            end: None,
        }
    }

    #[test]
    fn notes_beyond_the_bound_are_lost_and_counted() {
        let clock = Clock::start_after(Timestamp(0));
        let history = Arc::new(History::new(None, clock, &Bounds::default()));
        let limits = HistoryLimits {
            per_client_max: 9,
            age_max: Duration::from_secs(60),
            records_max: u64::MAX,
            records_per_owner_max: 0,
        };
        for number in 0..WAITING_MAX as u64 + 3 {
            history.note(number.to_string().into(), connection(number + 1));
        }
        assert_eq!(history.lost(), 3);
        let is_found =
            |client_id| !history.find(client_id, limits, Timestamp(9)).unwrap().is_empty();
        for _ in 0..2 {
            assert!(is_found("0") && is_found("8191") && !is_found("8192"));
            // One portion after the other is handed over.
            for _ in 0..WAITING_MAX.div_ceil(PORTION) {
                history.write_some(limits, Timestamp(9));
            }
            assert!(lock(&history.waiting).notes.is_empty());
        }
        history.note("8192".into(), connection(1));
        assert!(is_found("8192"));
        // Connections in memory are limited, and those without an end stay.
        assert_eq!(history.tidy(limits, Timestamp(9)).records_max, IN_MEMORY_MAX);
    }
}
