//! Reads and writes the TOML files of accounts and rules, and names the line of a mistake.
//!
//! Knows files, lines and TOML; does not know what an account or a rule is. Called by the accounts
//! and the policy when they are loaded, at start-up and on reload.

use std::{
    fs, io,
    io::Write as _,
    ops::Range,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

/// Why a file was not loaded. What was in force before stays in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}; check the path in [auth] and who may read the file", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file has no account of this name.
    #[error(
        "{}: there is no user {name:?}; `hearthmq passwd --list` lists the accounts",
        path.display()
    )]
    NoSuchUser {
        /// The file.
        path: PathBuf,
        /// The user name that was looked for.
        name: Box<str>,
    },
    /// The contents are invalid.
    #[error("{}:{line}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line number, starting with 1.
        line: usize,
        /// The fault, and its remedy.
        problem: Box<str>,
    },
}

impl FileError {
    /// Returns the error for `problem` at the bytes `span` of `text`, which was read from `path`.
    pub(super) fn invalid(path: &Path, text: &str, span: Range<usize>, problem: &str) -> Self {
        Self::Invalid {
            path: path.to_owned(),
            line: line_of(text, span.start),
            problem: problem.trim_end().into(),
        }
    }
}

/// Returns the text of the file at `path`.
pub(super) fn read(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path)
        .map_err(|source| FileError::Unreadable { path: path.to_owned(), source })
}

/// Parses `text`, which was read from `path`.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, FileError> {
    toml::from_str(text).map_err(|error| {
        FileError::invalid(path, text, error.span().unwrap_or(0..0), error.message())
    })
}

/// Maximum number of symbolic links that are followed from a path to its file; Linux follows the
/// same number.
const LINKS_MAX: usize = 40;

/// Replaces the text of the file at `path`, or of the file that `path` links to. A reader finds
/// either the whole old text or the whole new one, also after a power cut. The file keeps owner and
/// mode. A new file is readable by its owner only; the superuser gives it to the owner of its
/// directory.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), FileError> {
    let replace = || {
        let target = follow_links(path)?;
        let directory = directory_of(&target);
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        // In the same directory, because a rename is atomic only inside one file system.
        let mut temporary_name = std::ffi::OsString::from(".");
        temporary_name.push(name);
        temporary_name.push(format!(".{}.tmp", std::process::id()));
        let temporary = directory.join(temporary_name);
        write_synced(&temporary, text, &target)
            .and_then(|()| fs::rename(&temporary, &target))
            .inspect_err(|_| drop(fs::remove_file(&temporary)))?;
        // The new name is durable only after its directory is synced.
        fs::File::open(directory)?.sync_all()
    };
    replace().map_err(|source| FileError::Unwritable { path: path.to_owned(), source })
}

/// Waits until no other process changes files beside `path`; the lock ends when it is dropped. If
/// the directory cannot be locked, nothing is: of two changes at the same moment the last one wins.
pub(super) fn lock_beside(path: &Path) -> Option<fs::File> {
    let directory = fs::File::open(directory_of(&follow_links(path).ok()?)).ok()?;
    directory.lock().ok().map(|()| directory)
}

fn follow_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    // Links are followed by hand, so that the rename replaces the file and not the link.
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(target) => path = directory_of(&path).join(target),
            // Not a link, or no such file yet.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
                ) =>
            {
                return Ok(path);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

fn directory_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new("."))
}

/// Writes the file at `temporary`, with owner and mode of `target`.
fn write_synced(temporary: &Path, text: &str, target: &Path) -> io::Result<()> {
    drop(fs::remove_file(temporary)); // a killed process of the same id may have left one
    let mut file =
        // Readable by nobody else from its first byte: the text has hashes.
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(text.as_bytes())?;
    match fs::metadata(target) {
        Ok(former) => {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (former.uid(), former.gid()) {
                fchown(&file, Some(former.uid()), Some(former.gid())).map_err(|error| {
                    let (uid, gid) = (former.uid(), former.gid());
                    io::Error::new(
                        error.kind(),
                        format!(
                            "its owner is user {uid}, group {gid}; run this as that user or root"
                        ),
                    )
                })?;
            }
            file.set_permissions(former.permissions())?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (own, directory) = (file.metadata()?, fs::metadata(directory_of(target))?);
            if own.uid() != directory.uid() {
                // Only the superuser can change the owner, and other users need not.
                drop(fchown(&file, Some(directory.uid()), Some(directory.gid())));
            }
        }
        Err(error) => return Err(error),
    }
    // Before the rename, or a power cut could leave the new name with an empty file.
    file.sync_all()
}

/// Returns the number of the line, from 1, with the byte at `offset`.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
