//! Events of clients and sessions, as an embedding application receives them.
//!
//! `version` orders the events of one client identifier even if they arrive out of order; `number`
//! counts all events. The messages under `$events/…` have the same events as JSON, made in `json`.
//! Knows no shard; the shards create events and call the hooks.

pub(crate) mod json;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    labels::labels,
    mqtt::{ProtocolVersion, QoS, Timestamp},
};

/// Receives events. Called on a shard's thread, so an implementation must return immediately.
///
/// A broker may have several hooks. Each event goes to all of them, in the order in which they were
/// added to the builder, and then to the subscribers of `$events/…`. Hooks only receive: no function
/// has an answer, so nothing that one of them does changes what the others receive or what the
/// broker does. What clients may do is decided by an [`Authorizer`](crate::auth::Authorizer).
pub trait Hooks: Send + Sync + 'static {
    /// CONNACK with success was sent.
    fn client_connected(&self, _event: &ClientConnected) {}
    /// A connection has ended.
    fn client_disconnected(&self, _event: &ClientDisconnected) {}
    /// The Keep Alive of a live connection was changed.
    fn client_keep_alive_changed(&self, _event: &ClientKeepAliveChanged) {}
    /// A Topic Filter was subscribed to.
    fn session_subscribed(&self, _event: &SubscriptionChanged) {}
    /// A Topic Filter was unsubscribed from.
    fn session_unsubscribed(&self, _event: &SubscriptionChanged) {}
    /// A connection was refused. Their number is limited for each address and in all.
    fn client_refused(&self, _event: &ClientRefused) {}
    /// A client, user or network was banned.
    fn client_banned(&self, _event: &ClientBanned) {}
    /// The broker has started, and has the sessions that it had before.
    fn broker_started(&self, _event: &BrokerStarted) {}
}

/// Numbers the events of the whole stream, with 1 first: each event that a hook or a subscriber
/// hears of has the next number. Below 2^53, so that every JSON parser reads it.
pub(crate) trait EventSequence: Send + Sync + 'static {
    /// Returns the number of the next event.
    fn next(&self) -> u64;
}

/// Counts the events since the broker started.
impl EventSequence for AtomicU64 {
    fn next(&self) -> u64 {
        self.fetch_add(1, Ordering::Relaxed) + 1
    }
}

labels! {
    /// Why a connection ended.
    pub enum DisconnectReason {
        /// The client sent DISCONNECT.
        Normal = "normal",
        /// Another connection with the same client identifier took the session over.
        Takeovered = "takeovered",
        /// A caller with the permission closed the connection.
        Kicked = "kicked",
        /// A caller with the permission redirected the client to another server.
        Redirected = "redirected",
        /// No packet arrived within one and a half times the Keep Alive.
        KeepaliveTimeout = "keepalive_timeout",
        /// The connection ended without DISCONNECT.
        TcpClosed = "tcp_closed",
        /// The client violated the protocol.
        ProtocolError = "protocol_error",
        /// The client had no permission for its action.
        NotAuthorized = "not_authorized",
        /// The client, its user or its address was banned.
        Banned = "banned",
        /// The credentials of the client are no longer valid.
        AuthenticationExpired = "authentication_expired",
        /// A limit was exceeded.
        QuotaExceeded = "quota_exceeded",
        /// The broker is shutting down.
        ServerShutdown = "server_shutdown",
        /// The broker had lost its leases in its cluster, and may serve no client until it has joined again.
        Fenced = "fenced",
        /// The broker had an internal error.
        InternalError = "internal_error",
        /// The broker itself ended without ending the connection, for example in a power cut. Only
        /// histories of clients have this reason, after the next start.
        BrokerEnded = "broker_ended",
    }
}

