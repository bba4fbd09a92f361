//! Limits of one client's queue: below those of all queues, or in their place.

use super::Queue;

/// Limits of one client's queue.
#[derive(Clone, Copy, Debug)]
pub(in crate::session) struct OwnQueueLimits {
    /// Which a caller has set; they count where they are below the others.
    pub(in crate::session) messages_max: usize,
    pub(in crate::session) bytes_max: usize,
    /// In place of those of all queues.
    pub(in crate::session) messages_max_instead: Option<usize>,
    pub(in crate::session) bytes_max_instead: Option<usize>,
}

impl Default for OwnQueueLimits {
    fn default() -> Self {
        Self {
            messages_max: usize::MAX,
            bytes_max: usize::MAX,
            messages_max_instead: None,
            bytes_max_instead: None,
        }
    }
}

impl Queue {
    /// Sets limits of its own; they count where they are below those of all queues, or those in their
    /// place.
    pub(in crate::session) fn set_own_limits(&mut self, own: Option<OwnQueueLimits>) {
        let former = self.own.as_deref().copied().unwrap_or_default();
        let OwnQueueLimits { messages_max_instead, bytes_max_instead, .. } = former;
        let has_instead = messages_max_instead.is_some() || bytes_max_instead.is_some();
        self.own = (own.is_some() || has_instead).then(|| {
            let own = own.unwrap_or_default();
            Box::new(OwnQueueLimits { messages_max_instead, bytes_max_instead, ..own })
        });
        self.note_half();
    }

    /// Sets limits in place of those of all queues, or ends that.
    pub(in crate::session) fn replace_limits(
        &mut self,
        messages: Option<usize>,
        bytes: Option<usize>,
    ) {
        // A client without limits of its own pays for no allocation.
        if messages.is_some() || bytes.is_some() || self.own.is_some() {
            let own = self.own.get_or_insert_default();
            own.messages_max_instead = messages;
            own.bytes_max_instead = bytes;
            self.note_half();
        }
    }

    /// Returns how many messages may wait.
    pub(super) fn messages_max(&self) -> usize {
        let max = self.bounds().messages_max();
        let own = self.own.as_ref();
        own.map_or(max, |own| own.messages_max.min(own.messages_max_instead.unwrap_or(max)))
    }

    /// Returns how many bytes of messages may wait.
    pub(super) fn bytes_max(&self) -> usize {
        let max = self.bounds().bytes_max();
        let own = self.own.as_ref();
        own.map_or(max, |own| own.bytes_max.min(own.bytes_max_instead.unwrap_or(max)))
    }
}
