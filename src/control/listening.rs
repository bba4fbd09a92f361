//! The request of a caller that looks at messages, and what it gets.
//!
//! Does not know how messages are routed.

use std::{fmt, pin::Pin, sync::Arc};

use futures_util::Stream;

use crate::mqtt::{Message, QoS};

/// Asks for the messages on some topics, without a client. The permission of its caller has been checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenTo {
    /// The Topic Filter, without a share name.
    pub filter: Arc<str>,
    /// The maximum QoS of the messages.
    pub qos: QoS,
    /// Whether matching retained messages come first.
    pub with_retained: bool,
}

impl ListenTo {
    /// Returns the request for messages that match a filter.
    pub fn new(filter: impl Into<Arc<str>>) -> Self {
        Self { filter: filter.into(), qos: QoS::ExactlyOnce, with_retained: false }
    }

    /// Returns the request with the retained messages that match.
    #[must_use]
    pub const fn with_retained(mut self) -> Self {
        self.with_retained = true;
        self
    }
}

/// A message that a caller looks at.
#[derive(Clone)]
#[non_exhaustive]
pub struct HeardMessage {
    /// The message.
    pub message: Arc<Message>,
    /// Its QoS.
    pub qos: QoS,
    /// Its RETAIN flag; that of a retained message is set.
    pub retain: bool,
    /// The number of messages that were left out since the one before because the caller did not read.
    pub missed: u64,
}

impl HeardMessage {
    /// Returns a message before which none was missed.
    #[must_use]
    pub const fn new(message: Arc<Message>, qos: QoS, retain: bool) -> Self {
        Self { message, qos, retain, missed: 0 }
    }
}

impl fmt::Debug for HeardMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeardMessage").field("topic", &self.message.topic()).finish_non_exhaustive()
    }
}

/// The messages that a caller looks at. Dropping it ends the subscription.
pub type HeardMessages = Pin<Box<dyn Stream<Item = HeardMessage> + Send>>;
