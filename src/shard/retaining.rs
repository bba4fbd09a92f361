//! Messages that must be retained in the whole cluster: they wait until the stream of retained messages has them.
//!
//! A connection whose PUBLISH has RETAIN is held until the outcome is known; then the packet is handled again, with
//! this outcome. Messages without a connection wait here, and callers in their call. So each message has its place
//! in the stream before it is planned, and its subscribers on other nodes find it there. Without a cluster nothing
//! waits.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use crate::{
    between::retained::{
        AppliedRetained, RetainedMark, RetainedOfCluster, RetainedOutcome, RetainedWrite,
    },
    hooks::DisconnectReason,
    metrics::DropReason,
    mqtt::{Message, Publication, Publish, QoS, ReasonCode, Timestamp, is_of_the_broker},
    owners::Account,
    router::{Place, RetainedFull},
    session::Link,
    shard::{Departure, Shard, keeping::tickets::Owed, turn::Turn},
};

/// Maximum number of messages without a connection that wait, and of their bytes. Beyond them, messages are
/// delivered and not retained.
const MESSAGES_MAX: usize = 10_000;
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// The messages of a shard that wait for the stream.
#[derive(Default)]
pub(in crate::shard) struct Retaining {
    last_number: u64,
    waiting: BTreeMap<u64, AwaitedRetained>,
    /// The bytes of those that have no connection.
    bytes: usize,
    /// The held connections, by slot; also those that have ended since, until their slot is used again.
    connections: HashMap<u32, HeldPublish, RandomState>,
    /// The outcome for the message that is being handled.
    outcome: Option<RetainedOutcome>,
    /// Its place in the stream.
    mark: Option<RetainedMark>,
}

/// A PUBLISH that holds its connection.
#[derive(Clone, Copy)]
struct HeldPublish {
    link: u64,
    number: u64,
    outcome: Option<RetainedOutcome>,
}

enum AwaitedRetained {
    /// The connection of this slot is held.
    Publish(u32),
    /// A Will, which is routed afterwards.
    Will { message: Arc<Message>, publisher: Option<Place>, account: Option<Arc<Account>> },
    /// A caller publishes the message afterwards.
    Call(oneshot::Sender<RetainedOutcome>),
}

impl Shard {
    fn retained_of_cluster(&self) -> Option<&dyn RetainedOfCluster> {
        self.core.nodes.get().map(|nodes| nodes.retained())
    }

    /// Returns whether a PUBLISH with RETAIN must wait until the stream has it.
    #[cold] // Keeps the path of messages without RETAIN as it is.
    pub(in crate::shard) fn publish_waits_for_stream(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
        now: Timestamp,
    ) -> bool {
        if self.core.nodes.get().is_none() || is_of_the_broker(topic) {
            return false;
        }
        let Some(found) = self.slots.get(slot as usize) else { return false };
        let Some(link) = found.connected.as_ref().map(|connected| connected.link) else {
            return false;
        };
        if let Some(held) = self.retaining.connections.get(&slot)
            && held.link == link
        {
            return held.outcome.is_none();
        }
        // It is refused, so the stream must not have it.
        if publish.flags.qos != QoS::AtMostOnce && self.trouble().is_some() {
            return false;
        }
        let mut properties = Vec::new();
        publish.properties.encode_forwarded(&mut properties);
        let expiry = publish.properties.message_expiry_interval;
        let publication = Publication {
            topic,
            payload: publish.payload,
            qos: publish.flags.qos,
            retain: true,
            properties: &properties,
            expires_at: expiry.map(|secs| now.plus_secs(u64::from(secs))),
        };
        let account = found.account.clone();
        let message = Arc::new(Message::new(&publication));
        if self.has_no_room(&message, Some(&account), now).is_err() {
            return false; // The same check refuses it.
        }
        let number = self.write_retained(message, Some(&account), AwaitedRetained::Publish(slot));
        self.retaining.connections.insert(slot, HeldPublish { link, number, outcome: None });
        true
    }

    /// Returns why a message cannot be retained here.
    fn has_no_room(
        &self,
        message: &Message,
        account: Option<&Arc<Account>>,
        now: Timestamp,
    ) -> Result<(), RetainedFull> {
        if message.payload().is_empty() {
            return Ok(()); // It removes one.
        }
        let mut gone = Vec::new();
        let room = self.core.retained.has_room(message, account, now, &mut gone);
        self.note_cleared(&gone);
        room
    }

