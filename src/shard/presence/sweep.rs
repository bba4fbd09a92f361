//! Work at certain times: Keep Alive deadlines, delayed Wills, sessions that expire, publishers
//! that have waited long enough.

use crate::{
    mqtt::Timestamp,
    router::ShardNumber,
    shard::{Shard, doors::ToConnection, turn::Turn},
};

impl Shard {
    /// Tells every connection whose deadline has passed, and does the due work of offline sessions.
    pub(crate) fn sweep(&mut self, now: Timestamp) {
        let passed = self.deadlines.begin_sweep(now);
        self.tell_expired(now);
        // Before the sessions of all shards are restored, a Will would miss subscribers.
        while self.lifecycle.has_begun()
            && let Some(slot) = self.deadlines.take_due(now)
        {
            // `timer_due` sets the next one.
            if let Some(found) = self.slot_mut(slot) {
                found.timer.has_fired();
            }
            self.timer_due(slot, now);
        }
        // Work for the whole broker is done by one shard.
        if self.lifecycle.has_begun() && self.number == ShardNumber(0) {
            self.remove_expired_retained(now);
            self.core.records.remove_expired(now);
            self.core.traces.expire(now);
            self.core.hand_over_audit_if_due(now);
            self.core.history.write_some(self.core.history_limits(), now);
            self.core.metrics.sample_rates(now.millis());
        }
        // After the timers: a subscriber that has just left is waited for no longer.
        self.lose_patience(passed, now);
        self.end_dropping(now);
        self.drop_traffic_counts(now);
        self.publish_system(now);
        self.forget_receipts(now);
        self.apply_again();
        self.resume_chores();
        self.feed_starved();
        // Everything above may have noted changes; they go to the store together.
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
        for slot in self.deadlines.expired(now) {
            if let Some(connected) = self.slots.get(slot).and_then(|s| s.connected.as_ref()) {
                // Sent once for each expiry; the next sweep asks again if the connection is still
                // there.
                connected.door.send(ToConnection::KeepAliveExpired);
            }
        }
    }
}
