//! Subscriptions that end because their client may no longer have them: what waits under them is
//! dropped, in memory at once, and in the store when it is read.
//!
//! What the client itself unsubscribes from may still be delivered; what was taken from it may not.

use super::{Session, counted_bytes, envelope::Envelope, is_shared};
use crate::{journal::Change, mqtt::filter_matches};

impl Session {
    /// Ends these subscriptions and drops what waits under them and under no other; how much that
    /// was. What came by a shared one has been taken out before.
    ///
    /// While the store has messages that wait, it keeps the subscriptions as well: should the broker
    /// end before they are read, they are judged again with the subscriptions.
    pub fn withdraw<'f>(&mut self, filters: impl Iterator<Item = &'f str>) -> usize {
        let mut ended: Vec<Box<str>> = Vec::new();
        for filter in filters {
            if self.subscriptions.remove(filter) {
                self.outgoing.cancel_walk(filter);
                self.shared_subscriptions -= usize::from(is_shared(filter));
                self.charge(|bytes| bytes.saturating_sub(counted_bytes(filter)));
                ended.push(filter.into());
            }
        }
        let subscriptions = &self.subscriptions;
        let is_under_other = |topic: &str| {
            let mut others = subscriptions.iter().filter(|(filter, _)| !is_shared(filter));
            others.any(|(filter, _)| filter_matches(filter, topic))
        };
        let is_dropped = |envelope: &Envelope| {
            let topic = envelope.message.topic();
            envelope.share.is_none()
                && ended.iter().any(|filter| filter_matches(filter, topic))
                && !is_under_other(topic)
        };
        let dropped = self.outgoing.drop_waiting(is_dropped);
        let queue = self.outgoing.queue_mut();
        if let Some(keeping) = &mut queue.keeping {
            if keeping.beyond.messages == 0 {
                for filter in ended {
                    keeping.note(|number| Change::Unsubscribe(number, filter));
                }
            } else {
                keeping.withdraw(ended);
            }
        }
        dropped
    }
}
