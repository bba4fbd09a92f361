//! Requests of callers, which wait for the reply of a client.
//!
//! A reply is a message like every other. It comes through a subscription of the broker: one for all
//! its own Response Topics, and one for each topic that callers name.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    control::{ControlError, DeviceReply, RequestReply},
    mqtt::{QoS, SubscriptionOptions, validate_filter},
    router::{Place, Subscriber},
    shard::{Core, replies::EnteredRequest},
};

/// The beginning of the broker's own Response Topics. A random name of the node follows, and one of the
/// request.
const OWN_TOPICS: &str = "hearthmq/reply";

impl Core {
    /// Returns a Response Topic for one request, which cannot be guessed.
    pub(crate) fn new_response_topic(&self) -> String {
        let (_, own) = self.own_replies();
        format!("{own}/{:032x}", u128::from_ne_bytes(random()))
    }

    /// Returns the place of the broker's subscription and the beginning of its own topics. The first call subscribes.
    fn own_replies(&self) -> &(Place, String) {
        self.in_process.replies.own.get_or_init(|| {
            let place = self.in_process.add_replies();
            let own = format!("{OWN_TOPICS}/{:016x}", u64::from_ne_bytes(random()));
            self.subscribe_for_replies(&format!("{own}/+"), place);
            (place, own)
        })
    }

    fn subscribe_for_replies(&self, filter: &str, place: Place) {
        if let Ok(parts) = validate_filter(filter) {
            let options =
                SubscriptionOptions { qos: QoS::ExactlyOnce, ..SubscriptionOptions::default() };
            let subscriber = Subscriber { place, options, identifier: None, is_durable: false };
            self.index.subscribe(parts, subscriber);
        }
    }

    /// Lets a request wait for its reply, from now on.
    ///
    /// # Errors
    /// Too many requests wait.
    pub(crate) fn await_reply(
        self: &Arc<Self>,
        request: &RequestReply,
    ) -> Result<AwaitedReply, ControlError> {
        let topic = &*request.response_topic;
        let (place, own) = self.own_replies();
        let is_own = topic.strip_prefix(own.as_str()).is_some_and(|rest| rest.starts_with('/'));
        let mut requests = self.in_process.replies.requests();
        let EnteredRequest { number, is_first, reply } = requests.enter(request, !is_own)?;
        if is_first && !is_own {
            self.subscribe_for_replies(topic, *place);
        }
        let (core, topic) = (Arc::clone(self), topic.into());
        Ok(AwaitedReply { core, topic, number, is_own, reply })
    }
}

/// A request that waits; dropping it ends the wait.
pub(crate) struct AwaitedReply {
    core: Arc<Core>,
    topic: Box<str>,
    number: u64,
    is_own: bool,
    reply: oneshot::Receiver<DeviceReply>,
}

impl AwaitedReply {
    /// Waits for the reply.
    pub(crate) async fn reply(&mut self) -> Result<DeviceReply, ControlError> {
        (&mut self.reply).await.map_err(|_| ControlError::Unavailable)
    }
}

impl Drop for AwaitedReply {
    fn drop(&mut self) {
        let replies = &self.core.in_process.replies;
        let mut requests = replies.requests();
        let is_last = requests.leave(&self.topic, self.number);
        if is_last
            && !self.is_own
            && let Some((place, _)) = replies.own.get()
            && let Ok(parts) = validate_filter(&self.topic)
        {
            self.core.index.unsubscribe(parts, *place);
        }
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    bytes
}
