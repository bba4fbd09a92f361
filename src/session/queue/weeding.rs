//! What need not wait any longer, and whose client is away: messages that have expired, and those that
//! came by a subscription that was withdrawn.
//!
//! A queue is looked through from its beginning to its end, page by page where it lies in the store, and
//! only when there is something to be found: when the first of it expires is known as a bound from below.

use std::num::NonZeroU32;

use super::{Orphan, Page, Queue};
use crate::mqtt::Timestamp;

/// When the first of what waits expires, or a time before that; [`Timestamp::NEVER`] if nothing does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiring {
    first: Timestamp,
    /// The same for what has come since somebody began to look.
    since: Timestamp,
}

impl Expiring {
    pub(super) const NOTHING: Self = Self { first: Timestamp::NEVER, since: Timestamp::NEVER };

    pub(super) fn note(&mut self, expires_at: Option<Timestamp>) {
        if let Some(at) = expires_at {
            self.first = self.first.min(at);
            self.since = self.since.min(at);
        }
    }
}

/// What was found in a page of a queue.
#[derive(Debug)]
pub struct Weeded {
    /// Messages that came by a shared subscription that was withdrawn, for its other members.
    pub orphans: Vec<Orphan>,
    /// How many had expired.
    pub expired: usize,
    /// How many came by another subscription that was withdrawn.
    pub withdrawn: usize,
    /// When the first of those that still wait expires.
    pub expires_first: Timestamp,
}

impl Queue {
    /// When something is to be looked for; `None` if there is nothing to be found.
    pub(in crate::session) fn weeds_from(&self) -> Option<Timestamp> {
        if self.keeping.as_ref().is_some_and(|keeping| keeping.has_withdrawn()) {
            return Some(Timestamp(0));
        }
        let first = self.expiring.first;
        (first != Timestamp::NEVER && !self.is_empty()).then_some(first)
    }

    /// Says when the first of what was found in the store expires.
    pub(in crate::session) fn note_expiry(&mut self, first: Option<Timestamp>) {
        self.expiring.note(first);
    }

    /// Somebody begins to look: from here on what comes is noted by itself. What waits in memory has
    /// been looked at.
    pub(in crate::session) fn begin_weeding(&mut self) {
        self.expiring.since = Timestamp::NEVER;
        for envelope in &self.waiting {
            self.expiring.note(envelope.message.expires_at());
        }
        if let Some(keeping) = &mut self.keeping {
            keeping.look_for_withdrawn();
        }
    }

    /// All was looked at, and of what was left in the store this expires first.
    pub(in crate::session) fn end_weeding(&mut self, expires_first: Timestamp) {
        self.expiring.first = self.expiring.since.min(expires_first);
        if let Some(keeping) = &mut self.keeping {
            keeping.end_look_for_withdrawn();
        }
    }

    /// Takes out of a page that was read from the store what need not wait; the rest stays there.
    pub(in crate::session) fn weed(
        &mut self,
        page: Page,
        now: Timestamp,
        share_number: impl Fn(&str) -> Option<NonZeroU32>,
        is_under_subscription: impl Fn(&str) -> bool,
    ) -> Weeded {
        let mut weeded = Weeded {
            orphans: Vec::new(),
            expired: 0,
            withdrawn: 0,
            expires_first: Timestamp::NEVER,
        };
        let is_memory_empty = !self.holds_kept();
        for (place, queued) in page.messages {
            let Some(keeping) = &mut self.keeping else { break };
            if keeping.was_taken_out(place) {
                continue;
            }
            let has_expired = queued.message.publication().has_expired(now);
            let is_withdrawn = keeping.is_withdrawn(place, &queued, &is_under_subscription);
            if !has_expired && !is_withdrawn {
                if let Some(at) = queued.message.expires_at() {
                    weeded.expires_first = weeded.expires_first.min(at);
                }
                continue;
            }
            let size = queued.message.size();
            let share = queued.share.as_deref().filter(|_| !has_expired).and_then(&share_number);
            if let Some(share) = share {
                let kept_at = Some(keeping.weed_for_others(place, size, is_memory_empty));
                weeded.orphans.push(Orphan { message: queued.message, share, kept_at });
                continue;
            }
            keeping.weed(place, size, is_memory_empty);
            weeded.expired += usize::from(has_expired);
            weeded.withdrawn += usize::from(!has_expired);
        }
        if let Some(keeping) = &mut self.keeping {
            keeping.settle_withdrawn();
        }
        self.note_stored();
        weeded
    }
}
