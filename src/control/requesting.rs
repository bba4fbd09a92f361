//! The request that publishes a message for a device and waits for the reply.
//!
//! Plain data. Does not know how messages are routed.

use std::{fmt, sync::Arc, time::Duration};

use crate::mqtt::{Message, PublishProperties};

/// The longest time that a request can wait for its reply.
pub const REPLY_WAIT_MAX: Duration = Duration::from_secs(60);

/// Publishes a message with Response Topic and Correlation Data, and waits for the reply: the first
/// message on the Response Topic that has the same Correlation Data. The permission of its caller has
/// been checked.
///
/// A Response Topic of the broker is for one request. On any other, a message without Correlation Data
/// is a reply too, because clients before MQTT 5.0 cannot send it.
#[derive(Clone)]
#[non_exhaustive]
pub struct RequestReply {
    /// The message.
    pub message: Arc<Message>,
    /// Where the reply comes.
    pub response_topic: Box<str>,
    /// The Correlation Data that the reply must have.
    pub correlation_data: Box<[u8]>,
    /// The user name of the caller, whose account a retained message counts for; `None` for the broker
    /// itself.
    pub by: Option<Arc<str>>,
    /// The longest time to wait; at most [`REPLY_WAIT_MAX`].
    pub time_max: Duration,
}

impl RequestReply {
    /// Returns the request for the reply to this message; `None` if the message has no Response Topic or
    /// no Correlation Data.
    #[must_use]
    pub fn new(message: Arc<Message>, time_max: Duration) -> Option<Self> {
        let publication = message.publication();
        let properties = PublishProperties::decode_forwarded(publication.properties);
        let response_topic = properties.response_topic?.into();
        let correlation_data = properties.correlation_data?.into();
        let time_max = time_max.min(REPLY_WAIT_MAX);
        Some(Self { message, response_topic, correlation_data, by: None, time_max })
    }

    /// Returns the request with the user name of the caller.
    #[must_use]
    pub fn by(mut self, username: impl Into<Arc<str>>) -> Self {
        self.by = Some(username.into());
        self
    }
}

impl fmt::Debug for RequestReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, response_topic, time_max, .. } = self;
        f.debug_struct("RequestReply")
            .field("message", message)
            .field("response_topic", response_topic)
            .field("time_max", time_max)
            .finish_non_exhaustive()
    }
}

/// The reply to a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeviceReply {
    /// The message.
    pub message: Arc<Message>,
    /// The client that has published it; `None` if that was an application or a caller.
    pub client_id: Option<Arc<str>>,
    /// The node that has taken the reply.
    pub node: Arc<str>,
    /// The time from the request to its reply.
    pub took: Duration,
}

impl DeviceReply {
    /// Returns a reply that came immediately, and that this node has taken.
    pub fn new(
        node: impl Into<Arc<str>>,
        message: Arc<Message>,
        client_id: Option<Arc<str>>,
    ) -> Self {
        Self { message, client_id, node: node.into(), took: Duration::ZERO }
    }
}
