//! What waits for a client that is away and need not: it is looked for page by page, by the shard.

use std::num::NonZeroU32;

use super::{Page, Session, Weeded, is_shared};
use crate::{
    journal::{QueuePlace, SessionNumber},
    mqtt::{Timestamp, filter_matches},
};

/// So many messages of one session may be dropped before the store knows of it.
const WEEDED_MAX: usize = 1_024;

impl Session {
    /// When something that waits need not any longer, or a time before that; `None` if all that waits
    /// has no end.
    #[must_use]
    pub fn weeds_from(&self) -> Option<Timestamp> {
        self.outgoing.queue().weeds_from()
    }

    /// Drops what has expired in memory, and begins to look for more; how much was dropped.
    pub fn begin_weeding(&mut self, now: Timestamp) -> usize {
        let has_expired =
            |envelope: &super::envelope::Envelope| envelope.message.publication().has_expired(now);
        let dropped = self.outgoing.drop_waiting(has_expired);
        self.outgoing.queue_mut().begin_weeding();
        dropped
    }

    /// The place from which on the next page is to be read, if one is: `from` this one on at the
    /// earliest.
    #[must_use]
    pub fn weeding_goes_on_from(&self, from: QueuePlace) -> Option<(SessionNumber, QueuePlace)> {
        let (number, first) = self.unread_from()?;
        Some((number, first.max(from)))
    }

    /// Whether so much was dropped that the store should know first.
    #[must_use]
    pub fn must_settle_weeding(&self) -> bool {
        let keeping = self.outgoing.queue().keeping.as_ref();
        keeping.is_some_and(|keeping| keeping.taken_out() >= WEEDED_MAX)
    }

    /// Drops of a page of the queue what need not wait; the rest stays where it is.
    pub fn weed(
        &mut self,
        page: Page,
        now: Timestamp,
        share_number: impl Fn(&str) -> Option<NonZeroU32>,
    ) -> Weeded {
        let subscriptions = &self.subscriptions;
        let is_under_subscription = |topic: &str| {
            let mut filters = subscriptions.iter().filter(|(filter, _)| !is_shared(filter));
            filters.any(|(filter, _)| filter_matches(filter, topic))
        };
        let queue = self.outgoing.queue_mut();
        let (in_memory, before) = (queue.in_memory(), queue.len());
        let weeded = queue.weed(page, now, share_number, is_under_subscription);
        let left = before - queue.len();
        // Where exactly a walk has its place among what the store has is not known.
        self.outgoing.have_left(|ahead| ahead.saturating_sub(in_memory).min(left));
        weeded
    }

    /// All was looked at; of what was left in the store this expires first.
    pub fn end_weeding(&mut self, expires_first: Timestamp) {
        self.outgoing.queue_mut().end_weeding(expires_first);
    }
}
