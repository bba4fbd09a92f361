//! Waiting messages of subscriptions that have ended because their client has lost the permission.
//!
//! The queue is not searched when a subscription ends: it may be long. Instead, the messages that
//! wait at that time are examined before they leave: those in memory in portions, those in the
//! store with their page. A message is dropped if no remaining subscription matches its topic.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU32,
};

use foldhash::fast::RandomState;

use super::{Envelope, Orphan, Queue};
use crate::{
    journal::{Change, QueuePlace, QueuedMessage, SubscriptionRecord},
    session::keeping::Keeping,
};

/// Maximum number of ended subscriptions that the store is told of at a time.
const TOLD_MAX: usize = 1_024;

/// The withdrawn subscriptions whose messages may still wait.
#[derive(Debug, Default)]
pub(super) struct Withdrawn {
    /// Messages in memory before this position were examined. Positions count all messages that
    /// have ever left the queue.
    examined_up_to: u64,
    /// Messages in memory from this position on came later.
    in_memory_up_to: u64,
    /// Stored messages after this place came later.
    stored_up_to: QueuePlace,
    /// A search for these messages in the store is in progress.
    is_looked_for: bool,
    /// The search in the store has reached its end.
    is_store_examined: bool,
    /// The store keeps these subscriptions, with a mark, while their messages may wait. If the broker
    /// ends meanwhile, the next start continues the search.
    stored: HashSet<Box<str>, RandomState>,
    /// The numbers of shared subscriptions, and which of them are withdrawn.
    shares: HashMap<Box<str>, NonZeroU32, RandomState>,
    numbers: HashSet<NonZeroU32, RandomState>,
}

/// Messages that were taken out of the queue in memory, and their positions among those that
/// waited.
#[derive(Debug, Default)]
pub(in crate::session) struct TakenOut {
    pub(in crate::session) dropped: usize,
    pub(in crate::session) orphans: Vec<Orphan>,
    pub(in crate::session) positions: Vec<usize>,
}

impl Queue {
    /// Notes that subscriptions were withdrawn, with the numbers of the shared ones.
    pub(in crate::session) fn withdraw(
        &mut self,
        ended: Vec<(Box<str>, SubscriptionRecord)>,
        shares: Vec<(Box<str>, NonZeroU32)>,
    ) {
        if ended.is_empty() {
            return;
        }
        // Nothing waits, so nothing has to be examined, and the store may forget the subscription.
        if self.is_empty() && self.withdrawn.is_none() {
            if let Some(keeping) = &self.keeping {
                ended.into_iter().for_each(|(filter, _)| note_ended(keeping, filter));
            }
            return;
        }
        let withdrawn = self.withdrawn.get_or_insert_default();
        // Everything that waits at this moment is examined; later messages come through other subscriptions.
        withdrawn.examined_up_to = self.taken;
        withdrawn.in_memory_up_to = self.taken + self.waiting.len() as u64;
        withdrawn.is_looked_for = false;
        withdrawn.is_store_examined = false;
        withdrawn.numbers.extend(shares.iter().map(|(_, number)| number));
        withdrawn.shares.extend(shares);
        if let Some(keeping) = &self.keeping {
            withdrawn.stored_up_to = keeping.last_place();
            for (filter, record) in ended {
                // Marked and not removed: a start must go on with the examination after a crash.
                keeping.note(|number| Change::Subscribe(number, filter.clone(), record));
                withdrawn.stored.insert(filter);
            }
        }
    }

    /// Notes that the client has a subscription again.
    pub(in crate::session) fn grant_again(&mut self, filter: &str) {
        if let Some(withdrawn) = &mut self.withdrawn {
            withdrawn.stored.remove(filter);
            if let Some(number) = withdrawn.shares.remove(filter) {
                withdrawn.numbers.remove(&number);
            }
        }
    }

    /// Returns whether the next message in memory must be examined before it is sent.
    pub(in crate::session) fn is_next_in_question(&self) -> bool {
        let Some(withdrawn) = &self.withdrawn else { return false };
        withdrawn.examined_up_to <= self.taken && self.has_in_question()
    }

    /// Returns whether messages in memory are still to be examined, or the store is still to be
    /// told that subscriptions have ended.
    pub(in crate::session) fn must_examine(&self) -> bool {
        let Some(withdrawn) = &self.withdrawn else { return false };
        self.has_in_question() || self.is_store_clean(withdrawn)
    }

    fn has_in_question(&self) -> bool {
        let Some(withdrawn) = &self.withdrawn else { return false };
        let from = withdrawn.examined_up_to.max(self.taken);
        from < withdrawn.in_memory_up_to.min(self.taken + self.waiting.len() as u64)
    }

    fn is_store_clean(&self, withdrawn: &Withdrawn) -> bool {
        withdrawn.is_store_examined || self.beyond().messages == 0
    }

