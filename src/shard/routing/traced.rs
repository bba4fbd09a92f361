//! Messages that are traced: each of the first deliveries has a receipt, which ends its span.
//!
//! They are routed as other messages are. The tracer decides which messages these are, and how many
//! spans each may have; without a tracer nothing here runs.

use std::sync::Arc;

use crate::{
    between::{
        batch::{RemoteDelivery, RemoteMessage, RemoteTargets},
        search::Search,
    },
    durable::in_transit::Destination,
    journal::Ticket,
    mqtt::{Message, Publication, Publish, QoS, ReasonCode, Timestamp},
    router::{Host, OwnCopy, Place, Plan, ShardNumber, Target},
    session::{Delivered, SharedPublication},
    shard::{Core, Shard, turn::Turn},
    spans::{MessageTrace, ReceiveSpan, ReceivedMessage, nanos_now},
};

/// How long a stored message keeps its receipt, in milliseconds; its span is closed by then.
const RECEIPT_MILLIS: u64 = 60_000;

impl Shard {
    /// Returns the span of a PUBLISH if the broker traces it.
    #[inline] // Few messages have user properties.
    pub(in crate::shard) fn span_of(
        &self,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
    ) -> Option<Box<ReceiveSpan>> {
        if publish.properties.user_properties.is_empty() {
            return None;
        }
        self.begin_span(slot, publish, topic)
    }

    #[cold]
    fn begin_span(
        &self,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
    ) -> Option<Box<ReceiveSpan>> {
        let tracer = self.core.tracer.as_ref()?;
        let publisher = self.slot(slot)?.session.client_id();
        tracer.receive(publish.properties.user_properties, || ReceivedMessage {
            topic,
            publisher,
            qos: publish.flags.qos,
            retain: publish.flags.retain,
            payload_bytes: publish.payload.len(),
        })
    }

    /// Ends the span of a PUBLISH, if it has one: now, or when its acknowledgement no longer waits for
    /// the store.
    #[inline] // Few messages have one.
    pub(in crate::shard) fn end_span(
        &mut self,
        turn: &mut Turn<'_>,
        reason: ReasonCode,
        gate: Option<Ticket>,
    ) {
        if let Some(mut span) = turn.span.take() {
            span.answered(reason as u8);
            if gate.is_some() {
                span.waits_for_store();
                self.owe_span(span);
            }
        }
    }

    /// Delivers a message to all targets of its plan, as [`Shard::route`] does, with the spans of its
    /// trace.
    #[cold]
    pub(in crate::shard) fn route_traced(
        &mut self,
        publication: &Publication<'_>,
        plan: &Arc<Plan>,
        publisher: Option<Place>,
        trace: &Arc<MessageTrace>,
        turn: &mut Turn<'_>,
    ) {
        let began = nanos_now();
        let mut message = match turn.packets {
            Some(packets) => SharedPublication::within(packets, *publication).received(turn.now),
            None => SharedPublication::new(*publication).received(turn.now),
        };
        // The number comes first, so that all copies of the message have the same.
        if let Some(number) = self.message_number(publication, plan, turn) {
            message = message.numbered(number);
        }
        // Each delivery gets a copy with its receipt, so the message lives on the heap from here on.
        let message = message.allocate();
        for host in plan.hosts() {
            match host {
                Host::Shard(number) if number == self.number => {
                    for target in plan.targets_at(host) {
                        self.deliver_traced(target, &message, trace, publisher, turn.now);
                    }
                }
                Host::Shard(number) => {
                    self.send_traced(number, &message, plan, publisher, trace, turn);
                }
                Host::InProcess => {
                    for target in plan.targets_at(host) {
                        self.deliver_traced_in_process(
                            target, &message, trace, publisher, turn.now,
                        );
                    }
                }
                Host::Nodes => {
                    let mut message = SharedPublication::of(&message);
                    self.route_to_nodes(&mut message, plan, publisher);
                }
            }
        }
        // Each group gets a receipt of its own, because its member is found later.
        for (at, group) in plan.shared().iter().enumerate() {
            let search = Search::of_new(plan, at, group.next_turn(), message.qos());
            let message = traced_copy(&message, trace, None, turn.now);
            self.deliver_shared(plan, search, &mut SharedPublication::of(&message), turn);
        }
        trace.routed(began, plan.len());
    }

    /// Delivers a traced message to one target of its plan.
    pub(in crate::shard) fn deliver_traced(
        &mut self,
        target: &Target,
        message: &Arc<Message>,
        trace: &Arc<MessageTrace>,
        publisher: Option<Place>,
        now: Timestamp,
    ) {
        let is_own = publisher == Some(target.place);
        if is_own && matches!(target.own_copy, OwnCopy::Never) {
            return;
        }
        let subscriber = self.slot_at(target.place).map(|found| found.session.client_id().clone());
        let message = traced_copy(message, trace, subscriber.as_deref(), now);
        self.deliver(target, &mut SharedPublication::of(&message), publisher, now);
    }

    fn deliver_traced_in_process(
        &mut self,
        target: &Target,
        message: &Arc<Message>,
        trace: &Arc<MessageTrace>,
        publisher: Option<Place>,
        now: Timestamp,
    ) {
        let message = traced_copy(message, trace, None, now);
        let client_id = || Some(self.slot_at(publisher?)?.session.client_id().clone());
        let mut shared = SharedPublication::of(&message);
        let Some(delivered) = self.core.in_process.deliver(target, &mut shared, client_id) else {
            return;
        };
        if let Some(receipt) = message.receipt().filter(|_| delivered == Delivered::Sent) {
            receipt.sent(true);
        }
        self.count_delivered(None, delivered);
    }

    /// Collects a traced message for all targets of its plan on another shard.
    fn send_traced(
        &mut self,
        shard: ShardNumber,
        message: &Arc<Message>,
        plan: &Arc<Plan>,
        publisher: Option<Place>,
        trace: &Arc<MessageTrace>,
        turn: &mut Turn<'_>,
    ) {
        let is_durable = plan.is_durable_at(Host::Shard(shard));
        let is_awaited = message.qos() != QoS::AtMostOnce && is_durable;
        let batch = self.batches.of(shard);
        // Not shared with the last plan of the batch: messages with spans are rare.
        batch.plans.push(plan.clone());
        let to = RemoteTargets::Traced(batch.plans.len() - 1, Arc::clone(trace));
        let to_shard = |core: &Core| Destination::Shard(*core.homes(), shard);
        let on_its_way =
            if is_awaited { self.send_on_its_way(message, to_shard, turn) } else { None };
        let (size, message) = (message.size(), RemoteMessage::Allocated(Arc::clone(message)));
        let delivery = RemoteDelivery { message, publisher, to, on_its_way };
        self.send_away(shard, delivery, size, is_awaited);
    }
}

/// Returns a copy of the message for one delivery, with the receipt that ends its span; the message
/// itself if the delivery has no span.
fn traced_copy(
    message: &Arc<Message>,
    trace: &MessageTrace,
    subscriber: Option<&str>,
    now: Timestamp,
) -> Arc<Message> {
    let until = Timestamp(now.0.saturating_add(RECEIPT_MILLIS));
    match trace.delivery(subscriber, until) {
        Some(receipt) => Arc::new(Message::clone(message).with_receipt(receipt)),
        None => Arc::clone(message),
    }
}
