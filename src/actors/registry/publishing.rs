//! Messages that callers publish.

use std::future::ready;

use actix::{Handler, ResponseFuture};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::Registry;
use crate::{
    actors::messages::WhileAwaited,
    control::{ControlError, DeviceReply, PublishRequest, Published, REPLY_WAIT_MAX, RequestReply},
    mqtt,
    shard::wait_for_deliveries,
};

impl Handler<WhileAwaited<PublishRequest>> for Registry {
    type Result = ResponseFuture<Result<Published, ControlError>>;

    fn handle(
        &mut self,
        message: WhileAwaited<PublishRequest>,
        _: &mut Self::Context,
    ) -> Self::Result {
        let WhileAwaited { request: message, caller } = message;
        let now = self.core.clock.now();
        if let Err(error) = self.check(&message.message) {
            return Box::pin(ready(Err(error)));
        }
        let wait = message.wait;
        let mut shard = self.shard.borrow_mut();
        let published = shard.publish_for_caller(message, now);
        let (stored, is_stored) = oneshot::channel();
        shard.tell_when_stored(stored);
        shard.flush();
        let (shard, node) = (self.shard.clone(), self.core.node.clone());
        Box::pin(async move {
            let published = published?;
            let Some(wait) = wait else {
                let _ = is_stored.await;
                return Ok(Published::new(node, published.matched));
            };
            Ok(wait_for_deliveries(&shard, published, wait, is_stored, caller).await)
        })
    }
}

impl Handler<WhileAwaited<RequestReply>> for Registry {
    type Result = ResponseFuture<Result<DeviceReply, ControlError>>;

    fn handle(
        &mut self,
        request: WhileAwaited<RequestReply>,
        _: &mut Self::Context,
    ) -> Self::Result {
        let WhileAwaited { request, caller } = request;
        let (began, now) = (Instant::now(), self.core.clock.now());
        // Before the request is published, because the reply may come immediately.
        let awaited = self.check(&request.message).and_then(|()| self.core.await_reply(&request));
        let mut awaited = match awaited {
            Ok(awaited) => awaited,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        let RequestReply { message, by, time_max, .. } = request;
        let mut publish = PublishRequest::new(message);
        publish.by = by;
        let mut shard = self.shard.borrow_mut();
        let published = shard.publish_for_caller(publish, now);
        shard.flush();
        let node = self.core.node.clone();
        Box::pin(async move {
            if published?.matched == 0 {
                return Err(ControlError::NoSubscriber);
            }
            let reply = timeout(time_max.min(REPLY_WAIT_MAX), awaited.reply());
            let reply = tokio::select! {
                reply = reply => reply.map_err(|_| ControlError::Timeout)??,
                _ = caller => return Err(ControlError::Timeout), // it waits no longer
            };
            Ok(DeviceReply { took: began.elapsed(), node, ..reply })
        })
    }
}

impl Registry {
    /// Checks that a message is within the limits.
    fn check(&self, message: &mqtt::Message) -> Result<(), ControlError> {
        if !self.core.allows_topic(message.topic()) {
            return Err(ControlError::TopicOverLimits);
        }
        if message.size() > self.core.limits_now().packet_bytes_max as usize {
            return Err(ControlError::MessageTooLarge);
        }
        Ok(())
    }
}

/// Waits for an answer as long as it may take: a sender of the request alone does not tell when it leaves.
async fn to_the_end<T>(answer: impl Future<Output = T>, waits: oneshot::Sender<()>) -> T {
    let answer = answer.await;
    drop(waits);
    answer
}

impl Handler<PublishRequest> for Registry {
    type Result = ResponseFuture<Result<Published, ControlError>>;

    fn handle(&mut self, message: PublishRequest, context: &mut Self::Context) -> Self::Result {
        let (message, waits) = WhileAwaited::new(message);
        Box::pin(to_the_end(self.handle(message, context), waits))
    }
}

impl Handler<RequestReply> for Registry {
    type Result = ResponseFuture<Result<DeviceReply, ControlError>>;

    fn handle(&mut self, request: RequestReply, context: &mut Self::Context) -> Self::Result {
        let (request, waits) = WhileAwaited::new(request);
        Box::pin(to_the_end(self.handle(request, context), waits))
    }
}
