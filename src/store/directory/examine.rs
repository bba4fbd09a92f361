//! Reads the whole store, counts its records and finds inconsistencies.
//!
//! For operators; a running broker does not use it. Knows how all records relate, and repairs
//! nothing.

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use super::{
    database::Database,
    keys::{self, OwnerKey, Space, meta},
    records::{self, Content},
    rings, shared_records,
    view::View,
};
use crate::{
    journal::{LoginKey, QueuePlace, Revision, SessionNumber},
    mqtt::PacketId,
};

type Map<K, V> = HashMap<K, V, RandomState>;
type Set<T> = HashSet<T, RandomState>;

/// Maximum number of faults that are described; further ones are only counted.
const FAULTS_TOLD_MAX: usize = 100;

/// The result of examining a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Examination {
    /// The number and size of the records, by kind.
    pub kinds: Vec<Kind>,
    /// Descriptions of the first faults, one line each.
    pub faults: Vec<String>,
    /// Total number of faults.
    pub faults_in_all: u64,
}

/// The records of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kind {
    /// The name of the kind.
    pub name: &'static str,
    /// The number of records.
    pub records: u64,
    /// Their bytes, including keys.
    pub bytes: u64,
}

impl Examination {
    /// Returns the number of records of a kind.
    #[must_use]
    pub fn records(&self, name: &str) -> u64 {
        self.kinds.iter().filter(|kind| kind.name == name).map(|kind| kind.records).sum()
    }

    fn fault(&mut self, fault: impl Into<String>) {
        self.faults_in_all += 1;
        if self.faults.len() < FAULTS_TOLD_MAX {
            self.faults.push(fault.into());
        }
    }
}

pub(super) fn examine(database: &Database) -> Examination {
    let mut examiner = Examiner {
        view: View::new(database),
        found: Examination::default(),
        sessions: Set::default(),
        sent: Map::default(),
        references: Map::default(),
        highest_message: 0,
        highest_revision: Revision(0),
        places: Set::default(),
        connections: 0,
        owner_places: Set::default(),
        owners: Map::default(),
    };
    // Sessions first: all other parts are compared with them.
    examiner.sessions();
    examiner.parts_of_sessions();
    // Before the queue, which must agree with the messages that were sent.
    examiner.sent();
    examiner.queue();
    // Counts and messages after the queue, whose references they must match.
    examiner.counts();
    examiner.messages();
    examiner.retained();
    examiner.logins();
    examiner.records();
    examiner.histories();
    // Last, because the highest numbers are known only now.
    examiner.bounds();
    examiner.found
}

struct Examiner<'a> {
    view: View<'a>,
    found: Examination,
    sessions: Set<u64>,
    /// Sent messages, and whether each is released.
    sent: Map<(SessionNumber, QueuePlace), bool>,
    /// The contents of the queues about each numbered message.
    references: Map<u64, References>,
    highest_message: u64,
    highest_revision: Revision,
    /// The places of histories in the order in which they leave, as keys.
    places: Set<Vec<u8>>,
    /// The number of connections of all histories.
    connections: u64,
    /// The places of histories among those of their owners, as keys.
    owner_places: Set<Vec<u8>>,
    /// The number of connections of the histories of each owner.
    owners: Map<OwnerKey, u64>,
}

#[derive(Default)]
struct References {
    queues: u64,
    size: usize,
    is_counted: bool,
    is_there: bool,
}

