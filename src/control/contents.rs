//! Questions about what a session contains: its subscriptions, and the messages that wait in its
//! queue.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::mqtt::{Message, PublishProperties, QoS, RetainHandling};

/// Asks for a page of a client's subscriptions, ordered by the bytes of the Topic Filter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListSubscriptions {
    /// The client.
    pub client_id: String,
    /// The page has subscriptions behind this Topic Filter: [`SubscriptionPage::next`] of the page
    /// before.
    pub after: Option<Arc<str>>,
    /// Maximum number of subscriptions of the page.
    pub limit: usize,
}

impl ListSubscriptions {
    /// Returns the question for the first page.
    pub fn new(client_id: impl Into<String>, limit: usize) -> Self {
        Self { client_id: client_id.into(), after: None, limit }
    }

    /// Returns the question for the page behind this Topic Filter.
    #[must_use]
    pub fn after(mut self, filter: impl Into<Arc<str>>) -> Self {
        self.after = Some(filter.into());
        self
    }
}

/// A page of a client's subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionPage {
    /// The subscriptions, in order.
    pub subscriptions: Vec<SubscriptionView>,
    /// The Topic Filter behind which the list goes on, if more follows.
    pub next: Option<Arc<str>>,
}

impl SubscriptionPage {
    /// Returns a page.
    #[must_use]
    pub const fn new(subscriptions: Vec<SubscriptionView>, next: Option<Arc<str>>) -> Self {
        Self { subscriptions, next }
    }
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionView {
    /// Topic Filter, including `$share/…`.
    pub filter: Arc<str>,
    /// Maximum QoS.
    pub qos: QoS,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
    /// Subscription Identifier.
    pub identifier: Option<u32>,
}

impl SubscriptionView {
    /// Returns a subscription without options.
    pub fn new(filter: impl Into<Arc<str>>, qos: QoS) -> Self {
        Self {
            filter: filter.into(),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::default(),
            identifier: None,
        }
    }
}

/// Asks for a page of the messages that wait for a client, in the order in which they will be sent.
/// Messages of a durable session that are not stored come behind the others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListQueue {
    /// The client.
    pub client_id: String,
    /// The page has messages behind this place: [`QueuePage::next`] of the page before.
    pub after: Option<QueuePosition>,
    /// Maximum number of messages of the page. A page with large payloads has fewer.
    pub limit: usize,
    /// Whether the page has the payloads.
    pub has_payloads: bool,
}

impl ListQueue {
    /// Returns the question for the first page, without payloads.
    pub fn new(client_id: impl Into<String>, limit: usize) -> Self {
        Self { client_id: client_id.into(), after: None, limit, has_payloads: false }
    }

    /// Returns the question for the page behind this place.
    #[must_use]
    pub const fn after(mut self, position: QueuePosition) -> Self {
        self.after = Some(position);
        self
    }

    /// Returns the question for a page with payloads.
    #[must_use]
    pub const fn with_payloads(mut self) -> Self {
        self.has_payloads = true;
        self
    }
}

/// A place in a queue, which stays the same while messages come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum QueuePosition {
    /// A stored message, by its place in the store.
    Stored(u64),
    /// A message in memory alone, by the number of messages that were ahead of it since the session
    /// began.
    InMemory(u64),
}

/// A page of the messages that wait for a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueuePage {
    /// The messages, in order.
    pub messages: Vec<WaitingMessage>,
    /// The place behind which the list goes on, if more follows.
    pub next: Option<QueuePosition>,
}

impl QueuePage {
    /// Returns a page.
    #[must_use]
    pub const fn new(messages: Vec<WaitingMessage>, next: Option<QueuePosition>) -> Self {
        Self { messages, next }
    }
}

/// A message that waits for a client.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingMessage {
    /// Topic Name.
    pub topic: Arc<str>,
    /// The QoS to send it with.
    pub qos: QoS,
    /// The RETAIN flag to send it with.
    pub retain: bool,
    /// Bytes of the payload.
    pub payload_bytes: usize,
    /// The payload, if it was asked for.
    pub payload: Option<Bytes>,
    /// The properties, if the payload was asked for.
    pub properties: Option<MessageProperties>,
    /// When the message expires, in milliseconds since the Unix epoch.
    pub expires_at_millis: Option<u64>,
    /// When the broker received the message, in milliseconds since the Unix epoch; `None` if an
    /// earlier version has stored it.
    pub received_at_millis: Option<u64>,
    /// The time since then, in milliseconds.
    pub age_millis: Option<u64>,
}

impl fmt::Debug for WaitingMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitingMessage")
            .field("topic", &self.topic)
            .field("qos", &self.qos)
            .field("payload_bytes", &self.payload_bytes)
            .finish_non_exhaustive()
    }
}

impl WaitingMessage {
    /// Returns a message of which nothing else is known.
    pub fn new(topic: impl Into<Arc<str>>, qos: QoS, payload_bytes: usize) -> Self {
        Self {
            topic: topic.into(),
            qos,
            retain: false,
            payload_bytes,
            payload: None,
            properties: None,
            expires_at_millis: None,
            received_at_millis: None,
            age_millis: None,
        }
    }
}

/// The properties of a message that its publisher has chosen. Before MQTT 5.0 there are none.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageProperties {
    /// Response Topic.
    pub response_topic: Option<Box<str>>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
    /// Content Type.
    pub content_type: Option<Box<str>>,
    /// Whether the payload is UTF-8 according to the publisher.
    pub is_utf8: bool,
    /// User Properties, in their order.
    pub user_properties: Vec<(Box<str>, Box<str>)>,
}

impl MessageProperties {
    /// Returns those of a message.
    pub(crate) fn of(message: &Message) -> Self {
        let publication = message.publication();
        let found = PublishProperties::decode_forwarded(publication.properties);
        let user_properties = found.user_properties.iter();
        Self {
            response_topic: found.response_topic.map(Into::into),
            correlation_data: found.correlation_data.map(Bytes::copy_from_slice),
            content_type: found.content_type.map(Into::into),
            is_utf8: found.payload_format_indicator == Some(true),
            user_properties: user_properties.map(|(k, v)| (k.into(), v.into())).collect(),
        }
    }

    /// Returns the bytes of their texts and of Correlation Data.
    pub(crate) fn bytes(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let pairs = self.user_properties.iter().map(|(key, value)| key.len() + value.len());
        let data = self.correlation_data.as_ref().map_or(0, Bytes::len);
        text(&self.response_topic) + text(&self.content_type) + data + pairs.sum::<usize>()
    }
}

/// Without their content, which belongs to publishers.
impl fmt::Debug for MessageProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageProperties").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

/// Drops the messages that wait for a client now. Messages in flight stay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClearQueue {
    /// The client.
    pub client_id: String,
}

impl ClearQueue {
    /// Returns the request.
    pub fn new(client_id: impl Into<String>) -> Self {
        Self { client_id: client_id.into() }
    }
}
