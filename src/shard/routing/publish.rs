//! The way of a message from its publisher to its targets: here, in process, and in the batches for
//! the other shards and nodes.

use std::{num::NonZeroU64, sync::Arc};

use crate::{
    auth::Decision,
    between::batch::{RemoteDelivery, RemoteMessage, RemoteTargets},
    control::ControlError,
    durable::in_transit::Destination,
    hooks::DisconnectReason,
    metrics::{DropReason, HoldReason},
    mqtt::{Publication, Publish, PublishFlags, QoS, ReasonCode, Timestamp},
    owners::Owner,
    router::{Host, Place, Plan, RetainedFull, ShardNumber},
    session::SharedPublication,
    shard::{
        Core, Departure, Shard,
        packets::Handled,
        presence::keep_alive::SET_KEEP_ALIVE,
        quota::{is_answered, refused_retained},
        routing::plans::RecentTopic,
        turn::Turn,
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
        // The first byte decides for nearly every topic.
        if topic.starts_with('$') && topic == SET_KEEP_ALIVE {
            self.handle_set_keep_alive(slot, publish, now);
            return Ok(Handled::Done);
        }
        // A message that must wait comes again, so its rate is judged before anything is counted.
        if turn.is_paced && !self.may_read_now(slot, now) {
            return Ok(Handled::MustWait(HoldReason::RateLimit));
        }
        let PublishFlags { qos, retain, .. } = publish.flags;
        let Some(mut recent) = self.recent_topic(slot, topic, qos, retain) else {
            return Ok(Handled::Done);
        };
        // Before anything is counted, retained or routed, so that nothing has to be undone.
        // Only messages that are allowed wait; the others are refused immediately.
        if let Some(reason) = self.why_publish_waits(slot, publish, topic, &mut recent, now) {
            if let Some(found) = self.slots.get_mut(slot as usize) {
                found.recent_topic = Some(recent);
            }
            return Ok(Handled::MustWait(reason));
        }
        if retain {
            self.take_retained_outcome(slot);
        }
        // A message that had to wait comes again, and is counted once.
        if turn.is_paced {
            self.note_read(slot, topic.len() + publish.payload.len());
        }
        self.metrics.messages_received[usize::from(qos.number())].add(1);
        // Changes that are noted from here on must be stored before the acknowledgement.
        let mark = self.mark();
        turn.span = self.span_of(slot, publish, topic);
        let accepted = self.accept_publish(slot, publish, topic, &mut recent, turn);
        if retain {
            self.end_retained();
        }
        let reason = match accepted {
            Ok(reason) => reason,
            Err(departure) => {
                if let Some(found) = self.slots.get_mut(slot as usize) {
                    found.recent_topic = Some(recent);
                }
                return self.refuse_publish(slot, publish, departure, now);
            }
        };
        // The acknowledgement waits for every change that this message has caused here.
        let gate = self.gate_since(mark, slot);
        self.end_span(turn, reason, gate);
        if let Some(found) = self.slots.get_mut(slot as usize) {
            found.messages_in += 1;
            found.recent_topic = Some(recent);
            found.session.publish_done(qos, publish.packet_id, reason, gate);
        }
        Ok(Handled::Done)
    }

    /// Retains and routes a message that need not wait, if it is allowed; returns its Reason Code.
    ///
    /// # Errors
    /// Returns how it is refused: as the publisher's version allows.
    #[inline]
    fn accept_publish(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
        recent: &mut RecentTopic,
        turn: &mut Turn<'_>,
    ) -> Result<ReasonCode, Departure> {
        if recent.decision == Decision::Deny {
            self.metrics.dropped(DropReason::NotAuthorized, 1);
            self.tell_denied(slot, "publish", topic);
            return Ok(ReasonCode::NotAuthorized);
        }
        if let Some(reason) = self.why_not_durable(slot, publish, topic, recent) {
            self.metrics.dropped(DropReason::StoreUnavailable, 1);
            return Err(Departure::by_server(DisconnectReason::InternalError, reason));
        }
        if publish.flags.retain
            && let Some(departure) = self.why_not_retained(slot, publish, turn.now)
        {
            return Err(departure);
        }
        self.retain_and_route(slot, publish, topic, recent, turn).map_err(refused_retained)
    }

    /// Returns why a message must wait before it is handled: a subscriber has a full queue, the store is behind, or the
    /// cluster has not stored it as a retained message yet.
    #[inline]
    fn why_publish_waits(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
        recent: &mut RecentTopic,
        now: Timestamp,
    ) -> Option<HoldReason> {
        // A message that is not allowed reaches no queue and no store.
        if recent.decision != Decision::Allow {
            return None;
        }
        // One load in the normal case: no queue is full.
        if self.core.waits.is_needed() {
            let plan = self.current_plan(recent, topic);
            if self.must_wait(slot, publish.flags.qos, &plan) {
                return Some(HoldReason::SubscriberFull);
            }
        }
        if self.publish_waits_for_store(slot, publish, topic, recent, now) {
            return Some(HoldReason::StoreBehind);
        }
        // Last: what waits for the stream is handled as soon as it is written.
        let waits =
            publish.flags.retain && self.publish_waits_for_stream(slot, publish, topic, now);
        waits.then_some(HoldReason::RetainedBehind)
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
        let is_durable =
            publish.flags.qos != QoS::AtMostOnce && self.needs_store(slot, publish, topic, recent);
        is_durable.then(|| trouble.reason())
    }

    /// Retains and routes a message; does neither if it cannot be retained and its publisher gets
    /// an answer that says so.
    fn retain_and_route(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
        recent: &mut RecentTopic,
        turn: &mut Turn<'_>,
    ) -> Result<ReasonCode, RetainedFull> {
        let now = turn.now;
        // The buffer belongs to the turn, so messages with properties do not allocate.
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
        // A publisher that gets no answer loses only the retained copy; its message is still delivered.
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
            match turn.span.as_ref().map(|span| Arc::clone(&span.trace)) {
                None => self.route(&publication, &plan, publisher, turn),
                Some(trace) => self.route_traced(&publication, &plan, publisher, &trace, turn),
            }
            // The next packet of the turn may be of QoS 0.
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
    pub(crate) fn publish_retained(
        &mut self,
        publication: &Publication<'_>,
        publisher: Option<Place>,
        now: Timestamp,
    ) {
        if publication.retain {
            // No caller waits for an answer, so the log names the message that is not retained.
            let slot = publisher.filter(|place| place.host == self.host()).map(|place| place.slot);
            let _ = self.retain(publication, slot, now);
        }
        let plan = self.plan(publication.topic);
        self.route(publication, &plan, publisher, &mut Turn::at(now));
    }

    /// Retains a message of a caller, for the account of this user; returns its plan. Until it is
    /// retained, the plan of the message passes this check.
    ///
    /// # Errors
    /// A target that publishers must wait for is full, the message must be stored and cannot be, or it
    /// cannot be retained.
    pub(in crate::shard) fn retain_for_caller(
        &mut self,
        publication: &Publication<'_>,
        by: Option<Arc<str>>,
        check: impl FnOnce(&Self, &Plan) -> Result<(), ControlError>,
        now: Timestamp,
    ) -> Result<Arc<Plan>, ControlError> {
        // A call is not held as a connection is; it is refused and may be repeated.
        if !self.full_targets(publication).is_empty() {
            return Err(ControlError::Unavailable);
        }
        let plan = self.plan(publication.topic);
        let is_durable = publication.retain || plan.durable_len() > 0;
        if publication.qos != QoS::AtMostOnce && is_durable && self.trouble().is_some() {
            return Err(ControlError::Unavailable);
        }
        // Checked before anything is retained.
        check(self, &plan)?;
        let owner =
            by.filter(|_| is_durable).map(|username| self.core.account(Owner::User(username)));
        if let Some(owner) = &owner {
            // A user that waits for the store with its clients must not go around this by calls.
            if self.owner_waits_for_store(owner, now) {
                return Err(ControlError::Unavailable);
            }
            self.charge_account(Some(owner.clone()));
        }
        if publication.retain {
            let retained = self.retain_for(owner, publication, now);
            retained.map_err(|_| ControlError::RetainedFull)?;
        }
        // Made after retaining, as for a client's PUBLISH.
        let plan = self.plan(publication.topic);
        if plan.is_empty() {
            self.metrics.dropped(DropReason::NoSubscriber, 1);
        }
        Ok(plan)
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
        // A large payload stays in the buffer of the read, and its receivers share it without a copy.
        let mut message = match turn.packets {
            Some(packets) => SharedPublication::within(packets, *publication).received(turn.now),
            None => SharedPublication::new(*publication).received(turn.now),
        };
        // The number comes before any delivery, so that all copies of the message have it.
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
                        // A closure: only a request that waits for a reply needs the name of the publisher.
                        let client_id =
                            || Some(self.slot_at(publisher?)?.session.client_id().clone());
                        let delivered =
                            self.core.in_process.deliver(target, &mut message, client_id);
                        if let Some(delivered) = delivered {
                            self.count_delivered(None, delivered);
                        }
                    }
                }
                Host::Nodes => self.route_to_nodes(&mut message, plan, publisher),
            }
        }
        // Groups last: their search may pass the message on to another shard.
        self.route_shared(plan, &mut message, turn);
    }

    /// Collects a message for all targets of its plan on another shard.
    pub(in crate::shard) fn route_away(
        &mut self,
        shard: ShardNumber,
        message: &mut SharedPublication<'_>,
        plan: &Arc<Plan>,
        publisher: Option<Place>,
        turn: &mut Turn<'_>,
    ) {
        let is_durable = plan.is_durable_at(Host::Shard(shard));
        let is_awaited = message.publication.qos != QoS::AtMostOnce && is_durable;
        let batch = self.batches.of(shard);
        // Messages of one batch often have one plan, which is sent once.
        if batch.plans.last().is_none_or(|last| !Arc::ptr_eq(last, plan)) {
            batch.plans.push(plan.clone());
        }
        let to = RemoteTargets::Planned(batch.plans.len() - 1);
        let size = message.publication.size();
        // Small messages are copied into one allocation for the whole batch.
        if let Some(packed) = batch.parcel.pack(&message.publication) {
            let message = RemoteMessage::Packed(packed);
            let delivery = RemoteDelivery { message, publisher, to, on_its_way: None };
            return self.send_away(shard, delivery, size, is_awaited);
        }
        let message = message.allocate();
        let to_shard = |core: &Core| Destination::Shard(*core.homes(), shard);
        // Only a message that must be stored there is noted as in transit here.
        let on_its_way =
            if is_awaited { self.send_on_its_way(&message, to_shard, turn) } else { None };
        let message = RemoteMessage::Allocated(message);
        let delivery = RemoteDelivery { message, publisher, to, on_its_way };
        self.send_away(shard, delivery, size, is_awaited);
    }

    /// Returns a number for a message that several sessions may store, so that it is stored once.
    pub(in crate::shard) fn message_number(
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
}
