//! Events as the messages under `$events/…`: their topics and their JSON.
//!
//! The only place that knows the names of their fields, which are those of Tencent Cloud's client
//! events. Knows neither shards nor subscribers.

use std::net::SocketAddr;

use serde::Serialize;

use super::{
    BrokerStarted, ClientBanned, ClientConnected, ClientDisconnected, ClientKeepAliveChanged,
    ClientRefused, Hooks, SubscriptionChanged,
};
use crate::mqtt::Timestamp;

/// The topic of [`Event::Connected`].
pub(crate) const CLIENT_CONNECTED: &str = "$events/client_connected";
/// The topic of [`Event::Disconnected`].
pub(crate) const CLIENT_DISCONNECTED: &str = "$events/client_disconnected";
/// The topic of [`Event::KeepAliveChanged`].
pub(crate) const CLIENT_KEEP_ALIVE_CHANGED: &str = "$events/client_keepalive_changed";
/// The topic of [`Event::Subscribed`].
pub(crate) const SESSION_SUBSCRIBED: &str = "$events/session_subscribed";
/// The topic of [`Event::Unsubscribed`].
pub(crate) const SESSION_UNSUBSCRIBED: &str = "$events/session_unsubscribed";
/// The topic of [`Event::Refused`].
pub(crate) const CLIENT_REFUSED: &str = "$events/client_refused";
/// The topic of [`Event::Banned`].
pub(crate) const CLIENT_BANNED: &str = "$events/client_banned";
/// The topic of [`Event::Started`].
pub(crate) const BROKER_STARTED: &str = "$events/broker_started";

/// An event of any kind.
#[derive(Debug)]
pub(crate) enum Event {
    Connected(ClientConnected),
    Disconnected(ClientDisconnected),
    KeepAliveChanged(ClientKeepAliveChanged),
    Subscribed(SubscriptionChanged),
    Unsubscribed(SubscriptionChanged),
    Refused(ClientRefused),
    Banned(ClientBanned),
    Started(BrokerStarted),
}

impl Event {
    /// Gives the event to an application.
    pub(crate) fn tell(&self, hooks: &dyn Hooks) {
        match self {
            Self::Connected(event) => hooks.client_connected(event),
            Self::Disconnected(event) => hooks.client_disconnected(event),
            Self::KeepAliveChanged(event) => hooks.client_keep_alive_changed(event),
            Self::Subscribed(event) => hooks.session_subscribed(event),
            Self::Unsubscribed(event) => hooks.session_unsubscribed(event),
            Self::Refused(event) => hooks.client_refused(event),
            Self::Banned(event) => hooks.client_banned(event),
            Self::Started(event) => hooks.broker_started(event),
        }
    }

    /// Returns the place of the event among all events.
    pub(crate) const fn number(&self) -> u64 {
        match self {
            Self::Connected(event) => event.number,
            Self::Disconnected(event) => event.number,
            Self::KeepAliveChanged(event) => event.number,
            Self::Subscribed(event) | Self::Unsubscribed(event) => event.number,
            Self::Refused(event) => event.number,
            Self::Banned(event) => event.number,
            Self::Started(event) => event.number,
        }
    }

    /// Returns the client of the event, and its user. The identifier is empty if no client is known.
    pub(crate) fn client(&self) -> (&str, Option<&str>) {
        let (client_id, username) = match self {
            Self::Connected(event) => (&event.client_id, &event.username),
            Self::Disconnected(event) => (&event.client_id, &event.username),
            Self::KeepAliveChanged(event) => (&event.client_id, &event.username),
            Self::Subscribed(event) | Self::Unsubscribed(event) => {
                (&event.client_id, &event.username)
            }
            // A CONNECT may be refused before the client is known.
            Self::Refused(event) => {
                let client_id = event.client_id.as_deref().unwrap_or_default();
                return (client_id, event.username.as_deref());
            }
            Self::Banned(event) => {
                return (event.client_id().unwrap_or_default(), event.username());
            }
            Self::Started(_) => return ("", None),
        };
        (client_id, username.as_deref())
    }

    /// Returns the bytes of the texts of the event.
    pub(crate) fn text_bytes(&self) -> usize {
        let (client_id, username) = self.client();
        let other = match self {
            Self::Subscribed(event) | Self::Unsubscribed(event) => event.filter.len(),
            Self::Banned(event) => {
                let others =
                    [&event.reason, &event.by].map(|it| it.as_ref().map_or(0, |it| it.len()));
                event.value.len() + others.iter().sum::<usize>()
            }
            Self::Connected(_)
            | Self::Disconnected(_)
            | Self::KeepAliveChanged(_)
            | Self::Refused(_)
            | Self::Started(_) => 0,
        };
        client_id.len() + username.map_or(0, str::len) + other
    }

