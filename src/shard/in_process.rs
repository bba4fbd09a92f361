//! Subscribers in this process: those of the embedding application, and requests that wait for
//! replies.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use slab::Slab;
use tokio::sync::mpsc;

use crate::{
    mqtt::{Message, QoS},
    router::{Host, Place, Target},
    session::{Delivered, SharedPublication},
    shard::replies::Replies,
};

/// Maximum number of messages that wait for an in-process subscriber; newer ones are dropped and
/// counted.
const WAITING_MAX: usize = 10_000;

/// A message that an in-process subscriber has received.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
    subscribers: Mutex<Slab<(u32, MessagesTo)>>,
    generations: AtomicU32,
    pub(in crate::shard) replies: Replies,
}

/// The bytes that wait for a tap, and the number of messages that it has missed. A tap is a subscriber that only
/// observes.
#[derive(Debug, Default)]
pub(crate) struct TapCounts {
    /// The bytes of waiting messages.
    bytes: AtomicUsize,
    /// Messages that were dropped because it does not read.
    missed: AtomicU64,
}

/// Maximum bytes of messages that wait for a tap; one message may exceed it.
const TAP_BYTES_MAX: usize = 1024 * 1024;
/// Maximum number of messages that wait for a tap.
const TAP_WAITING_MAX: usize = 1_000;

impl TapCounts {
    /// Takes room for a message; returns whether there is some.
    fn take(&self, bytes: usize) -> bool {
        let has_room = self.bytes.load(Ordering::Relaxed) < TAP_BYTES_MAX;
        if has_room {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        has_room
    }

    /// Gives back the room of a message.
    pub(in crate::shard) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns the number of messages that were missed since the last call.
    pub(in crate::shard) fn take_missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }

    fn miss(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }
}

/// The receiver of a subscriber's messages.
enum MessagesTo {
    Stream(mpsc::Sender<Received>),
    /// A tap: a message that it misses is not a loss.
    Tap(mpsc::Sender<Received>, Arc<TapCounts>),
    /// The requests that wait for replies.
    Replies,
}

impl InProcess {
    /// Adds a subscriber; returns its place and its end of the queue.
    pub(in crate::shard) fn add(&self) -> (Place, mpsc::Receiver<Received>) {
        let (sender, messages) = mpsc::channel(WAITING_MAX);
        (self.insert(MessagesTo::Stream(sender)), messages)
    }

    /// Adds a tap.
    pub(in crate::shard) fn add_tap(
        &self,
        counts: &Arc<TapCounts>,
    ) -> (Place, mpsc::Receiver<Received>) {
        let (sender, messages) = mpsc::channel(TAP_WAITING_MAX);
        (self.insert(MessagesTo::Tap(sender, Arc::clone(counts))), messages)
    }

    /// Adds the subscriber for replies; returns its place.
    pub(in crate::shard) fn add_replies(&self) -> Place {
        self.insert(MessagesTo::Replies)
    }

    fn insert(&self, to: MessagesTo) -> Place {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = subscribers.insert((generation, to)) as u32;
        Place { host: Host::InProcess, slot, generation }
    }

    /// Removes a subscriber.
    pub(in crate::shard) fn remove(&self, place: Place) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.try_remove(place.slot as usize);
    }

    /// Returns the number of messages for which a subscriber has room; `None` if its subscription
    /// has ended.
    pub(crate) fn room(&self, place: Place) -> Option<usize> {
        let subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        let (generation, to) = subscribers.get(place.slot as usize)?;
        (*generation == place.generation).then(|| match to {
            MessagesTo::Stream(sender) | MessagesTo::Tap(sender, _) => sender.capacity(),
            MessagesTo::Replies => WAITING_MAX,
        })
    }

    /// Delivers a message to one subscriber; returns `None` if its subscription has ended, or no
    /// request waits for this reply. `publisher` is the client that has published it.
    pub(crate) fn deliver(
        &self,
        target: &Target,
        message: &mut SharedPublication<'_>,
        publisher: impl FnOnce() -> Option<Arc<str>>,
    ) -> Option<Delivered> {
        let subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        let (generation, to) = subscribers.get(target.place.slot as usize)?;
        // The place was freed and given to another subscriber, and the plan is older than that.
        if *generation != target.place.generation {
            return None;
        }
        let (sender, tap) = match to {
            MessagesTo::Stream(sender) => (sender, None),
            MessagesTo::Tap(sender, counts) => (sender, Some(counts)),
            MessagesTo::Replies => return self.replies.take(message, publisher),
        };
        // A tap watches and must not slow publishers down: what exceeds its bound counts as missed.
        let publication = message.publication;
        if let Some(counts) = tap
            && !counts.take(publication.size())
        {
            counts.miss();
            return Some(Delivered::Sent);
        }
        // The application gets the QoS of its subscription, and RETAIN only on request.
        // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
        let received = Received {
            qos: publication.qos.min(target.qos),
            retain: publication.retain && target.retain_as_published,
            message: message.allocate(),
        };
        let bytes = publication.size();
        Some(match (sender.try_send(received), tap) {
            (Ok(()), _) => Delivered::Sent,
            // The message is not in the channel, so no reader will give its bytes back.
            (Err(_), Some(counts)) => {
                counts.give_back(bytes);
                counts.miss();
                Delivered::Sent
            }
            (Err(_), None) => Delivered::QueueFull,
        })
    }
}
