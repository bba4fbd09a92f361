//! The changes of a group that belong to no session: retained messages, logins, records, and the
//! counters to continue from.
//!
//! As in `group.rs`, what is added and removed within the group is not written.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{
    database::{Database, Writes},
    keys::{self, Space, meta},
    records, shared_records,
    tally::Tally,
};
use crate::{
    journal::{Change, LoginKey, Record, RecordKey, Revision},
    mqtt::{Message, Timestamp},
    owners::Owner,
    store::{Bounds, StoreError},
};

type Map<K, V> = HashMap<K, V, RandomState>;

/// A message and its owner.
type RetainedBy<'a> = (&'a Arc<Message>, Option<&'a Owner>);

/// Collects the changes that belong to no session.
pub(super) struct Sessionless<'a> {
    versions: u64,
    clock: Timestamp,
    revision: Revision,
    retained: Map<&'a str, Option<RetainedBy<'a>>>,
    logins: Map<&'a LoginKey, Option<Timestamp>>,
    records: Map<&'a RecordKey, Option<&'a Record>>,
}

impl<'a> Sessionless<'a> {
    /// Begins with the bounds before the group.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            versions: bounds.versions,
            clock: bounds.clock,
            revision: bounds.revision,
            retained: Map::default(),
            logins: Map::default(),
            records: Map::default(),
        }
    }

    /// Adds the next change; ignores changes of sessions.
    pub(super) fn add(&mut self, change: &'a Change) {
        match change {
            Change::Retain(message, owner) => {
                self.retained.insert(message.topic(), Some((message, owner.as_ref())));
            }
            Change::ClearRetained(topic) => drop(self.retained.insert(topic, None)),
            // The highest counts: shards may hand over reservations in another order.
            Change::ReserveVersions(up_to) => self.versions = self.versions.max(*up_to),
            Change::Clock(now) => self.clock = self.clock.max(*now),
            Change::NoteLogin(key, at) => drop(self.logins.insert(key, Some(*at))),
            Change::ForgetLogin(key) => drop(self.logins.insert(key, None)),
            Change::PutRecord(key, record) => {
                // A removal counts too, so that a revision is not used twice.
                self.revision = self.revision.max(record.revision);
                self.records.insert(key, Some(record));
            }
            Change::RemoveRecord(key, revision) => {
                self.revision = self.revision.max(*revision);
                self.records.insert(key, None);
            }
            Change::PutSession(..)
            | Change::EndSession(_)
            | Change::Subscribe(..)
            | Change::Unsubscribe(..)
            | Change::Enqueue(..)
            | Change::Send(..)
            | Change::Release(..)
            | Change::Dequeue(..)
            | Change::Accept(..)
            | Change::Forget(..)
            | Change::PutWill(..)
            | Change::DropWill(_)
            | Change::NoteConnections(_)
            | Change::TidyHistory(_) => {}
        }
    }

    /// Adds the writes, and the numbers of retained messages to `tally`.
    pub(super) fn write(
        &self,
        database: &Database,
        tally: &mut Tally<'a>,
        writes: &mut Writes,
    ) -> Result<(), StoreError> {
        for (topic, message) in &self.retained {
            if let Some((message, _)) = message {
                // Its number must stay above those of new messages.
                tally.note(message);
            }
            let record = message.map(|(message, owner)| records::encode_retained(message, owner));
            put_or_remove(database, Space::Retained, keys::retained(topic), record, writes)?;
        }
        for (key, at) in &self.logins {
            let record = at.map(|at| records::encode_number(at.0));
            writes.insert((Space::Logins, key.to_vec()), record);
        }
        for (key, record) in &self.records {
            let record = record.map(shared_records::encode);
            put_or_remove(database, Space::Records, keys::record(key), record, writes)?;
        }
        Ok(())
    }

    /// Returns the bounds after the group, whose highest numbers of a session and a message are
    /// given.
    pub(super) const fn bounds(&self, session: u64, message: u64) -> Bounds {
        let (versions, clock, revision) = (self.versions, self.clock, self.revision);
        Bounds { versions, session, message, clock, revision }
    }
}

/// Adds a write; skips the removal of a record that does not exist.
fn put_or_remove(
    database: &Database,
    space: Space,
    key: Vec<u8>,
    record: Option<Vec<u8>>,
    writes: &mut Writes,
) -> Result<(), StoreError> {
    if record.is_some() || database.read(space, &key)?.is_some() {
        writes.insert((space, key), record);
    }
    Ok(())
}

/// Adds the writes of the bounds that have grown.
pub(super) fn write_bounds(before: &Bounds, after: &Bounds, writes: &mut Writes) {
    for (key, before, after) in [
        (meta::VERSIONS, before.versions, after.versions),
        (meta::CLOCK, before.clock.0, after.clock.0),
        (meta::SESSION, before.session, after.session),
        (meta::MESSAGE, before.message, after.message),
        (meta::REVISION, before.revision.0, after.revision.0),
    ] {
        if after > before {
            writes.insert((Space::Meta, key.to_vec()), Some(records::encode_number(after)));
        }
    }
}
