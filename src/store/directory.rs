//! The store in the data directory: a lock file, a database in `store/`, and one writer at a time.
//!
//! Combines the parts: `group.rs` and `sessionless.rs` compute the effect of a group, `database.rs` writes it,
//! `read.rs` assembles the stored state, `format.rs` migrates older formats.

mod bytes;
mod database;
mod examine;
mod failure;
mod format;
mod group;
mod history;
mod keys;
mod new;
mod owners;
mod private;
mod read;
mod records;
mod rings;
mod room;
mod sessionless;
mod shared_records;
mod snapshot;
mod tally;
mod view;

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::ErrorKind,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use database::Database;
pub use examine::{Examination, Kind};
use group::{Group, KnownSessions};
pub use new::NewStore;
use room::DiskSpace;
pub use snapshot::StoreSnapshot;
use view::View;

use super::{
    Bounds, Durability, PageBounds, Store, StoreError, StoredInFlight, StoredRetained,
    StoredSession,
};
use crate::{
    history::ClientHistory,
    journal::{Change, LoginKey, QueuePlace, QueuedMessage, Record, RecordKey, SessionNumber},
    mqtt::Timestamp,
};

const LOCK: &str = "lock";
const DATABASE: &str = "store";

/// New data is refused while less than this multiple of the required space is free, so that changes
/// already under way still fit.
const MUCH_MORE: u64 = 2;

/// Settings of a [`DirectoryStore`].
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Size of the read cache in bytes.
    pub cache_bytes: u64,
    /// Minimum free bytes of the file system. With less, the store accepts only changes that do not
    /// add data, down to a quarter of this.
    pub free_bytes_min: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, free_bytes_min: 64 << 20 }
    }
}

/// A store in a directory, which it locks.
pub struct DirectoryStore {
    directory: PathBuf,
    /// The database, in this directory.
    path: PathBuf,
    options: StoreOptions,
    /// `None` while the database is being reopened.
    database: RwLock<Option<Arc<Database>>>,
    applying: Mutex<Applying>,
    /// Checked before new data is accepted. Separate, so that the check does not wait for the
    /// writer.
    room_for_more: Mutex<DiskSpace>,
    /// Not read; the directory is unlocked when it is dropped. Last field, because the database
    /// must be closed first.
    _lock: DirectoryLock,
}

/// The writer's state between groups.
struct Applying {
    bounds: Option<Bounds>,
    known: KnownSessions,
    room: DiskSpace,
    /// Whether applied changes are not yet durable.
    is_behind: bool,
    /// Whether a write has failed: the database must be reopened before it accepts more.
    has_failed: bool,
}

