//! The stores under test, and how each is closed and opened again.

use std::{fs, path::PathBuf};

use hearthmq::store::{DirectoryStore, MemoryStore, Store};
use tempfile::TempDir;

/// A store under test.
pub(crate) trait Subject {
    fn new() -> Self;

    fn store(&self) -> &dyn Store;

    /// Closes the store and opens it again, if it is durable.
    fn reopen(&mut self);
}

pub(crate) struct Memory(MemoryStore);

impl Subject for Memory {
    fn new() -> Self {
        Self(MemoryStore::default())
    }

    fn store(&self) -> &dyn Store {
        &self.0
    }

    fn reopen(&mut self) {}
}

pub(crate) struct Directory {
    pub(crate) dir: TempDir,
    /// `None` only while it is closed.
    store: Option<DirectoryStore>,
}

impl Subject for Directory {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(dir.path()).unwrap();
        Self { dir, store: Some(store) }
    }

    fn store(&self) -> &dyn Store {
        self.directory_store()
    }

    fn reopen(&mut self) {
        self.close();
        self.store = Some(DirectoryStore::open(self.dir.path()).unwrap());
    }
}

impl Directory {
    pub(crate) fn directory_store(&self) -> &DirectoryStore {
        self.store.as_ref().unwrap()
    }

    /// Returns the file to which groups are written first.
    pub(crate) fn last_journal(&self) -> PathBuf {
        let files = fs::read_dir(self.dir.path().join("store")).unwrap();
        let files = files.map(|entry| entry.unwrap().path());
        let journals = files.filter(|path| path.extension().is_some_and(|end| end == "jnl"));
        journals.max().unwrap()
    }

    /// Closes the store; its files stay.
    pub(crate) fn close(&mut self) {
        self.store = None;
    }
}

/// Creates a test of each function, for each store.
macro_rules! on_every_store {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $name() { super::$name::<crate::store::subject::Memory>(); })*
        }
        mod directory {
            $(#[test] fn $name() { super::$name::<crate::store::subject::Directory>(); })*
        }
    };
}

pub(crate) use on_every_store;
