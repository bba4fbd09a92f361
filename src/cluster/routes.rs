//! Routes: which node has a subscriber for a Topic Filter.
//!
//! A node writes its filters to one log, in one order: a snapshot when it begins, then changes, and a new
//! snapshot when the changes outgrow it. Every node applies the log, and reports its position. Knows no clients:
//! a route names a node. Knows no index either: the driver passes the changes on to the router.
//!
//! SUBACK waits until every serving node has applied the filter, or a second has passed. Otherwise a
//! message that is published afterwards on another node could miss the subscription.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

pub use super::{marks::AppliedMarks, taken::TakenSession};
use super::{
    names::{Incarnation, NodeId, Sequence},
    taken::TakenQueue,
    wire::{self, Wire},
};
use crate::mqtt::Timestamp;

/// Maximum time that SUBACK waits for other nodes.
pub const SUBACK_WAITS_MILLIS_MAX: u64 = 1_000;
/// Maximum number of changes, or filters of a snapshot, in one entry.
const ENTRY_FILTERS_MAX: usize = 4_096;
/// Maximum bytes of the filters of one entry: below the payload of NATS.
const ENTRY_BYTES_MAX: usize = 512 * 1024;
/// Changes since the snapshot above which there is a new one, beside the number of filters.
const CHANGES_MIN: usize = 1_024;
/// Time until an entry without an answer is written again, under the same identifier.
const APPEND_AGAIN_MILLIS: u64 = 500;

/// A change of the filters of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterChange {
    /// The Topic Filter.
    pub filter: Box<str>,
    /// Whether the node has a subscriber for it now.
    pub is_added: bool,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteEntry {
    /// The life of the node that wrote it. Entries of an earlier life behind it are void.
    pub incarnation: Incarnation,
    /// Numbers the entries of a life, from 1 on: one that was written twice is applied once.
    pub number: u64,
    /// The content of the entry.
    pub content: RouteContent,
}

/// The content of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteContent {
    /// Changes, in their order.
    Changes(Vec<FilterChange>),
    /// Part of all filters of the node. They count when the last part is there.
    Snapshot {
        /// Whether it is the first part.
        is_first: bool,
        /// Whether it is the last part.
        is_last: bool,
        /// The filters.
        filters: Vec<Box<str>>,
    },
    /// Sessions that the node has taken over: their filters are in earlier entries.
    Taken(Vec<TakenSession>),
}

impl Wire for RouteEntry {
    const KIND: u8 = 8;
}

/// An entry to append to the log. The result goes to [`OwnRoutes::handle_appended`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteAppend {
    /// The same for each try.
    pub id: String,
    /// The number of the entry.
    pub number: u64,
    /// Its bytes.
    pub payload: Bytes,
}

/// Numbers a SUBACK that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubackNumber(pub u64);

/// A SUBACK that may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubackReady {
    /// The SUBACK.
    pub number: SubackNumber,
    /// Whether every serving node has applied the filters. Otherwise it is counted.
    pub is_everywhere: bool,
}

#[derive(Debug, Default)]
struct OwnFilter {
    subscribers: usize,
    /// Where in the log the filter is; `None` before it is written.
    placed: Option<Sequence>,
}

#[derive(Debug)]
struct EntryInFlight {
    append: RouteAppend,
    content: RouteContent,
    next_at: Timestamp,
}

#[derive(Debug)]
struct WaitingSuback {
    number: SubackNumber,
    filters: Vec<Box<str>>,
    deadline: Timestamp,
}

/// The filters of this node, and their way into the log.
#[derive(Debug)]
pub struct OwnRoutes {
    incarnation: Incarnation,
    filters: HashMap<Box<str>, OwnFilter, RandomState>,
    changes: VecDeque<FilterChange>,
    taken: TakenQueue,
    /// Parts of a snapshot that are not written yet.
    snapshot: VecDeque<Vec<Box<str>>>,
    is_first_part: bool,
    snapshot_from: Option<Sequence>,
    changes_since: usize,
    next_number: u64,
    in_flight: Option<EntryInFlight>,
    waiting: VecDeque<WaitingSuback>,
    next_suback: u64,
    cut: Option<Sequence>,
    has_begun: bool,
    is_begun: bool,
}

