//! Subscribers in this process: those of the embedding application, and requests that wait for
//! replies.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
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

/// Where the messages of a subscriber go.
enum MessagesTo {
    Stream(mpsc::Sender<Received>),
    /// To the requests that wait for replies.
    Replies,
}

impl InProcess {
    /// Adds a subscriber; returns its place and its end of the queue.
    pub(in crate::shard) fn add(&self) -> (Place, mpsc::Receiver<Received>) {
        let (sender, messages) = mpsc::channel(WAITING_MAX);
        (self.insert(MessagesTo::Stream(sender)), messages)
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
            MessagesTo::Stream(sender) => sender.capacity(),
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
        if *generation != target.place.generation {
            return None;
        }
        let sender = match to {
            MessagesTo::Stream(sender) => sender,
            MessagesTo::Replies => return self.replies.take(message, publisher),
        };
        let publication = message.publication;
        let received = Received {
            qos: publication.qos.min(target.qos),
            retain: publication.retain && target.retain_as_published,
            message: message.allocate(),
        };
        Some(match sender.try_send(received) {
            Ok(()) => Delivered::Sent,
            Err(_) => Delivered::QueueFull,
        })
    }
}
