//! A client in a list, as JSON with the fields that the caller wants.

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use utoipa::ToSchema;

use crate::control::ClientSummary;

/// A selection of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields(u32);

impl Fields {
    /// The fields in the order in which they are shown. `client_id` is always shown.
    pub(super) const NAMES: &[&str] = &[
        "client_id",
        "online",
        "username",
        "address",
        "listener",
        "node",
        "protocol",
        "keep_alive",
        "connected_at",
        "last_packet_at",
        "session_expiry_interval",
        "expires_at",
        "subscriptions",
        "queued",
        "in_flight",
        "version",
    ];

    pub(super) const ALL: Self = Self(u32::MAX);

    /// Returns the selection of these names; `None` if there is no such field.
    pub(super) fn of<'n>(mut names: impl Iterator<Item = &'n str>) -> Option<Self> {
        names.try_fold(Self(1), |fields, name| {
            let position = Self::NAMES.iter().position(|known| *known == name)?;
            Some(Self(fields.0 | 1 << position))
        })
    }
}

/// A client in a list. Members without a known value, and those that the caller does not want, are left out.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described here; `ShownClient` writes it")]
pub(super) struct ClientInList {
    /// Client Identifier.
    client_id: String,
    /// Whether the client is connected.
    online: Option<bool>,
    /// The user name of the last connection.
    username: Option<String>,
    /// IP address and port of the last connection.
    address: Option<String>,
    /// The URL of the listener of the last connection.
    listener: Option<String>,
    /// The node that has the session.
    node: Option<String>,
    /// The version of a connected client: 3 (MQTT 3.1), 4 (3.1.1) or 5.
    protocol: Option<u8>,
    /// The Keep Alive in force of a connected client, in seconds; 0: off.
    keep_alive: Option<u16>,
    /// When the last connection began, in milliseconds since the Unix epoch.
    connected_at: Option<u64>,
    /// When the last packet of a connected client came, in milliseconds since the Unix epoch.
    last_packet_at: Option<u64>,
    /// Session Expiry Interval in seconds; 4294967295: never.
    session_expiry_interval: Option<u32>,
    /// When the session of an absent client ends, in milliseconds since the Unix epoch.
    expires_at: Option<u64>,
    /// The number of Topic Filters.
    subscriptions: Option<usize>,
    /// The number of messages that wait.
    queued: Option<usize>,
    /// The number of messages that are sent and not acknowledged.
    in_flight: Option<usize>,
    /// The number of connections of the Client Identifier so far.
    version: Option<u64>,
}

/// A client, and the fields to show of it. Members without a known value are left out.
pub(super) struct ShownClient<'a> {
    pub(super) client: &'a ClientSummary,
    pub(super) fields: Fields,
}

impl Serialize for ShownClient<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { client, fields } = self;
        let mut map = serializer.serialize_map(None)?;
        for (position, name) in Fields::NAMES.iter().enumerate() {
            if fields.0 & 1 << position == 0 {
                continue;
            }
            let listener = Some(&client.listener).filter(|url| !url.is_empty());
            let is_peer_known = !client.peer.ip().is_unspecified();
            match *name {
                "client_id" => map.serialize_entry(name, &client.client_id)?,
                "online" => map.serialize_entry(name, &client.online)?,
                "username" => optional(&mut map, name, client.username.as_ref())?,
                "address" => optional(&mut map, name, is_peer_known.then_some(client.peer))?,
                "listener" => optional(&mut map, name, listener)?,
                "node" => map.serialize_entry(name, &client.node)?,
                "protocol" => optional(&mut map, name, client.protocol.map(|it| it.level()))?,
                "keep_alive" => optional(&mut map, name, client.keep_alive_secs)?,
                "connected_at" => map.serialize_entry(name, &client.connected_at_millis)?,
                "last_packet_at" => optional(&mut map, name, client.last_packet_at_millis)?,
                "session_expiry_interval" => {
                    map.serialize_entry(name, &client.session_expiry_secs)?;
                }
                "expires_at" => optional(&mut map, name, client.expires_at_millis)?,
                "subscriptions" => map.serialize_entry(name, &client.subscriptions)?,
                "queued" => map.serialize_entry(name, &client.queued)?,
                "in_flight" => map.serialize_entry(name, &client.in_flight)?,
                _ => map.serialize_entry(name, &client.version)?,
            }
        }
        map.end()
    }
}

fn optional<M: serde::ser::SerializeMap>(
    map: &mut M,
    name: &str,
    value: Option<impl Serialize>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, &value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_chosen_by_name() {
        assert_eq!(Fields::of([].into_iter()), Some(Fields(1)));
        assert_eq!(Fields::of(["online", "client_id"].into_iter()), Some(Fields(0b11)));
        assert_eq!(Fields::of(["online", "password"].into_iter()), None);
        assert_eq!(Fields::of(["Online"].into_iter()), None);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let client = ClientSummary::new("c", "0.0.0.0:0".parse().unwrap());
        let shown = |names: &[&str]| {
            let fields = Fields::of(names.iter().copied()).unwrap();
            serde_json::to_string(&ShownClient { client: &client, fields }).unwrap()
        };
        assert_eq!(shown(&["address", "username", "listener", "protocol"]), r#"{"client_id":"c"}"#);
        assert_eq!(shown(&["queued", "online"]), r#"{"client_id":"c","online":false,"queued":0}"#);
        assert!(
            serde_json::to_string(&ShownClient { client: &client, fields: Fields::ALL }).is_ok()
        );
    }
}
