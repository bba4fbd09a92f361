//! Work on one session that would take too long for one turn, because the session has very many
//! subscriptions or messages: its chores. They are done in portions, and other tasks of the thread
//! have their turn in between.
//!
//! This module knows which sessions have chores, and their order. The chores themselves are in `presence`: checking
//! subscriptions, telling groups, ending a session. The code that begins a chore also does its first portion, so
//! most sessions need no other.

use std::collections::VecDeque;

use super::{Shard, SharedShard, Slot};
use crate::{
    mqtt::Timestamp,
    router::Place,
    session::{Orphan, SubscriptionWalk},
};

/// Maximum number of subscriptions in one portion, which takes about half a millisecond.
pub(in crate::shard) const SUBSCRIPTIONS_AT_A_TIME: usize = 256;

/// The sessions with chores, in turn.
#[derive(Default)]
pub(in crate::shard) struct Chores {
    /// Slots and their generations.
    queue: VecDeque<(u32, u32)>,
    /// The sessions whose chores cannot continue before the next sweep.
    later: Vec<(u32, u32)>,
    is_under_way: bool,
}

/// The chores on one session.
#[derive(Default)]
pub(in crate::shard) struct SessionChores {
    /// Checks whether the client may still have its subscriptions.
    pub(in crate::shard) check: Option<SubscriptionWalk>,
    /// Tells the groups of shared subscriptions whether the client is connected.
    pub(in crate::shard) groups: Option<SubscriptionWalk>,
    /// Ends the session.
    pub(in crate::shard) ending: Option<Ending>,
    is_queued: bool,
}

/// A session that has ended, and still has subscriptions in the index or messages for others.
pub(in crate::shard) struct Ending {
    /// The place that the index has for its subscriptions. Nothing is delivered there any more.
    pub(in crate::shard) place: Place,
    /// Whether its Will was published, which must be stored before the session is removed.
    pub(in crate::shard) has_will: bool,
    /// Whether another node has its messages, so that they go to no other member.
    pub(in crate::shard) has_moved: bool,
    /// The messages in flight that go to other members of its groups; `None` until they are read.
    pub(in crate::shard) in_flight: Option<VecDeque<Orphan>>,
}

/// How far a portion has got.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum Progress {
    /// All is done.
    Done,
    /// There is more to do.
    More,
    /// The store or another shard is behind.
    Later,
}

/// Does chores as long as there are any.
pub(crate) async fn do_chores(shard: SharedShard) {
    loop {
        {
            let mut shard = shard.borrow_mut();
            let now = shard.core.clock.now();
            let goes_on = shard.do_portion(now);
            shard.flush();
            if !goes_on {
                shard.chores.is_under_way = false;
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}

impl Chores {
    /// Returns the slots whose turn comes first.
    pub(in crate::shard) fn first(&self, slots_max: usize) -> impl Iterator<Item = u32> {
        self.queue.iter().take(slots_max).map(|(slot, _)| *slot)
    }
}

impl Slot {
    pub(in crate::shard) fn chores_mut(&mut self) -> &mut SessionChores {
        self.chores.get_or_insert_default()
    }

    /// Gives the memory of the chores back, if there is none.
    pub(in crate::shard) fn tidy_chores(&mut self) {
        self.chores.take_if(|chores| {
            let SessionChores { check, groups, ending, is_queued } = &**chores;
            check.is_none() && groups.is_none() && ending.is_none() && !is_queued
        });
    }

    /// Returns whether the session has ended.
    pub(in crate::shard) fn is_ending(&self) -> bool {
        self.chores.as_ref().is_some_and(|chores| chores.ending.is_some())
    }

    /// Returns whether it is being checked whether the client may have its subscriptions.
    pub(in crate::shard) fn is_being_checked(&self) -> bool {
        self.chores.as_ref().is_some_and(|chores| chores.check.is_some())
    }
}

impl Shard {
    /// Returns whether [`do_chores`] must be started. At shutdown, the rest is left to the next
    /// start.
    pub(crate) fn begins_chores(&mut self) -> bool {
        let is_wanted = !self.chores.queue.is_empty() && !self.lifecycle.is_quiet();
        is_wanted && !std::mem::replace(&mut self.chores.is_under_way, true)
    }

    /// Lets waiting chores continue.
    pub(in crate::shard) fn resume_chores(&mut self) {
        self.chores.queue.extend(self.chores.later.drain(..));
    }

    /// Puts a session into the queue for chores.
    pub(in crate::shard) fn queue_chores(&mut self, slot: u32) {
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        let generation = found.generation;
        if !std::mem::replace(&mut found.chores_mut().is_queued, true) {
            self.chores.queue.push_back((slot, generation));
        }
    }

    /// Does one portion for the next session; returns whether there is more to do.
    fn do_portion(&mut self, now: Timestamp) -> bool {
        // The broker is shutting down: the store has the rest, and the next start continues.
        if self.lifecycle.is_quiet() {
            return false;
        }
        let Some((slot, generation)) = self.chores.queue.pop_front() else { return false };
        let is_there = |found: &&Slot| found.generation == generation;
        // The slot may belong to another client since the chore was queued.
        let Some(found) = self.slot(slot).filter(is_there) else { return true };
        let account = found.account.clone();
        let is_ending = found.is_ending();
        // The changes of a portion count for the owner of the session, not for the packet that came before.
        self.charge_account(Some(account));
        let portion = if is_ending {
            self.end_some(slot, now)
        } else if self.check_some(slot, generation, now).checked > 0 || self.tell_some(slot) {
            // Checks come first, so that no group is told of a subscription that the check withdraws.
            Progress::More
        } else {
            Progress::Done
        };
        match portion {
            // Behind the others, so that one large session does not delay the chores of all.
            Progress::More => self.chores.queue.push_back((slot, generation)),
            Progress::Later => self.chores.later.push((slot, generation)),
            Progress::Done => {
                // The portion may have ended the session and freed its slot.
                if let Some(found) = self.slot_mut(slot).filter(|s| s.generation == generation) {
                    found.chores_mut().is_queued = false;
                    found.tidy_chores();
                }
            }
        }
        true
    }
}
