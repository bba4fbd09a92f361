//! Whether the store can be written, for those who would promise that something is kept.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::{mqtt::ReasonCode, store::StoreError};

/// Why nothing durable can be promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There is no room.
    Full,
    /// It cannot be written.
    Failed,
}

impl Trouble {
    /// What a client is told.
    pub(crate) const fn reason(self) -> ReasonCode {
        match self {
            Self::Full => ReasonCode::QuotaExceeded,
            Self::Failed => ReasonCode::ImplementationSpecificError,
        }
    }
}

/// The state of the store.
#[derive(Debug, Default)]
pub(crate) struct Health(AtomicU8);

const WELL: u8 = 0;
const FULL: u8 = 1;
const FAILED: u8 = 2;

impl Health {
    /// What is wrong, if something is.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        match self.0.load(Ordering::Acquire) {
            WELL => None,
            FULL => Some(Trouble::Full),
            _ => Some(Trouble::Failed),
        }
    }

    /// Changes could be kept.
    pub(crate) fn note_success(&self) {
        if self.0.load(Ordering::Relaxed) != WELL {
            self.0.store(WELL, Ordering::Release);
            tracing::warn!("the store can be written again: durable messages are taken again");
        }
    }

    /// Whether there is room for more; without it nothing more is promised, and what was is still
    /// written.
    pub(crate) fn note_room(&self, has_room: bool) {
        if has_room {
            self.note_success();
        } else {
            self.note_full();
        }
    }

    /// There is no room for more than was promised already.
    fn note_full(&self) {
        if self.0.swap(FULL, Ordering::AcqRel) != FULL {
            tracing::error!(
                "the disk of the store is nearly full: durable messages are refused until there \
                 is room; free some, or let subscribers take what waits for them"
            );
        }
    }

    /// Changes could not be kept.
    pub(crate) fn note_failure(&self, error: &StoreError) {
        let state = if matches!(error, StoreError::Full { .. }) { FULL } else { FAILED };
        if self.0.swap(state, Ordering::AcqRel) != state {
            tracing::error!(
                %error,
                "the store cannot be written: durable messages are refused until it can be, and \
                 nothing is acknowledged that is not kept"
            );
        }
    }
}
