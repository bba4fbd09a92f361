//! One trace: its clients, its duration, and its records.
//!
//! The records are a ring with a bound in bytes: the oldest leaves for a new one, and is counted. A reader
//! is a position in it, so that nobody waits for a reader. Knows neither packets nor streams.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::bounds::TraceBounds;
use crate::{
    auth::Authorizer,
    control::{Caller, StartTrace, TraceKind, TracePart, TraceRecord, TraceTarget, TraceView},
    mqtt::Timestamp,
};

/// Bytes of one part that a reader gets; the last record may exceed it.
const PART_BYTES_MAX: usize = 256 * 1024;
/// Bytes that a record takes beside its text.
const RECORD_BYTES: usize = size_of::<Bytes>() + 64;
/// Connections that one trace follows at the same time.
const CONNECTIONS_MAX: usize = 1_000;
/// Records that one new record removes at most.
const REMOVED_AT_A_TIME: usize = 64;

/// The client of a connection, as far as it is known.
#[derive(Clone, Copy)]
pub(crate) struct TracedClient<'a> {
    pub(crate) client_id: Option<&'a str>,
    pub(crate) username: Option<&'a str>,
    pub(crate) address: IpAddr,
}

/// A trace.
pub(crate) struct Trace {
    id: Arc<str>,
    target: TraceTarget,
    pub(super) payloads: bool,
    kinds: Option<Arc<[TraceKind]>>,
    caller: Option<Caller>,
    began: Instant,
    started_at: Timestamp,
    pub(super) ends_at: Timestamp,
    /// The generation of the rules for which the permissions of the caller were loaded.
    rules: u64,
    is_over: AtomicBool,
    connections: AtomicUsize,
    bounds: Arc<TraceBounds>,
    ring: Mutex<Ring>,
    changed: Notify,
}

#[derive(Default)]
struct Ring {
    /// The records, without their numbers.
    records: VecDeque<Bytes>,
    bytes: usize,
    /// The number of the last record.
    last: u64,
    skipped: u64,
    /// The second in which records are counted, and their number.
    second: (u64, u32),
}

