//! Whether a queue has room: within the limits of its client, of its owner, and of all.

use super::Queue;

impl Queue {
    /// Returns whether a message of `size` bytes has room without displacing another.
    pub(in crate::session) fn has_room(&self, size: usize) -> bool {
        self.has_room_of_its_own(size) && self.has_room_for_all(size)
    }

    pub(super) fn has_room_of_its_own(&self, size: usize) -> bool {
        self.len() < self.messages_max() && self.bytes() + size <= self.bytes_max()
    }

    /// Returns whether a message has room under the shared limits; for a durable session, those of
    /// its owner's share of the store.
    pub(super) fn has_room_for_all(&self, size: usize) -> bool {
        if self.keeping.is_some() { self.has_share(size) } else { self.has_room_in_all(size) }
    }

    pub(super) fn has_room_in_all(&self, size: usize) -> bool {
        self.usage.messages() < self.bounds().messages_in_all_max()
            && self.has_bytes_in_all(size)
            && self.has_owner_room(size)
    }

    /// Returns whether only the owner's share of the memory lacks room for a message.
    pub(super) fn lacks_owner_room_alone(&self, size: usize) -> bool {
        self.keeping.is_none() && self.has_room_of_its_own(size) && !self.has_owner_room(size)
    }

    /// Returns whether dropping this queue's messages can make enough room: the other queues keep
    /// theirs.
    pub(super) fn has_room_when_empty(&self, size: usize) -> bool {
        // A durable session is bounded by the store, where the memory of others takes no room.
        if self.keeping.is_some() {
            return size <= self.bytes_max();
        }
        let bytes = self.usage.bytes() + self.usage.bytes_in_flight();
        let others = bytes.saturating_sub(self.bytes);
        let other_messages = self.usage.messages().saturating_sub(self.waiting.len());
        size <= self.bytes_max()
            && others + size <= self.bounds().bytes_in_all_max()
            && other_messages < self.bounds().messages_in_all_max()
            && self.has_owner_room_when_empty(size)
    }

    pub(super) fn has_bytes_in_all(&self, more: usize) -> bool {
        let used = self.usage.bytes() + self.usage.bytes_in_flight();
        used + more <= self.bounds().bytes_in_all_max()
    }

    /// Returns whether the queue has reached this client's limit.
    pub(in crate::session) fn is_at_bound(&self) -> bool {
        self.len() >= self.messages_max() || self.bytes() >= self.bytes_max()
    }

    /// Returns whether a sixteenth of the client's queue limit is free.
    pub(in crate::session) fn has_drained(&self) -> bool {
        let below = |used: usize, max: usize| used <= max - max.div_ceil(16);
        below(self.len(), self.messages_max()) && below(self.bytes(), self.bytes_max())
    }
}
