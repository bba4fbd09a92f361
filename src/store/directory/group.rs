//! Computes the effect of a group of changes: data that is added and removed within the group is
//! not written at all, and each queue position is written at most once.
//!
//! The database is read only for data that may exist: queueing messages in order reads none. Knows
//! the state before the group and encodes the state after it as records; does not write them.

use foldhash::fast::RandomState;
use hashbrown::{HashMap, hash_map::Entry};

use super::{
    database::{Database, Writes},
    history::HistoryGroup,
    keys::{self, Space},
    records::{self, SentRecord},
    sessionless::{Sessionless, write_bounds},
    tally::Tally,
    view::View,
};
use crate::{
    journal::{
        Change, QueuePlace, QueuedMessage, SentAs, SessionNumber, SessionRecord,
        SubscriptionRecord, WillRecord,
    },
    mqtt::PacketId,
    store::{Bounds, StoreError},
};

type Map<K, V> = HashMap<K, V, RandomState>;

/// For existing sessions, the last queue position that may be in use in the store. Sessions that
/// are missing here are looked up in the store.
pub(super) type KnownSessions = Map<SessionNumber, QueuePlace>;

/// Collects changes by session, or by their kind if they belong to none.
pub(super) struct Group<'a> {
    database: &'a Database,
    known: &'a KnownSessions,
    /// The bounds before the group.
    bounds: Bounds,
    sessions: Map<SessionNumber, SessionChanges<'a>>,
    sessionless: Sessionless<'a>,
    histories: HistoryGroup<'a>,
}

/// The changes of one session.
struct SessionChanges<'a> {
    /// Whether the session exists now.
    is_there: bool,
    /// Whether the store has the session.
    is_stored: bool,
    /// Whether the stored session is removed before the changes here are written.
    has_ended: bool,
    /// The store has no queue position of the session after this one.
    stored_to: QueuePlace,
    record: Option<&'a SessionRecord>,
    will: Option<Option<&'a WillRecord>>,
    subscriptions: Map<&'a str, Option<&'a SubscriptionRecord>>,
    accepted: Map<PacketId, bool>,
    queue: Map<QueuePlace, PlaceChange<'a>>,
}

/// The change of one queue position.
struct PlaceChange<'a> {
    before: PositionBefore,
    now: Now<'a>,
}

/// The stored state of a queue position.
#[derive(Clone, Copy, Default)]
struct PositionBefore {
    /// A message, and its number if it has one.
    message: Option<Option<u64>>,
    sent: Option<SentRecord>,
}

/// The new state of a queue position.
#[derive(Clone, Copy)]
enum Now<'a> {
    Nothing,
    New(&'a QueuedMessage, Option<SentAs>),
    /// The stored message, in another state.
    Kept(Option<SentAs>),
    Released(SentAs),
}

impl<'a> Group<'a> {
    pub(super) fn new(database: &'a Database, known: &'a KnownSessions, bounds: Bounds) -> Self {
        Self {
            database,
            known,
            bounds,
            sessions: Map::default(),
            sessionless: Sessionless::new(bounds),
            histories: HistoryGroup::new(database),
        }
    }

    /// Adds the next change.
    pub(super) fn add(&mut self, change: &'a Change) -> Result<(), StoreError> {
        match change {
            Change::PutSession(number, record) => {
                let session = self.session(*number)?;
                // The record makes the session: without one, its other changes have no effect.
                session.is_there = true;
                session.record = Some(record);
            }
            Change::EndSession(number) => self.session(*number)?.end(),
            Change::Retain(..)
            | Change::ClearRetained(_)
            | Change::ReserveVersions(_)
            | Change::Clock(_)
            | Change::NoteLogin(..)
            | Change::ForgetLogin(_)
            | Change::PutRecord(..)
            | Change::RemoveRecord(..) => self.sessionless.add(change),
            Change::NoteConnections(_) | Change::TidyHistory(_) => self.histories.add(change)?,
            // Changes of a session that has ended have no effect.
            Change::Subscribe(number, ..)
            | Change::Unsubscribe(number, _)
            | Change::Accept(number, _)
            | Change::Forget(number, _)
            | Change::PutWill(number, _)
            | Change::DropWill(number) => {
                let session = self.session(*number)?;
                if session.is_there {
                    session.add(change);
                }
            }
            Change::Enqueue(number, ..)
            | Change::Send(number, ..)
            | Change::Release(number, _)
            | Change::Dequeue(number, _) => {
                let database = self.database;
                let session = self.session(*number)?;
                if session.is_there {
                    // May read the store: the former state of a place decides what is written.
                    session.add_to_queue(database, *number, change)?;
                }
            }
        }
        Ok(())
    }

