//! Whether the store can be written, for callers that are about to promise durability.

use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::{mqtt::ReasonCode, store::StoreError};

/// Why the broker cannot promise durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The store has no room.
    Full,
    /// The store cannot be written.
    Failed,
}

impl Trouble {
    /// Returns the Reason Code for clients.
    pub(crate) const fn reason(self) -> ReasonCode {
        match self {
            Self::Full => ReasonCode::QuotaExceeded,
            Self::Failed => ReasonCode::ImplementationSpecificError,
        }
    }
}

/// The state of the store.
#[derive(Debug)]
pub(crate) struct Health {
    state: AtomicU8,
    began: Instant,
    /// When the write in progress began, in milliseconds, at least 1; 0 if there is none.
    writing_since: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        let (state, writing_since) = (AtomicU8::new(WELL), AtomicU64::new(0));
        Self { state, began: Instant::now(), writing_since }
    }
}

/// A write that takes longer makes the store unavailable, as far as readiness is concerned.
const WRITE_TIME_MAX: Duration = Duration::from_secs(5);

const WELL: u8 = 0;
const FULL: u8 = 1;
const FAILED: u8 = 2;

impl Health {
    /// Returns the fault of the store, if there is one.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        match self.state.load(Ordering::Acquire) {
            WELL => None,
            FULL => Some(Trouble::Full),
            _ => Some(Trouble::Failed),
        }
    }

    /// Notes that a write has begun or ended.
    pub(crate) fn note_writing(&self, is_writing: bool) {
        let millis = self.began.elapsed().as_millis() as u64 + 1;
        self.writing_since.store(if is_writing { millis } else { 0 }, Ordering::Relaxed);
    }

    /// Returns whether the disk does not answer: a write has been in progress for too long.
    pub(crate) fn is_stuck(&self) -> bool {
        let since = self.writing_since.load(Ordering::Relaxed);
        since > 0 && self.began.elapsed() > Duration::from_millis(since) + WRITE_TIME_MAX
    }

    /// Notes that changes were stored.
    pub(crate) fn note_success(&self) {
        if self.state.load(Ordering::Relaxed) != WELL {
            self.state.store(WELL, Ordering::Release);
            tracing::warn!("the store can be written again: durable messages are taken again");
        }
    }

    /// Notes whether there is room for more. Without room, the broker promises nothing more, and
    /// still writes what it has promised.
    pub(crate) fn note_room(&self, has_room: bool) {
        if has_room {
            self.note_success();
        } else {
            self.note_full();
        }
    }

    /// Notes that there is room only for changes that were promised already.
    fn note_full(&self) {
        if self.state.swap(FULL, Ordering::AcqRel) != FULL {
            tracing::error!(
                "the disk of the store is nearly full: durable messages are refused until there \
                 is room; free some, or let subscribers take what waits for them"
            );
        }
    }

    /// Notes that changes could not be stored.
    pub(crate) fn note_failure(&self, error: &StoreError) {
        let state = if matches!(error, StoreError::Full { .. }) { FULL } else { FAILED };
        if self.state.swap(state, Ordering::AcqRel) != state {
            tracing::error!(
                %error,
                "the store cannot be written: durable messages are refused until it can be, and \
                 nothing is acknowledged that is not stored"
            );
        }
    }
}
