//! Messages reach the sessions of this shard: new ones, those of other shards, and those that have
//! waited.

use std::sync::atomic::Ordering;

#[cfg(feature = "cluster")]
use crate::shard::moving::MovingTurn;
use crate::{
    between::batch::{Deliver, RemoteDelivery, RemoteMessage, RemoteTargets},
    flow::StoreLoad,
    metrics::DropReason,
    mqtt::{QoS, Timestamp},
    router::{OwnCopy, Place, RetainedQuery, Target},
    session::{Delivered, Delivery, RetainedWalk, Share, SharedPublication},
    shard::{Shard, Slot, turn::Turn},
};

/// Nodes of the retained store that are visited before others get their turn, which takes about 50
/// µs.
const SLICE_NODES: usize = 512;
/// Slices that a connection may fetch before others get their turn.
const SLICES_PER_TURN: usize = 4;

impl Shard {
    /// Takes a batch of messages that another shard has collected for this one.
    pub(in crate::shard) fn take_batch(&mut self, mut batch: Deliver, now: Timestamp) {
        self.bytes_waiting.fetch_sub(batch.bytes, Ordering::Relaxed);
        let awaited = batch.awaited;
        let load = batch.load.take();
        self.charge_account(load.as_ref().and_then(StoreLoad::account).cloned());
        let own = std::mem::replace(&mut self.planning_with, batch.planned_with);
        self.deliver_all(batch, now);
        self.owe(awaited);
        // A search among the members of a shared subscription may continue on another shard.
        self.flush();
        self.planning_with = own;
        drop(load); // The changes count by themselves now.
    }

    fn deliver_all(&mut self, batch: Deliver, now: Timestamp) {
        let Deliver { deliveries, parcel, plans, .. } = batch;
        // Small messages of a batch lie in one allocation; larger ones come as their own.
        let mut parcel = parcel.unpack();
        for RemoteDelivery { message, publisher, to, on_its_way } in deliveries {
            let mut message = match &message {
                RemoteMessage::Allocated(message) => SharedPublication::of(message),
                RemoteMessage::Packed(packed) => {
                    SharedPublication::new(parcel.next(*packed)).received(now)
                }
            };
            match to {
                RemoteTargets::Planned(at) => {
                    let plan = &plans[at];
                    for target in plan.targets_at(self.host()) {
                        self.deliver(target, &mut message, publisher, now);
                    }
                    self.has_arrived(on_its_way);
                }
                RemoteTargets::Awaited(at, call) => {
                    // Each delivery has a receipt of its own, so the message is allocated once before them.
                    let message = message.allocate();
                    for target in plans[at].targets_at(self.host()) {
                        self.deliver_awaited(target, &message, call, now);
                    }
                    self.has_arrived(on_its_way);
                }
                RemoteTargets::Traced(at, trace) => {
                    let message = message.allocate();
                    for target in plans[at].targets_at(self.host()) {
                        self.deliver_traced(target, &message, &trace, publisher, now);
                    }
                    self.has_arrived(on_its_way);
                }
                RemoteTargets::Shared(plan, search) => {
                    // The search takes the place in transit out of the turn if it passes the message on.
                    let mut turn = Turn { on_its_way, ..Turn::at(now) };
                    self.deliver_shared(&plan, search, &mut message, &mut turn);
                    // The message may have moved on to another shard.
                    self.has_arrived(turn.on_its_way);
                }
            }
        }
    }

    /// Delivers a message to one target of its plan, in the copy that this target receives.
    pub(in crate::shard) fn deliver(
        &mut self,
        target: &Target,
        message: &mut SharedPublication<'_>,
        publisher: Option<Place>,
        now: Timestamp,
    ) {
        let target = match &target.own_copy {
            OwnCopy::Same => target,
            _ if publisher != Some(target.place) => target,
            OwnCopy::Never => return,
            OwnCopy::Other(own) => own,
        };
        if let Some(delivered) = self.deliver_to(target, None, message, now) {
            self.count_delivered(Some(target.place.slot), delivered);
        }
    }

