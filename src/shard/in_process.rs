//! Subscribers in this process: those of the embedding application.

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
    subscribers: Mutex<Slab<(u32, mpsc::Sender<Received>)>>,
    generations: AtomicU32,
}

impl InProcess {
    /// Adds a subscriber; returns its place and its end of the queue.
    pub(in crate::shard) fn add(&self) -> (Place, mpsc::Receiver<Received>) {
        let (sender, messages) = mpsc::channel(WAITING_MAX);
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = subscribers.insert((generation, sender)) as u32;
        (Place { host: Host::InProcess, slot, generation }, messages)
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
        let (generation, sender) = subscribers.get(place.slot as usize)?;
        (*generation == place.generation).then(|| sender.capacity())
    }

    /// Delivers a message to one subscriber; returns `None` if its subscription has ended.
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
            message: message.allocate(),
        };
        Some(match sender.try_send(received) {
            Ok(()) => Delivered::Sent,
            Err(_) => Delivered::QueueFull,
        })
    }
}
