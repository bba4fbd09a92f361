//! Messages that callers publish.

use actix::{Handler, ResponseFuture};
use tokio::sync::oneshot;

use super::Registry;
use crate::{
    actors::messages::PublishMessage,
    control::{ControlError, DeviceReply, PublishRequest, Published, RequestReply},
    shard::calls::publishing::{self, WhileAwaited},
};

impl Handler<PublishMessage> for Registry {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: PublishMessage, _: &mut Self::Context) -> Self::Result {
        publishing::publish_own(&self.shard, message.message)
    }
}

impl Handler<WhileAwaited<PublishRequest>> for Registry {
    type Result = ResponseFuture<Result<Published, ControlError>>;

    fn handle(
        &mut self,
        message: WhileAwaited<PublishRequest>,
        _: &mut Self::Context,
    ) -> Self::Result {
        publishing::publish(&self.shard, message)
    }
}

impl Handler<WhileAwaited<RequestReply>> for Registry {
    type Result = ResponseFuture<Result<DeviceReply, ControlError>>;

    fn handle(
        &mut self,
        request: WhileAwaited<RequestReply>,
        _: &mut Self::Context,
    ) -> Self::Result {
        publishing::request(&self.shard, request)
    }
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

/// Waits for an answer as long as it may take: a sender of the request alone does not tell when it leaves.
async fn to_the_end<T>(answer: impl Future<Output = T>, waits: oneshot::Sender<()>) -> T {
    let answer = answer.await;
    drop(waits);
    answer
}
