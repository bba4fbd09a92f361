//! The way of a message from its publisher to all its targets.

use std::{
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    auth::Decision,
    between::{
        batch::{Awaited, Deliver, RemoteDelivery, RemoteMessage, RemoteTargets},
        door::{Sender, ToShard},
    },
    durable::in_transit::Destination,
    hooks::DisconnectReason,
    journal::Ticket,
    metrics::DropReason,
    mqtt::{Publication, Publish, PublishFlags, QoS, ReasonCode, Timestamp},
    router::{Host, OwnCopy, Place, Plan, RetainedFull, RetainedQuery, ShardNumber, Target},
    session::{Delivered, Delivery, RetainedWalk, Share, SharedPublication},
    shard::{
        Core, Departure, Shard, Slot, packets::Handled, quota::is_answered,
        routing::plans::RecentTopic, turn::Turn,
    },
};

impl Shard {
    /// Handles a PUBLISH of a client: checks, routes and acknowledges it. If it must wait for a
    /// subscriber with a full queue, leaves it unhandled.
    pub(in crate::shard) fn handle_publish(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
        turn: &mut Turn<'_>,
    ) -> Result<Handled, Departure> {
        let now = turn.now;
        let PublishFlags { qos, retain, .. } = publish.flags;
        let Some(mut recent) = self.recent_topic(slot, topic, qos, retain) else {
            return Ok(Handled::Done);
        };
        if self.core.waits.is_needed() && recent.decision == Decision::Allow {
            let plan = self.current_plan(&mut recent, topic);
            if self.must_wait(slot, qos, &plan) {
                if let Some(found) = self.slots.get_mut(slot as usize) {
                    found.recent_topic = Some(recent);
                }
                return Ok(Handled::MustWait);
            }
        }
        self.metrics.messages_received[usize::from(qos.number())].add(1);
        let mark = self.mark();
        let reason = if recent.decision == Decision::Deny {
            self.metrics.dropped(DropReason::NotAuthorized, 1);
            self.tell_denied(slot, "publish", topic);
            ReasonCode::NotAuthorized
        } else if let Some(reason) = self.why_not_durable(slot, publish, topic, &mut recent) {
            self.metrics.dropped(DropReason::StoreUnavailable, 1);
            if let Some(found) = self.slots.get_mut(slot as usize) {
                found.recent_topic = Some(recent);
            }
            let departure = Departure::by_server(DisconnectReason::InternalError, reason);
            return self.refuse_publish(slot, publish, departure, now);
        } else {
            match self.accept(slot, publish, topic, &mut recent, turn) {
                Ok(reason) => reason,
                Err(full) => {
                    if let Some(found) = self.slots.get_mut(slot as usize) {
                        found.recent_topic = Some(recent);
                    }
                    return self.refuse_retained(slot, publish, full, now);
                }
            }
        };
        let gate = self.gate_since(mark, slot);
        if let Some(found) = self.slots.get_mut(slot as usize) {
            found.recent_topic = Some(recent);
            found.session.publish_done(qos, publish.packet_id, reason, gate);
        }
        Ok(Handled::Done)
    }

    /// Returns why a message that must be stored cannot be accepted while the store is in trouble:
    /// an acknowledged message must not be lost.
    fn why_not_durable(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
        recent: &mut RecentTopic,
    ) -> Option<ReasonCode> {
        let trouble = self.trouble()?;
        let PublishFlags { qos, retain, .. } = publish.flags;
        let is_kept = |slot: &Slot| slot.session.number().is_some();
        let is_durable = qos != QoS::AtMostOnce
            && (retain
                || (qos == QoS::ExactlyOnce && self.slot(slot).is_some_and(is_kept))
                || self.current_plan(recent, topic).durable_len() > 0);
        is_durable.then(|| trouble.reason())
    }