    fn session(&mut self, number: SessionNumber) -> Result<&mut SessionChanges<'a>, StoreError> {
        match self.sessions.entry(number) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let stored = match self.known.get(&number) {
                    Some(stored_to) => Some(*stored_to),
                    None => stored_to(self.database, number)?,
                };
                Ok(entry.insert(SessionChanges::new(stored)))
            }
        }
    }

    /// Returns the writes, and the last position of each session; `None` for a session that does
    /// not exist.
    pub(super) fn finish(self) -> Result<Outcome, StoreError> {
        let mut outcome = Outcome::default();
        // Messages are counted in all queues together, because one may be in thousands of them.
        let mut tally = Tally::new(self.bounds.message);
        let mut highest_session = self.bounds.session;
        for (number, session) in &self.sessions {
            session.write(self.database, *number, &mut tally, &mut outcome.writes)?;
            if session.record.is_some() {
                highest_session = highest_session.max(number.0);
            }
            // The last position is remembered, so that the next group need not read it.
            outcome.sessions.push((*number, session.is_there.then(|| session.reaches())));
        }
        let sessionless = &self.sessionless;
        sessionless.write(self.database, &mut tally, &mut outcome.writes)?;
        self.histories.write(&mut outcome.writes);
        outcome.bounds = sessionless.bounds(highest_session, tally.highest());
        // Last of the content: now it is known which messages are in a queue.
        tally.write(self.database, &mut outcome.writes)?;
        write_bounds(&self.bounds, &outcome.bounds, &mut outcome.writes);
        Ok(outcome)
    }
}

/// The effect of a group.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) writes: Writes,
    /// The bounds after the group.
    pub(super) bounds: Bounds,
    /// The last position each session may have in the store; `None` if the session does not exist.
    pub(super) sessions: Vec<(SessionNumber, Option<QueuePlace>)>,
}

/// Returns the last stored position of a session; `None` if the session does not exist.
fn stored_to(database: &Database, number: SessionNumber) -> Result<Option<QueuePlace>, StoreError> {
    let key = keys::session(number);
    // Most sessions of a group are known; this is for the first change after a start.
    if database.read(Space::Sessions, &key)?.is_none() {
        return Ok(None);
    }
    let view = View::new(database);
    let mut last = QueuePlace(0);
    // A released message is only among the sent ones.
    for space in [Space::Queue, Space::Sent] {
        if let Some(key) = view.beginning(space, &key).last_key()? {
            let place = keys::split_place(&key).map(|(_, place)| place);
            let damaged = || database.damaged("a place in a queue cannot be read");
            last = last.max(place.ok_or_else(damaged)?);
        }
    }
    Ok(Some(last))
}

impl<'a> SessionChanges<'a> {
    fn new(stored_to: Option<QueuePlace>) -> Self {
        Self {
            is_there: stored_to.is_some(),
            is_stored: stored_to.is_some(),
            has_ended: false,
            stored_to: stored_to.unwrap_or(QueuePlace(0)),
            record: None,
            will: None,
            subscriptions: Map::default(),
            accepted: Map::default(),
            queue: Map::default(),
        }
    }

    fn end(&mut self) {
        let is_stored = self.is_stored;
        *self = Self { is_stored, has_ended: is_stored, ..Self::new(None) };
    }

