//! What the broker remembers beyond its own end: the trait, and the stores that come with it.
//!
//! So far it is the presence versions, which must never go back, and the lock that keeps a second
//! broker off the data. Sessions, queued messages and retained messages join them behind the same
//! trait. A store knows nothing of sessions, actors or sockets.

mod directory;

use std::sync::{Mutex, PoisonError};

pub use directory::DirectoryStore;

/// Keeps what must survive the broker.
pub trait Store: Send + Sync + 'static {
    /// The highest presence version that was ever reserved; 0 in a new store.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn reserved_versions(&self) -> Result<u64, StoreError>;

    /// Reserves presence versions up to and including `up_to`. Once this has returned, a restarted
    /// broker finds them reserved, whatever happened to this one.
    ///
    /// # Errors
    /// If it could not be made durable; nothing is reserved then.
    fn reserve_versions(&self, up_to: u64) -> Result<(), StoreError>;
}

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing failed.
    #[error(
        "cannot {doing} {path}: {source}; let the broker write there, or choose another data_dir"
    )]
    Io {
        /// What was tried, for example "write".
        doing: &'static str,
        /// Where.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Another broker has this directory.
    #[error(
        "data directory {path} is in use by another broker; stop it or choose another data_dir"
    )]
    InUse {
        /// The directory.
        path: String,
    },
    /// What was read is not what was written.
    #[error("{path} is damaged: {what}; restore it from a backup")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A store that forgets everything when it is dropped; for tests and for brokers embedded where
/// nothing needs to survive.
#[derive(Debug, Default)]
pub struct MemoryStore {
    versions: Mutex<u64>,
}

impl Store for MemoryStore {
    fn reserved_versions(&self) -> Result<u64, StoreError> {
        Ok(*self.versions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn reserve_versions(&self, up_to: u64) -> Result<(), StoreError> {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        *versions = (*versions).max(up_to);
        Ok(())
    }
}