    /// Returns the event as JSON.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let json = match self {
            Self::Connected(event) => serde_json::to_vec(&connected(event)),
            Self::Disconnected(event) => serde_json::to_vec(&disconnected(event)),
            Self::KeepAliveChanged(event) => serde_json::to_vec(&keep_alive_changed(event)),
            Self::Subscribed(event) => {
                serde_json::to_vec(&subscription_changed("session.subscribed", event))
            }
            Self::Unsubscribed(event) => {
                serde_json::to_vec(&subscription_changed("session.unsubscribed", event))
            }
            Self::Refused(event) => serde_json::to_vec(&refused(event)),
            Self::Banned(event) => serde_json::to_vec(&banned(event)),
            Self::Started(event) => serde_json::to_vec(&started(event)),
        };
        json.expect("texts, numbers and truth values are JSON")
    }
}

/// Milliseconds since the Unix epoch.
type Millis = u64;

#[derive(Serialize)]
struct ConnectedJson<'e> {
    clientid: &'e str,
    username: Option<&'e str>,
    event: &'static str,
    clean_start: bool,
    connected_at: Millis,
    keepalive: u16,
    node: &'e str,
    proto_ver: u8,
    peername: SocketAddr,
    timestamp: Millis,
    version: u64,
    number: u64,
}

fn connected(event: &ClientConnected) -> ConnectedJson<'_> {
    ConnectedJson {
        clientid: &event.client_id,
        username: event.username.as_deref(),
        event: "client.connected",
        clean_start: event.clean_start,
        connected_at: event.connected_at.millis(),
        keepalive: event.keep_alive_secs,
        node: &event.node,
        proto_ver: event.protocol_version.level(),
        peername: event.peer,
        timestamp: event.at.millis(),
        version: event.version,
        number: event.number,
    }
}

#[derive(Serialize)]
struct Disconnected<'e> {
    clientid: &'e str,
    username: Option<&'e str>,
    event: &'static str,
    reason: &'static str,
    node: &'e str,
    peername: SocketAddr,
    connected_at: Millis,
    disconnected_at: Millis,
    timestamp: Millis,
    version: u64,
    number: u64,
}

fn disconnected(event: &ClientDisconnected) -> Disconnected<'_> {
    Disconnected {
        clientid: &event.client_id,
        username: event.username.as_deref(),
        event: "client.disconnected",
        reason: event.reason.name(),
        node: &event.node,
        peername: event.peer,
        connected_at: event.connected_at.millis(),
        disconnected_at: event.at.millis(),
        timestamp: event.at.millis(),
        version: event.version,
        number: event.number,
    }
}

#[derive(Serialize)]
struct KeepAliveChangedJson<'e> {
    clientid: &'e str,
    username: Option<&'e str>,
    event: &'static str,
    old: u16,
    new: u16,
    by: Option<&'e str>,
    timestamp: Millis,
    version: u64,
    number: u64,
}

fn keep_alive_changed(event: &ClientKeepAliveChanged) -> KeepAliveChangedJson<'_> {
    KeepAliveChangedJson {
        clientid: &event.client_id,
        username: event.username.as_deref(),
        event: "client.keepalive_changed",
        old: event.old_secs,
        new: event.new_secs,
        by: event.by.as_deref(),
        timestamp: event.at.millis(),
        version: event.version,
        number: event.number,
    }
}

#[derive(Serialize)]
struct OfSubscription<'e> {
    clientid: &'e str,
    username: Option<&'e str>,
    event: &'static str,
    topic: &'e str,
    qos: u8,
    timestamp: Millis,
    version: u64,
    number: u64,
}

fn subscription_changed<'e>(
    name: &'static str,
    event: &'e SubscriptionChanged,
) -> OfSubscription<'e> {
    OfSubscription {
        clientid: &event.client_id,
        username: event.username.as_deref(),
        event: name,
        topic: &event.filter,
        qos: event.qos.number(),
        timestamp: event.at.millis(),
        version: event.version,
        number: event.number,
    }
}

#[derive(Serialize)]
struct RefusedJson<'e> {
    clientid: Option<&'e str>,
    username: Option<&'e str>,
    event: &'static str,
    reason: &'static str,
    peername: SocketAddr,
    timestamp: Millis,
    number: u64,
}

fn refused(event: &ClientRefused) -> RefusedJson<'_> {
    RefusedJson {
        clientid: event.client_id.as_deref(),
        username: event.username.as_deref(),
        event: "client.refused",
        reason: event.reason,
        peername: event.peer,
        timestamp: event.at.millis(),
        number: event.number,
    }
}

