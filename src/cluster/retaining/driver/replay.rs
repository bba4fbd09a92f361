//! The messages of the stream on their way into memory and the store, and the beginning of a life with them.
//!
//! ```text
//!          a life begins         the identity           the end of what was there
//!   Idle ───────────────▶ Asking ────────────▶ Reading ──────────────────────────▶ Ready, if it went on
//!                                                 ├──▶ Comparing: removes local messages that the stream lost ──▶ Ready
//!                                                 └──▶ Joining: writes local messages that the stream lacks ──▶ Ready
//! ```
//!
//! A node goes on behind the last message that its store has. It compares everything if it was away so long that
//! marks of removals are gone, and joins if the stream is another one than it knows.

use std::{
    collections::{HashSet, VecDeque},
    sync::atomic::Ordering,
    time::Duration,
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::{RetainedDriver, RetainedTraffic, later};
use crate::{
    between::retained::AppliedRetained,
    cluster::{
        names::Sequence,
        retaining::{
            RetainedOrder,
            door::RetainedEvent,
            entry::{self, REMOVAL_KEPT_SECS, RetainedEntry},
            positions::RetainedPositions,
            writes::StreamWrite,
        },
        wire::{self, Wire},
    },
    journal::Change,
    mqtt::Timestamp,
};

/// Maximum number of changes that the store takes together, and of their bytes.
const BATCH_CHANGES_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Maximum number of batches on their way to the store; the stream is not read beyond them.
const BATCHES_MAX: usize = 4;
/// Messages of a first join that are on their way at the same time.
const JOINING_MAX: usize = 256;
/// The time between two notes of how far the stream is stored.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// The time between two notes if nothing has changed: they tell how long the node was away.
const SAVE_QUIETLY_EVERY: Duration = Duration::from_secs(3_600);
/// A node that was away longer than this compares all messages.
const AWAY_SECS_MAX: u64 = REMOVAL_KEPT_SECS / 2;

/// How far the store of a node has the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cluster::retaining) struct StoredPlace {
    /// The identity of the stream.
    identity: u64,
    applied: Sequence,
    /// When this was true, in milliseconds since 1970.
    at_millis: u64,
}

impl Wire for StoredPlace {
    const KIND: u8 = 31;
}

/// How a life begins with the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    /// The store has it up to a place.
    GoesOn,
    /// The store may have missed removals.
    Compares,
    /// The store does not know it.
    Joins,
}

/// Where a life is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster::retaining) enum ReplayStage {
    /// There is no life.
    Idle,
    /// It asks which stream it is.
    Asking,
    /// It applies what was there.
    Reading,
    /// It looks at its own messages behind a topic.
    Comparing(Option<Box<str>>),
    /// It writes its own messages behind a topic.
    Joining(Option<Box<str>>),
    /// It waits for the outcomes of the last ones.
    Joined,
    /// It follows.
    Ready,
}

/// The state of the replay.
pub(in crate::cluster::retaining) struct Replay {
    pub(in crate::cluster::retaining) stage: ReplayStage,
    beginning: Beginning,
    known: Option<StoredPlace>,
    identity: u64,
    /// The topics that the stream has, while a life begins that does not go on.
    seen: HashSet<Box<str>, RandomState>,
    batch: Vec<Change>,
    batch_bytes: usize,
    /// The last sequence that the batch covers.
    reached: Sequence,
    /// The last sequences of batches that the store does not have yet.
    noted: VecDeque<Sequence>,
    stored: Sequence,
    saved: Sequence,
    save_at: Timestamp,
    save_quietly_at: Timestamp,
}

impl Replay {
    /// Begins with what a former process has saved.
    pub(in crate::cluster::retaining) fn loaded(place: Option<Bytes>) -> Self {
        let known = place.and_then(|place| wire::decode::<StoredPlace>(&place).ok());
        let applied = known.map_or(Sequence(0), |known| known.applied);
        Self {
            stage: ReplayStage::Idle,
            beginning: Beginning::Joins,
            known,
            identity: 0,
            seen: HashSet::default(),
            batch: Vec::new(),
            batch_bytes: 0,
            reached: applied,
            noted: VecDeque::new(),
            stored: applied,
            saved: applied,
            save_at: Timestamp(0),
            save_quietly_at: Timestamp(0),
        }
    }

