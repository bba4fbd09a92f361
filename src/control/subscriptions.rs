//! The request that changes the subscriptions of a connected client.
//!
//! Plain data. Does not know sessions.

use crate::mqtt::SubscriptionOptions;

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
