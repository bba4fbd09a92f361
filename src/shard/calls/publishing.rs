//! Calls that publish messages, and wait for what becomes of them.

use std::sync::Arc;

use futures_util::future::{LocalBoxFuture, ready};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use crate::{
    between::retained::RetainedOutcome,
    control::{ControlError, DeviceReply, PublishRequest, Published, REPLY_WAIT_MAX, RequestReply},
    mqtt,
    owners::Owner,
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
/// message is published before this returns, unless it must be retained in a cluster.
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
    let account = request.by.clone().map(|username| turn.core.account(Owner::User(username)));
    if let Some(written) = turn.begin_retained_call(&request.message, account.as_ref(), now) {
        let shard = shard.clone();
        return Box::pin(async move {
            let outcome = retained_outcome(written).await?;
            publish_written(&shard, request, caller, Some(outcome)).await
        });
    }
    drop(turn);
    publish_written(shard, request, caller, None)
}

/// Waits until the stream of retained messages has a message.
async fn retained_outcome(
    written: oneshot::Receiver<RetainedOutcome>,
) -> Result<RetainedOutcome, ControlError> {
    match written.await {
        Ok(outcome @ RetainedOutcome::Written(_)) => Ok(outcome),
        Ok(RetainedOutcome::TooLarge) => Err(ControlError::MessageTooLarge),
        Ok(RetainedOutcome::Unavailable) | Err(_) => Err(ControlError::Unavailable),
    }
}

/// Publishes a message that need not be written to the stream of retained messages any more.
fn publish_written(
    shard: &SharedShard,
    request: PublishRequest,
    caller: oneshot::Receiver<()>,
    retained: Option<RetainedOutcome>,
) -> LocalBoxFuture<'static, PublishOutcome> {
    let mut turn = shard.borrow_mut();
    let now = turn.core.clock.now();
    let wait = request.wait;
    if let Some(outcome) = retained {
        turn.set_retained_outcome(outcome);
    }
    let published = turn.publish_for_caller(request, now);
    turn.end_retained();
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
/// returns, unless it must be retained in a cluster.
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
    let account = publish.by.clone().map(|username| core.account(Owner::User(username)));
    let written = shard.borrow_mut().begin_retained_call(&publish.message, account.as_ref(), now);
    let published = match written {
        None => Ok(publish_request(shard, publish, None)),
        Some(written) => Err((shard.clone(), publish, written)),
    };
    Box::pin(async move {
        let matched = match published {
            Ok(matched) => matched?,
            Err((shard, publish, written)) => {
                let outcome = retained_outcome(written).await?;
                publish_request(&shard, publish, Some(outcome))?
            }
        };
        if matched == 0 {
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

/// Publishes a request that need not be written to the stream of retained messages any more; returns how many
/// sessions match.
fn publish_request(
    shard: &SharedShard,
    request: PublishRequest,
    retained: Option<RetainedOutcome>,
) -> Result<usize, ControlError> {
    let mut turn = shard.borrow_mut();
    let now = turn.core.clock.now();
    if let Some(outcome) = retained {
        turn.set_retained_outcome(outcome);
    }
    let published = turn.publish_for_caller(request, now);
    turn.end_retained();
    turn.flush();
    published.map(|published| published.matched)
}

/// Publishes a message of the broker itself, before this returns, unless it must be retained in a cluster. The
/// future ends when the message is stored and its subscribers have room.
pub(crate) fn publish_own(
    shard: &SharedShard,
    message: Arc<mqtt::Message>,
) -> LocalBoxFuture<'static, ()> {
    let mut turn = shard.borrow_mut();
    let now = turn.core.clock.now();
    match turn.begin_retained_call(&message, None, now) {
        Some(written) => {
            let shard = shard.clone();
            Box::pin(async move {
                // The application is not told: the message is delivered, and counted as not retained.
                let outcome = written.await.unwrap_or(RetainedOutcome::Unavailable);
                publish_own_written(&shard, &message, Some(outcome)).await;
            })
        }
        None => {
            drop(turn);
            Box::pin(publish_own_written(shard, &message, None))
        }
    }
}

/// Publishes a message of the broker that need not be written to the stream of retained messages any more.
fn publish_own_written(
    shard: &SharedShard,
    message: &mqtt::Message,
    retained: Option<RetainedOutcome>,
) -> impl Future<Output = ()> + use<> {
    let mut shard = shard.borrow_mut();
    let now = shard.core.clock.now();
    let publication = message.publication();
    let (stored, is_stored) = oneshot::channel();
    if let Some(outcome) = retained {
        shard.set_retained_outcome(outcome);
    }
    shard.publish_retained(&publication, None, now);
    shard.end_retained();
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
