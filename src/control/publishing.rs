//! The request that publishes a message for a caller, and its result.
//!
//! Plain data. Does not know how messages are routed.

use std::sync::Arc;

use async_trait::async_trait;

use super::ControlError;
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
}

impl PublishRequest {
    /// Returns the request to publish this message.
    #[must_use]
    pub const fn new(message: Arc<Message>) -> Self {
        Self { message, by: None }
    }

    /// Returns the request with the user name of the caller.
    #[must_use]
    pub fn by(mut self, username: impl Into<Arc<str>>) -> Self {
        self.by = Some(username.into());
        self
    }
}

/// The result of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The number of sessions that match the topic, of absent clients too. A shared subscription
    /// counts once.
    pub matched: usize,
}

impl Published {
    /// Returns the result of a message that matched these many sessions.
    #[must_use]
    pub const fn new(matched: usize) -> Self {
        Self { matched }
    }
}

/// Publishes messages of callers. A part that is not implemented answers
/// [`ControlError::Unavailable`].
#[async_trait]
pub trait Publishing: Send + Sync + 'static {
    /// Publishes a message. Returns once it is stored, as far as sessions or retained messages need
    /// that.
    async fn publish(&self, _request: PublishRequest) -> Result<Published, ControlError> {
        Err(ControlError::Unavailable)
    }
}
