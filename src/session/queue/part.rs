//! Examines a part of the waiting messages in memory, and takes some of them out of order.

use super::{Envelope, Queue};

/// Maximum number of messages examined at once.
const PART_MESSAGES: usize = 1024;

impl Queue {
    /// Returns how many messages wait in memory.
    pub(in crate::session) fn in_memory(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether the store has some of them too.
    pub(in crate::session) const fn holds_stored(&self) -> bool {
        self.in_both.messages > 0
    }

    /// Takes messages out of one part of the queue in memory. The part begins after the first
    /// `passed` messages; afterwards, `passed` also counts those of the part that stay. The part
    /// ends early if `is_taken` returns `None`.
    pub(in crate::session) fn take_part(
        &mut self,
        passed: &mut usize,
        mut is_taken: impl FnMut(&Envelope) -> Option<bool>,
    ) -> Vec<Envelope> {
        let before = (*passed).min(self.waiting.len());
        let part = (self.waiting.len() - before).min(PART_MESSAGES);
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        // Rotating moves the messages outside the part twice at most.
        self.waiting.rotate_left(before);
        for _ in 0..part {
            // The predicate may end the part before its size is reached.
            let Some(answer) = self.waiting.front().and_then(&mut is_taken) else { break };
            let into = if answer { &mut taken } else { &mut left };
            into.extend(self.waiting.pop_front());
        }
        *passed = before + left.len();
        // In reverse, because each one goes to the front.
        for envelope in left.into_iter().rev() {
            self.waiting.push_front(envelope);
        }
        self.waiting.rotate_right(before);
        for envelope in &taken {
            self.forget(envelope);
        }
        // Only a change costs an update of shared counters.
        if !taken.is_empty() {
            self.note_moved();
            self.settle_share();
        }
        taken
    }
}
