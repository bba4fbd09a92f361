//! Subscriptions that end because their client has lost the permission. Their waiting messages are
//! dropped before they could be sent: those in memory in portions, those in the store when they are
//! read.
//!
//! If the client itself unsubscribes, waiting messages may still be delivered. If the permission is
//! withdrawn, they may not.

use std::num::NonZeroU32;

use super::{Orphan, Session};
use crate::journal::SubscriptionRecord;

/// The result of examining a portion of the waiting messages.
#[derive(Debug)]
pub struct Examined {
    /// Number of messages that were dropped.
    pub dropped: usize,
    /// Messages that came through a withdrawn shared subscription, for its other members.
    pub orphans: Vec<Orphan>,
}

impl Session {
    /// Ends these subscriptions, each with the number of its group if it is shared. From now on, a
    /// message that waits under them and under no other is not sent. The caller lets the session
    /// examine its messages with [`Session::examine_waiting`].
    ///
    /// While such messages may wait, the store has the subscriptions as well, marked: if the broker
    /// ends before, it continues after the restart.
    pub fn withdraw<'f>(&mut self, filters: impl Iterator<Item = (&'f str, Option<NonZeroU32>)>) {
        let mut ended = Vec::<(Box<str>, SubscriptionRecord)>::new();
        let mut shares = Vec::<(Box<str>, NonZeroU32)>::new();
        for (filter, share) in filters {
            if let Some(subscription) = self.subscription(filter) {
                self.table_mut(filter).remove(filter);
                self.outgoing.cancel_walk(filter);
                if let Some(owned) = &mut self.owned {
                    owned.remove(filter);
                }
                let record = SubscriptionRecord { is_withdrawn: true, ..subscription.record() };
                ended.push((filter.into(), record));
                shares.extend(share.map(|number| (filter.into(), number)));
            }
        }
        self.outgoing.queue_mut().withdraw(ended, shares);
    }

    /// Returns whether the client could be sent its next message if that message need not be
    /// examined before.
    #[must_use]
    pub fn wants_examination(&self) -> bool {
        self.outgoing.queue().is_next_in_question()
            && self.link.as_ref().is_some_and(|link| link.has_room())
    }

    /// Returns whether messages in memory must be examined, or the store must be told that subscriptions
    /// have ended.
    #[must_use]
    pub fn must_examine(&self) -> bool {
        self.outgoing.queue().must_examine()
    }

    /// Examines some of the messages in memory, at most `messages_max`. Drops those that no
    /// subscription matches any more; `is_under_subscription` tells whether one does.
    pub fn examine_waiting(
        &mut self,
        messages_max: usize,
        is_under_subscription: impl Fn(&str) -> bool,
    ) -> Examined {
        let queue = self.outgoing.queue_mut();
        let examined = queue.examine(messages_max, is_under_subscription);
        let positions = examined.positions;
        self.outgoing.have_left(|ahead| positions.partition_point(|position| *position < ahead));
        Examined { dropped: examined.dropped, orphans: examined.orphans }
    }
}
