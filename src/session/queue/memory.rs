//! Counts what the messages of a session take in memory in the account of its owner, beside the
//! count for all sessions: messages that wait, those in flight, and retained ones that were fetched.
//!
//! The count changes in steps and falls late, so a short queue never changes the account, which the
//! shards share.

use std::sync::Arc;

use super::{IN_FLIGHT_BLOCK, Queue};
use crate::owners::{Account, Meter};

/// Messages and bytes are counted in steps of this size; an amount below a step is not counted.
const MESSAGES_STEP: usize = 16;
const BYTES_STEP: usize = 4 * 1024;
/// The count falls once it is this much too high, or to nothing.
const MESSAGES_SLACK: usize = 64;
const BYTES_SLACK: usize = 64 * 1024;

/// The amounts that a session has counted in the account of its owner.
#[derive(Debug, Default)]
pub(super) struct InMemory {
    account: Option<Arc<Account>>,
    messages: usize,
    bytes: usize,
}

impl InMemory {
    pub(super) const NOTHING: Self = Self { account: None, messages: 0, bytes: 0 };

    fn settle(&mut self, messages: usize, bytes: usize) {
        let Some(account) = &self.account else { return };
        settle(
            &account.queue_messages,
            &mut self.messages,
            messages,
            MESSAGES_STEP,
            MESSAGES_SLACK,
        );
        settle(&account.queue_bytes, &mut self.bytes, bytes, BYTES_STEP, BYTES_SLACK);
    }
}

impl Queue {
    /// Counts for this owner from now on.
    pub(in crate::session) fn set_owner(&mut self, account: &Arc<Account>) {
        self.in_memory.settle(0, 0);
        self.in_memory.account = Some(account.clone());
        self.settle_memory();
    }

    /// Updates the count in the owner's account. Bytes in flight count in blocks, as they do for all sessions, so
    /// that a message which is sent and acknowledged changes nothing here.
    pub(super) fn settle_memory(&mut self) {
        let in_flight = self.blocks_in_flight as usize * IN_FLIGHT_BLOCK;
        let bytes = self.bytes + self.bytes_fetched + in_flight;
        self.in_memory.settle(self.waiting.len(), bytes);
    }

    /// Ends the count.
    pub(super) fn leave_owner(&mut self) {
        self.in_memory.settle(0, 0);
        self.in_memory.account = None;
    }

    /// Returns whether the owner's share of the memory for all queues has room for a message.
    pub(super) fn has_owner_room(&self, size: usize) -> bool {
        self.has_owner_messages(self.waiting.len()) && self.has_owner_bytes(size)
    }

    /// Returns whether the owner's share has room for this many bytes.
    pub(super) fn has_owner_bytes(&self, more: usize) -> bool {
        self.has_bytes_beside_others(self.bytes + self.bytes_fetched + self.in_flight.bytes + more)
    }

    /// Returns whether the owner's share has room for a message when nothing waits in this queue.
    pub(super) fn has_owner_room_when_empty(&self, size: usize) -> bool {
        self.has_owner_messages(0)
            && self.has_bytes_beside_others(self.bytes_fetched + self.in_flight.bytes + size)
    }

    /// Returns whether the owner's share has room for one more message, with `own` messages of this queue.
    fn has_owner_messages(&self, own: usize) -> bool {
        let InMemory { account, messages, .. } = &self.in_memory;
        let account = account.as_ref();
        account.is_none_or(|account| has_room(&account.queue_messages, *messages, own + 1))
    }

    /// Returns whether the owner's share has room for `own` bytes of this queue, besides the owner's other queues.
    fn has_bytes_beside_others(&self, own: usize) -> bool {
        let InMemory { account, bytes, .. } = &self.in_memory;
        account.as_ref().is_none_or(|account| has_room(&account.queue_bytes, *bytes, own))
    }

    /// Notes that messages were dropped because of the owner's share of the memory.
    pub(super) fn note_displaced_in_memory(&self, messages: usize) {
        if let Some(account) = self.in_memory.account.as_ref().filter(|_| messages > 0) {
            account.note_displaced_in_memory(messages as u64);
        }
    }
}

/// Returns whether `amount` has room in place of what a queue has counted.
fn has_room(meter: &Meter, counted: usize, amount: usize) -> bool {
    let others = meter.used().saturating_sub(counted as u64);
    others.saturating_add(amount as u64) <= meter.max()
}

/// Moves the counted amount to the real one, in whole steps.
#[inline]
fn settle(meter: &Meter, counted: &mut usize, amount: usize, step: usize, slack: usize) {
    let wanted = amount - amount % step;
    if wanted > *counted {
        meter.force((wanted - *counted) as u64);
        *counted = wanted;
    } else if wanted < *counted && (wanted == 0 || wanted + slack <= *counted) {
        meter.give_back((*counted - wanted) as u64);
        *counted = wanted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_rises_in_steps_and_falls_late() {
        let meter = Meter::default();
        let mut counted = 0;
        for (amount, expected) in [
            (4_095, 0),
            (4_096, 4_096),
            (80_000, 77_824),
            (78_000, 77_824),
            (20_000, 77_824), // not low enough
            (13_000, 12_288),
            (4_095, 0),
        ] {
            settle(&meter, &mut counted, amount, BYTES_STEP, BYTES_SLACK);
            assert_eq!((counted, meter.used()), (expected, expected as u64), "{amount}");
        }
    }
}