    fn add(&mut self, change: &'a Change) {
        // The last change of each entry in the group counts.
        match change {
            Change::Subscribe(_, filter, subscription) => {
                self.subscriptions.insert(filter, Some(subscription));
            }
            Change::Unsubscribe(_, filter) => {
                self.subscriptions.insert(filter, None);
            }
            Change::Accept(_, packet_id) => {
                self.accepted.insert(*packet_id, true);
            }
            Change::Forget(_, packet_id) => {
                self.accepted.insert(*packet_id, false);
            }
            // The inner `None` removes the Will; without the outer one it stays as it is stored.
            Change::PutWill(_, will) => self.will = Some(Some(will)),
            Change::DropWill(_) => self.will = Some(None),
            Change::PutSession(..)
            | Change::EndSession(_)
            | Change::Enqueue(..)
            | Change::Send(..)
            | Change::Release(..)
            | Change::Dequeue(..)
            | Change::Retain(..)
            | Change::ClearRetained(_)
            | Change::ReserveVersions(_)
            | Change::Clock(_)
            | Change::NoteLogin(..)
            | Change::ForgetLogin(_)
            | Change::PutRecord(..)
            | Change::RemoveRecord(..)
            | Change::NoteConnections(_)
            | Change::TidyHistory(_) => {}
        }
    }

    fn add_to_queue(
        &mut self,
        database: &Database,
        number: SessionNumber,
        change: &'a Change,
    ) -> Result<(), StoreError> {
        if let Change::Enqueue(_, place, message, sent) = change {
            let now = Now::New(message, *sent);
            // A position above the last stored one needs no read, which makes queueing cheap.
            let may_be_stored = self.may_have_stored(*place);
            match self.queue.entry(*place) {
                // A position that exists already is replaced; the state before the group stays what it was.
                Entry::Occupied(mut entry) => entry.get_mut().now = now,
                Entry::Vacant(entry) => {
                    let before = match may_be_stored {
                        true => before(database, number, *place)?,
                        false => PositionBefore::default(),
                    };
                    entry.insert(PlaceChange { before, now });
                }
            }
            return Ok(());
        }
        let (Change::Send(_, place, _) | Change::Release(_, place) | Change::Dequeue(_, place)) =
            change
        else {
            return Ok(());
        };
        // The group itself has changed this position, so the store need not be asked.
        if let Some(known) = self.queue.get_mut(place) {
            known.now = known.now.after(change);
            return Ok(());
        }
        // The message was never stored, so there is nothing to change.
        if !self.may_have_stored(*place) {
            return Ok(());
        }
        let before = before(database, number, *place)?;
        // A repeated removal finds nothing, and has no effect.
        if before.message.is_some() || before.sent.is_some() {
            let now = before.as_now().after(change);
            self.queue.insert(*place, PlaceChange { before, now });
        }
        Ok(())
    }

    fn may_have_stored(&self, place: QueuePlace) -> bool {
        self.is_stored && !self.has_ended && place <= self.stored_to
    }

    /// Returns the last position that the store may have after the group.
    fn reaches(&self) -> QueuePlace {
        let places = self.queue.iter();
        let taken = places.filter(|(_, change)| !matches!(change.now, Now::Nothing));
        taken.map(|(place, _)| *place).fold(self.stored_to, QueuePlace::max)
    }

    fn write(
        &self,
        database: &Database,
        number: SessionNumber,
        tally: &mut Tally<'a>,
        writes: &mut Writes,
    ) -> Result<(), StoreError> {
        // Records of the former session go first: a session with the same number may begin again.
        if self.has_ended {
            remove_all(database, number, tally, writes)?;
        }
        let session_key = keys::session(number).to_vec();
        if let Some(record) = self.record {
            let record = records::encode_session(record);
            writes.insert((Space::Sessions, session_key.clone()), Some(record));
        }
        if let Some(will) = self.will {
            if let Some(will) = will {
                // Its number must not be given to another message after a restart.
                tally.note(&will.message);
            }
            let will = will.map(records::encode_will);
            let write = Write { space: Space::Wills, key: session_key, value: will };
            self.put(database, write, writes)?;
        }
        for (filter, subscription) in &self.subscriptions {
            let key = keys::subscription(number, filter);
            let value = subscription.map(|record| records::encode_subscription(filter, record));
            self.put(database, Write { space: Space::Subscriptions, key, value }, writes)?;
        }
        for (packet_id, is_accepted) in &self.accepted {
            let key = keys::accepted(number, *packet_id).to_vec();
            let value = is_accepted.then(Vec::new);
            self.put(database, Write { space: Space::Accepted, key, value }, writes)?;
        }
        // Queue and sent messages change together, position by position.
        for (place, change) in &self.queue {
            change.write(keys::place(number, *place), tally, writes);
        }
        Ok(())
    }

