//! Shows the messages that wait in a queue to callers, and clears the queue.

use std::sync::Arc;

use super::Queue;
use crate::{
    journal::QueuePlace,
    mqtt::{Message, QoS},
};

/// A message that waits in memory.
#[derive(Clone, Copy, Debug)]
pub struct WaitingInMemory<'a> {
    /// The message.
    pub message: &'a Arc<Message>,
    /// The QoS to send it with.
    pub qos: QoS,
    /// The RETAIN flag to send it with.
    pub retain: bool,
    /// Its place in the store; `None` if it is not stored.
    pub stored_at: Option<QueuePlace>,
    /// The number of messages that were ahead of it since the session began.
    pub position: u64,
}

impl Queue {
    /// Returns the messages that wait in memory, from a position on.
    pub(in crate::session) fn waiting_from(
        &self,
        position: u64,
    ) -> impl Iterator<Item = WaitingInMemory<'_>> {
        // The position may be of a message that has left since.
        let passed = position.saturating_sub(self.taken) as usize;
        let first = self.taken + passed as u64;
        let numbered = (first..).zip(self.waiting.iter().skip(passed));
        numbered.map(|(position, envelope)| WaitingInMemory {
            message: &envelope.message,
            qos: envelope.qos,
            retain: envelope.retain,
            stored_at: envelope.is_stored().then_some(envelope.place),
            position,
        })
    }

    /// Drops at most this many of the oldest messages in memory; returns how many.
    pub(in crate::session) fn clear_some(&mut self, messages_max: usize) -> usize {
        let dropped = (0..messages_max).take_while(|_| self.drop_oldest()).count();
        self.settle_share();
        dropped
    }
}
