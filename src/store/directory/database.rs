//! The database of a store: how fjall is opened, and what its errors mean.
//!
//! The only file with `view.rs` that names fjall. Knows keyspaces, not what is in them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode, UserValue};
use hashbrown::HashMap;

use super::{
    StoreOptions,
    keys::{Space, meta},
    records,
};
use crate::store::{Durability, StoreError};

/// What waits in memory until it is sorted into files, for each keyspace and for all.
const MEMTABLE_BYTES: u64 = 8 << 20;
const MEMTABLES_BYTES: u64 = 64 << 20;
/// What is read again at most when the store is opened after a cut.
const JOURNAL_BYTES: u64 = 64 << 20;
/// With one worker nothing is flushed while it compacts, and memory grows without bound.
const WORKERS: usize = 2;
/// Files that are kept open.
const FILES_MAX: usize = 128;

/// What a group writes: by keyspace and key the new value, or that there is none any more.
pub(super) type Writes = HashMap<(Space, Vec<u8>), Option<Vec<u8>>, foldhash::fast::RandomState>;

pub(super) struct Database {
    database: fjall::Database,
    /// In the order of [`Space::ALL`].
    spaces: Vec<Keyspace>,
    path: PathBuf,
}

impl Database {
    /// Opens the database in `path`, which is made if it is not there; refuses a format that is
    /// later than `format_known` before anything is changed.
    pub(super) fn open(
        path: &Path,
        options: &StoreOptions,
        format_known: u64,
    ) -> Result<Self, StoreError> {
        // A length in its journal that is wrong is an assertion of fjall's that fails, and no error.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::try_open(path, options, format_known)));
        opened.unwrap_or_else(|_| {
            let what = "a group in its journal is not as it was written";
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
            .manual_journal_persist(true);
        #[expect(
            deprecated,
            reason = "the default is no bound, and there is no other way to set one"
        )]
        let builder = builder.max_write_buffer_size(Some(MEMTABLES_BYTES));
        let database = builder.open().map_err(fault)?;
        let settings = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        if database.keyspace_exists(Space::Meta.name()) {
            let meta = database.keyspace(Space::Meta.name(), settings).map_err(fault)?;
            check_format(&meta, path, format_known)?;
        }
        let spaces = Space::ALL.iter().map(|space| database.keyspace(space.name(), settings));
        let spaces = spaces.collect::<Result<_, _>>().map_err(fault)?;
        Ok(Self { database, spaces, path: path.to_owned() })
    }

    pub(super) fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }

    pub(super) fn snapshot(&self) -> fjall::Snapshot {
        self.database.snapshot()
    }

    pub(super) fn read(&self, space: Space, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        self.space(space).get(key).map_err(|error| self.fault("read", error))
    }

    /// All of `writes` or nothing.
    pub(super) fn commit(&self, writes: Writes, durability: Durability) -> Result<(), StoreError> {
        let mode = match durability {
            Durability::Synced => PersistMode::SyncData,
            Durability::Written => PersistMode::Buffer,
        };
        let mut batch = self.database.batch().durability(Some(mode));
        for ((space, key), value) in writes {
            match value {
                Some(value) => batch.insert(self.space(space), key, value),
                None => batch.remove(self.space(space), key),
            }
        }
        batch.commit().map_err(|error| self.fault("write", error))
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncData).map_err(|error| self.fault("write", error))
    }

    /// Sorts each keyspace into files anew, without what was removed or replaced.
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
        fjall::Error::Poisoned => StoreError::Reopening { path: path.display().to_string() },
        fjall::Error::Locked => StoreError::InUse { path: path.display().to_string() },
        fjall::Error::JournalRecovery(_) => {
            damaged("a group in its journal is not as it was written")
        }
        fjall::Error::Storage(fjall::LsmError::ChecksumMismatch { .. }) => {
            damaged("a checksum does not match")
        }
        fjall::Error::InvalidVersion(_) => {
            damaged("its files have a version that fjall 3 does not know")
        }
        // The type may get further kinds; all that are left are of what was read.
        fjall::Error::Storage(_)
        | fjall::Error::Decompress(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::KeyspaceDeleted
        | fjall::Error::Unrecoverable
        | _ => damaged("a file is not as it was written"),
    }
}
