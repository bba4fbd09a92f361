//! Queries about topics (receivers, retained messages) and about the node itself.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use super::{Caller, MessageProperties};
use crate::{limits::Limits, mqtt::QoS};

/// Selects subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribedTo {
    /// Those that a message on this topic matches.
    Topic(String),
    /// Those with this Topic Filter, including `$share/…`.
    Filter(String),
}

/// Asks which clients have these subscriptions, ordered by the bytes of the Client Identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FindReceivers {
    /// Which subscriptions.
    pub subscribed_to: SubscribedTo,
    /// The page has clients behind this identifier: [`ReceiverPage::next`] of the page before.
    pub after: Option<Arc<str>>,
    /// Maximum number of clients of the page.
    pub limit: usize,
    /// Restricts the page to clients that this caller may observe; `None` means no restriction.
    pub caller: Option<Caller>,
}

impl FindReceivers {
    /// Returns the question for the first page.
    #[must_use]
    pub const fn new(subscribed_to: SubscribedTo, limit: usize) -> Self {
        Self { subscribed_to, after: None, limit, caller: None }
    }

    /// Returns the question for the page behind this Client Identifier.
    #[must_use]
    pub fn after(mut self, client_id: impl Into<Arc<str>>) -> Self {
        self.after = Some(client_id.into());
        self
    }

    /// Returns the question restricted to clients that this caller may observe.
    #[must_use]
    pub fn by(mut self, caller: Caller) -> Self {
        self.caller = Some(caller);
        self
    }
}

/// A page of clients with subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiverPage {
    /// The clients, in order.
    pub receivers: Vec<TopicReceiver>,
    /// The identifier behind which the list goes on, if more follows.
    pub next: Option<Arc<str>>,
}

impl ReceiverPage {
    /// Returns a page.
    #[must_use]
    pub const fn new(receivers: Vec<TopicReceiver>, next: Option<Arc<str>>) -> Self {
        Self { receivers, next }
    }
}

/// A client with subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicReceiver {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// Whether it is connected.
    pub online: bool,
    /// The node that has the session.
    pub node: Arc<str>,
    /// The highest QoS of the subscriptions that are not shared; `None` if all are shared.
    pub qos: Option<QoS>,
    /// The shared subscriptions, one member of which receives the message.
    pub shares: Vec<Arc<str>>,
}

impl TopicReceiver {
    /// Returns a client without subscriptions.
    pub fn new(client_id: impl Into<Arc<str>>, online: bool, node: impl Into<Arc<str>>) -> Self {
        let (client_id, node) = (client_id.into(), node.into());
        Self { client_id, online, node, qos: None, shares: Vec::new() }
    }
}

/// Asks for a page of the retained messages that match a filter, in the order of their levels.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListRetained {
    /// Topic Filter without `$share/`.
    pub filter: String,
    /// The page has topics behind this one: [`RetainedPage::next`] of the page before.
    pub after: Option<Arc<str>>,
    /// Maximum number of messages of the page. A page with large payloads has fewer.
    pub limit: usize,
    /// Whether the page has the payloads.
    pub has_payloads: bool,
    /// Restricts the page to topics that this caller may subscribe to; `None` means no restriction.
    pub caller: Option<Caller>,
}

impl ListRetained {
    /// Returns the question for the first page, without payloads.
    pub fn new(filter: impl Into<String>, limit: usize) -> Self {
        let filter = filter.into();
        Self { filter, after: None, limit, has_payloads: false, caller: None }
    }

    /// Returns the question for the page behind this topic.
    #[must_use]
    pub fn after(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.after = Some(topic.into());
        self
    }

    /// Returns the question for a page with payloads.
    #[must_use]
    pub const fn with_payloads(mut self) -> Self {
        self.has_payloads = true;
        self
    }

    /// Returns the question restricted to topics that this caller may subscribe to.
    #[must_use]
    pub fn by(mut self, caller: Caller) -> Self {
        self.caller = Some(caller);
        self
    }
}

/// A page of retained messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetainedPage {
    /// The messages, in order.
    pub messages: Vec<RetainedView>,
    /// The topic behind which the list goes on, if more may follow.
    pub next: Option<Arc<str>>,
}

impl RetainedPage {
    /// Returns a page.
    #[must_use]
    pub const fn new(messages: Vec<RetainedView>, next: Option<Arc<str>>) -> Self {
        Self { messages, next }
    }
}

/// A retained message.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetainedView {
    /// Topic Name.
    pub topic: Arc<str>,
    /// The QoS that it was published with.
    pub qos: QoS,
    /// Bytes of the payload.
    pub payload_bytes: usize,
    /// The payload, if it was asked for.
    pub payload: Option<Bytes>,
    /// The properties, if the payload was asked for.
    pub properties: Option<MessageProperties>,
    /// When the message expires, in milliseconds since the Unix epoch.
    pub expires_at_millis: Option<u64>,
}

impl fmt::Debug for RetainedView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetainedView")
            .field("topic", &self.topic)
            .field("qos", &self.qos)
            .field("payload_bytes", &self.payload_bytes)
            .finish_non_exhaustive()
    }
}

impl RetainedView {
    /// Returns a message of which nothing else is known.
    pub fn new(topic: impl Into<Arc<str>>, qos: QoS, payload_bytes: usize) -> Self {
        let topic = topic.into();
        let (payload, properties, expires_at_millis) = (None, None, None);
        Self { topic, qos, payload_bytes, payload, properties, expires_at_millis }
    }
}

/// Removes a retained message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClearRetained {
    /// Its topic.
    pub topic: String,
}

impl ClearRetained {
    /// Returns the request.
    pub fn new(topic: impl Into<String>) -> Self {
        Self { topic: topic.into() }
    }
}

/// A node of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeView {
    /// Its name.
    pub node: Arc<str>,
    /// Version of the broker.
    pub version: &'static str,
    /// When it started, in milliseconds since the Unix epoch.
    pub started_at_millis: u64,
    /// The time now, in milliseconds since the Unix epoch.
    pub now_millis: u64,
    /// Number of shards.
    pub shards: usize,
    /// Number of connections.
    pub connections: usize,
    /// Number of sessions, with and without a connection.
    pub sessions: usize,
    /// The URLs of the MQTT listeners.
    pub listeners: Vec<Arc<str>>,
    /// The limits in force.
    pub limits: Limits,
}

impl NodeView {
    /// Returns a node of which nothing else is known.
    pub fn new(node: impl Into<Arc<str>>, limits: Limits) -> Self {
        Self {
            node: node.into(),
            version: env!("CARGO_PKG_VERSION"),
            started_at_millis: 0,
            now_millis: 0,
            shards: 0,
            connections: 0,
            sessions: 0,
            listeners: Vec::new(),
            limits,
        }
    }
}