    /// Delivers a message to the session of `target`; returns `None` if the session has ended, or
    /// if it collects nothing.
    pub(in crate::shard) fn deliver_to(
        &mut self,
        target: &Target,
        share: Option<Share<'_>>,
        message: &mut SharedPublication<'_>,
        now: Timestamp,
    ) -> Option<Delivered> {
        #[cfg_attr(not(feature = "cluster"), expect(unused_mut, reason = "no session moves"))]
        let mut slot = self.slots.get(target.place.slot as usize)?;
        if slot.generation != target.place.generation || slot.is_suspended {
            return None;
        }
        #[cfg(feature = "cluster")]
        if slot.moving.is_some() {
            match self.deliver_moving(target, share.is_some(), message, now) {
                MovingTurn::Takes => slot = self.slots.get(target.place.slot as usize)?,
                MovingTurn::Held => return Some(Delivered::Queued { displaced: 0 }),
                MovingTurn::OfOtherNode => return None,
            }
        }
        let (topic, qos) = (message.publication.topic, target.qos);
        // Rules of the session's own may have expired; the others then decide by the topic.
        if !self.collects(slot, topic, qos) {
            return None;
        }
        // Only a message in memory can be dropped for this one; the oldest may be in the store.
        if slot.session.must_read_to_displace(message.publication.qos, message.publication.size()) {
            self.read_page(target.place.slot);
        }
        // `read_page` may have changed the slot.
        let slot = self.slots.get_mut(target.place.slot as usize)?;
        // The session encodes into this buffer if it can send the message now.
        if let Some(link) = slot.session.link_mut() {
            self.buffers.lend(link.out_mut());
        }
        let delivery = Delivery {
            qos: message.publication.qos.min(target.qos),
            // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            retain: message.publication.retain && target.retain_as_published,
            identifiers: target.identifiers.as_ref(),
            share,
        };
        let delivered = slot.session.deliver(delivery, message, now);
        match delivered {
            Delivered::Sent => {
                slot.wake();
                if let Some(receipt) = message.receipt() {
                    receipt.sent(delivery.qos == QoS::AtMostOnce);
                }
            }
            Delivered::Queued { .. } => {
                slot.wake();
                if let Some(receipt) = message.receipt() {
                    self.awaited.note_kept(receipt.until(), target.place);
                }
                // The queue of an absent client is searched when its first message expires.
                let is_away = |slot: &Slot| slot.connected.is_none();
                if message.publication.expires_at.is_some()
                    && self.slot(target.place.slot).is_some_and(is_away)
                {
                    self.set_timer(target.place.slot);
                }
                self.note_queued(target.place.slot);
            }
            Delivered::QueueFull | Delivered::Away | Delivered::TooLarge => {}
        }
        if matches!(delivered, Delivered::QueueFull | Delivered::Queued { displaced: 1.. }) {
            self.tell_displaced(target.place.slot, message.publication.topic);
            // A group first tries another member.
            if share.is_none() || delivered != Delivered::QueueFull {
                self.note_dropped(target.place.slot, delivered, now);
            }
        }
        Some(delivered)
    }

    /// Counts the messages that a delivery to a slot dropped; `None` is the application in process.
    pub(in crate::shard) fn count_delivered(&mut self, slot: Option<u32>, delivered: Delivered) {
        let (reason, messages) = match delivered {
            Delivered::Sent | Delivered::Queued { displaced: 0 } => return,
            Delivered::Queued { displaced } => (DropReason::QueueFull, displaced),
            Delivered::QueueFull => (DropReason::QueueFull, 1),
            Delivered::Away => (DropReason::Offline, 1),
            Delivered::TooLarge => (DropReason::PacketTooLarge, 1),
        };
        match slot {
            Some(slot) => self.count_dropped(slot, reason, messages),
            None => self.metrics.dropped(reason, messages),
        }
    }

    /// Moves waiting messages of a client into its output, with its retained messages, as far as
    /// there is room. Returns `false` if there may be more, but other tasks must get their turn.
    pub(crate) fn pump(&mut self, slot: u32, now: Timestamp) -> bool {
        // A bound for each turn: a client that reads fast must not keep the thread from others.
        for _ in 0..SLICES_PER_TURN {
            let Some(found) = self.slots.get_mut(slot as usize) else { return true };
            found.session.pump(now);
            // Messages of withdrawn subscriptions are removed before they could be sent.
            if found.session.wants_examination() {
                let generation = found.generation;
                if self.examine_waiting(slot, generation, now) == 0 {
                    return true;
                }
                continue;
            }
            // Memory has no more of the queue; the next page is in the store.
            if found.session.wants_page() {
                if !self.read_page(slot) {
                    return true;
                }
                continue;
            }
            let Some(RetainedWalk { filter, after, until, .. }) = found.session.wanted_slice()
            else {
                // Messages that wait for this client alone come before those of its groups.
                if self.take_backlogs(slot, now) {
                    continue;
                }
                // The queue may be shorter now, for which publishers wait.
                self.note_taken(slot, now);
                return true;
            };
            let query = RetainedQuery { filter, after: after.as_deref(), until: *until };
            let slice = self.core.retained.slice(&query, SLICE_NODES, now);
            found.session.take_slice(slice.messages, slice.go_on_after);
        }
        false
    }
}
