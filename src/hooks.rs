//! Events of clients and sessions, passed to hooks and published as JSON under `$events/…`.
//!
//! The fields are those of Tencent Cloud's client events; `version`, by which a receiver can order
//! the events of one client identifier even if they arrive out of order; and `number`, which counts
//! all events.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde::{Serialize, Serializer};

use crate::labels::labels;

/// Receives events. Called on a shard's thread, so an implementation must return immediately.
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
}

/// Numbers the events of the whole stream, with 1 first: each event that a hook or a subscriber
/// hears of has the next number. Below 2^53, so that every JSON parser reads it.
pub trait EventSequence: Send + Sync + 'static {
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
        /// The credentials of the client are no longer valid.
        AuthenticationExpired = "authentication_expired",
        /// A limit was exceeded.
        QuotaExceeded = "quota_exceeded",
        /// The broker is shutting down.
        ServerShutdown = "server_shutdown",
        /// The broker had an internal error.
        InternalError = "internal_error",
    }
}

impl Serialize for DisconnectReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// `$events/client_connected`
#[derive(Clone, Debug, Serialize)]
pub struct ClientConnected {
    /// Client Identifier.
    pub clientid: Arc<str>,
    /// User name.
    pub username: Option<Arc<str>>,
    /// `client.connected`
    pub event: &'static str,
    /// Clean Start.
    pub clean_start: bool,
    /// Milliseconds since the Unix epoch.
    pub connected_at: u64,
    /// Keep Alive in force, in seconds.
    pub keepalive: u16,
    /// Name of the broker.
    pub node: Arc<str>,
    /// 3, 4 or 5.
    pub proto_ver: u8,
    /// Address and port of the client.
    pub peername: Arc<str>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// Increases with each connection of this client identifier.
    pub version: u64,
    /// The place of the event in the stream of all events, see [`EventSequence`].
    pub number: u64,
}

/// `$events/client_disconnected`
#[derive(Clone, Debug, Serialize)]
pub struct ClientDisconnected {
    /// Client Identifier.
    pub clientid: Arc<str>,
    /// User name.
    pub username: Option<Arc<str>>,
    /// `client.disconnected`
    pub event: &'static str,
    /// Why the connection ended.
    pub reason: DisconnectReason,
    /// Name of the broker.
    pub node: Arc<str>,
    /// Address and port of the client.
    pub peername: Arc<str>,
    /// Milliseconds since the Unix epoch.
    pub connected_at: u64,
    /// Milliseconds since the Unix epoch.
    pub disconnected_at: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// The `version` of the connection that has ended.
    pub version: u64,
    /// The place of the event in the stream of all events, see [`EventSequence`].
    pub number: u64,
}

/// `$events/client_keepalive_changed`
#[derive(Clone, Debug, Serialize)]
pub struct ClientKeepAliveChanged {
    /// Client Identifier.
    pub clientid: Arc<str>,
    /// User name.
    pub username: Option<Arc<str>>,
    /// `client.keepalive_changed`
    pub event: &'static str,
    /// The previous interval, in seconds.
    pub old: u16,
    /// The new interval, in seconds.
    pub new: u16,
    /// User name of the caller.
    pub by: Option<Arc<str>>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// The `version` of the connection.
    pub version: u64,
    /// The place of the event in the stream of all events, see [`EventSequence`].
    pub number: u64,
}

/// `$events/session_subscribed` and `$events/session_unsubscribed`
#[derive(Clone, Debug, Serialize)]
pub struct SubscriptionChanged {
    /// Client Identifier.
    pub clientid: Arc<str>,
    /// User name.
    pub username: Option<Arc<str>>,
    /// `session.subscribed` or `session.unsubscribed`
    pub event: &'static str,
    /// Topic Filter.
    pub topic: Arc<str>,
    /// The granted QoS.
    pub qos: u8,
    /// Milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// The `version` of the connection.
    pub version: u64,
    /// The place of the event in the stream of all events, see [`EventSequence`].
    pub number: u64,
}