impl DirectoryStore {
    /// Opens the store in `directory`, which is created if it does not exist.
    ///
    /// # Errors
    /// If the directory cannot be created or written, is damaged, has a newer format, is in use by
    /// another broker, or has a [`NewStore`] that was not finished.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(directory, StoreOptions::default())
    }

    /// Returns whether there is a store in `directory`.
    #[must_use]
    pub fn exists(directory: impl AsRef<Path>) -> bool {
        directory.as_ref().join(DATABASE).exists()
    }

    /// Opens the store with these settings, as [`DirectoryStore::open`] does.
    ///
    /// # Errors
    /// As [`DirectoryStore::open`].
    pub fn open_with(
        directory: impl AsRef<Path>,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let directory = directory.as_ref();
        private::make(directory).map_err(|error| StoreError::io("make", directory, error))?;
        // The lock comes before everything that reads or writes the directory.
        let lock = lock(directory)?;
        private::narrow(directory);
        let path = directory.join(DATABASE);
        // A store that an import has not finished must not be taken for a whole one.
        new::refuse_unfinished(directory, &path)?;
        let database = Database::open(&path, &options, format::FORMAT)?;
        // Before the first read, which expects the present format.
        format::migrate(directory, &database)?;
        Ok(Self::of(database, directory, path, options, lock))
    }

    fn of(
        database: Database,
        directory: &Path,
        path: PathBuf,
        options: StoreOptions,
        lock: DirectoryLock,
    ) -> Self {
        let applying = Applying {
            // The first write finds out the state, because opening must not read all sessions.
            bounds: None,
            known: KnownSessions::default(),
            room: DiskSpace::new(directory, options.free_bytes_min),
            is_behind: true,
            has_failed: false,
        };
        let much = options.free_bytes_min.saturating_mul(MUCH_MORE);
        let room_for_more = DiskSpace::new(directory, much);
        Self {
            directory: directory.to_owned(),
            path,
            options,
            database: RwLock::new(Some(Arc::new(database))),
            applying: Mutex::new(applying),
            room_for_more: Mutex::new(room_for_more),
            _lock: lock,
        }
    }

    /// Opens the store in `directory`, but does not create one.
    ///
    /// # Errors
    /// As [`DirectoryStore::open`], and if there is no store.
    pub fn open_existing(directory: impl AsRef<Path>) -> Result<Self, StoreError> {
        let directory = directory.as_ref();
        let path = directory.join(DATABASE);
        match fs::metadata(&path) {
            Ok(_) => Self::open(directory),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                new::refuse_unfinished(directory, &path)?;
                Err(StoreError::Missing { path: directory.display().to_string() })
            }
            Err(error) => Err(StoreError::io("read", directory, error)),
        }
    }

    /// Reads the whole store: counts its records and finds inconsistencies.
    ///
    /// # Errors
    /// If the store is not open.
    pub fn examine(&self) -> Result<Examination, StoreError> {
        self.with(|database| Ok(examine::examine(database)))
    }

    /// Takes a snapshot of the current state, which can be read during writes.
    ///
    /// # Errors
    /// If the store is not open.
    pub fn snapshot(&self) -> Result<StoreSnapshot, StoreError> {
        Ok(StoreSnapshot::new(self.open_database()?))
    }

    /// Rewrites the store's files without removed and replaced data. This takes long and
    /// temporarily needs as much space again.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.with(Database::compact)
    }

    /// Returns the disk space that the store uses, in bytes.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        disk_bytes(&self.path)
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        match &*database {
            Some(database) => work(database),
            None => Err(self.is_reopening()),
        }
    }

    fn open_database(&self) -> Result<Arc<Database>, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.clone().ok_or_else(|| self.is_reopening())
    }

    fn is_reopening(&self) -> StoreError {
        StoreError::Reopening { path: self.directory.display().to_string() }
    }

    fn applying(&self) -> MutexGuard<'_, Applying> {
        self.applying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, database: Option<Arc<Database>>) -> Option<Arc<Database>> {
        let mut place = self.database.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *place, database)
    }
}

impl Store for DirectoryStore {
    fn apply(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        let mut applying = self.applying();
        self.with(|database| applying.apply(database, changes, durability))
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut applying = self.applying();
        self.with(|database| applying.sync(database))
    }

    fn recover(&self) -> Result<(), StoreError> {
        let mut applying = self.applying();
        // Only a failed write leaves the database in a state that must be opened again.
        if applying.has_failed {
            // Drop the database outside of the lock, so that readers fail immediately instead of
            // waiting.
            let former = self.replace(None);
            if former.is_some_and(|former| Arc::into_inner(former).is_none()) {
                tracing::debug!("the failed store still has readers");
            }
            let path = &self.path;
            // A missing directory must be an error here, because opening would create an empty store.
            fs::metadata(path).map_err(|error| StoreError::io("read", path, error))?;
            self.replace(Some(Arc::new(Database::open(path, &self.options, format::FORMAT)?)));
            applying.has_failed = false;
        }
        // A full disk is the other reason for failure; it is over when there is room again.
        applying.room.check()
    }

    fn has_room(&self) -> bool {
        self.room_for_more.lock().unwrap_or_else(PoisonError::into_inner).is_there()
    }

    fn disk_bytes_in_all(&self) -> Option<u64> {
        room::disk_bytes(&self.directory)
    }

    fn bounds(&self) -> Result<Bounds, StoreError> {
        self.with(|database| read::bounds(&View::new(database)))
    }

    fn sessions(&self, each: &mut dyn FnMut(StoredSession)) -> Result<(), StoreError> {
        self.with(|database| read::sessions(&View::new(database), each))
    }

    fn retained(&self, each: &mut dyn FnMut(StoredRetained)) -> Result<(), StoreError> {
        self.with(|database| read::retained(&View::new(database), each))
    }

