//! The part of a session that begins with a new connection, and its notes for the store.

use crate::{
    journal::Change,
    shard::{
        Shard,
        connect::{AcceptedWill, OfBridge},
        presence::settings::LiveSettings,
    },
};

impl Shard {
    /// Applies the Will, the settings and the Session Expiry Interval of a new connection to the session,
    /// and notes them for the store.
    pub(super) fn begin_session(
        &mut self,
        slot: u32,
        will: Option<AcceptedWill>,
        (settings, of_bridge): (Option<&LiveSettings>, Option<OfBridge>),
        expiry_secs: u32,
    ) {
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        found.take_queue_limits(settings);
        found.take_limits_of_bridge(&self.core.bridge_queues);
        found.session.set_expiry_interval_secs(expiry_secs);
        found.lasting.set(u64::from(expiry_secs > 0));
        found.will = will.map(Box::new);
        // A session that ends with its connection needs no record.
        if expiry_secs > 0 {
            self.make_durable(slot);
        }
        // The other broker has lost its session: it may use each Packet Identifier for a new QoS 2 message.
        if of_bridge.is_some_and(|bridge| bridge.forgets_incoming)
            && let Some(found) = self.slots.get_mut(slot as usize)
        {
            found.session.forget_accepted();
        }
        self.note_session(slot, true);
        self.note_will(slot);
    }

    /// Makes a session durable, if it is not.
    fn make_durable(&mut self, slot: u32) {
        let (Some(keeper), Some(journal)) = (&self.core.keeper, self.journal.clone()) else {
            return;
        };
        let number = keeper.next_session();
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        if found.session.number().is_none() {
            journal.note(Change::PutSession(
                number,
                Box::new(found.record(true, &*self.core.authorizer)),
            ));
            found.session.keep(number, journal, slot);
        }
    }
}