impl Examiner<'_> {
    /// Passes each record of a keyspace to `each` and counts it. Errors of `each` become faults,
    /// with the name of the keyspace.
    fn pass(
        &mut self,
        space: Space,
        name: &'static str,
        mut each: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<(), String>,
    ) {
        let mut kind = Kind { name, records: 0, bytes: 0 };
        // One fault does not end the examination: an operator wants to know all of them.
        for entry in self.view.all(space) {
            let (key, value) = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.found.fault(format!("{name}: {error}"));
                    break; // the rest of the keyspace is unreadable
                }
            };
            kind.records += 1;
            kind.bytes += (key.len() + value.len()) as u64;
            if let Err(fault) = each(self, &key, &value) {
                self.found.fault(format!("{name}: {fault}"));
            }
        }
        self.found.kinds.push(kind);
    }

    fn sessions(&mut self) {
        self.pass(Space::Sessions, "sessions", |this, key, value| {
            let Some((number, [])) = keys::split(key) else {
                return Err("a key is not a session's number".into());
            };
            this.sessions.insert(number);
            let record = records::decode_session(value);
            record.map(drop).ok_or_else(|| format!("session {number} cannot be read"))
        });
    }

    fn parts_of_sessions(&mut self) {
        self.pass(Space::Wills, "wills", |this, key, value| {
            let (number, _) = this.session_of(key)?;
            let will = records::decode_will(value);
            let will = will.ok_or_else(|| format!("the one of session {number} cannot be read"))?;
            // Noted for the check of the bounds, which needs the highest number in use.
            this.note_number(will.message.number().map_or(0, |number| number.get()));
            Ok(())
        });
        self.pass(Space::Subscriptions, "subscriptions", |this, key, value| {
            let (number, _) = this.session_of(key)?;
            let subscription = records::decode_subscription(value);
            let (filter, _) =
                subscription.ok_or_else(|| format!("one of session {number} cannot be read"))?;
            // UNSUBSCRIBE makes the key from the filter, so it would never find this entry.
            match keys::subscription(SessionNumber(number), &filter) == key {
                true => Ok(()),
                false => Err(format!("session {number} has {filter} under a wrong key")),
            }
        });
        self.pass(Space::Accepted, "accepted QoS 2 messages", |this, key, value| {
            let (number, rest) = this.session_of(key)?;
            // The key is the whole entry, so a value means damage.
            match keys::packet_id(rest).filter(|_| value.is_empty()) {
                Some(_) => Ok(()),
                None => Err(format!("one of session {number} cannot be read")),
            }
        });
    }

    fn sent(&mut self) {
        // Packet Identifiers are unique among the messages in flight of one session. [MQTT-2.2.1-4]
        let mut packet_ids: Set<(u64, PacketId)> = Set::default();
        self.pass(Space::Sent, "sent messages", |this, key, value| {
            let (number, _) = this.session_of(key)?;
            let read = keys::split_place(key).zip(records::decode_sent(value));
            let (at, record) =
                read.ok_or_else(|| format!("one of session {number} cannot be read"))?;
            this.sent.insert(at, record.is_released);
            let packet_id = record.sent.packet_id;
            match packet_ids.insert((number, packet_id)) {
                true => Ok(()),
                false => Err(format!(
                    "session {number} has Packet Identifier {} twice",
                    packet_id.number()
                )),
            }
        });
    }

    fn queue(&mut self) {
        self.pass(Space::Queue, "queued messages", |this, key, value| {
            let (number, _) = this.session_of(key)?;
            let read = keys::split_place(key).zip(records::decode_queued(value));
            let (at, entry) =
                read.ok_or_else(|| format!("one of session {number} cannot be read"))?;
            // Messages without a number are in one queue only, and their content is in its entry.
            match entry.content {
                Content::Message(message) => {
                    this.note_number(message.number().map_or(0, |number| number.get()));
                }
                Content::Number(message) => {
                    let references = this.references.entry(message.get()).or_default();
                    references.queues += 1;
                    // All entries of one message have the same size, because sizes count against limits.
                    let size = std::mem::replace(&mut references.size, entry.size);
                    if references.queues > 1 && size != entry.size {
                        return Err(format!("message {message} has two sizes"));
                    }
                }
            }
            // What stays in `sent` after this pass has no message in a queue.
            match this.sent.remove(&at) {
                Some(true) => Err(format!(
                    "session {number}: the message at {} is released but still queued",
                    at.1.0
                )),
                Some(false) | None => Ok(()),
            }
        });
        // Only a released message may be in `sent` without being queued.
        for ((session, place), is_released) in std::mem::take(&mut self.sent) {
            if !is_released {
                let (session, place) = (session.0, place.0);
                self.found
                    .fault(format!("session {session}: the sent message at {place} is missing"));
            }
        }
    }

    fn counts(&mut self) {
        self.pass(Space::Counts, "counts of shared messages", |this, key, value| {
            let (number, count) = keys::split(key)
                .filter(|(_, rest)| rest.is_empty())
                .map(|(number, _)| number)
                .zip(records::decode_number(value))
                .ok_or("one cannot be read")?;
            this.note_number(number);
            // A message whose entries are gone has no references left.
            let queues = match this.references.get_mut(&number) {
                None => 0,
                Some(references) => {
                    references.is_counted = true;
                    references.queues
                }
            };
            match queues == count {
                true => Ok(()),
                false => {
                    Err(format!("message {number} has the count {count}, but {queues} in queues"))
                }
            }
        });
    }

    fn messages(&mut self) {
        self.pass(Space::Messages, "shared messages", |this, key, value| {
            let Some((number, [])) = keys::split(key) else {
                return Err("a key is not a message's number".into());
            };
            let message = records::decode_message(value);
            let message = message.ok_or_else(|| format!("message {number} cannot be read"))?;
            let Some(references) = this.references.get_mut(&number) else {
                return Err(format!("message {number} is in no queue"));
            };
            references.is_there = true;
            // Queues count the size in their entries, so another one would let their sums drift.
            let fits = message.number().is_some_and(|own| own.get() == number)
                && message.size() == references.size;
            match fits {
                true => Ok(()),
                false => Err(format!("message {number} differs from its entries in queues")),
            }
        });
        // Each message in a queue must have its content and its count.
        for (number, references) in std::mem::take(&mut self.references) {
            if !references.is_there {
                self.found.fault(format!("message {number} is queued but missing"));
            }
            if !references.is_counted {
                self.found.fault(format!("message {number} is queued but not counted"));
            }
        }
    }

    fn retained(&mut self) {
        self.pass(Space::Retained, "retained messages", |this, key, value| {
            let message = records::decode_retained(value).ok_or("one cannot be read")?.message;
            this.note_number(message.number().map_or(0, |number| number.get()));
            match keys::retained(message.topic()) == key {
                true => Ok(()),
                false => Err(format!("{} is under a wrong key", message.topic())),
            }
        });
    }

    fn logins(&mut self) {
        self.pass(Space::Logins, "logins", |_, key, value| {
            let is_well =
                key.len() == size_of::<LoginKey>() && records::decode_number(value).is_some();
            is_well.then_some(()).ok_or_else(|| "one cannot be read".to_owned())
        });
    }

    fn records(&mut self) {
        self.pass(Space::Records, "records", |this, key, value| {
            let record = keys::split_record(key).and_then(|_| shared_records::decode(value));
            let record = record.ok_or_else(|| "one cannot be read".to_owned())?;
            this.highest_revision = this.highest_revision.max(record.revision);
            Ok(())
        });
    }

    fn histories(&mut self) {
        self.pass(Space::HistoryOrder, "places of histories", |this, key, value| {
            let place = keys::split_history_place(key).filter(|_| value.is_empty());
            place.ok_or_else(|| "one cannot be read".to_owned())?;
            this.places.insert(key.to_vec());
            Ok(())
        });
        self.pass(Space::OwnerOrder, "places of histories of owners", |this, key, value| {
            let place = keys::split_owner_place(key).filter(|_| value.is_empty());
            place.ok_or_else(|| "one cannot be read".to_owned())?;
            this.owner_places.insert(key.to_vec());
            Ok(())
        });
        self.pass(Space::History, "histories", |this, key, value| {
            let ring = rings::decode(value).ok_or_else(|| "one cannot be read".to_owned())?;
            this.connections += ring.connections.len() as u64;
            let client_id = &ring.client_id;
            // A long identifier is hashed in the key, so only the record tells which client it is for.
            if keys::history(client_id) != key {
                return Err(format!("the one of {client_id:?} is under a wrong key"));
            }
            let no_place = || format!("the one of {client_id:?} has no place");
            let (place, owner) = ring.place().zip(ring.owner()).ok_or_else(no_place)?;
            let mut has_place = this.places.remove(&keys::history_place(place, key));
            // Rings of former formats are not counted for their owner until they are written again.
            if rings::is_counted(value) {
                let owner = keys::owner(&owner);
                has_place &= this.owner_places.remove(&keys::owner_place(&owner, place, key));
                *this.owners.entry(owner).or_default() += ring.connections.len() as u64;
            }
            has_place.then_some(()).ok_or_else(no_place)
        });
        // Each ring has removed its own places; the rest belongs to none.
        for _ in self.places.drain().chain(self.owner_places.drain()) {
            self.found.fault("histories: a place has no history");
        }
        // The counts must be the sums of the rings that were read above.
        self.pass(Space::OwnerCounts, "owners of histories", |this, key, value| {
            let counted =
                key.try_into().ok().and_then(|owner: OwnerKey| this.owners.remove(&owner));
            let is_right = counted.is_some() && counted == records::decode_number(value);
            is_right.then_some(()).ok_or_else(|| "one has another number of connections".to_owned())
        });
        for _ in std::mem::take(&mut self.owners) {
            self.found.fault("histories: an owner is not counted");
        }
        // The sum of all rings is stored, because counting them at a start would read them all.
        let counted = self.view.read(Space::Meta, meta::CONNECTIONS).ok().flatten();
        let counted = counted.map_or(Some(0), |counted| records::decode_number(&counted));
        if counted != Some(self.connections) {
            self.found.fault("histories: their connections are counted wrongly");
        }
    }

    fn bounds(&mut self) {
        let bounds = match super::read::bounds(&self.view) {
            Ok(bounds) => bounds,
            Err(error) => return self.found.fault(error.to_string()),
        };
        // Numbers go on above the stored bounds, so a higher one in use would be given twice.
        if self.highest_message > bounds.message {
            self.found.fault("message numbers would be reused");
        }
        if self.sessions.iter().any(|number| *number > bounds.session) {
            self.found.fault("session numbers would be reused");
        }
        if self.highest_revision > bounds.revision {
            self.found.fault("revisions of records would be reused");
        }
    }

    /// Returns the session number of a key, if that session exists, and the rest of the key.
    fn session_of<'k>(&self, key: &'k [u8]) -> Result<(u64, &'k [u8]), String> {
        let (number, rest) = keys::split(key).ok_or("a key is too short")?;
        match self.sessions.contains(&number) {
            true => Ok((number, rest)),
            false => Err(format!("their session {number} is missing")),
        }
    }

    fn note_number(&mut self, number: u64) {
        self.highest_message = self.highest_message.max(number);
    }
}
