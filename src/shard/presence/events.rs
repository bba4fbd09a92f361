//! Presence for hooks and on `$events/…`. The shard creates no event while no hook or subscriber
//! needs it.

use std::sync::Arc;

use crate::{
    hooks::{
        ClientConnected, ClientDisconnected, ClientKeepAliveChanged, DisconnectReason,
        EventSequence, SubscriptionChanged,
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

    /// Notes who has changed a Keep Alive, and announces it.
    pub(crate) fn announce_keep_alive(
        &mut self,
        slot: u32,
        (old_secs, new_secs): (u16, u16),
        by: Option<Arc<str>>,
        now: Timestamp,
    ) {
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

    /// Gives an event to the hooks, in their order, and publishes it to its subscribers.
    fn announce(
        &mut self,
        topic: &'static str,
        slot: u32,
        event: impl FnOnce(&Slot, &dyn EventSequence) -> Option<Event>,
        now: Timestamp,
    ) {
        let plan = self.plan(topic);
        if plan.is_empty() && self.core.hooks.is_empty() {
            return;
        }
        let numbers = &*self.core.event_numbers;
        let Some(event) = self.slot(slot).and_then(|found| event(found, numbers)) else { return };
        for hooks in &self.core.hooks {
            event.tell(&**hooks);
        }
        if plan.is_empty() {
            return;
        }
        let publication = Publication {
            topic,
            payload: &event.to_json(),
            qos: QoS::AtMostOnce,
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
