//! A part of what waits in memory is looked at, and some of it taken out of turn.

use super::{Envelope, Queue};

/// What is looked at at a time.
const PART_MESSAGES: usize = 1024;

impl Queue {
    /// How many messages wait in memory.
    pub(in crate::session) fn in_memory(&self) -> usize {
        self.waiting.len()
    }

    /// Whether some of them are in the store, too.
    pub(in crate::session) const fn holds_kept(&self) -> bool {
        self.kept.messages > 0
    }

    /// Takes some out of a part of what waits in memory, behind as many as `passed` says, which then
    /// counts those that stay. `is_taken` ends it early where it has no answer.
    pub(in crate::session) fn take_part(
        &mut self,
        passed: &mut usize,
        mut is_taken: impl FnMut(&Envelope) -> Option<bool>,
    ) -> Vec<Envelope> {
        let before = (*passed).min(self.waiting.len());
        let part = (self.waiting.len() - before).min(PART_MESSAGES);
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        // The part comes to the front, and what stays goes back, which moves the rest twice at most.
        self.waiting.rotate_left(before);
        for _ in 0..part {
            let Some(answer) = self.waiting.front().and_then(&mut is_taken) else { break };
            let into = if answer { &mut taken } else { &mut left };
            into.extend(self.waiting.pop_front());
        }
        *passed = before + left.len();
        for envelope in left.into_iter().rev() {
            self.waiting.push_front(envelope);
        }
        self.waiting.rotate_right(before);
        for envelope in &taken {
            self.forget(envelope);
        }
        if !taken.is_empty() {
            self.settle_share();
        }
        taken
    }
}