    fn write_retained(
        &mut self,
        message: Arc<Message>,
        account: Option<&Arc<Account>>,
        waiting: AwaitedRetained,
    ) -> u64 {
        self.retaining.last_number += 1;
        let number = self.retaining.last_number;
        self.retaining.waiting.insert(number, waiting);
        let owner = account.map(|account| account.owner().clone());
        if let Some(cluster) = self.retained_of_cluster() {
            cluster.write(RetainedWrite { message, owner, shard: self.number, number });
        }
        number
    }

    /// Takes the outcome for the PUBLISH that is handled now.
    pub(in crate::shard) fn take_retained_outcome(&mut self, slot: u32) {
        let held = self.retaining.connections.remove(&slot);
        self.retaining.outcome = held.and_then(|held| held.outcome);
    }

    /// Forgets the outcome and the place of the message that was handled.
    pub(in crate::shard) fn end_retained(&mut self) {
        self.retaining.outcome = None;
        self.retaining.mark = None;
    }

    /// Returns the place in the stream of the message that is being routed, for the mail to other nodes.
    pub(in crate::shard) fn retained_mark(&self) -> Option<RetainedMark> {
        self.retaining.mark.clone()
    }

    /// Returns how a PUBLISH is refused that was not retained. One of QoS 0 is delivered all the same.
    pub(in crate::shard) fn why_not_retained(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        now: Timestamp,
    ) -> Option<Departure> {
        let outcome = self.retaining.outcome.filter(|_| publish.flags.qos != QoS::AtMostOnce)?;
        let departure = match outcome {
            RetainedOutcome::Written(_) => return None,
            // Quota exceeded is the code of PUBACK and PUBREC that says so; Packet too large is not one of theirs.
            RetainedOutcome::TooLarge => {
                Departure::by_server(DisconnectReason::QuotaExceeded, ReasonCode::QuotaExceeded)
                    .because("a retained message may have max_payload of NATS")
            }
            // As while the store is in trouble. Server unavailable is a code of CONNACK alone.
            RetainedOutcome::Unavailable => {
                let code = ReasonCode::ImplementationSpecificError;
                Departure::by_server(DisconnectReason::InternalError, code)
                    .because("retained messages cannot be written now")
            }
        };
        self.metrics.dropped(DropReason::RetainedUnavailable, 1);
        let version = self.slot(slot).and_then(|found| found.session.link()).map(Link::version);
        if outcome == RetainedOutcome::Unavailable
            && version.is_some_and(|version| !version.has_properties())
        {
            // It gets no answer, connects again and sends the message again.
            self.slow_down(slot, now);
        }
        Some(departure)
    }

    /// Retains a message that has its place in the stream.
    ///
    /// # Errors
    /// There is no room for it, and so it was not written.
    pub(in crate::shard) fn retain_in_cluster(
        &mut self,
        owner: Option<Arc<Account>>,
        publication: &Publication<'_>,
        now: Timestamp,
    ) -> Result<(), RetainedFull> {
        match self.retaining.outcome {
            Some(RetainedOutcome::Written(sequence)) => {
                let mark =
                    RetainedMark { sequence, owner: owner.map(|account| account.owner().clone()) };
                self.apply_retained(publication, &mark, now);
                self.retaining.mark = Some(mark);
                Ok(())
            }
            Some(RetainedOutcome::TooLarge | RetainedOutcome::Unavailable) => {
                self.metrics.dropped(DropReason::RetainedUnavailable, 1);
                Ok(())
            }
            None => {
                self.metrics.dropped(DropReason::RetainedFull, 1);
                let message = Message::new(publication);
                Err(self
                    .has_no_room(&message, owner.as_ref(), now)
                    .err()
                    .unwrap_or(RetainedFull::All))
            }
        }
    }

    /// Removes the retained message of a topic, as the stream has it.
    pub(in crate::shard) fn clear_retained_at(&self, topic: &str, sequence: u64) {
        if let Some(cluster) = self.retained_of_cluster() {
            cluster.apply(topic, sequence, &mut || self.core.retained.clear(topic));
        }
    }

    /// Returns whether a topic has a retained message.
    pub(in crate::shard) fn has_retained(&self, topic: &str, now: Timestamp) -> bool {
        let found = self.core.retained.get(topic);
        found.is_some_and(|(message, _)| !message.publication().has_expired(now))
    }