    /// Retains and routes a message; does neither if it cannot be retained and its publisher gets
    /// an answer that says so.
    fn accept(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
        recent: &mut RecentTopic,
        turn: &mut Turn<'_>,
    ) -> Result<ReasonCode, RetainedFull> {
        let now = turn.now;
        let mut properties = std::mem::take(&mut turn.properties);
        properties.clear();
        if !publish.properties.is_plain() {
            // [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-20]
            publish.properties.encode_forwarded(&mut properties);
        }
        let expiry = publish.properties.message_expiry_interval;
        let publication = Publication {
            topic,
            payload: publish.payload,
            qos: publish.flags.qos,
            retain: publish.flags.retain,
            properties: &properties,
            expires_at: expiry.map(|secs| now.plus_secs(u64::from(secs))),
        };
        if publication.retain
            && let Err(full) = self.retain(&publication, Some(slot), now)
            && is_answered(&publication)
        {
            turn.properties = properties;
            return Err(full);
        }
        // The plan is made after retaining: an earlier subscriber may not have found the retained
        // message, and must be in the plan; a later one finds it.
        let plan = self.current_plan(recent, topic);
        if plan.is_empty() {
            self.metrics.dropped(DropReason::NoSubscriber, 1);
        } else {
            let publisher = self.place(slot);
            turn.publisher = self
                .slot(slot)
                .and_then(|found| found.session.number())
                .filter(|_| publication.qos == QoS::ExactlyOnce);
            self.route(&publication, &plan, publisher, turn);
            turn.publisher = None;
        }
        let reason = match plan.is_empty() {
            true => ReasonCode::NoMatchingSubscribers,
            false => ReasonCode::Success,
        };
        turn.properties = properties;
        Ok(reason)
    }

    /// Publishes messages that did not come in a PUBLISH: Wills, and those of the embedding
    /// application.
    pub(crate) fn publish_and_retain(
        &mut self,
        publication: &Publication<'_>,
        publisher: Option<Place>,
        now: Timestamp,
    ) {
        if publication.retain {
            // No caller waits for an answer, so the log tells what is not retained.
            let slot = publisher.filter(|place| place.host == self.host()).map(|place| place.slot);
            let _ = self.retain(publication, slot, now);
        }
        let plan = self.plan(publication.topic);
        self.route(publication, &plan, publisher, &mut Turn::at(now));
    }

    /// Moves waiting messages of a client into its output, with its retained messages, as far as
    /// there is room. Returns `false` if there may be more, but other tasks must get their turn.
    pub(crate) fn pump(&mut self, slot: u32, now: Timestamp) -> bool {
        for _ in 0..SLICES_PER_TURN {
            let Some(found) = self.slots.get_mut(slot as usize) else { return true };
            found.session.pump(now);
            if found.session.wants_examination() {
                let generation = found.generation;
                if self.examine_waiting(slot, generation, now) == 0 {
                    return true;
                }
                continue;
            }
            if found.session.wants_page() {
                if !self.read_page(slot) {
                    return true;
                }
                continue;
            }
            let Some(RetainedWalk { filter, after, until, .. }) = found.session.wanted_slice()
            else {
                if self.take_backlogs(slot, now) {
                    continue;
                }
                self.note_taken(slot, now);
                return true;
            };
            let query = RetainedQuery { filter, after: after.as_deref(), until: *until };
            let slice = self.core.retained.slice(&query, SLICE_NODES, now);
            found.session.take_slice(slice.messages, slice.go_on_after);
        }
        false
    }

