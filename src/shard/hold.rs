//! Backpressure on one shard: publishers that are not read because a subscriber's queue is full or
//! another shard is behind, and the subscribers for which they wait.
//!
//! `waits` decides for all shards which publishers wait for which subscribers. This module has the
//! state of one shard: which of its connections are held, which of its queues are full and since
//! when. The handling of PUBLISH, deliveries and the sweep call it.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    metrics::HoldReason,
    mqtt::{Publication, QoS, Timestamp},
    owners::Account,
    router::{Place, Plan},
    session::BackPressure,
    shard::{
        Shard, SharedShard,
        deadlines::STOOD_STILL,
        held::{HeldConnections, HeldUntil},
    },
};

/// The connections of a shard that are not read at present, and its full queues.
#[derive(Default)]
pub(super) struct Holding {
    held: HeldConnections,
    /// Whether [`look_after_held`] is running.
    is_looked_after: bool,
    /// Slots whose queue is full, so that publishers had to wait.
    full_queues: BTreeMap<u32, FullQueue>,
}

/// A full queue. It stays here until a sixteenth of it is free or its client is gone.
struct FullQueue {
    /// The remaining time in which its publishers wait for it to make room.
    patience_millis: u64,
    /// The remaining time in which they also wait while it is itself held and cannot make room.
    patience_while_held_millis: u64,
    /// Whether publishers wait for it. They do not if the wait would never end, or has lasted too long.
    is_waited_for: bool,
}

/// Publishers wait this many times longer for a subscriber that is itself held: it cannot make
/// room, and the session that holds it may be held as well.
const TIMES_WHILE_HELD: u64 = 4;

/// The interval of checks of held connections, besides the checks after changes here.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Releases held connections of a shard that may continue, while any are held.
pub(crate) async fn look_after_held(shard: SharedShard) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let mut shard = shard.borrow_mut();
        let now = shard.core.clock.now();
        if !shard.release_held(now) {
            shard.holding.is_looked_after = false;
            return;
        }
    }
}

impl Shard {
    /// Returns whether the connection of a slot is held.
    pub(crate) fn is_held(&self, slot: u32) -> bool {
        self.slot(slot).and_then(|s| s.connected.as_ref()).is_some_and(|c| c.is_held)
    }

    /// Returns whether a held connection must check now whether its client has left: once after each interval.
    pub(crate) fn takes_question(&mut self, slot: u32) -> bool {
        let connected = self.slots.get_mut(slot as usize).and_then(|s| s.connected.as_mut());
        connected.is_some_and(|c| std::mem::take(&mut c.is_asked_for_client))
    }

    /// Returns whether [`look_after_held`] must be started, because connections are held and it is not
    /// running.
    #[inline]
    pub(crate) fn begins_to_look_after_held(&mut self) -> bool {
        let is_wanted = !self.holding.held.is_empty();
        is_wanted && !std::mem::replace(&mut self.holding.is_looked_after, true)
    }

    /// Holds a connection.
    pub(crate) fn hold(&mut self, slot: u32, reason: HoldReason, now: Timestamp) {
        let Some(connected) = self.slots.get_mut(slot as usize).and_then(|s| s.connected.as_mut())
        else {
            return;
        };
        // The connection looks at this flag before each read of its socket.
        connected.is_held = true;
        let link = connected.link;
        let until = match reason {
            HoldReason::RateLimit => HeldUntil::At(self.readable_at(slot, now)),
            HoldReason::StoreBehind => self
                .slot(slot)
                .map_or(HeldUntil::Told, |found| HeldUntil::Stored(found.account.clone())),
            HoldReason::SubscriberFull
            | HoldReason::ShardBehind
            | HoldReason::RoutesBehind
            | HoldReason::RetainedBehind => HeldUntil::Told,
        };
        self.holding.held.insert(slot, (link, reason), now, until);
        // Its subscriber may have got room, and reported it, before this connection was held.
        if reason == HoldReason::SubscriberFull
            && self.place(slot).is_some_and(|place| self.core.waits.may_go_on(place))
        {
            self.holding.held.mark(slot);
        }
        self.metrics.publisher_holds.increment(reason);
        self.metrics.publishers_held.set(self.holding.held.len() as u64);
    }