#[derive(Serialize)]
struct BannedJson<'e> {
    clientid: Option<&'e str>,
    username: Option<&'e str>,
    event: &'static str,
    kind: &'static str,
    value: &'e str,
    reason: Option<&'e str>,
    by: Option<&'e str>,
    flapping: bool,
    expires_at: Option<Millis>,
    timestamp: Millis,
    number: u64,
}

fn banned(event: &ClientBanned) -> BannedJson<'_> {
    BannedJson {
        clientid: event.client_id(),
        username: event.username(),
        event: "client.banned",
        kind: event.kind,
        value: &event.value,
        reason: event.reason.as_deref(),
        by: event.by.as_deref(),
        flapping: event.is_for_flapping,
        expires_at: event.expires_at.map(Timestamp::millis),
        timestamp: event.at.millis(),
        number: event.number,
    }
}

#[derive(Serialize)]
struct StartedJson<'e> {
    event: &'static str,
    node: &'e str,
    epoch: String,
    timestamp: Millis,
    number: u64,
}

fn started(event: &BrokerStarted) -> StartedJson<'_> {
    StartedJson {
        event: "broker.started",
        node: &event.node,
        epoch: format!("{:016x}", event.epoch),
        timestamp: event.at.millis(),
        number: event.number,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        hooks::DisconnectReason,
        mqtt::{ProtocolVersion, QoS},
    };

    /// Returns one event of each kind, as `docs/events.md` describes them.
    fn events() -> [Event; 8] {
        let text = |text: &str| Arc::<str>::from(text);
        let (client_id, username) = (text("car-17"), Some(text("ann")));
        let (node, peer) = (text("hearthmq"), "192.0.2.7:49152".parse().unwrap());
        let (version, connected_at) = (18, Timestamp(1_764_321_000_000));
        let subscribed = SubscriptionChanged {
            client_id: client_id.clone(),
            username: username.clone(),
            filter: text("cars/17/#"),
            qos: QoS::AtLeastOnce,
            at: Timestamp(1_764_321_002_000),
            version,
            number: 4_097,
        };
        let at = Timestamp(1_764_321_004_000);
        let unsubscribed = SubscriptionChanged { at, number: 4_098, ..subscribed.clone() };
        let changed = ClientKeepAliveChanged {
            client_id: client_id.clone(),
            username: username.clone(),
            old_secs: 60,
            new_secs: 120,
            by: Some(text("fleet-service")),
            at: Timestamp(1_764_321_030_000),
            version,
            number: 4_099,
        };
        let connected = ClientConnected {
            client_id: client_id.clone(),
            username: username.clone(),
            clean_start: true,
            connected_at,
            keep_alive_secs: 60,
            node: node.clone(),
            protocol_version: ProtocolVersion::V5,
            peer,
            at: connected_at,
            version,
            number: 4_096,
        };
        let disconnected = ClientDisconnected {
            client_id,
            username,
            reason: DisconnectReason::KeepaliveTimeout,
            node,
            peer,
            connected_at,
            at: Timestamp(1_764_321_090_000),
            version,
            number: 4_105,
        };
        [
            Event::Connected(connected),
            Event::Disconnected(disconnected),
            Event::KeepAliveChanged(changed),
            Event::Subscribed(subscribed),
            Event::Unsubscribed(unsubscribed),
            refused(peer),
            banned(),
            started(),
        ]
    }

    fn refused(peer: SocketAddr) -> Event {
        Event::Refused(ClientRefused {
            client_id: Some("car-17".into()),
            username: Some("ann".into()),
            reason: "bad_credentials",
            peer,
            at: Timestamp(1_764_321_095_000),
            number: 4_106,
        })
    }

    fn banned() -> Event {
        Event::Banned(ClientBanned {
            kind: "client_id",
            value: "car-17".into(),
            reason: Some("it connected too often".into()),
            by: None,
            is_for_flapping: true,
            expires_at: Some(Timestamp(1_764_321_396_000)),
            at: Timestamp(1_764_321_096_000),
            number: 4_107,
        })
    }

    fn started() -> Event {
        Event::Started(BrokerStarted {
            node: "hearthmq".into(),
            epoch: 0x5b1e_0c6f_0a93_d724,
            at: Timestamp(1_764_320_000_000),
            number: 1,
        })
    }

    #[test]
    fn events_are_documented_as_they_are_made() {
        let document = include_str!("../../docs/events.md");
        let (text, _) = document.split_once("\n## Webhooks\n").expect("webhooks come last");
        let blocks = text.split("```json\n").skip(1);
        let shown: Vec<String> =
            blocks.map(|block| block.split("\n```").next().unwrap().replace("\n ", "")).collect();
        let made = events().map(|event| String::from_utf8(event.to_json()).unwrap());
        assert_eq!(shown, made);
    }
}
