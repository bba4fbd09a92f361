//! Subscribers in this process: the embedding application's own.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::Stream;
use slab::Slab;
use tokio::sync::mpsc;

use crate::{
    between::{batch::TakeBacklog, door::ToShard},
    mqtt::{FilterParts, Message, QoS, SubscriptionOptions, Timestamp, validate_filter},
    router::{Host, Place, RetainedQuery, Subscriber, Target},
    session::{Delivered, SharedPublication},
    shard::Core,
};

/// Messages that wait for an in-process subscriber; beyond, the newest are dropped and counted.
const WAITING_MAX: usize = 10_000;

/// Nodes of the retained store that are looked at without letting a publisher in.
const SLICE_NODES: usize = 512;

/// A message that an in-process subscriber has received.
#[derive(Clone, Debug)]
pub struct Received {
    /// The message.
    pub message: Arc<Message>,
    /// The QoS of this delivery.
    pub qos: QoS,
    /// Whether it was retained when the subscription was made.
    pub retain: bool,
}

#[derive(Default)]
pub(crate) struct InProcess {
    subscribers: Mutex<Slab<(u32, mpsc::Sender<Received>)>>,
    generations: AtomicU32,
}

/// A subscription of the embedding application: a stream of messages. It ends when it is dropped.
pub struct Subscription {
    core: Weak<Core>,
    place: Place,
    filter: Box<str>,
    messages: mpsc::Receiver<Received>,
}

impl Subscription {
    /// The next message; `None` once the broker is gone.
    pub async fn next(&mut self) -> Option<Received> {
        self.messages.recv().await
    }
}

impl Stream for Subscription {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        self.messages.poll_recv(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        if let Ok(filter) = validate_filter(&self.filter) {
            core.index.unsubscribe(filter, self.place);
        }
        let mut subscribers =
            core.in_process.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.try_remove(self.place.slot as usize);
    }
}

/// Delivers what is retained, slice by slice, as far as there is room.
fn send_retained(
    core: &Core,
    filter: &str,
    max: QoS,
    sender: &mpsc::Sender<Received>,
    now: Timestamp,
) {
    for message in core.system.matching(filter) {
        let qos = message.qos().min(max);
        if sender.try_send(Received { message, qos, retain: true }).is_err() {
            return;
        }
    }
    let until = core.retained.last_number();
    let mut after: Option<Box<str>> = None;
    loop {
        let query = RetainedQuery { filter, after: after.as_deref(), until };
        let slice = core.retained.slice(&query, SLICE_NODES, now);
        for message in slice.messages {
            let qos = message.qos().min(max);
            if sender.try_send(Received { message, qos, retain: true }).is_err() {
                return;
            }
        }
        if slice.go_on_after.is_none() {
            return;
        }
        after = slice.go_on_after;
    }
}

impl InProcess {
    /// Subscribes, and delivers what is retained.
    pub(crate) fn subscribe(
        core: &Arc<Core>,
        filter: FilterParts<'_>,
        whole_filter: &str,
        qos: QoS,
        now: Timestamp,
    ) -> Subscription {
        let (sender, messages) = mpsc::channel(WAITING_MAX);
        let generation = core.in_process.generations.fetch_add(1, Ordering::Relaxed);
        let slot = {
            let mut subscribers =
                core.in_process.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
            subscribers.insert((generation, sender.clone())) as u32
        };
        let place = Place { host: Host::IN_PROCESS, slot, generation };
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        core.index
            .subscribe(filter, Subscriber { place, options, identifier: None, is_durable: false });
        if filter.share_name.is_none() {
            send_retained(core, filter.filter, qos, &sender, now);
        } else if let Some(holder) = core.index.next_holder(filter, &[])
            && let Some(shard) = core.shard(holder.host)
        {
            let asked = TakeBacklog::in_process(whole_filter.into(), holder, place);
            shard.door.send(ToShard::TakeBacklog(asked));
        }
        Subscription { core: Arc::downgrade(core), place, filter: whole_filter.into(), messages }
    }

    /// How many messages a subscriber has room for; `None` if its subscription has ended.
    pub(crate) fn room(&self, place: Place) -> Option<usize> {
        let subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        let (generation, sender) = subscribers.get(place.slot as usize)?;
        (*generation == place.generation).then(|| sender.capacity())
    }

    /// Hands a message to one subscriber; `None` if its subscription has ended.
    pub(crate) fn deliver(
        &self,
        target: &Target,
        message: &mut SharedPublication<'_>,
    ) -> Option<Delivered> {
        let subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        let (generation, sender) = subscribers.get(target.place.slot as usize)?;
        if *generation != target.place.generation {
            return None;
        }
        let publication = message.publication;
        let received = Received {
            qos: publication.qos.min(target.qos),
            retain: publication.retain && target.retain_as_published,
            message: message.keep(),
        };
        Some(match sender.try_send(received) {
            Ok(()) => Delivered::Sent,
            Err(_) => Delivered::QueueFull,
        })
    }
}
