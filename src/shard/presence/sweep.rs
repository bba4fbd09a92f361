//! Work at certain times: Keep Alive deadlines, delayed Wills, sessions that expire, publishers
//! that have waited long enough.

use std::time::Duration;

use crate::{
    mqtt::Timestamp,
    router::ShardNumber,
    shard::{Shard, doors::ToConnection, turn::Turn},
};

/// After this time without a sweep, the shard assumes that the whole process stood still.
pub(in crate::shard) const STOOD_STILL: Duration = Duration::from_millis(500);
/// The time that clients then get before deadlines count: the bytes that they have sent meanwhile
/// are in their sockets, and the runtime may not know yet.
const TO_BE_HEARD_MILLIS: u64 = 100;

impl Shard {
    /// Tells every connection whose deadline has passed, and does what is due for offline sessions.
    pub(crate) fn sweep(&mut self, now: Timestamp) {
        if now.since(self.swept_at) > STOOD_STILL {
            self.all_heard_at = now.plus_millis(TO_BE_HEARD_MILLIS);
        }
        if now >= self.all_heard_at {
            self.tell_expired(now);
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
        if self.has_begun && self.number == ShardNumber(0) {
            self.remove_expired_retained(now);
            self.core.records.remove_expired(now);
        }
        self.lose_patience(now);
        self.end_dropping(now);
        self.publish_system(now);
        self.apply_again();
        self.resume_chores();
        self.feed_starved();
        self.flush();
    }

    /// Publishes the `$SYS/…` values that have changed to their subscribers, if an update is due.
    fn publish_system(&mut self, now: Timestamp) {
        if self.number != ShardNumber(0) || !self.core.system.are_due(now) {
            return;
        }
        let core = self.core.clone();
        for message in core.system.renew(&core.metrics, now) {
            let publication = message.publication();
            let plan = self.plan(publication.topic);
            if !plan.is_empty() {
                self.route(&publication, &plan, None, &mut Turn::at(now));
            }
        }
    }

    /// Notes that bytes of an incomplete packet have arrived.
    pub(crate) fn note_partial(&mut self, slot: u32, bytes: usize) {
        let now = self.core.clock.now();
        if let Some(link) = self.slot_mut(slot).and_then(|found| found.session.link_mut()) {
            link.keep_alive_mut().bytes_received(bytes, now);
        }
    }

    fn tell_expired(&self, now: Timestamp) {
        for (at, deadline) in self.deadlines.iter().enumerate() {
            if *deadline <= now.millis()
                && let Some(connected) = self.slots.get(at).and_then(|s| s.connected.as_ref())
            {
                // Sent once for each expiry; the next sweep asks again if the connection is still
                // there.
                connected.door.send(ToConnection::KeepAliveExpired);
            }
        }
    }
}
