//! Retained messages on their way into the stream.
//!
//! ```text
//!            the first of its topic            an answer
//!   Waiting ───────────────────────▶ Under way ─────────▶ done, and the next of the topic follows
//!      ▲                                 │
//!      └──── no answer, after a pause ───┘     any state, after the deadline ──▶ unavailable
//! ```
//!
//! One message of a topic is under way at a time, so the stream has the order of this node also when a write is
//! repeated. After a deadline has passed, the stream counts as away: messages are refused immediately, except one
//! each second, until a write succeeds. Knows no messages and no NATS.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use foldhash::fast::RandomState;

use crate::{cluster::names::Sequence, mqtt::Timestamp};

/// How long a publisher waits for the stream. JetStream takes four seconds or more to replace a leader.
pub const WRITE_MILLIS_MAX: u64 = 5_000;
/// The pause before a write without an answer is repeated.
const AGAIN_MILLIS: u64 = 250;
/// The pause between two messages that are tried while the stream is away.
const TRIED_EVERY_MILLIS: u64 = 1_000;
/// Maximum number of messages under way at the same time.
const UNDER_WAY_MAX: usize = 512;
/// Maximum bytes of all messages that wait or are under way.
pub const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a message here beside its content.
const ITEM_BYTES: usize = 256;

/// A message to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamWrite {
    /// Its number: the same for each attempt.
    pub number: u64,
    /// The key of its topic.
    pub key: Box<str>,
    /// Its encoding.
    pub payload: Bytes,
    /// The time after which the stream drops it.
    pub kept_secs: Option<u64>,
    /// Whether it is written only if the stream has nothing for the topic, and without a deadline.
    pub is_first_join: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteEnd {
    /// The stream has it.
    Written(Sequence),
    /// The stream had something for the topic.
    Present,
    /// It will not be taken.
    Refused,
    /// It may have been written, or not.
    Unknown,
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The stream has it.
    Written(Sequence),
    /// The stream had something for the topic.
    Present,
    /// It was refused, or not written in time. It may be written later.
    Unavailable,
}

#[derive(Debug)]
struct Item {
    write: StreamWrite,
    deadline: Timestamp,
    /// When it is tried next; `None` while it is under way, or waits for another one of its topic.
    due: Option<Timestamp>,
}

/// The messages on their way.
#[derive(Debug, Default)]
pub struct RetainedWrites {
    items: BTreeMap<u64, Item>,
    /// The messages of each topic, in their order.
    topics: HashMap<Box<str>, VecDeque<u64>, RandomState>,
    /// The first messages of their topics that are not under way, by the time of their next attempt.
    due: BTreeSet<(Timestamp, u64)>,
    deadlines: BTreeSet<(Timestamp, u64)>,
    done: VecDeque<(u64, WriteOutcome)>,
    under_way: usize,
    bytes: usize,
    is_away: bool,
    tried_at: Timestamp,
}

impl RetainedWrites {
    /// Returns whether nothing waits or is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns the number of messages that wait or are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns whether the stream takes nothing at present.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        self.is_away
    }

    /// Takes in a message.
    pub fn push(&mut self, write: StreamWrite, now: Timestamp) {
        let number = write.number;
        let size = ITEM_BYTES + write.payload.len();
        let is_refused = self.is_away && now < self.tried_at;
        if !write.is_first_join && (is_refused || self.bytes + size > WAITING_BYTES_MAX) {
            return self.done.push_back((number, WriteOutcome::Unavailable));
        }
        self.tried_at = now.plus_millis(TRIED_EVERY_MILLIS);
        self.bytes += size;
        let deadline = match write.is_first_join {
            true => Timestamp::NEVER,
            false => now.plus_millis(WRITE_MILLIS_MAX),
        };
        let of_topic = self.topics.entry(write.key.clone()).or_default();
        of_topic.push_back(number);
        let is_first = of_topic.len() == 1;
        self.deadlines.insert((deadline, number));
        self.items.insert(number, Item { write, deadline, due: None });
        if is_first {
            self.set_due(number, now);
        }
    }

    /// Returns the next write to make.
    pub fn poll_write(&mut self, now: Timestamp) -> Option<StreamWrite> {
        if self.under_way >= UNDER_WAY_MAX {
            return None;
        }
        let (at, number) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        let item = self.items.get_mut(&number)?;
        item.due = None;
        self.under_way += 1;
        Some(item.write.clone())
    }

    /// Takes in how an attempt ended.
    pub fn handle_end(&mut self, number: u64, end: WriteEnd, now: Timestamp) {
        self.under_way = self.under_way.saturating_sub(1);
        if matches!(end, WriteEnd::Written(_)) {
            self.is_away = false;
        }
        match end {
            WriteEnd::Written(sequence) => {
                self.end(number, WriteOutcome::Written(sequence), now);
            }
            WriteEnd::Present => self.end(number, WriteOutcome::Present, now),
            WriteEnd::Refused => self.end(number, WriteOutcome::Unavailable, now),
            WriteEnd::Unknown => self.set_due(number, now.plus_millis(AGAIN_MILLIS)),
        }
    }

    /// Gives up the messages whose time is over.
    pub fn handle_time(&mut self, now: Timestamp) {
        while let Some((at, number)) = self.deadlines.first().copied()
            && at <= now
        {
            // Told from a write that JetStream refuses: nothing was heard of this one.
            if !self.is_away {
                self.is_away = true;
                self.tried_at = now.plus_millis(TRIED_EVERY_MILLIS);
            }
            self.end(number, WriteOutcome::Unavailable, now);
        }
    }

    /// Gives up everything: this node may not act any more.
    pub fn give_up(&mut self, now: Timestamp) {
        let all: Vec<u64> = self.items.keys().copied().collect();
        for number in all {
            self.end(number, WriteOutcome::Unavailable, now);
        }
    }

    /// Returns the next outcome.
    pub fn poll_outcome(&mut self) -> Option<(u64, WriteOutcome)> {
        self.done.pop_front()
    }

    /// Returns when something is due.
    #[must_use]
    pub fn next_at(&self) -> Timestamp {
        let due = self.due.first().filter(|_| self.under_way < UNDER_WAY_MAX);
        let times = [due, self.deadlines.first()].into_iter().flatten();
        times.map(|(at, _)| *at).min().unwrap_or(Timestamp::NEVER)
    }

    fn end(&mut self, number: u64, outcome: WriteOutcome, now: Timestamp) {
        let Some(item) = self.items.remove(&number) else { return };
        self.bytes -= ITEM_BYTES + item.write.payload.len();
        self.deadlines.remove(&(item.deadline, number));
        if let Some(at) = item.due {
            self.due.remove(&(at, number));
        }
        self.done.push_back((number, outcome));
        let Some(of_topic) = self.topics.get_mut(&item.write.key) else { return };
        let was_first = of_topic.front() == Some(&number);
        of_topic.retain(|other| *other != number);
        match of_topic.front().copied() {
            None => drop(self.topics.remove(&item.write.key)),
            Some(next) if was_first => self.set_due(next, now),
            Some(_) => {}
        }
    }

    /// Sets when a message is tried next, unless its time was over meanwhile.
    fn set_due(&mut self, number: u64, at: Timestamp) {
        if let Some(item) = self.items.get_mut(&number) {
            item.due = Some(at);
            self.due.insert((at, number));
        }
    }
}

#[cfg(test)]
mod tests;
