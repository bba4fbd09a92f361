//! Shows the contents of a session to callers, and clears its queue.

use super::{Session, WaitingInMemory};
use crate::journal::QueuePlace;

impl Session {
    /// Returns the messages that wait in memory, from a position on. More may wait in the store,
    /// from [`Session::unread_from`] on.
    pub fn waiting_from(&self, position: u64) -> impl Iterator<Item = WaitingInMemory<'_>> {
        self.outgoing.queue().waiting_from(position)
    }

    /// Returns whether a message that the store may still have has left the queue.
    #[must_use]
    pub fn was_taken_out(&self, place: QueuePlace) -> bool {
        let keeping = self.outgoing.queue().keeping.as_ref();
        keeping.is_some_and(|keeping| keeping.was_taken_out(place))
    }

    /// Drops at most this many of the oldest messages that wait in memory; returns how many.
    pub fn clear_some(&mut self, messages_max: usize) -> usize {
        self.outgoing.queue_mut().clear_some(messages_max)
    }
}
