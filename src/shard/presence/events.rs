//! Presence for hooks, for the feed and on `$events/…`. The shard creates no event while no hook,
//! follower or subscriber needs it.

use std::sync::Arc;

use crate::{
    hooks::{
        BrokerStarted, ClientConnected, ClientDisconnected, ClientKeepAliveChanged,
        DisconnectReason, EventSequence, SubscriptionChanged,
        json::{self, Event},
    },
    mqtt::{Publication, QoS, Timestamp},
    session::KeepAliveAuthor,
    shard::{Shard, Slot, presence::depart::username, turn::Turn},
};

impl Shard {
    pub(in crate::shard) fn announce_connected(
        &mut self,
        slot: u32,
        clean_start: bool,
        now: Timestamp,
    ) {
        let node = self.core.node.clone();
        // A closure, because the feed gives the number under its lock, and often nobody needs the event.
        let event = |found: &Slot, numbers: &dyn EventSequence| {
            let link = found.session.link()?;
            Some(Event::Connected(ClientConnected {
                client_id: found.session.client_id().clone(),
                username: username(found),
                clean_start,
                connected_at: found.presence.connected_at,
                keep_alive_secs: link.keep_alive().interval_secs(),
                node,
                protocol_version: link.version(),
                peer: found.presence.peer,
                at: now,
                version: found.presence.version,
                number: numbers.next(),
            }))
        };
        self.announce(json::CLIENT_CONNECTED, slot, event, now);
    }

    pub(in crate::shard) fn announce_disconnected(
        &mut self,
        slot: u32,
        reason: DisconnectReason,
        now: Timestamp,
    ) {
        let node = self.core.node.clone();
        // From the presence, not from the link, which the session has lost by now.
        let event = |found: &Slot, numbers: &dyn EventSequence| {
            Some(Event::Disconnected(ClientDisconnected {
                client_id: found.session.client_id().clone(),
                username: username(found),
                reason,
                node,
                peer: found.presence.peer,
                connected_at: found.presence.connected_at,
                at: now,
                version: found.presence.version,
                number: numbers.next(),
            }))
        };
        self.announce(json::CLIENT_DISCONNECTED, slot, event, now);
    }

    /// Notes the author of a change of a Keep Alive, and announces the change.
    pub(crate) fn announce_keep_alive(
        &mut self,
        slot: u32,
        (old_secs, new_secs): (u16, u16),
        by: Option<Arc<str>>,
        now: Timestamp,
    ) {
        // Noted even if nobody follows events: the status of a client shows the author.
        if let Some(link) = self.slot_mut(slot).and_then(|found| found.session.link_mut()) {
            link.note_keep_alive_change(KeepAliveAuthor { by: by.clone(), at: now });
        }
        let event = |found: &Slot, numbers: &dyn EventSequence| {
            Some(Event::KeepAliveChanged(ClientKeepAliveChanged {
                client_id: found.session.client_id().clone(),
                username: username(found),
                old_secs,
                new_secs,
                by,
                at: now,
                version: found.presence.version,
                number: numbers.next(),
            }))
        };
        self.announce(json::CLIENT_KEEP_ALIVE_CHANGED, slot, event, now);
    }

    pub(in crate::shard) fn announce_subscribed(
        &mut self,
        slot: u32,
        filter: &str,
        qos: QoS,
        now: Timestamp,
    ) {
        let event = |found: &Slot, numbers: &dyn EventSequence| {
            Some(Event::Subscribed(subscription_changed(found, filter, qos, now, numbers)))
        };
        self.announce(json::SESSION_SUBSCRIBED, slot, event, now);
    }

    pub(in crate::shard) fn announce_unsubscribed(
        &mut self,
        slot: u32,
        filter: &str,
        qos: QoS,
        now: Timestamp,
    ) {
        let event = |found: &Slot, numbers: &dyn EventSequence| {
            Some(Event::Unsubscribed(subscription_changed(found, filter, qos, now, numbers)))
        };
        self.announce(json::SESSION_UNSUBSCRIBED, slot, event, now);
    }

    /// Announces that the broker has started. Durable subscribers with QoS 1 receive it when they are
    /// back, because no client is connected yet.
    pub(crate) fn announce_started(&mut self, now: Timestamp) {
        let core = Arc::clone(&self.core);
        let event = |_: &Self, numbers: &dyn EventSequence| {
            Some(Event::Started(BrokerStarted {
                node: core.node.clone(),
                epoch: core.feed.id(0).epoch,
                at: now,
                number: numbers.next(),
            }))
        };
        self.announce_with(event, (json::BROKER_STARTED, QoS::AtLeastOnce), now);
    }

    fn announce(
        &mut self,
        topic: &'static str,
        slot: u32,
        event: impl FnOnce(&Slot, &dyn EventSequence) -> Option<Event>,
        now: Timestamp,
    ) {
        let event = |shard: &Self, numbers: &dyn EventSequence| event(shard.slot(slot)?, numbers);
        self.announce_any(event, topic, now);
    }

    pub(in crate::shard) fn announce_any(
        &mut self,
        event: impl FnOnce(&Self, &dyn EventSequence) -> Option<Event>,
        topic: &'static str,
        now: Timestamp,
    ) {
        self.announce_with(event, (topic, QoS::AtMostOnce), now);
    }

    /// Gives an event to the feed, then to the hooks in their order, and publishes it to its
    /// subscribers.
    fn announce_with(
        &mut self,
        event: impl FnOnce(&Self, &dyn EventSequence) -> Option<Event>,
        (topic, qos): (&'static str, QoS),
        now: Timestamp,
    ) {
        let plan = self.plan(topic);
        let core = Arc::clone(&self.core);
        // The normal case without a listener must not build the event.
        if plan.is_empty() && core.hooks.is_empty() && !core.feed.is_kept() {
            return;
        }
        // The number is given under the lock of the feed, so events of all shards have one order.
        let Some(event) = core.feed.announce(|numbers| event(self, numbers), now) else { return };
        if let Some(event) = event.event() {
            core.hooks.iter().for_each(|hooks| event.tell(&**hooks));
        }
        if plan.is_empty() {
            return;
        }
        // Not retained: a later subscriber asks for a snapshot, and presence of the past would mislead it.
        let publication = Publication {
            topic,
            payload: &event.json(),
            qos,
            retain: false,
            properties: &[],
            expires_at: None,
        };
        self.route(&publication, &plan, None, &mut Turn::at(now));
    }
}

fn subscription_changed(
    found: &Slot,
    filter: &str,
    qos: QoS,
    now: Timestamp,
    numbers: &dyn EventSequence,
) -> SubscriptionChanged {
    SubscriptionChanged {
        client_id: found.session.client_id().clone(),
        username: username(found),
        filter: filter.into(),
        qos,
        at: now,
        version: found.presence.version,
        number: numbers.next(),
    }
}
