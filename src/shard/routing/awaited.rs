//! Messages whose caller waits for the result of each delivery.
//!
//! Each delivery gets a message of its own with a receipt, which shares a large payload. Receipts
//! report to the log of their shard, and the end of a turn sends the reports to the shard where the
//! call waits. A message without such a call pays for one empty field.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tokio::{sync::oneshot, time::timeout};

use crate::{
    between::{
        batch::{RemoteDelivery, RemoteMessage, RemoteTargets},
        door::ToShard,
        search::Search,
    },
    control::{
        ControlError, DELIVERY_WAIT_MAX, Deliveries, DeliveryStage, PublishRequest, Published,
        WaitForDeliveries,
    },
    mqtt::{DeliveryCounts, Message, QoS, Receipt, ReceiptCall, ReceiptLog, Timestamp},
    router::{Host, Place, Plan, ShardNumber, Target},
    session::{Delivered, SharedPublication},
    shard::{Shard, SharedShard, turn::Turn},
};

/// Maximum number of calls that wait on one shard.
const CALLS_MAX: usize = 1_000;
/// Maximum number of deliveries that they wait for together.
const DELIVERIES_MAX: usize = 100_000;
/// Maximum number of deliveries that the calls of one user wait for.
const DELIVERIES_PER_USER_MAX: usize = DELIVERIES_MAX / 4;
/// Maximum number of sessions whose receipts are forgotten in one sweep.
const FORGOTTEN_AT_A_TIME: usize = 1_000;

/// The calls that wait on this shard, and the receipts of its sessions.
#[derive(Default)]
pub(in crate::shard) struct AwaitedCalls {
    calls: HashMap<u64, AwaitedCall>,
    last_number: u64,
    /// The deliveries of all these calls.
    deliveries: usize,
    /// The deliveries of the calls of each user; no entry is 0.
    by_user: HashMap<Arc<str>, usize>,
    log: Arc<ReceiptLog>,
    /// Sessions that may keep receipts with stored messages, by the time when these are not needed
    /// any more.
    kept: BTreeSet<(Timestamp, Place)>,
}

struct AwaitedCall {
    /// The user of the call; `None` for the application, which has no share.
    by: Option<Arc<str>>,
    matched: usize,
    stage: DeliveryStage,
    progress: DeliveryCounts,
    /// Sent when all deliveries have reached the stage.
    complete: Option<oneshot::Sender<()>>,
}

impl AwaitedCall {
    const fn is_complete(&self) -> bool {
        let DeliveryCounts { delivered, acknowledged, dropped, ended } = self.progress;
        let reached = match self.stage {
            DeliveryStage::Stored => return true,
            DeliveryStage::Delivered => delivered + dropped,
            DeliveryStage::Acknowledged => acknowledged + ended + dropped,
        };
        reached as usize >= self.matched
    }
}

/// A message that was published for a caller.
pub(crate) struct PublishedForCaller {
    pub(crate) matched: usize,
    /// The number of deliveries that must be stored.
    durable: usize,
    /// The number of the call that waits, and a channel that reports when its deliveries are complete.
    call: Option<(u64, oneshot::Receiver<()>)>,
}

/// Waits until the deliveries of a message have come as far as its caller wants, or its time has
/// passed, or the caller, which drops the other half of its channel, waits no longer.
pub(crate) async fn wait_for_deliveries(
    shard: &SharedShard,
    PublishedForCaller { matched, durable, call }: PublishedForCaller,
    wait: WaitForDeliveries,
    is_stored: oneshot::Receiver<()>,
    caller: oneshot::Receiver<()>,
) -> Published {
    let (number, is_complete) = call.unzip();
    let mut stored = 0;
    // The limit of the caller cannot exceed that of the broker, which keeps an entry meanwhile.
    let waited = timeout(wait.time_max.min(DELIVERY_WAIT_MAX), async {
        // Stored comes first: deliveries are meaningless if the message itself was not stored.
        let _ = is_stored.await;
        stored = durable;
        if let Some(is_complete) = is_complete
            && wait.stage != DeliveryStage::Stored
        {
            let _ = is_complete.await;
        }
    });
    let in_time = tokio::select! {
        waited = waited => waited.is_ok(),
        _ = caller => false, // it waits no longer
    };
    let node = shard.borrow().core.node.clone();
    // Removed in each case, so that the table holds no calls that nobody waits for.
    let progress = number.and_then(|number| shard.borrow_mut().awaited.end(number));
    let DeliveryCounts { delivered, acknowledged, dropped, .. } = progress.unwrap_or_default();
    Published::new(node, matched).with(Deliveries {
        stored,
        delivered: delivered as usize,
        acknowledged: acknowledged as usize,
        queued: matched.saturating_sub((delivered + dropped) as usize),
        dropped: dropped as usize,
        is_complete: in_time,
    })
}

