//! Why a store could not do what was asked: each error says where, and what helps.
//!
//! Knows what the operating system reports, and nothing of the files of any store.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

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
        source: io::Error,
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
        /// The file or directory.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A later version of the program has written the store.
    #[error(
        "{path} has format {found}, and this program knows formats up to {known}; run the version \
         of hearthmq that wrote it, or a later one"
    )]
    Newer {
        /// The directory.
        path: String,
        /// The format that it has.
        found: u64,
        /// The last format that this program knows.
        known: u64,
    },
    /// There is no room for more.
    #[error("the disk that holds {path} is full; free space there, or choose another data_dir")]
    Full {
        /// The directory.
        path: String,
    },
    /// The directory may be read and not written.
    #[error(
        "cannot {doing} {path}: it is read-only for this user; change its owner or its mount \
         options, or choose another data_dir"
    )]
    ReadOnly {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: String,
    },
    /// There is no store.
    #[error("there is no store in {path}; name the data_dir of a broker that has run")]
    Missing {
        /// The directory.
        path: String,
    },
    /// The store has met an error, and is not open again yet.
    #[error("the store in {path} is being opened again after an error; try again")]
    Reopening {
        /// The directory.
        path: String,
    },
}

impl StoreError {
    /// What the operating system has said, by its remedy.
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.display().to_string();
        let is_full = matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let is_read_only =
            matches!(source.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied);
        if is_full {
            Self::Full { path }
        } else if is_read_only {
            Self::ReadOnly { doing, path }
        } else {
            Self::Io { doing, path, source }
        }
    }
}