    /// Marks a held connection to be examined, because its reason to wait may have gone.
    pub(in crate::shard) fn look_at_held(&mut self, slot: u32) {
        self.holding.held.mark(slot);
    }

    /// Releases connections that need not be held any longer, the longest held first; returns whether some are
    /// still held. Examines only those that may continue: their subscribers have room, no shard is behind, or their
    /// time has come.
    pub(crate) fn release_held(&mut self, now: Timestamp) -> bool {
        if self.holding.held.is_empty() {
            return false;
        }
        for place in self.core.waits.take_ready(self.host()) {
            // The slot may have been given to another client since the publisher began to wait.
            if self.place(place.slot) == Some(place) {
                self.holding.held.mark(place.slot);
            }
        }
        // A client that closed its socket is not seen otherwise, because a held connection is not read.
        for slot in self.holding.held.take_due_questions(now) {
            self.ask_for_client(slot);
        }
        // Judged once for all candidates, so that all connections of a shard continue or wait together.
        let is_congested = self.is_congested();
        let keeper = self.core.keeper.clone();
        let waits =
            |account: &Account| keeper.as_ref().is_some_and(|keeper| keeper.holds(account, 0, now));
        for slot in self.holding.held.candidates(now, is_congested, waits) {
            self.release_if_it_may(slot, is_congested, now);
        }
        self.metrics.publishers_held.set(self.holding.held.len() as u64);
        !self.holding.held.is_empty()
    }

    /// Lets a held connection check whether its client has left.
    fn ask_for_client(&mut self, slot: u32) {
        let Some(found) = self.slot_mut(slot) else { return };
        if let Some(connected) = found.connected.as_mut().filter(|connected| connected.is_held) {
            connected.is_asked_for_client = true;
            found.wake();
        }
    }

    fn release_if_it_may(&mut self, slot: u32, is_congested: bool, now: Timestamp) {
        let Some(held) = self.holding.held.get(slot) else { return };
        // The session has ended meanwhile.
        let Some(place) = self.place(slot) else {
            self.holding.held.remove(slot);
            return;
        };
        // The reason that held the connection decides, even if another one would hold it again when it reads.
        let stays = match held.reason {
            HoldReason::SubscriberFull => !self.core.waits.may_go_on(place),
            HoldReason::ShardBehind => is_congested,
            HoldReason::StoreBehind => self.waits_for_store(slot, now),
            // It is a candidate only after the report.
            HoldReason::RoutesBehind | HoldReason::RetainedBehind => false,
            HoldReason::RateLimit => {
                let at = self.readable_at(slot, now);
                self.holding.held.delay(slot, at);
                at > now
            }
        };
        if stays {
            return;
        }
        // The entry goes before the wake-up: the connection may be held again in the same turn.
        self.holding.held.remove(slot);
        // The slot may have a newer connection, which was never held.
        let Some(slot) = self.linked(slot, held.link) else { return };
        if let Some(connected) = &mut slot.connected {
            connected.is_held = false;
            connected.is_asked_for_client = false;
        }
        slot.wake();
        // A publisher that no longer waits must not take part in the search for cycles.
        self.core.waits.go_on(place);
        self.metrics.publishers_held_millis.add(now.since(held.since).as_millis() as u64);
    }

    /// Returns whether a publisher must wait before its message goes to the targets of `plan`.
    pub(crate) fn must_wait(&self, slot: u32, qos: QoS, plan: &Plan) -> bool {
        if qos == QoS::AtMostOnce || !self.core.waits.is_needed() {
            return false;
        }
        self.place(slot).is_some_and(|publisher| self.core.waits.wait(publisher, plan))
    }

    /// Returns the targets of a message whose queue is full.
    pub(crate) fn full_targets(&mut self, publication: &Publication<'_>) -> Vec<Place> {
        if publication.qos == QoS::AtMostOnce || !self.core.waits.is_needed() {
            return Vec::new();
        }
        let plan = self.plan(publication.topic);
        self.core.waits.full_targets(&plan)
    }

