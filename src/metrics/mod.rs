//! What the broker counts, and the text that monitoring reads.
//!
//! Each shard counts for itself in a [`ShardMetrics`] that only its own thread writes, so that
//! counting costs a load and a store; a scrape adds the shards up. Actors and `http` count,
//! `http` shows. Nothing here knows what the numbers mean to them.

mod cells;
mod encode;
mod rest;

use std::sync::Arc;

pub use cells::{Counter, Gauge, Label, PerLabel};
pub use encode::CONTENT_TYPE;
pub use rest::{RestMetrics, RestRoute};

use cells::labels;

labels! {
    /// Why a message did not reach a subscriber, or was not taken from a publisher.
    pub enum DropReason {
        /// The subscriber's queue, or all queues together, were full.
        QueueFull = "queue_full",
        /// Its Message Expiry Interval had passed.
        Expired = "expired",
        /// It was larger than the subscriber's Maximum Packet Size.
        PacketTooLarge = "packet_too_large",
        /// The publisher had no permission for the topic.
        NotAuthorized = "not_authorized",
        /// Nobody had subscribed to the topic.
        NoSubscriber = "no_subscriber",
        /// The retained messages were at their limit.
        RetainedFull = "retained_full",
        /// The subscriber's session ended before it was delivered.
        SessionEnded = "session_ended",
    }
}

labels! {
    /// Why somebody who wanted to connect could not.
    pub enum ConnectRefusal {
        /// User name, password or certificate were wrong or missing.
        BadCredentials = "bad_credentials",
        /// Right credentials, but not for this client identifier or from this address.
        NotAuthorized = "not_authorized",
        /// Connections of all clients were at their limit.
        ConnectionsMax = "connections_max",
        /// Connections from the address were at their limit.
        ConnectionsPerAddressMax = "connections_per_address_max",
        /// CONNECTs from the address came too fast.
        ConnectRate = "connect_rate",
        /// No complete CONNECT came in time.
        ConnectTimeout = "connect_timeout",
        /// What came was no CONNECT that the protocol allows.
        Malformed = "malformed",
        /// The TLS handshake failed.
        Tls = "tls",
        /// The broker was shutting down.
        ShuttingDown = "shutting_down",
    }
}

labels! {
    /// Why a connection ended.
    pub enum DisconnectReason {
        /// The client sent DISCONNECT.
        Normal = "normal",
        /// Another connection took its client identifier.
        TakenOver = "takeovered",
        /// Somebody asked for it.
        Kicked = "kicked",
        /// Nothing came within one and a half times the Keep Alive.
        KeepAliveTimeout = "keepalive_timeout",
        /// The socket was closed, or failed, without DISCONNECT.
        TcpClosed = "tcp_closed",
        /// The client broke the protocol.
        ProtocolError = "protocol_error",
        /// The client did what it has no permission for.
        NotAuthorized = "not_authorized",
        /// Its credentials have expired.
        AuthenticationExpired = "authentication_expired",
        /// The client went over a limit.
        QuotaExceeded = "quota_exceeded",
        /// The broker was shutting down.
        ServerShutdown = "server_shutdown",
        /// A mistake of the broker.
        InternalError = "internal_error",
    }
}

/// What one shard counts. Only the shard's own thread may write; anybody may read.
#[derive(Debug, Default)]
pub struct ShardMetrics {
    /// MQTT connections that are online.
    pub connections: Gauge,
    /// Connections that have been accepted, with CONNACK and success.
    pub connects_accepted: Counter,
    /// Connections that have been refused.
    pub connects_refused: PerLabel<ConnectRefusal>,
    /// Connections that have ended.
    pub disconnects: PerLabel<DisconnectReason>,
    /// Sessions, with and without a connection.
    pub sessions: Gauge,
    /// Subscriptions of all sessions.
    pub subscriptions: Gauge,
    /// PUBLISH packets received, by QoS.
    pub messages_received: [Counter; 3],
    /// PUBLISH packets sent, by QoS.
    pub messages_sent: [Counter; 3],
    /// Messages that were dropped.
    pub messages_dropped: PerLabel<DropReason>,
    /// Bytes read from clients (after TLS).
    pub bytes_received: Counter,
    /// Bytes written to clients (before TLS).
    pub bytes_sent: Counter,
    /// Messages waiting for clients.
    pub queue_messages: Gauge,
    /// Bytes of messages waiting for clients.
    pub queue_bytes: Gauge,
    /// Retained messages that this shard has in its care.
    pub retained_messages: Gauge,
    /// Bytes of those.
    pub retained_bytes: Gauge,
}

/// Everything that is counted in one broker.
#[derive(Debug)]
pub struct Metrics {
    shards: Vec<Arc<ShardMetrics>>,
    rest: RestMetrics,
}

impl Metrics {
    /// Zeroes for `shards` shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Arc::default()).collect(),
            rest: RestMetrics::default(),
        }
    }

    /// What shard number `index` writes; `None` if there are fewer.
    #[must_use]
    pub fn shard(&self, index: usize) -> Option<&Arc<ShardMetrics>> {
        self.shards.get(index)
    }

    /// What the REST interface writes.
    #[must_use]
    pub fn rest(&self) -> &RestMetrics {
        &self.rest
    }
}
