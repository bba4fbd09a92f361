//! The request that publishes a message for a caller, and its result.
//!
//! Plain data. Does not know how messages are routed.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{ControlError, DeviceReply, HeardMessages, ListenTo, RequestReply};
use crate::mqtt::Message;

/// Publishes a message. The permission of its caller has been checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PublishRequest {
    /// The message.
    pub message: Arc<Message>,
    /// The user name of the caller, whose account a retained message counts for; `None` for the broker
    /// itself.
    pub by: Option<Arc<str>>,
    /// The event that the answer waits for besides the store; `None`: for nothing.
    pub wait: Option<WaitForDeliveries>,
}

impl PublishRequest {
    /// Returns the request to publish this message.
    #[must_use]
    pub const fn new(message: Arc<Message>) -> Self {
        Self { message, by: None, wait: None }
    }

    /// Returns the request with the user name of the caller.
    #[must_use]
    pub fn by(mut self, username: impl Into<Arc<str>>) -> Self {
        self.by = Some(username.into());
        self
    }

    /// Returns the request with an answer that waits for the deliveries and counts them.
    #[must_use]
    pub const fn waiting(mut self, wait: WaitForDeliveries) -> Self {
        self.wait = Some(wait);
        self
    }
}

/// The longest time that a call can wait for deliveries.
pub const DELIVERY_WAIT_MAX: Duration = Duration::from_secs(60);

/// The event that the answer to a published message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitForDeliveries {
    /// How far each delivery must have come.
    pub stage: DeliveryStage,
    /// After this time the answer comes in any case; at most [`DELIVERY_WAIT_MAX`].
    pub time_max: Duration,
}

impl WaitForDeliveries {
    /// Returns a wait for a stage with this time limit.
    #[must_use]
    pub fn new(stage: DeliveryStage, time_max: Duration) -> Self {
        Self { stage, time_max: time_max.min(DELIVERY_WAIT_MAX) }
    }
}

/// How far a delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryStage {
    /// The store has the message for all sessions that are durable.
    Stored,
    /// The broker has sent the message to the client.
    Delivered,
    /// The client has acknowledged the message: by PUBACK, or with QoS 2 by PUBREC. A delivery with
    /// QoS 0 ends when it is sent.
    Acknowledged,
}

/// The outcomes of the deliveries of a message when the answer was made. A shared subscription
/// counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deliveries {
    /// Durable sessions for which the message is stored; of QoS 1 and 2 only.
    pub stored: usize,
    /// Sessions to whose clients the message was sent.
    pub delivered: usize,
    /// Sessions whose clients have acknowledged the message.
    pub acknowledged: usize,
    /// Sessions in whose queues the message waits: the client is absent, or cannot take more.
    pub queued: usize,
    /// Sessions that do not receive the message: it was too large, has expired or gave way to others,
    /// the client is absent and the QoS 0, or the session has ended.
    pub dropped: usize,
    /// Whether all deliveries reached the stage, or ended before it.
    pub is_complete: bool,
}

/// The result of a published message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The node that has published the message.
    pub node: Arc<str>,
    /// The number of sessions that match the topic, of absent clients too. A shared subscription
    /// counts once.
    pub matched: usize,
    /// The outcomes of the deliveries, if the request waited for them.
    pub deliveries: Option<Deliveries>,
}

impl Published {
    /// Returns the result of a message that this node has published, and that matched these many
    /// sessions.
    pub fn new(node: impl Into<Arc<str>>, matched: usize) -> Self {
        Self { node: node.into(), matched, deliveries: None }
    }

    /// Adds what has become of the deliveries.
    #[must_use]
    pub const fn with(mut self, deliveries: Deliveries) -> Self {
        self.deliveries = Some(deliveries);
        self
    }
}

/// Publishes messages of callers, and shows them messages. A part that is not implemented answers
/// [`ControlError::Unavailable`].
#[async_trait]
pub trait Publishing: Send + Sync + 'static {
    /// Publishes a message. Returns once it is stored, as far as sessions or retained messages need
    /// that.
    async fn publish(&self, _request: PublishRequest) -> Result<Published, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Publishes a message and waits for the reply. The answer is [`ControlError::NoSubscriber`] if
    /// no session matches its topic, and [`ControlError::Timeout`] without a reply in time.
    async fn request(&self, _request: RequestReply) -> Result<DeviceReply, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns the messages on some topics from then on. A caller that does not read misses some, and is
    /// told how many.
    fn listen(&self, _request: ListenTo) -> Result<HeardMessages, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns a Response Topic of the broker for one request, which cannot be guessed.
    fn new_response_topic(&self) -> String {
        String::new()
    }
}
