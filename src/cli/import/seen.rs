//! The records that an import has seen so far, to refuse a second one of the same key.
//!
//! The lines of one queue stand together in an export, so only one queue is in memory.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use super::line::{ExportLine, QueuedLine, RecordLine, SessionLine};

/// Presence versions stay below 2^53, so that every JSON parser reads them. Half of them is left for
/// the versions to come.
const PRESENCE_VERSIONS_END: u64 = 1 << 52;

#[derive(Default)]
pub(super) struct Seen {
    /// Number of lines.
    lines: u64,
    has_ended: bool,
    /// The sessions, and whether lines of their queues have begun.
    sessions: HashMap<u64, bool>,
    /// The last session of each client.
    clients: HashMap<Box<str>, u64>,
    topics: HashSet<Box<str>>,
    records: HashSet<(String, String)>,
    histories: HashSet<Box<str>>,
    queue: QueueOfLines,
}

/// The queue to which the lines being read belong.
#[derive(Default)]
struct QueueOfLines {
    session: Option<u64>,
    places: HashSet<u64>,
    packet_ids: HashSet<u16>,
}

impl Seen {
    /// Notes a line.
    ///
    /// # Errors
    /// Why it does not fit to the lines before it.
    pub(super) fn note(&mut self, line: &ExportLine) -> Result<(), String> {
        // The numbers in it are taken before there is anything with such a number.
        if (self.lines > 0) == matches!(line, ExportLine::Bounds(_)) {
            return Err("the line of the kind bounds is the first one".to_owned());
        }
        if self.has_ended {
            return Err("the line of the kind end is the last one".to_owned());
        }
        // Each other kind of line must not repeat a key.
        let before = self.lines;
        self.lines += 1;
        match line {
            ExportLine::Bounds(bounds) if bounds.presence_version >= PRESENCE_VERSIONS_END => {
                Err("presence_version is not below 2^52".to_owned())
            }
            ExportLine::Session(session) => self.note_session(session),
            ExportLine::Queued(queued) => self.note_queued(queued),
            ExportLine::Retained(retained) => {
                let topic = &retained.message.topic;
                match self.topics.insert(topic.as_str().into()) {
                    true => Ok(()),
                    false => Err(format!("the topic {topic:?} has a retained message already")),
                }
            }
            ExportLine::Record(RecordLine { namespace, key, .. }) => {
                match self.records.insert((namespace.clone(), key.clone())) {
                    true => Ok(()),
                    false => Err(format!("the record {key:?} of {namespace:?} is there already")),
                }
            }
            ExportLine::History(history) => {
                let client_id = &history.client_id;
                match self.histories.insert(client_id.clone()) {
                    true => Ok(()),
                    false => Err(format!("the client {client_id:?} has a history already")),
                }
            }
            ExportLine::End(end) if end.lines != before => {
                Err(format!("the export had {} lines before this one, not {before}", end.lines))
            }
            ExportLine::End(_) => {
                self.has_ended = true;
                Ok(())
            }
            ExportLine::Bounds(_) | ExportLine::Login(_) => Ok(()),
        }
    }

    /// Returns whether the last line of an export was noted.
    pub(super) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn note_session(&mut self, line: &SessionLine) -> Result<(), String> {
        let SessionLine { session, client_id, replaces, .. } = line;
        if self.sessions.insert(*session, false).is_some() {
            return Err(format!("session {session} is there already"));
        }
        match self.clients.entry(client_id.clone()) {
            Entry::Vacant(place) => drop(place.insert(*session)),
            // A client has two sessions only while the new one replaces the former one.
            Entry::Occupied(mut place) if Some(*place.get()) == *replaces => {
                place.insert(*session);
            }
            Entry::Occupied(place) => {
                let there = place.get();
                return Err(format!("the client {client_id:?} has session {there} already"));
            }
        }
        Ok(())
    }

    fn note_queued(&mut self, line: &QueuedLine) -> Result<(), String> {
        let QueuedLine { session, place, packet_id, .. } = line;
        if self.queue.session != Some(*session) {
            match self.sessions.get_mut(session) {
                None => return Err(format!("session {session} has no line before this one")),
                // Its places were forgotten when the next queue
                // began, so a repetition would not be noticed.
                Some(true) => {
                    return Err(format!("the lines of session {session}'s queue are apart"));
                }
                Some(has_begun) => *has_begun = true,
            }
            self.queue = QueueOfLines { session: Some(*session), ..QueueOfLines::default() };
        }
        if !self.queue.places.insert(*place) {
            return Err(format!("place {place} of session {session}'s queue is there already"));
        }
        match packet_id.is_none_or(|id| self.queue.packet_ids.insert(id)) {
            true => Ok(()),
            false => Err(format!("the packet_id is in session {session}'s queue already")),
        }
    }
}