    /// Delivers a message to all targets of its plan, on this shard and others.
    pub(in crate::shard) fn route(
        &mut self,
        publication: &Publication<'_>,
        plan: &Arc<Plan>,
        publisher: Option<Place>,
        turn: &mut Turn<'_>,
    ) {
        let now = turn.now;
        let mut message = match turn.packets {
            Some(packets) => SharedPublication::within(packets, *publication),
            None => SharedPublication::new(*publication),
        };
        if let Some(number) = self.message_number(publication, plan, turn) {
            message = message.numbered(number);
        }
        for target in plan.targets_at(self.host()) {
            self.deliver(target, &mut message, publisher, now);
        }
        for host in plan.hosts() {
            match host {
                Host::Shard(number) if number == self.number => {}
                Host::Shard(number) => {
                    self.route_away(number, &mut message, plan, publisher, turn);
                }
                Host::InProcess => {
                    for target in plan.targets_at(host) {
                        let delivered = self.core.in_process.deliver(target, &mut message);
                        if let Some(delivered) = delivered {
                            self.count_delivered(delivered);
                        }
                    }
                }
            }
        }
        self.route_shared(plan, &mut message, turn);
    }

    /// Collects a message for all targets of its plan on another shard.
    fn route_away(
        &mut self,
        shard: ShardNumber,
        message: &mut SharedPublication<'_>,
        plan: &Arc<Plan>,
        publisher: Option<Place>,
        turn: &mut Turn<'_>,
    ) {
        let is_durable = plan.is_durable_at(Host::Shard(shard));
        let is_awaited = message.publication.qos != QoS::AtMostOnce && is_durable;
        let batch = self.batch_for(shard);
        if batch.plans.last().is_none_or(|last| !Arc::ptr_eq(last, plan)) {
            batch.plans.push(plan.clone());
        }
        let to = RemoteTargets::Planned(batch.plans.len() - 1);
        let size = message.publication.size();
        if let Some(packed) = batch.parcel.pack(&message.publication) {
            let message = RemoteMessage::Packed(packed);
            let delivery = RemoteDelivery { message, publisher, to, on_its_way: None };
            return self.send_away(shard, delivery, size, is_awaited);
        }
        let message = message.keep();
        let to_shard = |core: &Core| Destination::Shard(*core.homes(), shard);
        let on_its_way =
            if is_awaited { self.send_on_its_way(&message, to_shard, turn) } else { None };
        let message = RemoteMessage::Kept(message);
        let delivery = RemoteDelivery { message, publisher, to, on_its_way };
        self.send_away(shard, delivery, size, is_awaited);
    }

    /// Returns a number for a message that several sessions may store, so that it is stored once.
    fn message_number(
        &self,
        publication: &Publication<'_>,
        plan: &Plan,
        turn: &Turn<'_>,
    ) -> Option<NonZeroU64> {
        let is_shared = publication.qos != QoS::AtMostOnce
            && (plan.durable_len() > 1
                || (turn.publisher.is_some() && self.core.shards().len() > 1));
        self.core.keeper.as_ref().filter(|_| is_shared)?.next_message()
    }

    /// Delivers what another shard has collected for this one.
    pub(crate) fn deliver_all(&mut self, batch: Deliver, now: Timestamp) {
        let Deliver { deliveries, parcel, plans, .. } = batch;
        let mut parcel = parcel.unpack();
        for RemoteDelivery { message, publisher, to, on_its_way } in deliveries {
            let mut message = match &message {
                RemoteMessage::Kept(message) => SharedPublication::of(message),
                RemoteMessage::Packed(packed) => SharedPublication::new(parcel.next(*packed)),
            };
            match to {
                RemoteTargets::Planned(at) => {
                    let plan = &plans[at];
                    for target in plan.targets_at(self.host()) {
                        self.deliver(target, &mut message, publisher, now);
                    }
                    self.has_arrived(on_its_way);
                }
                RemoteTargets::Shared(plan, search) => {
                    let mut turn = Turn { on_its_way, ..Turn::at(now) };
                    self.deliver_shared(&plan, search, &mut message, &mut turn);
                    // The message may have moved on to another shard.
                    self.has_arrived(turn.on_its_way);
                }
            }
        }
    }