    fn logins(&self, each: &mut dyn FnMut(LoginKey, Timestamp)) -> Result<(), StoreError> {
        self.with(|database| read::logins(&View::new(database), each))
    }

    fn records(&self, each: &mut dyn FnMut(RecordKey, Record)) -> Result<(), StoreError> {
        self.with(|database| read::records(&View::new(database), each))
    }

    fn history(&self, client_id: &str) -> Result<Option<ClientHistory>, StoreError> {
        self.with(|database| read::history(&View::new(database), client_id))
    }

    fn histories(&self, each: &mut dyn FnMut(ClientHistory)) -> Result<(), StoreError> {
        self.with(|database| read::histories(&View::new(database), each))
    }

    fn in_flight(&self, session: SessionNumber) -> Result<Vec<StoredInFlight>, StoreError> {
        self.with(|database| read::in_flight(&View::new(database), session))
    }

    fn waiting(
        &self,
        session: SessionNumber,
        from: QueuePlace,
        page: PageBounds,
    ) -> Result<Vec<(QueuePlace, QueuedMessage)>, StoreError> {
        self.with(|database| read::waiting(&View::new(database), session, from, page))
    }
}

impl Applying {
    fn apply(
        &mut self,
        database: &Database,
        changes: &[Change],
        durability: Durability,
    ) -> Result<(), StoreError> {
        // Unknown after a start and after a failure.
        let bounds = match self.bounds {
            Some(bounds) => bounds,
            None => read::bounds(&View::new(database))?,
        };
        let mut group = Group::new(database, &self.known, bounds);
        // In the order in which the shards handed them over.
        for change in changes {
            group.add(change)?;
        }
        // The effect of the whole group is known before anything is written.
        let outcome = group.finish()?;
        if !outcome.writes.is_empty() {
            let sizes = outcome
                .writes
                .iter()
                .map(|((_, key), value)| key.len() + value.as_ref().map_or(0, Vec::len));
            // Room is checked for what is really written, which is less than all changes.
            self.room.admit(changes, sizes.sum::<usize>() as u64)?;
            database.commit(outcome.writes, durability).inspect_err(|_| self.fail())?;
            self.is_behind = durability == Durability::Written;
        } else if durability == Durability::Synced {
            // An empty group with `Synced` still syncs what earlier groups have only written.
            self.sync(database)?;
        }
        // Remember the new state only now: a failed commit has changed nothing.
        self.bounds = Some(outcome.bounds);
        for (number, reaches) in outcome.sessions {
            match reaches {
                Some(place) => drop(self.known.insert(number, place)),
                None => drop(self.known.remove(&number)),
            }
        }
        Ok(())
    }

    fn sync(&mut self, database: &Database) -> Result<(), StoreError> {
        if self.is_behind {
            database.sync().inspect_err(|_| self.fail())?;
            self.is_behind = false;
        }
        Ok(())
    }

    /// Discards the state that is based on a failed database.
    fn fail(&mut self) {
        self.bounds = None;
        self.known.clear();
        self.is_behind = true;
        self.has_failed = true;
    }
}

impl fmt::Debug for DirectoryStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DirectoryStore").field("directory", &self.directory).finish()
    }
}

/// Keeps other brokers out of a directory.
struct DirectoryLock(File);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing the file does not suffice: a child process may hold it for a moment while it
        // starts.
        drop(self.0.unlock());
    }
}

fn lock(directory: &Path) -> Result<DirectoryLock, StoreError> {
    let path = directory.join(LOCK);
    let lock = private::open(&path).map_err(|error| StoreError::io("write", &path, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(DirectoryLock(lock)),
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::InUse { path: directory.display().to_string() })
        }
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path, error)),
    }
}

/// Returns the disk space of the files below `directory`, without holes in them.
fn disk_bytes(directory: &Path) -> Result<u64, StoreError> {
    let io = |error| StoreError::io("read", directory, error);
    let mut bytes = 0;
    for entry in fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let metadata = entry.metadata().map_err(io)?;
        bytes += match metadata.is_dir() {
            true => disk_bytes(&entry.path())?,
            false => metadata.blocks() * 512,
        };
    }
    Ok(bytes)
}