    /// Adds a write; skips the removal of a record that does not exist.
    fn put(
        &self,
        database: &Database,
        Write { space, key, value }: Write,
        writes: &mut Writes,
    ) -> Result<(), StoreError> {
        // The records of an ended session are removed already.
        if value.is_some() || (!self.has_ended && database.read(space, &key)?.is_some()) {
            writes.insert((space, key), value);
        }
        Ok(())
    }
}

/// Returns the stored state of a queue position.
fn before(
    database: &Database,
    number: SessionNumber,
    place: QueuePlace,
) -> Result<PositionBefore, StoreError> {
    let key = keys::place(number, place);
    let message = database.read(Space::Queue, &key)?.map(|value| {
        let number = records::queued_number(&value);
        number.ok_or_else(|| database.damaged("a queued message cannot be read"))
    });
    let sent = database.read(Space::Sent, &key)?.map(|value| {
        let sent = records::decode_sent(&value);
        sent.ok_or_else(|| database.damaged("the record of a sent message cannot be read"))
    });
    let message = message.transpose()?.map(|number| number.map(|number| number.get()));
    Ok(PositionBefore { message, sent: sent.transpose()? })
}

struct Write {
    space: Space,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// Removes all stored records of a session.
fn remove_all(
    database: &Database,
    number: SessionNumber,
    tally: &mut Tally<'_>,
    writes: &mut Writes,
) -> Result<(), StoreError> {
    let view = View::new(database);
    for space in Space::OF_SESSIONS {
        for entry in view.beginning(space, &keys::session(number)) {
            let (key, value) = entry?;
            // The message may be in other queues too, so only its count changes.
            if space == Space::Queue {
                let message = records::queued_number(&value);
                let damaged = || database.damaged("a queued message cannot be read");
                if let Some(message) = message.ok_or_else(damaged)? {
                    tally.subtract(message.get());
                }
            }
            writes.insert((space, key.to_vec()), None);
        }
    }
    Ok(())
}

impl PositionBefore {
    /// Returns the stored state as the initial new state.
    const fn as_now<'a>(self) -> Now<'a> {
        match (self.message, self.sent) {
            (_, Some(SentRecord { sent, is_released: true })) => Now::Released(sent),
            (Some(_), Some(SentRecord { sent, .. })) => Now::Kept(Some(sent)),
            (Some(_), None) => Now::Kept(None),
            (None, Some(_) | None) => Now::Nothing,
        }
    }
}

impl<'a> Now<'a> {
    /// Returns the state after a change other than Enqueue.
    const fn after(self, change: &Change) -> Self {
        match (self, change) {
            (Self::Nothing, _) | (_, Change::Dequeue(..)) => Self::Nothing,
            (Self::New(message, _), Change::Send(_, _, sent)) => Self::New(message, Some(*sent)),
            (Self::Kept(_), Change::Send(_, _, sent)) => Self::Kept(Some(*sent)),
            (Self::Released(_), Change::Send(_, _, sent)) => Self::Released(*sent),
            (Self::New(_, Some(sent)) | Self::Kept(Some(sent)), Change::Release(..)) => {
                Self::Released(sent)
            }
            (same, _) => same,
        }
    }
}

impl<'a> PlaceChange<'a> {
    fn write(&self, key: [u8; 16], tally: &mut Tally<'a>, writes: &mut Writes) {
        let (keeps_message, sent) = match self.now {
            Now::Nothing => (false, None),
            Now::New(_, sent) => (false, sent.map(|sent| SentRecord { sent, is_released: false })),
            Now::Kept(sent) => (true, sent.map(|sent| SentRecord { sent, is_released: false })),
            Now::Released(sent) => (false, Some(SentRecord { sent, is_released: true })),
        };
        // A position that no longer has its message gives back its part of the count.
        if let Some(number) = self.before.message.filter(|_| !keeps_message) {
            if let Some(number) = number {
                tally.subtract(number);
            }
            writes.insert((Space::Queue, key.to_vec()), None);
        }
        if let Now::New(message, _) = self.now {
            tally.add(&message.message);
            let record = records::encode_queued(message);
            writes.insert((Space::Queue, key.to_vec()), Some(record));
        }
        // Unchanged records are not written.
        if sent != self.before.sent {
            writes.insert((Space::Sent, key.to_vec()), sent.map(records::encode_sent));
        }
    }
}