    pub(in crate::cluster::retaining) fn positions(&self) -> RetainedPositions {
        RetainedPositions::after(self.reached)
    }

    /// Returns whether the next message of the stream may be read.
    pub(in crate::cluster::retaining) fn has_room(&self) -> bool {
        self.noted.len() < BATCHES_MAX
    }

    pub(in crate::cluster::retaining) fn end_life(&mut self) {
        self.stage = ReplayStage::Idle;
        self.seen = HashSet::default();
    }

    /// Begins to read; returns behind which message.
    pub(in crate::cluster::retaining) fn begin(
        &mut self,
        identity: u64,
        now: Timestamp,
    ) -> Sequence {
        self.stage = ReplayStage::Reading;
        self.seen = HashSet::default();
        self.identity = identity;
        self.beginning = match self.known {
            Some(known) if known.identity != identity => Beginning::Joins,
            Some(known) => {
                let away_millis = now.millis().saturating_sub(known.at_millis);
                match away_millis < AWAY_SECS_MAX * 1_000 {
                    true => Beginning::GoesOn,
                    false => Beginning::Compares,
                }
            }
            None => Beginning::Joins,
        };
        if self.beginning != Beginning::GoesOn {
            self.reached = Sequence(0);
            (self.stored, self.saved) = (Sequence(0), Sequence(0));
        }
        self.reached
    }

    /// Notes that the store has the next batch.
    pub(in crate::cluster::retaining) fn handle_stored(&mut self) {
        if let Some(sequence) = self.noted.pop_front() {
            self.stored = sequence;
        }
    }

    /// Returns whether the topics of the stream are collected: until the node's own messages are compared.
    fn collects(&self) -> bool {
        self.beginning != Beginning::GoesOn && self.stage != ReplayStage::Ready
    }

    fn add(&mut self, change: Change) {
        self.batch_bytes += change.bytes();
        self.batch.push(change);
    }
}

impl RetainedDriver {
    /// Takes in an event of the stream.
    pub(in crate::cluster::retaining) fn take_event(
        &mut self,
        event: RetainedEvent,
        traffic: &mut RetainedTraffic,
    ) {
        match event {
            RetainedEvent::Entry { sequence, payload } => self.apply_entry(sequence, &payload),
            RetainedEvent::Current(sequence) => {
                self.shared.positions().handle_current(sequence);
                self.advance(sequence);
                if self.replay.stage == ReplayStage::Reading {
                    self.replay.stage = match self.replay.beginning {
                        Beginning::GoesOn => ReplayStage::Ready,
                        Beginning::Compares => ReplayStage::Comparing(None),
                        Beginning::Joins => ReplayStage::Joining(None),
                    };
                }
            }
            RetainedEvent::Restarted => {
                warn!("another stream of retained messages has taken the place of the former one");
                traffic.events = None;
                self.ask_for_identity(traffic, Duration::ZERO);
            }
        }
    }

    fn advance(&mut self, sequence: Sequence) {
        self.replay.reached = self.replay.reached.max(sequence);
        self.shared.applied.store(self.replay.reached.0, Ordering::Release);
    }

    fn apply_entry(&mut self, sequence: Sequence, payload: &[u8]) {
        let entry = match wire::decode::<RetainedEntry>(payload) {
            Ok(entry) => entry,
            Err(fault) => {
                error!(reason = %fault, sequence = sequence.0, "a retained message is unreadable");
                self.shared.positions().handle_current(sequence);
                return self.advance(sequence);
            }
        };
        let RetainedEntry { topic, content } = entry;
        let now = self.here.now();
        let content = content.map(|content| content.into_message(&topic, now));
        let content = content.filter(|(message, _)| !message.publication().has_expired(now));
        let mut positions = self.shared.positions();
        if positions.takes_replayed(&topic, sequence) {
            match &content {
                Some((message, owner)) => self.here.put(message.clone(), owner.as_ref()),
                None => self.here.clear(&topic),
            }
        }
        drop(positions);
        // Also if it was applied before: nothing of the cluster is stored by another way. The writer of the store
        // takes what is retained then.
        self.replay.add(match content {
            Some((message, owner)) => Change::Retain(message, owner),
            None => Change::ClearRetained(topic.clone()),
        });
        if self.replay.collects() {
            self.replay.seen.insert(topic);
        }
        self.advance(sequence);
        if self.replay.batch.len() >= BATCH_CHANGES_MAX || self.replay.batch_bytes > BATCH_BYTES_MAX
        {
            self.note_batch();
        }
    }

