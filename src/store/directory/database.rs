//! The database of a store: opens fjall and maps its errors.
//!
//! Only this file and `view.rs` name fjall. Knows keyspaces, not their content.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode, UserValue};
use hashbrown::HashMap;

use super::{
    StoreOptions,
    keys::{Space, meta},
    records,
};
use crate::store::{Durability, StoreError};

/// Memory for writes that are not sorted into files yet: of one keyspace, and of all.
const MEMTABLE_BYTES: u64 = 8 << 20;
const MEMTABLES_BYTES: u64 = 64 << 20;
/// Maximum size of the journal, which is read again when the store is opened after a crash.
const JOURNAL_BYTES: u64 = 64 << 20;
/// With one worker, nothing is flushed during a compaction, and memory grows without limit.
const WORKERS: usize = 2;
/// Maximum number of open files.
const FILES_MAX: usize = 128;

/// The writes of a group: for each keyspace and key the new value, or `None` to remove it.
pub(super) type Writes = HashMap<(Space, Vec<u8>), Option<Vec<u8>>, foldhash::fast::RandomState>;

pub(super) struct Database {
    database: fjall::Database,
    /// In the order of [`Space::ALL`].
    spaces: Vec<Keyspace>,
    path: PathBuf,
    /// The state before the group that is being written, if one is. Readers use it meanwhile: fjall
    /// 3.1.13 makes half of a group visible if a flush or a compaction ends at that time.
    before_group: Mutex<Option<fjall::Snapshot>>,
}

impl Database {
    /// Opens the database in `path`, which is created if it does not exist. A format newer than
    /// `format_known` is refused before anything is changed.
    pub(super) fn open(
        path: &Path,
        options: &StoreOptions,
        format_known: u64,
    ) -> Result<Self, StoreError> {
        // A wrong length in the journal makes fjall panic instead of returning an error.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::try_open(path, options, format_known)));
        opened.unwrap_or_else(|_| {
            let what = "a group in its journal is corrupt";
            Err(StoreError::Damaged { path: path.display().to_string(), what })
        })
    }

    fn try_open(
        path: &Path,
        options: &StoreOptions,
        format_known: u64,
    ) -> Result<Self, StoreError> {
        let fault = |error| fault("open", path, error);
        let builder = fjall::Database::builder(path)
            .cache_size(options.cache_bytes)
            .max_cached_files(Some(FILES_MAX))
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKERS)
            // The broker decides itself when to sync, by `store.sync`.
            .manual_journal_persist(true);
        #[expect(
            deprecated,
            reason = "the default is no bound, and there is no other way to set one"
        )]
        let builder = builder.max_write_buffer_size(Some(MEMTABLES_BYTES));
        let database = builder.open().map_err(fault)?;
        let settings = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        // Checked before any keyspace is created, so that a newer store stays untouched.
        if database.keyspace_exists(Space::Meta.name()) {
            let meta = database.keyspace(Space::Meta.name(), settings).map_err(fault)?;
            check_format(&meta, path, format_known)?;
        }
        let spaces = Space::ALL.iter().map(|space| database.keyspace(space.name(), settings));
        let spaces = spaces.collect::<Result<_, _>>().map_err(fault)?;
        Ok(Self { database, spaces, path: path.to_owned(), before_group: Mutex::new(None) })
    }

    pub(super) fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }

    /// Takes a snapshot, which has all of each group that was written before and nothing of others.
    pub(super) fn snapshot(&self) -> fjall::Snapshot {
        let before_group = self.before_group();
        before_group.clone().unwrap_or_else(|| self.database.snapshot())
    }

    fn before_group(&self) -> MutexGuard<'_, Option<fjall::Snapshot>> {
        self.before_group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read(&self, space: Space, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        self.space(space).get(key).map_err(|error| self.fault("read", error))
    }

    /// Reads a number; returns 0 if there is none.
    pub(super) fn read_number(&self, space: Space, key: &[u8]) -> Result<u64, StoreError> {
        let stored = self.read(space, key)?;
        let number = stored.map_or(Some(0), |stored| records::decode_number(&stored));
        number.ok_or_else(|| self.damaged("a counter cannot be read"))
    }

    /// Writes all of `writes` or nothing. Only one thread writes at a time.
    pub(super) fn commit(&self, writes: Writes, durability: Durability) -> Result<(), StoreError> {
        let mode = match durability {
            Durability::Synced => PersistMode::SyncData,
            // The system has the bytes; only a power cut can lose them.
            Durability::Written => PersistMode::Buffer,
        };
        let mut batch = self.database.batch().durability(Some(mode));
        for ((space, key), value) in writes {
            match value {
                Some(value) => batch.insert(self.space(space), key, value),
                None => batch.remove(self.space(space), key),
            }
        }
        // Readers see the state before the group until all of it is there.
        *self.before_group() = Some(self.database.snapshot());
        // If this fails, a part of the group may be there until the database is opened again.
        batch.commit().map_err(|error| self.fault("write", error))?;
        *self.before_group() = None;
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncData).map_err(|error| self.fault("write", error))
    }

    /// Rewrites the files of each keyspace without removed and replaced records.
    pub(super) fn compact(&self) -> Result<(), StoreError> {
        let fault = |error| self.fault("write", error);
        for space in &self.spaces {
            space.rotate_memtable_and_wait().map_err(fault)?;
            space.major_compact().map_err(fault)?;
        }
        Ok(())
    }

    pub(super) fn damaged(&self, what: &'static str) -> StoreError {
        StoreError::Damaged { path: self.path.display().to_string(), what }
    }

    pub(super) fn fault(&self, doing: &'static str, error: fjall::Error) -> StoreError {
        fault(doing, &self.path, error)
    }
}

fn check_format(meta: &Keyspace, path: &Path, known: u64) -> Result<(), StoreError> {
    let record = meta.get(meta::FORMAT).map_err(|error| fault("read", path, error))?;
    match record.map(|record| records::decode_number(&record)) {
        None => Ok(()),
        Some(Some(found)) if found <= known => Ok(()),
        Some(Some(found)) => {
            Err(StoreError::Newer { path: path.display().to_string(), found, known })
        }
        Some(None) => Err(StoreError::Damaged {
            path: path.display().to_string(),
            what: "its format cannot be read",
        }),
    }
}

fn fault(doing: &'static str, path: &Path, error: fjall::Error) -> StoreError {
    let damaged = |what| StoreError::Damaged { path: path.display().to_string(), what };
    match error {
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => {
            StoreError::io(doing, path, source)
        }
        // After a failed write, fjall refuses all others until it is opened again.
        fjall::Error::Poisoned => StoreError::Reopening { path: path.display().to_string() },
        fjall::Error::Locked => StoreError::InUse { path: path.display().to_string() },
        fjall::Error::JournalRecovery(_) => damaged("a group in its journal is corrupt"),
        fjall::Error::Storage(fjall::LsmError::ChecksumMismatch { .. }) => {
            damaged("a checksum does not match")
        }
        fjall::Error::InvalidVersion(_) => {
            damaged("its files have a version that fjall 3 does not support")
        }
        // The type may get more variants; all the rest mean that read data is invalid.
        fjall::Error::Storage(_)
        | fjall::Error::Decompress(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::KeyspaceDeleted
        | fjall::Error::Unrecoverable
        | _ => damaged("a file is corrupt"),
    }
}
