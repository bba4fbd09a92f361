//! The store of the world, which outlives its brokers: it can be pulled away from a broker, lose
//! the last writes, and fail for a while.
//!
//! It is also the wall clock: while the world has a time of its own, a broker continues from the
//! time in its store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hearthmq::{
    mqtt::Timestamp,
    store::{
        Change, Durability, PageBounds, QueuePlace, SessionNumber, Store, StoreError, StoredSession,
    },
};
use hearthmq_test::{disk, torn_store::TornStore};
use tokio::time::Instant;

/// How far the world's time is ahead of the wall clock, which must never be later.
const AHEAD: Duration = Duration::from_secs(24 * 3600);

/// The connection of one broker to the disk.
pub(crate) type Plug = disk::Plug<TornStore>;

/// The store to which brokers write, one after the other.
pub(crate) struct Disk {
    store: Arc<TornStore>,
    fails: Arc<AtomicBool>,
    /// A time of the world, and the instant at which it was reached.
    began: (Timestamp, Instant),
}

impl Disk {
    pub(crate) fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + AHEAD;
        Self {
            store: Arc::new(TornStore::new(true)),
            fails: Arc::default(),
            began: (Timestamp(unix.as_millis() as u64), Instant::now()),
        }
    }

    /// Connects the next broker to the disk, which shows that time has passed.
    pub(crate) fn plug(&self) -> Plug {
        let now = self.now();
        // A store in memory cannot fail.
        let _ = self.store.apply(&[Change::Clock(now)], Durability::Synced);
        Plug::new(self.store.clone()).failing_with(self.fails.clone())
    }

    /// Returns the number of groups written since the last broker started.
    pub(crate) fn groups(&self) -> usize {
        self.store.unsynced()
    }

    /// Loses all groups of the last broker except the first `groups`.
    pub(crate) fn tear(&self, groups: usize) {
        self.store.crash(groups);
    }

    /// Makes it fail from now on, or no longer.
    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    /// Returns whether it fails.
    pub(crate) fn is_failing(&self) -> bool {
        self.fails.load(Ordering::Relaxed)
    }

    /// The sessions that are there.
    pub(crate) fn sessions(&self) -> Result<Vec<StoredSession>, StoreError> {
        let mut sessions = Vec::new();
        self.store.sessions(&mut |session| sessions.push(session))?;
        Ok(sessions)
    }

    /// When what waits for a session expires, and the time now.
    pub(crate) fn expiries(
        &self,
        session: SessionNumber,
    ) -> Result<(Vec<Timestamp>, Timestamp), StoreError> {
        let all = PageBounds { messages_max: usize::MAX, bytes_max: usize::MAX };
        let waiting = self.store.waiting(session, QueuePlace(0), all)?;
        let expiries = waiting.iter().filter_map(|(_, queued)| queued.message.expires_at());
        Ok((expiries.collect(), self.now()))
    }

    /// Returns the time of the world.
    pub(crate) fn now(&self) -> Timestamp {
        let (began, at) = self.began;
        began.plus_millis(at.elapsed().as_millis() as u64)
    }

    /// Returns the numbers of sessions and retained messages that are left.
    pub(crate) fn left(&self) -> Result<(usize, usize), StoreError> {
        let (mut sessions, mut retained) = (0, 0);
        // The broker's own session contains messages on their way between shards; there must be
        // none.
        let is_left = |session: &StoredSession| {
            !session.record.client_id.is_empty() || session.waiting.messages > 0
        };
        self.store.sessions(&mut |session| sessions += usize::from(is_left(&session)))?;
        self.store.retained(&mut |_| retained += 1)?;
        Ok((sessions, retained))
    }
}
