//! A store that is being built, beside its place in a data directory, so that no broker takes a part
//! of it for the whole.
//!
//! Knows names of directories, not what is in them.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{DATABASE, Database, DirectoryStore, StoreOptions, format, lock, private};
use crate::store::{Store as _, StoreError};

/// The directory of a store that is being built.
const UNFINISHED: &str = "store.new";

/// A store that gets its place in a data directory when it is finished. If it is dropped before,
/// nothing of it is left; if the process ends before, no broker starts in the directory until a new
/// store is finished there, or its remains are removed.
#[derive(Debug)]
pub struct NewStore {
    directory: PathBuf,
    store: DirectoryStore,
    is_finished: bool,
}

impl NewStore {
    /// Locks `directory`, which is created if it does not exist, and begins an empty store there.
    /// Removes what an earlier process has left unfinished.
    ///
    /// # Errors
    /// If there is a store already, or the directory cannot be created or written, or is in use.
    pub fn begin(directory: impl AsRef<Path>) -> Result<Self, StoreError> {
        let directory = directory.as_ref();
        private::make(directory).map_err(|error| StoreError::io("make", directory, error))?;
        let lock = lock(directory)?;
        if DirectoryStore::exists(directory) {
            return Err(StoreError::Exists { path: directory.display().to_string() });
        }
        let path = directory.join(UNFINISHED);
        remove(&path)?;
        let options = StoreOptions::default();
        let database = Database::open(&path, &options, format::FORMAT)?;
        format::migrate(&path, &database)?;
        let store = DirectoryStore::of(database, directory, path, options, lock);
        Ok(Self { directory: directory.to_owned(), store, is_finished: false })
    }

    /// Returns the store, to apply changes to it.
    #[must_use]
    pub const fn store(&self) -> &DirectoryStore {
        &self.store
    }

    /// Makes it the store of its directory, with everything that was applied.
    ///
    /// # Errors
    /// If the directory cannot be written. Nothing of the store is left then, unless only the last
    /// sync has failed.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.store.sync()?;
        self.store.replace(None);
        let (path, directory) = (self.directory.join(DATABASE), &self.directory);
        let renamed = fs::rename(&self.store.path, &path);
        renamed.map_err(|error| StoreError::io("write", &path, error))?;
        self.is_finished = true;
        // The name survives a power cut from here on.
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| StoreError::io("write", directory, error))
    }
}

impl Drop for NewStore {
    fn drop(&mut self) {
        if !self.is_finished {
            self.store.replace(None);
            drop(remove(&self.store.path));
        }
    }
}

/// Refuses a directory where a store was being built, unless there is a whole one at `store`.
pub(super) fn refuse_unfinished(directory: &Path, store: &Path) -> Result<(), StoreError> {
    let path = directory.join(UNFINISHED);
    match path.exists() && !store.exists() {
        true => Err(StoreError::Unfinished { path: path.display().to_string() }),
        false => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StoreError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}
