//! A store that is being built, beside its place in a data directory, so that no broker takes a part
//! of it for the whole.
//!
//! Knows names of directories, not what is in them.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
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
    /// Whether the directory did not exist before.
    is_in_new_directory: bool,
    is_finished: bool,
}

impl NewStore {
    /// Locks `directory`, which is created if it does not exist, and begins an empty store there.
    /// Removes an unfinished store of an earlier process.
    ///
    /// # Errors
    /// If there is a store already, or the directory cannot be created or written, or is in use.
    pub fn begin(directory: impl AsRef<Path>) -> Result<Self, StoreError> {
        let directory = directory.as_ref();
        // Asked before it is created; the parent must be synced too if it is new.
        let is_in_new_directory = !directory.exists();
        private::make(directory).map_err(|error| StoreError::io("make", directory, error))?;
        let lock = lock(directory)?;
        // Under the lock, so that no other process can create one in between.
        if DirectoryStore::exists(directory) {
            return Err(StoreError::Exists { path: directory.display().to_string() });
        }
        let path = directory.join(UNFINISHED);
        // An earlier attempt may have ended in the middle.
        remove(&path)?;
        let options = StoreOptions::default();
        let database = Database::open(&path, &options, format::FORMAT)?;
        format::migrate(&path, &database)?;
        let store = DirectoryStore::of(database, directory, path, options, lock);
        let directory = directory.to_owned();
        Ok(Self { directory, store, is_in_new_directory, is_finished: false })
    }

    /// Returns the store, to apply changes to it.
    #[must_use]
    pub const fn store(&self) -> &DirectoryStore {
        &self.store
    }

    /// Makes it the store of its directory, with everything that was applied.
    ///
    /// # Errors
    /// If the directory cannot be written. Nothing of the store is left then.
    pub fn finish(self) -> Result<(), StoreError> {
        self.finish_with(|directory| File::open(directory)?.sync_all())
    }

    fn finish_with(mut self, sync: impl Fn(&Path) -> io::Result<()>) -> Result<(), StoreError> {
        // All content must be on the disk before its name says that it is whole.
        self.store.sync()?;
        // The database closes its files before they move.
        self.store.replace(None);
        let (path, directory) = (self.directory.join(DATABASE), &self.directory);
        let renamed = fs::rename(&self.store.path, &path);
        renamed.map_err(|error| StoreError::io("write", &path, error))?;
        self.store.path = path;
        let sync = |path: &Path| sync(path).map_err(|error| StoreError::io("write", path, error));
        // The name survives a power cut from here on.
        sync(directory)?;
        if self.is_in_new_directory {
            let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
            sync(parent.unwrap_or_else(|| Path::new(".")))?;
        }
        self.is_finished = true;
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, Durability};

    /// A power cut could otherwise take a store that was said to be there.
    #[test]
    fn a_store_whose_name_cannot_be_synced_is_not_left_behind() {
        for is_of_parent in [false, true] {
            let outside = tempfile::tempdir().unwrap();
            let directory = outside.path().join("data");
            let unsynced = if is_of_parent { outside.path() } else { &directory };
            let new = NewStore::begin(&directory).unwrap();
            new.store().apply(&[Change::ReserveVersions(7)], Durability::Synced).unwrap();
            let sync = |path: &Path| match path == unsynced {
                true => Err(ErrorKind::StorageFull.into()),
                false => Ok(()),
            };
            assert!(new.finish_with(sync).is_err());
            assert!(!DirectoryStore::exists(&directory));
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "the lock");
            NewStore::begin(&directory).unwrap().finish().unwrap();
            assert!(DirectoryStore::exists(&directory));
        }
    }
}