    /// Checks a queue that got a message: if it is full, publishers wait from now on.
    pub(crate) fn note_queued(&mut self, slot: u32) {
        let (Some(place), Some(found)) = (self.place(slot), self.slots.get_mut(slot as usize))
        else {
            return;
        };
        match found.session.back_pressure() {
            BackPressure::None => {}
            BackPressure::Possible => {
                // A queue becomes full once, not with each message; `Applied` remembers this.
                if found.session.is_queue_at_bound() {
                    found.session.set_back_pressure(BackPressure::Applied);
                    let secs = self.core.limits_now().queue_hold_secs_max;
                    let patience_millis = u64::from(secs) * 1000;
                    // The allowance is counted down by the sweep and not compared with a time, so a
                    // stopped process loses none.
                    let full = FullQueue {
                        patience_millis,
                        patience_while_held_millis: patience_millis * TIMES_WHILE_HELD,
                        is_waited_for: true,
                    };
                    self.holding.full_queues.insert(slot, full);
                    self.core.waits.begin(place);
                }
            }
            BackPressure::Applied => {
                // A publisher may have continued because waiting would have closed a circle.
                if !self.core.waits.is_waited_for(place) {
                    found.session.set_back_pressure(BackPressure::None);
                    // The entry stays: `note_taken` allows waiting again when the queue has room.
                    if let Some(full) = self.holding.full_queues.get_mut(&slot) {
                        full.is_waited_for = false;
                    }
                }
            }
        }
    }

    /// Checks a queue from which messages may have been taken: once it has room, its publishers
    /// continue.
    pub(crate) fn note_taken(&mut self, slot: u32, now: Timestamp) {
        if self.holding.full_queues.is_empty() || !self.holding.full_queues.contains_key(&slot) {
            return;
        }
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        if found.session.has_queue_drained() {
            found.session.set_back_pressure(BackPressure::Possible);
            self.end_waits(slot, now);
        }
    }

    /// Ends all waiting for and by a client that is gone.
    pub(crate) fn forget_waits(&mut self, slot: u32, now: Timestamp) {
        if !self.holding.held.is_empty()
            && let Some(place) = self.place(slot)
        {
            self.holding.held.remove(slot);
            self.metrics.publishers_held.set(self.holding.held.len() as u64);
            self.core.waits.go_on(place);
        }
        self.end_waits(slot, now);
    }

    fn end_waits(&mut self, slot: u32, now: Timestamp) {
        if self.holding.full_queues.remove(&slot).is_some()
            && let Some(place) = self.place(slot)
        {
            self.core.waits.end(place);
            self.release_held(now);
        }
    }

    /// Counts the time since the last sweep: publishers stop waiting for a queue that has not made room in time. A
    /// subscriber that is held itself could not make room, and has a larger allowance for that. Time in which the
    /// process stood still does not count.
    pub(crate) fn lose_patience(&mut self, passed: Duration, now: Timestamp) {
        let passed = passed.min(STOOD_STILL).as_millis() as u64;
        // Giving up changes `holding`, which the loop must not borrow.
        let mut full_queues = std::mem::take(&mut self.holding.full_queues);
        for (slot, full) in &mut full_queues {
            if !full.is_waited_for {
                continue;
            }
            let left = if self.is_held(*slot) {
                &mut full.patience_while_held_millis
            } else {
                &mut full.patience_millis
            };
            *left = left.saturating_sub(passed);
            if *left == 0 {
                full.is_waited_for = false;
                self.give_up(*slot);
            }
        }
        let has_full = !full_queues.is_empty();
        self.holding.full_queues = full_queues;
        // A publisher that waited only for these queues continues in this turn, not after the next timer.
        if has_full {
            self.release_held(now);
        }
    }

    fn give_up(&mut self, slot: u32) {
        let (Some(place), Some(found)) = (self.place(slot), self.slots.get_mut(slot as usize))
        else {
            return;
        };
        found.session.set_back_pressure(BackPressure::None);
        let address = found.presence.peer.ip();
        self.core.told.gave_up(found.session.client_id(), address);
        self.metrics.subscribers_given_up.increment();
        self.core.waits.end(place);
    }
}
