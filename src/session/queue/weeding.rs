//! Removes messages that need not wait any longer for a client that is away: expired messages, and
//! those that came through a withdrawn subscription.
//!
//! A queue is searched from beginning to end, page by page if it is in the store, and only if there
//! is something to find. For this, the queue knows a time before which no message expires.

use std::num::NonZeroU32;

use super::{Orphan, Page, Queue};
use crate::mqtt::Timestamp;

/// When the first waiting message expires, or an earlier time; [`Timestamp::NEVER`] if none
/// expires.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiring {
    first: Timestamp,
    /// The same for messages that came since the search began.
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

/// The result of searching a page of a queue.
#[derive(Debug)]
pub struct Weeded {
    /// Messages that came through a withdrawn shared subscription, for its other members.
    pub orphans: Vec<Orphan>,
    /// Number of expired messages.
    pub expired: usize,
    /// Number of messages that came through another withdrawn subscription.
    pub withdrawn: usize,
    /// When the first message that still waits expires.
    pub expires_first: Timestamp,
}

impl Queue {
    /// Returns when to search; `None` if there is nothing to find.
    pub(in crate::session) fn weeds_from(&self) -> Option<Timestamp> {
        if self.has_withdrawn() {
            return Some(Timestamp(0));
        }
        let first = self.expiring.first;
        (first != Timestamp::NEVER && !self.is_empty()).then_some(first)
    }

    /// Notes when the first message that was found in the store expires.
    pub(in crate::session) fn note_expiry(&mut self, first: Option<Timestamp>) {
        self.expiring.note(first);
    }

    /// Begins a search. From now on, new messages are noted separately. The messages in memory have
    /// been examined already.
    pub(in crate::session) fn begin_weeding(&mut self) {
        self.expiring.since = Timestamp::NEVER;
        for envelope in &self.waiting {
            self.expiring.note(envelope.message.expires_at());
        }
        self.look_for_withdrawn();
    }

    /// Ends a search. `expires_first` is when the first message left in the store expires.
    pub(in crate::session) fn end_weeding(&mut self, expires_first: Timestamp) {
        self.expiring.first = self.expiring.since.min(expires_first);
        self.end_look_for_withdrawn();
    }

    /// Removes from a page the messages that need not wait; the others stay in the store.
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
        // If memory holds a part of the queue, a later read may find a removed place again.
        let is_memory_empty = !self.holds_stored();
        for (place, queued) in page.messages {
            let Some(keeping) = &mut self.keeping else { break };
            // It belongs to another member; the store has not removed it yet.
            if keeping.was_taken_out(place) {
                continue;
            }
            let has_expired = queued.message.publication().has_expired(now);
            let is_withdrawn = self.withdrawn.as_ref().is_some_and(|withdrawn| {
                withdrawn.is_withdrawn(place, &queued, &is_under_subscription)
            });
            if !has_expired && !is_withdrawn {
                // The next search of this queue begins at this time at the earliest.
                if let Some(at) = queued.message.expires_at() {
                    weeded.expires_first = weeded.expires_first.min(at);
                }
                continue;
            }
            let size = queued.message.size();
            // An expired message is for nobody; a withdrawn one of a group is for its other members.
            let share = queued.share.as_deref().filter(|_| !has_expired).and_then(&share_number);
            if let Some(share) = share {
                // The subscription stays in the store until the other members have the message.
                if let Some(withdrawn) = &mut self.withdrawn {
                    withdrawn.search_again();
                }
                let stored_at = Some(keeping.take_unread(place, size, is_memory_empty));
                let message = keeping.with_receipt(place, queued.message);
                weeded.orphans.push(Orphan { message, share, stored_at });
                continue;
            }
            keeping.weed(place, size, is_memory_empty);
            weeded.expired += usize::from(has_expired);
            weeded.withdrawn += usize::from(!has_expired);
        }
        self.settle_withdrawn();
        self.note_stored();
        weeded
    }
}
