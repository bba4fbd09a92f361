//! Removes messages that need not wait any longer for a client that is away. The shard searches its
//! queue page by page.

use std::num::NonZeroU32;

use super::{Page, Session, Weeded};
use crate::{
    journal::{QueuePlace, SessionNumber},
    mqtt::Timestamp,
};

/// Maximum number of messages of one session that may be dropped before the store knows of it.
const WEEDED_MAX: usize = 1_024;

impl Session {
    /// Forgets the receipts of stored messages whose calls have ended.
    pub fn forget_receipts(&mut self, now: Timestamp) {
        if let Some(keeping) = &mut self.outgoing.queue_mut().keeping {
            keeping.forget_receipts(now);
        }
    }

    /// Returns when the first waiting message may expire or be dropped, or an earlier time; `None`
    /// if there is no such message.
    #[must_use]
    pub fn weeds_from(&self) -> Option<Timestamp> {
        self.outgoing.queue().weeds_from()
    }

    /// Drops expired messages in memory, and begins to search the store; returns how many were
    /// dropped.
    pub fn begin_weeding(&mut self, now: Timestamp) -> usize {
        let has_expired =
            |envelope: &super::envelope::Envelope| envelope.message.publication().has_expired(now);
        let dropped = self.outgoing.drop_waiting(has_expired);
        self.outgoing.queue_mut().begin_weeding();
        dropped
    }

    /// Returns the place to read the next page from, `from` or later; `None` if no page is needed.
    #[must_use]
    pub fn weeding_goes_on_from(&self, from: QueuePlace) -> Option<(SessionNumber, QueuePlace)> {
        let (number, first) = self.unread_from()?;
        Some((number, first.max(from)))
    }

    /// Returns whether the store should first commit the dropped messages, because they are many.
    #[must_use]
    pub fn must_settle_weeding(&self) -> bool {
        let keeping = self.outgoing.queue().keeping.as_ref();
        keeping.is_some_and(|keeping| keeping.taken_out() >= WEEDED_MAX)
    }

    /// Drops messages of a page that need not wait; the others stay in the store.
    /// `is_under_subscription` tells whether a subscription that is not shared matches a topic.
    pub fn weed(
        &mut self,
        page: Page,
        now: Timestamp,
        share_number: impl Fn(&str) -> Option<NonZeroU32>,
        is_under_subscription: impl Fn(&str) -> bool,
    ) -> Weeded {
        let queue = self.outgoing.queue_mut();
        let (in_memory, before) = (queue.in_memory(), queue.len());
        let weeded = queue.weed(page, now, share_number, is_under_subscription);
        let left = before - queue.len();
        // The exact position of a walk among the messages of the store is not known.
        self.outgoing.have_left(|ahead| ahead.saturating_sub(in_memory).min(left));
        weeded
    }

    /// Ends the search. `expires_first` is when the first message left in the store expires.
    pub fn end_weeding(&mut self, expires_first: Timestamp) {
        self.outgoing.queue_mut().end_weeding(expires_first);
    }
}
