//! Presence for hooks and on `$events/…`. The shard creates no event while no hook or subscriber
//! needs it.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    hooks::{
        ClientConnected, ClientDisconnected, ClientKeepAliveChanged, DisconnectReason,
        EventSequence, Hooks, SubscriptionChanged,
    },
    mqtt::{Publication, QoS, Timestamp},
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
            Some(ClientConnected {
                clientid: found.session.client_id().clone(),
                username: username(found),
                event: "client.connected",
                clean_start,
                connected_at: found.presence.connected_at.millis(),
                keepalive: link.keep_alive().interval_secs(),
                node,
                proto_ver: link.version().level(),
                peername: found.presence.peer.to_string().into(),
                timestamp: now.millis(),
                version: found.presence.version,
                number: numbers.next(),
            })
        };
        self.announce("$events/client_connected", slot, event, Hooks::client_connected, now);
    }

    pub(in crate::shard) fn announce_disconnected(
        &mut self,
        slot: u32,
        reason: DisconnectReason,
        now: Timestamp,
    ) {
        let node = self.core.node.clone();
        let event = |found: &Slot, numbers: &dyn EventSequence| {
            Some(ClientDisconnected {
                clientid: found.session.client_id().clone(),
                username: username(found),
                event: "client.disconnected",
                reason,
                node,
                peername: found.presence.peer.to_string().into(),
                connected_at: found.presence.connected_at.millis(),
                disconnected_at: now.millis(),
                timestamp: now.millis(),
                version: found.presence.version,
                number: numbers.next(),
            })
        };
        self.announce("$events/client_disconnected", slot, event, Hooks::client_disconnected, now);
    }

    pub(crate) fn announce_keep_alive(
        &mut self,
        slot: u32,
        (old, new): (u16, u16),
        by: Option<Arc<str>>,
        now: Timestamp,
    ) {
        let event = |found: &Slot, numbers: &dyn EventSequence| {
            Some(ClientKeepAliveChanged {
                clientid: found.session.client_id().clone(),
                username: username(found),
                event: "client.keepalive_changed",
                old,
                new,
                by,
                timestamp: now.millis(),
                version: found.presence.version,
                number: numbers.next(),
            })
        };
        let topic = "$events/client_keepalive_changed";
        self.announce(topic, slot, event, Hooks::client_keep_alive_changed, now);
    }

    pub(in crate::shard) fn announce_subscribed(
        &mut self,
        slot: u32,
        filter: &str,
        qos: QoS,
        now: Timestamp,
    ) {
        let event = |found: &Slot, numbers: &dyn EventSequence| {
            Some(subscription_changed(found, "session.subscribed", filter, qos, now, numbers))
        };
        self.announce("$events/session_subscribed", slot, event, Hooks::session_subscribed, now);
    }

    pub(in crate::shard) fn announce_unsubscribed(
        &mut self,
        slot: u32,
        filter: &str,
        qos: QoS,
        now: Timestamp,
    ) {
        let event = |found: &Slot, numbers: &dyn EventSequence| {
            Some(subscription_changed(found, "session.unsubscribed", filter, qos, now, numbers))
        };
        let topic = "$events/session_unsubscribed";
        self.announce(topic, slot, event, Hooks::session_unsubscribed, now);
    }

    /// Gives an event to the hooks, and publishes it to its subscribers.
    fn announce<E: Serialize>(
        &mut self,
        topic: &'static str,
        slot: u32,
        event: impl FnOnce(&Slot, &dyn EventSequence) -> Option<E>,
        tell: impl FnOnce(&dyn Hooks, &E),
        now: Timestamp,
    ) {
        let plan = self.plan(topic);
        if plan.is_empty() && self.core.hooks.is_none() {
            return;
        }
        let numbers = &*self.core.event_numbers;
        let Some(event) = self.slot(slot).and_then(|found| event(found, numbers)) else { return };
        if let Some(hooks) = &self.core.hooks {
            tell(&**hooks, &event);
        }
        if plan.is_empty() {
            return;
        }
        let Ok(payload) = serde_json::to_vec(&event) else {
            return;
        };
        let publication = Publication {
            topic,
            payload: &payload,
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
    event: &'static str,
    filter: &str,
    qos: QoS,
    now: Timestamp,
    numbers: &dyn EventSequence,
) -> SubscriptionChanged {
    SubscriptionChanged {
        clientid: found.session.client_id().clone(),
        username: username(found),
        event,
        topic: filter.into(),
        qos: qos.number(),
        timestamp: now.millis(),
        version: found.presence.version,
        number: numbers.next(),
    }
}