    /// Examines at most `messages_max` of the messages in memory. Takes out those that no remaining
    /// subscription matches, and those of withdrawn shared subscriptions.
    pub(in crate::session) fn examine(
        &mut self,
        messages_max: usize,
        is_under_subscription: impl Fn(&str) -> bool,
    ) -> TakenOut {
        let mut examined = TakenOut::default();
        // Taken out, because the closure needs the queue too.
        let Some(mut withdrawn) = self.withdrawn.take() else { return examined };
        let from = withdrawn.examined_up_to.max(self.taken);
        let mut left = withdrawn.in_memory_up_to.saturating_sub(from);
        left = left.min(messages_max as u64);
        let mut passed = (from - self.taken) as usize;
        let mut at = passed;
        let taken = self.take_part(&mut passed, |envelope| {
            // The end of the range: later messages are of subscriptions that still exist.
            left = left.checked_sub(1)?;
            let is_withdrawn = match envelope.share {
                // A message of a group belongs to it, whatever other subscriptions match.
                Some(share) => withdrawn.numbers.contains(&share),
                None => !is_under_subscription(envelope.message.topic()),
            };
            if is_withdrawn {
                examined.positions.push(at);
            }
            at += 1;
            Some(is_withdrawn)
        });
        withdrawn.examined_up_to = self.taken + passed as u64;
        // Messages that were taken out no longer count in the range.
        withdrawn.in_memory_up_to -= taken.len() as u64;
        self.withdrawn = Some(withdrawn);
        for envelope in taken {
            self.let_go(envelope, &mut examined);
        }
        self.settle_withdrawn();
        examined
    }

    /// Drops a message, or leaves it to the other members of its shared subscription.
    fn let_go(&mut self, envelope: Envelope, examined: &mut TakenOut) {
        let keeping = self.keeping.as_mut().filter(|_| envelope.is_stored());
        match (envelope.share, keeping) {
            (Some(share), keeping) => {
                // The store keeps the message until another member has stored it.
                let stored_at = keeping.map(|keeping| keeping.take_out(envelope.place));
                examined.orphans.push(Orphan { message: envelope.message, share, stored_at });
            }
            (None, keeping) => {
                if let Some(keeping) = keeping {
                    keeping.dequeue(envelope.place);
                }
                examined.dropped += 1;
            }
        }
    }

    /// Notes that messages have left the queue in memory out of order, so that positions have
    /// moved. The messages are examined again from the first one on, perhaps with some that came
    /// later. That takes none of them away from the client: their subscriptions exist, unless the
    /// client has ended them itself, and then messages that wait need not be delivered
    /// (section 3.10.4).
    pub(super) fn note_moved(&mut self) {
        if let Some(withdrawn) = &mut self.withdrawn {
            withdrawn.examined_up_to = self.taken;
        }
    }

    /// Returns whether there may be messages that came through a withdrawn subscription.
    pub(super) fn has_withdrawn(&self) -> bool {
        self.withdrawn.is_some()
    }

    /// Begins a search for these messages in the store.
    pub(super) fn look_for_withdrawn(&mut self) {
        if let Some(withdrawn) = &mut self.withdrawn {
            withdrawn.is_looked_for = true;
        }
    }

    /// Ends the search: it has examined all messages that wait in the store.
    pub(super) fn end_look_for_withdrawn(&mut self) {
        if let Some(withdrawn) = &mut self.withdrawn {
            withdrawn.is_store_examined |= withdrawn.is_looked_for;
            self.settle_withdrawn();
        }
    }

    /// Tells the store of the withdrawn subscriptions, once no message of them waits, and forgets
    /// them.
    pub(in crate::session) fn settle_withdrawn(&mut self) {
        let Some(withdrawn) = &self.withdrawn else { return };
        // Some of its messages may still wait, in memory or in the store.
        if self.has_in_question() || !self.is_store_clean(withdrawn) {
            return;
        }
        let Some(mut withdrawn) = self.withdrawn.take() else { return };
        if let Some(keeping) = &self.keeping {
            // In portions, because a session may have lost very many subscriptions at the same time.
            let told: Vec<_> = withdrawn.stored.iter().take(TOLD_MAX).cloned().collect();
            for filter in told {
                withdrawn.stored.remove(&filter);
                note_ended(keeping, filter);
            }
            if !withdrawn.stored.is_empty() {
                self.withdrawn = Some(withdrawn);
            }
        }
    }
}

impl Withdrawn {
    /// Returns whether a message from the store came through a withdrawn subscription.
    /// `is_under_subscription` tells whether an existing subscription matches its topic.
    pub(super) fn is_withdrawn(
        &self,
        place: QueuePlace,
        queued: &QueuedMessage,
        is_under_subscription: impl Fn(&str) -> bool,
    ) -> bool {
        // It was queued after the withdrawal.
        if place > self.stored_up_to {
            return false;
        }
        match &queued.share {
            Some(share) => self.stored.contains(&**share),
            None => !is_under_subscription(queued.message.topic()),
        }
    }

    /// Notes that a message of the store goes to other members. The store has its subscription
    /// until they have the message.
    pub(super) const fn search_again(&mut self) {
        self.is_looked_for = false;
    }
}

fn note_ended(keeping: &Keeping, filter: Box<str>) {
    keeping.note(|number| Change::Unsubscribe(number, filter));
}
