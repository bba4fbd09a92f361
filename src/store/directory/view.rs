//! A snapshot of the database, and ordered passes over its keyspaces.
//!
//! Knows keys but no records. Each reader has its own view; writers do not disturb it.

use fjall::{Readable as _, UserKey, UserValue};

use super::{
    database::Database,
    keys::{self, Space},
};
use crate::{journal::SessionNumber, store::StoreError};

pub(super) struct View<'a> {
    database: &'a Database,
    snapshot: fjall::Snapshot,
}

impl<'a> View<'a> {
    pub(super) fn new(database: &'a Database) -> Self {
        Self { database, snapshot: database.snapshot() }
    }

    /// Creates a view of an existing snapshot.
    pub(super) const fn of(database: &'a Database, snapshot: fjall::Snapshot) -> Self {
        Self { database, snapshot }
    }

    pub(super) fn read(&self, space: Space, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        let value = self.snapshot.get(self.database.space(space), key);
        value.map_err(|error| self.database.fault("read", error))
    }

    /// Iterates over a keyspace.
    pub(super) fn all(&self, space: Space) -> RecordRange<'a> {
        RecordRange {
            database: self.database,
            iter: self.snapshot.iter(self.database.space(space)),
        }
    }

    /// Iterates over the keys that begin with `prefix`.
    pub(super) fn beginning(&self, space: Space, prefix: &[u8]) -> RecordRange<'a> {
        let iter = self.snapshot.prefix(self.database.space(space), prefix);
        RecordRange { database: self.database, iter }
    }

    /// Iterates over the keys from `from` to `to`, both included.
    pub(super) fn between(&self, space: Space, from: &[u8], to: &[u8]) -> RecordRange<'a> {
        let iter = self.snapshot.range(self.database.space(space), from..=to);
        RecordRange { database: self.database, iter }
    }

    pub(super) fn damaged(&self, what: &'static str) -> StoreError {
        self.database.damaged(what)
    }
}

/// An iterator over records in the order of their keys.
pub(super) struct RecordRange<'a> {
    database: &'a Database,
    iter: fjall::Iter,
}

impl RecordRange<'_> {
    fn open(&self, guard: fjall::Guard) -> Result<(UserKey, UserValue), StoreError> {
        guard.into_inner().map_err(|error| self.database.fault("read", error))
    }

    /// Returns the last key.
    pub(super) fn last_key(mut self) -> Result<Option<UserKey>, StoreError> {
        let last = self.iter.next_back().map(fjall::Guard::key).transpose();
        last.map_err(|error| self.database.fault("read", error))
    }
}

impl Iterator for RecordRange<'_> {
    type Item = Result<(UserKey, UserValue), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let guard = self.iter.next()?;
        Some(self.open(guard))
    }
}

/// A pass over a keyspace of sessions, read session by session.
pub(super) struct BySession<'a> {
    pass: RecordRange<'a>,
    ahead: Option<(SessionNumber, UserKey, UserValue)>,
}

impl<'a> BySession<'a> {
    pub(super) fn new(view: &View<'a>, space: Space) -> Result<Self, StoreError> {
        let mut new = Self { pass: view.all(space), ahead: None };
        new.step()?;
        Ok(new)
    }

    /// Returns the next record of `session`. Sessions must be requested in ascending order.
    pub(super) fn next_of(
        &mut self,
        session: SessionNumber,
    ) -> Result<Option<(UserKey, UserValue)>, StoreError> {
        // A session that has no record in this keyspace is passed over.
        while self.ahead.as_ref().is_some_and(|(number, ..)| *number < session) {
            self.step()?;
        }
        match self.ahead.take() {
            Some((number, key, value)) if number == session => {
                self.step()?;
                Ok(Some((key, value)))
            }
            // The record belongs to a later session, and stays until that is asked for.
            later => {
                self.ahead = later;
                Ok(None)
            }
        }
    }

    fn step(&mut self) -> Result<(), StoreError> {
        self.ahead = match self.pass.next().transpose()? {
            None => None,
            Some((key, value)) => {
                let number = keys::split(&key).map(|(number, _)| SessionNumber(number));
                let number = number.ok_or_else(|| self.pass.database.damaged("a key is too short"));
                Some((number?, key, value))
            }
        };
        Ok(())
    }
}