impl OwnRoutes {
    /// Begins a life, without filters.
    pub fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            filters: HashMap::default(),
            changes: VecDeque::new(),
            taken: TakenQueue::default(),
            snapshot: VecDeque::new(),
            is_first_part: true,
            snapshot_from: None,
            changes_since: 0,
            next_number: 1,
            in_flight: None,
            waiting: VecDeque::new(),
            next_suback: 0,
            cut: None,
            has_begun: false,
            is_begun: false,
        }
    }

    /// Begins to write: a snapshot of the filters that the restored sessions have.
    pub fn begin(&mut self) {
        self.has_begun = true;
        self.changes.clear();
        self.taken.clear();
        self.take_snapshot();
    }

    /// Returns whether the snapshot of the beginning is written.
    pub const fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Adds a subscriber of a filter.
    pub fn add(&mut self, filter: &str) {
        let own = self.filters.entry(filter.into()).or_default();
        own.subscribers += 1;
        if own.subscribers == 1 {
            self.change(filter, true);
        }
    }

    /// Removes a subscriber of a filter.
    pub fn remove(&mut self, filter: &str) {
        let Some(own) = self.filters.get_mut(filter) else { return };
        own.subscribers -= 1;
        if own.subscribers == 0 {
            self.filters.remove(filter);
            self.change(filter, false);
        }
    }

    fn change(&mut self, filter: &str, is_added: bool) {
        if self.has_begun {
            self.changes.push_back(FilterChange { filter: filter.into(), is_added });
            self.taken.note_change();
        }
    }

    /// Adds a session that this node has taken over, behind its filters.
    pub fn take(&mut self, session: TakenSession) {
        self.taken.push(session);
    }

    /// Returns the place in the log of the last of these filters; `None` if one is not written yet, or has no
    /// subscriber here (yet).
    pub fn placed<'a>(&self, filters: impl IntoIterator<Item = &'a str>) -> Option<Sequence> {
        let placed = |filter: &str| self.filters.get(filter)?.placed;
        let mut filters = filters.into_iter();
        filters.try_fold(Sequence(0), |last, filter| Some(last.max(placed(filter)?)))
    }

    /// Lets a SUBACK wait for its filters.
    pub fn wait(&mut self, filters: Vec<Box<str>>, now: Timestamp) -> SubackNumber {
        let number = SubackNumber(self.next_suback);
        self.next_suback += 1;
        let deadline = now.plus_millis(SUBACK_WAITS_MILLIS_MAX);
        self.waiting.push_back(WaitingSuback { number, filters, deadline });
        number
    }

    /// Returns the next SUBACK that may be sent, in the order of the SUBSCRIBEs.
    pub fn poll_suback<'a>(
        &mut self,
        applied: &AppliedMarks,
        serving: impl Iterator<Item = (&'a NodeId, Incarnation)>,
        now: Timestamp,
    ) -> Option<SubackReady> {
        let first = self.waiting.front()?;
        // A filter that was withdrawn meanwhile is not awaited.
        let filters = first.filters.iter().map(|filter| &**filter);
        // All filters of the SUBSCRIBE must be in the log before any position is compared.
        let placed = self.placed(filters.filter(|filter| self.filters.contains_key(*filter)));
        let is_everywhere = placed.is_some_and(|at| applied.is_everywhere(at, serving));
        // Late is better than never: after a second SUBACK goes out all the same.
        if !is_everywhere && now < first.deadline {
            return None;
        }
        let number = self.waiting.pop_front()?.number;
        Some(SubackReady { number, is_everywhere })
    }

    /// Returns the entry to append, which counts as sent at `now`.
    pub fn poll_append(&mut self, now: Timestamp) -> Option<RouteAppend> {
        // One entry at a time, because the log must have the order of the changes.
        if self.in_flight.is_none() {
            let content = self.next_content()?;
            let number = self.next_number;
            self.next_number += 1;
            let incarnation = self.incarnation;
            let entry = RouteEntry { incarnation, number, content };
            let payload = wire::encode(&entry);
            // The same identifier for each attempt, so that JetStream drops a repetition.
            let append = RouteAppend { id: format!("{}-{number}", incarnation.0), number, payload };
            self.in_flight = Some(EntryInFlight { append, content: entry.content, next_at: now });
        }
        let flying = self.in_flight.as_mut().filter(|flying| now >= flying.next_at)?;
        flying.next_at = now.plus_millis(APPEND_AGAIN_MILLIS);
        Some(flying.append.clone())
    }

    /// Handles the position of a written entry. Without an answer, the same entry is written again.
    pub fn handle_appended(&mut self, number: u64, sequence: Sequence) {
        // The answer may be to a former entry.
        let Some(flying) = self.in_flight.take_if(|flying| flying.append.number == number) else {
            return;
        };
        match flying.content {
            RouteContent::Changes(changes) => {
                self.changes_since += changes.len();
                self.place(&changes, sequence);
                // Twice the filters: a snapshot then costs no more than the changes that it replaces.
                if self.changes_since > CHANGES_MIN.max(2 * self.filters.len()) {
                    self.take_snapshot();
                }
            }
            RouteContent::Snapshot { is_first, is_last, .. } => {
                if is_first {
                    self.snapshot_from = Some(sequence);
                }
                if is_last {
                    // The log before the snapshot is needed by nobody any more.
                    self.cut = self.snapshot_from.take();
                    self.is_begun = true;
                    self.place_all(sequence);
                }
            }
            RouteContent::Taken(_) => {}
        }
    }

    /// Returns the place before which the log of this node may be cut off.
    pub fn poll_cut(&mut self) -> Option<Sequence> {
        self.cut.take()
    }

    fn place(&mut self, changes: &[FilterChange], sequence: Sequence) {
        // A filter that was withdrawn and added again meanwhile is placed by its last change.
        let later: BTreeSet<&str> = self.changes.iter().map(|change| &*change.filter).collect();
        let added = changes.iter().filter(|change| change.is_added);
        for FilterChange { filter, .. } in added.filter(|change| !later.contains(&*change.filter)) {
            if let Some(own) = self.filters.get_mut(filter) {
                own.placed = Some(sequence);
            }
        }
    }

    /// The last part of a snapshot makes all its filters visible; those that were placed stay so.
    fn place_all(&mut self, sequence: Sequence) {
        let later: BTreeSet<&str> = self.changes.iter().map(|change| &*change.filter).collect();
        for (filter, own) in &mut self.filters {
            if own.placed.is_none() && !later.contains(&**filter) {
                own.placed = Some(sequence);
            }
        }
    }

    fn take_snapshot(&mut self) {
        // Changes from here on count for the next snapshot.
        self.changes_since = 0;
        self.is_first_part = true;
        let later: BTreeSet<&str> = self.changes.iter().map(|change| &*change.filter).collect();
        // Filters whose last change is not written yet are left to it.
        let written = self.filters.keys().filter(|filter| !later.contains(&***filter));
        let mut written: Vec<Box<str>> = written.cloned().collect();
        // Sorted, so that a snapshot is the same for the same filters.
        written.sort_unstable();
        let mut part = Vec::new();
        let mut bytes = 0;
        for filter in written {
            bytes += filter.len() + 8;
            if part.len() == ENTRY_FILTERS_MAX || bytes > ENTRY_BYTES_MAX {
                bytes = filter.len() + 8;
                self.snapshot.push_back(std::mem::take(&mut part));
            }
            part.push(filter);
        }
        // Also an empty part, because the end of a snapshot must be marked.
        self.snapshot.push_back(part);
    }

    fn next_content(&mut self) -> Option<RouteContent> {
        // A snapshot that has begun goes first: changes behind it are newer.
        if let Some(filters) = self.snapshot.pop_front() {
            let is_first = std::mem::take(&mut self.is_first_part);
            let is_last = self.snapshot.is_empty();
            return Some(RouteContent::Snapshot { is_first, is_last, filters });
        }
        let sessions = self.taken.poll();
        if !sessions.is_empty() {
            return Some(RouteContent::Taken(sessions));
        }
        let mut bytes = 0;
        let fits = |change: &&FilterChange| {
            bytes += change.filter.len() + 8;
            bytes <= ENTRY_BYTES_MAX
        };
        let most = ENTRY_FILTERS_MAX.min(self.taken.changes_max());
        let count = self.changes.iter().take(most).take_while(fits).count();
        self.taken.note_written(count);
        let changes: Vec<FilterChange> = self.changes.drain(..count).collect();
        (!changes.is_empty()).then_some(RouteContent::Changes(changes))
    }
}

