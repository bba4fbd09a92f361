//! The store in the data directory.

use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use super::{Store, StoreError};

/// A store in a directory, which it locks for itself.
#[derive(Debug)]
pub struct DirectoryStore {
    versions: PathBuf,
    directory: PathBuf,
    /// Held, not read: the lock ends with it.
    _lock: File,
}

const LOCK: &str = "lock";
const VERSIONS: &str = "presence-versions";

impl DirectoryStore {
    /// Opens the store in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// If the directory cannot be made or written, or another broker has it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(directory).map_err(|source| io("make", directory, source))?;
        let lock_path = directory.join(LOCK);
        let lock = File::create(&lock_path).map_err(|source| io("write", &lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: directory.display().to_string() });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock", &lock_path, source)),
        }
        let store = Self {
            versions: directory.join(VERSIONS),
            directory: directory.to_owned(),
            _lock: lock,
        };
        // A directory that cannot be written is found out now, not at the first CONNECT.
        store.reserve_versions(store.reserved_versions()?)?;
        Ok(store)
    }

    fn write_versions(&self, up_to: u64) -> std::io::Result<()> {
        let new = self.versions.with_extension("new");
        let mut file = File::create(&new)?;
        writeln!(file, "{up_to}")?;
        file.sync_all()?;
        fs::rename(&new, &self.versions)?;
        // The new name is durable only once the directory is.
        File::open(&self.directory)?.sync_all()
    }
}

impl Store for DirectoryStore {
    fn reserved_versions(&self) -> Result<u64, StoreError> {
        match fs::read_to_string(&self.versions) {
            Ok(text) => text.trim().parse().map_err(|_| StoreError::Damaged {
                path: self.versions.display().to_string(),
                what: "it does not hold a number",
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(source) => Err(io("read", &self.versions, source)),
        }
    }

    fn reserve_versions(&self, up_to: u64) -> Result<(), StoreError> {
        self.write_versions(up_to).map_err(|source| io("write", &self.versions, source))
    }
}

fn io(doing: &'static str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Io { doing, path: path.display().to_string(), source }
}