    /// Returns whether retained messages are those of a cluster.
    pub(in crate::shard) fn retains_in_cluster(&self, topic: &str) -> bool {
        self.core.nodes.get().is_some() && !is_of_the_broker(topic)
    }

    /// Makes a message the retained one of its topic, or removes that, unless a later one is there. The driver of the
    /// stream lets the store have it.
    pub(in crate::shard) fn apply_retained(
        &self,
        publication: &Publication<'_>,
        mark: &RetainedMark,
        now: Timestamp,
    ) {
        let Some(cluster) = self.retained_of_cluster() else { return };
        let account = mark.owner.clone().map(|owner| self.core.account(owner));
        cluster.apply(publication.topic, mark.sequence, &mut || {
            if publication.payload.is_empty() {
                self.core.retained.clear(publication.topic);
            } else {
                let message = Arc::new(Message::new(publication).received(now));
                self.core.retained.restore(message, account.as_ref());
            }
        });
    }

    /// Lets a Will with RETAIN wait for the stream; returns whether it does. It is routed afterwards.
    pub(in crate::shard) fn will_waits_for_stream(
        &mut self,
        publication: &Publication<'_>,
        publisher: Option<Place>,
        now: Timestamp,
    ) -> bool {
        let size = publication.size();
        if !publication.retain
            || !self.retains_in_cluster(publication.topic)
            || self.retaining.waiting.len() >= MESSAGES_MAX
            || self.retaining.bytes + size > BYTES_MAX
        {
            return false;
        }
        let slot = publisher.and_then(|place| self.slot_at(place));
        let account = slot.map(|found| found.account.clone());
        let message = Arc::new(Message::new(publication));
        if self.has_no_room(&message, account.as_ref(), now).is_err() {
            return false;
        }
        self.retaining.bytes += size;
        let waiting =
            AwaitedRetained::Will { message: message.clone(), publisher, account: account.clone() };
        self.write_retained(message, account.as_ref(), waiting);
        true
    }

    /// Writes the message of a caller; returns where its outcome comes. `None`: it need not be written.
    pub(in crate::shard) fn begin_retained_call(
        &mut self,
        message: &Arc<Message>,
        account: Option<&Arc<Account>>,
        now: Timestamp,
    ) -> Option<oneshot::Receiver<RetainedOutcome>> {
        let publication = message.publication();
        if !publication.retain
            || !self.retains_in_cluster(publication.topic)
            || self.has_no_room(message, account, now).is_err()
        {
            return None;
        }
        let (tell, told) = oneshot::channel();
        self.write_retained(message.clone(), account, AwaitedRetained::Call(tell));
        Some(told)
    }

    /// Sets the outcome for the message that is handled next.
    pub(in crate::shard) const fn set_retained_outcome(&mut self, outcome: RetainedOutcome) {
        self.retaining.outcome = Some(outcome);
    }

    /// Takes in the outcome of a write.
    pub(in crate::shard) fn retained_is_written(
        &mut self,
        number: u64,
        outcome: RetainedOutcome,
        now: Timestamp,
    ) {
        match self.retaining.waiting.remove(&number) {
            Some(AwaitedRetained::Publish(slot)) => {
                if let Some(held) = self.retaining.connections.get_mut(&slot)
                    && held.number == number
                {
                    held.outcome = Some(outcome);
                    let link = held.link;
                    if self.linked(slot, link).is_none() {
                        self.retaining.connections.remove(&slot); // Nobody handles it any more.
                    }
                }
                self.look_at_held(slot);
                self.release_held(now);
            }
            Some(AwaitedRetained::Will { message, publisher, account }) => {
                let publication = message.publication();
                self.retaining.bytes -= publication.size();
                self.retaining.outcome = Some(outcome);
                // It was there when the message was written, so there is an outcome and no lack of room.
                let _ = self.retain_in_cluster(account, &publication, now);
                let plan = self.plan(publication.topic);
                self.route(&publication, &plan, publisher, &mut Turn::at(now));
                self.end_retained();
                self.flush();
            }
            // The caller may have given up.
            Some(AwaitedRetained::Call(tell)) => drop(tell.send(outcome)),
            None => {}
        }
    }

    /// Lets the store take retained messages of the cluster.
    pub(in crate::shard) fn note_applied_retained(&mut self, applied: AppliedRetained) {
        let AppliedRetained { changes, stored } = applied;
        if self.journal.is_none() {
            return stored();
        }
        for change in changes {
            self.note(|| change);
        }
        self.owe_to(Owed::Node(stored));
        self.flush();
    }
}