/// The filters of one other node.
#[derive(Debug, Default)]
struct RemoteNode {
    incarnation: Incarnation,
    number: u64,
    filters: BTreeSet<Box<str>>,
    /// A snapshot that has not come to its end.
    staged: Option<BTreeSet<Box<str>>>,
}

/// The log of routes, as this node has applied it.
#[derive(Debug)]
pub struct RemoteRoutes {
    me: NodeId,
    nodes: BTreeMap<NodeId, RemoteNode>,
    applied: Sequence,
    taken: VecDeque<(NodeId, TakenSession, Sequence)>,
}

impl RemoteRoutes {
    /// Begins before the first entry of the log.
    pub const fn new(me: NodeId) -> Self {
        Self { me, nodes: BTreeMap::new(), applied: Sequence(0), taken: VecDeque::new() }
    }

    /// Returns the sequence up to which the log is applied.
    pub const fn applied(&self) -> Sequence {
        self.applied
    }

    /// Forgets the filters of a node that is dead; returns what changes in the index. What its life has written
    /// stays void.
    pub fn forget(&mut self, node: &NodeId) -> Vec<FilterChange> {
        let Some(known) = self.nodes.get_mut(node) else { return Vec::new() };
        known.staged = None;
        differences(&std::mem::take(&mut known.filters), &BTreeSet::new())
    }

