//! Reading and writing the TOML files of accounts and rules, and saying where one is wrong.
//!
//! Knows files, lines and TOML; does not know what an account or a rule is. Called by the
//! accounts and the policy when they are loaded, at start-up and on reload.

use std::{
    fs, io,
    io::Write as _,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

/// Why a file was not taken over. What was in force before stays in force.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}; check the path in [auth] and who may read the file", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, the first is 1.
        line: usize,
        /// What is wrong; what would be right.
        problem: Box<str>,
    },
}

impl FileError {
    /// `problem` at the bytes `span` of `text`, which was read from `path`.
    pub(super) fn invalid(path: &Path, text: &str, span: Range<usize>, problem: &str) -> Self {
        Self::Invalid {
            path: path.to_owned(),
            line: line_of(text, span.start),
            problem: problem.trim_end().into(),
        }
    }
}

/// The text of the file at `path`.
pub(super) fn read(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path)
        .map_err(|source| FileError::Unreadable { path: path.to_owned(), source })
}

/// What `text`, read from `path`, says.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, FileError> {
    toml::from_str(text).map_err(|error| {
        FileError::invalid(path, text, error.span().unwrap_or(0..0), error.message())
    })
}

/// Replaces the file at `path` by one that only its owner can read: whoever looks sees the whole
/// old file or the whole new one, also after a power cut.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), FileError> {
    let replace = || {
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("."));
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut temporary_name = std::ffi::OsString::from(".");
        temporary_name.push(name);
        temporary_name.push(format!(".{}.tmp", std::process::id()));
        let temporary = directory.join(temporary_name);
        write_synced(&temporary, text)
            .and_then(|()| fs::rename(&temporary, path))
            .inspect_err(|_| drop(fs::remove_file(&temporary)))?;
        fs::File::open(directory)?.sync_all()
    };
    replace().map_err(|source| FileError::Unwritable { path: path.to_owned(), source })
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    drop(fs::remove_file(path)); // what a killed process of the same id may have left
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
