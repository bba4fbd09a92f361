//! What time brings: keep-alive deadlines, delayed Wills, sessions that expire.

use std::cmp::Reverse;

use super::Shard;
use crate::{actors::messages::KeepAliveExpired, mqtt::Timestamp};

impl Shard {
    /// Tells every connection whose deadline has passed, and does what is due for those away.
    pub(in crate::actors) fn sweep(&mut self, now: Timestamp) {
        for (at, deadline) in self.deadlines.iter().enumerate() {
            if *deadline <= now.millis()
                && let Some(connected) = self.slots.get(at).and_then(|s| s.connected.as_ref())
            {
                // One for each that expires; asked again at the next sweep if it is still there.
                connected.address.do_send(KeepAliveExpired);
            }
        }
        while let Some(Reverse((at, slot, generation))) = self.timers.peek().copied() {
            if at > now.millis() {
                break;
            }
            self.timers.pop();
            self.timer_due(slot, generation, now);
        }
        self.flush_outboxes();
    }
}