    /// Returns the other nodes that have a subscriber for exactly this filter.
    pub fn nodes_with(&self, filter: &str) -> impl Iterator<Item = &NodeId> {
        self.nodes
            .iter()
            .filter(move |(_, node)| node.filters.contains(filter))
            .map(|(node, _)| node)
    }

    /// Applies an entry; returns the changes of the index. An entry that cannot be read, of an earlier
    /// life, or that was applied already changes nothing.
    pub fn handle_entry(
        &mut self,
        node: &NodeId,
        sequence: Sequence,
        payload: &[u8],
    ) -> Vec<FilterChange> {
        self.applied = self.applied.max(sequence);
        let Ok(entry) = wire::decode::<RouteEntry>(payload) else { return Vec::new() };
        // Also those of this node, and of an entry that was written twice: a later place changes nothing.
        if let RouteContent::Taken(sessions) = &entry.content {
            self.taken.extend(sessions.iter().map(|session| (node.clone(), *session, sequence)));
            return Vec::new();
        }
        // The own filters are in the index of this node already.
        if *node == self.me {
            return Vec::new();
        }
        // An entry that was written twice, or that an earlier life wrote late, changes nothing.
        let known = self.nodes.entry(node.clone()).or_default();
        let order = (entry.incarnation, entry.number);
        if order <= (known.incarnation, known.number) {
            return Vec::new();
        }
        // The rest of a snapshot of an earlier life will never come.
        if entry.incarnation > known.incarnation {
            known.staged = None;
        }
        (known.incarnation, known.number) = order;
        // Only changes are returned, so that a repeated filter counts once.
        match entry.content {
            RouteContent::Changes(changes) => {
                let is_new = |change: &FilterChange| {
                    if change.is_added {
                        known.filters.insert(change.filter.clone())
                    } else {
                        known.filters.remove(&change.filter)
                    }
                };
                changes.into_iter().filter(is_new).collect()
            }
            RouteContent::Snapshot { is_first, is_last, filters } => {
                if is_first {
                    known.staged = Some(BTreeSet::new());
                }
                // A part without its beginning: the follower has begun in the middle of a snapshot.
                let Some(staged) = &mut known.staged else { return Vec::new() };
                staged.extend(filters);
                // Nothing changes before the snapshot is complete, so no route is missing in between.
                if !is_last {
                    return Vec::new();
                }
                let now = known.staged.take().unwrap_or_default();
                let before = std::mem::replace(&mut known.filters, now);
                differences(&before, &known.filters)
            }
            RouteContent::Taken(_) => Vec::new(), // Taken above.
        }
    }

    /// Returns the next session that a node has taken over, and the place of its entry.
    pub fn poll_taken(&mut self) -> Option<(NodeId, TakenSession, Sequence)> {
        self.taken.pop_front()
    }
}

fn differences(before: &BTreeSet<Box<str>>, now: &BTreeSet<Box<str>>) -> Vec<FilterChange> {
    let added = now.difference(before).map(|filter| (filter, true));
    let withdrawn = before.difference(now).map(|filter| (filter, false));
    let changes = added.chain(withdrawn);
    changes.map(|(filter, is_added)| FilterChange { filter: filter.clone(), is_added }).collect()
}

#[cfg(test)]
mod tests;
