//! The format of a data directory, and how one that an earlier version has written is taken over.
//!
//! Format 0 was a file with a number in it, `presence-versions`; format 1 is the database; in format 2
//! records of retained messages name their owner. Whoever
//! changes what keys or records mean adds a step to [`STEPS`].

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

/// Brings a directory from one format to the next. What all steps write is applied with the number of
/// the last format in one group; steps that are cut off are taken again from the beginning.
type Step = fn(&Path, &Database, &mut Writes) -> Result<(), StoreError>;

/// The first leads from format 0 to format 1.
const STEPS: &[Step] = &[take_presence_versions, keep_as_it_is];

/// The format that this program writes.
pub(super) const FORMAT: u64 = STEPS.len() as u64;

const PRESENCE_VERSIONS: &str = "presence-versions";

/// Brings the directory to [`FORMAT`].
pub(super) fn migrate(directory: &Path, database: &Database) -> Result<(), StoreError> {
    let found = match database.read(Space::Meta, meta::FORMAT)? {
        None => 0,
        Some(record) => records::decode_number(&record)
            .ok_or_else(|| database.damaged("its format cannot be read"))?,
    };
    if found < FORMAT {
        let mut writes = Writes::default();
        for (step, format) in STEPS.iter().zip(1..) {
            if format > found {
                step(directory, database, &mut writes)?;
            }
        }
        set_number(&mut writes, meta::FORMAT, FORMAT);
        database.commit(writes, Durability::Synced)?;
    }
    // An earlier version of the program may have run here since; versions must not go back.
    let mut writes = Writes::default();
    take_presence_versions(directory, database, &mut writes)?;
    if !writes.is_empty() {
        database.commit(writes, Durability::Synced)?;
    }
    remove_presence_versions(directory)
}

/// Records of format 1 are read as they are.
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
        what: "it does not hold a number",
    })?;
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
