//! Keeps what is stored from other users of the machine: a data directory is its owner's alone.
//!
//! Knows files and permissions, and not what is in the files.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// What a directory and a file may be used for by others than their owner.
const BY_OTHERS: u32 = 0o077;
const DIRECTORY: u32 = 0o700;
const FILE: u32 = 0o600;

/// Makes a directory, with those above it, that its owner alone can look into.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY).create(directory)
}

/// Opens a file to be written, which its owner alone can read if it is made now.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(FILE).open(path)
}

/// Takes others' permissions from a directory and all files and directories in it, and says so in the
/// log. Links are not followed, and sockets have permissions of their own.
pub(super) fn narrow(directory: &Path) {
    let mut found = Narrowed::default();
    if let Err(error) = narrow_all(directory, &mut found) {
        tracing::warn!(
            directory = %directory.display(), %error,
            "other users of this machine may read what is stored: permissions cannot be changed"
        );
    }
    if let (narrowed @ 1.., Some(first)) = (found.files, found.first) {
        tracing::warn!(
            directory = %directory.display(), narrowed, first,
            "other users of this machine could read what is stored; its owner alone can from now on"
        );
    }
}

#[derive(Default)]
struct Narrowed {
    files: u64,
    /// The first of them, and the permissions that it had.
    first: Option<String>,
}

fn narrow_all(path: &Path, found: &mut Narrowed) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        // A file of the database may be gone by now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    let kind = metadata.file_type();
    if !kind.is_dir() && !kind.is_file() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    if mode & BY_OTHERS != 0 {
        fs::set_permissions(path, Permissions::from_mode(mode & !BY_OTHERS & 0o7777))?;
        found.files += 1;
        found.first.get_or_insert_with(|| format!("{} had {:o}", path.display(), mode & 0o7777));
    }
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            narrow_all(&entry?.path(), found)?;
        }
    }
    Ok(())
}
