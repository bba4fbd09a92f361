//! The errors of a store: each names the place and the remedy.
//!
//! Knows the errors of the operating system, but not the files of any store.

use std::{error::Error, io};

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Reading or writing failed.
    #[error(
        "cannot {doing} {path}: {source}; let the broker write there, or choose another data_dir"
    )]
    Io {
        /// The failed operation, for example "write".
        doing: &'static str,
        /// The file or directory.
        path: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another broker uses this directory.
    #[error(
        "data directory {path} is in use by another broker; stop it or choose another data_dir"
    )]
    InUse {
        /// The directory.
        path: String,
    },
    /// The stored data is damaged.
    #[error("{path} is damaged: {what}; restore it from a backup")]
    Damaged {
        /// The file or directory.
        path: String,
        /// The kind of damage.
        what: &'static str,
    },
    /// A newer version of the program has written the store.
    #[error(
        "{path} has format {found}, and this program supports formats up to {known}; run the \
         version of hearthmq that wrote it, or a later one"
    )]
    Newer {
        /// The directory.
        path: String,
        /// The format of the store.
        found: u64,
        /// The latest format that this program supports.
        known: u64,
    },
    /// The disk has no room for new data.
    #[error("the disk with {path} is full; free space there, or choose another data_dir")]
    Full {
        /// The directory.
        path: String,
    },
    /// The directory can be read but not written.
    #[error(
        "cannot {doing} {path}: it is read-only for this user; change its owner or its mount \
         options, or choose another data_dir"
    )]
    ReadOnly {
        /// The failed operation.
        doing: &'static str,
        /// The file or directory.
        path: String,
    },
    /// There is no store in the directory.
    #[error("there is no store in {path}; name the data_dir of a broker that has run")]
    Missing {
        /// The directory.
        path: String,
    },
    /// There is a store in the directory already.
    #[error("{path} already contains a store; name an empty directory, or move that store away")]
    Exists {
        /// The directory.
        path: String,
    },
    /// A new store was being built in the directory when its process ended.
    #[error(
        "{path} is a store that was not finished; import it again, or remove {path} to start \
         without it"
    )]
    Unfinished {
        /// The directory of the new store.
        path: String,
    },
    /// A store of an application failed: see [`StoreError::other`].
    #[error("the store failed: {0}")]
    Other(#[source] Box<dyn Error + Send + Sync>),
    /// The store is being reopened after an error.
    #[error("the store in {path} is being opened again after an error; try again")]
    Reopening {
        /// The directory.
        path: String,
    },
}

impl StoreError {
    /// Returns the error of a store of an application, for a cause that no other variant describes.
    #[must_use]
    pub fn other(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(source.into())
    }
}