    fn deliver(
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
            self.count_delivered(delivered);
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
        let slot = self.slots.get(target.place.slot as usize)?;
        if slot.generation != target.place.generation || slot.is_suspended {
            return None;
        }
        if slot.session.must_read_to_displace(message.publication.qos, message.publication.size()) {
            self.read_page(target.place.slot);
        }
        let slot = self.slots.get_mut(target.place.slot as usize)?;
        if let Some(link) = slot.session.link_mut() {
            Self::lend_buffer(&mut self.spare_buffers, link.out_mut());
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
            Delivered::Sent => slot.wake(),
            Delivered::Queued { .. } => {
                slot.wake();
                if message.publication.expires_at.is_some() && slot.connected.is_none() {
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

    /// Counts the messages that a delivery dropped.
    pub(in crate::shard) fn count_delivered(&self, delivered: Delivered) {
        match delivered {
            Delivered::Sent | Delivered::Queued { displaced: 0 } => {}
            Delivered::Queued { displaced } => {
                self.metrics.dropped(DropReason::QueueFull, displaced);
            }
            Delivered::QueueFull => self.metrics.dropped(DropReason::QueueFull, 1),
            Delivered::Away => self.metrics.dropped(DropReason::Offline, 1),
            Delivered::TooLarge => self.metrics.dropped(DropReason::PacketTooLarge, 1),
        }
    }

    /// Collects a message for another shard. If it `is_awaited`, its acknowledgement waits until
    /// that shard has stored it.
    pub(in crate::shard) fn send_away(
        &mut self,
        shard: ShardNumber,
        delivery: RemoteDelivery,
        size: usize,
        is_awaited: bool,
    ) {
        if is_awaited && self.journal.is_some() {
            self.batch_for(shard).is_awaited = true;
            self.tickets.sent_away += 1;
        }
        let batch = self.batch_for(shard);
        batch.bytes += size + DELIVERY_BYTES;
        batch.deliveries.push(delivery);
    }

    fn batch_for(&mut self, shard: ShardNumber) -> &mut Deliver {
        let at = usize::from(shard.0);
        if self.batches.len() <= at {
            self.batches.resize_with(at + 1, Deliver::default);
        }
        &mut self.batches[at]
    }

    /// Sends what was collected for the other shards, one batch to each; returns how many of them
    /// the ticket awaits.
    pub(in crate::shard) fn flush_batches(&mut self, ticket: Option<Ticket>) -> usize {
        let mut awaited = 0;
        for (at, collected) in self.batches.iter_mut().enumerate() {
            if collected.deliveries.is_empty() {
                continue;
            }
            let mut batch = std::mem::take(collected);
            if batch.is_awaited && self.core.makes_wait() {
                batch.awaited = ticket.map(|ticket| Awaited { shard: self.number, ticket });
                awaited += usize::from(batch.awaited.is_some());
            }
            if let Some(shard) = self.core.shard(ShardNumber(at as u16)) {
                shard.bytes_waiting.fetch_add(batch.bytes, Ordering::Relaxed);
                shard.door.send(Sender::Shard(self.number), ToShard::Deliver(batch));
            }
        }
        awaited
    }

    /// Returns whether another shard, or the store, is so far behind that publishers here should
    /// wait for it.
    pub(crate) fn is_congested(&self) -> bool {
        if self.core.keeper.as_ref().is_some_and(|keeper| keeper.is_congested()) {
            return true;
        }
        self.core.shards().len() > 1
            && self
                .core
                .shards()
                .iter()
                .any(|shard| shard.bytes_waiting.load(Ordering::Relaxed) > BYTES_AHEAD_MAX)
    }
}

/// Nodes of the retained store that are visited before others get their turn, which takes about 50
/// µs.
const SLICE_NODES: usize = 512;
/// Slices that a connection may fetch before others get their turn.
const SLICES_PER_TURN: usize = 4;
/// Bytes that may wait for a shard before publishers on other shards are held.
const BYTES_AHEAD_MAX: usize = 8 * 1024 * 1024;
/// The size that a message for another shard counts besides its topic, properties and payload.
const DELIVERY_BYTES: usize = 192;
