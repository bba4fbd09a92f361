//! A session between two nodes: which of its messages this node takes, and those that wait for the rest of the former
//! node.
//!
//! Both nodes have subscriptions of the session for a while. The place in the log of routes with which a message was
//! planned decides: a message of an earlier place than the hand-over is the former node's, any other is the new
//! node's. The former node sends its messages on. Until it has sent the last one, the new node holds its own ones
//! aside, because they are later messages of the same publishers. A message is in the store before it is acknowledged,
//! also if it is held: at a place far behind the queue, so a start finds it last.

use std::sync::Arc;

use crate::{
    between::nodes::{MovingStep, RoutesPlace},
    journal::{Change, QueuePlace, QueuedMessage},
    mqtt::{QoS, Timestamp, is_of_the_broker},
    router::{OwnCopy, Target},
    session::SharedPublication,
    shard::Shard,
};

/// Maximum number and bytes of the messages that are held for one session. Beyond them, their order is given up.
const HELD_MESSAGES_MAX: usize = 4_096;
const HELD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The distance of the places of held messages behind the queue, which has fewer messages.
const HELD_DISTANCE: u64 = 1 << 40;

/// The way of a message for a session that moves.
pub(in crate::shard) enum MovingTurn {
    /// It is delivered like any message.
    Takes,
    /// It waits for the rest of the former node.
    Held,
    /// The other node has it.
    OfOtherNode,
}

/// The state of a session that moves.
#[derive(Debug)]
pub(in crate::shard) struct Moving {
    /// The places of this node from a former stay of the session: their messages may still come.
    formerly: PlacesHere,
    here: PlacesHere,
    /// Whether messages of the former node come.
    awaits_rest: bool,
    /// Whether no message of an earlier place comes any more.
    is_settled: bool,
    /// Messages that wait; none if the former node has sent its last one, or the session leaves.
    held: Option<HeldAside>,
}

/// The places whose messages this node takes: from the first on, before the second.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct PlacesHere {
    from: RoutesPlace,
    before: RoutesPlace,
}

impl PlacesHere {
    const ALL: Self = Self { from: RoutesPlace(0), before: NOT_KNOWN };
    const NONE: Self = Self { from: NOT_KNOWN, before: NOT_KNOWN };

    fn has(self, place: RoutesPlace) -> bool {
        place >= self.from && place < self.before
    }
}

/// Messages that are stored, and wait for earlier ones.
#[derive(Debug)]
struct HeldAside {
    messages: Vec<(QueuePlace, QueuedMessage)>,
    bytes: usize,
    next: QueuePlace,
}

const NOT_KNOWN: RoutesPlace = RoutesPlace(u64::MAX);

impl Shard {
    /// Decides about a message for a session that moves.
    #[cold]
    pub(in crate::shard) fn deliver_moving(
        &mut self,
        target: &Target,
        is_shared: bool,
        message: &mut SharedPublication<'_>,
        now: Timestamp,
    ) -> MovingTurn {
        let planned_with = self.planning_with;
        let slot = target.place.slot;
        let Some(found) = self.slots.get_mut(slot as usize) else { return MovingTurn::OfOtherNode };
        let Some(moving) = &mut found.moving else { return MovingTurn::Takes };
        // A group has chosen this session here, and each node has its own messages of the broker: no other node has it.
        let is_only_here = is_shared || is_of_the_broker(message.publication.topic);
        if is_only_here || moving.formerly.has(planned_with) {
            return MovingTurn::Takes;
        }
        if !moving.here.has(planned_with) {
            return MovingTurn::OfOtherNode;
        }
        let qos = message.publication.qos.min(target.qos);
        let Some(held) = moving.held.as_mut().filter(|_| qos != QoS::AtMostOnce) else {
            return MovingTurn::Takes;
        };
        let queued = QueuedMessage {
            message: message.allocate(),
            qos,
            retain: message.publication.retain && target.retain_as_published,
            identifiers: target.identifiers.clone(),
            share: None,
        };
        let place = held.next;
        held.next.0 += 1;
        held.bytes += queued.message.size();
        held.messages.push((place, queued.clone()));
        let is_full = held.messages.len() > HELD_MESSAGES_MAX || held.bytes > HELD_BYTES_MAX;
        // Noted in the turn of the message, so that its acknowledgement waits for it.
        if let Some(number) = found.session.number() {
            self.note(|| Change::Enqueue(number, place, queued, None));
        }
        if is_full {
            self.release_held_aside(slot, now);
        }
        MovingTurn::Held
    }

    /// Takes in how the move of a session goes on.
    pub(in crate::shard) fn take_moving_step(&mut self, step: MovingStep, now: Timestamp) {
        match step {
            MovingStep::TakesBefore(client_id, place) => self.begin_leaving(&client_id, place),
            MovingStep::TakesFrom(client_id, place) => {
                if let Some(moving) = self.moving_of(&client_id)
                    && moving.here.from == NOT_KNOWN
                {
                    moving.here.from = place;
                }
            }
            MovingStep::Settled(client_id) => {
                if let Some(moving) = self.moving_of(&client_id) {
                    moving.is_settled = true;
                }
                self.end_moving(&client_id);
            }
        }
        self.flush();
        self.release_held(now);
    }

