//! Builds a store from the output of [`export`](super::export): line by line, in groups of changes.
//! The store gets its place when it is complete.

mod history;
mod line;
mod seen;

use std::{io::BufRead, num::NonZeroU64, path::Path, sync::Arc};

use hearthmq::{
    mqtt::{Message, Publication, QoS, Timestamp},
    store::{
        Change, Durability, NewStore, QueuePlace, RecordKey, Revision, SessionNumber,
        SessionRecord, Store,
    },
};

use self::{
    line::{BoundsLine, ExportLine, add},
    seen::Seen,
};
use super::Failure;

/// Number of changes after which a group is written.
const GROUP_CHANGES: usize = 4_096;
/// Number of bytes of lines after which a group is written.
const GROUP_BYTES: usize = 8 << 20;

/// Why an export cannot be imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    #[error("cannot read {path}: {source}; name a file written by `hearthmq store export`")]
    Input { path: String, source: std::io::Error },
    #[error(
        "{path}, line {line} is not a valid line of an export: {problem}; nothing was imported, \
         correct the line or export again"
    )]
    ExportLine { path: String, line: u64, problem: String },
    #[error(
        "{path}, line {line} is longer than {bytes_max} bytes; nothing was imported. If the file \
         is an export, allow longer lines with --line-bytes-max"
    )]
    TooLong { path: String, line: u64, bytes_max: u64 },
    #[error("{path} is empty; nothing was imported")]
    Empty { path: String },
    #[error(
        "{path} does not have the last line of an export; nothing was imported. It is a part of an \
         export, or an earlier version wrote it; import what it has with --incomplete"
    )]
    Incomplete { path: String },
}

/// An export that is read line by line.
pub(super) struct LineReader<'i> {
    pub(super) input: &'i mut dyn BufRead,
    /// Its name.
    pub(super) path: String,
    /// The maximum length of a line, without its end.
    pub(super) bytes_max: u64,
    /// The number of lines so far.
    pub(super) count: u64,
}

impl LineReader<'_> {
    /// Reads the next line into `bytes`; returns whether there is one.
    fn next(&mut self, bytes: &mut Vec<u8>) -> Result<bool, Failure> {
        bytes.clear();
        // A line without an end must not fill the memory.
        let mut bounded = std::io::Read::take(&mut *self.input, self.bytes_max.saturating_add(1));
        let read = bounded.read_until(b'\n', bytes);
        let path = || self.path.clone();
        let read = read.map_err(|source| ImportError::Input { path: path(), source })?;
        if read == 0 {
            return Ok(false);
        }
        self.count += 1;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        if bytes.len() as u64 > self.bytes_max {
            let (line, bytes_max) = (self.count, self.bytes_max);
            return Err(ImportError::TooLong { path: path(), line, bytes_max }.into());
        }
        Ok(true)
    }

    fn fault(&self, problem: impl ToString) -> ImportError {
        let problem = problem.to_string();
        ImportError::ExportLine { path: self.path.clone(), line: self.count, problem }
    }
}

/// The result of an import.
pub(super) struct ImportedStore {
    /// The number of lines, without the last one.
    pub(super) lines: u64,
    /// Whether the export has its last line.
    pub(super) is_whole: bool,
}

/// Builds the store of a directory that has none. An export without its last line is refused if it
/// `must_be_whole`.
pub(super) fn import(
    directory: &Path,
    lines: &mut LineReader<'_>,
    must_be_whole: bool,
) -> Result<ImportedStore, Failure> {
    let new = NewStore::begin(directory)?;
    let store = new.store();
    let mut seen = Seen::default();
    let mut group = Vec::new();
    let mut group_bytes = 0;
    let mut bytes = Vec::new();
    while lines.next(&mut bytes)? {
        let line: ExportLine =
            serde_json::from_slice(&bytes).map_err(|error| lines.fault(error))?;
        // Before it is added: the store would replace a record of the same key silently.
        seen.note(&line).map_err(|problem| lines.fault(problem))?;
        // The first line, so that no record with such a number is there yet.
        if let ExportLine::Bounds(bounds) = &line {
            take_numbers(store, bounds)?;
        }
        add(line, &mut group).map_err(|problem| lines.fault(problem))?;
        group_bytes += bytes.len();
        // Bounded in both: a million small records, or a few of a megabyte each.
        if group.len() >= GROUP_CHANGES || group_bytes >= GROUP_BYTES {
            store.apply(&group, Durability::Written)?;
            group.clear();
            group_bytes = 0;
        }
    }
    let is_whole = seen.has_ended();
    if lines.count == 0 {
        return Err(ImportError::Empty { path: lines.path.clone() }.into());
    }
    if must_be_whole && !is_whole {
        return Err(ImportError::Incomplete { path: lines.path.clone() }.into());
    }
    // Only the last group is synced, which includes all before it.
    store.apply(&group, Durability::Synced)?;
    new.finish()?;
    Ok(ImportedStore { lines: lines.count - u64::from(is_whole), is_whole })
}

/// Reserves the numbers that the exported store has already assigned: stores a record under the
/// last number of each kind and removes it again, which leaves nothing else behind.
fn take_numbers(store: &dyn Store, bounds: &BoundsLine) -> Result<(), Failure> {
    let BoundsLine { presence_version, session, message, clock, revision } = *bounds;
    let mut group =
        vec![Change::ReserveVersions(presence_version), Change::Clock(Timestamp(clock))];
    let mut taken_out = Vec::new();
    // 0 means that the exported store had not assigned any.
    if let Some(name) = RecordKey::new("number", "").filter(|_| revision > 0) {
        taken_out.push(Change::RemoveRecord(Box::new(name), Revision(revision)));
    }
    if session > 0 {
        let record = SessionRecord {
            client_id: "".into(),
            username: None,
            expiry_interval_secs: 0,
            ends_at: None,
            is_connected: false,
            doubtful_up_to: QueuePlace(0),
            peer: "".into(),
            connected_at: Timestamp(0),
            login: None,
        };
        group.push(Change::PutSession(SessionNumber(session), Box::new(record)));
        taken_out.push(Change::EndSession(SessionNumber(session)));
    }
    if let Some(number) = NonZeroU64::new(message) {
        let topic = "number";
        let publication = Publication {
            topic,
            payload: b"",
            qos: QoS::AtMostOnce,
            retain: true,
            properties: &[],
            expires_at: None,
        };
        let message = Arc::new(Message::new(&publication).numbered(number));
        group.push(Change::Retain(message, None));
        taken_out.push(Change::ClearRetained(topic.into()));
    }
    // Removed by a second group, so that the numbers are in the store first.
    store.apply(&group, Durability::Written)?;
    Ok(store.apply(&taken_out, Durability::Written)?)
}

/// Returns whether a UTF-8 Encoded String of MQTT can have this value. [MQTT-1.5.4-2]
fn is_string(text: &str) -> bool {
    text.len() <= usize::from(u16::MAX) && !text.contains('\0')
}
