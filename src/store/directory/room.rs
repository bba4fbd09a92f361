//! Checks the free disk space before it runs out, because a database that fails in the middle of a
//! write must be reopened.
//!
//! Knows bytes, not what they are for.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::statvfs;

use crate::{journal::Change, store::StoreError};

/// A measurement is used for at most this time, and for at most this many written bytes.
const GOOD_FOR: Duration = Duration::from_secs(1);
const GOOD_FOR_BYTES: u64 = 4 << 20;

/// Part of the required free space that must be free even for removals: a removal is written before
/// it frees space.
const RESERVE_PART: u64 = 4;

pub(super) struct DiskSpace {
    directory: PathBuf,
    free_bytes_min: u64,
    asked: Option<LastAsked>,
}

struct LastAsked {
    at: Instant,
    free_bytes: u64,
    written_since: u64,
}

impl DiskSpace {
    pub(super) fn new(directory: &Path, free_bytes_min: u64) -> Self {
        Self { directory: directory.to_owned(), free_bytes_min, asked: None }
    }

    /// Checks whether `changes` of `bytes` bytes may be written.
    pub(super) fn admit(&mut self, changes: &[Change], bytes: u64) -> Result<(), StoreError> {
        // Removals may use a part of the reserve, or a full store could never become smaller.
        let needed = match changes.iter().any(is_more) {
            true => self.free_bytes_min,
            false => self.free_bytes_min / RESERVE_PART,
        };
        // The system is asked only if the last answer has become doubtful.
        if self.known_free_bytes() < needed {
            self.ask()?;
        }
        if self.known_free_bytes() < needed {
            return Err(StoreError::Full { path: self.directory.display().to_string() });
        }
        // What is written since counts against the last answer.
        if let Some(asked) = &mut self.asked {
            asked.written_since += bytes;
        }
        Ok(())
    }

    /// Returns whether there is room for new data; measured at most once a second while there is.
    pub(super) fn is_there(&mut self) -> bool {
        self.known_free_bytes() >= self.free_bytes_min || self.check().is_ok()
    }

    /// Checks whether there is room for new data, with a new measurement.
    pub(super) fn check(&mut self) -> Result<(), StoreError> {
        self.ask()?;
        if self.known_free_bytes() < self.free_bytes_min {
            return Err(StoreError::Full { path: self.directory.display().to_string() });
        }
        Ok(())
    }

    /// Returns the last measurement; 0 if it is outdated.
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
        self.asked = Some(LastAsked { at: Instant::now(), free_bytes, written_since: 0 });
        Ok(())
    }
}

/// Returns the size of the disk with this directory.
pub(super) fn disk_bytes(directory: &Path) -> Option<u64> {
    let found = statvfs(directory).ok()?;
    Some(found.f_blocks.saturating_mul(found.f_frsize))
}

/// Returns whether a change makes the store grow. Sending a message must not count as growth: the
/// message is removed when it is acknowledged, and a queue could not be drained otherwise. Records
/// of a session and its Will, written when a client connects or disconnects, do not count either:
/// most replace earlier ones, and removals after them in the group would be blocked too.
const fn is_more(change: &Change) -> bool {
    match change {
        Change::Subscribe(_, _, record) => !record.is_withdrawn,
        Change::Enqueue(..)
        | Change::Accept(..)
        | Change::Retain(..)
        | Change::PutRecord(..) => true,
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
        | Change::NoteLogin(..) // their number is limited
        | Change::ForgetLogin(_)
        | Change::NoteConnections(_) // none are handed over while there is no room
        | Change::TidyHistory(_)
        | Change::RemoveRecord(..) => false,
    }
}