    /// Lets the store take the changes so far.
    pub(in crate::cluster::retaining) fn note_batch(&mut self) {
        if self.replay.batch.is_empty() {
            if self.replay.noted.is_empty() {
                self.replay.stored = self.replay.reached;
            }
            return;
        }
        let changes = std::mem::take(&mut self.replay.batch);
        self.replay.batch_bytes = 0;
        self.replay.noted.push_back(self.replay.reached);
        let orders = self.orders.clone();
        let stored = Box::new(move || drop(orders.send(RetainedOrder::Stored)));
        self.here.note(AppliedRetained { changes, stored });
    }

    /// Goes on with the beginning of a life.
    pub(in crate::cluster::retaining) fn go_on_joining(
        &mut self,
        traffic: &RetainedTraffic,
        now: Timestamp,
    ) {
        match self.replay.stage.clone() {
            ReplayStage::Idle | ReplayStage::Asking | ReplayStage::Reading => {}
            ReplayStage::Comparing(after) => self.compare_page(after.as_deref()),
            ReplayStage::Joining(after) => self.join_page(after.as_deref(), traffic, now),
            ReplayStage::Joined if self.writes.is_empty() => {
                info!("the retained messages of this broker are those of the cluster");
                self.replay.stage = ReplayStage::Ready;
            }
            ReplayStage::Joined => {}
            ReplayStage::Ready => {
                self.replay.seen = HashSet::default();
                self.shared.prepared.store(traffic.life.0, Ordering::Release);
            }
        }
    }

    fn is_in_stream(&self, topic: &str) -> bool {
        self.replay.seen.contains(topic) || self.shared.positions().is_ahead(topic)
    }

    /// Removes messages here that the stream does not have any more.
    fn compare_page(&mut self, after: Option<&str>) {
        let page = self.here.page(after);
        for (message, _) in page.messages {
            if !self.is_in_stream(message.topic()) {
                self.here.clear(message.topic());
                self.replay.add(Change::ClearRetained(message.topic().into()));
            }
        }
        self.replay.stage = match page.go_on_after {
            Some(topic) => ReplayStage::Comparing(Some(topic)),
            None => ReplayStage::Ready,
        };
        self.note_batch();
    }

    /// Writes messages of this node that the stream does not have.
    fn join_page(&mut self, after: Option<&str>, traffic: &RetainedTraffic, now: Timestamp) {
        if self.writes.len() >= JOINING_MAX {
            return;
        }
        let page = self.here.page(after);
        for (message, owner) in page.messages {
            if self.is_in_stream(message.topic()) {
                continue;
            }
            let encoded = entry::encode(&message, owner, self.here.now());
            if encoded.bytes.len() > traffic.joined.door.retained_bytes_max() {
                let bytes = encoded.bytes.len();
                error!(bytes, "a retained message is too large for NATS; it stays on this broker");
                continue;
            }
            let write = StreamWrite {
                number: self.next_number(),
                key: entry::key(message.topic()).into(),
                payload: encoded.bytes,
                kept_secs: encoded.kept_secs,
                is_first_join: true,
            };
            self.writes.push(write, now);
        }
        self.replay.stage = match page.go_on_after {
            Some(topic) => ReplayStage::Joining(Some(topic)),
            None => ReplayStage::Joined,
        };
    }

    /// Saves how far the store has the stream.
    pub(in crate::cluster::retaining) fn save_place(
        &mut self,
        traffic: &RetainedTraffic,
        now: Timestamp,
    ) {
        let is_ready = self.replay.stage == ReplayStage::Ready;
        let is_due = match self.replay.stored == self.replay.saved {
            true => now >= self.replay.save_quietly_at,
            false => now >= self.replay.save_at,
        };
        if !is_ready || !is_due || !traffic.saves.is_empty() {
            return;
        }
        let (identity, applied) = (self.replay.identity, self.replay.stored);
        let place = StoredPlace { identity, applied, at_millis: self.here.now().millis() };
        self.replay.known = Some(place);
        self.replay.saved = applied;
        self.replay.save_at = later(now, SAVE_EVERY);
        self.replay.save_quietly_at = later(now, SAVE_QUIETLY_EVERY);
        traffic.saves.push(self.here.save(wire::encode(&place)));
    }
}
