//! Messages for callers that look at them without a client.

use std::sync::Arc;

use futures_util::stream::unfold;

use crate::{
    control::{ControlError, HeardMessage, HeardMessages, ListenTo},
    mqtt::validate_filter,
    shard::{Core, subscription::Subscription},
};

/// Subscribes to the messages that a caller wants to look at.
pub(super) fn listen(core: &Arc<Core>, request: &ListenTo) -> Result<HeardMessages, ControlError> {
    let parts = validate_filter(&request.filter).map_err(|_| ControlError::Unavailable)?;
    if !core.allows_topic(&request.filter) {
        return Err(ControlError::TopicOverLimits);
    }
    let subscription = Subscription::tap(core, parts, request.qos, request.with_retained);
    let heard = unfold(subscription, async |mut subscription| {
        let received = subscription.next().await?;
        let mut heard = HeardMessage::new(received.message, received.qos, received.retain);
        heard.missed = subscription.take_missed();
        Some((heard, subscription))
    });
    Ok(Box::pin(heard))
}