impl AwaitedCalls {
    /// Notes that a session may keep a receipt with a stored message.
    pub(in crate::shard) fn note_kept(&mut self, until: Timestamp, session: Place) {
        if self.kept.len() < DELIVERIES_MAX {
            self.kept.insert((until, session));
        }
    }

    /// Checks that there is room for a call with these many deliveries.
    fn check(&self, deliveries: usize, by: Option<&str>) -> Result<(), ControlError> {
        let share = if by.is_some() { DELIVERIES_PER_USER_MAX } else { DELIVERIES_MAX };
        if deliveries > share {
            return Err(ControlError::TooManyDeliveries);
        }
        let of_user = by.and_then(|by| self.by_user.get(by)).copied().unwrap_or_default();
        let has_room =
            self.calls.len() < CALLS_MAX && self.deliveries + deliveries <= DELIVERIES_MAX;
        let has_share = of_user + deliveries <= share;
        (has_room && has_share).then_some(()).ok_or(ControlError::Unavailable)
    }

    fn begin(
        &mut self,
        stage: DeliveryStage,
        matched: usize,
        by: Option<Arc<str>>,
    ) -> (u64, oneshot::Receiver<()>) {
        self.last_number += 1;
        self.deliveries += matched;
        if let Some(by) = by.clone() {
            *self.by_user.entry(by).or_default() += matched;
        }
        let (complete, is_complete) = oneshot::channel();
        let (progress, complete) = (DeliveryCounts::default(), Some(complete));
        let call = AwaitedCall { by, matched, stage, progress, complete };
        self.calls.insert(self.last_number, call);
        (self.last_number, is_complete)
    }

    /// Ends a call; returns the results of its deliveries.
    fn end(&mut self, number: u64) -> Option<DeliveryCounts> {
        let call = self.calls.remove(&number)?;
        self.deliveries -= call.matched;
        if let Some(by) = &call.by
            && let Some(share) = self.by_user.get_mut(by)
        {
            *share -= call.matched;
            if *share == 0 {
                self.by_user.remove(by);
            }
        }
        Some(call.progress)
    }
}

impl Shard {
    /// Publishes a message of a caller. If the message is retained, it counts for the account of this
    /// user.
    ///
    /// # Errors
    /// A target that publishers must wait for is full, the message must be stored and cannot be, it
    /// cannot be retained, or too many calls wait. Then nothing is published.
    pub(crate) fn publish_for_caller(
        &mut self,
        request: PublishRequest,
        now: Timestamp,
    ) -> Result<PublishedForCaller, ControlError> {
        let PublishRequest { message, by, wait } = request;
        let publication = message.publication();
        let waits_by = by.clone();
        // Checked before the message is retained: a refused call must change nothing.
        let check = |shard: &Self, plan: &Plan| match wait {
            None => Ok(()),
            Some(_) => shard.awaited.check(plan.len(), waits_by.as_deref()),
        };
        let plan = self.retain_for_caller(&publication, by, check, now)?;
        let matched = plan.len();
        let durable = if publication.qos == QoS::AtMostOnce { 0 } else { plan.durable_len() };
        let call = match wait {
            // Without targets, there is nothing to wait for.
            Some(WaitForDeliveries { stage, time_max }) if matched > 0 => {
                let (number, is_complete) = self.awaited.begin(stage, matched, waits_by);
                let millis = u64::try_from(time_max.as_millis()).unwrap_or(u64::MAX);
                let until = Timestamp(now.0.saturating_add(millis));
                let call = ReceiptCall { shard: self.number.0, number, until };
                self.route_awaited(&message, &plan, call, &mut Turn::at(now));
                Some((number, is_complete))
            }
            Some(_) | None => {
                self.route(&publication, &plan, None, &mut Turn::at(now));
                None
            }
        };
        Ok(PublishedForCaller { matched, durable, call })
    }

    /// Delivers a message to all targets of its plan, as [`Shard::route`] does, each with a receipt.
    fn route_awaited(
        &mut self,
        message: &Arc<Message>,
        plan: &Arc<Plan>,
        call: ReceiptCall,
        turn: &mut Turn<'_>,
    ) {
        // As in `route`, but each delivery has a receipt, so each is a message of its own.
        let number = self.message_number(&message.publication(), plan, turn);
        let message = Message::clone(message).received(turn.now);
        let message = Arc::new(match number {
            Some(number) => message.numbered(number),
            None => message,
        });
        for host in plan.hosts() {
            match host {
                Host::Shard(number) if number == self.number => {
                    for target in plan.targets_at(host) {
                        self.deliver_awaited(target, &message, call, turn.now);
                    }
                }
                Host::Shard(number) => self.send_awaited(number, &message, plan, call),
                Host::InProcess => {
                    for target in plan.targets_at(host) {
                        let mut message = SharedPublication::of(&message);
                        let delivered = self.core.in_process.deliver(target, &mut message, || None);
                        if let Some(delivered) = delivered {
                            self.count_delivered(None, delivered);
                        }
                        // The application acknowledges nothing, so its delivery ends here, without a receipt.
                        let since = match delivered {
                            Some(Delivered::Sent) => DeliveryCounts {
                                delivered: 1,
                                ended: 1,
                                ..DeliveryCounts::default()
                            },
                            // An ended subscription counts too, or the call would wait out its time.
                            _ => DeliveryCounts { dropped: 1, ..DeliveryCounts::default() },
                        };
                        self.awaited.log.note(call, since);
                    }
                }
                Host::Nodes => self.send_awaited_to_nodes(&message, plan, call),
            }
        }
        // Each group gets one receipt, because its member is found later.
        for (at, group) in plan.shared().iter().enumerate() {
            let qos = message.qos();
            let search = Search::of_new(plan, at, group.next_turn(), qos);
            let message = self.with_receipt(&message, call);
            self.deliver_shared(plan, search, &mut SharedPublication::of(&message), turn);
        }
    }

