//! Removes messages that need not wait any longer from the queues of offline clients: expired
//! messages, and those of a subscription that was withdrawn. This frees memory and store.
//!
//! A session has its turn when the first of its messages expires, and costs nothing before. The
//! shard searches a queue in small parts, and other tasks on the thread run in between. All noted
//! changes of a queue must be in the store before its turn, because a page that is read shows the
//! state of the store. Timers and the sweep call this module.

use std::{collections::VecDeque, num::NonZeroU32, time::Duration};

use crate::{
    journal::{QueuePlace, Ticket},
    metrics::DropReason,
    mqtt::{Timestamp, validate_filter},
    router::{Host, Place},
    session::{Examined, Page, Weeded},
    shard::{Shard, SharedShard, Slot},
    store::PageBounds,
};

/// Maximum part of a queue that is read at a time.
const PAGE: PageBounds = PageBounds { messages_max: 64, bytes_max: 64 * 1024 };
/// The number of steps before other tasks get their turn; a message counts one. They take about
/// half a millisecond.
const STEPS_AT_A_TIME: usize = 128;
/// The maximum number of messages in memory that are examined together.
const EXAMINED_AT_A_TIME: usize = 64;
/// Finding a queue in the store takes as long as this number of messages.
const STEPS_OF_PAGE: usize = 8;
/// The pause in which other tasks run.
const OTHERS_TURN: Duration = Duration::from_millis(5);
/// The pause before a queue is searched again, for each message in it; a message takes a few
/// microseconds. So messages that expire one after the other do not make the shard read the rest
/// all the time.
const REST_MILLIS_PER_MESSAGE: u64 = 10;
/// The minimum pause.
const REST_MILLIS_MIN: u64 = 1_000;
/// The maximum pause, which also applies if the store cannot be read.
const REST_MILLIS_MAX: u64 = 60_000;

/// The sessions whose turn has come.
#[derive(Default)]
pub(in crate::shard) struct Weeding {
    passes: VecDeque<Pass>,
    is_under_way: bool,
}

/// One search through a queue.
struct Pass {
    slot: u32,
    generation: u32,
    from: QueuePlace,
    /// The ticket that the store must have written before its pages are up to date.
    after: Option<Ticket>,
    seen: u64,
    expires_first: Timestamp,
}

/// The result of examining a page.
enum Looked {
    /// There may be more pages.
    On,
    /// The search has reached the end.
    Through,
    /// The store must write first.
    Waits,
}

/// Searches queues as long as there are messages to remove.
pub(crate) async fn weed_queues(shard: SharedShard) {
    loop {
        {
            let mut shard = shard.borrow_mut();
            let now = shard.core.clock.now();
            let goes_on = shard.weed_some(now);
            shard.flush();
            if !goes_on {
                shard.weeding.is_under_way = false;
                return;
            }
        }
        tokio::time::sleep(OTHERS_TURN).await;
    }
}

impl Slot {
    /// Returns when to search the session's queue; `None` while the session waits for its turn.
    /// The queue of a connected client, which is sent the messages, is only searched for messages
    /// of withdrawn subscriptions in memory.
    pub(in crate::shard) fn weeds_at(&self) -> Option<Timestamp> {
        let from = match &self.connected {
            None => self.session.weeds_from(),
            Some(_) => self.session.must_examine().then_some(Timestamp(0)),
        };
        let from = from?;
        (self.weeds_after != Timestamp::NEVER).then(|| from.max(self.weeds_after))
    }
}

impl Shard {
    /// Returns whether [`weed_queues`] must be started.
    pub(crate) fn begins_weeding(&mut self) -> bool {
        let is_wanted = !self.weeding.passes.is_empty() && !self.lifecycle.is_quiet();
        is_wanted && !std::mem::replace(&mut self.weeding.is_under_way, true)
    }

    /// Gives a session its turn, if its time has come.
    pub(in crate::shard) fn weed_if_due(&mut self, slot: u32, now: Timestamp) {
        // The changes noted so far must be written before a page of this queue can be read.
        let after = self.noted_so_far();
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        if found.weeds_at().is_none_or(|at| at > now) {
            return;
        }
        // One pass at a time: its end sets the next time.
        found.weeds_after = Timestamp::NEVER;
        // A connected client drops expired messages when it takes them, so memory is weeded only
        // for absent ones.
        let expired = match &found.connected {
            None => found.session.begin_weeding(now),
            Some(_) => 0,
        };
        let generation = found.generation;
        self.count_dropped(slot, DropReason::Expired, expired);
        // The store part of the queue follows in portions.
        self.weeding.passes.push_back(Pass {
            slot,
            generation,
            from: QueuePlace(0),
            after,
            seen: 0,
            expires_first: Timestamp::NEVER,
        });
    }

