//! What time brings: keep-alive deadlines, delayed Wills, sessions that expire, publishers that have
//! waited long enough.

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
        while self.has_begun
            && let Some((at, slot)) = self.timers.first().copied()
            && at <= now.millis()
        {
            self.timers.pop_first();
            if let Some(found) = self.slot_mut(slot) {
                found.timer_at = None;
            }
            self.timer_due(slot, now);
        }
        self.lose_patience(now);
        self.apply_again();
        self.feed_starved();
        self.flush();
    }
}