    /// Collects a message for all targets of its plan on another shard.
    fn send_awaited(
        &mut self,
        shard: ShardNumber,
        message: &Arc<Message>,
        plan: &Arc<Plan>,
        call: ReceiptCall,
    ) {
        let is_durable = plan.is_durable_at(Host::Shard(shard));
        let is_awaited = message.qos() != QoS::AtMostOnce && is_durable;
        let batch = self.batches.of(shard);
        batch.plans.push(plan.clone());
        let to = RemoteTargets::Awaited(batch.plans.len() - 1, call);
        let (size, message) = (message.size(), RemoteMessage::Allocated(Arc::clone(message)));
        let delivery = RemoteDelivery { message, publisher: None, to, on_its_way: None };
        self.send_away(shard, delivery, size, is_awaited);
    }

    /// Collects a message for other nodes. Its deliveries there send no receipts: each node counts as one
    /// delivery, which ends when the node gets the message.
    fn send_awaited_to_nodes(
        &mut self,
        message: &Arc<Message>,
        plan: &Arc<Plan>,
        call: ReceiptCall,
    ) {
        self.route_to_nodes(&mut SharedPublication::of(message), plan, None);
        for _ in plan.targets_at(Host::Nodes) {
            let since = DeliveryCounts { delivered: 1, ended: 1, ..DeliveryCounts::default() };
            self.awaited.log.note(call, since);
        }
    }

    /// Delivers a message to one target of its plan, with a receipt.
    pub(in crate::shard) fn deliver_awaited(
        &mut self,
        target: &Target,
        message: &Arc<Message>,
        call: ReceiptCall,
        now: Timestamp,
    ) {
        let message = self.with_receipt(message, call);
        self.deliver(target, &mut SharedPublication::of(&message), None, now);
    }

    fn with_receipt(&self, message: &Arc<Message>, call: ReceiptCall) -> Arc<Message> {
        let receipt = Arc::new(Receipt::new(call, &self.awaited.log));
        Arc::new(Message::clone(message).with_receipt(receipt))
    }

    /// Sends the reports of receipts to the shards where their calls wait.
    #[inline] // Each turn asks, and nearly always there is nothing.
    pub(in crate::shard) fn send_receipts(&mut self) {
        if self.awaited.log.has_some() {
            self.send_some_receipts();
        }
    }

    #[cold]
    fn send_some_receipts(&mut self) {
        let mut reports = self.awaited.log.take();
        reports.sort_by_key(|(call, _)| call.shard);
        for reports in reports.chunk_by(|(a, _), (b, _)| a.shard == b.shard) {
            match reports[0].0.shard {
                own if own == self.number.0 => self.take_receipts(reports),
                other => {
                    self.send_to_shard(ShardNumber(other), ToShard::Receipts(reports.to_vec()));
                }
            }
        }
    }

    /// Takes reports of receipts about calls that wait here, or have waited.
    pub(in crate::shard) fn take_receipts(&mut self, reports: &[(ReceiptCall, DeliveryCounts)]) {
        for (ReceiptCall { number, .. }, since) in reports {
            let Some(call) = self.awaited.calls.get_mut(number) else { continue };
            call.progress.add(*since);
            if call.is_complete()
                && let Some(complete) = call.complete.take()
            {
                let _ = complete.send(()); // the call may have ended
            }
        }
    }

    /// Drops receipts with stored messages whose calls have ended.
    pub(in crate::shard) fn forget_receipts(&mut self, now: Timestamp) {
        for _ in 0..FORGOTTEN_AT_A_TIME {
            let Some((until, place)) = self.awaited.kept.first().copied() else { return };
            if until > now {
                return;
            }
            self.awaited.kept.pop_first();
            if self.slot_at(place).is_some()
                && let Some(found) = self.slot_mut(place.slot)
            {
                found.session.forget_receipts(now);
            }
        }
    }
}
