//! Protects stored data from other users of the machine: only its owner can access a data
//! directory.
//!
//! Knows files and permissions, not the content of the files.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// The permission bits of all users but the owner.
const BY_OTHERS: u32 = 0o077;
const DIRECTORY: u32 = 0o700;
const FILE: u32 = 0o600;

/// Creates a directory and its parents; only the owner can access it.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY).create(directory)
}

/// Opens a file for writing; if it is created, only the owner can access it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(FILE).open(path)
}

/// Removes other users' permissions from a directory and everything in it, and logs this. Symbolic
/// links are not followed; sockets keep their permissions.
pub(super) fn narrow(directory: &Path) {
    let mut found = Narrowed::default();
    if let Err(error) = narrow_all(directory, &mut found) {
        tracing::warn!(
            directory = %directory.display(), %error,
            "cannot change permissions; other users of this machine may read the stored data"
        );
    }
    if let (narrowed @ 1.., Some(first)) = (found.files, found.first) {
        tracing::warn!(
            directory = %directory.display(), narrowed, first,
            "other users of this machine could read the stored data; from now on only its owner can"
        );
    }
}

#[derive(Default)]
struct Narrowed {
    files: u64,
    /// The first of them, and its previous permissions.
    first: Option<String>,
}

fn narrow_all(path: &Path, found: &mut Narrowed) -> io::Result<()> {
    // A link might lead out of the directory, to files of others.
    let metadata = match fs::symlink_metadata(path) {
        // The database may have deleted a file meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    let kind = metadata.file_type();
    // Sockets keep their permissions, which say who may control the broker.
    if !kind.is_dir() && !kind.is_file() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    // Only the bits of others are taken, so an operator may restrict more.
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
