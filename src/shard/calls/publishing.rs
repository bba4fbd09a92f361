//! Calls that publish messages, and wait for what becomes of them.

use std::sync::Arc;

use futures_util::future::{LocalBoxFuture, ready};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use crate::{
    control::{ControlError, DeviceReply, PublishRequest, Published, REPLY_WAIT_MAX, RequestReply},
    mqtt,
    shard::{
        common::Core, hold::LOOK_EVERY, routing::awaited::wait_for_deliveries, shared::SharedShard,
    },
};

type PublishOutcome = Result<Published, ControlError>;
type ReplyOutcome = Result<DeviceReply, ControlError>;

/// A request that ends when its caller waits no longer.
pub(crate) struct WhileAwaited<T> {
    pub(crate) request: T,
    /// Its other half is dropped with the caller.
    pub(crate) caller: oneshot::Receiver<()>,
}

impl<T> WhileAwaited<T> {
    /// Returns a request, and what its caller keeps while it waits.
    pub(crate) fn new(request: T) -> (Self, oneshot::Sender<()>) {
        let (waits, caller) = oneshot::channel();
        (Self { request, caller }, waits)
    }
}

/// Publishes a message, and waits until its deliveries have come as far as the request says. The
/// message is published before this returns.
pub(crate) fn publish(
    shard: &SharedShard,
    request: WhileAwaited<PublishRequest>,
) -> LocalBoxFuture<'static, PublishOutcome> {
    let WhileAwaited { request, caller } = request;
    let mut turn = shard.borrow_mut();
    let now = turn.core.clock.now();
    // The decoder checks a PUBLISH against these limits; a call has passed no decoder.
    if let Err(error) = turn.core.check_message(&request.message) {
        return Box::pin(ready(Err(error)));
    }
    let wait = request.wait;
    let published = turn.publish_for_caller(request, now);
    let (stored, is_stored) = oneshot::channel();
    // Before the flush, which closes the ticket that the caller waits for.
    turn.tell_when_stored(stored);
    turn.flush();
    let (node, shard) = (turn.core.node.clone(), shard.clone());
    Box::pin(async move {
        let published = published?;
        let Some(wait) = wait else {
            // Without a wait for deliveries, the answer still promises that the message is stored.
            let _ = is_stored.await;
            return Ok(Published::new(node, published.matched));
        };
        Ok(wait_for_deliveries(&shard, published, wait, is_stored, caller).await)
    })
}

/// Publishes a request, and waits for the reply of a client. The request is published before this
/// returns.
pub(crate) fn request(
    shard: &SharedShard,
    request: WhileAwaited<RequestReply>,
) -> LocalBoxFuture<'static, ReplyOutcome> {
    let WhileAwaited { request, caller } = request;
    let began = Instant::now();
    let core = Arc::clone(&shard.borrow().core);
    let now = core.clock.now();
    // Before the request is published, because the reply may come immediately.
    let awaited = core.check_message(&request.message).and_then(|()| core.await_reply(&request));
    let mut awaited = match awaited {
        Ok(awaited) => awaited,
        Err(error) => return Box::pin(ready(Err(error))),
    };
    let RequestReply { message, by, time_max, .. } = request;
    let mut publish = PublishRequest::new(message);
    publish.by = by;
    let mut turn = shard.borrow_mut();
    let published = turn.publish_for_caller(publish, now);
    turn.flush();
    Box::pin(async move {
        if published?.matched == 0 {
            return Err(ControlError::NoSubscriber);
        }
        let reply = timeout(time_max.min(REPLY_WAIT_MAX), awaited.reply());
        let reply = tokio::select! {
            reply = reply => reply.map_err(|_| ControlError::Timeout)??,
            _ = caller => return Err(ControlError::Timeout), // it waits no longer
        };
        Ok(DeviceReply { took: began.elapsed(), node: core.node.clone(), ..reply })
    })
}

/// Publishes a message of the broker itself, before this returns. The future ends when the message is
/// stored and its subscribers have room.
pub(crate) fn publish_own(
    shard: &SharedShard,
    message: &mqtt::Message,
) -> impl Future<Output = ()> + use<> {
    let mut shard = shard.borrow_mut();
    let now = shard.core.clock.now();
    let publication = message.publication();
    let (stored, is_stored) = oneshot::channel();
    shard.publish_and_retain(&publication, None, now);
    shard.tell_when_stored(stored);
    shard.flush();
    // The message is published; a caller that waits for the answer publishes the next one when
    // there is room.
    let full = shard.full_targets(&publication);
    let core = Arc::clone(&shard.core);
    async move {
        let _ = is_stored.await;
        for place in full {
            while core.waits.is_waited_for(place) {
                sleep(LOOK_EVERY).await;
            }
        }
    }
}

impl Core {
    /// Checks that a message is within the limits.
    fn check_message(&self, message: &mqtt::Message) -> Result<(), ControlError> {
        if !self.allows_topic(message.topic()) {
            return Err(ControlError::TopicOverLimits);
        }
        if message.size() > self.limits_now().packet_bytes_max as usize {
            return Err(ControlError::MessageTooLarge);
        }
        Ok(())
    }
}