    /// Examines some pages; returns whether more pages should be examined soon.
    fn weed_some(&mut self, now: Timestamp) -> bool {
        // An immediate store must have the changes of this turn, or each pass would wait for the next sweep.
        if self.is_immediate() {
            self.flush_changes();
        }
        let mut steps = 0;
        while steps < STEPS_AT_A_TIME {
            if self.lifecycle.is_quiet() {
                self.weeding.passes.clear();
            }
            let Some(mut pass) = self.weeding.passes.pop_front() else { return false };
            let seen_before = pass.seen;
            // The messages in memory come first: they are the head of the queue.
            let (slot, generation) = (pass.slot, pass.generation);
            let examine = |shard: &mut Self| shard.examine_waiting(slot, generation, now);
            let looked = match self.charged_to(slot, examine) {
                0 => self.charged_to(slot, |shard| shard.weed_page(&mut pass, now)),
                examined => {
                    steps += examined;
                    Some(Looked::On)
                }
            };
            // A page costs a read of the store even if it is empty; without this, many empty queues
            // make one long turn.
            steps += STEPS_OF_PAGE + (pass.seen - seen_before) as usize;
            match looked {
                Some(Looked::On) => self.weeding.passes.push_front(pass),
                Some(Looked::Through) => self.end_pass(&pass, now),
                Some(Looked::Waits) => {
                    self.weeding.passes.push_front(pass);
                    return false; // The sweep begins again.
                }
                None => self.give_up_pass(&pass, now),
            }
        }
        true
    }

    /// Examines the next page; returns `None` if the session is gone, its client is back, or the
    /// store cannot be read.
    fn weed_page(&mut self, pass: &mut Pass, now: Timestamp) -> Option<Looked> {
        let keeper = self.core.keeper.clone();
        let is_written = self.is_written(pass.after);
        // Fewer removals under way may let a pass go on that had to wait for them.
        self.forget_taken_out(pass.slot);
        let found = self.slots.get_mut(pass.slot as usize)?;
        // A returned client takes its messages itself, and drops those that have expired.
        if found.generation != pass.generation || found.connected.is_some() {
            return None;
        }
        let Some(keeper) = keeper else { return Some(Looked::Through) };
        // Before that, the store does not have all messages of the queue.
        if !is_written {
            return Some(Looked::Waits);
        }
        // The removals that the session must remember are many; their commit frees this memory.
        if found.session.must_settle_weeding() {
            return Some(Looked::Waits);
        }
        let Some((number, from)) = found.session.weeding_goes_on_from(pass.from) else {
            return Some(Looked::Through);
        };
        let messages = match keeper.store().waiting(number, from, PAGE) {
            Ok(messages) => messages,
            Err(error) => {
                self.tell_unreadable(pass.slot, &error);
                return None;
            }
        };
        // A page is never examined twice, whatever stays of it.
        let Some((last, _)) = messages.last() else { return Some(Looked::Through) };
        pass.from = QueuePlace(last.0.saturating_add(1));
        pass.seen += messages.len() as u64;
        // The result of a page is applied before the next is read, so only one page is in memory.
        let index = &self.core.index;
        let share_number =
            |filter: &str| -> Option<NonZeroU32> { index.share(validate_filter(filter).ok()?) };
        let place =
            Place { host: Host::Shard(self.number), slot: pass.slot, generation: pass.generation };
        let is_under_subscription = |topic: &str| index.has_subscriber(topic, place);
        let Weeded { orphans, expired, withdrawn, expires_first } =
            found.session.weed(Page { messages }, now, share_number, is_under_subscription);
        pass.expires_first = pass.expires_first.min(expires_first);
        let slot = pass.slot;
        self.count_dropped(slot, DropReason::Expired, expired);
        self.count_dropped(slot, DropReason::SubscriptionWithdrawn, withdrawn);
        // Messages of a group go to its other members instead of being dropped.
        if !orphans.is_empty() {
            self.adopt(orphans, now);
        }
        Some(Looked::On)
    }

    /// Examines some of the messages in memory for those of withdrawn subscriptions; returns a
    /// number of steps, 0 if there is nothing to examine.
    pub(in crate::shard) fn examine_waiting(
        &mut self,
        slot: u32,
        generation: u32,
        now: Timestamp,
    ) -> usize {
        let place = Place { host: self.host(), slot, generation };
        let Some(found) = self.slots.get_mut(slot as usize) else { return 0 };
        if found.generation != generation
            || !found.session.must_examine()
            || self.lifecycle.is_quiet()
        {
            return 0;
        }
        let index = &self.core.index;
        // The index knows what the remaining subscriptions of this place match.
        let is_under_subscription = |topic: &str| index.has_subscriber(topic, place);
        let Examined { dropped, orphans } =
            found.session.examine_waiting(EXAMINED_AT_A_TIME, is_under_subscription);
        self.count_dropped(slot, DropReason::SubscriptionWithdrawn, dropped);
        self.adopt(orphans, now);
        // Examined messages may have freed room for which publishers wait.
        self.note_taken(slot, now);
        EXAMINED_AT_A_TIME
    }

    fn end_pass(&mut self, pass: &Pass, now: Timestamp) {
        let Some(found) = self.slots.get_mut(pass.slot as usize) else { return };
        found.session.end_weeding(pass.expires_first);
        let rest = (pass.seen * REST_MILLIS_PER_MESSAGE).clamp(REST_MILLIS_MIN, REST_MILLIS_MAX);
        found.weeds_after = now.plus_millis(rest);
        self.set_timer(pass.slot);
    }

    fn give_up_pass(&mut self, pass: &Pass, now: Timestamp) {
        let Some(found) = self.slots.get_mut(pass.slot as usize) else { return };
        if found.generation == pass.generation {
            let is_there = found.connected.is_some();
            let rest = if is_there { REST_MILLIS_MIN } else { REST_MILLIS_MAX };
            found.weeds_after = now.plus_millis(rest);
            self.set_timer(pass.slot);
        }
    }
}
