//! Creates files and directories of a data directory, for the first start and `passwd`, and files for exports.
//!
//! The superuser gives new files to the owner of the directory, so that a broker under another user
//! can read and change them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
    },
    path::{Path, PathBuf},
};

/// A file or directory that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be written: {source}; let the broker write there, or set data_dir", path.display())]
pub(super) struct Unwritable {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// Creates the parent directory of `path` if it is missing, accessible to its owner only.
pub(super) fn make_parent(path: &Path) -> Result<(), Unwritable> {
    let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| Unwritable { path: directory.to_owned(), source })
}

/// Creates the file at `path` unless it exists; returns whether it was created.
pub(super) fn make_file(path: &Path, text: &str, mode: u32) -> Result<bool, Unwritable> {
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => fill(file, path, text).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(Unwritable { path: path.to_owned(), source }),
    }
}

/// Writes a file that only its owner can read; replaces an existing one.
pub(super) fn put_private(path: &Path, text: &str) -> Result<(), Unwritable> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(Unwritable { path: path.to_owned(), source })
        }
        _ => make_file(path, text, 0o600).map(drop),
    }
}

/// Opens an empty file that only its owner can read. An existing file loses its content and its mode.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // A device or a pipe belongs to others.
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Waits until a file is on the disk. Devices and pipes have nothing to sync.
pub(super) fn sync_file(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { file.sync_all() } else { Ok(()) }
}

fn fill(mut file: File, path: &Path, text: &str) -> Result<(), Unwritable> {
    let mut write = || -> io::Result<()> {
        let directory = path.parent().and_then(|parent| fs::metadata(parent).ok());
        if let Some(directory) = directory
            && directory.uid() != file.metadata()?.uid()
        {
            // Only the superuser can change the owner, and other users need not.
            drop(fchown(&file, Some(directory.uid()), Some(directory.gid())));
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| Unwritable { path: path.to_owned(), source })
}
