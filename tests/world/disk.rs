//! The store of the world, which outlives its brokers: one can be torn away from it, it can lose what
//! was written last, and it can fail for a while.
//!
//! It also is the wall clock: while the world has another time than everybody else, a broker goes on
//! from the time that its store has seen.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hearthmq::{
    journal::{Change, LoginKey, QueuePlace, QueuedMessage, SessionNumber},
    mqtt::Timestamp,
    store::{
        Bounds, Durability, PageBounds, Store, StoreError, StoredInFlight, StoredRetained,
        StoredSession,
    },
};
use tokio::time::Instant;

use crate::torn_store::TornStore;

/// The world's time is so far ahead of the wall clock, which must never be later.
const AHEAD: Duration = Duration::from_secs(24 * 3600);

/// What brokers write to, one after the other.
pub(crate) struct Disk {
    store: Arc<TornStore>,
    fails: Arc<AtomicBool>,
    /// A time, and when it was that.
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

    /// The way of the next broker to the disk, which finds that time has passed.
    pub(crate) fn plug(&self) -> Plug {
        let (began, at) = self.began;
        let now = began.plus_millis(at.elapsed().as_millis() as u64);
        // A store in memory has nothing that could go wrong.
        let _ = self.store.apply(&[Change::Clock(now)], Durability::Synced);
        let (store, fails) = (self.store.clone(), self.fails.clone());
        Plug { store, fails, pulled: Arc::default() }
    }

    /// Groups that were written since the last broker began.
    pub(crate) fn groups(&self) -> usize {
        self.store.unsynced()
    }

    /// Loses all groups but so many of the last broker's.
    pub(crate) fn tear(&self, groups: usize) {
        self.store.crash(groups);
    }

    /// From now on it fails, or no longer.
    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    /// Whether it fails.
    pub(crate) fn is_failing(&self) -> bool {
        self.fails.load(Ordering::Relaxed)
    }

    /// What is still there: sessions and retained messages.
    pub(crate) fn left(&self) -> Result<(usize, usize), StoreError> {
        let (mut sessions, mut retained) = (0, 0);
        // The broker's own session has what is on its way between shards: nothing is.
        let is_left = |session: &StoredSession| {
            !session.record.client_id.is_empty() || session.waiting.messages > 0
        };
        self.store.sessions(&mut |session| sessions += usize::from(is_left(&session)))?;
        self.store.retained(&mut |_| retained += 1)?;
        Ok((sessions, retained))
    }
}

/// One broker's way to the disk.
#[derive(Clone)]
pub(crate) struct Plug {
    store: Arc<TornStore>,
    fails: Arc<AtomicBool>,
    pulled: Arc<Mutex<bool>>,
}

impl Plug {
    /// The broker is cut off from its disk; it is about to be no more.
    pub(crate) fn pull(&self) {
        *self.pulled.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

impl Store for Plug {
    fn apply(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        if *self.pulled.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(()); // Nobody is left who could hear it.
        }
        if self.fails.load(Ordering::Relaxed) {
            let source = std::io::ErrorKind::Other.into();
            return Err(StoreError::Io { doing: "write", path: "disk".to_owned(), source });
        }
        self.store.apply(changes, durability)
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn is_immediate(&self) -> bool {
        true
    }

    fn bounds(&self) -> Result<Bounds, StoreError> {
        self.store.bounds()
    }

    fn sessions(&self, each: &mut dyn FnMut(StoredSession)) -> Result<(), StoreError> {
        self.store.sessions(each)
    }

    fn retained(&self, each: &mut dyn FnMut(StoredRetained)) -> Result<(), StoreError> {
        self.store.retained(each)
    }

    fn logins(&self, each: &mut dyn FnMut(LoginKey, Timestamp)) -> Result<(), StoreError> {
        self.store.logins(each)
    }

    fn in_flight(&self, session: SessionNumber) -> Result<Vec<StoredInFlight>, StoreError> {
        self.store.in_flight(session)
    }

    fn waiting(
        &self,
        session: SessionNumber,
        from: QueuePlace,
        page: PageBounds,
    ) -> Result<Vec<(QueuePlace, QueuedMessage)>, StoreError> {
        self.store.waiting(session, from, page)
    }
}
