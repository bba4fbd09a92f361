//! Messages that callers publish.

use actix::{Handler, ResponseFuture};
use tokio::sync::oneshot;

use super::Registry;
use crate::control::{ControlError, PublishRequest, Published};

impl Handler<PublishRequest> for Registry {
    type Result = ResponseFuture<Result<Published, ControlError>>;

    fn handle(&mut self, message: PublishRequest, _: &mut Self::Context) -> Self::Result {
        let now = self.core.clock.now();
        let publication = message.message.publication();
        if !self.core.allows_topic(publication.topic) {
            return Box::pin(std::future::ready(Err(ControlError::TopicOverLimits)));
        }
        if publication.size() > self.core.limits_now().packet_bytes_max as usize {
            return Box::pin(std::future::ready(Err(ControlError::MessageTooLarge)));
        }
        let mut shard = self.shard.borrow_mut();
        let published = shard.publish_for_caller(&publication, message.by, now);
        let (stored, is_stored) = oneshot::channel();
        shard.tell_when_stored(stored);
        shard.flush();
        Box::pin(async move {
            let matched = published?;
            let _ = is_stored.await;
            Ok(Published::new(matched))
        })
    }
}
