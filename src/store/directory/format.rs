//! The format of a data directory, and the migration from older formats.
//!
//! Format 0 was a file with one number, `presence-versions`. Format 1 is the database. In format 2
//! records of retained messages contain their owner. In format 3 records of sessions contain the
//! login of the client, and records of queues the expiry of the message. Format 4 adds the records of
//! namespaces, and marks withdrawn subscriptions. Format 5 adds source and attributes of a login to the
//! records of sessions, the time of arrival to messages, and the histories of clients. Format 6 adds groups,
//! credential and rules of a login to the records of sessions. Format 7 counts the histories of each owner, those of
//! former formats when they are written again. A change to the meaning of keys or records needs a new step in
//! [`STEPS`].

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::Path,
};

use super::{
    database::{Database, Writes},
    keys::{Space, meta},
    records,
    view::View,
};
use crate::store::{Durability, StoreError};

/// Migrates a directory to the next format. The writes of all steps and the new format number are
/// applied as one group; interrupted steps run again from the beginning.
type Migration = fn(&Path, &Database, &mut Writes) -> Result<(), StoreError>;

/// The first step migrates from format 0 to format 1.
const STEPS: &[Migration] = &[
    take_presence_versions,
    keep_as_it_is,
    keep_as_it_is,
    keep_as_it_is,
    keep_as_it_is,
    keep_as_it_is,
    keep_as_it_is,
];

/// The format that this version writes.
pub(super) const FORMAT: u64 = STEPS.len() as u64;

const PRESENCE_VERSIONS: &str = "presence-versions";

/// Migrates the directory to [`FORMAT`].
pub(super) fn migrate(directory: &Path, database: &Database) -> Result<(), StoreError> {
    let found = match database.read(Space::Meta, meta::FORMAT)? {
        None => 0,
        Some(record) => records::decode_number(&record)
            .ok_or_else(|| database.damaged("its format cannot be read"))?,
    };
    if found < FORMAT {
        // All steps go into one commit, so a crash leaves the former format or the new one.
        let mut writes = Writes::default();
        // Each step leads to the next format, so a very old store takes all of them.
        for (step, format) in STEPS.iter().zip(1..) {
            if format > found {
                step(directory, database, &mut writes)?;
            }
        }
        set_number(&mut writes, meta::FORMAT, FORMAT);
        database.commit(writes, Durability::Synced)?;
    }
    // An older version of the program may have run since; presence versions must not decrease.
    let mut writes = Writes::default();
    take_presence_versions(directory, database, &mut writes)?;
    if !writes.is_empty() {
        database.commit(writes, Durability::Synced)?;
    }
    remove_presence_versions(directory)
}

/// Formats 1 to 6 need no change: their records can be read as they are.
#[expect(clippy::unnecessary_wraps, reason = "a step can fail")]
fn keep_as_it_is(_: &Path, _: &Database, _: &mut Writes) -> Result<(), StoreError> {
    Ok(())
}

fn take_presence_versions(
    directory: &Path,
    database: &Database,
    writes: &mut Writes,
) -> Result<(), StoreError> {
    let path = directory.join(PRESENCE_VERSIONS);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("read", &path, error)),
    };
    let former: u64 = text.trim().parse().map_err(|_| StoreError::Damaged {
        path: path.display().to_string(),
        what: "it does not contain a number",
    })?;
    // The higher one counts: a version that was used once must not come back.
    if former > super::read::bounds(&View::new(database))?.versions {
        set_number(writes, meta::VERSIONS, former);
    }
    Ok(())
}

fn remove_presence_versions(directory: &Path) -> Result<(), StoreError> {
    let path = directory.join(PRESENCE_VERSIONS);
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("remove", &path, error)),
    }
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| StoreError::io("write", directory, error))
}

fn set_number(writes: &mut Writes, key: &[u8], number: u64) {
    writes.insert((Space::Meta, key.to_vec()), Some(records::encode_number(number)));
}
