//! The times at which a shard must do something: Keep Alive deadlines of its connections, timers of
//! its slots, and its last sweep.
//!
//! Knows slots by their numbers only. The sweep (`presence/sweep.rs`) asks what is due, and does it.

use std::{collections::BTreeSet, time::Duration};

use crate::mqtt::Timestamp;

/// After this time without a sweep, the shard assumes that the whole process stood still.
pub(in crate::shard) const STOOD_STILL: Duration = Duration::from_millis(500);
/// The time that clients get after that before deadlines count. Bytes that arrived meanwhile are in their sockets,
/// and the runtime may not know it yet.
const TO_BE_HEARD_MILLIS: u64 = 100;

/// The deadlines of all slots of a shard.
pub(in crate::shard) struct Deadlines {
    /// Keep Alive deadline of each slot in milliseconds, so that a sweep reads nothing else.
    keep_alive: Vec<u64>,
    /// When a slot's Will or session is due, in milliseconds, with its slot: one entry for each
    /// slot.
    timers: BTreeSet<(u64, u32)>,
    /// The time of the last sweep.
    swept_at: Timestamp,
    /// Before this time, the shard may not have read all bytes that arrived while the process stood
    /// still.
    all_heard_at: Timestamp,
}

/// The entry of a slot among the timers, in milliseconds.
#[derive(Default)]
pub(in crate::shard) struct Timer(Option<u64>);

impl Timer {
    /// Notes that the timer has fired, and has no entry any more.
    pub(in crate::shard) const fn has_fired(&mut self) {
        self.0 = None;
    }
}

impl Deadlines {
    pub(in crate::shard) const fn new(now: Timestamp) -> Self {
        Self {
            keep_alive: Vec::new(),
            timers: BTreeSet::new(),
            swept_at: now,
            all_heard_at: Timestamp(0),
        }
    }

    /// Sets when the client of a slot is disconnected if it sends nothing.
    pub(in crate::shard) fn set_keep_alive(&mut self, slot: u32, deadline: Timestamp) {
        let at = slot as usize;
        if self.keep_alive.len() <= at {
            self.keep_alive.resize(at + 1, u64::MAX);
        }
        self.keep_alive[at] = deadline.millis();
    }

    /// Sets when the timer of a slot fires; `None`: never.
    pub(in crate::shard) fn set_timer(
        &mut self,
        slot: u32,
        timer: &mut Timer,
        due: Option<Timestamp>,
    ) {
        let due = due.map(Timestamp::millis);
        let former = std::mem::replace(&mut timer.0, due);
        if former != due {
            former.map(|at| self.timers.remove(&(at, slot)));
            due.map(|at| self.timers.insert((at, slot)));
        }
    }

    /// Notes a sweep; returns the time since the last one.
    pub(in crate::shard) fn begin_sweep(&mut self, now: Timestamp) -> Duration {
        let passed = now.since(std::mem::replace(&mut self.swept_at, now));
        if passed > STOOD_STILL {
            self.all_heard_at = now.plus_millis(TO_BE_HEARD_MILLIS);
        }
        passed
    }

    /// Returns the slots whose Keep Alive deadline has passed; none while clients may not have been
    /// heard.
    pub(in crate::shard) fn expired(&self, now: Timestamp) -> impl Iterator<Item = usize> {
        let are_heard = now >= self.all_heard_at;
        let deadlines = if are_heard { &*self.keep_alive } else { &[] };
        let are_due = deadlines.iter().enumerate().filter(move |(_, at)| **at <= now.millis());
        are_due.map(|(slot, _)| slot)
    }

    /// Takes out the next timer that is due; returns its slot.
    pub(in crate::shard) fn take_due(&mut self, now: Timestamp) -> Option<u32> {
        let (at, slot) = *self.timers.first()?;
        if at > now.millis() {
            return None;
        }
        self.timers.pop_first();
        Some(slot)
    }
}
