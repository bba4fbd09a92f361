//! Subscriptions that a caller changes on behalf of a connected client.
//!
//! The rules and limits of the client apply, as if it had sent SUBSCRIBE or UNSUBSCRIBE. It gets no
//! SUBACK.

use tokio::sync::oneshot;

use crate::{
    control::{ControlError, SubscriptionChange},
    mqtt::{ReasonCode, RetainHandling, SubscribeFilter, SubscriptionOptions, Timestamp},
    shard::{Shard, doors::ChangedSubscriptions, turn::Turn},
};

impl Shard {
    /// Changes subscriptions of a connection; returns a Reason Code for each change.
    ///
    /// # Errors
    /// The client is not online.
    pub(crate) fn change_subscriptions(
        &mut self,
        (slot, link): (u32, u64),
        changes: &[SubscriptionChange],
        now: Timestamp,
    ) -> Result<ChangedSubscriptions, ControlError> {
        // The connection may have been replaced since the call reached it.
        self.linked(slot, link).filter(|found| found.is_online()).ok_or(ControlError::NotOnline)?;
        let mut turn = Turn::of_read(now);
        let reasons = changes.iter().map(|change| match change {
            SubscriptionChange::Subscribe(filter, options) => {
                self.subscribe_for(slot, filter, *options, &mut turn)
            }
            SubscriptionChange::Unsubscribe(filter) => self.unsubscribe_one(slot, filter, now),
        });
        // Collected here, because the iterator is lazy and the changes must be made before the flush.
        let reasons = reasons.collect();
        // The caller waits outside of the shard until the changes are stored.
        let (stored, is_stored) = oneshot::channel();
        self.tell_when_stored(stored);
        self.flush();
        Ok((reasons, is_stored))
    }

    fn subscribe_for(
        &mut self,
        slot: u32,
        filter: &str,
        options: SubscriptionOptions,
        turn: &mut Turn<'_>,
    ) -> ReasonCode {
        let asked = SubscribeFilter { filter, options };
        let (reason, existed) = self.subscribe_one(slot, &asked, None);
        if reason.is_failure() {
            return reason;
        }
        self.announce_subscribed(slot, filter, options.qos, turn.now);
        // As for a SUBSCRIBE of the client. [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
        let sends_retained = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => !existed,
            RetainHandling::DoNotSend => false,
        };
        if sends_retained {
            self.send_retained(slot, &asked, None, turn);
        }
        // The new member may take what waits at absent ones.
        self.seek_backlog(slot, filter);
        reason
    }
}
