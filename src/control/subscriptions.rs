//! The request that changes the subscriptions of a connected client, and its result.
//!
//! Plain data. Does not know sessions.

use std::sync::Arc;

use crate::mqtt::{ReasonCode, SubscriptionOptions};

/// Subscribes and unsubscribes on behalf of a connected client. The rules of the client apply, and
/// the client is not told. Retained messages are sent as after a SUBSCRIBE.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChangeSubscriptions {
    /// The client.
    pub client_id: String,
    /// The changes, made in their order.
    pub changes: Vec<SubscriptionChange>,
}

impl ChangeSubscriptions {
    /// Returns the request to change the subscriptions of this client.
    pub fn new(client_id: impl Into<String>, changes: Vec<SubscriptionChange>) -> Self {
        Self { client_id: client_id.into(), changes }
    }
}

/// A change of one subscription.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SubscriptionChange {
    /// Adds a subscription, or replaces the one with the same Topic Filter.
    Subscribe(String, SubscriptionOptions),
    /// Removes the subscription with this Topic Filter.
    Unsubscribe(String),
}

impl SubscriptionChange {
    /// Returns the Topic Filter.
    #[must_use]
    pub fn filter(&self) -> &str {
        match self {
            Self::Subscribe(filter, _) | Self::Unsubscribe(filter) => filter,
        }
    }
}

/// The result of changed subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionsChanged {
    /// The node that has the connection.
    pub node: Arc<str>,
    /// A Reason Code for each change, in their order.
    pub reasons: Vec<ReasonCode>,
}

impl SubscriptionsChanged {
    /// Returns the result of changes that this node has made.
    pub fn new(node: impl Into<Arc<str>>, reasons: Vec<ReasonCode>) -> Self {
        Self { node: node.into(), reasons }
    }
}
