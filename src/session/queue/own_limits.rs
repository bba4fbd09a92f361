//! Limits of one client's queue that are below those of all queues.

use super::Queue;

/// Limits of one client's queue, which a caller has set.
#[derive(Clone, Copy, Debug)]
pub(in crate::session) struct OwnQueueLimits {
    pub(in crate::session) messages_max: usize,
    pub(in crate::session) bytes_max: usize,
}

impl Queue {
    /// Sets limits of its own; they count where they are below those of all queues.
    pub(in crate::session) fn set_own_limits(&mut self, own: Option<OwnQueueLimits>) {
        self.own = own.map(Box::new);
        self.note_half();
    }

    /// Returns how many messages may wait.
    pub(super) fn messages_max(&self) -> usize {
        let max = self.bounds().messages_max();
        self.own.as_ref().map_or(max, |own| own.messages_max.min(max))
    }

    /// Returns how many bytes of messages may wait.
    pub(super) fn bytes_max(&self) -> usize {
        let max = self.bounds().bytes_max();
        self.own.as_ref().map_or(max, |own| own.bytes_max.min(max))
    }
}
