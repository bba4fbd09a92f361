//! The requests that wait for replies, by Response Topic.
//!
//! A request takes the first message that answers it, on the shard of the client that publishes it;
//! nothing is queued. Knows no session and no subscription.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::oneshot;

use crate::{
    control::{ControlError, DeviceReply, RequestReply},
    mqtt::PublishProperties,
    router::Place,
    session::{Delivered, SharedPublication},
};

/// Maximum number of requests that wait at the same time.
const REQUESTS_MAX: usize = 1_000;
/// The requests that wait.
#[derive(Default)]
pub(crate) struct Replies {
    requests: Mutex<Requests>,
    /// The place of the broker's subscription, and the beginning of its own topics.
    pub(in crate::shard) own: OnceLock<(Place, String)>,
}

/// The requests that wait, by Response Topic.
#[derive(Default)]
pub(in crate::shard) struct Requests {
    by_topic: HashMap<Box<str>, VecDeque<WaitingRequest>>,
    waiting: usize,
    last_number: u64,
}

/// A request that waits.
pub(in crate::shard) struct EnteredRequest {
    /// Its number, needed to remove it.
    pub(in crate::shard) number: u64,
    /// Whether no other request waits for messages on its topic.
    pub(in crate::shard) is_first: bool,
    pub(in crate::shard) reply: oneshot::Receiver<DeviceReply>,
}

impl Requests {
    /// Adds a request; `takes_any` says whether a message without Correlation Data is a reply.
    ///
    /// # Errors
    /// Too many requests wait.
    pub(in crate::shard) fn enter(
        &mut self,
        request: &RequestReply,
        takes_any: bool,
    ) -> Result<EnteredRequest, ControlError> {
        if self.waiting >= REQUESTS_MAX {
            return Err(ControlError::Unavailable);
        }
        self.waiting += 1;
        self.last_number += 1;
        let (number, (sender, reply)) = (self.last_number, oneshot::channel());
        let is_first = !self.by_topic.contains_key(&request.response_topic);
        let waiting = self.by_topic.entry(request.response_topic.clone()).or_default();
        let correlation_data = request.correlation_data.clone();
        waiting.push_back(WaitingRequest { number, correlation_data, takes_any, reply: sender });
        Ok(EnteredRequest { number, is_first, reply })
    }

    /// Removes a request; returns whether it was the last one on its topic.
    pub(in crate::shard) fn leave(&mut self, topic: &str, number: u64) -> bool {
        self.waiting -= 1;
        let Some(waiting) = self.by_topic.get_mut(topic) else { return false };
        waiting.retain(|request| request.number != number);
        let is_last = waiting.is_empty();
        if is_last {
            self.by_topic.remove(topic);
        }
        is_last
    }
}

struct WaitingRequest {
    number: u64,
    correlation_data: Box<[u8]>,
    /// Whether a message without Correlation Data is a reply.
    takes_any: bool,
    reply: oneshot::Sender<DeviceReply>,
}

impl WaitingRequest {
    fn is_answered_by(&self, correlation_data: Option<&[u8]>) -> bool {
        correlation_data.map_or(self.takes_any, |data| *data == *self.correlation_data)
    }
}

impl Replies {
    /// Gives a message to the request that it answers, if there is one.
    pub(in crate::shard) fn take(
        &self,
        message: &mut SharedPublication<'_>,
        publisher: impl FnOnce() -> Option<Arc<str>>,
    ) -> Option<Delivered> {
        let mut requests = self.requests();
        let waiting = requests.by_topic.get_mut(message.publication.topic)?;
        let properties = PublishProperties::decode_forwarded(message.publication.properties);
        let is_answered =
            |request: &WaitingRequest| request.is_answered_by(properties.correlation_data);
        let at = waiting.iter().position(is_answered)?;
        let request = waiting.remove(at)?;
        // The call that waits adds its node.
        let _ = request.reply.send(DeviceReply::new("", message.allocate(), publisher()));
        Some(Delivered::Sent)
    }

    /// Returns the requests. While they are locked, subscriptions may be changed for them.
    pub(in crate::shard) fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