impl Trace {
    pub(super) fn new(
        id: Arc<str>,
        wanted: StartTrace,
        (now, rules): (Timestamp, u64),
        bounds: Arc<TraceBounds>,
    ) -> Self {
        let StartTrace { target, secs, payloads, kinds, caller } = wanted;
        Self {
            id,
            target,
            payloads,
            kinds: kinds.map(Into::into),
            caller,
            began: Instant::now(),
            started_at: now,
            ends_at: now.plus_secs(secs.into()),
            rules,
            is_over: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            bounds,
            ring: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns its identifier.
    pub(crate) const fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Returns the clients whose packets it records.
    pub(crate) const fn target(&self) -> &TraceTarget {
        &self.target
    }

    /// Returns the user name of the caller that has started it.
    pub(super) fn by(&self) -> Option<&Arc<str>> {
        self.caller.as_ref().and_then(|caller| caller.identity.username.as_ref())
    }

    /// Returns whether it was started by a caller with the account of this one.
    pub(super) fn is_of(&self, caller: &Caller) -> bool {
        let name = caller.identity.username.as_ref();
        self.caller.as_ref().is_some_and(|own| own.identity.username.as_ref() == name)
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    /// Ends it; readers are told.
    pub(super) fn end(&self) {
        self.is_over.store(true, Relaxed);
        self.changed.notify_waiters();
    }

    /// Returns whether it records the packets of a client: the client is meant, and the caller may
    /// observe it by the rules of now.
    pub(crate) fn follows(&self, client: TracedClient<'_>, rules: &dyn Authorizer) -> bool {
        let is_meant = match &self.target {
            TraceTarget::Client(client_id) => client.client_id == Some(client_id),
            TraceTarget::User(username) => client.username == Some(username),
            TraceTarget::Network(network) => network.contains(client.address),
        };
        is_meant && !self.is_over() && self.may_observe(client.client_id.unwrap_or_default(), rules)
    }

    /// Returns whether it still records the packets of a client that it has recorded: it may have begun
    /// to by the user name of CONNECT.
    pub(super) fn still_follows(&self, client: TracedClient<'_>, rules: &dyn Authorizer) -> bool {
        !self.is_over() && self.may_observe(client.client_id.unwrap_or_default(), rules)
    }

    /// Returns whether the caller may observe a client.
    fn may_observe(&self, client_id: &str, rules: &dyn Authorizer) -> bool {
        let Some(caller) = &self.caller else { return true };
        // The loaded permissions of the caller belong to the rules of that time.
        let is_outdated = !caller.identity.prepared.is_empty() && rules.generation() != self.rules;
        !is_outdated && caller.may_observe(rules, client_id)
    }

    /// Counts one more record, if it records this kind now and within its rate; returns the microseconds
    /// since it began.
    pub(super) fn admits(&self, kind: TraceKind, now: Timestamp) -> Option<u64> {
        let is_wanted = self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind));
        // The end may come by a call, by its time, or with the identity of its caller.
        let has_ended = self.is_over()
            || now >= self.ends_at
            || self.caller.as_ref().is_some_and(|caller| caller.identity.has_expired(now));
        if !is_wanted || has_ended {
            return None;
        }
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let second = micros / 1_000_000;
        // The rate is counted under the lock of the ring, which the record needs anyway.
        let mut ring = self.ring();
        if ring.second.0 != second {
            ring.second = (second, 0);
        }
        // Left out and counted, so that a reader knows of the gap.
        if ring.second.1 >= self.bounds.records_per_sec_max() {
            ring.skipped += 1;
            return None;
        }
        ring.second.1 += 1;
        Some(micros)
    }

    /// Adds a record: a JSON object without its number.
    pub(super) fn push(&self, json: Bytes) {
        let mut ring = self.ring();
        ring.last += 1;
        // With the overhead of an entry, so that many small records stay within the bound too.
        ring.bytes += json.len() + RECORD_BYTES;
        ring.records.push_back(json);
        let bytes_max = self.bounds.bytes_per_trace_max();
        let mut removed = Vec::new();
        // A bound for each record, so that the lock is short.
        while ring.bytes > bytes_max && removed.len() < REMOVED_AT_A_TIME {
            let Some(oldest) = ring.records.pop_front() else { break };
            ring.bytes -= oldest.len() + RECORD_BYTES;
            removed.push(oldest);
        }
        drop(ring);
        drop(removed); // frees memory, and no other thread waits for that
        self.changed.notify_waiters();
    }

    /// Returns a future that ends after the next change.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Returns records behind a number.
    pub(super) fn after(&self, after: u64) -> TracePart {
        // Read before the records: none comes after the end.
        let is_over = self.is_over();
        let ring = self.ring();
        // Numbers are positions, so the first kept record follows from the last one and their number.
        let first = ring.last + 1 - ring.records.len() as u64;
        let from = after.saturating_add(1).clamp(first, ring.last + 1);
        let (mut bytes, mut records) = (0, Vec::new());
        for (number, json) in (from..).zip(ring.records.range((from - first) as usize..)) {
            if bytes >= PART_BYTES_MAX {
                break;
            }
            bytes += json.len();
            records.push((number, json.clone()));
        }
        let last = ring.last;
        // JSON is made without the lock.
        drop(ring);
        let next = records.last().map_or(from - 1, |(number, _)| *number);
        let record =
            |(number, json): (u64, Bytes)| TraceRecord::new(number, numbered(number, &json));
        TracePart {
            missed: from.saturating_sub(after.saturating_add(1)),
            next,
            // The trace is over for a reader only when the reader has everything.
            is_over: is_over && next == last,
            records: records.into_iter().map(record).collect(),
        }
    }

    /// Returns the state.
    pub(super) fn view(&self) -> TraceView {
        let ring = self.ring();
        TraceView {
            id: Arc::clone(&self.id),
            target: self.target.clone(),
            by: self.by().cloned(),
            payloads: self.payloads,
            kinds: self.kinds.clone(),
            started_at_millis: self.started_at.millis(),
            ends_at_millis: self.ends_at.millis(),
            is_running: !self.is_over(),
            records: ring.last,
            dropped: ring.last - ring.records.len() as u64,
            skipped: ring.skipped,
            bytes: ring.bytes,
            connections: self.connections.load(Relaxed),
        }
    }
}

/// Adds the number to a record.
fn numbered(number: u64, json: &[u8]) -> Bytes {
    let mut text = format!("{{\"number\":{number},").into_bytes();
    text.extend_from_slice(json.get(1..).unwrap_or_default());
    text.into()
}

/// The place of a connection among those that a trace follows.
pub(super) struct TracePlace {
    pub(super) trace: Arc<Trace>,
    /// The generation of the rules by which it follows the connection.
    pub(super) rules: u64,
}

impl TracePlace {
    /// Takes a place; `None` if the trace follows as many connections as it may.
    pub(super) fn take(trace: &Arc<Trace>, rules: u64) -> Option<Self> {
        let before = trace.connections.fetch_add(1, Relaxed);
        let place = Self { trace: Arc::clone(trace), rules };
        (before < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for TracePlace {
    fn drop(&mut self) {
        self.trace.connections.fetch_sub(1, Relaxed);
    }
}
