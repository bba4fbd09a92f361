//! The store in the data directory: a lock, a database in `store/`, and one thread at a time that
//! applies changes to it.
//!
//! Knows how the parts fit together: `group.rs` works out what a group comes to, `database.rs`
//! writes it, `read.rs` puts together what is there, `format.rs` takes former formats over.

mod bytes;
mod database;
mod examine;
mod format;
mod group;
mod keys;
mod private;
mod read;
mod records;
mod room;
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
use room::Room;
pub use snapshot::StoreSnapshot;
use view::View;

use super::{
    Bounds, Durability, PageBounds, Store, StoreError, StoredInFlight, StoredRetained,
    StoredSession,
};
use crate::{
    journal::{Change, LoginKey, QueuePlace, QueuedMessage, SessionNumber},
    mqtt::Timestamp,
};

const LOCK: &str = "lock";
const DATABASE: &str = "store";

/// Who asks first is told that there is no room when so many times as much is free as what is
/// applied needs: what is on its way meanwhile still finds its place.
const MUCH_MORE: u64 = 2;

/// What a [`DirectoryStore`] may take.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Memory for what was read, in bytes.
    pub cache_bytes: u64,
    /// While less than this is free in the file system, nothing more is taken in; what only takes
    /// away is, down to a quarter of it.
    pub free_bytes_min: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, free_bytes_min: 64 << 20 }
    }
}

/// A store in a directory, which it locks for itself.
pub struct DirectoryStore {
    directory: PathBuf,
    options: StoreOptions,
    /// `None` while it is being opened again.
    database: RwLock<Option<Arc<Database>>>,
    applying: Mutex<Applying>,
    /// Asked by those who would bring more, who do not wait for who applies.
    room_for_more: Mutex<Room>,
    /// Held, not read: the lock ends with it. Comes last, as the database has to be closed first.
    _lock: DirectoryLock,
}

/// What the thread that applies changes remembers from group to group.
struct Applying {
    bounds: Option<Bounds>,
    known: KnownSessions,
    room: Room,
    /// Whether something was written that is not durable yet.
    is_behind: bool,
    /// Whether writing has failed: the database takes nothing more until it is opened again.
    has_failed: bool,
}

impl DirectoryStore {
    /// Opens the store in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// If the directory cannot be made or written, is damaged or of a later version, or if another
    /// broker has it.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(directory, StoreOptions::default())
    }

    /// Whether there is a store in `directory`.
    #[must_use]
    pub fn exists(directory: impl AsRef<Path>) -> bool {
        directory.as_ref().join(DATABASE).exists()
    }

    /// The same with other bounds.
    ///
    /// # Errors
    /// As [`DirectoryStore::open`].
    pub fn open_with(
        directory: impl AsRef<Path>,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let directory = directory.as_ref();
        private::make(directory).map_err(|error| StoreError::io("make", directory, error))?;
        let lock = lock(directory)?;
        private::narrow(directory);
        let database = Database::open(&directory.join(DATABASE), &options, format::FORMAT)?;
        format::migrate(directory, &database)?;
        let applying = Applying {
            bounds: None,
            known: KnownSessions::default(),
            room: Room::new(directory, options.free_bytes_min),
            is_behind: true,
            has_failed: false,
        };
        let much = options.free_bytes_min.saturating_mul(MUCH_MORE);
        let room_for_more = Room::new(directory, much);
        Ok(Self {
            directory: directory.to_owned(),
            options,
            database: RwLock::new(Some(Arc::new(database))),
            applying: Mutex::new(applying),
            room_for_more: Mutex::new(room_for_more),
            _lock: lock,
        })
    }

    /// Opens the store in `directory` if there is one, and makes none.
    ///
    /// # Errors
    /// As [`DirectoryStore::open`], and if there is none.
    pub fn open_existing(directory: impl AsRef<Path>) -> Result<Self, StoreError> {
        let directory = directory.as_ref();
        match fs::metadata(directory.join(DATABASE)) {
            Ok(_) => Self::open(directory),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(StoreError::Missing { path: directory.display().to_string() })
            }
            Err(error) => Err(StoreError::io("read", directory, error)),
        }
    }

    /// Reads everything: counts what there is, and finds what does not fit together.
    ///
    /// # Errors
    /// If the store is not open.
    pub fn examine(&self) -> Result<Examination, StoreError> {
        self.with(|database| Ok(examine::examine(database)))
    }

    /// Takes hold of what there is at this moment, to be read while others write.
    ///
    /// # Errors
    /// If the store is not open.
    pub fn snapshot(&self) -> Result<StoreSnapshot, StoreError> {
        Ok(StoreSnapshot::new(self.open_database()?))
    }

    /// Writes the store's files anew, without what was removed or replaced. Takes long, and needs
    /// room for as much again.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.with(Database::compact)
    }

    /// What the store takes on the disk, in bytes.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        disk_bytes(&self.directory.join(DATABASE))
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
        if applying.has_failed {
            // Dropped outside of the lock, so that who reads is told and does not wait.
            let former = self.replace(None);
            if former.is_some_and(|former| Arc::into_inner(former).is_none()) {
                tracing::debug!("somebody still reads the store that has failed");
            }
            let path = self.directory.join(DATABASE);
            fs::metadata(&path).map_err(|error| StoreError::io("read", &path, error))?;
            self.replace(Some(Arc::new(Database::open(&path, &self.options, format::FORMAT)?)));
            applying.has_failed = false;
        }
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
        let bounds = match self.bounds {
            Some(bounds) => bounds,
            None => read::bounds(&View::new(database))?,
        };
        let mut group = Group::new(database, &self.known, bounds);
        for change in changes {
            group.add(change)?;
        }
        let outcome = group.finish()?;
        if !outcome.writes.is_empty() {
            let sizes = outcome
                .writes
                .iter()
                .map(|((_, key), value)| key.len() + value.as_ref().map_or(0, Vec::len));
            self.room.admit(changes, sizes.sum::<usize>() as u64)?;
            database.commit(outcome.writes, durability).inspect_err(|_| self.fail())?;
            self.is_behind = durability == Durability::Written;
        } else if durability == Durability::Synced {
            self.sync(database)?;
        }
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

    /// Takes nothing for known of a database that has failed.
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

/// Keeps other brokers off a directory.
struct DirectoryLock(File);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that is being started holds it for a moment too.
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

/// What the files below `directory` take, without the holes in them.
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