    /// Stops to take messages from a place on: the session is on another node, with its Will and its end.
    fn begin_leaving(&mut self, client_id: &str, place: RoutesPlace) {
        let Some(slot) = self.clients.get(client_id).copied() else { return };
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        if found.connected.is_some() {
            return; // It has come back meanwhile, as another session.
        }
        let until_now = found.moving.take();
        let here = until_now.map_or(PlacesHere::ALL, |moving| moving.here);
        let moving = Moving {
            formerly: PlacesHere::NONE,
            here: PlacesHere { before: place, ..here },
            awaits_rest: false,
            is_settled: false,
            held: None,
        };
        found.moving = Some(Box::new(moving));
        (found.will, found.will_at, found.expires_at) = (None, None, None);
        self.set_timer(slot);
    }

    /// Returns the places of the session that lies here, if it leaves.
    pub(in crate::shard) fn places_here(&self, client_id: &str) -> PlacesHere {
        let moving = self.find(client_id).and_then(|found| found.moving.as_ref());
        moving.map_or(PlacesHere::NONE, |moving| moving.here)
    }

    /// Lets a session that has come from another node take no message before the place of its hand-over is known.
    /// `formerly`: the places of this node before the session left it a short time ago.
    pub(in crate::shard) fn begin_arriving(&mut self, client_id: &str, formerly: PlacesHere) {
        let Some(slot) = self.clients.get(client_id).copied() else { return };
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        let next = QueuePlace(found.session.last_place().0 + HELD_DISTANCE);
        let held = Some(HeldAside { messages: Vec::new(), bytes: 0, next });
        let here = PlacesHere::NONE;
        let moving = Moving { formerly, here, awaits_rest: true, is_settled: false, held };
        found.moving = Some(Box::new(moving));
    }

    /// Adds messages that the former node has taken for a session; returns whether the session is still here.
    /// `is_last`: the former node has sent all of them. `is_marked`: the session must be the one that has come.
    pub(crate) fn append_rest(
        &mut self,
        client_id: &str,
        messages: Vec<QueuedMessage>,
        (is_last, is_marked): (bool, bool),
        now: Timestamp,
    ) -> bool {
        // Without its mark, it is a new session of the client, which had Clean Start.
        if is_marked && self.moving_of(client_id).is_none() {
            return false;
        }
        let Some(slot) = self.clients.get(client_id).copied() else { return false };
        for queued in messages {
            self.deliver_past_moving(slot, &queued, now);
        }
        if is_last {
            self.release_held_aside(slot, now);
            if let Some(moving) = self.moving_of(client_id) {
                moving.awaits_rest = false;
            }
            self.end_moving(client_id);
        }
        true
    }

    /// Delivers the messages that are held for a session. The former node may have earlier ones.
    pub(crate) fn give_up_order(&mut self, client_id: &str, now: Timestamp) {
        if let Some(slot) = self.clients.get(client_id).copied() {
            self.release_held_aside(slot, now);
            self.flush();
        }
    }

    /// Ends the waiting of a session that has arrived, because this life of the node has ended: the next one takes all
    /// messages that come.
    pub(in crate::shard) fn end_arriving(&mut self, slot: u32, now: Timestamp) {
        self.release_held_aside(slot, now);
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        // One that leaves goes on to leave.
        if found.moving.as_ref().is_some_and(|moving| moving.here.before == NOT_KNOWN) {
            found.moving = None;
        }
    }

    fn moving_of(&mut self, client_id: &str) -> Option<&mut Moving> {
        let slot = self.clients.get(client_id).copied()?;
        self.slots.get_mut(slot as usize)?.moving.as_deref_mut()
    }

    /// Forgets the move if it is over.
    fn end_moving(&mut self, client_id: &str) {
        let is_over = self
            .moving_of(client_id)
            .is_some_and(|moving| !moving.awaits_rest && moving.is_settled);
        if is_over
            && let Some(slot) = self.clients.get(client_id).copied()
            && let Some(found) = self.slots.get_mut(slot as usize)
        {
            found.moving = None;
        }
    }

    fn release_held_aside(&mut self, slot: u32, now: Timestamp) {
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        let number = found.session.number();
        let held = found.moving.as_mut().and_then(|moving| moving.held.take());
        for (place, queued) in held.map_or_else(Vec::new, |held| held.messages) {
            // Its new place and the end of the former one are one step for the store.
            self.deliver_past_moving(slot, &queued, now);
            if let Some(number) = number {
                self.note(|| Change::Dequeue(number, place));
            }
        }
    }

    /// Delivers a message that was taken for this session.
    fn deliver_past_moving(&mut self, slot: u32, queued: &QueuedMessage, now: Timestamp) {
        let Some(place) = self.place(slot) else { return };
        let target = Target {
            place,
            qos: queued.qos,
            retain_as_published: queued.retain,
            identifiers: queued.identifiers.as_ref().map(Arc::clone),
            is_durable: true,
            own_copy: OwnCopy::Same,
        };
        let moving = self.slots.get_mut(slot as usize).and_then(|found| found.moving.take());
        let mut message = SharedPublication::of(&queued.message);
        let delivered = self.deliver_to(&target, None, &mut message, now);
        if let Some(delivered) = delivered {
            self.count_delivered(Some(slot), delivered);
        }
        if let Some(found) = self.slots.get_mut(slot as usize) {
            found.moving = moving;
        }
    }
}
