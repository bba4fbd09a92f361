//! Presence told to hooks and published on `$events/…`.

use std::sync::Arc;

use serde::Serialize;

use super::{Shard, depart::username};
use crate::{
    hooks::{
        ClientConnected, ClientDisconnected, ClientKeepAliveChanged, DisconnectReason,
        SubscriptionChanged,
    },
    mqtt::{Publication, QoS, Timestamp},
};

/// Topics that begin so are the broker's: no client may publish there.
pub(super) const EVENTS_PREFIX: &str = "$events/";

impl Shard {
    pub(super) fn announce_connected(&mut self, slot: u32, clean_start: bool, now: Timestamp) {
        let Some(found) = self.slot(slot) else { return };
        let Some(link) = found.session.link() else {
            return;
        };
        let event = ClientConnected {
            clientid: found.session.client_id().clone(),
            username: username(found),
            event: "client.connected",
            clean_start,
            connected_at: found.presence.connected_at.millis(),
            keepalive: link.keep_alive().interval_secs(),
            node: self.core.node.clone(),
            proto_ver: link.version().level(),
            peername: found.presence.peer.to_string().into(),
            timestamp: now.millis(),
            version: found.presence.version,
        };
        self.core.hooks.client_connected(&event);
        self.emit("$events/client_connected", &event, now);
    }

    pub(super) fn announce_disconnected(
        &mut self,
        slot: u32,
        reason: DisconnectReason,
        now: Timestamp,
    ) {
        let Some(found) = self.slot(slot) else { return };
        let event = ClientDisconnected {
            clientid: found.session.client_id().clone(),
            username: username(found),
            event: "client.disconnected",
            reason,
            node: self.core.node.clone(),
            peername: found.presence.peer.to_string().into(),
            connected_at: found.presence.connected_at.millis(),
            disconnected_at: now.millis(),
            timestamp: now.millis(),
            version: found.presence.version,
        };
        self.core.hooks.client_disconnected(&event);
        self.emit("$events/client_disconnected", &event, now);
    }

    pub(in crate::actors) fn announce_keep_alive(
        &mut self,
        slot: u32,
        (old, new): (u16, u16),
        by: Option<Arc<str>>,
        now: Timestamp,
    ) {
        let Some(found) = self.slot(slot) else { return };
        let event = ClientKeepAliveChanged {
            clientid: found.session.client_id().clone(),
            username: username(found),
            event: "client.keepalive_changed",
            old,
            new,
            by,
            timestamp: now.millis(),
            version: found.presence.version,
        };
        self.core.hooks.client_keep_alive_changed(&event);
        self.emit("$events/client_keepalive_changed", &event, now);
    }

    pub(super) fn announce_subscribed(
        &mut self,
        slot: u32,
        filter: &str,
        qos: QoS,
        now: Timestamp,
    ) {
        let event = self.subscription_changed(slot, "session.subscribed", (filter, qos), now);
        let Some(event) = event else { return };
        self.core.hooks.session_subscribed(&event);
        self.emit("$events/session_subscribed", &event, now);
    }

    pub(super) fn announce_unsubscribed(
        &mut self,
        slot: u32,
        filter: &str,
        qos: QoS,
        now: Timestamp,
    ) {
        let event = self.subscription_changed(slot, "session.unsubscribed", (filter, qos), now);
        let Some(event) = event else { return };
        self.core.hooks.session_unsubscribed(&event);
        self.emit("$events/session_unsubscribed", &event, now);
    }

    fn subscription_changed(
        &self,
        slot: u32,
        event: &'static str,
        (filter, qos): (&str, QoS),
        now: Timestamp,
    ) -> Option<SubscriptionChanged> {
        let found = self.slot(slot)?;
        Some(SubscriptionChanged {
            clientid: found.session.client_id().clone(),
            username: username(found),
            event,
            topic: filter.into(),
            qos: qos.number(),
            timestamp: now.millis(),
            version: found.presence.version,
        })
    }

    /// Publishes an event to whoever has subscribed; costs a look-up where nobody has.
    fn emit(&mut self, topic: &'static str, event: &impl Serialize, now: Timestamp) {
        let plan = self.plan(topic);
        if plan.is_empty() {
            return;
        }
        let Ok(payload) = serde_json::to_vec(event) else {
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
        self.route(&publication, &plan, None, now);
    }
}
