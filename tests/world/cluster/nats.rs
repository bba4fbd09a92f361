//! A stand-in for NATS, in memory and on the clock of the world, with what NATS promises and no more.
//!
//! JetStream: an agreed order and compare-and-set. A write may be late, its answer may be lost, a get may
//! answer from the past. While a leader is dead, its buckets stand still for 4 to 9 s: writes fail, are
//! lost, or wait and are made in another order afterwards. Core: at most once, late, lost between nodes
//! that are cut off.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use fastrand::Rng;
use hearthmq::{
    internals::cluster::{
        door::{BucketEntry, LogEntry},
        names::{Bucket, NodeId, Sequence},
    },
    records::Revision,
};

/// A request of a node to NATS.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) node: usize,
    pub(super) life: u64,
    pub(super) token: u64,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Update { bucket: Bucket, key: String, value: Bytes, expected: Revision },
    Remove { bucket: Bucket, key: String, expected: Revision },
    Read { bucket: Bucket, key: String },
    Append { node: NodeId, id: String, payload: Bytes },
}

/// What NATS answers, if it answers.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Written(Revision),
    Conflict(Revision),
    Failed,
    Found(Option<BucketEntry>),
    Appended(Sequence),
}

#[derive(Default)]
struct Stored {
    revision: u64,
    entries: BTreeMap<String, BucketEntry>,
    before: HashMap<String, BucketEntry>,
    changes: Vec<BucketEntry>,
}

/// Which requests stand still together: one leader each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Led {
    Bucket(Bucket),
    Routes,
}

#[derive(Default)]
pub(super) struct Nats {
    buckets: BTreeMap<Bucket, Stored>,
    pub(super) log: Vec<LogEntry>,
    appended: HashMap<String, Sequence>,
    stalled_until: BTreeMap<Led, u64>,
    held: Vec<Request>,
    /// Records of members that were written since the world looked, with their keys.
    pub(super) members_written: Vec<(String, Bytes)>,
}

impl Nats {
    pub(super) fn stall(&mut self, led: Led, until: u64) {
        let stalled = self.stalled_until.entry(led).or_default();
        *stalled = until.max(*stalled);
    }

    pub(super) fn is_stalled(&self, led: Led, now: u64) -> bool {
        self.stalled_until.get(&led).is_some_and(|until| now < *until)
    }

    /// Returns the requests that waited for leaders that are there again, of which some are lost.
    pub(super) fn poll_held(&mut self, now: u64, rng: &mut Rng) -> Vec<Request> {
        let held = std::mem::take(&mut self.held);
        let (waiting, mut due): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|request| self.is_stalled(led(&request.what), now));
        self.held = waiting;
        rng.shuffle(&mut due);
        due.retain(|_| rng.f32() < 0.7);
        due
    }

    /// Handles a request that has arrived; `None` if there is no answer.
    pub(super) fn handle(&mut self, request: Request, now: u64, rng: &mut Rng) -> Option<Reply> {
        let luck = rng.f32();
        if let What::Read { bucket, key } = &request.what {
            return self.read(*bucket, key, luck, now);
        }
        if self.is_stalled(led(&request.what), now) {
            if luck < 0.33 {
                return Some(Reply::Failed);
            }
            if luck < 0.7 {
                self.held.push(request);
            }
            return None;
        }
        Some(self.make(request.what))
    }

    fn read(&self, bucket: Bucket, key: &str, luck: f32, now: u64) -> Option<Reply> {
        let stored = self.buckets.get(&bucket);
        let before = stored.and_then(|stored| stored.before.get(key));
        if let Some(before) = before.filter(|_| luck < 0.15) {
            return Some(Reply::Found(Some(before.clone())));
        }
        if self.is_stalled(Led::Bucket(bucket), now) && luck < 0.6 {
            return None;
        }
        Some(Reply::Found(stored.and_then(|stored| stored.entries.get(key)).cloned()))
    }

    /// Makes a write, in the agreed order.
    pub(super) fn make(&mut self, what: What) -> Reply {
        match what {
            What::Update { bucket, key, value, expected } => {
                if bucket == Bucket::Members {
                    self.members_written.push((key.clone(), value.clone()));
                }
                let reply = self.change(bucket, key, Some(value), expected);
                if bucket == Bucket::Members && !matches!(reply, Reply::Written(_)) {
                    self.members_written.pop();
                }
                reply
            }
            What::Remove { bucket, key, expected } => self.change(bucket, key, None, expected),
            What::Read { .. } => Reply::Failed,
            What::Append { node, id, payload } => {
                let id = format!("{node} {id}");
                if let Some(sequence) = self.appended.get(&id) {
                    return Reply::Appended(*sequence);
                }
                let sequence = Sequence(self.log.len() as u64 + 1);
                self.log.push(LogEntry { node, sequence, payload });
                self.appended.insert(id, sequence);
                Reply::Appended(sequence)
            }
        }
    }

    fn change(
        &mut self,
        bucket: Bucket,
        key: String,
        value: Option<Bytes>,
        expected: Revision,
    ) -> Reply {
        let stored = self.buckets.entry(bucket).or_default();
        let found = stored.entries.get(&key);
        let revision = found.map_or(Revision(0), |entry| entry.revision);
        let is_absent = found.is_none_or(|entry| entry.value.is_none());
        if revision != expected && !(is_absent && expected == Revision(0)) {
            return Reply::Conflict(revision);
        }
        stored.revision += 1;
        let revision = Revision(stored.revision);
        let entry = BucketEntry { key: key.clone(), revision, value };
        if let Some(before) = stored.entries.insert(key.clone(), entry.clone()) {
            stored.before.insert(key, before);
        }
        stored.changes.push(entry);
        Reply::Written(revision)
    }

    /// Returns what a follower has not seen yet.
    pub(super) fn changes(&self, bucket: Bucket, from: usize) -> &[BucketEntry] {
        self.buckets.get(&bucket).map_or(&[], |stored| &stored.changes[from..])
    }
}

fn led(what: &What) -> Led {
    match what {
        What::Update { bucket, .. } | What::Remove { bucket, .. } | What::Read { bucket, .. } => {
            Led::Bucket(*bucket)
        }
        What::Append { .. } => Led::Routes,
    }
}
