//! Whether the file system has room for more: asked before it runs out, since a database that
//! meets a full disk in the middle of a write has to be opened again.
//!
//! Knows bytes, not what they are for.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::statvfs;

use crate::{journal::Change, store::StoreError};

/// The answer is good for so long, and for so many bytes.
const GOOD_FOR: Duration = Duration::from_secs(1);
const GOOD_FOR_BYTES: u64 = 4 << 20;

/// Of what has to be free for more, this part has to be free even for what only takes away: a
/// removal is written too, before it makes room.
const RESERVE_PART: u64 = 4;

pub(super) struct Room {
    directory: PathBuf,
    free_bytes_min: u64,
    asked: Option<Asked>,
}

struct Asked {
    at: Instant,
    free_bytes: u64,
    written_since: u64,
}

impl Room {
    pub(super) fn new(directory: &Path, free_bytes_min: u64) -> Self {
        Self { directory: directory.to_owned(), free_bytes_min, asked: None }
    }

    /// Whether `changes`, which come to `bytes`, may be written.
    pub(super) fn admit(&mut self, changes: &[Change], bytes: u64) -> Result<(), StoreError> {
        let needed = match changes.iter().any(is_more) {
            true => self.free_bytes_min,
            false => self.free_bytes_min / RESERVE_PART,
        };
        if self.known_free_bytes() < needed {
            self.ask()?;
        }
        if self.known_free_bytes() < needed {
            return Err(StoreError::Full { path: self.directory.display().to_string() });
        }
        if let Some(asked) = &mut self.asked {
            asked.written_since += bytes;
        }
        Ok(())
    }

    /// Whether there is room for more; asked once a second while there is.
    pub(super) fn is_there(&mut self) -> bool {
        self.known_free_bytes() >= self.free_bytes_min || self.check().is_ok()
    }

    /// Whether there is room for more at this moment.
    pub(super) fn check(&mut self) -> Result<(), StoreError> {
        self.ask()?;
        if self.known_free_bytes() < self.free_bytes_min {
            return Err(StoreError::Full { path: self.directory.display().to_string() });
        }
        Ok(())
    }

    /// What was free when it was last asked; 0 if that is too long ago.
    fn known_free_bytes(&self) -> u64 {
        let good = self
            .asked
            .as_ref()
            .filter(|asked| asked.at.elapsed() < GOOD_FOR && asked.written_since < GOOD_FOR_BYTES);
        good.map_or(0, |asked| asked.free_bytes)
    }

    fn ask(&mut self) -> Result<(), StoreError> {
        let found = statvfs(&self.directory)
            .map_err(|error| StoreError::io("read", &self.directory, error.into()))?;
        let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
        self.asked = Some(Asked { at: Instant::now(), free_bytes, written_since: 0 });
        Ok(())
    }
}

/// The size of the disk that a directory lies on.
pub(super) fn disk_bytes(directory: &Path) -> Option<u64> {
    let found = statvfs(directory).ok()?;
    Some(found.f_blocks.saturating_mul(found.f_frsize))
}

/// Whether the store grows by a change. A message that is sent must be let through: it is gone
/// once it is acknowledged, and a queue could not be emptied otherwise. So must what is noted of a
/// session and its Will when a client comes back or goes: most of it takes the place of what was
/// there, and what is taken away behind it would wait as well.
const fn is_more(change: &Change) -> bool {
    match change {
        Change::Subscribe(..) | Change::Enqueue(..) | Change::Accept(..) | Change::Retain(..) => {
            true
        }
        Change::PutSession(..)
        | Change::EndSession(_)
        | Change::Unsubscribe(..)
        | Change::Send(..)
        | Change::Release(..)
        | Change::Dequeue(..)
        | Change::Forget(..)
        | Change::PutWill(..)
        | Change::DropWill(_)
        | Change::ClearRetained(_)
        | Change::ReserveVersions(_)
        | Change::Clock(_)
        | Change::NoteLogin(..) // there is a bounded number of them
        | Change::ForgetLogin(_) => false,
    }
}