/// A client has connected: CONNACK with success was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientConnected {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// User name.
    pub username: Option<Arc<str>>,
    /// Clean Start; Clean Session in MQTT 3.
    pub clean_start: bool,
    /// When the connection began.
    pub connected_at: Timestamp,
    /// Keep Alive in force, in seconds.
    pub keep_alive_secs: u16,
    /// Name of the broker.
    pub node: Arc<str>,
    /// The version of the connection.
    pub protocol_version: ProtocolVersion,
    /// Address and port of the client.
    pub peer: SocketAddr,
    /// When the event happened.
    pub at: Timestamp,
    /// Increases with each connection of this client identifier, also over restarts of the broker.
    pub version: u64,
    /// The place of the event among all events of the broker since it started, from 1.
    pub number: u64,
}

/// The connection of a client has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientDisconnected {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// User name.
    pub username: Option<Arc<str>>,
    /// Why the connection ended.
    pub reason: DisconnectReason,
    /// Name of the broker.
    pub node: Arc<str>,
    /// Address and port of the client.
    pub peer: SocketAddr,
    /// When the connection began.
    pub connected_at: Timestamp,
    /// When the event happened: when the connection ended.
    pub at: Timestamp,
    /// The `version` of the connection that has ended.
    pub version: u64,
    /// The place of the event among all events of the broker since it started, from 1.
    pub number: u64,
}

/// The Keep Alive of a live connection was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientKeepAliveChanged {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// User name.
    pub username: Option<Arc<str>>,
    /// The previous interval, in seconds.
    pub old_secs: u16,
    /// The new interval, in seconds.
    pub new_secs: u16,
    /// User name of the caller.
    pub by: Option<Arc<str>>,
    /// When the event happened.
    pub at: Timestamp,
    /// The `version` of the connection.
    pub version: u64,
    /// The place of the event among all events of the broker since it started, from 1.
    pub number: u64,
}

/// A subscription was made or has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionChanged {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// User name.
    pub username: Option<Arc<str>>,
    /// Topic Filter, with `$share/{ShareName}/` if it is shared.
    pub filter: Arc<str>,
    /// The granted QoS.
    pub qos: QoS,
    /// When the event happened.
    pub at: Timestamp,
    /// The `version` of the connection.
    pub version: u64,
    /// The place of the event among all events of the broker since it started, from 1.
    pub number: u64,
}

/// A connection was refused before CONNACK with success.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientRefused {
    /// Client Identifier, if the client has named one. It is not verified.
    pub client_id: Option<Arc<str>>,
    /// User name, if the client has named one. It is not verified.
    pub username: Option<Arc<str>>,
    /// Why, by the names of [`ConnectRefusal`](crate::metrics::ConnectRefusal).
    pub reason: &'static str,
    /// Address and port of the client.
    pub peer: SocketAddr,
    /// When the event happened.
    pub at: Timestamp,
    /// The place of the event among all events of the broker since it started, from 1.
    pub number: u64,
}

/// A client, user or network was banned, or its ban was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientBanned {
    /// The kind of the ban: `client_id`, `user` or `address`.
    pub kind: &'static str,
    /// The Client Identifier, the user name, their pattern, or the network.
    pub value: Arc<str>,
    /// Why, for people.
    pub reason: Option<Arc<str>>,
    /// The user name of the caller that has set it.
    pub by: Option<Arc<str>>,
    /// Whether the broker has set it, because the client connected too often.
    pub is_for_flapping: bool,
    /// When it ends; `None` if it does not end by itself.
    pub expires_at: Option<Timestamp>,
    /// When the event happened.
    pub at: Timestamp,
    /// The place of the event among all events of the broker since it started, from 1.
    pub number: u64,
}

impl ClientBanned {
    /// Returns the banned Client Identifier; `None` if the ban is of others, or of a pattern.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        Some(&*self.value).filter(|value| self.kind == "client_id" && !value.contains('*'))
    }

    /// Returns the banned user; `None` if the ban is of others, or of a pattern.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        Some(&*self.value).filter(|value| self.kind == "user" && !value.contains('*'))
    }
}

/// The broker has started. Every client is offline unless a later event says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerStarted {
    /// Name of the broker.
    pub node: Arc<str>,
    /// The epoch in the identifiers of the events of the feed.
    pub epoch: u64,
    /// When the event happened.
    pub at: Timestamp,
    /// The place of the event among all events of the broker since it started, from 1.
    pub number: u64,
}
