//! Subscriptions that end because their client has lost the permission. Their waiting messages are
//! dropped: in memory at once, in the store when they are read.
//!
//! If the client itself unsubscribes, waiting messages may still be delivered. If the permission is
//! withdrawn, they may not.

use super::{Session, counted_bytes, envelope::Envelope, is_shared};
use crate::{journal::Change, mqtt::filter_matches};

impl Session {
    /// Ends these subscriptions. Drops the messages in memory that wait under them and under no
    /// other; returns how many. The caller has already taken out those of shared subscriptions.
    ///
    /// While messages wait in the store, the store has the subscriptions as well: if the broker
    /// ends before it has read the messages, it checks the permission again after the restart.
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
